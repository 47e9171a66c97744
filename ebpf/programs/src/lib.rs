//! Ringfence's programs for the kernel's traffic control hooks.
//!
//! ```text
//! packet ─ parse ─► Packet ──────────────┐
//! ACTIVE ─ parity ─► one set of the maps ┼─► decide (ringfence-ebpf-common) ─► verdict, mark, counter
//! FLOWS ─────────────────────────────────┘
//! └──────── inside the CPU's epoch cell ────────┘
//! ```
//!
//! `run` is the whole of a hook; the binaries only name the hooks.
#![no_std]
#![feature(asm_experimental_arch)]

pub mod epoch;
pub mod exact;
pub mod flows;
mod headers;
pub mod maps;
pub mod parse;
pub mod run;
pub mod shared;
pub mod state;
pub mod tell;
mod transport;

pub use run::run;

/// The binaries contain no reachable panic: the verifier would refuse the loop.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
