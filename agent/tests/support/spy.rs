//! The memory datapath behind a handle, so that it outlives its agent, with an eye on what the agent does to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use ringfence_agent::realise::Realised;
use ringfence_datapath::{
    Applied, ApplyError, AttachError, BandReport, Capacity, Datapath, FlowEvent, Hook, MapReader, MemoryDatapath,
    Observation, ObserveError, PacketCounters, PacketKind, ProbeError, ProbeOutcome, ProbePacket, Reading, Tallies,
    Verified,
};
use ringfence_policy::{
    name::Name,
    revision::Revision,
    tables::{EndpointId, TableDiff, Tables},
};
use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct Spy(Arc<Mutex<State>>);

struct State {
    datapath: MemoryDatapath,
    missing: BTreeSet<String>,
    applied: Vec<(Revision, Tables)>,
    uplinks: Vec<(Revision, Vec<String>)>,
    told: Option<watch::Receiver<Realised>>,
    told_early: bool,
    tampered: Option<(Revision, Tables)>,
    problems: Vec<String>,
    host: BTreeSet<IpAddr>,
    /// Reading back comes to no end.
    endless: bool,
    /// Parts that were read.
    parts: u64,
}

impl Spy {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self(Arc::new(Mutex::new(State {
            datapath: MemoryDatapath::new(capacity),
            missing: BTreeSet::new(),
            applied: vec![],
            uplinks: vec![],
            told: None,
            told_early: false,
            tampered: None,
            problems: vec![],
            host: BTreeSet::new(),
            endless: false,
            parts: 0,
        })))
    }

    /// What the agent tells about realised revisions from now on.
    pub(crate) fn watch(&self, told: watch::Receiver<Realised>) {
        self.lock().told = Some(told);
    }

    /// Whether a revision was ever told before the datapath served it.
    pub(crate) fn told_early(&self) -> bool {
        self.lock().told_early
    }

    pub(crate) fn set_missing(&self, interface: &str, missing: bool) {
        let mut state = self.lock();
        if missing {
            state.missing.insert(interface.to_owned())
        } else {
            state.missing.remove(interface)
        };
    }

    /// The host's devices have these addresses from now on.
    pub(crate) fn set_host_addresses(&self, addresses: &[&str]) {
        self.lock().host = addresses.iter().map(|address| address.parse().unwrap()).collect();
    }

    /// Every revision that was ever in force, with its tables.
    pub(crate) fn applied(&self) -> Vec<(Revision, Tables)> {
        self.lock().applied.clone()
    }

    /// The uplinks that were asked for, each time with the revision in force.
    pub(crate) fn uplinks(&self) -> Vec<(Revision, Vec<String>)> {
        self.lock().uplinks.clone()
    }

    pub(crate) fn observed(&self) -> (Revision, Tables) {
        let observation = self.lock().datapath.observe().unwrap();
        (observation.revision, observation.tables)
    }

    /// What the datapath counted beside packets.
    pub(crate) fn tallies(&self) -> Tallies {
        self.lock().datapath.counters().unwrap().1
    }

    /// Lets `packets` begin connections to ports that nothing allows, as fast as it goes.
    pub(crate) fn flood(&self, source: &str, destination: &str, packets: u64) {
        let mut state = self.lock();
        let endpoints: Vec<EndpointId> = state.datapath.attached().into_values().collect();
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let tables = state.datapath.observe().unwrap().tables;
        let sender = endpoints.iter().find(|id| tables.addresses[&source].endpoint == Some(**id)).copied().unwrap();
        for number in 0..packets {
            let packet = ProbePacket {
                source,
                destination,
                protocol: 17,
                source_port: u16::try_from(number % 60_000).unwrap(),
                destination_port: 1,
                kind: PacketKind::Data,
                judged: false,
            };
            assert!(!state.datapath.probe(Hook::FromEndpoint, sender, &packet).unwrap().allowed);
            if number % 1000 == 999 {
                // Somebody else's turn: the agent's, which takes events.
                drop(state);
                std::thread::yield_now();
                state = self.lock();
            }
        }
    }

    /// Somebody else changes what packets are judged by, in both sets: all rows go.
    pub(crate) fn tamper(&self) {
        let mut state = self.lock();
        let observation = state.datapath.observe().unwrap();
        let mut changed = observation.tables.clone();
        changed.endpoints.clear();
        state.datapath.apply(observation.revision, &observation.tables.diff(&changed)).unwrap();
        let observation = state.datapath.observe().unwrap();
        state.tampered = Some((observation.revision, observation.tables));
    }

    /// What `tamper` made of it.
    pub(crate) fn tampered(&self) -> (Revision, Tables) {
        self.lock().tampered.clone().unwrap()
    }

    /// Problems that were told while `verify` found something.
    pub(crate) fn told_problems(&self) -> Vec<String> {
        let state = self.lock();
        state.problems.clone()
    }

    /// From now on, reading back comes to no end, or does again.
    pub(crate) fn set_endless(&self, endless: bool) {
        self.lock().endless = endless;
    }

    /// Parts of the maps that were read back.
    pub(crate) fn parts(&self) -> u64 {
        self.lock().parts
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl Datapath for Spy {
    fn attach(&mut self, name: &Name, interface: &str) -> Result<EndpointId, AttachError> {
        let mut state = self.lock();
        if state.missing.contains(interface) {
            return Err(AttachError::NoInterface { name: name.clone(), interface: interface.to_owned() });
        }
        state.datapath.attach(name, interface)
    }

    fn detach(&mut self, name: &Name) -> Result<(), AttachError> {
        self.lock().datapath.detach(name)
    }

    fn attached(&self) -> BTreeMap<Name, EndpointId> {
        self.lock().datapath.attached()
    }

    fn host_addresses(&self) -> std::io::Result<BTreeSet<IpAddr>> {
        Ok(self.lock().host.clone())
    }

    fn set_uplinks(&mut self, interfaces: &[String]) -> Result<(), AttachError> {
        let mut state = self.lock();
        if let Some(missing) = interfaces.iter().find(|interface| state.missing.contains(*interface)) {
            return Err(AttachError::NoInterface { name: Name::new("uplink").unwrap(), interface: missing.clone() });
        }
        let revision = state.datapath.observe().unwrap().revision;
        state.uplinks.push((revision, interfaces.to_vec()));
        Ok(())
    }

    fn apply(&mut self, revision: Revision, diff: &TableDiff) -> Result<Applied, ApplyError> {
        let mut state = self.lock();
        let before = state.datapath.observe().unwrap().revision;
        let applied = state.datapath.apply(revision, diff)?;
        // The agent still waits for the answer: what it has told until now must be an older revision.
        let told = state.told.as_ref().map(|told| told.borrow().revision);
        state.told_early |= told.is_some_and(|told| told > before);
        let tables = state.datapath.observe().unwrap().tables;
        state.applied.push((revision, tables));
        Ok(applied)
    }

    fn observe(&self) -> Result<Observation, ObserveError> {
        self.lock().datapath.observe()
    }

    fn verify(&mut self, expected: &Tables) -> Result<Verified, ApplyError> {
        let mut state = self.lock();
        // What was told after the run before this one.
        let told = state.told.as_ref().map(|told| told.borrow().problems.clone()).unwrap_or_default();
        state.problems.extend(told);
        state.datapath.verify(expected)
    }

    fn verify_part(&mut self, expected: &Tables, _reading: &mut Reading) -> Result<Option<Verified>, ApplyError> {
        let endless = {
            let mut state = self.lock();
            state.parts += 1;
            state.endless
        };
        if endless { Ok(None) } else { self.verify(expected).map(Some) }
    }

    fn events(&mut self, take: &mut dyn FnMut(FlowEvent)) -> Result<(), ObserveError> {
        self.lock().datapath.events(take)
    }

    fn bands(&self) -> Result<Vec<BandReport>, ObserveError> {
        self.lock().datapath.bands()
    }

    fn counters(&self) -> Result<(PacketCounters, Tallies), ObserveError> {
        self.lock().datapath.counters()
    }

    fn reader(&self) -> Result<Box<dyn MapReader>, ObserveError> {
        self.lock().datapath.reader()
    }

    fn now_ns(&self) -> u64 {
        self.lock().datapath.now_ns()
    }

    fn probe(&mut self, hook: Hook, endpoint: EndpointId, packet: &ProbePacket) -> Result<ProbeOutcome, ProbeError> {
        self.lock().datapath.probe(hook, endpoint, packet)
    }

    fn kind(&self) -> &'static str {
        "memory"
    }
}
