//! Reading what packets are judged by, entry by entry, beside the one writer.

use std::{net::IpAddr, ops::ControlFlow};

use ringfence_ebpf_common::{FLOW_CLOSING, FLOW_ESTABLISHED, FLOW_TICK_NS, Flow, FlowKey};
use ringfence_policy::{
    cidr::Cidr,
    flow::Direction,
    identity::Identity,
    revision::Revision,
    tables::{AddressEntry, EndpointEntry, EndpointId, PortsKey, PortsOfProtocol, Row, RowKey},
};

use crate::{encode, error::ObserveError, report::BandReport};

/// Takes one entry after the other, until it breaks.
pub type Take<'t, T> = &'t mut dyn FnMut(T) -> ControlFlow<()>;

/// Reads the datapath's maps without stopping its writer or packets: large ones need not be held at once, and a slow
/// taker holds up nobody.
///
/// Each call reads the set that packets read when it begins. While it goes on, revisions may move: compare `head` before
/// and after. Calls that read a set answer how many entries they left out because Ringfence never writes such ones.
pub trait MapReader: Send {
    /// What packets read now.
    ///
    /// # Errors
    /// `ObserveError::Map`.
    fn head(&self) -> Result<Head, ObserveError>;

    /// Exact addresses.
    ///
    /// # Errors
    /// `ObserveError::Read`.
    fn addresses(&self, take: Take<'_, (IpAddr, AddressEntry)>) -> Result<usize, ObserveError>;

    /// Address ranges.
    ///
    /// # Errors
    /// `ObserveError::Read`.
    fn ranges(&self, take: Take<'_, (Cidr, Identity)>) -> Result<usize, ObserveError>;

    /// Endpoints of this node.
    ///
    /// # Errors
    /// `ObserveError::Read`.
    fn endpoints(&self, take: Take<'_, (EndpointId, EndpointEntry)>) -> Result<usize, ObserveError>;

    /// Bands of ports.
    ///
    /// # Errors
    /// `ObserveError::Read`.
    fn ports(&self, take: Take<'_, (PortsKey, PortsOfProtocol)>) -> Result<usize, ObserveError>;

    /// What policies say of peers.
    ///
    /// # Errors
    /// `ObserveError::Read`.
    fn rows(&self, take: Take<'_, (RowKey, Row)>) -> Result<usize, ObserveError>;

    /// Packets by band.
    ///
    /// # Errors
    /// `ObserveError::Map`.
    fn bands(&self) -> Result<Vec<BandReport>, ObserveError>;

    /// Connections, each as far as it is whole when it is read.
    ///
    /// # Errors
    /// `ObserveError::Map`.
    fn connections(&self, take: Take<'_, Connection>) -> Result<(), ObserveError>;
}

/// What packets read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The generation.
    pub generation: u32,
    /// The revision.
    pub revision: Revision,
    /// The time on the clock of connections and events, in nanoseconds.
    pub now_ns: u64,
}

/// An allowed connection, seen from an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Whose.
    pub endpoint: EndpointId,
    /// Whether the other side was on this node when the connection was judged.
    pub peer_is_local: bool,
    /// The endpoint's address and port; for ICMP, see `ProbePacket`.
    pub local: (IpAddr, u16),
    /// The other side's.
    pub remote: (IpAddr, u16),
    /// IP protocol number.
    pub protocol: u8,
    /// Who began: `Egress` if the endpoint did.
    pub direction: Direction,
    /// How far it is.
    pub phase: Phase,
    /// The port or message type that policy was asked about.
    pub port: u16,
    /// The generation that judged it last; its next packet is judged anew if that is not the one in force.
    pub generation: u32,
    /// When a packet of it was noted last, in nanoseconds; kept to a second.
    pub last_seen_ns: u64,
}

/// How far a connection is; for how long it is remembered depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// TCP handshake, or any other protocol: a minute.
    Opening,
    /// TCP after the handshake: six hours.
    Established,
    /// TCP after FIN or RST: ten seconds.
    Closing,
}

impl Phase {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Established => "established",
            Self::Closing => "closing",
        }
    }
}

impl Connection {
    /// None if the bytes are no connection.
    pub(crate) fn new(key: &FlowKey, flow: &Flow) -> Option<Self> {
        if flow.endpoint == 0 {
            return None;
        }
        Some(Self {
            endpoint: EndpointId(flow.endpoint),
            peer_is_local: flow.peer_local != 0,
            local: (encode::ip(&key.local), key.local_port()),
            remote: (encode::ip(&key.remote), key.remote_port()),
            protocol: key.protocol(),
            direction: encode::direction(flow.direction)?,
            phase: match flow.phase {
                FLOW_ESTABLISHED => Phase::Established,
                FLOW_CLOSING => Phase::Closing,
                _ => Phase::Opening,
            },
            port: flow.port,
            generation: flow.generation,
            last_seen_ns: u64::from(flow.last_seen) * FLOW_TICK_NS,
        })
    }
}
