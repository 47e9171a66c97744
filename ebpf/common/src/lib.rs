//! What the kernel's programs and the agent agree on: map names, keys, values, and the one `decide` function.
//!
//! ```text
//! packet ─ parse ─► Packet ─┐
//! ACTIVE (read once) ───────┼─ decide ─► Decision { allow, reason, judged both ends }
//! State (maps) ─────────────┘
//! ```
//!
//! The same code runs in the kernel (`ebpf/programs`, compiled for BPF) and in the memory datapath, so that what is
//! tested in memory is what packets meet. Layouts are `repr(C)` without padding; a change of any of them is a change
//! of `LAYOUT`, which names the directory the maps are pinned in.
#![no_std]

pub mod decide;
pub mod layout;

pub use decide::{Decision, Hook, Packet, PacketKind, Reason, State, decide};
pub use layout::*;
