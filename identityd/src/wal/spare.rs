//! The next segment, made ready beside the log's thread: filling one with zeros takes longer than a writer can wait.
//!
//! ```text
//! segment half full ─ prepare ─► a thread: zeros, synced ─► spare.new ─ take ─► named when the segment before is whole
//! ```
//!
//! Segments are not used twice, and a record's checksum covers its segment's number and its place in it: what a disk
//! shows of an older file can never pass for a record.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use super::{Disk, SegmentFile, UNFINISHED};

/// A file without a name of its own yet.
pub(super) struct Blank {
    pub(super) file: Box<dyn SegmentFile>,
    pub(super) path: PathBuf,
}

/// At most one segment in stock.
pub(super) struct Spare {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    size: u32,
    making: Option<JoinHandle<io::Result<Box<dyn SegmentFile>>>>,
}

impl Spare {
    /// Nothing in stock; `size` is that of a segment in bytes.
    pub(super) fn new(disk: Arc<dyn Disk>, directory: &Path, size: u32) -> Self {
        Self { disk, directory: directory.to_owned(), size, making: None }
    }

    /// Begins to make one, unless there is one.
    pub(super) fn prepare(&mut self) {
        if self.making.is_none() {
            let (disk, path, size) = (self.disk.clone(), self.path("spare"), u64::from(self.size));
            // Without a thread the segment is made when it is needed.
            self.making = Builder::new().name("wal-spare".to_owned()).spawn(move || disk.create(&path, size)).ok();
        }
    }

    /// A file of at least `needed` zeros, with its size.
    ///
    /// # Errors
    /// As the file system says.
    pub(super) fn take(&mut self, needed: u32) -> io::Result<(Blank, u32)> {
        if needed > self.size {
            let path = self.path("large");
            return Ok((Blank { file: self.disk.create(&path, u64::from(needed))?, path }, needed));
        }
        let path = self.path("spare");
        let made = self.making.take().map(JoinHandle::join);
        let file = match made {
            Some(Ok(Ok(file))) => file,
            // There may be room again.
            _ => self.disk.create(&path, u64::from(self.size))?,
        };
        Ok((Blank { file, path }, self.size))
    }

    fn path(&self, stem: &str) -> PathBuf {
        self.directory.join(format!("{stem}.{UNFINISHED}"))
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        // Whoever opens the directory next must be alone in it. The file stays: the next start removes it.
        if let Some(making) = self.making.take() {
            drop(making.join());
        }
    }
}
