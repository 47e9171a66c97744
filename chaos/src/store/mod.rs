//! The store's drill: real members under kills, pauses and partitions, and what their clients may and may not see.
//!
//! ```text
//!  schedule (seed) ─► nemesis ── kill -9, SIGSTOP, SIGTERM, nft ──► members: identityd, each in a namespace of its own
//!                                                                     ▲            │
//!                     clients ── Execute, List ───────────────────────┘            │ Follow
//!                        │ calls, with their times                                 ▼
//!                        └──────────► check ◄────────────────────────── watchers: deltas, snapshots
//!                                       └─► S5, S11, S13, S14, L2: held, or what broke them and when
//! ```
//!
//! The drill lives in a network namespace of its own, which is the fabric between the members, so clients reach every
//! member at all times: also the one that is cut off from the others and ought to refuse.

pub mod check;
pub mod clients;
pub mod drill;
pub mod fabric;
pub mod members;
pub mod nemesis;
pub mod random;
pub mod recorder;
pub mod schedule;
pub mod verdict;
pub mod vocabulary;
pub mod watchers;
