//! The history on disk, as followers see it.

use std::time::Duration;

use ringfence_policy::revision::Revision;
use ringfence_proto::follow::{FollowEvent, Follower};

use crate::support::{PATIENCE, Store, allocate};

/// What a follower at `from` gets first from a member, up to its head: the revisions of deltas, none for a snapshot.
async fn resume(store: &Store, id: u64, from: Revision) -> Vec<Option<u64>> {
    let mut follower = Follower::connect(store.channel(id), from, "test".to_owned()).await.unwrap();
    let mut seen = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, follower.next()).await.unwrap().unwrap() {
            FollowEvent::Delta(delta) => seen.push(Some(delta.revision.0)),
            FollowEvent::Snapshot(_) => seen.push(None),
            FollowEvent::Progress { .. } => return seen,
            FollowEvent::Quiet { .. } => unreachable!("everything is followed"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s13_followers_resume_without_a_snapshot_after_all_members_were_restarted() {
    let mut store = Store::start(30).await;
    store.register().await;
    for number in 0..600 {
        store.execute(1, &allocate("east", &format!("p{number}")), PATIENCE).await.unwrap();
    }
    store.converge().await;
    let head = store.running[&1].history().read(|history| history.mesh().revision());
    for (round, orderly) in [true, false].into_iter().enumerate() {
        for id in 1..=3 {
            let member = store.running.remove(&id).unwrap();
            if orderly {
                member.shutdown(Duration::from_secs(2)).await.unwrap();
            } else {
                member.kill().await;
            }
        }
        for id in 1..=3 {
            store.restart(id).await;
        }
        store.leader().await;
        // One more, so that the past on disk and the present in memory meet.
        store.execute(2, &allocate("west", &format!("after-{round}")), PATIENCE).await.unwrap();
        store.converge().await;
        let now = head.0 + round as u64 + 1;
        for id in 1..=3 {
            let expected: Vec<_> = (11..=now).map(Some).collect();
            assert_eq!(resume(&store, id, Revision(10)).await, expected, "member {id}, orderly: {orderly}");
        }
    }
    // Who has nothing yet gets a snapshot rather than everything that ever was.
    assert_eq!(resume(&store, 1, Revision(0)).await, [None]);
    // A history that is lost is no harm.
    let member = store.running.remove(&3).unwrap();
    member.kill().await;
    std::fs::remove_dir_all(store.configs[&3].data_dir.join("history")).unwrap();
    store.restart(3).await;
    store.leader().await;
    store.converge().await;
    assert_eq!(resume(&store, 3, Revision(10)).await, [None]);
}
