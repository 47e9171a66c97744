//! What can go wrong, per operation.

use std::{fmt, io, net::IpAddr};

use ringfence_ebpf_common::PacketKind;
use ringfence_policy::{name::Name, revision::Revision, tables::EndpointId};

/// One of the tables that a revision consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Exact addresses.
    Addresses,
    /// Address ranges.
    Ranges,
    /// Endpoints of this node.
    Endpoints,
    /// Bands of ports, and the pages they are kept in.
    Ports,
    /// Rows.
    Rows,
}

/// An endpoint cannot be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such device.
    #[error("endpoint {name}: there is no network interface {interface:?} on this node")]
    NoInterface {
        /// The endpoint.
        name: Name,
        /// The device that was asked for.
        interface: String,
    },
    /// The programs parse Ethernet frames only.
    #[error("endpoint {name}: interface {interface:?} is not an Ethernet device (hardware type {hardware_type})")]
    NotEthernet {
        /// The endpoint.
        name: Name,
        /// The device that was asked for.
        interface: String,
        /// ARPHRD_… of linux/if_arp.h.
        hardware_type: u16,
    },
    /// The endpoint is on another device.
    #[error(
        "endpoint {name} is attached to interface index {attached} already: detach it before attaching it to {interface:?}"
    )]
    Elsewhere {
        /// The endpoint.
        name: Name,
        /// Where it is.
        attached: EndpointId,
        /// The device that was asked for.
        interface: String,
    },
    /// The device belongs to another endpoint.
    #[error("endpoint {name}: interface {interface:?} belongs to endpoint {owner} already")]
    Taken {
        /// The endpoint.
        name: Name,
        /// The device that was asked for.
        interface: String,
        /// Whose it is.
        owner: Name,
    },
    /// There is no such endpoint.
    #[error("endpoint {name} is not attached")]
    NotAttached {
        /// The endpoint.
        name: Name,
    },
    /// The kernel refuses to attach the programs, or to keep them.
    #[cfg(feature = "kernel")]
    #[error("endpoint {name}: {source}")]
    Link {
        /// The endpoint.
        name: Name,
        /// Why.
        source: crate::kernel::LinkFailure,
    },
}

/// A revision cannot be realised. Packets are judged as before.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A table is full (S10).
    #[error(
        "revision {revision} does not fit: table {table} holds at most {capacity} entries; the previous revision stays in force"
    )]
    Full {
        /// The revision that was to be applied.
        revision: Revision,
        /// Which table.
        table: Table,
        /// Its capacity.
        capacity: u32,
    },
    /// A table cannot be written.
    #[error("revision {revision}: cannot write table {table}: {source}; the previous revision stays in force")]
    Write {
        /// The revision that was to be applied.
        revision: Revision,
        /// Which table.
        table: Table,
        /// Why.
        source: io::Error,
    },
    /// The revision's number cannot be written.
    #[error("revision {revision}: cannot write its number: {source}; the previous revision stays in force")]
    Number {
        /// The revision that was to be applied.
        revision: Revision,
        /// Why.
        source: io::Error,
    },
    /// An earlier change could not be completed in the idle set, and the set cannot be repaired now.
    #[error(
        "revision {revision}: cannot read the idle set to repair it: {source}; the previous revision stays in force"
    )]
    Repair {
        /// The revision that was to be applied.
        revision: Revision,
        /// Why.
        source: ObserveError,
    },
    /// Packets may still read the idle set.
    #[error(
        "revision {revision}: packets still read the idle set after {waited_ms} ms; the previous revision stays in force"
    )]
    Busy {
        /// The revision that was to be applied.
        revision: Revision,
        /// How long was waited.
        waited_ms: u64,
    },
    /// Revisions never go back (S3).
    #[error("revision {revision} is older than revision {current}, which is in force")]
    Backwards {
        /// The revision that was to be applied.
        revision: Revision,
        /// The one in force.
        current: Revision,
    },
}

/// What a datapath holds cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A table cannot be read.
    #[error("cannot read table {table}: {source}")]
    Read {
        /// Which table.
        table: Table,
        /// Why.
        source: io::Error,
    },
    /// The revision, the counters or the events cannot be read.
    #[error("cannot read map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The ring held what no program writes. Each entry is one event that nobody will see.
    #[error("{broken} entries of the ring of events are no events")]
    Events {
        /// How many.
        broken: u64,
    },
    /// A table holds what Ringfence never writes.
    #[error("table {table} holds an entry that Ringfence never wrote: {entry}")]
    Corrupt {
        /// Which table.
        table: Table,
        /// The entry.
        entry: String,
    },
}

/// A packet cannot be probed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The addresses are of two families.
    #[error("{from} and {to} are of different address families")]
    MixedFamilies {
        /// Sender.
        from: IpAddr,
        /// Receiver.
        to: IpAddr,
    },
    /// Only TCP closes, only TCP and ICMP open, only ICMPv6 discovers neighbours; an ICMP query has a type.
    #[error("protocol {protocol} has no packets of kind {kind:?}")]
    Kind {
        /// The kind that was asked for.
        kind: PacketKind,
        /// The protocol that was asked for.
        protocol: u8,
    },
    /// The kernel cannot run the program on a packet of the caller's.
    #[error("the kernel cannot run a packet at interface index {endpoint}: {source}")]
    Run {
        /// The endpoint.
        endpoint: EndpointId,
        /// Why.
        source: io::Error,
    },
    /// The program answered with a reason nobody knows.
    #[error("the program answered with the unknown reason {reason}")]
    Answer {
        /// The number.
        reason: u32,
    },
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Addresses => "addresses",
            Self::Ranges => "ranges",
            Self::Endpoints => "endpoints",
            Self::Ports => "ports",
            Self::Rows => "rows",
        })
    }
}
