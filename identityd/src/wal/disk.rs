//! What the log needs of a file system, small enough for a test to make it fail.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use ringfence_runtime::metrics::Timed;

use crate::observe::FSYNC;

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

/// Makes, opens and removes segments.
pub trait Disk: Send {
    /// Makes a segment of `size` bytes that begins with `head`, on stable storage together with its name.
    ///
    /// # Errors
    /// As the file system says; the name then does not exist.
    fn create(&mut self, path: &Path, head: &[u8], size: u64) -> io::Result<Box<dyn SegmentFile>>;

    /// Opens an existing segment for writing.
    ///
    /// # Errors
    /// As the file system says.
    fn open(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;

    /// Removes a segment; its name is gone from stable storage when this returns.
    ///
    /// # Errors
    /// As the file system says.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
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
    fn create(&mut self, path: &Path, head: &[u8], size: u64) -> io::Result<Box<dyn SegmentFile>> {
        let beside = path.with_extension(super::UNFINISHED);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&beside)?;
        // Written, not only reserved: a later fdatasync then has no file system metadata to write.
        let zeros = vec![0; 1 << 20];
        let mut at = 0;
        while at < size {
            let part = zeros.len().min(usize::try_from(size - at).unwrap_or(usize::MAX));
            file.write_all_at(&zeros[..part], at)?;
            at += part as u64;
        }
        file.write_all_at(head, 0)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        sync_parent(path)?;
        Ok(Box::new(file))
    }

    fn open(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
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
