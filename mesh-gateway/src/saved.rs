//! The newest state on disk, so that a restarted gateway serves its cluster while the store is out of reach.
//!
//! ```text
//! magic "RFGW" │ format u32 │ written at, Unix ms u64 │ staleness then, ms u64 │ crc32 of the rest u32 │ SnapshotChunk
//! ```
//!
//! Numbers are little-endian. The file is written beside, synced and renamed: it is the old one or the new one. A file
//! that does not check out is left alone and not used.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prost::Message as _;
use ringfence_policy::{
    record::{Snapshot, Versioned},
    store::{InvalidStoreId, StoreId},
};
use ringfence_proto::{convert::InvalidMessage, follow::Position, v1};
use tokio_util::sync::CancellationToken;

use crate::{cache::MeshCache, reports::milliseconds};

const MAGIC: &[u8; 4] = b"RFGW";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 28;
/// News are written at most this often.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Without news the file is renewed this often, so that its age says how stale it is.
const MAX_INTERVAL: Duration = Duration::from_secs(30);

/// Keeps the file at the newest revision.
#[derive(Debug)]
pub(crate) struct SavedState {
    pub(crate) path: PathBuf,
    pub(crate) cache: Arc<MeshCache>,
}

/// A cache file cannot be used or written.
#[derive(Debug, thiserror::Error)]
enum SavedStateError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("it is not a gateway's cache file")]
    Foreign,
    #[error("it has format {found}, and this version reads format {FORMAT}")]
    Format { found: u32 },
    #[error("its checksum is wrong: it is damaged")]
    Damaged,
    #[error("its content cannot be read: {0}")]
    Content(#[from] prost::DecodeError),
    #[error("its content is not valid: {0}")]
    Invalid(#[from] InvalidMessage),
    #[error("its content is not valid: {0}")]
    Store(#[from] InvalidStoreId),
}

/// Fills an empty cache from the file; without a usable file the cache stays empty.
pub(crate) fn restore(path: &Path, cache: &MeshCache) {
    match fs::read(path).map_err(SavedStateError::from).and_then(|bytes| decode(&bytes)) {
        Ok((snapshot, store, staleness)) => {
            tracing::info!(file = %path.display(), revision = %snapshot.revision, ?staleness, "starting with the cached state");
            cache.restore(snapshot, store, staleness);
        }
        Err(SavedStateError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(file = %path.display(), %error, "the cache file is not used"),
    }
}

impl SavedState {
    /// Writes the file until cancelled, and once more then.
    pub(crate) async fn run(self, token: CancellationToken) {
        let mut head = self.cache.history().head();
        let mut written: Option<Instant> = None;
        while !token.is_cancelled() {
            tokio::select! {
                () = token.cancelled() => {}
                _ = head.changed() => {}
                () = tokio::time::sleep(MAX_INTERVAL) => {}
            }
            let pause = written.map_or(Duration::ZERO, |at| MIN_INTERVAL.saturating_sub(at.elapsed()));
            tokio::select! {
                () = token.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
            head.mark_unchanged();
            if self.cache.freshness().is_known() {
                self.write().await;
                written = Some(Instant::now());
            }
        }
    }

    async fn write(&self) {
        let (store, snapshot) = self.cache.history().whole();
        let (path, staleness) = (self.path.clone(), self.cache.freshness().staleness());
        let writing = tokio::task::spawn_blocking(move || replace(&path, &encode(snapshot, store, staleness)));
        match writing.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(file = %self.path.display(), %error, "cannot write the cache file"),
            Err(error) => tracing::warn!(file = %self.path.display(), %error, "writing the cache file was cut off"),
        }
    }
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn encode(snapshot: Snapshot, store: Option<StoreId>, staleness: Duration) -> Vec<u8> {
    let store_id = store.map(|store| store.to_string()).unwrap_or_default();
    let records = snapshot.records.into_values().map(v1::Versioned::from).collect();
    let body = v1::SnapshotChunk { revision: snapshot.revision.0, records, last: true, store_id, ..Default::default() };
    let body = body.encode_to_vec();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&milliseconds(unix_time()).to_le_bytes());
    bytes.extend_from_slice(&milliseconds(staleness).to_le_bytes());
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&bytes);
    checksum.update(&body);
    bytes.extend_from_slice(&checksum.finalize().to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// The state and how stale it is now.
fn decode(bytes: &[u8]) -> Result<(Snapshot, Option<StoreId>, Duration), SavedStateError> {
    let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or(SavedStateError::Foreign)?;
    let u32_at = |offset: usize| header[offset..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let u64_at = |offset: usize| header[offset..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if !header.starts_with(MAGIC) {
        return Err(SavedStateError::Foreign);
    }
    if u32_at(4) != FORMAT {
        return Err(SavedStateError::Format { found: u32_at(4) });
    }
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&header[..HEADER_BYTES - 4]);
    checksum.update(body);
    if checksum.finalize() != u32_at(HEADER_BYTES - 4) {
        return Err(SavedStateError::Damaged);
    }
    let chunk = v1::SnapshotChunk::decode(body)?;
    let Position { store, revision } = Position::parse(&chunk.store_id, chunk.revision)?;
    let mut snapshot = Snapshot { revision, ..Snapshot::default() };
    for record in chunk.records {
        let versioned = Versioned::try_from(record)?;
        snapshot.records.insert(versioned.record.key(), versioned);
    }
    let since = unix_time().saturating_sub(Duration::from_millis(u64_at(8)));
    Ok((snapshot, store, Duration::from_millis(u64_at(16)).saturating_add(since)))
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_policy::{
        identity::ClusterId,
        name::Name,
        record::{Cluster, Record},
        revision::Revision,
    };

    fn store() -> StoreId {
        StoreId::new(7, [7; 10])
    }

    fn snapshot() -> Snapshot {
        let cluster = Cluster { name: Name::new("east").unwrap(), id: ClusterId::new(1).unwrap(), pod_cidrs: vec![] };
        let record = Versioned { revision: Revision(3), record: Record::Cluster(cluster) };
        Snapshot { revision: Revision(7), records: [(record.record.key(), record)].into() }
    }

    #[test]
    fn what_was_written_is_read_and_any_flipped_bit_is_noticed() {
        let bytes = encode(snapshot(), Some(store()), Duration::from_secs(5));
        let (read, of, staleness) = decode(&bytes).unwrap();
        assert_eq!((read, of), (snapshot(), Some(store())));
        assert!(staleness >= Duration::from_secs(5));
        for index in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[index] ^= 4;
            assert!(decode(&damaged).is_err(), "byte {index}");
        }
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_damaged_file_leaves_the_cache_empty_and_a_whole_one_fills_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.cache");
        let cache = MeshCache::new(10);
        fs::write(&path, b"rubbish").unwrap();
        restore(&path, &cache);
        assert!(!cache.freshness().is_known());
        replace(&path, &encode(snapshot(), Some(store()), Duration::ZERO)).unwrap();
        restore(&path, &cache);
        assert!(cache.freshness().is_known());
        assert_eq!(cache.position(), Position { store: Some(store()), revision: Revision(7) });
    }
}
