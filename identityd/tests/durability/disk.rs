//! A disk that fails or lies on command; also used by the log's own tests.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use ringfence_identityd::wal::{Disk, RealDisk, SegmentFile};

/// How long a slow disk takes over a sync: many times as long as the others'.
const SLOW_SYNC: Duration = Duration::from_millis(150);
/// Input/output error.
pub(crate) const EIO: i32 = 5;
/// No space left on device.
pub(crate) const ENOSPC: i32 = 28;

/// The real file system with switches; clones share them.
#[derive(Clone, Default)]
pub(crate) struct FaultyDisk(pub(crate) Arc<Switches>);

/// The error that an operation fails with from now on; 0 is none.
#[derive(Default)]
pub(crate) struct Switches {
    pub(crate) write: AtomicI32,
    pub(crate) sync: AtomicI32,
    pub(crate) create: AtomicI32,
    /// … of entries that are read back.
    pub(crate) read: AtomicI32,
    /// … of segments that are made ahead, beside the log's thread.
    pub(crate) spare: AtomicI32,
    /// Says that it has synced and has not.
    pub(crate) lies: AtomicBool,
    /// Takes long over a sync while this file is there.
    pub(crate) slow_while: Mutex<Option<PathBuf>>,
    pub(crate) syncs: AtomicUsize,
    pub(crate) bytes_written: AtomicUsize,
    pub(crate) bytes_read: AtomicUsize,
    /// The names of the threads that made segments, or tried to.
    pub(crate) creators: Mutex<Vec<String>>,
}

struct FaultyFile(Box<dyn SegmentFile>, Arc<Switches>);

fn check(errno: &AtomicI32) -> io::Result<()> {
    match errno.load(SeqCst) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

impl SegmentFile for FaultyFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        check(&self.1.write)?;
        self.1.bytes_written.fetch_add(bytes.len(), SeqCst);
        self.0.write_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        check(&self.1.sync)?;
        self.1.syncs.fetch_add(1, SeqCst);
        let is_slow = self.1.slow_while.lock().unwrap().as_ref().is_some_and(|path| path.exists());
        if is_slow {
            std::thread::park_timeout(SLOW_SYNC);
        }
        if self.1.lies.load(SeqCst) { Ok(()) } else { self.0.sync() }
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path, size: u64) -> io::Result<Box<dyn SegmentFile>> {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        let switch = if thread == "wal-spare" { &self.0.spare } else { &self.0.create };
        self.0.creators.lock().unwrap().push(thread);
        check(switch)?;
        Ok(Box::new(FaultyFile(RealDisk.create(path, size)?, self.0.clone())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(FaultyFile(RealDisk.open(path)?, self.0.clone())))
    }

    fn read_at(&self, path: &Path, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        check(&self.0.read)?;
        RealDisk.read_at(path, bytes, offset)?;
        self.0.bytes_read.fetch_add(bytes.len(), SeqCst);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
}
