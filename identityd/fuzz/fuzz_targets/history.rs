//! Fuzz target of one decoder; what it does is shared with `tests/corpus.rs`.
#![no_main]

#[path = "../../tests/fuzz_areas/history.rs"]
mod history;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    history::exercise(bytes);
});
