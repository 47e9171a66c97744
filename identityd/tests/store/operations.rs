//! What an operator does to a store: look, back up, restore, compact.

use prost::Message as _;
use ringfence_identityd::{
    machine::ledger::NumberState,
    restore::{NewStore, RestoreError, restore},
};
use ringfence_policy::{command::Command, mesh::Mesh, record::MeshSettings, revision::Revision, store::StoreId};
use ringfence_proto::{
    backup,
    connect::{Dialer, Expected, MAX_MESSAGE_BYTES},
    follow::{FollowEvent, Follower},
    link::{Link, method},
    v1::{self, maintenance_client::MaintenanceClient, mesh_client::MeshClient, raft_client::RaftClient},
    version,
};
use ringfence_runtime::tls::{Tls, TlsFiles};
use tonic::{Code, Status};

use crate::support::{OTHERS, PATIENCE, Store, allocate, dial, until};

pub(crate) async fn backup_of(store: &Store, id: u64) -> Vec<u8> {
    let mut parts = MaintenanceClient::new(store.channel(id)).backup(v1::BackupRequest {}).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = parts.message().await.unwrap() {
        bytes.extend(part.data);
    }
    bytes
}

async fn mesh_of(store: &Store, id: u64) -> Mesh {
    let mut follower = Follower::connect(store.channel(id), Revision(0), "test".to_owned()).await.unwrap();
    let mut mesh = Mesh::default();
    loop {
        match follower.next().await.unwrap() {
            FollowEvent::Snapshot(snapshot) => mesh = Mesh::from_snapshot(snapshot),
            FollowEvent::Delta(delta) => mesh.apply(&delta).unwrap(),
            FollowEvent::Progress { .. } => return mesh,
            FollowEvent::Quiet { .. } => unreachable!("everything is followed"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_goes_on_from_its_backup_in_new_directories() {
    let mut store = Store::start(5000).await;
    store.register().await;
    let kept = store.execute(1, &allocate("east", "kept"), PATIENCE).await.unwrap().identity.unwrap();
    let released = store.execute(1, &allocate("east", "released"), PATIENCE).await.unwrap().identity.unwrap();
    store.execute(1, &Command::ReleaseIdentity(released), PATIENCE).await.unwrap();
    let settings = MeshSettings { quarantine_ms: 77_000, ..MeshSettings::default() };
    store.execute(1, &Command::PutSettings(settings.clone()), PATIENCE).await.unwrap();
    store.converge().await;
    let file = store.directory.path().join("backup");
    std::fs::write(&file, backup_of(&store, 2).await).unwrap();
    let before = mesh_of(&store, 2).await;
    let lost = store.execute(1, &allocate("east", "lost"), PATIENCE).await.unwrap();
    assert!(lost.changed);

    // As if made in 1970, so that the backup's revision counts.
    let restored = NewStore { id: StoreId::new(0, [1; 10]), bump_revision: 1000, other_mesh: false };
    for id in [1, 2, 3] {
        store.kill(id).await;
        let refused = restore(&store.configs[&id], &file, restored).await.unwrap_err();
        assert!(matches!(refused, RestoreError::NotEmpty { .. }), "{refused}");
    }
    for id in [1, 2, 3] {
        let config = store.configs.get_mut(&id).unwrap();
        config.data_dir = config.data_dir.with_extension("restored");
        let revision = restore(config, &file, restored).await.unwrap();
        assert_eq!(revision, Revision(before.revision().0 + 1000));
    }
    for id in [1, 2, 3] {
        store.restart(id).await;
    }
    let leader = store.leader().await;
    store.converge().await;
    for id in [1, 2, 3] {
        let mesh = mesh_of(&store, id).await;
        assert_eq!((mesh.records(), mesh.revision().0), (before.records(), before.revision().0 + 1000), "member {id}");
        assert_eq!(mesh.settings(), settings);
        store.running[&id].applier().read_book(|book| {
            let state = book.ledger().numbers().get(&released);
            assert!(matches!(state, Some(NumberState::Quarantined { .. })), "member {id}: {state:?}");
            assert_eq!(book.ledger().leases().len(), 3, "of every node");
        });
    }
    let again = store.execute(leader, &allocate("east", "lost"), PATIENCE).await.unwrap();
    assert_eq!((again.changed, again.revision.0), (true, before.revision().0 + 1001));
    assert_eq!(again.identity.unwrap().number(), kept.number().max(released.number()) + 1, "no number in quarantine");
    // Who followed the old store further than the backup gets the new state as a whole.
    let mut follower = Follower::connect(store.channel(leader), lost.revision, "old".to_owned()).await.unwrap();
    assert!(matches!(follower.next().await.unwrap(), FollowEvent::Snapshot(_)));
    // What was restored is a data directory like any other.
    for id in [1, 2, 3] {
        store.kill(id).await;
    }
    for id in [1, 2, 3] {
        store.restart(id).await;
    }
    let leader = store.leader().await;
    assert!(!store.execute(leader, &allocate("east", "lost"), PATIENCE).await.unwrap().changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_tell_how_they_do_and_forget_what_they_are_told_to() {
    let store = Store::start(5000).await;
    store.register().await;
    store.converge().await;
    let leader = store.leader().await;
    let mut digests = Vec::new();
    for id in [1, 2, 3] {
        let mut client = MaintenanceClient::new(store.channel(id));
        let report = client.member_report(v1::MemberReportRequest {}).await.unwrap().into_inner();
        assert_eq!((report.leader, report.oldest_revision), (leader, 0));
        assert!(report.wal_bytes > 0 && report.state_bytes > 0 && report.certificate_not_after > 0, "{report:?}");
        for other in [1, 2, 3].into_iter().filter(|other| *other != id) {
            assert_eq!(report.heard_feature_levels.get(&other), Some(&version::LEVEL), "{other} at {id}");
        }
        digests.push((report.digest_index, report.state_digest));
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "S14 is broken: {digests:?}");
    let mut client = MaintenanceClient::new(store.channel(1));
    let compacted = client.compact(v1::CompactRequest { revision: 4 }).await.unwrap().into_inner();
    assert_eq!(compacted.oldest_revision, 4);
    let ahead = client.compact(v1::CompactRequest { revision: 400 }).await.unwrap_err();
    assert_eq!(ahead.code(), Code::OutOfRange, "{ahead}");
    let mut follower = Follower::connect(store.channel(1), Revision(3), "test".to_owned()).await.unwrap();
    assert!(matches!(follower.next().await.unwrap(), FollowEvent::Snapshot(_)));
    let mut follower = Follower::connect(store.channel(1), Revision(4), "test".to_owned()).await.unwrap();
    assert!(matches!(follower.next().await.unwrap(), FollowEvent::Delta(_)));
    let whole = backup::read(&backup_of(&store, 3).await).unwrap();
    assert_eq!(whole.header.saved_by, "member 3 (south)");
    until("the same revision everywhere", || async {
        (whole.snapshot.revision == mesh_of(&store, 1).await.revision()).then_some(())
    })
    .await;
}

/// A link that shows a certificate.
fn link(tls: &TlsFiles, address: &str) -> Link {
    let tls = Tls::open(tls.clone()).unwrap();
    Link::new(Dialer::new(Expected::Member, move || tls.client()), address, MAX_MESSAGE_BYTES)
}

/// What each certificate gets for: a read, a write of cluster east and one of cluster west (over gRPC and over a link), a
/// backup, a campaign, a vote over a link, and the view of a node.
#[tokio::test(flavor = "multi_thread")]
async fn every_role_gets_at_a_member_what_the_table_says() {
    let store = Store::start(5000).await;
    store.register().await;
    let files = &store.configs[&1].tls;
    for (name, _) in OTHERS {
        let file = |suffix: &str| files.ca.with_file_name(format!("{name}.{suffix}"));
        let tls = TlsFiles { ca: files.ca.clone(), certificate: file("crt"), key: file("key") };
        let channel = dial(&tls, &store.configs[&1].listen.to_string());
        let mut mesh = MeshClient::new(channel.clone());
        let code = |status: Result<(), Status>| status.map_or_else(|status| status.code(), |()| Code::Ok);
        let mut codes = vec![code(mesh.status(v1::StatusRequest {}).await.map(drop))];
        for cluster in ["east", "west"] {
            let command = v1::Command::from(allocate(cluster, "roles"));
            codes.push(code(mesh.execute(command).await.map(drop)));
        }
        let mut maintenance = MaintenanceClient::new(channel.clone());
        codes.push(code(maintenance.backup(v1::BackupRequest {}).await.map(drop)));
        codes.push(code(RaftClient::new(channel).campaign(v1::CampaignRequest::default()).await.map(drop)));
        let link = link(&tls, &store.configs[&1].listen.to_string());
        for cluster in ["east", "west"] {
            let command = Some(v1::Command::from(allocate(cluster, "roles")));
            let call = v1::CommandCall { command, ..v1::CommandCall::default() };
            codes.push(code(link.call(method::COMMAND, call.encode_to_vec()).await.map(drop)));
        }
        codes.push(code(link.call(method::VOTE, Vec::new()).await.map(drop)));
        // Views are served by gateways, whoever asks.
        let interests = Some(v1::Interests { cluster: "east".into(), node: "n1".into(), addresses: vec![] });
        let view = v1::FollowRequest { follower: name.into(), interests, ..v1::FollowRequest::default() };
        codes.push(code(mesh.follow(view).await.map(drop)));
        let (ok, no) = (Code::Ok, Code::PermissionDenied);
        let expected = match name {
            "admin" => [ok, ok, ok, ok, no, ok, ok, no, no],
            "reader" => [ok, no, no, no, no, no, no, no, no],
            "gateway" => [ok, ok, no, no, no, ok, no, no, no],
            _ => [no; 9],
        };
        assert_eq!(codes, expected, "{name}");
    }
}
