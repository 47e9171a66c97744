//! The datapath without a kernel: the same tables, the same flip, the same `decide`, packets by `probe` only.

mod reader;
mod sets;
mod state;

use std::{collections::BTreeMap, time::Instant};

use ringfence_ebpf_common::{Event, Hook, Packet, Work, decide};
use ringfence_policy::{
    name::Name,
    revision::Revision,
    tables::{EndpointId, TableDiff, Tables},
};

use crate::{
    capacity::Capacity,
    datapath::{Applied, Datapath, Observation, PacketCounters, Tallies, Verified},
    error::{ApplyError, AttachError, ObserveError, ProbeError},
    flip::{Flip, Reading},
    probe::{ProbeOutcome, ProbePacket},
    read::{Head, MapReader},
    report::{self, BandReport, FlowEvent},
};

pub(crate) use sets::MemorySets;

use reader::MemoryReader;

/// What a probe counts for: an Ethernet and an IPv4 header.
const PROBE_BYTES: u64 = 34;

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
            next_endpoint: EndpointId::HOST.0 + 1,
            packets: PacketCounters::default(),
            started: Instant::now(),
        }
    }
}

impl MemoryDatapath {
    /// Judges one packet as a parser found it; it is counted and remembered.
    pub fn judge(&mut self, hook: Hook, endpoint: EndpointId, packet: Packet) -> ProbeOutcome {
        let now_ns = self.now_ns();
        let generation = self.flip.generation();
        let revision = self.flip.revision().unwrap_or_default().0;
        let (mut work, sets) = (Work::new(packet), self.flip.sets_mut());
        work.now_ns = now_ns;
        decide(&mut sets.state(now_ns), generation, hook, endpoint.0, &mut work);
        let (shared, decision) = (sets.shared_mut(), work.decision);
        shared.count(&decision, PROBE_BYTES);
        if decision.tell {
            shared.tell(Event::new(revision, hook, &work));
        }
        self.packets.add(decision.reason, 1);
        ProbeOutcome { allowed: decision.allow, reason: decision.reason, judged_both: decision.judged_both }
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
        let applied = self.flip.apply(revision, diff)?;
        if !diff.endpoints.is_empty() {
            // Not worth failing for: what cannot be read now is freed with the next change.
            let tables = self.flip.tables().unwrap_or_default();
            let stays = |owner| report::policy_of(owner).is_some_and(|policy| report::has_policy(&tables, policy));
            self.flip.sets_mut().shared_mut().free_bands(stays);
        }
        Ok(applied)
    }

    fn observe(&self) -> Result<Observation, ObserveError> {
        Ok(Observation {
            revision: self.flip.revision()?,
            generation: self.flip.generation(),
            tables: self.flip.tables()?,
            packets: self.packets,
            tallies: self.flip.sets().shared().tallies,
        })
    }

    fn verify(&mut self, expected: &Tables) -> Result<Verified, ApplyError> {
        self.flip.verify(expected)
    }

    fn verify_part(&mut self, expected: &Tables, reading: &mut Reading) -> Result<Option<Verified>, ApplyError> {
        self.flip.verify_part(expected, reading)
    }

    fn events(&mut self, take: &mut dyn FnMut(FlowEvent)) -> Result<(), ObserveError> {
        let events = std::mem::take(&mut self.flip.sets_mut().shared_mut().events);
        events.iter().filter_map(FlowEvent::new).for_each(take);
        Ok(())
    }

    fn bands(&self) -> Result<Vec<BandReport>, ObserveError> {
        Ok(self.flip.sets().shared().bands().map(|(owner, counter)| BandReport::new(owner, counter)).collect())
    }

    fn counters(&self) -> Result<(PacketCounters, Tallies), ObserveError> {
        Ok((self.packets, self.flip.sets().shared().tallies))
    }

    fn reader(&self) -> Result<Box<dyn MapReader>, ObserveError> {
        let head = Head { generation: self.flip.generation(), revision: self.flip.revision()?, now_ns: self.now_ns() };
        Ok(Box::new(MemoryReader::new(head, self.flip.active()?, self.flip.sets().shared())))
    }

    fn now_ns(&self) -> u64 {
        // A minute is the shortest life of an entry, six hours the longest: 584 years of nanoseconds are enough.
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn probe(&mut self, hook: Hook, endpoint: EndpointId, packet: &ProbePacket) -> Result<ProbeOutcome, ProbeError> {
        Ok(self.judge(hook, endpoint, packet.packet()?))
    }

    fn kind(&self) -> &'static str {
        "memory"
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ringfence_policy::{
        flow::{Direction, protocol},
        identity::Identity,
        tables::{AddressEntry, Class, EndpointEntry, Interval, PolicyId, PortsKey, PortsOfProtocol, Row, RowKey},
    };

    use super::*;
    use crate::{PacketKind, Reason};

    const OWN: [u8; 4] = [10, 0, 0, 1];

    /// One endpoint, whose policy says this of port 80 to anyone.
    fn tables(endpoint: EndpointId, class: Class) -> Tables {
        let (identity, policy, direction) = (Identity::from_bits(0x0010_0001), PolicyId(1), Direction::Egress);
        let mut tables = Tables::default();
        tables.addresses.insert(IpAddr::from(OWN), AddressEntry { identity, endpoint: Some(endpoint) });
        tables.endpoints.insert(endpoint, EndpointEntry { identity, policy, shadow: None, audit: false });
        let bands = [(0, 0), (80, 1), (81, 0)].map(|(first, band)| Interval { first, band });
        let ports = PortsKey { policy, direction, protocol: protocol::TCP };
        tables.ports.insert(ports, PortsOfProtocol::new(bands).unwrap());
        let mut row = Row::default();
        row.set(1, class);
        tables.rows.insert(RowKey::of(policy, direction, Identity::UNKNOWN, 1), row);
        tables
    }

    #[test]
    fn answers_are_remembered_of_one_generation_and_of_own_addresses() {
        let mut datapath = MemoryDatapath::default();
        let endpoint = datapath.attach(&Name::new("pod").unwrap(), "ep0").unwrap();
        let [allows, denies] = [Class::Allow, Class::Deny].map(|class| tables(endpoint, class));
        let ask = |datapath: &mut MemoryDatapath, source: [u8; 4], source_port| {
            let packet = ProbePacket {
                source: source.into(),
                destination: [192, 0, 2, 1].into(),
                protocol: protocol::TCP,
                source_port,
                destination_port: 80,
                kind: PacketKind::Open,
                judged: false,
            };
            let reason = datapath.probe(Hook::FromEndpoint, endpoint, &packet).unwrap().reason;
            (reason, datapath.flip.sets().shared().answers())
        };
        datapath.apply(Revision(1), &Tables::default().diff(&allows)).unwrap();
        for last in 2..200 {
            assert_eq!(ask(&mut datapath, [10, 0, 0, last], 1), (Reason::Spoofed, 0), "it would take somebody's place");
        }
        assert_eq!(ask(&mut datapath, OWN, 1), (Reason::New, 1));
        assert_eq!(ask(&mut datapath, OWN, 2), (Reason::New, 1));
        datapath.apply(Revision(2), &allows.diff(&denies)).unwrap();
        assert_eq!(ask(&mut datapath, OWN, 3), (Reason::DenyExplicit, 1));
        // The same set again, two generations later.
        datapath.apply(Revision(3), &denies.diff(&allows)).unwrap();
        assert_eq!(ask(&mut datapath, OWN, 4), (Reason::New, 1));
    }
}
