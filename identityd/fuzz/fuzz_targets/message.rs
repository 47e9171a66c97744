//! Fuzz target of one decoder; what it does is shared with `tests/corpus.rs`.
#![no_main]

#[path = "../../tests/fuzz_areas/message.rs"]
mod message;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    message::exercise(bytes);
});
