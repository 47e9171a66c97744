//! Power loss under three whole members, each a process of its own, all on one file system that goes down at once.
//!
//! ```text
//! mount ─► start 3 processes ─► writers ─► FS_IOC_SHUTDOWN (nothing more reaches the disk) ─► kill -9 ─► umount
//!   ▲                                                                                                     │
//!   └──────────── every acknowledged write is there, once, on equal members ◄─ start ◄─ mount ◄─ fsck ◄───┘
//! ```
//!
//! `RINGFENCE_POWER_ROUNDS` says how often; `RINGFENCE_POWER_SEED` repeats a run. Needs root on Linux.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use ringfence_identityd::{Config, Member, wal::WalOptions};
use ringfence_proto::v1;
use tokio::net::TcpListener;

use crate::{
    clients::Clients,
    disk::FaultyDisk,
    random::Random,
    support::{PATIENCE, Store, allocate, until},
};

const DEFAULT_ROUNDS: u32 = 5;
const WRITERS: u64 = 6;
/// What a member on a disk of a special kind is told.
const SPECIAL_MEMBER: &str = "RINGFENCE_TEST_SPECIAL_MEMBER";
const LIES: &str = "RINGFENCE_TEST_LIES";

/// A small ext4 in a file, mounted; unmounted at the end, whatever happens.
pub(crate) struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// None without root.
    pub(crate) fn new(directory: &Path) -> Option<Self> {
        let (image, mount) = (directory.join("image"), directory.join("mount"));
        std::fs::create_dir(&mount).unwrap();
        std::fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        let disk = Self { image, mount };
        let made = run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk.image));
        (made && disk.mount()).then_some(disk)
    }

    fn mount(&self) -> bool {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mount))
    }

    /// From now on nothing reaches the image any more, not even the file system's journal.
    pub(crate) fn lose_power(&self) {
        // FS_IOC_SHUTDOWN with FS_SHUTDOWN_FLAGS_NOLOGFLUSH (2), include/uapi/linux/fs.h.
        let script = "open(my $d, '<', $ARGV[0]) or die $!; my $f = pack('L', 2); ioctl($d, 0x8004587D, $f) or die $!";
        assert!(run(Command::new("perl").args(["-e", script]).arg(&self.mount)), "the file system cannot be shut down");
    }

    /// What the disk holds when power is back, with the journal replayed and the file system checked.
    pub(crate) fn power_on(&self) {
        assert!(run(Command::new("umount").arg(&self.mount)));
        let check = Command::new("fsck.ext4").args(["-p", "-f"]).arg(&self.image).output().unwrap();
        assert!(matches!(check.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&check.stdout));
        // Somebody else's mount namespace can hold on to the dead file system, which is then mounted once more.
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(self.mount());
            if std::fs::write(self.mount.join("alive"), "").is_ok() {
                return;
            }
            assert!(Instant::now() < deadline, "the file system that was shut down does not go away");
            assert!(run(Command::new("umount").arg(&self.mount)));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(&self.mount));
    }
}

fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// The members as processes; killed at the end, whatever happens.
pub(crate) struct Processes(Vec<Child>);

impl Processes {
    fn start(configs: &[(u64, PathBuf)], lying: bool) -> Self {
        Self::start_on(configs, lying, lying)
    }

    /// On disks that can be slow, and that lie or not.
    pub(crate) fn start_special(configs: &[(u64, PathBuf)], lying: bool) -> Self {
        Self::start_on(configs, true, lying)
    }

    /// The process of the first member.
    pub(crate) fn id(&self) -> u32 {
        self.0[0].id()
    }

    fn start_on(configs: &[(u64, PathBuf)], special: bool, lying: bool) -> Self {
        let start = |(id, path): &(u64, PathBuf)| {
            let mut command = if special {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args(["--exact", "power::special_member", "--nocapture"]).env(SPECIAL_MEMBER, path);
                command.envs(lying.then_some((LIES, "1")));
                command
            } else {
                let mut command = Command::new(env!("CARGO_BIN_EXE_identityd"));
                command.arg("--config").arg(path);
                command
            };
            let log = std::fs::File::options().create(true).append(true).open(path.with_extension("log")).unwrap();
            command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
            command.spawn().unwrap_or_else(|error| panic!("member {id}: {error}"))
        };
        Self(configs.iter().map(start).collect())
    }

    pub(crate) fn kill(&mut self) {
        for child in &mut self.0 {
            drop(child.kill());
            child.wait().unwrap();
        }
        self.0.clear();
    }

