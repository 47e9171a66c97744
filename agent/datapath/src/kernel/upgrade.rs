//! Taking over from an older layout of the maps.
//!
//! ```text
//! open:         v3/links/… are known as endpoints; their programs go on judging by v3's maps
//! first apply:  v4's maps hold a whole revision
//!               ─► connections of v3 are copied, to be judged anew ─► each link gets v4's program (atomic per link)
//!               ─► connections that v3 made meanwhile are copied ─► v3 is removed
//! ```
//!
//! Each packet is judged by one version's revision: whole hooks change over, and a packet between two endpoints of this
//! node is judged at one hook. A process that dies on the way leaves links in `v3/links`, which the next one replaces.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use aya::{Ebpf, maps::MapData};
use ringfence_ebpf_common::{FLOW_TICK_NS, Flow, FlowValue, LAYOUT, NO_COUNTER, map};

use super::{
    connections::Flows,
    error::{LinkFailure, OpenError},
    links::Links,
    reports, system,
};
use crate::error::ObserveError;

/// Older layouts whose programs still judge packets.
pub(super) struct Older {
    directories: Vec<PathBuf>,
    /// No older agent runs as long as these are held.
    _locks: Vec<File>,
}

impl Older {
    /// The layouts beside this version's; none if there are none.
    pub(super) fn find(directory: &Path) -> Result<Option<Self>, OpenError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Directory { path, source }
        };
        let (mut directories, mut locks) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(directory).map_err(failed(directory))? {
            let path = entry.map_err(failed(directory))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_layout = name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
            if !is_layout || name == LAYOUT {
                continue;
            }
            let lock = File::open(&path).map_err(failed(&path))?;
            match lock.try_lock() {
                Ok(()) => locks.push(lock),
                Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path }),
                Err(TryLockError::Error(source)) => return Err(failed(&path)(source)),
            }
            directories.push(path);
        }
        Ok((!directories.is_empty()).then_some(Self { directories, _locks: locks }))
    }

    /// Makes the endpoints of the older layouts known. Their programs stay.
    pub(super) fn adopt(&self, links: &mut Links, uplinks: &mut Links) -> Result<(), OpenError> {
        self.directories.iter().try_for_each(|directory| {
            links.adopt_older(&directory.join("links"))?;
            uplinks.adopt_older(&directory.join("uplinks"))
        })
    }

    /// Puts the new programs in the place of the old ones, and removes what is left.
    pub(super) fn replace(
        &mut self,
        ebpf: &mut Ebpf,
        links: [&mut Links; 2],
        flows: &Flows,
        generation: u32,
    ) -> Result<(), LinkFailure> {
        self.copy_flows(flows, generation);
        links.into_iter().try_for_each(|links| links.replace_older(ebpf))?;
        self.copy_flows(flows, generation);
        for directory in &self.directories {
            tracing::info!(directory = %directory.display(), "an older layout is replaced");
            fs::remove_dir_all(directory).map_err(|source| LinkFailure::File { path: directory.clone(), source })?;
        }
        Ok(())
    }

    /// Connections that cannot be copied begin anew: their next packet is judged as a first one.
    fn copy_flows(&self, flows: &Flows, generation: u32) {
        let path = self.directories.iter().map(|directory| directory.join(map::FLOWS)).find(|path| path.exists());
        let Some(path) = path else { return };
        match copy_flows(flows, &path, generation) {
            Ok(copied) => tracing::info!(copied, "connections of an older layout are taken over"),
            Err(error) => tracing::warn!(%error, "connections of an older layout cannot be taken over"),
        }
    }
}

/// Layout v3 has the cells of this one; what hashes them has another key.
fn copy_flows(flows: &Flows, path: &Path, generation: u32) -> Result<usize, ObserveError> {
    let old = MapData::from_pin(path).map_err(reports::unreadable(map::FLOWS))?;
    let old = Flows::of_pin(&old)?;
    let now = tick(system::monotonic_ns());
    let mut copied = 0;
    for FlowValue { key, flow } in old.each() {
        // Any generation but the current one: the revision that is in force now judges it at its next packet.
        let flow = Flow { generation: generation.wrapping_sub(1), ..flow };
        let flow = if flow.is_borrowed() {
            // Not the node's own to judge.
            flow
        } else {
            Flow { counter: NO_COUNTER, peer_counter: NO_COUNTER, owned: 0, peer_local: 0, both: 0, ..flow }
        };
        copied += usize::from(flows.add(&FlowValue { key, flow }, now));
    }
    Ok(copied)
}

/// As connections have it: the lower bits of the number of ticks.
fn tick(time_ns: u64) -> u32 {
    let ticks = time_ns / FLOW_TICK_NS;
    u32::try_from(ticks & u64::from(u32::MAX)).expect("32 bits")
}
