//! Taking over from an older layout of the maps.
//!
//! ```text
//! open:         v1/links/… are known as endpoints; their programs go on judging by v1's maps
//! first apply:  v2's maps hold a whole revision
//!               ─► connections of v1 are copied, to be judged anew ─► each link gets v2's program (atomic per link)
//!               ─► connections that v1 made meanwhile are copied ─► v1 is removed
//! ```
//!
//! Each packet is judged by one version's revision: whole hooks change over, and a packet between two endpoints of this
//! node is judged at one hook. A process that dies on the way leaves links in `v1/links`, which the next one replaces.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData},
};
use ringfence_ebpf_common::{EGRESS, Flow, FlowKey, FlowValue, LAYOUT, NO_COUNTER, map};

use super::{
    error::{LinkFailure, OpenError, io_error},
    links::Links,
    raw::{Layout, Raw},
};

/// Older layouts whose programs still judge packets.
pub(super) struct Older {
    directories: Vec<PathBuf>,
    /// No older agent runs as long as these are held.
    _locks: Vec<File>,
}

/// A connection in layout v1; its key is today's.
#[derive(Clone, Copy)]
#[repr(C)]
struct FlowV1 {
    last_seen_ns: u64,
    generation: u32,
    endpoint: u32,
    peer_endpoint: u32,
    direction: u8,
    phase: u8,
    padding: [u8; 2],
}

// SAFETY: `repr(C)`, integers only, and the sizes of the fields add up to 24, which is a multiple of eight.
unsafe impl Layout for FlowV1 {}
const _: () = assert!(size_of::<FlowV1>() == 24, "no padding");

/// linux/bpf.h: BPF_NOEXIST
const ONLY_NEW: u64 = 1;

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
        generation: u32,
    ) -> Result<(), LinkFailure> {
        self.copy_flows(ebpf, generation);
        links.into_iter().try_for_each(|links| links.replace_older(ebpf))?;
        self.copy_flows(ebpf, generation);
        for directory in &self.directories {
            tracing::info!(directory = %directory.display(), "an older layout is replaced");
            fs::remove_dir_all(directory).map_err(|source| LinkFailure::File { path: directory.clone(), source })?;
        }
        Ok(())
    }

    /// Connections that cannot be copied begin anew: their next packet is judged as a first one.
    fn copy_flows(&self, ebpf: &mut Ebpf, generation: u32) {
        let path = self.directories.iter().map(|directory| directory.join(map::FLOWS)).find(|path| path.exists());
        let Some(path) = path else { return };
        match copy_flows(ebpf, &path, generation) {
            Ok(copied) => tracing::info!(copied, "connections of an older layout are taken over"),
            Err(error) => tracing::warn!(%error, "connections of an older layout cannot be taken over"),
        }
    }
}

fn copy_flows(ebpf: &mut Ebpf, path: &Path, generation: u32) -> io::Result<usize> {
    let old = MapData::from_pin(path).map_err(io_error)?;
    let old: HashMap<_, Raw<FlowKey>, Raw<FlowV1>> = HashMap::try_from(Map::LruHashMap(old)).map_err(io_error)?;
    let new = ebpf.map_mut(map::FLOWS).ok_or_else(|| io::Error::other("the object has no connections"))?;
    let mut new: HashMap<_, Raw<FlowKey>, Raw<FlowValue>> = HashMap::try_from(new).map_err(io_error)?;
    let mut copied = 0;
    for entry in old.iter() {
        let (Raw(key), Raw(flow)) = entry.map_err(io_error)?;
        // What stood in the place of ICMP's ports was something else.
        if !matches!(key.protocol(), 6 | 17 | 132) {
            continue;
        }
        let port = if flow.direction == EGRESS { key.remote_port() } else { key.local_port() };
        let flow = Flow {
            last_seen_ns: flow.last_seen_ns,
            // Any but the current one: the revision that is in force now judges it at its next packet.
            generation: generation.wrapping_sub(1),
            endpoint: flow.endpoint,
            peer_endpoint: flow.peer_endpoint,
            counter: NO_COUNTER,
            port,
            direction: flow.direction,
            phase: flow.phase,
            owned: 0,
            padding: [0; 3],
        };
        if new.insert(Raw(key), Raw(FlowValue { key, flow }), ONLY_NEW).is_ok() {
            copied += 1;
        }
    }
    Ok(copied)
}
