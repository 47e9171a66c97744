//! Fuzz target of one decoder; what it does is shared with `tests/corpus.rs`.
#![no_main]

#[path = "../../tests/fuzz_areas/command.rs"]
mod command;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    command::exercise(bytes);
});
