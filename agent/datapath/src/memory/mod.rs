//! The datapath without a kernel: the same tables, the same flip, the same `decide`, packets by `probe` only.

mod sets;

use std::{collections::BTreeMap, time::Instant};

use ringfence_ebpf_common::{Hook, decide};
use ringfence_policy::{
    name::Name,
    revision::Revision,
    tables::{EndpointId, TableDiff},
};

use crate::{
    capacity::Capacity,
    datapath::{Applied, Datapath, Observation, PacketCounters},
    error::{ApplyError, AttachError, ObserveError, ProbeError},
    flip::Flip,
    probe::{ProbeOutcome, ProbePacket},
};

pub(crate) use sets::MemorySets;

/// Tables in ordered maps. It judges no real packet.
pub struct MemoryDatapath {
    flip: Flip<MemorySets>,
    endpoints: BTreeMap<Name, (EndpointId, String)>,
    next_endpoint: u32,
    packets: PacketCounters,
    started: Instant,
}

impl MemoryDatapath {
    /// Empty tables at revision 0: every packet of every endpoint is refused.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self {
            flip: Flip::adopt(MemorySets::new(capacity)),
            endpoints: BTreeMap::new(),
            next_endpoint: 1,
            packets: PacketCounters::default(),
            started: Instant::now(),
        }
    }
}

impl Default for MemoryDatapath {
    fn default() -> Self {
        Self::new(Capacity::default())
    }
}

impl Datapath for MemoryDatapath {
    fn attach(&mut self, name: &Name, interface: &str) -> Result<EndpointId, AttachError> {
        if let Some((id, attached)) = self.endpoints.get(name) {
            if attached == interface {
                return Ok(*id);
            }
            return Err(AttachError::Elsewhere { name: name.clone(), attached: *id, interface: interface.to_owned() });
        }
        if let Some((owner, _)) = self.endpoints.iter().find(|(_, (_, taken))| taken == interface) {
            let (name, owner) = (name.clone(), owner.clone());
            return Err(AttachError::Taken { name, interface: interface.to_owned(), owner });
        }
        let id = EndpointId(self.next_endpoint);
        self.next_endpoint += 1;
        self.endpoints.insert(name.clone(), (id, interface.to_owned()));
        Ok(id)
    }

    fn detach(&mut self, name: &Name) -> Result<(), AttachError> {
        match self.endpoints.remove(name) {
            Some(_) => Ok(()),
            None => Err(AttachError::NotAttached { name: name.clone() }),
        }
    }

    fn attached(&self) -> BTreeMap<Name, EndpointId> {
        self.endpoints.iter().map(|(name, (id, _))| (name.clone(), *id)).collect()
    }

    fn apply(&mut self, revision: Revision, diff: &TableDiff) -> Result<Applied, ApplyError> {
        self.flip.apply(revision, diff)
    }

    fn observe(&self) -> Result<Observation, ObserveError> {
        Ok(Observation {
            revision: self.flip.revision()?,
            generation: self.flip.generation(),
            tables: self.flip.tables()?,
            packets: self.packets,
        })
    }

    fn probe(&mut self, hook: Hook, endpoint: EndpointId, packet: &ProbePacket) -> Result<ProbeOutcome, ProbeError> {
        let packet = packet.packet()?;
        // A minute is the shortest life of an entry, six hours the longest: 584 years of nanoseconds are enough.
        let now_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let generation = self.flip.generation();
        let mut state = self.flip.sets_mut().state();
        let decision = decide(&mut state, generation, now_ns, hook, endpoint.0, &packet);
        self.packets.add(decision.reason, 1);
        Ok(ProbeOutcome { allowed: decision.allow, reason: decision.reason, judged_both: decision.judged_both })
    }

    fn kind(&self) -> &'static str {
        "memory"
    }
}
