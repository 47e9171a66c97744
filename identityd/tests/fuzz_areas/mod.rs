//! What is done with the bytes of one fuzz input, by decoder, and what must hold then. True if the input was accepted.
//!
//! ```text
//! corpus file, its mutations (tests/corpus.rs) ┐
//! libfuzzer (fuzz/fuzz_targets/<area>.rs) ─────┴─ bytes ─► <area>::exercise ─► returns, or panics: a finding
//! ```
//!
//! Checksums are put on where the decoder wants them: a fuzzer does not find them, and a bug of ours writes them. The file
//! of each area stands alone: its fuzz target includes it by its path.

pub(crate) mod backup;
pub(crate) mod command;
pub(crate) mod history;
pub(crate) mod message;
pub(crate) mod seeds;
pub(crate) mod snapshot;
pub(crate) mod wal;
