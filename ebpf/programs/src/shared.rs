//! The maps that both sets share: fragments, counters.

use core::ptr::addr_of;

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use ringfence_ebpf_common::{
    Answer, Answered, FragmentKey, FragmentPorts, FragmentValue, Question, Tally, Work, capacity,
};

use crate::maps;

/// How many slots of `BANDS` an owner may try.
const BAND_PROBES: u32 = 4;

/// Coarse monotonic time. It moves with the kernel's ticks, so that it is asked for once for each.
#[inline(always)]
pub fn set_clock(work: &mut Work) {
    // SAFETY: the helper has no preconditions; the kernel makes one read of it.
    let tick = unsafe { bpf_jiffies64() };
    if work.tick != tick {
        work.tick = tick;
        // SAFETY: the helper has no preconditions.
        work.now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    }
}

/// As `State::answer`.
#[inline(always)]
pub fn answer(question: &Question, answer: &mut Answer) -> bool {
    let Some(answered) = maps::ANSWERS.get_ptr(question.slot()) else { return false };
    // SAFETY: points to this CPU's own value; programs on one CPU do not nest.
    let answered = unsafe { &*answered };
    if !answered.is_about(question) {
        return false;
    }
    *answer = answered.answer;
    true
}

/// As `State::keep_answer`.
#[inline(always)]
pub fn keep_answer(question: &Question, answer: &Answer) {
    if let Some(answered) = maps::ANSWERS.get_ptr_mut(question.slot()) {
        // SAFETY: as above.
        unsafe { *answered = Answered { question: *question, answer: *answer } }
    }
}

/// As `State::fragment`.
///
/// The kernel may give an LRU element to another key at any time, also while it is read: it writes the new key, then the
/// new value, whose first field is the key again. So the value is copied first and its key compared afterwards: a copy
/// with anything of another datagram's in it shows the other key, as far as stores of one CPU are seen in order (x86)
/// and the kernel copies from front to back.
#[inline(always)]
pub fn fragment(key: &FragmentKey) -> Option<FragmentPorts> {
    let found = maps::FRAGMENTS.get_ptr(key)?;
    // SAFETY: points to a value of the map, plain bytes that stay readable until the program ends. Volatile keeps the
    // order of the two readings.
    let (ports, again) = unsafe { (addr_of!((*found).ports).read_volatile(), addr_of!((*found).key).read_volatile()) };
    if again.is(key) {
        Some(ports)
    } else {
        tally(Tally::Reused);
        None
    }
}

/// As `State::set_fragment`.
#[inline(always)]
pub fn set_fragment(value: &FragmentValue) {
    // A datagram whose ports cannot be remembered is dropped from its second fragment on.
    let _ = maps::FRAGMENTS.insert(&value.key, value, 0);
}

/// As `State::counter`.
#[inline(always)]
pub fn counter(owner: u64) -> u32 {
    let start = (owner.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32;
    for probe in 0..BAND_PROBES {
        let slot = start.wrapping_add(probe) & (capacity::BANDS - 1);
        // Slot 0 is everybody's.
        let slot = if slot == 0 { 1 } else { slot };
        let Some(place) = maps::BANDS.get_ptr_mut(slot) else { return 0 };
        // SAFETY: points to an aligned word of a map value.
        let there = unsafe { place.read_volatile() };
        if there == owner || (there == 0 && claim(place, owner)) {
            return slot;
        }
    }
    0
}

/// Makes a free slot the owner's, unless another CPU is faster.
#[inline(always)]
fn claim(place: *mut u64, owner: u64) -> bool {
    let before: u64;
    // SAFETY: `place` points to a map value; the instruction writes `owner` there if 0 is there, and answers in r0 what
    // was there.
    unsafe {
        core::arch::asm!("r0 = cmpxchg_64(r1 + 0, r0, r2)", inlateout("r0") 0_u64 => before, in("r1") place, in("r2") owner);
    }
    before == 0 || before == owner
}

/// Counts.
#[inline(always)]
pub fn tally(tally: Tally) {
    if let Some(count) = maps::TALLIES.get_ptr_mut(tally as u32) {
        // SAFETY: points to this CPU's own counter; programs on one CPU do not nest.
        unsafe { *count += 1 };
    }
}

/// As `State::settle`.
#[inline(always)]
pub fn settle<T>(memory: &mut T) {
    // SAFETY: no instruction at all; the compiler must assume that it reads and writes the memory.
    unsafe { core::arch::asm!("/* {0} */", in(reg) memory as *mut T) }
}
