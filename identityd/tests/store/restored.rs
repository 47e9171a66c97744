//! A restored store is another store: neither followers nor members take it for the one that it was saved from, nor for
//! another one that was restored from the same backup.

use std::path::Path;

use ringfence_identityd::restore::{NewStore, RestoreError, restore};
use ringfence_policy::{mesh::Mesh, revision::Revision, store::StoreId};
use ringfence_proto::{
    follow::{FollowEvent, Follower, Position},
    v1::{self, maintenance_client::MaintenanceClient, store_client::StoreClient},
};
use tonic::Code;

use crate::{
    operations::backup_of,
    support::{PATIENCE, Store, allocate, until},
};

/// Two stores that were made in the same millisecond: their revisions begin at the same number.
fn twins() -> (StoreId, StoreId) {
    (StoreId::new(1_795_000_000_000, [1; 10]), StoreId::new(1_795_000_000_000, [2; 10]))
}

fn new(id: StoreId) -> NewStore {
    NewStore { id, bump_revision: 1000, other_mesh: false }
}

/// Kills the members and makes new directories for them from a backup.
async fn restore_all(store: &mut Store, file: &Path, id: StoreId, name: &str) {
    for member in [1, 2, 3] {
        if store.running.contains_key(&member) {
            store.kill(member).await;
        }
        let config = store.configs.get_mut(&member).unwrap();
        config.data_dir = config.data_dir.with_file_name(format!("{member}-{name}"));
        assert_eq!(restore(config, file, new(id)).await.unwrap(), id.first_revision());
    }
}

/// What a follower that comes with a position is told first.
async fn begin(store: &Store, from: Position) -> Result<(FollowEvent, Position), Code> {
    let member = *store.running.keys().next().unwrap();
    let connected = Follower::connect(store.channel(member), from, "test".to_owned()).await;
    let mut follower = connected.map_err(|error| match error {
        ringfence_proto::follow::FollowError::Call { source } => source.code(),
        other => panic!("{other}"),
    })?;
    let event = follower.next().await.unwrap();
    Ok((event, follower.position()))
}

/// Where a follower is that has followed up to the head.
async fn head(store: &Store) -> Position {
    let member = *store.running.keys().next().unwrap();
    let mut follower = Follower::connect(store.channel(member), Revision(0), "test".to_owned()).await.unwrap();
    while !matches!(follower.next().await.unwrap(), FollowEvent::Progress { .. }) {}
    follower.position()
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_stores_from_one_backup_are_told_apart_by_followers() {
    let mut store = Store::start(5000).await;
    store.register().await;
    store.converge().await;
    let file = store.directory.path().join("backup");
    std::fs::write(&file, backup_of(&store, 1).await).unwrap();
    let old = head(&store).await;
    assert!(old.store.is_some(), "a store is founded by itself");
    let refused = restore(&store.configs[&1], &file, new(old.store.unwrap())).await.unwrap_err();
    assert!(matches!(refused, RestoreError::SameStore { .. }), "{refused}");

    let (a, b) = twins();
    restore_all(&mut store, &file, a, "a").await;
    for member in [1, 2, 3] {
        store.restart(member).await;
    }
    let leader = store.leader().await;
    let (event, position) = begin(&store, old).await.unwrap();
    assert!(matches!(event, FollowEvent::Snapshot(_)), "{event:?}");
    assert_eq!(position, Position { store: Some(a), revision: a.first_revision() });
    for number in 0..3 {
        store.execute(leader, &allocate("east", &format!("a{number}")), PATIENCE).await.unwrap();
    }
    store.converge().await;
    let followed = head(&store).await;
    assert_eq!(followed.revision.0, a.first_revision().0 + 3);
    let (event, _) = begin(&store, position).await.unwrap();
    assert!(matches!(event, FollowEvent::Delta(_)), "in its own store a follower resumes: {event:?}");

    restore_all(&mut store, &file, b, "b").await;
    for member in [1, 2, 3] {
        store.restart(member).await;
    }
    let leader = store.leader().await;
    assert_eq!(begin(&store, followed).await.unwrap_err(), Code::FailedPrecondition, "it has seen more than there is");
    for number in 0..4 {
        store.execute(leader, &allocate("east", &format!("b{number}")), PATIENCE).await.unwrap();
    }
    store.converge().await;
    // Both stores have this revision, with different content: what came after it in the one means nothing in the other.
    let (event, position) = begin(&store, followed).await.unwrap();
    let FollowEvent::Snapshot(snapshot) = event else { panic!("{event:?}") };
    let expected = store.running[&leader].history().read(|history| history.mesh().clone());
    assert_eq!(Mesh::from_snapshot(snapshot), expected);
    assert_eq!(position, Position { store: Some(b), revision: Revision(b.first_revision().0 + 4) });
    // The control: without the store, the other one's deltas would have been taken for the next ones.
    let (event, _) = begin(&store, followed.revision.into()).await.unwrap();
    assert!(matches!(event, FollowEvent::Delta(_)), "{event:?}");
    assert!(begin(&store, Position::default()).await.unwrap().1.store == Some(b), "who has nothing learns whose it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_the_old_store_does_not_come_back_into_the_restored_one() {
    let mut store = Store::start(5000).await;
    store.register().await;
    store.execute(1, &allocate("east", "kept"), PATIENCE).await.unwrap();
    store.converge().await;
    let file = store.directory.path().join("backup");
    std::fs::write(&file, backup_of(&store, 1).await).unwrap();
    for number in 0..20 {
        store.execute(1, &allocate("east", &format!("lost{number}")), PATIENCE).await.unwrap();
    }
    store.converge().await;
    let old = store.configs[&3].clone();
    restore_all(&mut store, &file, twins().0, "a").await;
    // Nobody stopped it for good: it comes back before the new store has a leader.
    store.configs.insert(3, old);
    for member in [3, 1, 2] {
        store.restart(member).await;
    }
    let before = store.running[&3].state_digest();
    let written = store.execute(1, &allocate("east", "new"), PATIENCE).await.unwrap();
    assert!(written.changed && written.revision > twins().0.first_revision());
    let seen = until("a member that finds itself alone", || async {
        let alone = store.running[&3].members().describe_quorum();
        let new = store.running[&1].members().describe_quorum();
        (alone.starts_with("1 of 3") && new.starts_with("2 of 3")).then_some((alone, new))
    });
    println!("{:?}", seen.await);
    let refused = store.execute(3, &allocate("east", "old"), std::time::Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(store.running[&3].state_digest(), before, "nothing of the new store got into the old one");
    let apps = store.running[&1].history().read(|history| history.mesh().identities().count());
    assert_eq!(apps, 2, "nor of the old one into the new: kept and new");
    let mut stores = Vec::new();
    for member in [1, 2, 3] {
        let mut client = MaintenanceClient::new(store.channel(member));
        stores.push(client.member_report(v1::MemberReportRequest {}).await.unwrap().into_inner().store_id);
    }
    assert!(stores[0] == stores[1] && stores[0] != stores[2] && stores.iter().all(|id| !id.is_empty()), "{stores:?}");

    let leader = store.running[&1].leader().unwrap();
    let mut client = StoreClient::new(store.channel(leader));
    client.remove_member(v1::RemoveMemberRequest { id: 3 }).await.unwrap();
    let address = store.configs[&3].listen.to_string();
    let refused = client.add_member(v1::AddMemberRequest { address }).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("refuses: a member of store"), "{refused}");
}
