//! Wall clocks that jump by days, in both directions, under members that run: nothing ends early for it, nothing late, and
//! nothing is lost.
//!
//! ```text
//! file with an offset ─► libfaketime, between process and C library ─► wall clock of the three members
//!                                                                      (their monotonic clock is left alone)
//! silent node, resting number, old steps ─ forward ─► there ─ far back ─► there ─ their time by this process's clock ─► gone
//! ```
//!
//! Needs the Debian package `libfaketime`, which `cargo xtask test` installs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command as Program, Stdio},
    sync::atomic::AtomicBool,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use ringfence_identityd::Config;
use ringfence_policy::{
    identity::ClusterId,
    label::LabelSet,
    record::{Cluster, MeshSettings, Node},
    revision::Revision,
};
use ringfence_proto::backup;

use super::*;
use crate::{
    leases::{endpoint, gateway},
    operations::backup_of,
};

const NODE_LEASE_MS: u64 = 2000;
const NODE_GRACE_MS: u64 = 14_000;
const QUARANTINE_MS: u64 = 16_000;
const DAY: i64 = 24 * 60 * 60;
/// For how long everything is looked at after each jump.
const LOOKING: Duration = Duration::from_secs(2);
/// A revision that is long past when the clocks jump.
const EARLY: Revision = Revision(2);
/// More than the staleness of a member that is in touch, less than any jump.
const IN_TOUCH: Duration = Duration::from_secs(5);

/// Where Debian puts it, on every architecture.
fn library() -> Option<PathBuf> {
    let directories = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    directories.map(|directory| directory.join("faketime/libfaketimeMT.so.1")).find(|file| file.is_file())
}

fn node(text: &str) -> Node {
    Node { cluster: name("east"), name: name(text), addresses: vec![], labels: LabelSet::default() }
}

/// Members as processes, under a clock of their own.
struct Clocked {
    library: PathBuf,
    offset: PathBuf,
    processes: BTreeMap<u64, Child>,
    configs: BTreeMap<u64, Config>,
}

impl Clocked {
    /// The store's members go on as processes.
    async fn take_over(store: &mut Store, library: PathBuf) -> Self {
        let offset = store.directory.path().join("offset");
        let mut configs = store.configs.clone();
        // Little is remembered in memory.
        configs.values_mut().for_each(|config| config.history = 3);
        let mut clocked = Self { library, offset, processes: BTreeMap::new(), configs };
        clocked.jump_to(0);
        for (id, member) in std::mem::take(&mut store.running) {
            member.shutdown(Duration::from_secs(2)).await.unwrap();
            clocked.start(id);
        }
        clocked
    }

