//! Inputs that every decoder accepts, made of what the store really writes.

use std::{sync::Arc, time::Duration};

use openraft::{
    CommittedLeaderId, EntryPayload, Membership,
    raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse},
};
use prost::Message as _;
use ringfence_identityd::{
    codec::{self, RecordKind, SegmentHeader, push_record},
    machine::ledger::{Counter, Lease, Ledger, NumberState, Row, RowKey},
    raft::{
        Answer, Entry, LogId, MemberNode, SnapshotMeta, StoredMembership, TypeConfig, Vote,
        batch::{Batch, Proposal},
    },
    restore::rows,
    snapshot::Snapshots,
    state::{Marker, whole_digest},
};
use ringfence_policy::{
    command::{Command, Committed, EndpointSpec, FqdnSpec, Housekeeping, Refusal, SignOfLife},
    identity::{ClusterId, Identity},
    l7::dns_name::DnsName,
    label::{Label, LabelSet},
    mesh::Mesh,
    name::Name,
    record::{
        Change, Cluster, Delta, Endpoint, IdentityRecord, MeshSettings, NamedPort, Node, PolicyKey, PolicyKind,
        PolicyRecord, Record, RecordKey, Snapshot, Versioned,
    },
    revision::Revision,
    store::StoreId,
};
use ringfence_proto::{backup, v1};

type Seeds = Vec<(&'static str, Vec<u8>)>;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn labels(app: &str) -> LabelSet {
    [Label::new("k8s", "app", app)].into_iter().collect()
}

fn identity(number: u32) -> Identity {
    Identity::global(ClusterId::new(1).unwrap(), number).unwrap()
}

fn cluster() -> Cluster {
    Cluster { name: name("east"), id: ClusterId::new(1).unwrap(), pod_cidrs: vec!["10.101.0.0/16".parse().unwrap()] }
}

fn node() -> Node {
    Node {
        cluster: name("east"),
        name: name("n1"),
        addresses: vec!["10.40.1.1".parse().unwrap()],
        labels: LabelSet::default(),
    }
}

fn endpoint() -> EndpointSpec {
    EndpointSpec {
        cluster: name("east"),
        node: name("n1"),
        name: name("db"),
        addresses: vec!["10.101.0.9".parse().unwrap(), "fd00:101::9".parse().unwrap()],
        labels: labels("db"),
        named_ports: vec![NamedPort { name: "sql".to_owned(), protocol: 6, port: 5432 }],
    }
}

fn policy() -> PolicyRecord {
    let key = PolicyKey { kind: PolicyKind::CiliumNetworkPolicy, namespace: Some(name("shop")), name: name("a") };
    PolicyRecord { key, text: "kind: CiliumNetworkPolicy\n".to_owned() }
}

fn records() -> Vec<Record> {
    let EndpointSpec { cluster: of, node: on, name: called, addresses, labels, named_ports } = endpoint();
    vec![
        Record::Cluster(cluster()),
        Record::Node(node()),
        Record::Identity(IdentityRecord { identity: identity(1), labels: labels.clone() }),
        Record::Endpoint(Arc::new(Endpoint {
            cluster: of,
            node: on,
            name: called,
            addresses,
            labels,
            identity: identity(1),
            named_ports,
        })),
        Record::Policy(policy()),
        Record::Settings(MeshSettings::default()),
    ]
}

fn mesh() -> Mesh {
    let mut mesh = Mesh::default();
    for record in records() {
        let delta = Delta { revision: mesh.revision().next(), changes: vec![Change::Put(record)] };
        mesh.apply(&delta).unwrap();
    }
    mesh
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    for (key, row) in [
        (RowKey::Clock, Row::Clock(700)),
        (RowKey::Store, Row::Store(StoreId::new(1_795_000_000_000, [3; 10]))),
        (RowKey::Counter(ClusterId::new(1).unwrap()), Row::Counter(Counter { owner: name("east"), last: 9 })),
        (RowKey::Number(identity(7)), Row::Number(NumberState::Idle { since_ms: 100 })),
        (RowKey::Number(identity(8)), Row::Number(NumberState::Quarantined { gone: Revision(5) })),
        (RowKey::Number(identity(9)), Row::Number(NumberState::Resting { until_ms: 900 })),
        (RowKey::Gateway(name("east")), Row::Gateway(4)),
        (
            RowKey::Lease((name("east"), name("n1"))),
            Row::Lease(Lease { renewals: 3, realised: Revision(5), gone: false }),
        ),
    ] {
        ledger.set(&key, Some(row));
    }
    ledger
}

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(2, 1), index)
}

fn membership() -> Membership<u64, MemberNode> {
    let node = |id: u64| (id, MemberNode { address: format!("10.40.{id}.10:7400"), cluster: Some(name("east")) });
    Membership::new(
        vec![[1, 2, 3].into()],
        [1, 2, 3].map(node).into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    )
}

