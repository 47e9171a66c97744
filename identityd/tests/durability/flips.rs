//! Bits that flip while a member is down: it refuses to start and says what to do, or rebuilds from what is sound, and
//! then holds what the others hold.
//!
//! `RINGFENCE_FLIPS` says how many; `RINGFENCE_FLIPS_SEED` repeats a run.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use ringfence_identityd::{Member, StartError};

use crate::{
    random::Random,
    support::{PATIENCE, Store, allocate},
};

const DEFAULT_FLIPS: u32 = 30;

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found.sort();
    found
}

/// Flips one bit of what is used of a file: `place` says where, from 0 up to 1,000,000.
fn flip(path: &Path, place: u64, bit: u64) -> u64 {
    let mut bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1) as u64;
    let at = used * place / 1_000_000;
    bytes[usize::try_from(at).unwrap()] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
    at
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_stops_a_member_or_does_no_harm() {
    let flips = std::env::var("RINGFENCE_FLIPS").map_or(DEFAULT_FLIPS, |flips| flips.parse().unwrap());
    let mut random = Random::from_environment("RINGFENCE_FLIPS_SEED");
    let mut store = Store::start(40).await;
    store.register().await;
    let victim = store.leader().await % 3 + 1;
    let other = *store.running.keys().find(|id| **id != victim).unwrap();
    let (directory, whole) = (store.configs[&victim].data_dir.clone(), store.directory.path().join("whole"));
    let mut outcomes: BTreeMap<(String, &str), u32> = BTreeMap::new();
    for round in 0..flips {
        for number in 0..5 {
            store.execute(other, &allocate("east", &format!("f{round}-{number}")), PATIENCE).await.unwrap();
        }
        store.converge().await;
        let member = store.running.remove(&victim).unwrap();
        // A crash leaves other bytes than an orderly stop.
        if random.below(2) == 0 {
            member.kill().await;
        } else {
            member.shutdown(PATIENCE).await.unwrap();
        }
        copy(&directory, &whole);
        let candidates: Vec<_> = files(&directory)
            .into_iter()
            .filter(|path| fs::read(path).unwrap().iter().any(|byte| *byte != 0))
            .collect();
        // Log, snapshot and state in turn; which of their files is chance.
        let part = ["wal", "snapshot", "state"][round as usize % 3];
        let of_part: Vec<_> = candidates.iter().filter(|path| path.starts_with(directory.join(part))).collect();
        if of_part.is_empty() {
            store.restart(victim).await;
            continue;
        }
        let path = of_part[usize::try_from(random.below(of_part.len() as u64)).unwrap()];
        let at = flip(path, random.below(1_000_000), random.below(8));
        let what = format!("round {round}, seed {}: byte {at} of {}", random.seed, path.display());
        let starting = tokio::time::timeout(PATIENCE, Member::start(store.configs[&victim].clone()));
        let outcome = match starting.await.unwrap_or_else(|_| panic!("{what}: it does not start, and does not say why"))
        {
            Ok(member) => {
                store.running.insert(victim, member);
                "started and rebuilt or whole"
            }
            Err(error @ StartError::Storage(_)) => {
                let advice = error.to_string();
                assert!(advice.contains("ringfence store member remove"), "{what}: {advice}");
                copy(&whole, &directory);
                store.restart(victim).await;
                "refused to start"
            }
            Err(error) => panic!("{what}: {error}"),
        };
        println!("{what}: {outcome}");
        *outcomes.entry((part.to_owned(), outcome)).or_default() += 1;
        // Fails if states differ at the same entry.
        store.converge().await;
    }
    println!("{outcomes:#?}");
}
