//! How a node's packets are judged: one trait, two implementations that pass the same tests.
//!
//! ```text
//! agent: Tables at a revision ─ diff ─► Datapath::apply ─► idle set ─► flip of ACTIVE ─► wait ─► other set
//!                                                              │
//!        kernel: eBPF maps, read by the programs at every endpoint's device        (feature `kernel`)
//!        memory: ordered maps, read by the same `decide` function                  (tests, machines without BPF)
//! ```
//!
//! Both keep two whole sets of tables and a generation whose parity selects one. A packet reads the generation once, so
//! it is judged by exactly one revision (S1); a revision that does not fit leaves the old one whole (S10).

pub mod capacity;
pub mod datapath;
mod decode;
mod encode;
pub mod error;
#[cfg(feature = "kernel")]
mod exact;
mod flip;
mod flows;
#[cfg(feature = "kernel")]
pub mod kernel;
pub mod memory;
mod pages;
pub mod probe;
pub mod read;
pub mod report;
mod write;

pub use capacity::Capacity;
pub use datapath::{Applied, Datapath, Observation, PacketCounters, Tallies, Verified};
pub use error::{ApplyError, AttachError, ObserveError, ProbeError, Table};
pub use flip::Reading;
#[cfg(feature = "kernel")]
pub use kernel::{KernelDatapath, KernelOptions};
pub use memory::MemoryDatapath;
pub use probe::{ProbeOutcome, ProbePacket};
pub use read::{Connection, Head, MapReader, Phase};
pub use report::{BandReport, FlowEvent};
pub use ringfence_ebpf_common::{BandCounter, Hook, MARK_PASSED, PacketKind, Reason, Tally};
