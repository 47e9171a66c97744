//! What is done with the bytes of one fuzz input, by area, and what must hold then.
//!
//! ```text
//! corpus file, its mutations (tests/corpus.rs) ┐
//! libfuzzer (fuzz/fuzz_targets/<area>.rs) ─────┴─ bytes ─► <area>::exercise ─► returns, or panics: a finding
//! ```
//!
//! The file of each area stands alone: its fuzz target includes it by its path.

pub(crate) mod addresses;
pub(crate) mod dns;
pub(crate) mod documents;
pub(crate) mod http;
pub(crate) mod labels;
pub(crate) mod objects;
