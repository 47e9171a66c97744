//! Loading, adopting, and removing what is pinned.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError},
    programs::{ProgramError, SchedClassifier},
};
use ringfence_ebpf_common::{
    BandCounter, Directory, EndpointValue, EpochCell, FlowCell, LAYOUT, Page, PortsKey, RangeKey, capacity, map,
    program,
};
use ringfence_policy::{name::Name, revision::Revision};

use super::{
    KernelDatapath, KernelOptions,
    cells::Cells,
    connections::Flows,
    error::{OpenError, UninstallError},
    exact::ExactTables,
    features::Features,
    links::{Links, OF_ENDPOINTS, OF_UPLINKS, pin_name, take_off_all},
    reports::Reports,
    sets::{KernelSet, KernelSets, Maps},
    system,
    upgrade::Older,
};
use crate::{capacity::Capacity, exact, flip::Flip, flows::cells_for, pages::Directories};

/// Bytes of `FLOWS` for each connection: two cells.
const FLOW_BYTES: u64 = 2 * size_of::<FlowCell>() as u64;
/// The part of the machine's memory that `FLOWS` may take: one in 128.
const MEMORY_PART: u64 = 128;
/// Fewer connections than this are not worth having.
const FEWEST_FLOWS: u32 = 65_536;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ringfence.o"));

/// The directory of one node's pins below a bpffs: several nodes of a test bed can share one.
#[must_use]
pub fn pin_directory(bpffs: &Path, node: &Name) -> PathBuf {
    bpffs.join("ringfence").join(pin_name(node))
}

/// Takes the programs off every device and removes the maps: from then on nothing is judged. The only way to do so.
/// Nothing there is no error.
///
/// # Errors
/// `UninstallError`; what could be removed is removed then.
pub fn uninstall(directory: &Path) -> Result<(), UninstallError> {
    if !directory.exists() {
        return Ok(());
    }
    let remove = |source| UninstallError::Remove { path: directory.to_owned(), source };
    if !system::is_bpf_filesystem(directory).map_err(remove)? {
        return Err(UninstallError::NotBpfFilesystem { path: directory.to_owned() });
    }
    // Filters are not held by pins. What records of them say goes last.
    for layout in fs::read_dir(directory).map_err(remove)? {
        let layout = layout.map_err(remove)?.path();
        take_off_all(&layout.join("links"), &OF_ENDPOINTS)?;
        take_off_all(&layout.join("uplinks"), &OF_UPLINKS)?;
    }
    fs::remove_dir_all(directory).map_err(remove)
}

pub(super) fn open(options: &KernelOptions) -> Result<KernelDatapath, OpenError> {
    let directory = options.directory.join(LAYOUT);
    let lock = prepare(&options.directory, &directory)?;
    let older = Older::find(&options.directory)?;
    let features = Features::find(options.tcx);
    let mut ebpf = load(&directory, options.capacity, &features)?;
    // Before any map is taken out: programs are bound to maps when they are loaded.
    for name in [program::FROM_ENDPOINT, program::TO_ENDPOINT, program::FROM_HOST, program::TO_HOST] {
        classifier(&mut ebpf, name)?.load().map_err(|source| not_loaded(name, source))?;
    }
    let flows = Flows::new(&mut ebpf)?;
    check_layout::<u32, BandCounter>(map::BAND_COUNTERS, ebpf.map(map::BAND_COUNTERS))?;
    let reports = Reports::new(&mut ebpf)?;
    let exact = ExactTables::new(&mut ebpf, options.capacity)?;
    let mut sets = sets(&mut ebpf, exact, flows.capacity())?;
    sets.adopt().map_err(|source| OpenError::Adopt { source })?;
    let mut flip = Flip::adopt(sets);
    // Now, not at the first change: a half-written idle set from before a crash is found while nobody waits.
    if let Err(error) = flip.repair(Revision::ZERO) {
        tracing::warn!(%error, "the idle set cannot be repaired now: it is tried again before the next change");
    }
    let mut links = Links::new(directory.join("links"), OF_ENDPOINTS, features.mechanism);
    let mut uplinks = Links::new(directory.join("uplinks"), OF_UPLINKS, features.mechanism);
    links.adopt(&mut ebpf)?;
    uplinks.adopt(&mut ebpf)?;
    if let Some(older) = &older {
        older.adopt(&mut links, &mut uplinks)?;
    }
    let revision = flip.revision().map_err(|source| OpenError::Adopt { source })?;
    tracing::info!(%features, "what the kernel offers");
    let mut datapath =
        KernelDatapath { ebpf, flip, flows, links, uplinks, reports, features, older, directory, _lock: lock };
    if revision != Revision::ZERO {
        // The process that was replacing them has died.
        datapath.replace_older();
    }
    Ok(datapath)
}