    fn start(&mut self, id: u64) {
        let config = self.offset.with_file_name(format!("clocked-{id}.yaml"));
        fs::write(&config, ringfence_runtime::config::dump(&self.configs[&id])).unwrap();
        let log = fs::File::options().create(true).append(true).open(config.with_extension("log")).unwrap();
        let mut program = Program::new(env!("CARGO_BIN_EXE_identityd"));
        program.arg("--config").arg(&config).stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        program.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.offset);
        program.envs([("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("NO_FAKE_STAT", "1")]);
        self.processes.insert(id, program.spawn().unwrap());
    }

    fn kill(&mut self, id: u64) {
        let mut process = self.processes.remove(&id).unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Seconds between the members' wall clock and everybody else's; a reader sees all of it or what was before.
    fn jump_to(&self, seconds: i64) {
        let beside = self.offset.with_extension("new");
        fs::write(&beside, format!("{seconds:+}\n")).unwrap();
        fs::rename(beside, &self.offset).unwrap();
    }
}

impl Drop for Clocked {
    fn drop(&mut self) {
        self.processes.values_mut().for_each(|process| {
            // One that has ended by itself is gone already.
            let _ = process.kill();
            let _ = process.wait();
        });
    }
}

/// What one member shows.
#[derive(Debug)]
struct Seen {
    endpoints: Vec<String>,
    resting: u32,
    staleness: Duration,
    leader: Option<u64>,
}

async fn look(store: &Store, id: u64) -> Option<Seen> {
    let mut follower = Follower::connect(store.channel(id), Revision(0), "test".to_owned()).await.ok()?;
    let mut mesh = Mesh::default();
    let staleness = loop {
        match follower.next().await.ok()? {
            FollowEvent::Snapshot(snapshot) => mesh = Mesh::from_snapshot(snapshot),
            FollowEvent::Delta(delta) => mesh.apply(&delta).unwrap(),
            FollowEvent::Progress { staleness, .. } => break staleness,
            FollowEvent::Quiet { .. } => unreachable!("everything is followed"),
        }
    };
    let status = store.client(id).status(v1::StatusRequest {}).await.ok()?.into_inner();
    let leader = status.members.iter().find(|member| member.state == "leader").map(|member| member.id);
    let resting = status.identities.iter().find(|usage| usage.cluster == "east").map_or(0, |usage| usage.quarantined);
    let endpoints = mesh.endpoints().map(|endpoint| format!("{}/{}", endpoint.cluster, endpoint.node)).collect();
    Some(Seen { endpoints, resting, staleness, leader })
}

async fn leader(store: &Store, asked: u64) -> u64 {
    until("a leader", || async { look(store, asked).await.and_then(|seen| seen.leader) }).await
}

/// The wall clock as a member sees it, and a backup that it takes at that moment is whole.
async fn wall(store: &Store, id: u64) -> i64 {
    let backup = backup::read(&backup_of(store, id).await).unwrap();
    assert!(backup.snapshot.revision > Revision(0), "it holds what the store has");
    backup.header.saved_at
}

/// After a jump: every member's wall clock is there, and for some time nothing ends.
async fn nothing_ends(store: &Store, after: &str, offset: i64) {
    let own = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    for id in [1, 2, 3] {
        let off = wall(store, id).await - own;
        assert!(
            (off - offset).abs() < DAY / 24,
            "{after}: the wall clock of member {id} is {off} s off, not {offset} s"
        );
    }
    // A new step is what ages old ones, which are on disk only.
    let address = format!("192.0.2.{}", offset.unsigned_abs() % 250).parse().unwrap();
    store.execute(1, &Command::PutNode(Node { addresses: vec![address], ..node("n1") }), PATIENCE).await.unwrap();
    for id in [1, 2, 3] {
        let mut follower = Follower::connect(store.channel(id), EARLY, "test".to_owned()).await.unwrap();
        let is_step = matches!(follower.next().await.unwrap(), FollowEvent::Delta(_));
        assert!(is_step, "{after}: the history of member {id} is gone");
    }
    let began = Instant::now();
    while began.elapsed() < LOOKING {
        for id in [1, 2, 3] {
            let seen = look(store, id).await.unwrap();
            assert_eq!((&seen.endpoints[..], seen.resting), (&["east/n1".into(), "east/n2".into()][..], 1), "{after}");
            assert!(seen.staleness < IN_TOUCH, "{after}: member {id}: {seen:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wall_clocks_that_jump_end_no_lease_and_no_quarantine_early_and_lose_nothing() {
    let Some(library) = library() else {
        println!("SKIPPED: the Debian package libfaketime is not installed");
        return;
    };
    let mut store = Store::start(100).await;
    let settings = MeshSettings {
        node_lease_ms: NODE_LEASE_MS,
        node_grace_ms: NODE_GRACE_MS,
        quarantine_ms: QUARANTINE_MS,
        identity_grace_ms: 0,
        ..MeshSettings::default()
    };
    for command in [
        Command::PutCluster(Cluster { name: name("east"), id: ClusterId::new(1).unwrap(), pod_cidrs: vec![] }),
        Command::PutSettings(settings),
        Command::PutNode(node("n1")),
        Command::PutNode(node("n2")),
        endpoint("east", "n1", "10.1.0.1"),
        endpoint("east", "n2", "10.1.0.2"),
    ] {
        store.execute(1, &command, PATIENCE).await.unwrap();
    }
    let mut members = Clocked::take_over(&mut store, library).await;
    let mut last = leader(&store, 1).await;
    let silent = Arc::new(AtomicBool::new(false));
    let telling = gateway([1, 2, 3].map(|id| store.channel(id)).to_vec(), silent.clone());
    let number = store.execute(last, &allocate("east", "gone"), PATIENCE).await.unwrap().identity.unwrap();
    store.execute(last, &Command::ReleaseIdentity(number), PATIENCE).await.unwrap();
    until("a number that rests", || async { (look(&store, 2).await?.resting == 1).then_some(()) }).await;
    let (resting_since, silent_since) = (Instant::now(), Instant::now());
    silent.store(true, Ordering::SeqCst);

    for (after, days) in [("ten days on", 10), ("a month back", -30)] {
        members.jump_to(days * DAY);
        nothing_ends(&store, after, days * DAY).await;
    }
    let term = Duration::from_millis(NODE_LEASE_MS + NODE_GRACE_MS);
    let quarantine = Duration::from_millis(QUARANTINE_MS);
    until("the end of the quarantine", || async { (look(&store, 1).await?.resting == 0).then_some(()) }).await;
    let rested = resting_since.elapsed();
    until("the end of n2", || async { (look(&store, 1).await?.endpoints == ["east/n1"]).then_some(()) }).await;
    let lived = silent_since.elapsed();
    println!("n2 lived for {lived:.1?} of {term:?}, the number rested for {rested:.1?} of {quarantine:?}");
    let (early, late) = (Duration::from_secs(2), Duration::from_secs(15));
    assert!(rested + early > quarantine && rested < quarantine + late, "{rested:?}");
    assert!(lived + early > term && lived < term + late, "{lived:?}");

    // What was written lies in the future of whoever starts now; a new leader gives every lease its term again.
    for days in [-60, 40] {
        members.jump_to(days * DAY);
        members.kill(last);
        let (stopped, others) = (last, last % 3 + 1);
        last = leader(&store, others).await;
        store.execute(others, &allocate("east", &format!("without{days}")), PATIENCE).await.unwrap();
        members.start(stopped);
        until("a member that is back", || async {
            let seen = look(&store, stopped).await?;
            (seen.endpoints == ["east/n1"] && seen.staleness < IN_TOUCH).then_some(())
        })
        .await;
        wall(&store, stopped).await;
    }
    telling.abort();
    let digests = || async {
        let status = store.client(last).status(v1::StatusRequest {}).await.ok()?.into_inner();
        let of = |member: &v1::MemberStatus| (member.applied_index, member.state_digest);
        status.members.windows(2).all(|pair| of(&pair[0]) == of(&pair[1])).then_some(())
    };
    until("equal members", digests).await;
    for id in members.processes.keys() {
        let log = fs::read_to_string(Path::new(&members.offset).with_file_name(format!("clocked-{id}.log"))).unwrap();
        assert!(!log.contains("panicked"), "{log}");
    }
}
