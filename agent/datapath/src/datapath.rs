//! The trait, and what its operations answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use ringfence_ebpf_common::{Hook, Reason, Tally};
use ringfence_policy::{
    name::Name,
    revision::Revision,
    tables::{EndpointId, TableDiff, Tables},
};

use crate::{
    error::{ApplyError, AttachError, ObserveError, ProbeError},
    flip::Reading,
    probe::{ProbeOutcome, ProbePacket},
    read::MapReader,
    report::{BandReport, FlowEvent},
};

/// Enforcement on one node. Synchronous, with one writer.
///
/// Dropping it changes no verdict: what is in the kernel stays there and is adopted by the next one (S8).
pub trait Datapath: Send {
    /// Puts the programs on the endpoint's host-side device. Until a revision that has the endpoint is applied, all of
    /// its packets are refused (S9). Calling it again changes nothing and answers the same.
    ///
    /// # Errors
    /// `AttachError`; the endpoint is then as it was before.
    fn attach(&mut self, name: &Name, interface: &str) -> Result<EndpointId, AttachError>;

    /// Takes the programs off the endpoint's device again. From then on its packets are **not** judged: call it only
    /// for an endpoint that is gone.
    ///
    /// # Errors
    /// `AttachError::NotAttached`, or why the programs cannot be taken off.
    fn detach(&mut self, name: &Name) -> Result<(), AttachError>;

    /// The endpoints whose devices carry the programs, also from before a restart.
    fn attached(&self) -> BTreeMap<Name, EndpointId>;

    /// Makes these devices the node's uplinks, and no others: the node's own packets there are judged by the policy of
    /// `EndpointId::HOST`. They pass as long as the realised revision says nothing of it. A datapath without devices has
    /// none.
    ///
    /// # Errors
    /// `AttachError`; the uplinks before the one that it names are attached then, and none is detached.
    fn set_uplinks(&mut self, _interfaces: &[String]) -> Result<(), AttachError> {
        Ok(())
    }

    /// The addresses of the node's own devices, loopback left out. None of a datapath without devices.
    ///
    /// # Errors
    /// The system's, if it does not say.
    fn host_addresses(&self) -> io::Result<BTreeSet<IpAddr>> {
        Ok(BTreeSet::new())
    }

    /// Moves to a revision: all or nothing. Afterwards packets are judged by `revision`, or on an error by exactly what
    /// was there before (S1, S10). `diff` must begin at the tables that `observe` shows.
    ///
    /// # Errors
    /// `ApplyError`; nothing has changed for any packet then.
    fn apply(&mut self, revision: Revision, diff: &TableDiff) -> Result<Applied, ApplyError>;

    /// Reads back what packets are judged by.
    ///
    /// # Errors
    /// `ObserveError` if the tables cannot be read or hold what nobody wrote.
    fn observe(&self) -> Result<Observation, ObserveError>;

    /// Compares both sets with the tables that were applied last, and repairs what is not as it should be: packets move to
    /// a set that is right before the wrong one is written. Programs that somebody took off a device are put back. Connections are not looked at: they are judged again with
    /// the next revision.
    ///
    /// # Errors
    /// As `apply`; some of it may be repaired then.
    fn verify(&mut self, expected: &Tables) -> Result<Verified, ApplyError>;

    /// The same in parts of some milliseconds at most, with whatever else between them: answers once all was read.
    /// `expected`: the tables that were applied last before this call. Only where something is not as it should be, the rest is
    /// done at once.
    ///
    /// # Errors
    /// As `verify`; the reading begins anew then.
    fn verify_part(&mut self, expected: &Tables, reading: &mut Reading) -> Result<Option<Verified>, ApplyError> {
        *reading = Reading::default();
        self.verify(expected).map(Some)
    }

    /// Hands over the events that packets left since the last call, oldest first. Each connection that began, each
    /// verdict that changed and each drop is handed over once or counted in `Tally::EventsLost` or
    /// `Tally::EventsSuppressed` (S16).
    ///
    /// # Errors
    /// `ObserveError::Events` if there were entries that are no events; all others are handed over.
    fn events(&mut self, take: &mut dyn FnMut(FlowEvent)) -> Result<(), ObserveError>;

    /// How many packets each band of each policy decided.
    ///
    /// # Errors
    /// `ObserveError::Map`.
    fn bands(&self) -> Result<Vec<BandReport>, ObserveError>;

    /// Packets and tallies alone, without the tables.
    ///
    /// # Errors
    /// `ObserveError::Map`.
    fn counters(&self) -> Result<(PacketCounters, Tallies), ObserveError>;

    /// Reads the maps for people, from any thread, for as long as it takes.
    ///
    /// # Errors
    /// `ObserveError::Map` if the maps cannot be opened a second time.
    fn reader(&self) -> Result<Box<dyn MapReader>, ObserveError>;

    /// The time on the clock of events and connections, in nanoseconds.
    fn now_ns(&self) -> u64;

    /// Runs one packet through the decision at a hook of an endpoint without sending it. It is counted and remembered
    /// like a real one.
    ///
    /// # Errors
    /// `ProbeError` if the packet cannot be made, or the kernel cannot run it.
    fn probe(&mut self, hook: Hook, endpoint: EndpointId, packet: &ProbePacket) -> Result<ProbeOutcome, ProbeError>;

    /// `"kernel"` or `"memory"`.
    fn kind(&self) -> &'static str;

    /// What it found when it was opened, in words; empty if it needs nothing.
    fn features(&self) -> String {
        String::new()
    }
}

/// What `apply` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The generation that packets read now.
    pub generation: u32,
    /// How many entries changed.
    pub entries: usize,
    /// How long it took until no packet read the old set any more. Packets did not wait for it.
    pub grace: Duration,
}

/// What `verify` repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Entries that packets were judged by and nobody had applied.
    pub served: usize,
    /// Such entries in the set that packets do not read now.
    pub unserved: usize,
}

/// What a datapath holds, as read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The revision that packets are judged by; 0 if none was ever applied.
    pub revision: Revision,
    /// The generation that packets read.
    pub generation: u32,
    /// The tables that packets read.
    pub tables: Tables,
    /// Packets so far.
    pub packets: PacketCounters,
    /// What else was counted so far.
    pub tallies: Tallies,
}

/// How many packets were treated in which way, since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketCounters([u64; Reason::ALL.len()]);

impl PacketCounters {
    /// Packets with one reason.
    #[must_use]
    pub const fn get(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(self.0)
    }

    pub(crate) const fn add(&mut self, reason: Reason, packets: u64) {
        self.0[reason as usize] += packets;
    }
}

/// What is counted beside packets, since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallies([u64; Tally::ALL.len()]);

impl Tallies {
    /// One of them.
    #[must_use]
    pub const fn get(&self, tally: Tally) -> u64 {
        self.0[tally as usize]
    }

    /// Each with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Tally, u64)> {
        Tally::ALL.into_iter().zip(self.0)
    }

    pub(crate) const fn add(&mut self, tally: Tally, count: u64) {
        self.0[tally as usize] += count;
    }
}
