//! `ReadMaps`: what the datapath's maps hold, decoded, in pieces.
//!
//! ```text
//! MapReader (maps opened a second time) ─ a thread of its own ─► pieces ─ short queue ─► who asked
//! ```
//!
//! Whoever asks slowly holds up that thread only: neither the datapath's owner nor packets.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use ringfence_datapath::{BandCounter, Connection, Head, MapReader, ObserveError};
use ringfence_policy::{
    cidr::Cidr,
    flow::Direction,
    identity::Identity,
    tables::{BANDS_PER_ROW, Class, EndpointId, PolicyId, PortsKey, PortsOfProtocol, Row, RowKey},
};
use ringfence_proto::v1::{self, DatapathMap, map_entry::Entry};
use tokio::sync::mpsc;
use tonic::Status;

use crate::monitor::{End, InvalidFilter, Words, direction, end, range};

/// Pieces that wait for who asked.
pub(crate) const QUEUE: usize = 4;
/// Readings at a time: each one holds a thread.
pub(crate) const READINGS: usize = 8;
/// Entries of one piece.
const ENTRIES: usize = 256;

/// Which map, and which of its entries.
pub(crate) struct Question {
    map: DatapathMap,
    endpoint: Option<EndpointId>,
    policy: Option<PolicyId>,
    range: Option<Cidr>,
    peer: Option<End>,
    direction: Option<Direction>,
}

/// A question cannot be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidQuestion {
    #[error("map: give one of ipcache, policy, connections, endpoints")]
    Map,
    #[error("{field}: {map} entries have none: leave it out")]
    Field { field: &'static str, map: &'static str },
    #[error("peer: give an identity or labels")]
    Peer,
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
}

/// Entries on their way to who asked.
struct Pieces {
    entries: Vec<v1::MapEntry>,
    answers: mpsc::Sender<Result<v1::ReadMapsResponse, Status>>,
}

impl Question {
    /// Reads what is asked.
    ///
    /// # Errors
    /// `InvalidQuestion` for the first field that is wrong, or that the map does not have.
    pub(crate) fn new(request: &v1::ReadMapsRequest, words: &Words) -> Result<Self, InvalidQuestion> {
        // Which fields a map has: endpoint, policy, range, peer, direction.
        let (name, has) = match request.map() {
            DatapathMap::Unspecified => return Err(InvalidQuestion::Map),
            DatapathMap::Ipcache => ("ipcache", [true, false, true, true, false]),
            DatapathMap::Policy => ("policy", [true, true, false, true, true]),
            DatapathMap::Connections => ("connection", [true, false, true, false, true]),
            DatapathMap::Endpoints => ("endpoint", [true, true, false, true, false]),
        };
        let given = [
            ("endpoint", !request.endpoint.is_empty()),
            ("policy", request.policy != 0),
            ("range", !request.range.is_empty()),
            ("peer", request.peer.is_some()),
            ("direction", !request.direction.is_empty()),
        ];
        if let Some(((field, _), _)) = given.into_iter().zip(has).find(|((_, given), has)| *given && !has) {
            return Err(InvalidQuestion::Field { field, map: name });
        }
        let endpoint = || v1::FlowEnd { end: Some(v1::flow_end::End::Endpoint(request.endpoint.clone())) };
        let endpoint = if request.endpoint.is_empty() { None } else { Some(end("endpoint", &endpoint(), words)?) };
        let peer = request.peer.as_ref().map(|peer| end("peer", peer, words)).transpose()?;
        if matches!(peer, Some(End::Range(_) | End::Endpoint(_))) {
            return Err(InvalidQuestion::Peer);
        }
        Ok(Self {
            map: request.map(),
            endpoint: endpoint.and_then(|end| if let End::Endpoint(id) = end { Some(id) } else { None }),
            policy: (request.policy != 0).then_some(PolicyId(request.policy)),
            range: if request.range.is_empty() { None } else { Some(range("range", &request.range)?) },
            peer,
            direction: if request.direction.is_empty() { None } else { Some(direction(&request.direction)?) },
        })
    }

    /// Reads and answers to the end, or until who asked goes away. Blocks.
    pub(crate) fn answer(
        &self,
        reader: &dyn MapReader,
        words: &mut Words,
        answers: mpsc::Sender<Result<v1::ReadMapsResponse, Status>>,
    ) {
        let mut pieces = Pieces { entries: Vec::new(), answers };
        let last = match self.read(reader, words, &mut pieces) {
            Ok(end) => {
                let entries = std::mem::take(&mut pieces.entries);
                Ok(v1::ReadMapsResponse { entries, end: Some(end) })
            }
            Err(error) => Err(Status::internal(error.to_string())),
        };
        // Who asked may have gone away.
        drop(pieces.answers.blocking_send(last));
    }

