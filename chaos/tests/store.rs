//! The store's drill, short and with fixed seeds; `cargo xtask chaos store` runs it for longer.

mod support;

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use ringfence_chaos::store::fabric;

/// One drill at a time: the members need the machine's cores to keep Raft's times.
static ALONE: Mutex<()> = Mutex::new(());

/// What the drill printed; none where it cannot run.
fn drill(arguments: &[&str]) -> Option<(bool, String)> {
    if let Some(obstacle) = fabric::obstacle() {
        println!("skipped: the drill needs network namespaces and nft: {obstacle}");
        return None;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence-demo"));
    command.arg("--binaries").arg(support::binaries()).arg("store").args(arguments);
    let output = command.output().expect("the drill starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    Some((output.status.success(), text))
}

#[test]
fn s5_s11_s13_s14_l1_l2_hold_under_kills_pauses_and_partitions() {
    for (members, seed) in [("3", "1"), ("5", "2")] {
        let Some((held, text)) = drill(&["--members", members, "--seed", seed, "--seconds", "10"]) else { return };
        assert!(held, "{text}");
        assert!(text.contains("S5, S11, S13, S14, L1, L2 held"), "{text}");
    }
}

#[test]
fn s5_stale_reads_and_lost_disks_are_caught() {
    for control in ["stale-reads", "amnesia"] {
        let Some((caught, text)) = drill(&["--control", control, "--seed", "1", "--seconds", "3"]) else { return };
        assert!(caught, "{text}");
        assert!(text.contains("control: caught, not linearizable"), "{text}");
    }
}
