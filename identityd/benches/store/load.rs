//! Closed loops: every client has one request under way.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{
    latency::Latencies,
    processes::{Meter, Processes, Spent},
};

const WARM_UP: Duration = Duration::from_millis(500);

/// What one measurement gave.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) latencies: Latencies,
    pub(crate) spent: Spent,
}

impl Measured {
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.spent.seconds
    }

    /// Microseconds of server CPU for one operation.
    pub(crate) fn server_us(&self) -> f64 {
        self.spent.servers * 1e6 / self.latencies.len() as f64
    }

    /// Microseconds of the generator's CPU for one operation.
    pub(crate) fn generator_us(&self) -> f64 {
        self.spent.generator * 1e6 / self.latencies.len() as f64
    }
}

/// Lets `clients` clients do `operation(client, count)` in closed loops; what ends within `time` counts.
pub(crate) async fn closed_loop<F: Future<Output = ()> + 'static>(
    servers: &Processes,
    clients: usize,
    time: Duration,
    operation: impl Fn(usize, u64) -> F + 'static,
) -> Measured {
    let (operation, latencies) = (Rc::new(operation), Rc::new(RefCell::new(Latencies::default())));
    let (counting, stopping) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let mut tasks = Vec::new();
    for client in 0..clients {
        let (operation, latencies) = (operation.clone(), latencies.clone());
        let (counting, stopping) = (counting.clone(), stopping.clone());
        tasks.push(tokio::task::spawn_local(async move {
            let mut count = 0;
            while !stopping.get() {
                let started = Instant::now();
                operation(client, count).await;
                count += 1;
                if counting.get() {
                    latencies.borrow_mut().push(started.elapsed());
                }
            }
        }));
    }
    tokio::time::sleep(WARM_UP).await;
    let meter = Meter::start(servers);
    counting.set(true);
    tokio::time::sleep(time).await;
    counting.set(false);
    let spent = meter.read(servers);
    stopping.set(true);
    for task in tasks {
        task.await.unwrap();
    }
    let latencies = latencies.take();
    Measured { latencies, spent }
}

/// A small, fast generator of numbers (xorshift64*); the keys need no better one.
pub(crate) struct Numbers(Cell<u64>);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Cell::new(seed | 1))
    }

    pub(crate) fn next(&self) -> u64 {
        let mut x = self.0.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
