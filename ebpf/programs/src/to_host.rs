//! Ingress of an uplink: packets that come to the node.

use aya_ebpf::{macros::classifier, programs::TcContext};
use ringfence_ebpf_common::Hook;
use ringfence_ebpf_programs::run;

/// Judges a packet towards the node itself; those to endpoints are judged where they go to these.
#[classifier]
#[inline(always)] // Else its symbol would be in the object, and with it a hash of where the sources lie.
pub fn to_host(context: TcContext) -> i32 {
    run(&context, Hook::ToHost)
}