fn meta() -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: Some(log_id(40)),
        last_membership: StoredMembership::new(Some(log_id(1)), membership()),
        snapshot_id: "2-1-40".to_owned(),
    }
}

fn entries() -> Vec<Entry> {
    let batch = Batch::join([Command::PutNode(node()), Command::PutEndpoint(endpoint())].map(Proposal::new).into());
    [EntryPayload::Blank, EntryPayload::Normal(batch), EntryPayload::Membership(membership())]
        .into_iter()
        .zip(1..)
        .map(|(payload, index)| Entry { log_id: log_id(index), payload })
        .collect()
}

/// Whose number is a reserved one.
fn proxy() -> EndpointSpec {
    let labels = LabelSet::parse(["reserved:ingress"]).expect("a label");
    EndpointSpec { name: name("reserved-ingress"), labels, ..endpoint() }
}

fn commands() -> Vec<(&'static str, Command)> {
    let fqdn = FqdnSpec {
        cluster: name("east"),
        name: DnsName::new("db.example.com"),
        addresses: vec![("192.0.2.1".parse().unwrap(), 60_000)],
    };
    let alive = SignOfLife { node: name("n1"), realised: Revision(9) };
    vec![
        ("put-cluster", Command::PutCluster(cluster())),
        ("put-node", Command::PutNode(node())),
        ("put-endpoint", Command::PutEndpoint(endpoint())),
        ("put-proxy", Command::PutEndpoint(proxy())),
        ("allocate", Command::AllocateIdentity { cluster: name("east"), labels: labels("new") }),
        ("release", Command::ReleaseIdentity(identity(1))),
        ("put-policies", Command::PutPolicies(vec![policy()])),
        ("put-objects", Command::PutObjects { policies: vec![policy()], groups: vec![] }),
        ("delete-policies", Command::DeletePolicies(vec![policy().key])),
        ("put-fqdns", Command::PutFqdns(vec![fqdn])),
        ("put-settings", Command::PutSettings(MeshSettings::default())),
        ("delete", Command::Delete(RecordKey::Endpoint(name("east"), name("n1"), name("web")))),
        ("keep-alive", Command::KeepAlive { cluster: name("east"), nodes: vec![alive] }),
        ("grant", Command::GrantBlock { cluster: name("west"), holder: name("gateway"), count: 64 }),
        ("give-back", Command::ReturnBlock { cluster: name("east"), holder: name("gateway") }),
    ]
}

/// All kinds, as members send them.
fn all_commands() -> Vec<Command> {
    let expire = Housekeeping::ExpireNode { cluster: name("east"), node: name("n1"), renewals: 1 };
    let housekeeping =
        [Housekeeping::Found(StoreId::new(1_795_000_000_000, [3; 10])), Housekeeping::Tick { now_ms: 5000 }, expire];
    commands().into_iter().map(|(_, command)| command).chain(housekeeping.map(Command::Housekeeping)).collect()
}

fn with(first: u8, rest: &[u8]) -> Vec<u8> {
    [&[first], rest].concat()
}

/// A payload with its length as 16 bits.
fn sized(payload: &[u8]) -> Vec<u8> {
    [&u16::try_from(payload.len()).unwrap().to_le_bytes(), payload].concat()
}

pub(crate) fn wal() -> Seeds {
    let record = |kind: u8, synced: u8, payload: Vec<u8>| [vec![kind, synced], sized(&payload)].concat();
    let votes = record(1, 2, codec::encode(&Vote::new(2, 1)));
    let all: Vec<u8> = entries().iter().flat_map(|entry| record(0, 2, codec::encode(entry))).collect();
    let purge = record(3, 2, codec::encode(&log_id(0)));
    let committed = record(4, 2, codec::encode(&Some(log_id(2))));
    let truncate = record(2, 2, codec::encode(&3_u64));
    let mut raw = SegmentHeader { member: 7, sequence: 1 }.encode().to_vec();
    let header = raw.len();
    push_record(&mut raw, 1, 0, 0, RecordKind::Vote, &codec::encode(&Vote::new(2, 1)));
    vec![
        ("records", [&[1][..], &votes, &purge, &all, &committed, &truncate].concat()),
        ("vote", with(1, &votes)),
        ("everything-purged", [&[1][..], &votes, &record(3, 2, codec::encode(&log_id(u64::MAX)))].concat()),
        ("purged", [&[1][..], &record(3, 2, codec::encode(&log_id(500)))].concat()),
        ("raw", [&[0][..], &raw[header..], &[0; 40]].concat()),
    ]
}

