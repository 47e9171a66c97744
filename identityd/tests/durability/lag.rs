//! A member that lags far behind: the others read what it needs from their disks.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use ringfence_identityd::{Member, MemberFailed, wal::WalOptions};
use tokio::net::TcpListener;

use crate::{
    disk::{EIO, FaultyDisk},
    support::{PATIENCE, Store, allocate, allocate_fat},
};

/// What committed entries take in memory: three of those that are written here.
const TAIL_BYTES: usize = 64 << 10;
/// Entries that are written while a member is away, of 20 KB each: several messages of Raft's.
const MISSED: usize = 150;

/// Members 1 to 3, each on a disk of its own, in agreement.
async fn start() -> (Store, [FaultyDisk; 3]) {
    let mut store = Store::start(5000).await;
    store.register().await;
    let disks: [FaultyDisk; 3] = Default::default();
    for (id, disk) in (1..).zip(&disks) {
        store.kill(id).await;
        let config = store.configs[&id].clone();
        let listener = TcpListener::bind(config.listen).await.unwrap();
        let options = WalOptions { tail_bytes: TAIL_BYTES, disk: Arc::new(disk.clone()), ..WalOptions::default() };
        store.running.insert(id, Member::start_with(config, listener, options).await.unwrap());
        store.leader().await;
        store.converge().await;
    }
    (store, disks)
}

/// A follower dies and misses much. Gives the leader and the follower.
async fn one_misses_much(store: &mut Store) -> (u64, u64) {
    let leader = store.leader().await;
    let away = leader % 3 + 1;
    store.kill(away).await;
    let leader = store.leader().await;
    for number in 0..MISSED {
        store.execute(leader, &allocate_fat("east", &format!("missed-{number}")), PATIENCE).await.unwrap();
    }
    (leader, away)
}

fn read_by(disks: &[FaultyDisk; 3], id: u64) -> usize {
    disks[usize::try_from(id).unwrap() - 1].0.bytes_read.load(SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lags_far_behind_gets_old_entries_and_no_snapshot() {
    let (mut store, disks) = start().await;
    let (leader, away) = one_misses_much(&mut store).await;
    let before = read_by(&disks, leader);
    store.restart(away).await;
    store.converge().await;
    let read = read_by(&disks, leader) - before;
    assert!(read > (MISSED - 10) * 20_000, "the leader read {read} bytes");
    assert_eq!(store.running[&away].raft().metrics().borrow().snapshot, None);
    // Who keeps up is sent what is in memory.
    let before = read_by(&disks, leader);
    store.execute(leader, &allocate("east", "seen by all"), PATIENCE).await.unwrap();
    store.converge().await;
    assert_eq!(read_by(&disks, leader), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_read_old_entries_stops_and_another_one_goes_on() {
    let (mut store, disks) = start().await;
    let (leader, away) = one_misses_much(&mut store).await;
    disks[usize::try_from(leader).unwrap() - 1].0.read.store(EIO, SeqCst);
    let stopping = store.running.remove(&leader).unwrap();
    store.restart(away).await;
    let failed = tokio::time::timeout(PATIENCE, stopping.failed()).await.unwrap();
    assert!(matches!(failed, MemberFailed::Raft { .. }), "{failed}");
    assert!(failed.to_string().contains("os error 5"), "{failed}");
    stopping.kill().await;
    let next = store.leader().await;
    store.execute(next, &allocate("east", "after it"), Duration::from_secs(20)).await.unwrap();
    store.converge().await;
}
