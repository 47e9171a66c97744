//! Disks that fail under a whole member.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering::SeqCst},
    },
    time::Duration,
};

use ringfence_identityd::{
    Member, MemberFailed,
    wal::{Disk, RealDisk, WalOptions},
};
use tokio::net::TcpListener;

use crate::{
    disk::{EIO, ENOSPC, FaultyDisk, Switches},
    support::{PATIENCE, Store, allocate, allocate_fat},
};

/// Starts a member again, with a log on another kind of disk.
async fn restart_on(store: &mut Store, id: u64, segment_bytes: u32, disk: Arc<dyn Disk>) {
    let config = store.configs[&id].clone();
    let listener = TcpListener::bind(config.listen).await.unwrap();
    let options = WalOptions { segment_bytes, disk, ..WalOptions::default() };
    store.running.insert(id, Member::start_with(config, listener, options).await.unwrap());
    store.leader().await;
    store.converge().await;
}

/// The member stops by itself, says why, and acknowledges nothing: at most it hands on what the others acknowledge. Takes
/// it out of the store; the app of a command that it answered.
async fn fails(store: &mut Store, id: u64, expected: &str) -> Option<String> {
    let member = store.running.remove(&id).unwrap();
    let failed = tokio::time::timeout(PATIENCE, member.failed()).await.unwrap();
    assert!(matches!(failed, MemberFailed::Log { .. }), "{failed}");
    for part in ["until identityd is restarted", expected] {
        assert!(failed.to_string().contains(part), "{failed} does not say {part:?}");
    }
    let app = format!("asked {expected}").replace(' ', "-").replace(['(', ')'], "");
    let answer = store.execute(id, &allocate("east", &app), Duration::from_secs(1)).await;
    member.kill().await;
    answer.ok().map(|_| app)
}

/// The apps of all identities, on every member the same.
async fn apps(store: &Store) -> BTreeSet<String> {
    store.leader().await;
    store.converge().await;
    store.running[&1].history().read(|history| {
        let apps = history.mesh().identities().map(|record| record.labels.to_string()).collect::<Vec<_>>();
        let distinct: BTreeSet<_> = apps.iter().cloned().collect();
        assert_eq!(apps.len(), distinct.len(), "an identity is there twice");
        distinct
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_disk_fails_acknowledges_nothing_and_the_others_go_on() {
    type Fault = fn(&Switches) -> &AtomicI32;
    let (write, sync): (Fault, Fault) = (|disk| &disk.write, |disk| &disk.sync);
    let faults = [(sync, EIO), (sync, ENOSPC), (write, EIO), (write, ENOSPC)];
    let mut store = Store::start(5000).await;
    store.register().await;
    for (number, (fault, errno)) in faults.into_iter().enumerate() {
        let failing = store.leader().await;
        store.kill(failing).await;
        let disk = FaultyDisk::default();
        restart_on(&mut store, failing, 16 << 20, Arc::new(disk.clone())).await;
        let before = apps(&store).await;
        fault(&disk.0).store(errno, SeqCst);
        let others: Vec<_> = store.running.keys().copied().filter(|id| *id != failing).collect();
        let goes_on = allocate("east", &format!("goes-on-{number}"));
        store.execute(others[0], &goes_on, PATIENCE).await.unwrap();
        let handed_on = fails(&mut store, failing, &format!("os error {errno}")).await;
        let command = allocate("east", &format!("without-{number}"));
        store.execute(others[0], &command, PATIENCE).await.unwrap();
        // The disk works again: started anew, it has everything.
        store.restart(failing).await;
        let after = apps(&store).await;
        assert!(after.is_superset(&before) && after.len() >= before.len() + 2, "{before:?} became {after:?}");
        if let Some(app) = handed_on {
            assert!(after.iter().any(|labels| labels.contains(&app)), "{app} was acknowledged and is lost");
        }
    }
}

/// A file system of its own below a directory; gone at the end, whatever happens.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(path: &Path, mebibytes: u32) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]).arg(path);
        mount.output().is_ok_and(|output| output.status.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_disk_is_full_stops_whole_and_goes_on_once_there_is_room() {
    let mut store = Store::start(40).await;
    store.register().await;
    let full = store.leader().await % 3 + 1;
    store.kill(full).await;
    let directory = store.configs[&full].data_dir.clone();
    let before = directory.with_extension("before");
    std::fs::rename(&directory, &before).unwrap();
    let Some(_mount) = Mount::tmpfs(&directory, 64) else {
        println!("SKIPPED: mounting a tmpfs needs root");
        return;
    };
    assert!(Command::new("cp").arg("-a").arg(before.join(".")).arg(&directory).status().unwrap().success());
    restart_on(&mut store, full, 256 << 10, Arc::new(RealDisk)).await;
    // All room but a little is taken by somebody else.
    let (filler, mut bytes) = (directory.join("filler"), 0);
    let file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut &file, &[1; 64 << 10]).is_ok() {
        bytes += 64 << 10;
    }
    file.set_len(bytes - (1 << 20)).unwrap();
    drop(file);
    let through = *store.running.keys().find(|id| **id != full).unwrap();
    for number in 0..200 {
        store.execute(through, &allocate_fat("south", &format!("a{number}")), PATIENCE).await.unwrap();
    }
    let member = store.running.remove(&full).unwrap();
    let failed = tokio::time::timeout(PATIENCE, member.failed()).await.unwrap().to_string();
    println!("a full disk: {failed}");
    assert!(failed.contains("No space left on device"), "{failed}");
    member.kill().await;
    std::fs::remove_file(&filler).unwrap();
    store.restart(full).await;
    assert_eq!(apps(&store).await.len(), 200);
    store.kill(full).await;
}