pub(crate) fn snapshot() -> Seeds {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(directory.path()).unwrap();
    snapshots.build(&meta(), &mesh(), &ledger(), whole_digest(&mesh(), &ledger())).unwrap();
    let whole = std::fs::read(directory.path().join("snapshot")).unwrap();
    let (mesh, rows) = (mesh(), ledger().rows().collect::<Vec<_>>());
    let records: Vec<(&RecordKey, &Versioned)> = mesh.records().iter().collect();
    let parts = codec::encode(&(meta(), Revision(6), records, rows));
    // The file's sections without their frames.
    let (mut sections, mut at) = (vec![1], codec::SNAPSHOT_PREFIX_BYTES);
    while at < whole.len() {
        let length = u32::from_le_bytes(whole[at..at + 4].try_into().unwrap()) as usize;
        let kind = match whole[at + 8] {
            1 => 0,
            2 => 1,
            4 => 2,
            _ => 3,
        };
        let payload = &whole[at + codec::SECTION_HEADER_BYTES..at + codec::SECTION_HEADER_BYTES + length];
        sections.extend(with(kind, &sized(payload)));
        at += codec::SECTION_HEADER_BYTES + length;
    }
    vec![("whole", with(0, &whole)), ("sections", sections), ("parts", with(2, &parts))]
}

pub(crate) fn command() -> Seeds {
    let message = |command| with(0, &v1::Command::from(command).encode_to_vec());
    let mut seeds: Seeds = commands().into_iter().map(|(name, command)| (name, message(command))).collect();
    let at_the_limit = FqdnSpec {
        cluster: name("east"),
        name: DnsName::new("db.example.com"),
        addresses: vec![("192.0.2.1".parse().unwrap(), u64::MAX)],
    };
    let at_the_limit = vec![
        Command::PutFqdns(vec![at_the_limit]),
        Command::KeepAlive {
            cluster: name("east"),
            nodes: vec![SignOfLife { node: name("n1"), realised: Revision(u64::MAX) }],
        },
        Command::GrantBlock { cluster: name("east"), holder: name("gateway"), count: u32::MAX },
        Command::Housekeeping(Housekeeping::Tick { now_ms: u64::MAX }),
    ];
    seeds.push(("at-the-limit", with(1, &codec::encode(&at_the_limit))));
    seeds.push(("several", with(1, &codec::encode(&all_commands()))));
    seeds
}

pub(crate) fn message() -> Seeds {
    let append = AppendEntriesRequest::<TypeConfig> {
        vote: Vote::new_committed(2, 1),
        prev_log_id: Some(log_id(0)),
        entries: entries(),
        leader_commit: Some(log_id(0)),
    };
    let delta = Delta { revision: Revision(9), changes: records().into_iter().map(Change::Put).collect() };
    let answers: Vec<Answer> = vec![
        Ok(Committed { revision: Revision(9), changed: true, identity: Some(identity(1)) }),
        Err(Refusal::UnknownCluster { cluster: name("north") }),
    ];
    let marker = Marker { applied: Some(log_id(9)), revision: Revision(9), digest: 77, ..Marker::default() };
    let vote = VoteRequest::new(Vote::new(3, 2), Some(log_id(9)));
    let voted = VoteResponse { vote: Vote::new(3, 2), vote_granted: true, last_log_id: Some(log_id(9)) };
    vec![
        ("append", with(0, &codec::encode(&(Duration::from_millis(7), append)))),
        ("appended", with(1, &codec::encode(&AppendEntriesResponse::<u64>::Success))),
        ("vote", with(2, &codec::encode(&vote))),
        ("voted", with(3, &codec::encode(&voted))),
        ("snapshot-head", with(4, &codec::encode(&(Vote::new_committed(2, 1), meta())))),
        ("delta", with(5, &codec::encode(&delta))),
        ("record", with(6, &codec::encode(&Versioned { revision: Revision(3), record: Record::Node(node()) }))),
        ("answers", with(7, &codec::encode(&answers))),
        ("marker", with(8, &codec::encode(&marker))),
        ("entry", with(9, &codec::encode(&entries()[1]))),
    ]
}

pub(crate) fn history() -> Seeds {
    let delta = |revision| {
        let changes = vec![Change::Put(Record::Node(node())), Change::Delete(RecordKey::Policy(policy().key))];
        codec::encode(&Delta { revision: Revision(revision), changes })
    };
    let framed: Vec<u8> = (11..=13).flat_map(|revision| sized(&delta(revision))).collect();
    let mut raw = SegmentHeader { member: 7, sequence: 11 }.encode().to_vec();
    let header = raw.len();
    (11..=13).for_each(|revision| push_record(&mut raw, 11, 0, 0, RecordKind::Delta, &delta(revision)));
    vec![("framed", with(1, &framed)), ("raw", with(0, &raw[header..]))]
}

pub(crate) fn backup() -> Seeds {
    let header = v1::BackupHeader { saved_by: "member 1 (east)".to_owned(), ..v1::BackupHeader::default() };
    let snapshot: Snapshot = mesh().snapshot();
    let count = u8::try_from(snapshot.records.len()).unwrap();
    let parts: Vec<Vec<u8>> = backup::write(header, snapshot, rows::kept(&ledger())).collect();
    let whole = parts.concat();
    let body = parts[..parts.len() - 1].concat();
    vec![("whole", with(0, &whole)), ("body", [&[1, count][..], &body].concat())]
}