/// As many connections as asked for, or as the machine can afford: a power of two.
fn affordable_flows(wanted: u32, memory_bytes: u64) -> u32 {
    let affordable = u32::try_from(memory_bytes / MEMORY_PART / FLOW_BYTES).unwrap_or(u32::MAX).max(FEWEST_FLOWS);
    if affordable >= wanted { wanted } else { 1 << affordable.ilog2() }
}

/// One of the object's programs.
pub(super) fn classifier<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, OpenError> {
    let program = ebpf.program_mut(name).ok_or_else(|| OpenError::Missing { what: format!("program {name}") })?;
    program.try_into().map_err(|source: ProgramError| OpenError::Program { program: name, source })
}

/// Makes the directories and becomes their one owner.
fn prepare(given: &Path, directory: &Path) -> Result<File, OpenError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Directory { path, source }
    };
    let there = given.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if !system::is_bpf_filesystem(there).map_err(fail(there))? {
        return Err(OpenError::NotBpfFilesystem { path: given.to_owned(), mount_point: there.to_owned() });
    }
    for pins in ["links", "uplinks"].map(|pins| directory.join(pins)) {
        fs::create_dir_all(&pins).map_err(fail(&pins))?;
    }
    let lock = File::open(directory).map_err(fail(directory))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(fail(directory)(source)),
    }
}

/// Loads the object; maps that are pinned in `directory` are adopted, the others are made and pinned there.
fn load(directory: &Path, capacity: Capacity, features: &Features) -> Result<Ebpf, OpenError> {
    let cpus = system::possible_cpus().map_err(|source| OpenError::Cpus { path: system::POSSIBLE_CPUS, source })?;
    if cpus > capacity::CPUS as usize {
        return Err(OpenError::TooManyCpus { cpus, max: capacity::CPUS });
    }
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(directory);
    loader.map_max_entries(map::FLOWS, cells_for(affordable_flows(capacity.flows, system::memory_bytes())));
    for parity in 0..2 {
        loader.map_max_entries(map::ADDRESSES[parity], exact::cells_for(capacity.addresses));
        loader.map_max_entries(map::RANGES[parity], capacity.ranges);
        loader.map_max_entries(map::ENDPOINTS[parity], capacity.endpoints);
        loader.map_max_entries(map::DIRECTORIES[parity], capacity.ports);
        loader.map_max_entries(map::ROWS[parity], exact::cells_for(capacity.rows));
    }
    loader.load(OBJECT).map_err(|source| match source {
        EbpfError::MapError(MapError::CreateError { name, io_error }) => match io_error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => OpenError::NotPermitted { source: io_error },
            // No bpf(2), or no such kind of map.
            Some(libc::ENOSYS | libc::EINVAL) => OpenError::NotOffered {
                release: features.release.clone(),
                what: format!("map {name}"),
                source: io_error,
            },
            _ => OpenError::Load { source: EbpfError::MapError(MapError::CreateError { name, io_error }) },
        },
        source => OpenError::Load { source },
    })
}

fn not_loaded(program: &'static str, source: ProgramError) -> OpenError {
    match source {
        ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EPERM) => {
            OpenError::NotPermitted { source: io_error }
        }
        source => OpenError::Program { program, source },
    }
}

fn sets(ebpf: &mut Ebpf, exact: ExactTables, flows: u32) -> Result<KernelSets, OpenError> {
    let even = set(ebpf, 0, exact.capacity(), flows)?;
    let odd = set(ebpf, 1, exact.capacity(), flows)?;
    let revision = take_checked::<u32, u64>(ebpf, map::REVISION)?;
    let active = data(take_checked::<u32, u32>(ebpf, map::ACTIVE)?)?;
    let epoch = data(take_checked::<u32, EpochCell>(ebpf, map::EPOCH)?)?;
    let pages = take_checked::<u32, Page>(ebpf, map::PAGES)?;
    let cpus = system::possible_cpus().map_err(|source| OpenError::Cpus { path: system::POSSIBLE_CPUS, source })?;
    let cells = Cells::new(&active, &epoch, cpus).map_err(|(map, source)| OpenError::Memory { map, source })?;
    Ok(KernelSets {
        exact,
        maps: Maps { sets: [even.0, odd.0], pages: Array::try_from(pages).map_err(failed(map::PAGES))? },
        directories: Directories::default(),
        revision: Array::try_from(revision).map_err(failed(map::REVISION))?,
        cells,
        capacity: even.1,
    })
}

