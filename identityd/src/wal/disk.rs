//! What the log needs of a file system, small enough for a test to make it fail.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use ringfence_runtime::metrics::Timed;

use crate::observe::FSYNC;
/// How much of a new segment is written and synced at once: a record that is synced meanwhile waits for no more.
const FILL_BYTES: u64 = 1 << 20;

/// An open segment.
pub trait SegmentFile: Send {
    /// Writes all bytes at an offset.
    ///
    /// # Errors
    /// As the file system says.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Returns once everything written is on stable storage.
    ///
    /// # Errors
    /// As the file system says. What was written before is then lost or not: nobody can tell.
    fn sync(&mut self) -> io::Result<()>;
}

/// Makes, opens, reads, names and removes segments. Used by the log's thread; for `create` by one beside it, for `read_at` by
/// whoever needs old entries.
pub trait Disk: Send + Sync {
    /// Makes a file of `size` zeros. The zeros are on stable storage when this returns, the name may not be.
    ///
    /// # Errors
    /// As the file system says; what was made of the file is of no use then.
    fn create(&self, path: &Path, size: u64) -> io::Result<Box<dyn SegmentFile>>;

    /// Opens an existing segment for writing.
    ///
    /// # Errors
    /// As the file system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;

    /// Reads a part of a segment, all of it; asked for from any thread.
    ///
    /// # Errors
    /// As the file system says; `UnexpectedEof` where the file ends before.
    fn read_at(&self, path: &Path, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Gives a file another name in the same directory, on stable storage when this returns.
    ///
    /// # Errors
    /// As the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a segment; its name is gone from stable storage when this returns.
    ///
    /// # Errors
    /// As the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The real file system.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDisk;

impl SegmentFile for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        let _timed = Timed::new(FSYNC);
        self.sync_data()
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &Path, size: u64) -> io::Result<Box<dyn SegmentFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        // Written, not only reserved: a later fdatasync then has no file system metadata to write.
        let zeros = vec![0; usize::try_from(size.min(FILL_BYTES)).expect("a mebibyte fits into memory")];
        let mut at = 0;
        while at < size {
            let part = usize::try_from(size - at).unwrap_or(usize::MAX).min(zeros.len());
            file.write_all_at(&zeros[..part], at)?;
            file.sync_data()?;
            at += part as u64;
        }
        file.sync_all()?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn read_at(&self, path: &Path, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        File::open(path)?.read_exact_at(bytes, offset)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)?;
        sync_parent(to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)?;
        sync_parent(path)
    }
}

/// Puts the names in a file's directory on stable storage.
///
/// # Errors
/// As the file system says.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
