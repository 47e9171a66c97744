//! What `decide` reads and writes: the maps of one set, and the shared ones.

use aya_ebpf::maps::lpm_trie::Key;
use ringfence_ebpf_common::{
    Address, AddressValue, Answer, EndpointValue, FlowKey, FlowValue, FragmentKey, FragmentPorts, FragmentValue,
    PortsKey, Question, RANGE_KEY_BITS, RowKey, RowValue, State, Tally, table::Crowd,
};

use crate::{exact, flows, maps, shared};

/// The set of even generations.
pub struct Even;
/// The set of odd generations.
pub struct Odd;

/// One type per set, so that every lookup names one map: the verifier then inlines it.
macro_rules! state {
    ($set:ty, $parity:literal, $ranges:ident, $endpoints:ident, $directories:ident) => {
        impl State for $set {
            #[inline(always)]
            fn address(&self, address: &Address) -> Option<AddressValue> {
                exact::address($parity, address)
            }

            #[inline(always)]
            fn range(&self, address: &Address) -> Option<u32> {
                maps::$ranges.get(Key::new(RANGE_KEY_BITS, address.range_key())).copied()
            }

            #[inline(always)]
            fn endpoint(&self, id: u32) -> Option<EndpointValue> {
                // SAFETY: BPF_F_NO_PREALLOC: an element is freed only after the program has ended, and nobody writes
                // this set while a packet reads it.
                unsafe { maps::$endpoints.get(id) }.copied()
            }

            #[inline(always)]
            fn band(&self, key: &PortsKey, port: u16) -> u16 {
                // SAFETY: as above.
                let Some(directory) = (unsafe { maps::$directories.get(key) }) else { return 0 };
                let page = directory.pages[(port >> 8) as usize];
                match maps::PAGES.get(page as u32) {
                    Some(page) => page.bands[(port & 0xff) as usize],
                    None => 0,
                }
            }

            #[inline(always)]
            fn row(&self, key: &RowKey) -> Option<RowValue> {
                exact::row($parity, key)
            }

            #[inline(always)]
            fn answer(&self, question: &Question, answer: &mut Answer) -> bool {
                shared::answer(question, answer)
            }

            #[inline(always)]
            fn keep_answer(&mut self, question: &Question, answer: &Answer) {
                shared::keep_answer(question, answer);
            }

            #[inline(always)]
            fn home(&self, key: &FlowKey) -> u32 {
                flows::home(key)
            }

            #[inline(always)]
            fn flow(&self, home: u32, value: &mut FlowValue) -> bool {
                flows::flow(home, value)
            }

            #[inline(always)]
            fn set_flow(&mut self, home: u32, value: &FlowValue, found: bool, crowd: &mut Crowd) {
                flows::set_flow(home, value, found, crowd);
            }

            #[inline(always)]
            fn remove_flow(&mut self, home: u32, key: &FlowKey) {
                flows::remove_flow(home, key);
            }

            #[inline(always)]
            fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
                shared::fragment(key)
            }

            #[inline(always)]
            fn set_fragment(&mut self, value: &FragmentValue) {
                shared::set_fragment(value);
            }

            #[inline(always)]
            fn counter(&mut self, owner: u64) -> u32 {
                shared::counter(owner)
            }

            #[inline(always)]
            fn tally(&mut self, tally: Tally) {
                shared::tally(tally);
            }

            #[inline(always)]
            fn settle<T>(memory: &mut T) {
                shared::settle(memory);
            }
        }
    };
}

state!(Even, 0, RANGES_0, ENDPOINTS_0, DIRECTORIES_0);
state!(Odd, 1, RANGES_1, ENDPOINTS_1, DIRECTORIES_1);
