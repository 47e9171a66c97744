//! Fuzz target of one area; what it does is shared with `tests/corpus.rs`.
#![no_main]

#[path = "../../tests/fuzz_areas/documents.rs"]
mod documents;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| documents::exercise(bytes));
