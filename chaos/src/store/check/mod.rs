//! Judging recorded histories; pure, without IO and clocks.
//!
//! ```text
//! calls of all clients ─┬─► linearize: each key's calls have an order that explains every answer (S5)
//!                       ├─► numbers:   one label set, one number; one number, one label set (S5)
//!                       ├─► order:     revisions never go back while time goes on (S5)
//!                       └─► trail:     what was acknowledged or listed is what the streams carried (S13)
//! followers' streams ─────► trail:     each revision once, in order, whole and the same for everybody (S13)
//! ```
//!
//! `linearize` and `numbers` believe the store nothing but its answers. `order` and `trail` also take the revisions by
//! their word, and so judge the whole store at once instead of key by key.

pub mod history;
pub mod linearize;
pub mod numbers;
pub mod order;
mod search;
pub mod trail;
