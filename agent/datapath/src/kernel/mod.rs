//! The datapath in the kernel: eBPF programs on the endpoints' devices, maps and links pinned in a bpffs.
//!
//! ```text
//! <directory>/v1/ACTIVE, EPOCH, REVISION, FLOWS, PACKETS, ADDRESSES_0, ADDRESSES_1, …   maps
//! <directory>/v1/links/<endpoint>/from_endpoint, to_endpoint                            links (TCX)
//! ```
//!
//! Everything that judges packets is in the kernel and stays there when this process ends. Opening adopts it; only
//! `detach` and `uninstall` take programs off.
#![expect(unsafe_code, reason = "maps of memory and system calls that neither std nor aya offer")]

mod cells;
mod error;
mod frame;
mod links;
mod open;
mod raw;
mod run;
mod sets;
mod system;

use std::{collections::BTreeMap, fs::File, path::PathBuf};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};
use ringfence_ebpf_common::{Hook, Reason, map};
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

pub use error::{LinkFailure, OpenError, UninstallError};
pub use open::{pin_directory, uninstall};

use links::Links;
use sets::KernelSets;

/// How to open the kernel's datapath.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelOptions {
    /// A directory on a bpffs that belongs to this node alone (see `pin_directory`). It is made if it is not there.
    pub directory: PathBuf,
    /// For maps that are not there yet; those that are there keep theirs.
    pub capacity: Capacity,
}

/// Enforcement in the kernel. One process at a time can have it open.
pub struct KernelDatapath {
    ebpf: Ebpf,
    flip: Flip<KernelSets>,
    links: Links,
    packets: PerCpuArray<MapData, u64>,
    /// Held as long as the datapath is open.
    _lock: File,
}

impl KernelDatapath {
    /// Loads the programs, adopts what is pinned, makes the rest. No verdict changes (S8): the programs of adopted links
    /// are replaced in one step by ones that read the same maps.
    ///
    /// # Errors
    /// `OpenError`; what was pinned is as it was, and goes on judging packets.
    pub fn open(options: &KernelOptions) -> Result<Self, OpenError> {
        open::open(options)
    }
}

impl Datapath for KernelDatapath {
    fn attach(&mut self, name: &Name, interface: &str) -> Result<EndpointId, AttachError> {
        self.links.attach(&mut self.ebpf, name, interface)
    }

    fn detach(&mut self, name: &Name) -> Result<(), AttachError> {
        self.links.detach(name)
    }

    fn attached(&self) -> BTreeMap<Name, EndpointId> {
        self.links.attached()
    }

    fn apply(&mut self, revision: Revision, diff: &TableDiff) -> Result<Applied, ApplyError> {
        self.flip.apply(revision, diff)
    }

    fn observe(&self) -> Result<Observation, ObserveError> {
        let mut packets = PacketCounters::default();
        for reason in Reason::ALL {
            let per_cpu = self.packets.get(&(reason as u32), 0);
            let per_cpu =
                per_cpu.map_err(|error| ObserveError::Map { map: map::PACKETS, source: error::io_error(error) })?;
            packets.add(reason, per_cpu.iter().sum());
        }
        Ok(Observation {
            revision: self.flip.revision()?,
            generation: self.flip.generation(),
            tables: self.flip.tables()?,
            packets,
        })
    }

    fn probe(&mut self, hook: Hook, endpoint: EndpointId, packet: &ProbePacket) -> Result<ProbeOutcome, ProbeError> {
        run::run(&mut self.ebpf, hook, endpoint, packet)
    }

    fn kind(&self) -> &'static str {
        "kernel"
    }
}
