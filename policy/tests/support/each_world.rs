//! A loop over numbered worlds. World `n` is the same in every run.
//!
//! `RINGFENCE_FIRST_WORLD` is where the loop begins, so that one world can be looked at alone, or others than those of
//! yesterday.

use std::{
    panic::{catch_unwind, resume_unwind},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use crate::worlds::{number, worlds};

/// Checks every world on all cores; names the first that fails. Answers how many there were.
pub(crate) fn each_world(name: &str, check: fn(u64)) -> u64 {
    let first = number("RINGFENCE_FIRST_WORLD", 0_u64);
    let end = first + u64::from(worlds());
    let next = AtomicU64::new(first);
    let run = || {
        loop {
            let world = next.fetch_add(1, Ordering::Relaxed);
            if world >= end {
                return;
            }
            if let Err(panic) = catch_unwind(|| check(world)) {
                // The others stop, too.
                next.store(end, Ordering::Relaxed);
                println!("{name}: world {world} fails; RINGFENCE_FIRST_WORLD={world} RINGFENCE_WORLDS=1 runs it alone");
                resume_unwind(panic);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(run);
        }
        run();
    });
    println!("{name}: worlds {first}..{end}");
    end - first
}

#[test]
#[should_panic]
fn a_world_that_fails_fails_the_test() {
    each_world("failing", |world| assert_eq!(world, u64::MAX));
}
