//! Fuzz target of the packet parser; what it does is shared with `tests/frames.rs`.
#![no_main]

extern crate self as aya_ebpf;

#[path = "../../tests/fuzz_frames/mod.rs"]
mod fuzz_frames;
#[path = "../../../../ebpf/programs/src/headers.rs"]
mod headers;
#[path = "../../../../ebpf/programs/src/parse.rs"]
mod parse;
#[path = "../../../../ebpf/host/programs.rs"]
pub mod programs;
#[path = "../../../../ebpf/programs/src/transport.rs"]
mod transport;
#[path = "../../tests/support/worlds.rs"]
mod worlds;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(fuzz_frames::exercise(bytes)));
