//! Frames of every shape through the programs' own parser and `decide`, in memory: the stored fuzz corpus and a fixed set of
//! random inputs. Nothing panics, nothing is read past a frame, nothing passes that the specification refuses.
#![expect(unsafe_code, reason = "the programs' parser reads frames in place")]

extern crate self as aya_ebpf;

mod fuzz_frames;
#[path = "../../../ebpf/programs/src/headers.rs"]
mod headers;
#[path = "../../../ebpf/programs/src/parse.rs"]
#[expect(unreachable_pub, reason = "the programs' crate exports it")]
mod parse;
#[path = "../../../ebpf/host/programs.rs"]
pub mod programs;
#[path = "../../../ebpf/programs/src/transport.rs"]
mod transport;
#[path = "support/worlds.rs"]
#[expect(dead_code, reason = "the suite uses the rest")]
mod worlds;

use std::{fs, path::Path};

use fuzz_frames::{Seen, exercise, exercise_with};

const INPUTS: u64 = 6_000;

/// xorshift64*, the same bytes in every run.
fn bytes(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()
    };
    (0..=seed % 64).flat_map(|_| next()).collect()
}

#[test]
fn nothing_passes_that_the_specification_refuses() {
    let mut sum = Seen::default();
    for seed in 1..=INPUTS {
        let seen = exercise(&bytes(seed));
        sum = Seen { passed: sum.passed + seen.passed, dropped: sum.dropped + seen.dropped };
    }
    println!("{sum:?}");
    assert!(sum.passed > 1_000 && sum.dropped > 10_000, "the frames say too little: {sum:?}");
}

#[test]
fn the_corpus_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/frames");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        println!("{}", file.display());
        exercise(&fs::read(file).expect("a readable file"));
    }
}

#[test]
fn control_a_frame_that_passes_by_mistake_is_found() {
    let found = std::panic::catch_unwind(|| {
        for seed in 1..=INPUTS {
            exercise_with(&bytes(seed), |tables| {
                // Everything that is denied is allowed.
                tables.rows.values_mut().for_each(|row| row.high &= !row.low);
            });
        }
    });
    assert!(found.is_err(), "these frames cannot tell wrong tables from right ones");
}
