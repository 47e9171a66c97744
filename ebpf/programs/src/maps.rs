//! The maps: names, keys and values are those of `ringfence_ebpf_common::layout`.
//!
//! Everything that a revision says exists twice, by parity of the generation.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray},
};
use ringfence_ebpf_common::{
    Address, AddressValue, EndpointValue, EpochCell, FlowKey, FlowValue, RangeKey, Reason, RuleKey, RuleValue, capacity,
};

#[map]
pub static ACTIVE: Array<u32> = Array::pinned(1, BPF_F_MMAPABLE);
#[map]
pub static EPOCH: Array<EpochCell> = Array::pinned(capacity::CPUS, BPF_F_MMAPABLE);
#[map]
pub static REVISION: Array<u64> = Array::pinned(2, 0);
#[map]
pub static FLOWS: LruHashMap<FlowKey, FlowValue> = LruHashMap::pinned(capacity::FLOWS, 0);
#[map]
pub static PACKETS: PerCpuArray<u64> = PerCpuArray::pinned(Reason::COUNT, 0);

#[map]
pub static ADDRESSES_0: HashMap<Address, AddressValue> = HashMap::pinned(capacity::ADDRESSES, BPF_F_NO_PREALLOC);
#[map]
pub static ADDRESSES_1: HashMap<Address, AddressValue> = HashMap::pinned(capacity::ADDRESSES, BPF_F_NO_PREALLOC);
#[map]
pub static RANGES_0: LpmTrie<RangeKey, u32> = LpmTrie::pinned(capacity::RANGES, BPF_F_NO_PREALLOC);
#[map]
pub static RANGES_1: LpmTrie<RangeKey, u32> = LpmTrie::pinned(capacity::RANGES, BPF_F_NO_PREALLOC);
#[map]
pub static ENDPOINTS_0: HashMap<u32, EndpointValue> = HashMap::pinned(capacity::ENDPOINTS, BPF_F_NO_PREALLOC);
#[map]
pub static ENDPOINTS_1: HashMap<u32, EndpointValue> = HashMap::pinned(capacity::ENDPOINTS, BPF_F_NO_PREALLOC);
#[map]
pub static RULES_0: HashMap<RuleKey, RuleValue> = HashMap::pinned(capacity::RULES, BPF_F_NO_PREALLOC);
#[map]
pub static RULES_1: HashMap<RuleKey, RuleValue> = HashMap::pinned(capacity::RULES, BPF_F_NO_PREALLOC);
