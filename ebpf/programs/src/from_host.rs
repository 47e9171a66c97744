//! Egress of an uplink: packets that leave the node.

use aya_ebpf::{macros::classifier, programs::TcContext};
use ringfence_ebpf_common::Hook;
use ringfence_ebpf_programs::run;

/// Judges a packet of the node itself; those of endpoints were judged where they left these.
#[classifier]
#[inline(always)] // Else its symbol would be in the object, and with it a hash of where the sources lie.
pub fn from_host(context: TcContext) -> i32 {
    run(&context, Hook::FromHost)
}
