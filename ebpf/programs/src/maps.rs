//! The maps: names, keys and values are those of `ringfence_ebpf_common::layout`.
//!
//! Everything that a revision says exists twice, by parity of the generation; pages are shared, and never written while
//! a directory names them.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use ringfence_ebpf_common::{
    ANSWERS as ANSWERS_KEPT, Answered, BandCounter, Bucket, Directory, EndpointValue, EpochCell, ExactCell, FlowCell,
    FlowTable, FragmentKey, FragmentValue, Index, Page, PortsKey, RangeKey, Reason, Tally, Work, capacity,
};

#[map]
pub static ACTIVE: Array<u32> = Array::pinned(1, BPF_F_MMAPABLE);
#[map]
pub static EPOCH: Array<EpochCell> = Array::pinned(capacity::CPUS, BPF_F_MMAPABLE);
#[map]
pub static REVISION: Array<u64> = Array::pinned(2, 0);
#[map]
pub static PAGES: Array<Page> = Array::pinned(capacity::PAGES, 0);
#[map]
pub static FLOWS: Array<FlowCell> = Array::pinned(2 * capacity::FLOWS, BPF_F_MMAPABLE);
#[map]
pub static FLOW_TABLE: Array<FlowTable> = Array::pinned(1, 0);
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue> = LruHashMap::pinned(capacity::FRAGMENTS, 0);
#[map]
pub static PACKETS: PerCpuArray<u64> = PerCpuArray::pinned(Reason::COUNT, 0);
#[map]
pub static TALLIES: PerCpuArray<u64> = PerCpuArray::pinned(Tally::COUNT, 0);
#[map]
pub static BANDS: Array<u64> = Array::pinned(capacity::BANDS, BPF_F_MMAPABLE);
#[map]
pub static BAND_COUNTERS: PerCpuArray<BandCounter> = PerCpuArray::pinned(capacity::BANDS, 0);
#[map]
pub static EVENTS: RingBuf = RingBuf::pinned(capacity::EVENT_BYTES, 0);
#[map]
pub static BUCKETS: PerCpuArray<Bucket> = PerCpuArray::pinned(1, 0);
/// Not pinned: see `Work`.
#[map]
pub static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);
/// Not pinned: the last answers of each CPU, for the programs of one object.
#[map]
pub static ANSWERS: PerCpuArray<Answered> = PerCpuArray::with_max_entries(ANSWERS_KEPT, 0);

#[map]
pub static INDEX: Array<Index> = Array::pinned(1, BPF_F_MMAPABLE);
#[map]
pub static ADDRESSES_0: Array<ExactCell> = Array::pinned(2 * capacity::ADDRESSES, BPF_F_MMAPABLE);
#[map]
pub static ADDRESSES_1: Array<ExactCell> = Array::pinned(2 * capacity::ADDRESSES, BPF_F_MMAPABLE);
#[map]
pub static RANGES_0: LpmTrie<RangeKey, u32> = LpmTrie::pinned(capacity::RANGES, BPF_F_NO_PREALLOC);
#[map]
pub static RANGES_1: LpmTrie<RangeKey, u32> = LpmTrie::pinned(capacity::RANGES, BPF_F_NO_PREALLOC);
#[map]
pub static ENDPOINTS_0: HashMap<u32, EndpointValue> = HashMap::pinned(capacity::ENDPOINTS, BPF_F_NO_PREALLOC);
#[map]
pub static ENDPOINTS_1: HashMap<u32, EndpointValue> = HashMap::pinned(capacity::ENDPOINTS, BPF_F_NO_PREALLOC);
#[map]
pub static DIRECTORIES_0: HashMap<PortsKey, Directory> = HashMap::pinned(capacity::DIRECTORIES, BPF_F_NO_PREALLOC);
#[map]
pub static DIRECTORIES_1: HashMap<PortsKey, Directory> = HashMap::pinned(capacity::DIRECTORIES, BPF_F_NO_PREALLOC);
#[map]
pub static ROWS_0: Array<ExactCell> = Array::pinned(2 * capacity::ROWS, BPF_F_MMAPABLE);
#[map]
pub static ROWS_1: Array<ExactCell> = Array::pinned(2 * capacity::ROWS, BPF_F_MMAPABLE);