    fn read(
        &self,
        reader: &dyn MapReader,
        words: &mut Words,
        pieces: &mut Pieces,
    ) -> Result<v1::ReadMapsEnd, ObserveError> {
        let head = reader.head()?;
        let strays = match self.map {
            DatapathMap::Ipcache => self.ipcache(reader, words, pieces)?,
            DatapathMap::Policy => self.policy(reader, words, pieces)?,
            DatapathMap::Connections => self.connections(reader, head, words, pieces)?,
            DatapathMap::Endpoints | DatapathMap::Unspecified => self.endpoints(reader, words, pieces)?,
        };
        Ok(v1::ReadMapsEnd {
            revision: head.revision.0,
            revision_after: reader.head()?.revision.0,
            generation: head.generation,
            strays: strays as u64,
        })
    }

    fn ipcache(&self, reader: &dyn MapReader, words: &mut Words, pieces: &mut Pieces) -> Result<usize, ObserveError> {
        let addresses = reader.addresses(&mut |(address, entry)| {
            let here = Cidr::host(address);
            let wanted = self.covers(&here) && self.is_peer(entry.identity, words);
            if !wanted || self.endpoint.is_some() && self.endpoint != entry.endpoint {
                return ControlFlow::Continue(());
            }
            pieces.take(Entry::Ipcache(v1::IpcacheEntry {
                prefix: address.to_string(),
                identity: entry.identity.bits(),
                labels: words.labels(entry.identity).1.clone(),
                endpoint: entry.endpoint.map(|id| words.name(id)).unwrap_or_default(),
            }))
        })?;
        let ranges = reader.ranges(&mut |(range, identity)| {
            if !self.covers(&range) || !self.is_peer(identity, words) || self.endpoint.is_some() {
                return ControlFlow::Continue(());
            }
            pieces.take(Entry::Ipcache(v1::IpcacheEntry {
                prefix: range.to_string(),
                identity: identity.bits(),
                labels: words.labels(identity).1.clone(),
                endpoint: String::new(),
            }))
        })?;
        Ok(addresses + ranges)
    }

    fn policy(&self, reader: &dyn MapReader, words: &mut Words, pieces: &mut Pieces) -> Result<usize, ObserveError> {
        let uses = Uses::read(reader)?;
        let wanted = |policy: PolicyId| {
            let of_endpoint = self.endpoint.is_none_or(|id| uses.has(id, policy));
            of_endpoint && self.policy.is_none_or(|wanted| wanted == policy)
        };
        let mut ports: BTreeMap<(PolicyId, Direction, u16), Vec<v1::PortRange>> = BTreeMap::new();
        let directories = reader.ports(&mut |(key, said)| {
            if wanted(key.policy) {
                note_ports(&mut ports, key, &said);
            }
            ControlFlow::Continue(())
        })?;
        let counters = reader.bands()?.into_iter().filter_map(|report| Some((report.band?, report.counter)));
        let counters: BTreeMap<(PolicyId, Direction, u16), BandCounter> = counters.collect();
        let rows = reader.rows(&mut |(key, row): (RowKey, Row)| {
            let here = self.direction.is_none_or(|direction| direction == key.direction);
            if !wanted(key.policy) || !here || !self.is_peer(key.peer, words) {
                return ControlFlow::Continue(());
            }
            for bit in 0..BANDS_PER_ROW {
                let Some(class) = row.class(bit) else { continue };
                let band = key.chunk.saturating_mul(BANDS_PER_ROW).saturating_add(bit);
                let place = (key.policy, key.direction, band);
                let entry = v1::PolicyEntry {
                    policy: key.policy.0,
                    endpoints: Uses::names(&uses.policy, key.policy, words),
                    shadow_of: Uses::names(&uses.shadow, key.policy, words),
                    direction: key.direction.to_string(),
                    peer: key.peer.bits(),
                    labels: words.labels(key.peer).1.clone(),
                    verdict: verdict(class).to_owned(),
                    band: band.into(),
                    ports: ports.get(&place).cloned().unwrap_or_default(),
                    packets: counters.get(&place).map(packets),
                };
                pieces.take(Entry::Policy(entry))?;
            }
            ControlFlow::Continue(())
        })?;
        Ok(directories + rows)
    }

    fn connections(
        &self,
        reader: &dyn MapReader,
        head: Head,
        words: &mut Words,
        pieces: &mut Pieces,
    ) -> Result<usize, ObserveError> {
        reader.connections(&mut |connection: Connection| {
            let ends = [connection.local.0, connection.remote.0].map(Cidr::host);
            let wanted = self.endpoint.is_none_or(|id| id == connection.endpoint)
                && self.direction.is_none_or(|direction| direction == connection.direction)
                && self.range.is_none_or(|range| ends.iter().any(|end| range.covers(end)));
            if !wanted {
                return ControlFlow::Continue(());
            }
            pieces.take(Entry::Connection(v1::ConnectionEntry {
                endpoint: words.name(connection.endpoint),
                local_address: connection.local.0.to_string(),
                local_port: connection.local.1.into(),
                remote_address: connection.remote.0.to_string(),
                remote_port: connection.remote.1.into(),
                protocol: connection.protocol.into(),
                direction: connection.direction.to_string(),
                phase: connection.phase.name().to_owned(),
                idle_ms: head.now_ns.saturating_sub(connection.last_seen_ns) / 1_000_000,
                current: connection.generation == head.generation,
                peer_endpoint: peer(&connection, words),
                generation: connection.generation,
            }))
        })?;
        Ok(0)
    }

