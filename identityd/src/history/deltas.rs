//! The files of a history, and reading them.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
};

use ringfence_policy::{record::Delta, revision::Revision};

use super::{ENDING, Run};
use crate::codec::{self, Frame, RECORD_HEADER_BYTES, RecordKind, SEGMENT_HEADER_BYTES, Scanned, SegmentHeader};

/// A history cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file system refuses.
    #[error("history {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A delta is unreadable.
    #[error("history {}: the delta of revision {revision} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Whose delta.
        revision: u64,
    },
    /// The bounds took the file while it was read.
    #[error("history {}: gone meanwhile", path.display())]
    Compacted {
        /// The file.
        path: PathBuf,
    },
}

/// Deltas in the order of their revisions. Takes the memory of one file.
#[derive(Debug)]
pub struct Deltas {
    member: u64,
    runs: VecDeque<Run>,
    after: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    run: Run,
    bytes: Vec<u8>,
    offset: usize,
    revision: u64,
}

impl Deltas {
    pub(super) const fn new(member: u64, runs: VecDeque<Run>, after: Revision) -> Self {
        Self { member, runs, after: after.0, open: None }
    }

    fn try_next(&mut self) -> Result<Option<Delta>, HistoryError> {
        loop {
            let Some(open) = &mut self.open else {
                let Some(run) = self.runs.pop_front() else { return Ok(None) };
                self.open = Some(Open::new(self.member, run)?);
                continue;
            };
            if open.revision > open.run.last {
                self.open = None;
                continue;
            }
            let (revision, path) = (open.revision, open.run.path.clone());
            let payload = open.next()?;
            if revision > self.after {
                let delta = codec::decode::<Delta>(payload).ok().filter(|delta| delta.revision.0 == revision);
                return delta.map(Some).ok_or(HistoryError::Damaged { path, revision });
            }
        }
    }
}

impl Iterator for Deltas {
    type Item = Result<Delta, HistoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.try_next().transpose()
    }
}

impl Open {
    fn new(member: u64, run: Run) -> Result<Self, HistoryError> {
        let bytes = fs::read(&run.path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => HistoryError::Compacted { path: run.path.clone() },
            _ => HistoryError::Io { path: run.path.clone(), source },
        })?;
        let header = SegmentHeader { member, sequence: run.first };
        if SegmentHeader::decode(&bytes) != Ok(header) {
            return Err(HistoryError::Damaged { revision: run.first, path: run.path });
        }
        let revision = run.first;
        Ok(Self { run, bytes, offset: SEGMENT_HEADER_BYTES, revision })
    }

    fn next(&mut self) -> Result<&[u8], HistoryError> {
        match codec::scan_record(&self.bytes, self.run.first, self.offset) {
            Scanned::Record(Frame { kind: RecordKind::Delta, payload, .. }) => {
                self.offset += RECORD_HEADER_BYTES + payload.len();
                self.revision += 1;
                Ok(payload)
            }
            _ => Err(HistoryError::Damaged { path: self.run.path.clone(), revision: self.revision }),
        }
    }
}

/// What a directory holds up to `head`; files that are wholly later are removed, the one with the head is cut.
pub(super) fn runs(directory: &Path, member: u64, head: Revision) -> io::Result<VecDeque<Run>> {
    let mut paths: Vec<(u64, PathBuf)> = Vec::new();
    for path in files(directory)? {
        match path.file_stem().and_then(|stem| u64::from_str_radix(stem.to_str()?, 16).ok()) {
            Some(first) if first <= head.0 => paths.push((first, path)),
            _ => fs::remove_file(&path)?,
        }
    }
    paths.sort();
    let lasts: Vec<u64> = paths.iter().skip(1).map(|(next, _)| next - 1).chain([head.0]).collect();
    let mut runs = VecDeque::new();
    for ((first, path), last) in paths.into_iter().zip(lasts) {
        let metadata = fs::metadata(&path)?;
        let ended = metadata.modified()?;
        let run = Run { path, first, last, end: metadata.len(), began: ended, ended };
        runs.push_back(run);
    }
    if let Some(run) = runs.back_mut() {
        (run.last, run.end) = measure(member, run, head)?;
    }
    Ok(runs)
}

/// The last whole delta up to `head`, and where it ends.
fn measure(member: u64, run: &Run, head: Revision) -> io::Result<(u64, u64)> {
    let mut open = match Open::new(member, run.clone()) {
        Ok(open) => open,
        Err(HistoryError::Io { source, .. }) => return Err(source),
        Err(_) => return Ok((0, run.end)),
    };
    while open.revision <= head.0 && open.next().is_ok() {}
    let end = open.offset as u64;
    fs::File::options().write(true).open(&run.path)?.set_len(end)?;
    Ok((open.revision - 1, end))
}

/// Removes every file of a history.
pub(super) fn remove_all(directory: &Path) -> io::Result<()> {
    files(directory)?.iter().try_for_each(fs::remove_file)
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == ENDING) {
            paths.push(path);
        }
    }
    Ok(paths)
}