/// The maps of one parity, and how much they hold.
fn set(
    ebpf: &mut Ebpf,
    parity: usize,
    [addresses, rows]: [u32; 2],
    flows: u32,
) -> Result<(KernelSet, Capacity), OpenError> {
    let (ranges, endpoints, directories) = (map::RANGES[parity], map::ENDPOINTS[parity], map::DIRECTORIES[parity]);
    let holds = |ebpf: &Ebpf, name: &str| -> Result<u32, OpenError> { Ok(info(name, ebpf.map(name))?.2) };
    let capacity = Capacity {
        addresses,
        ranges: holds(ebpf, ranges)?,
        endpoints: holds(ebpf, endpoints)?,
        ports: holds(ebpf, directories)?,
        rows,
        flows,
    };
    let set = KernelSet {
        // A trie's key begins with the prefix length.
        ranges: LpmTrie::try_from(take_checked::<(u32, RangeKey), u32>(ebpf, ranges)?).map_err(failed(ranges))?,
        endpoints: HashMap::try_from(take_checked::<u32, EndpointValue>(ebpf, endpoints)?)
            .map_err(failed(endpoints))?,
        directories: HashMap::try_from(take_checked::<PortsKey, Directory>(ebpf, directories)?)
            .map_err(failed(directories))?,
    };
    Ok((set, capacity))
}

pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map, OpenError> {
    ebpf.take_map(name).ok_or_else(|| OpenError::Missing { what: format!("map {name}") })
}

fn take_checked<K, V>(ebpf: &mut Ebpf, name: &str) -> Result<Map, OpenError> {
    check_layout::<K, V>(name, ebpf.map(name))?;
    take(ebpf, name)
}

/// A pinned map may be another version's: aya does not look.
pub(super) fn check_layout<K, V>(name: &str, map: Option<&Map>) -> Result<(), OpenError> {
    let (key_size, value_size, _) = info(name, map)?;
    if key_size as usize == size_of::<K>() && value_size as usize == size_of::<V>() {
        return Ok(());
    }
    Err(OpenError::Layout {
        map: name.to_owned(),
        key_size,
        value_size,
        expected_key_size: size_of::<K>(),
        expected_value_size: size_of::<V>(),
    })
}

/// Sizes of keys and values, and the most entries, as the kernel has them.
fn info(name: &str, map: Option<&Map>) -> Result<(u32, u32, u32), OpenError> {
    let info = map_data(name, map)?.info().map_err(failed(name))?;
    Ok((info.key_size(), info.value_size(), info.max_entries()))
}

fn map_data<'a>(name: &str, map: Option<&'a Map>) -> Result<&'a MapData, OpenError> {
    match map {
        Some(
            Map::Array(data) | Map::PerCpuArray(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::LpmTrie(data),
        ) => Ok(data),
        Some(_) | None => Err(OpenError::Missing { what: format!("map {name} of the expected type") }),
    }
}

fn data(map: Map) -> Result<MapData, OpenError> {
    match map {
        Map::Array(data) => Ok(data),
        _ => Err(OpenError::Missing { what: "array map of the expected type".to_owned() }),
    }
}

pub(super) fn failed(name: &str) -> impl FnOnce(MapError) -> OpenError {
    let map = name.to_owned();
    move |source| OpenError::Map { map, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_a_bounded_part_of_memory() {
        assert_eq!(affordable_flows(1 << 20, 16 << 30), 1 << 20, "a million where memory allows");
        assert_eq!(affordable_flows(1 << 20, 15 << 30), 524_288);
        assert_eq!(affordable_flows(1 << 20, 1 << 30), FEWEST_FLOWS);
        assert_eq!(affordable_flows(64, 16 << 30), 64);
        assert_eq!([1, 64, 1000, 1 << 20].map(cells_for), [64, 128, 2048, 1 << 21]);
    }
}
