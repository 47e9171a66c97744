//! Loading, adopting, and removing what is pinned.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray},
    programs::{ProgramError, SchedClassifier},
};
use ringfence_ebpf_common::{
    Address, AddressValue, EndpointValue, EpochCell, FlowKey, FlowValue, LAYOUT, RangeKey, RuleKey, RuleValue,
    capacity, map, program,
};
use ringfence_policy::{name::Name, revision::Revision};

use super::{
    KernelDatapath, KernelOptions,
    cells::Cells,
    error::{OpenError, UninstallError},
    links::{Links, pin_name},
    sets::{KernelSet, KernelSets},
    system,
};
use crate::{capacity::Capacity, flip::Flip};

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
    fs::remove_dir_all(directory).map_err(remove)
}

pub(super) fn open(options: &KernelOptions) -> Result<KernelDatapath, OpenError> {
    let directory = options.directory.join(LAYOUT);
    let lock = prepare(&options.directory, &directory)?;
    let mut ebpf = load(&directory, options.capacity)?;
    // Before any map is taken out: programs are bound to maps when they are loaded.
    for name in [program::FROM_ENDPOINT, program::TO_ENDPOINT] {
        classifier(&mut ebpf, name)?.load().map_err(|source| OpenError::Program { program: name, source })?;
    }
    check_layout::<FlowKey, FlowValue>(map::FLOWS, ebpf.map(map::FLOWS))?;
    let packets = take(&mut ebpf, map::PACKETS)?;
    let packets = PerCpuArray::try_from(packets).map_err(failed(map::PACKETS))?;
    let mut flip = Flip::adopt(sets(&mut ebpf)?);
    // Now, not at the first change: a half-written idle set from before a crash is found while nobody waits.
    if let Err(error) = flip.repair(Revision::ZERO) {
        tracing::warn!(%error, "the idle set cannot be repaired now: it is tried again before the next change");
    }
    let mut links = Links::new(directory.join("links"));
    links.adopt(&mut ebpf)?;
    Ok(KernelDatapath { ebpf, flip, links, packets, _lock: lock })
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
    let links = directory.join("links");
    fs::create_dir_all(&links).map_err(fail(&links))?;
    let lock = File::open(directory).map_err(fail(directory))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(fail(directory)(source)),
    }
}

/// Loads the object; maps that are pinned in `directory` are adopted, the others are made and pinned there.
fn load(directory: &Path, capacity: Capacity) -> Result<Ebpf, OpenError> {
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(directory);
    for parity in 0..2 {
        loader.map_max_entries(map::ADDRESSES[parity], capacity.addresses);
        loader.map_max_entries(map::RANGES[parity], capacity.ranges);
        loader.map_max_entries(map::ENDPOINTS[parity], capacity.endpoints);
        loader.map_max_entries(map::RULES[parity], capacity.rules);
    }
    loader.load(OBJECT).map_err(|source| {
        let refused = match &source {
            EbpfError::MapError(MapError::CreateError { io_error, .. }) => Some(io_error.kind()),
            _ => None,
        };
        match refused {
            Some(io::ErrorKind::PermissionDenied) => OpenError::NotPermitted { source },
            _ => OpenError::Load { source },
        }
    })
}

fn sets(ebpf: &mut Ebpf) -> Result<KernelSets, OpenError> {
    let even = set(ebpf, 0)?;
    let odd = set(ebpf, 1)?;
    let revision = take_checked::<u32, u64>(ebpf, map::REVISION)?;
    let active = data(take_checked::<u32, u32>(ebpf, map::ACTIVE)?)?;
    let epoch = data(take_checked::<u32, EpochCell>(ebpf, map::EPOCH)?)?;
    let cpus = system::possible_cpus().map_err(|source| OpenError::Cpus { path: system::POSSIBLE_CPUS, source })?;
    if cpus > capacity::CPUS as usize {
        return Err(OpenError::TooManyCpus { cpus, max: capacity::CPUS });
    }
    let cells = Cells::new(&active, &epoch, cpus).map_err(|(map, source)| OpenError::Memory { map, source })?;
    Ok(KernelSets {
        sets: [even.0, odd.0],
        revision: Array::try_from(revision).map_err(failed(map::REVISION))?,
        cells,
        capacity: even.1,
    })
}

/// The maps of one parity, and how much they hold.
fn set(ebpf: &mut Ebpf, parity: usize) -> Result<(KernelSet, Capacity), OpenError> {
    let (addresses, ranges) = (map::ADDRESSES[parity], map::RANGES[parity]);
    let (endpoints, rules) = (map::ENDPOINTS[parity], map::RULES[parity]);
    let holds = |ebpf: &Ebpf, name: &str| -> Result<u32, OpenError> { Ok(info(name, ebpf.map(name))?.2) };
    let capacity = Capacity {
        addresses: holds(ebpf, addresses)?,
        ranges: holds(ebpf, ranges)?,
        endpoints: holds(ebpf, endpoints)?,
        rules: holds(ebpf, rules)?,
    };
    let set = KernelSet {
        addresses: HashMap::try_from(take_checked::<Address, AddressValue>(ebpf, addresses)?)
            .map_err(failed(addresses))?,
        // A trie's key begins with the prefix length.
        ranges: LpmTrie::try_from(take_checked::<(u32, RangeKey), u32>(ebpf, ranges)?).map_err(failed(ranges))?,
        endpoints: HashMap::try_from(take_checked::<u32, EndpointValue>(ebpf, endpoints)?)
            .map_err(failed(endpoints))?,
        rules: HashMap::try_from(take_checked::<RuleKey, RuleValue>(ebpf, rules)?).map_err(failed(rules))?,
    };
    Ok((set, capacity))
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map, OpenError> {
    ebpf.take_map(name).ok_or_else(|| OpenError::Missing { what: format!("map {name}") })
}

fn take_checked<K, V>(ebpf: &mut Ebpf, name: &str) -> Result<Map, OpenError> {
    check_layout::<K, V>(name, ebpf.map(name))?;
    take(ebpf, name)
}

/// A pinned map may be another version's: aya does not look.
fn check_layout<K, V>(name: &str, map: Option<&Map>) -> Result<(), OpenError> {
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
    let data = match map {
        Some(Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::LpmTrie(data)) => data,
        Some(_) | None => return Err(OpenError::Missing { what: format!("map {name} of the expected type") }),
    };
    let info = data.info().map_err(failed(name))?;
    Ok((info.key_size(), info.value_size(), info.max_entries()))
}

fn data(map: Map) -> Result<MapData, OpenError> {
    match map {
        Map::Array(data) => Ok(data),
        _ => Err(OpenError::Missing { what: "array map of the expected type".to_owned() }),
    }
}

fn failed(name: &str) -> impl FnOnce(MapError) -> OpenError {
    let map = name.to_owned();
    move |source| OpenError::Map { map, source }
}
