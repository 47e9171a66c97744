//! Yardsticks for `cargo xtask bench datapath`: what an empty program costs, and `run` with changing flows.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod peer;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_get_prandom_u32,
    macros::classifier,
    programs::TcContext,
};
use ringfence_ebpf_common::Hook;
use ringfence_ebpf_programs::{maps, run};

/// Offsets into an Ethernet frame with IPv4 and TCP.
const DESTINATION: usize = 30;
const SOURCE_PORT: usize = 34;
const END: usize = 54;

/// What BPF_PROG_TEST_RUN itself costs.
#[classifier]
pub fn empty(_context: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// What making up a flow costs: the baseline of the two below.
#[classifier]
pub fn random(context: TcContext) -> i32 {
    randomise(&context, 0xffff, 0)
}

/// One of 65,536 flows.
#[classifier]
#[inline(always)]
pub fn one_of_64k_flows(context: TcContext) -> i32 {
    randomise(&context, 0xffff, 0);
    run(&context, Hook::FromEndpoint)
}

/// A flow that was hardly ever seen before: one of 65,536 ports to one of 65,536 peers.
#[classifier]
#[inline(always)]
pub fn new_flow(context: TcContext) -> i32 {
    randomise(&context, 0xffff, 0xffff);
    run(&context, Hook::FromEndpoint)
}

/// The same to one of 256 peers, of which all but the connection is in caches.
#[classifier]
#[inline(always)]
pub fn new_flow_to_few(context: TcContext) -> i32 {
    randomise(&context, 0xffff, 0xff);
    run(&context, Hook::FromEndpoint)
}

/// An event for each packet, however many there are.
#[classifier]
#[inline(always)]
pub fn event_per_packet(_context: TcContext) -> i32 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return TC_ACT_SHOT as i32 };
    // SAFETY: this CPU's own; what the last packet left there is a valid `Work`.
    let work = unsafe { &*work };
    ringfence_ebpf_programs::tell::publish(0, Hook::FromEndpoint, work);
    TC_ACT_UNSPEC
}

/// The peer's lookups for the frame as it is.
#[classifier]
#[inline(always)]
pub fn peer_packet(context: TcContext) -> i32 {
    peer::run(&context)
}

/// The same for one of 65,536 flows.
#[classifier]
#[inline(always)]
pub fn peer_one_of_64k_flows(context: TcContext) -> i32 {
    randomise(&context, 0xffff, 0);
    peer::run(&context)
}

/// The same for a flow that was hardly ever seen before.
#[classifier]
#[inline(always)]
pub fn peer_new_flow(context: TcContext) -> i32 {
    randomise(&context, 0xffff, 0xffff);
    peer::run(&context)
}

/// Writes a random source port and the lower half of a random IPv4 destination address.
#[inline(always)]
fn randomise(context: &TcContext, port_mask: u32, address_mask: u32) -> i32 {
    let start = context.data();
    if start + END <= context.data_end() {
        // SAFETY: the helper has no preconditions.
        let random = unsafe { bpf_get_prandom_u32() };
        // SAFETY: as above.
        let other = unsafe { bpf_get_prandom_u32() };
        // SAFETY: the verifier has seen the bound check; both offsets are even.
        unsafe {
            *((start + SOURCE_PORT) as *mut u16) = (random & port_mask) as u16;
            if address_mask != 0 {
                *((start + DESTINATION + 2) as *mut u16) = (other & address_mask) as u16;
            }
        }
    }
    TC_ACT_UNSPEC
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
