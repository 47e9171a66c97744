//! What `decide` reads and writes: the maps of one set.

use aya_ebpf::maps::lpm_trie::Key;
use ringfence_ebpf_common::{
    Address, AddressValue, EndpointValue, FlowKey, FlowValue, RANGE_KEY_BITS, RuleKey, RuleValue, State,
};

use crate::maps;

/// The set of even generations.
pub struct Even;
/// The set of odd generations.
pub struct Odd;

/// One type per set, so that every lookup names one map: the verifier then inlines it.
macro_rules! state {
    ($set:ty, $addresses:ident, $ranges:ident, $endpoints:ident, $rules:ident) => {
        impl State for $set {
            #[inline(always)]
            fn address(&self, address: &Address) -> Option<AddressValue> {
                // SAFETY: BPF_F_NO_PREALLOC: an element is freed only after the program has ended.
                unsafe { maps::$addresses.get(address) }.copied()
            }

            #[inline(always)]
            fn range(&self, address: &Address) -> Option<u32> {
                maps::$ranges.get(Key::new(RANGE_KEY_BITS, address.range_key())).copied()
            }

            #[inline(always)]
            fn endpoint(&self, id: u32) -> Option<EndpointValue> {
                // SAFETY: as above.
                unsafe { maps::$endpoints.get(id) }.copied()
            }

            #[inline(always)]
            fn rule(&self, key: &RuleKey) -> Option<RuleValue> {
                // SAFETY: as above.
                unsafe { maps::$rules.get(key) }.copied()
            }

            #[inline(always)]
            fn flow(&self, key: &FlowKey) -> Option<FlowValue> {
                // SAFETY: an LRU element may be given to another flow while it is read. `decide` believes a value only
                // for the same endpoint and generation, and the window is a few instructions.
                unsafe { maps::FLOWS.get(key) }.copied()
            }

            #[inline(always)]
            fn set_flow(&mut self, key: &FlowKey, value: &FlowValue) {
                // A flow that cannot be remembered is judged anew at its next packet.
                let _ = maps::FLOWS.insert(key, value, 0);
            }

            #[inline(always)]
            fn remove_flow(&mut self, key: &FlowKey) {
                let _ = maps::FLOWS.remove(key);
            }
        }
    };
}

state!(Even, ADDRESSES_0, RANGES_0, ENDPOINTS_0, RULES_0);
state!(Odd, ADDRESSES_1, RANGES_1, ENDPOINTS_1, RULES_1);
