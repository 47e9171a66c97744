//! What events cost traffic: connections that begin and packets that are refused are told and taken, or not told at all.
//!
//! ```text
//! netns a: somebody who is never quiet ── 10,000 new flows/s, 10,000 refused datagrams/s ──► programs ─ ring ─► reader
//!          what is measured (streams, exchanges, connections) ────────────────────────────►
//! ```
//!
//! The unrest is the same in both variants; only whether events are written and taken differs. Without them each CPU's token
//! bucket is empty for good, so a program still asks it.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::{
    maps::{Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use ringfence_datapath::{Datapath, KernelDatapath, Tally};

use crate::{
    SERVER,
    figures::{Figure, Target, cpu_ms, median},
    named, role, run,
};

/// Nobody knows it, so it is refused.
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);
/// Datagrams of each kind in a millisecond.
const AT_ONCE: u32 = 10;
const SOCKETS: usize = 16;
/// As the agent does.
const DRAIN: Duration = Duration::from_millis(10);
const WORKLOADS: [&str; 4] = ["64 kB packets", "wire-sized packets", "exchanges", "new connections"];
/// Of no events.
const LEAST: f64 = 0.98;

/// What a reader took.
#[derive(Default)]
struct Taken {
    events: u64,
    cpu_ms: f64,
    seconds: f64,
}

/// Ratios of traffic with events to traffic without, taken in turns; both endpoints are attached.
pub(crate) fn measure(rounds: usize, datapath: &mut KernelDatapath, directory: &Path) -> Vec<Figure> {
    let mut buckets = Buckets::open(directory);
    let mut unrest = role("a", "unrest");
    let mut ratios = [const { Vec::new() }; WORKLOADS.len()];
    let (mut without, mut taken) = ([const { Vec::new() }; WORKLOADS.len()], Taken::default());
    let lost = |datapath: &KernelDatapath| {
        let tallies = datapath.counters().unwrap().1;
        (tallies.get(Tally::EventsWritten), tallies.get(Tally::EventsLost))
    };
    for round in 0..rounds {
        for (workload, ratios) in ratios.iter_mut().enumerate() {
            // Who comes first changes.
            let mut figures = [0.0; 2];
            for told in [round % 2 == 0, round % 2 != 0] {
                buckets.set(told);
                datapath.events(&mut |_| ()).unwrap();
                let before = lost(datapath);
                figures[usize::from(told)] =
                    if told { read_meanwhile(datapath, workload, &mut taken) } else { run(workload) };
                let after = lost(datapath);
                assert!(told || after.0 - before.0 < 100, "events were written all the same: {}", after.0 - before.0);
                assert_eq!(after.1, before.1, "the reader is too slow");
            }
            ratios.push(figures[1] / figures[0]);
            without[workload].push(figures[0]);
        }
    }
    buckets.set(true);
    unrest.kill().unwrap();
    unrest.wait().unwrap();
    assert!(taken.events > 1000, "there was nothing to tell: {}", taken.events);
    let name = |text: &str, workload: usize| named(format!("{}, {text}", WORKLOADS[workload]));
    let mut rows = Vec::new();
    for (workload, ratios) in ratios.iter_mut().enumerate() {
        let unit = if workload < 2 { "Gbit/s" } else { "1/s" };
        rows.push(Figure::new(name("no events, unrest", workload), median(&mut without[workload]), unit, None));
        let least = Some(Target::AtLeast(LEAST));
        rows.push(Figure::new(name("events told and taken / none", workload), median(ratios), "", least));
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let events = taken.events as f64;
    rows.push(Figure::new("events taken meanwhile", events / taken.seconds, "1/s", None));
    let share = taken.cpu_ms / 10.0 / taken.seconds;
    rows.push(Figure::new("CPU of whoever takes them", share, "% of one", None));
    rows
}

/// Runs a workload while events are taken.
fn read_meanwhile(datapath: &mut KernelDatapath, workload: usize, taken: &mut Taken) -> f64 {
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (started, before) = (Instant::now(), cpu_ms());
            let mut events = 0;
            while !end.load(Ordering::Relaxed) {
                datapath.events(&mut |_| events += 1).unwrap();
                thread::sleep(DRAIN);
            }
            Taken { events, cpu_ms: cpu_ms() - before, seconds: started.elapsed().as_secs_f64() }
        });
        let figure = run(workload);
        end.store(true, Ordering::Relaxed);
        let read = reader.join().unwrap();
        taken.events += read.events;
        taken.cpu_ms += read.cpu_ms;
        taken.seconds += read.seconds;
        figure
    })
}

/// Datagrams that begin connections, and some that are refused, at an even pace until killed.
pub(crate) fn unrest() {
    let sockets: Vec<UdpSocket> = (0..SOCKETS).map(|_| UdpSocket::bind("0.0.0.0:0").unwrap()).collect();
    let (mut number, started, mut due) = (0_u32, Instant::now(), Duration::ZERO);
    loop {
        for _ in 0..AT_ONCE {
            let socket = &sockets[number as usize % SOCKETS];
            let port = u16::try_from(1024 + number / 16 % 60_000).unwrap();
            // What finds no room is not sent, and no event either.
            let _ = socket.send_to(b"?", (SERVER, port));
            let _ = socket.send_to(b"?", (NOBODY, port));
            number = number.wrapping_add(1);
        }
        due += Duration::from_millis(1);
        thread::sleep(due.saturating_sub(started.elapsed()));
    }
}

/// What each CPU may still tell.
struct Buckets(PerCpuArray<MapData, [u64; 2]>);

impl Buckets {
    fn open(directory: &Path) -> Self {
        let layout = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
        let map = Map::PerCpuArray(MapData::from_pin(layout.unwrap().join("BUCKETS")).unwrap());
        Self(PerCpuArray::try_from(map).unwrap())
    }

    /// `Bucket`: nothing is saved, and it was filled long ago, or will be at the end of time.
    fn set(&mut self, told: bool) {
        let filled_ns = if told { 0 } else { u64::MAX };
        let all = vec![[0, filled_ns]; nr_cpus().unwrap()];
        self.0.set(0, PerCpuValues::try_from(all).unwrap(), 0).unwrap();
    }
}
