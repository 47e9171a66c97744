//! Fuzz target of one area; what it does is shared with `tests/corpus.rs`.
#![no_main]

#[path = "../../tests/fuzz_areas/addresses.rs"]
mod addresses;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| addresses::exercise(bytes));
