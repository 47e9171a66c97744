//! Disks that fail under a whole member.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ringfence_identityd::{
    Member, MemberFailed,
    wal::{Disk, RealDisk, SegmentFile, WalOptions},
};
use tokio::net::TcpListener;

use crate::support::{PATIENCE, Store, allocate};

/// A disk whose syncs fail once it is told so; everything else goes on working.
#[derive(Clone, Default)]
struct FailingDisk(Arc<AtomicBool>);

struct FailingFile(Box<dyn SegmentFile>, FailingDisk);

impl SegmentFile for FailingFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.1.0.load(Ordering::SeqCst) { Err(io::Error::from_raw_os_error(5)) } else { self.0.sync() }
    }
}

impl Disk for FailingDisk {
    fn create(&mut self, path: &Path, head: &[u8], size: u64) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(FailingFile(RealDisk.create(path, head, size)?, self.clone())))
    }

    fn open(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(FailingFile(RealDisk.open(path)?, self.clone())))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_disk_fails_acknowledges_nothing_and_the_others_go_on() {
    let mut store = Store::start(5000).await;
    store.register().await;
    let failing = store.leader().await;
    store.kill(failing).await;
    let disk = FailingDisk::default();
    let config = store.configs[&failing].clone();
    let listener = TcpListener::bind(config.listen).await.unwrap();
    let options = WalOptions { disk: Box::new(disk.clone()), ..WalOptions::default() };
    store.running.insert(failing, Member::start_with(config, listener, options).await.unwrap());
    store.leader().await;
    store.converge().await;
    disk.0.store(true, Ordering::SeqCst);
    let others: Vec<_> = store.running.keys().copied().filter(|id| *id != failing).collect();
    let committed = store.execute(others[0], &allocate("east", "goes-on"), PATIENCE).await.unwrap();
    assert!(committed.changed);
    let member = store.running.remove(&failing).unwrap();
    let failed = tokio::time::timeout(PATIENCE, member.failed()).await.unwrap();
    assert!(matches!(failed, MemberFailed::Raft { .. }), "{failed}");
    assert!(failed.to_string().contains("until identityd is restarted"), "{failed}");
    let refused = store.execute(failing, &allocate("east", "refused"), Duration::from_secs(1)).await;
    assert!(refused.is_err(), "nothing is acknowledged by a member whose log failed");
    member.kill().await;
    // The disk works again: started anew, it has everything.
    store.restart(failing).await;
    store.leader().await;
    store.converge().await;
}