    fn endpoints(&self, reader: &dyn MapReader, words: &mut Words, pieces: &mut Pieces) -> Result<usize, ObserveError> {
        reader.endpoints(&mut |(id, entry)| {
            let policies = [Some(entry.policy), entry.shadow];
            let wanted = self.endpoint.is_none_or(|endpoint| endpoint == id)
                && self.policy.is_none_or(|policy| policies.contains(&Some(policy)))
                && self.is_peer(entry.identity, words);
            if !wanted {
                return ControlFlow::Continue(());
            }
            pieces.take(Entry::Endpoint(v1::EndpointMapEntry {
                id: id.0,
                name: words.known_name(id),
                identity: entry.identity.bits(),
                labels: words.labels(entry.identity).1.clone(),
                policy: entry.policy.0,
                shadow: entry.shadow.map_or(0, |shadow| shadow.0),
                audit: entry.audit,
            }))
        })
    }

    /// Addresses inside the range, and ranges around it.
    fn covers(&self, other: &Cidr) -> bool {
        self.range.is_none_or(|range| range.covers(other) || other.covers(&range))
    }

    fn is_peer(&self, identity: Identity, words: &mut Words) -> bool {
        let Some(peer) = &self.peer else { return true };
        peer.means(identity, &words.labels(identity).0).unwrap_or(true)
    }
}

impl Pieces {
    /// Breaks once nobody wants more.
    fn take(&mut self, entry: Entry) -> ControlFlow<()> {
        self.entries.push(v1::MapEntry { entry: Some(entry) });
        if self.entries.len() < ENTRIES {
            return ControlFlow::Continue(());
        }
        let entries = std::mem::take(&mut self.entries);
        match self.answers.blocking_send(Ok(v1::ReadMapsResponse { entries, end: None })) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// Who is judged by which policy.
struct Uses {
    policy: BTreeMap<PolicyId, BTreeSet<EndpointId>>,
    shadow: BTreeMap<PolicyId, BTreeSet<EndpointId>>,
}

impl Uses {
    fn read(reader: &dyn MapReader) -> Result<Self, ObserveError> {
        let mut uses = Self { policy: BTreeMap::new(), shadow: BTreeMap::new() };
        reader.endpoints(&mut |(id, entry)| {
            uses.policy.entry(entry.policy).or_default().insert(id);
            if let Some(shadow) = entry.shadow {
                uses.shadow.entry(shadow).or_default().insert(id);
            }
            ControlFlow::Continue(())
        })?;
        Ok(uses)
    }

    fn has(&self, id: EndpointId, policy: PolicyId) -> bool {
        [&self.policy, &self.shadow].iter().any(|uses| uses.get(&policy).is_some_and(|ids| ids.contains(&id)))
    }

    fn names(uses: &BTreeMap<PolicyId, BTreeSet<EndpointId>>, policy: PolicyId, words: &Words) -> Vec<String> {
        uses.get(&policy).into_iter().flatten().map(|id| words.name(*id)).collect()
    }
}

/// The name of the endpoint at the other side, if that is on this node.
fn peer(connection: &Connection, words: &Words) -> String {
    let at = || words.at(connection.remote.0).map(|id| words.name(id));
    connection.peer_is_local.then(at).flatten().unwrap_or_default()
}

/// The ports of each band but 0, which has what is left.
fn note_ports(
    ports: &mut BTreeMap<(PolicyId, Direction, u16), Vec<v1::PortRange>>,
    key: PortsKey,
    said: &PortsOfProtocol,
) {
    let intervals = said.intervals();
    for (index, interval) in intervals.iter().enumerate().filter(|(_, interval)| interval.band != 0) {
        let last = intervals.get(index + 1).map_or(u16::MAX, |next| next.first - 1);
        let range = v1::PortRange { protocol: key.protocol.into(), first: interval.first.into(), last: last.into() };
        ports.entry((key.policy, key.direction, interval.band)).or_default().push(range);
    }
}

const fn verdict(class: Class) -> &'static str {
    match class {
        Class::Allow => "allow",
        Class::Redirect => "redirect",
        Class::Deny => "deny",
    }
}

fn packets(counter: &BandCounter) -> v1::BandPackets {
    v1::BandPackets {
        allowed_packets: counter.allowed_packets,
        allowed_bytes: counter.allowed_bytes,
        refused_packets: counter.refused_packets,
        refused_bytes: counter.refused_bytes,
    }
}
