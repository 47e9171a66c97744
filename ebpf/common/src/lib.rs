//! What the kernel's programs and the agent agree on: map names, keys, values, and the one `decide` function.
//!
//! ```text
//! packet ─ parse ─► Packet ─┐
//! ACTIVE (read once) ───────┼─ decide ─► Decision { allow, reason, judged both ends, … } ─► Event
//! State (maps) ─────────────┘    └─ judge: connection known? else whose address, which band, which rows
//! ```
//!
//! The same code runs in the kernel (`ebpf/programs`, compiled for BPF) and in the memory datapath, so that what is
//! tested in memory is what packets meet. Layouts are `repr(C)` without padding; a change of any of them is a change
//! of `LAYOUT`, which names the directory the maps are pinned in.
#![no_std]

pub mod answer;
pub mod decide;
pub mod event;
pub mod exact;
mod host;
mod judge;
pub mod layout;
pub mod packet;
pub mod reason;
pub mod state;
pub mod table;

pub use answer::{ANSWERS, Answer, Answered, Question};
pub use decide::{Decision, Subject, Work, decide, judge_ends, recall, remember};
pub use event::{Bucket, EVENT_CUT, EVENT_SHADOW_DIFFERS, Event};
pub use host::judge_uplink;
pub use layout::*;
pub use packet::{Fragment, Hook, Packet, PacketKind};
pub use reason::{Reason, Tally};
pub use state::State;
pub use table::FLOW_TICK_NS;
