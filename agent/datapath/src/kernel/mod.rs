//! The datapath in the kernel: eBPF programs on the endpoints' devices, maps and links pinned in a bpffs.
//!
//! ```text
//! <directory>/v4/ACTIVE, EPOCH, REVISION, FLOWS, PACKETS, ADDRESSES_0, ADDRESSES_1, …   maps
//! <directory>/v4/links/<endpoint>/from_endpoint, to_endpoint                            links (TCX), or records of filters
//! <directory>/v4/uplinks/uplink-<index>/to_host, from_host                              the same on the node's uplinks
//! <directory>/v3/…                      an older layout: judges packets until the first revision is in the new maps
//! ```
//!
//! Everything that judges packets is in the kernel and stays there when this process ends. Opening adopts it; only
//! `detach` and `uninstall` take programs off.
#![expect(unsafe_code, reason = "maps of memory and system calls that neither std nor aya offer")]

mod attachment;
mod cells;
mod connections;
mod error;
mod exact;
mod features;
mod frame;
mod links;
mod open;
mod raw;
mod reader;
mod reports;
mod run;
mod sets;
mod system;
mod upgrade;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    net::IpAddr,
    path::PathBuf,
};

use aya::Ebpf;
use ringfence_ebpf_common::Hook;
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
    read::MapReader,
    report::{self, BandReport, FlowEvent},
};

pub use error::{LinkFailure, OpenError, UninstallError};
pub use features::{Features, Mechanism};
pub use open::{pin_directory, uninstall};

use connections::Flows;
use links::Links;
use reader::KernelReader;
use reports::Reports;
use sets::KernelSets;
use upgrade::Older;

/// How to open the kernel's datapath.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelOptions {
    /// A directory on a bpffs that belongs to this node alone (see `pin_directory`). It is made if it is not there.
    pub directory: PathBuf,
    /// For maps that are not there yet; those that are there keep theirs.
    pub capacity: Capacity,
    /// False: as if the kernel had no TCX.
    pub tcx: bool,
}

/// Enforcement in the kernel. One process at a time can have it open.
pub struct KernelDatapath {
    ebpf: Ebpf,
    flip: Flip<KernelSets>,
    flows: Flows,
    links: Links,
    uplinks: Links,
    reports: Reports,
    features: Features,
    /// Layouts of older versions that are still in force.
    older: Option<Older>,
    /// Where this layout's maps are pinned.
    directory: PathBuf,
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

impl KernelDatapath {
    /// Puts the programs of this version in the place of older ones, now that the maps they read hold a revision.
    fn replace_older(&mut self) {
        if let Some(mut older) = self.older.take()
            && let Err(error) =
                older.replace(&mut self.ebpf, [&mut self.links, &mut self.uplinks], &self.flows, self.flip.generation())
        {
            tracing::error!(%error, "endpoints are still judged by an older version's revision: it is tried again with the next change");
            self.older = Some(older);
        }
    }

    /// Puts programs back that somebody took off a device.
    fn restore_links(&mut self) {
        for links in [&self.links, &self.uplinks] {
            if let Err(error) = links.restore(&mut self.ebpf) {
                tracing::error!(%error, "not every device's programs could be looked after");
            }
        }
    }

    /// Gives back the counters of policies that no endpoint has any more.
    fn free_bands(&mut self) {
        let used = match self.flip.sets().policies() {
            Ok(used) => used,
            Err(error) => return tracing::warn!(%error, "counters of policies that are gone are kept for now"),
        };
        let stays = |owner| report::policy_of(owner).is_some_and(|policy| used.contains(&policy.0));
        if let Err(error) = self.reports.free_bands(stays) {
            tracing::warn!(%error, "counters of policies that are gone are kept for now");
        }
    }
}

impl Datapath for KernelDatapath {
    fn attach(&mut self, name: &Name, interface: &str) -> Result<EndpointId, AttachError> {
        if let Some(owner) = self.uplinks.owner(interface) {
            let (name, owner) = (name.clone(), owner.clone());
            return Err(AttachError::Taken { name, interface: interface.to_owned(), owner });
        }
        self.links.attach(&mut self.ebpf, name, interface)
    }

    fn detach(&mut self, name: &Name) -> Result<(), AttachError> {
        self.links.detach(name)
    }

    fn attached(&self) -> BTreeMap<Name, EndpointId> {
        self.links.attached()
    }

    fn set_uplinks(&mut self, interfaces: &[String]) -> Result<(), AttachError> {
        let mut wanted = BTreeSet::new();
        for interface in interfaces {
            // Devices have names that are no `Name`.
            let index = system::interface_index(interface).unwrap_or_default();
            let name = Name::new(format!("uplink-{index}")).expect("letters, a hyphen and digits");
            if let Some(owner) = self.links.owner(interface) {
                let owner = owner.clone();
                return Err(AttachError::Taken { name, interface: interface.clone(), owner });
            }
            self.uplinks.attach(&mut self.ebpf, &name, interface)?;
            wanted.insert(name);
        }
        let attached = self.uplinks.attached();
        attached.keys().filter(|name| !wanted.contains(*name)).try_for_each(|name| self.uplinks.detach(name))
    }

    fn host_addresses(&self) -> io::Result<BTreeSet<IpAddr>> {
        system::host_addresses()
    }

    fn apply(&mut self, revision: Revision, diff: &TableDiff) -> Result<Applied, ApplyError> {
        let applied = self.flip.apply(revision, diff)?;
        self.replace_older();
        if !diff.endpoints.is_empty() {
            self.free_bands();
        }
        Ok(applied)
    }

    fn observe(&self) -> Result<Observation, ObserveError> {
        Ok(Observation {
            revision: self.flip.revision()?,
            generation: self.flip.generation(),
            tables: self.flip.tables()?,
            packets: self.reports.packets()?,
            tallies: self.reports.tallies()?,
        })
    }

    fn verify(&mut self, expected: &Tables) -> Result<Verified, ApplyError> {
        self.restore_links();
        self.flip.verify(expected)
    }

    fn verify_part(&mut self, expected: &Tables, reading: &mut Reading) -> Result<Option<Verified>, ApplyError> {
        if reading.is_new() {
            self.restore_links();
        }
        self.flip.verify_part(expected, reading)
    }

    fn events(&mut self, take: &mut dyn FnMut(FlowEvent)) -> Result<(), ObserveError> {
        self.reports.events(take)
    }

    fn bands(&self) -> Result<Vec<BandReport>, ObserveError> {
        self.reports.bands()
    }

    fn counters(&self) -> Result<(PacketCounters, Tallies), ObserveError> {
        Ok((self.reports.packets()?, self.reports.tallies()?))
    }

    fn reader(&self) -> Result<Box<dyn MapReader>, ObserveError> {
        Ok(Box::new(KernelReader::open(&self.directory)?))
    }

    fn now_ns(&self) -> u64 {
        system::monotonic_ns()
    }

    fn probe(&mut self, hook: Hook, endpoint: EndpointId, packet: &ProbePacket) -> Result<ProbeOutcome, ProbeError> {
        run::run(&mut self.ebpf, hook, endpoint, packet)
    }

    fn kind(&self) -> &'static str {
        "kernel"
    }

    fn features(&self) -> String {
        self.features.to_string()
    }
}
