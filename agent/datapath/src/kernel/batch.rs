//! Many entries of a map with one system call.

use std::{
    io,
    ops::ControlFlow,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::{
    raw::{Layout, from_bytes},
    system::bpf,
};

/// linux/bpf.h, enum bpf_cmd
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

/// Entries that are asked for at once; more if one bucket of the hash table has more.
const AT_ONCE: usize = 4096;

/// `union bpf_attr` of the batch commands.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Inserts or changes entries in order. On an error, how many were written.
pub(super) fn update<K: Layout, V: Layout>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> Result<(), (usize, io::Error)> {
    assert_eq!(keys.len(), values.len(), "each key has a value");
    let mut done = 0;
    while done < keys.len() {
        let (keys, values) = (&keys[done..], &values[done..]);
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let mut batch = Batch {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count,
            map: u32::try_from(map.as_raw_fd()).map_err(|error| (done, io::Error::other(error)))?,
            element_flags: 0,
            flags: 0,
        };
        let answer = bpf(BPF_MAP_UPDATE_BATCH, &mut batch);
        // The kernel writes how far it came, unless it has not begun.
        let written = if batch.count == count && answer.is_err() { 0 } else { batch.count as usize };
        done += written;
        match answer {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((done, error)),
        }
    }
    Ok(())
}

/// Hands over the entries of a hash map, bucket by bucket: what is changed meanwhile is seen as it was or as it is, and
/// the reading ends, however much is changed.
pub(super) fn read<K: Layout, V: Layout>(
    map: BorrowedFd<'_>,
    mut take: impl FnMut(K, V) -> ControlFlow<()>,
) -> io::Result<()> {
    let (mut place, mut broken) = (None, false);
    loop {
        place = read_some(map, place, AT_ONCE, |key, value| broken = broken || take(key, value).is_break())?;
        if broken || place.is_none() {
            return Ok(());
        }
    }
}

/// Hands over the entries of some buckets, those from a place on, about `at_once`; answers where the next ones begin, none at the
/// end. More are handed over where one bucket has more.
pub(super) fn read_some<K: Layout, V: Layout>(
    map: BorrowedFd<'_>,
    place: Option<u32>,
    at_once: usize,
    mut take: impl FnMut(K, V),
) -> io::Result<Option<u32>> {
    let map = u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?;
    // The kernel's place in a hash map: the number of a bucket.
    let (mut next, mut size): (u32, usize) = (0, at_once);
    loop {
        let (mut keys, mut values) = (vec![0_u8; size * size_of::<K>()], vec![0_u8; size * size_of::<V>()]);
        let mut batch = Batch {
            in_batch: place.as_ref().map_or(0, |place| std::ptr::from_ref(place) as u64),
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(size).map_err(io::Error::other)?,
            map,
            element_flags: 0,
            flags: 0,
        };
        let last = match bpf(BPF_MAP_LOOKUP_BATCH, &mut batch) {
            Ok(_) => false,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => true,
                Some(libc::ENOSPC) => {
                    size *= 2;
                    continue;
                }
                Some(libc::EINTR) => continue,
                _ => return Err(error),
            },
        };
        let entries = keys.chunks_exact(size_of::<K>()).zip(values.chunks_exact(size_of::<V>()));
        for (key, value) in entries.take(batch.count as usize) {
            if let Some((key, value)) = from_bytes::<K>(key).zip(from_bytes::<V>(value)) {
                take(key, value);
            }
        }
        return Ok((!last).then_some(next));
    }
}