    /// One that has ended by itself.
    fn ended(&mut self) -> Option<String> {
        self.0.iter_mut().enumerate().find_map(|(at, child)| {
            child.try_wait().unwrap().map(|status| format!("the process of member {} has ended: {status}", at + 1))
        })
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Not a test: a member whose log says that it has synced and has not, or takes long over it, in a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn special_member() {
    let Some(path) = std::env::var_os(SPECIAL_MEMBER) else { return };
    let config: Config = ringfence_runtime::config::load(Path::new(&path)).unwrap();
    let disk = FaultyDisk::default();
    disk.0.lies.store(std::env::var_os(LIES).is_some(), SeqCst);
    *disk.0.slow_while.lock().unwrap() = Some(Path::new(&path).with_extension("slow"));
    let listener = TcpListener::bind(config.listen).await.unwrap();
    let options = WalOptions { disk: Arc::new(disk), ..WalOptions::default() };
    let member = Member::start_with(config, listener, options).await.unwrap();
    panic!("{}", member.failed().await);
}

struct Drill {
    disk: Disk,
    configs: Vec<(u64, PathBuf)>,
    clients: Clients,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    random: Random,
    lying: bool,
}

impl Drill {
    async fn new(lying: bool) -> Option<(Self, Store)> {
        let mut store = Store::start(500).await;
        store.register().await;
        let directory = store.directory.path().to_owned();
        let Some(disk) = Disk::new(&directory) else {
            println!("SKIPPED: a file system that can be shut down needs root, mkfs.ext4 and loop devices");
            return None;
        };
        let ids: Vec<_> = store.running.keys().copied().collect();
        let mut configs = Vec::new();
        for id in ids {
            let member = store.running.remove(&id).unwrap();
            member.shutdown(Duration::from_secs(2)).await.unwrap();
            configs.push(move_data(&store.configs[&id], &disk, &directory));
        }
        let (clients, random) = (Clients::of(&store), Random::from_environment("RINGFENCE_POWER_SEED"));
        Some((Self { disk, configs, clients, acknowledged: Arc::default(), random, lying }, store))
    }

    /// One life: from power on to power loss. Says what is wrong when power is back, if anything.
    async fn round(&mut self, round: u32) -> Result<(), String> {
        let mut processes = Processes::start(&self.configs, self.lying);
        self.check(&mut processes).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| tokio::spawn(self.writer(round, writer, stop.clone()))).collect();
        // A moment that nobody chose.
        tokio::time::sleep(Duration::from_millis(200 + self.random.below(800))).await;
        self.disk.lose_power();
        stop.store(true, SeqCst);
        processes.kill();
        for writer in writers {
            writer.await.unwrap();
        }
        self.disk.power_on();
        Ok(())
    }

    /// Writes until told to stop; what is acknowledged counts.
    fn writer(&self, round: u32, writer: u64, stop: Arc<AtomicBool>) -> impl Future<Output = ()> + use<> {
        let (clients, acknowledged) = (self.clients.clone(), self.acknowledged.clone());
        async move {
            let mut number = 0;
            while !stop.load(SeqCst) {
                let app = format!("r{round}-w{writer}-{number}");
                let command = allocate("east", &app);
                if clients.execute(writer % 3 + 1, &command, Duration::from_secs(2)).await.is_ok() {
                    acknowledged.lock().unwrap().insert(app);
                }
                number += 1;
            }
        }
    }

    /// Waits for members that agree, and compares what they hold with what was acknowledged.
    async fn check(&self, processes: &mut Processes) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = String::new();
        while Instant::now() < deadline {
            if let Some(ended) = processes.ended() {
                return Err(ended);
            }
            match equal_members(&self.clients, 1).await {
                Ok(()) => return self.nothing_is_lost().await,
                Err(reason) => seen = reason,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("the members do not agree within {PATIENCE:?}: {seen}"))
    }

    async fn nothing_is_lost(&self) -> Result<(), String> {
        let apps = self.clients.apps(1).await.map_err(|error| error.to_string())?;
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        let distinct: BTreeSet<_> = apps.iter().cloned().collect();
        if distinct.len() != apps.len() {
            return Err(format!("{} identities for {} label sets", apps.len(), distinct.len()));
        }
        let lost: Vec<_> = acknowledged.difference(&distinct).collect();
        if lost.is_empty() {
            Ok(())
        } else {
            Err(format!("{} of {} acknowledged writes are lost: {lost:?}", lost.len(), acknowledged.len()))
        }
    }
}

/// Every member is reached, at one entry, with one digest, as one of them sees it.
pub(crate) async fn equal_members(clients: &Clients, asked: u64) -> Result<(), String> {
    let status = clients.get(asked).status(v1::StatusRequest {}).await.map_err(|error| error.to_string())?;
    let members = status.into_inner().members;
    let state = |member: &v1::MemberStatus| (member.applied_index, member.state_digest);
    let agree = members.windows(2).all(|pair| state(&pair[0]) == state(&pair[1]));
    let reached = members.iter().all(|member| member.state != "unreachable");
    let leads = members.iter().any(|member| member.state == "leader");
    if leads && reached && agree { Ok(()) } else { Err(format!("{members:?}")) }
}

/// Copies a member's data to the disk and writes its configuration file.
pub(crate) fn move_data(config: &Config, disk: &Disk, directory: &Path) -> (u64, PathBuf) {
    let target = disk.mount.join(config.id.to_string());
    assert!(run(Command::new("cp").arg("-a").arg(&config.data_dir).arg(&target)) && run(&mut Command::new("sync")));
    let path = directory.join(format!("member-{}.yaml", config.id));
    let config = Config { data_dir: target, ..config.clone() };
    std::fs::write(&path, ringfence_runtime::config::dump(&config)).unwrap();
    (config.id, path)
}

/// The kernel's own EIO under the real process: it ends with its reason, the others go on, and it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_file_system_goes_down_exits_with_its_reason() {
    let mut store = Store::start(500).await;
    store.register().await;
    let Some(disk) = Disk::new(store.directory.path()) else {
        println!("SKIPPED: a file system that can be shut down needs root, mkfs.ext4 and loop devices");
        return;
    };
    let (failing, clients) = (store.leader().await, Clients::of(&store));
    let member = store.running.remove(&failing).unwrap();
    member.shutdown(Duration::from_secs(2)).await.unwrap();
    let config = move_data(&store.configs[&failing], &disk, store.directory.path());
    let other = *store.running.keys().next().unwrap();
    // The one that was started is asked: the others do not notice at once when one is gone.
    let all_agree = || async { equal_members(&clients, failing).await.ok() };
    let mut processes = Processes::start(std::slice::from_ref(&config), false);
    until("three equal members", all_agree).await;
    disk.lose_power();
    clients.execute(other, &allocate("east", "goes-on"), PATIENCE).await.unwrap();
    let status = until("its end", || std::future::ready(processes.0[0].try_wait().unwrap())).await;
    assert_eq!(status.code(), Some(1), "{status}");
    let log = std::fs::read_to_string(config.1.with_extension("log")).unwrap();
    assert!(log.contains("Input/output error") && log.contains("until identityd is restarted"), "{log}");
    processes.kill();
    disk.power_on();
    let _processes = Processes::start(std::slice::from_ref(&config), false);
    until("three equal members", all_agree).await;
    assert!(clients.apps(failing).await.unwrap().contains(&"goes-on".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn power_loss_of_the_whole_store_loses_no_acknowledged_write() {
    let Some((mut drill, _store)) = Drill::new(false).await else { return };
    let rounds = std::env::var("RINGFENCE_POWER_ROUNDS").map_or(DEFAULT_ROUNDS, |rounds| rounds.parse().unwrap());
    for round in 0..=rounds {
        // The last round only looks.
        if let Err(wrong) = drill.round(round).await {
            drill.keep_logs();
            panic!("round {round}, seed {}: {wrong}", drill.random.seed);
        }
    }
    println!("{rounds} power losses, {} acknowledged writes, 0 lost", drill.acknowledged.lock().unwrap().len());
}

/// The drill finds what it looks for: the same store over a log that leaves out its fdatasync loses writes.
#[tokio::test(flavor = "multi_thread")]
async fn power_loss_finds_a_log_that_does_not_sync() {
    let Some((mut drill, _store)) = Drill::new(true).await else { return };
    for round in 0..10 {
        if let Err(found) = drill.round(round).await {
            println!("found after {round} power losses: {found:.300}");
            return;
        }
    }
    panic!("a log without fdatasync survived 10 power losses: this drill tests nothing");
}

impl Drill {
    fn keep_logs(&self) {
        for (id, path) in &self.configs {
            let log = std::fs::read_to_string(path.with_extension("log")).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(12).collect();
            println!("member {id}:");
            tail.iter().rev().for_each(|line| println!("  {line}"));
        }
    }
}
