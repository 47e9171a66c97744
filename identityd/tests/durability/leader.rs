//! Power loss of the leader alone, between the two disks: its followers have an entry that its own disk has not
//! (docs/decisions/0008). A quorum of the leader and one follower counts what it acknowledges as committed, so it must be on
//! the leader's disk, too: the other follower and the restarted leader are a majority that may know nothing of it.
//!
//! ```text
//! lagging follower paused ─► writes, leader's disk slow ─► leader loses power ─► the follower that has all is paused,
//!   the lagging one and the leader go on: every acknowledged write is there ─► all three are equal
//! ```

use std::{
    collections::BTreeSet,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use ringfence_proto::v1;

use crate::{
    clients::Clients,
    power::{Disk, Processes, equal_members, move_data},
    support::{PATIENCE, Store, allocate, until},
};

const DEFAULT_ROUNDS: u32 = 3;
const WRITERS: u64 = 4;

/// Three members, each on a disk of its own; clients; what was acknowledged.
struct Drill {
    disks: Vec<Disk>,
    processes: Vec<Processes>,
    configs: Vec<(u64, std::path::PathBuf)>,
    clients: Clients,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    lying: bool,
}

impl Drill {
    /// None without root.
    async fn new(lying: bool) -> Option<(Self, Store)> {
        let mut store = Store::start(500).await;
        store.register().await;
        let (mut disks, mut configs) = (Vec::new(), Vec::new());
        for id in [1, 2, 3] {
            let directory = store.directory.path().join(format!("disk-{id}"));
            std::fs::create_dir(&directory).unwrap();
            let Some(disk) = Disk::new(&directory) else {
                println!("SKIPPED: a file system that can be shut down needs root, mkfs.ext4 and loop devices");
                return None;
            };
            disks.push(disk);
        }
        for id in [1, 2, 3] {
            let member = store.running.remove(&id).unwrap();
            member.shutdown(Duration::from_secs(2)).await.unwrap();
            configs.push(move_data(&store.configs[&id], &disks[at(id)], store.directory.path()));
        }
        let clients = Clients::of(&store);
        let mut drill = Self { disks, processes: Vec::new(), configs, clients, acknowledged: Arc::default(), lying };
        drill.processes = [1, 2, 3].into_iter().map(|id| drill.start(id)).collect();
        Some((drill, store))
    }

    fn start(&self, id: u64) -> Processes {
        Processes::start_special(std::slice::from_ref(&self.configs[at(id)]), self.lying)
    }

    fn signal(&self, id: u64, signal: &str) {
        let process = self.processes[at(id)].id().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }

    /// One loss of power; says what was lost, if anything.
    async fn round(&mut self, round: u32) -> Result<(), String> {
        let leader = until("three equal members", || self.leader()).await;
        let (lagging, whole) = (leader % 3 + 1, (leader + 1) % 3 + 1);
        self.signal(lagging, "-STOP");
        let slow = self.configs[at(leader)].1.with_extension("slow");
        std::fs::write(&slow, "").unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| tokio::spawn(self.writer(round, writer, leader, stop.clone()))).collect();
        let before = self.acknowledged.lock().unwrap().len();
        until("writes under way", || async { (self.acknowledged.lock().unwrap().len() > before + 8).then_some(()) })
            .await;
        self.disks[at(leader)].lose_power();
        self.processes[at(leader)].kill();
        // Before it can lead: what it has and the leader has not must not matter.
        self.signal(whole, "-STOP");
        stop.store(true, SeqCst);
        for writer in writers {
            writer.await.unwrap();
        }
        std::fs::remove_file(&slow).unwrap();
        self.disks[at(leader)].power_on();
        self.processes[at(leader)] = self.start(leader);
        self.signal(lagging, "-CONT");
        let lost = self.lost(lagging).await;
        self.signal(whole, "-CONT");
        lost?;
        until("three equal members", || self.leader()).await;
        self.lost(whole).await
    }

    /// Who leads, once all three are equal.
    async fn leader(&self) -> Option<u64> {
        equal_members(&self.clients, 1).await.ok()?;
        let status = self.clients.get(1).status(v1::StatusRequest {}).await.ok()?.into_inner();
        status.members.iter().find(|member| member.state == "leader").map(|member| member.id)
    }

    fn writer(&self, round: u32, writer: u64, through: u64, stop: Arc<AtomicBool>) -> impl Future<Output = ()> + use<> {
        let (clients, acknowledged) = (self.clients.clone(), self.acknowledged.clone());
        async move {
            let mut number = 0;
            while !stop.load(SeqCst) {
                let app = format!("r{round}-w{writer}-{number}");
                if clients.execute(through, &allocate("east", &app), Duration::from_secs(1)).await.is_ok() {
                    acknowledged.lock().unwrap().insert(app);
                }
                number += 1;
            }
        }
    }

    /// What was acknowledged and a linearizable read does not have.
    async fn lost(&self, through: u64) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let apps = loop {
            match self.clients.apps(through).await {
                Ok(apps) => break apps,
                Err(error) if Instant::now() >= deadline => return Err(format!("no linearizable read: {error}")),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let distinct: BTreeSet<_> = apps.iter().cloned().collect();
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        let lost: Vec<_> = acknowledged.difference(&distinct).collect();
        if distinct.len() != apps.len() {
            return Err(format!("{} identities for {} label sets", apps.len(), distinct.len()));
        }
        if lost.is_empty() {
            Ok(())
        } else {
            Err(format!("{} of {} are lost: {lost:?}", lost.len(), acknowledged.len()))
        }
    }
}

fn at(id: u64) -> usize {
    usize::try_from(id).unwrap() - 1
}

#[tokio::test(flavor = "multi_thread")]
async fn power_loss_of_the_leader_alone_loses_no_acknowledged_write() {
    let Some((mut drill, _store)) = Drill::new(false).await else { return };
    let rounds = std::env::var("RINGFENCE_POWER_ROUNDS").map_or(DEFAULT_ROUNDS, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        if let Err(wrong) = drill.round(round).await {
            panic!("round {round}: {wrong}");
        }
    }
    println!("{rounds} leaders lost power, {} acknowledged, 0 lost", drill.acknowledged.lock().unwrap().len());
}

/// The control: a leader that does not wait for its own disk, because that says too early that it is done.
#[tokio::test(flavor = "multi_thread")]
async fn power_loss_finds_a_leader_that_acknowledges_before_its_own_disk_has_it() {
    let Some((mut drill, _store)) = Drill::new(true).await else { return };
    for round in 0..5 {
        if let Err(found) = drill.round(round).await {
            println!("found after {round} power losses: {found:.300}");
            return;
        }
    }
    panic!("a leader that does not wait for its disk survived 5 power losses: this drill tests nothing");
}
