//! Egress of an endpoint's host-side device: packets towards the endpoint.

use aya_ebpf::{macros::classifier, programs::TcContext};
use ringfence_ebpf_common::Hook;
use ringfence_ebpf_programs::run;

/// Judges a packet towards an endpoint unless it was judged where it left another one of this node.
#[classifier]
#[inline(always)] // Else its symbol would be in the object, and with it a hash of where the sources lie.
pub fn to_endpoint(context: TcContext) -> i32 {
    run(&context, Hook::ToEndpoint)
}
