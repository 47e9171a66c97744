//! Many entries of a map with one system call.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::{raw::Layout, system::bpf};

/// linux/bpf.h, enum bpf_cmd
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

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
