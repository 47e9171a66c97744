//! Whose turn it is to write: the log's own thread, or the one who appended.
//!
//! ```text
//! send ─────────► waiting ─► handed over ─► thread:  takes all, one write, one sync; again, until nothing waits
//! send_calmly ─┬► waiting ─► handed over ─┘
//!              └► waiting ─► write_here:   the same for one small request, where it was asked for
//! ```
//!
//! A wake-up of the thread, and another one back, cost as much time as a quick disk takes to sync. So while the log is
//! calm (one small request waits and nothing else, the last syncs were quick, the segment has room) the one who appended
//! writes and syncs itself. Otherwise the thread does: work and disk overlap, a slow disk keeps nobody but the thread,
//! and new segments are made there. One sync that turns out slow is waited for; the next one is the thread's.
//!
//! **One owner, one order.** Requests are put into `waiting` in the order in which they are asked for, under one lock.
//! They are taken out only by who holds the `Writer`, from the front, and are written before it is let go. So the order
//! on disk is that of the queue, whoever writes, and no two of them write at the same time.
//!
//! **Nothing is left lying.** Whatever is not written by the one who sent it is handed over: `is_handed_over` is set in
//! the lock of the queue and taken back in it only by the thread that sees nothing waiting. A request that waits without
//! being handed over came by `send_calmly`, which said so to its caller, who owes a `write_here`.
//!
//! **Damage is found.** Requests behind the last one of a batch that somebody waits for are written after its sync: their
//! records say what is on stable storage, so that damage of it can later not pass for a torn tail.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    WalFailed,
    writer::{Request, Writer},
};

/// A batch is closed when it has this many bytes, so that the first one in it does not wait for ever.
const BATCH_BYTES: usize = 4 << 20;
/// More than this is the work of many, who have other things to do while the disk syncs.
const CALM_BYTES: usize = 4 << 10;

/// Requests, and who may write them.
pub(super) struct Turns {
    queue: Mutex<Queue>,
    work: Condvar,
    /// None once the log is closed.
    writer: Mutex<Option<Writer>>,
    /// Whether the last syncs were quick: as of the last batch.
    is_quick: AtomicBool,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Request>,
    is_handed_over: bool,
    /// The thread sleeps: only then it needs to be woken.
    is_thread_idle: bool,
    is_closed: bool,
}

impl Queue {
    /// One small request that somebody waits for, at the front, and nothing of that kind behind it.
    fn is_calm(&self) -> bool {
        let durable = self.waiting.iter().filter(|request| request.durable).count();
        let is_small = || self.waiting.iter().map(Request::bytes).sum::<usize>() <= CALM_BYTES;
        !self.is_handed_over && durable == 1 && self.waiting[0].durable && is_small()
    }

    /// What is written next: up to the last request that somebody waits for, or all where nobody does.
    fn take(&mut self) -> Vec<Request> {
        let (mut bytes, mut count, mut upto) = (0, 0, 0);
        for request in &self.waiting {
            if bytes >= BATCH_BYTES {
                break;
            }
            bytes += request.bytes();
            count += 1;
            if request.durable {
                upto = count;
            }
        }
        self.waiting.drain(..if upto == 0 { count } else { upto }).collect()
    }
}

impl Turns {
    pub(super) fn new(writer: Writer) -> Arc<Self> {
        let (queue, work, writer) = (Mutex::default(), Condvar::new(), Mutex::new(Some(writer)));
        Arc::new(Self { queue, work, writer, is_quick: AtomicBool::new(false) })
    }

    /// Requests for the thread.
    pub(super) fn send(&self, request: Request) {
        let mut queue = self.queue();
        if queue.is_closed {
            drop(queue);
            return refuse([request]);
        }
        queue.waiting.push_back(request);
        self.hand_over(queue);
    }

    /// Requests of which somebody waits for the first. True if nobody writes them before `write_here` is called.
    pub(super) fn send_calmly(&self, requests: impl IntoIterator<Item = Request>) -> bool {
        let mut queue = self.queue();
        if queue.is_closed {
            drop(queue);
            refuse(requests);
            return false;
        }
        queue.waiting.extend(requests);
        let is_calm = self.is_quick.load(Ordering::Relaxed) && queue.is_calm();
        if !is_calm {
            self.hand_over(queue);
        }
        is_calm
    }

    /// Writes what waits if the log is still calm, and hands it over otherwise.
    pub(super) fn write_here(&self) {
        let mut writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => return self.hand_over(self.queue()),
        };
        let mut queue = self.queue();
        let bytes = queue.waiting.iter().map(Request::bytes).sum();
        match writer.as_mut().filter(|writer| queue.is_calm() && writer.has_room_for(bytes)) {
            Some(writer) => {
                let batch = queue.take();
                drop(queue);
                self.serve(writer, batch);
                queue = self.queue();
                if !queue.waiting.iter().any(|request| request.durable) {
                    let behind = queue.take();
                    drop(queue);
                    self.serve(writer, behind);
                    queue = self.queue();
                }
                self.hand_over(queue);
            }
            None => self.hand_over(queue),
        }
    }

    /// The thread's work, until the log is closed.
    pub(super) fn run(&self) {
        loop {
            let mut queue = self.queue();
            while !queue.is_handed_over && !queue.is_closed {
                queue.is_thread_idle = true;
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            queue.is_thread_idle = false;
            drop(queue);
            // Somebody panicked while he wrote: nobody can tell how far he came.
            let mut writer = self.writer.lock().unwrap_or_else(|poisoned| {
                let mut writer = poisoned.into_inner();
                *writer = None;
                writer
            });
            if self.drain(&mut writer) {
                *writer = None;
                return;
            }
        }
    }

    /// Nobody can send any more; the thread writes what waits, closes its file, and ends.
    pub(super) fn close(&self, last: Request) {
        let mut queue = self.queue();
        if !queue.is_closed {
            queue.waiting.push_back(last);
            queue.is_closed = true;
            self.hand_over(queue);
        }
    }

    /// Writes until nothing waits; whether the log is closed then.
    fn drain(&self, writer: &mut Option<Writer>) -> bool {
        loop {
            let mut queue = self.queue();
            if queue.waiting.is_empty() {
                queue.is_handed_over = false;
                return queue.is_closed;
            }
            let batch = queue.take();
            drop(queue);
            match writer {
                Some(writer) => self.serve(writer, batch),
                None => refuse(batch),
            }
        }
    }

    fn serve(&self, writer: &mut Writer, batch: Vec<Request>) {
        if !batch.is_empty() {
            writer.serve(batch);
            self.is_quick.store(writer.pace().is_quick(), Ordering::Relaxed);
        }
    }

    /// Wakes the thread if something waits that it does not know of.
    fn hand_over(&self, mut queue: MutexGuard<'_, Queue>) {
        if queue.waiting.is_empty() && !queue.is_closed {
            return;
        }
        queue.is_handed_over = true;
        let is_idle = std::mem::take(&mut queue.is_thread_idle);
        drop(queue);
        if is_idle {
            self.work.notify_one();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Whole after every statement.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refuse(requests: impl IntoIterator<Item = Request>) {
    requests.into_iter().for_each(|request| request.done.call(&Err(WalFailed::new("it is closed"))));
}

#[cfg(test)]
mod tests;
