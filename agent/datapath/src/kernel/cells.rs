//! `ACTIVE` and `EPOCH`, shared with the programs through memory.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
    thread,
    time::{Duration, Instant},
};

use aya::maps::MapData;
use ringfence_ebpf_common::EpochCell;

use super::system;
use crate::flip::StillBusy;

/// How long one CPU may be busy with a packet before the kernel is asked to wait instead.
const PATIENCE: Duration = Duration::from_secs(1);

/// The two maps as memory.
pub(super) struct Cells {
    active: Mapping,
    epoch: Mapping,
    cpus: usize,
}

/// A map of 64-bit words as memory.
pub(super) struct Words {
    memory: Mapping,
    count: usize,
}

/// Memory of a map; unmapped when dropped.
pub(super) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory belongs to no thread, and all access to it is atomic.
unsafe impl Send for Mapping {}

impl Cells {
    /// Maps both. `cpus` cells are waited for.
    pub(super) fn new(active: &MapData, epoch: &MapData, cpus: usize) -> Result<Self, (&'static str, io::Error)> {
        use ringfence_ebpf_common::map::{ACTIVE, EPOCH};
        let map = |name, data: &MapData, bytes| Mapping::new(data.fd().as_fd(), bytes).map_err(|source| (name, source));
        Ok(Self {
            active: map(ACTIVE, active, size_of::<u32>())?,
            epoch: map(EPOCH, epoch, cpus * size_of::<EpochCell>())?,
            cpus,
        })
    }

    pub(super) fn generation(&self) -> u32 {
        self.active().load(Ordering::SeqCst)
    }

    pub(super) fn activate(&self, generation: u32) {
        self.active().store(generation, Ordering::SeqCst);
    }

    /// Returns once every CPU was seen without a packet, or the kernel has waited for all of them.
    pub(super) fn wait(&self) -> Result<Duration, StillBusy> {
        let started = Instant::now();
        // The programs mark their cell with a full barrier before they read ACTIVE; this is the other half.
        fence(Ordering::SeqCst);
        for cpu in 0..self.cpus {
            let mut polls = 0_u32;
            while self.busy(cpu).load(Ordering::SeqCst) != 0 {
                if started.elapsed() > PATIENCE {
                    return match system::wait_for_readers() {
                        Ok(()) => Ok(started.elapsed()),
                        Err(_) => Err(StillBusy { waited: started.elapsed() }),
                    };
                }
                polls += 1;
                if polls.is_multiple_of(64) { thread::yield_now() } else { std::hint::spin_loop() }
            }
        }
        Ok(started.elapsed())
    }

    fn active(&self) -> &AtomicU32 {
        // SAFETY: the mapping begins at a page and has at least four bytes; the programs only read them.
        unsafe { AtomicU32::from_ptr(self.active.start.as_ptr().cast()) }
    }

    fn busy(&self, cpu: usize) -> &AtomicU64 {
        assert!(cpu < self.cpus, "only cells that are mapped are asked for");
        // SAFETY: the mapping has `cpus` cells from the start of a page; `busy` is the first word of a cell, and the
        // programs write it with an atomic instruction.
        unsafe { AtomicU64::from_ptr(self.epoch.start.cast::<EpochCell>().add(cpu).as_ptr().cast()) }
    }
}

impl Words {
    pub(super) fn new(map: &MapData, count: usize) -> io::Result<Self> {
        Ok(Self { memory: Mapping::new(map.fd().as_fd(), count * size_of::<u64>())?, count })
    }

    pub(super) fn get(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::SeqCst)
    }

    pub(super) fn set(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::SeqCst);
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.count, "only words that are mapped are asked for");
        // SAFETY: the mapping has `count` words from the start of a page, and the programs write them whole.
        unsafe { AtomicU64::from_ptr(self.memory.start.cast::<u64>().add(index).as_ptr()) }
    }
}

impl Mapping {
    pub(super) fn new(map: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address the kernel chooses; it takes nothing away from anybody.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, map.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address 0 unless asked to");
        Ok(Self { start, bytes })
    }

    /// A page's first byte.
    pub(super) const fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
