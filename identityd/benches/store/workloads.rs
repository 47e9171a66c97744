//! The workloads, each for etcd and for us in turns.

use std::{cell::RefCell, future::Future, path::PathBuf, pin::Pin, rc::Rc, time::Duration};

use crate::{
    certificates,
    etcd::Etcd,
    fanout::{self, Seen, Stream},
    latency::Latencies,
    load::{Measured, Numbers, closed_loop},
    options::{Options, Peer},
    ours::{Ours, labels},
    processes::{Meter, Processes},
    rows::{Rows, Target, median},
    sync,
};

/// Keys of the put workload.
const KEYS: u64 = 100_000;
/// Connections that many clients share, spread over the members.
const CONNECTIONS: usize = 16;
/// Clients that write for the followers.
const PUTTERS: usize = 32;

/// Both systems, and what is measured on them.
pub(crate) struct Bench<'a> {
    pub(crate) options: &'a Options,
    pub(crate) ours: Rc<Ours>,
    pub(crate) etcd: Option<Rc<Etcd>>,
    numbers: Rc<Numbers>,
    pub(crate) rows: Rows,
}

pub(crate) async fn run(options: &Options) -> Rows {
    let directory = tempfile::Builder::new().prefix("bench-store-").tempdir_in(data_root()).unwrap();
    let tls = certificates::write(directory.path());
    let mut rows = Rows::default();
    if let Some(peer) = options.peer {
        let tls = match peer {
            Peer::Etcd => "mutual TLS for clients and between members, as ours",
            Peer::EtcdPlain => "without TLS; ours with",
        };
        rows.line(format!("peer: {}, 3 members, {tls}", Etcd::version()));
    }
    for part in [Part::Writes, Part::Fanout, Part::Sync] {
        let directory = directory.path().join(format!("{part:?}"));
        std::fs::create_dir(&directory).unwrap();
        if !part.workloads().iter().any(|name| options.wants(name)) {
            continue;
        }
        let etcd = match options.peer {
            Some(Peer::Etcd) => Some(Rc::new(Etcd::start(&directory, Some(&tls)).await)),
            Some(Peer::EtcdPlain) => Some(Rc::new(Etcd::start(&directory, None).await)),
            None => None,
        };
        let ours = Rc::new(Ours::start(&directory, &tls).await);
        let numbers = Rc::new(Numbers::new(0x5eed));
        let mut bench = Bench { options, ours, etcd, numbers, rows };
        match part {
            Part::Writes => bench.writes().await,
            Part::Fanout => bench.fanouts().await,
            Part::Sync => sync::run(&mut bench).await,
        }
        rows = bench.rows;
    }
    rows
}

/// Workloads that share servers; each part begins with new ones.
#[derive(Debug, Clone, Copy)]
enum Part {
    Writes,
    Fanout,
    Sync,
}

impl Part {
    const fn workloads(self) -> &'static [&'static str] {
        match self {
            Self::Writes => &["put-1", "put-64", "put-256", "identity-1", "identity-16", "seen-1", "seen-16"],
            Self::Fanout => &["fanout-100x200", "fanout-1000x50", "fanout-1000x200"],
            Self::Sync => &["sync"],
        }
    }
}

/// Where the servers' data lies: the build's directory is on a real disk, /tmp may not be.
fn data_root() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

impl Bench<'_> {
    async fn writes(&mut self) {
        for clients in [1, 64, 256] {
            let name = format!("put-{clients}");
            if self.options.wants(&name) {
                let (etcd, ours) = self.in_turns(&name, |bench, is_ours| Box::pin(bench.puts(is_ours, clients))).await;
                self.report_puts(&name, clients, &etcd, &ours);
            }
        }
        for agents in [1, 16] {
            let name = format!("identity-{agents}");
            if self.options.wants(&name) {
                let (etcd, ours) =
                    self.in_turns(&name, |bench, is_ours| Box::pin(bench.identities(is_ours, agents))).await;
                self.report_identities(&name, agents, &etcd, &ours).await;
            }
        }
    }

    /// Measures etcd and us in turns.
    async fn in_turns<'a>(
        &'a self,
        name: &str,
        measure: impl Fn(&'a Self, bool) -> Pin<Box<dyn Future<Output = (Measured, Latencies)> + 'a>>,
    ) -> (Vec<(Measured, Latencies)>, Vec<(Measured, Latencies)>) {
        let (mut etcd, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..self.options.rounds {
            for is_ours in [false, true] {
                if !is_ours && self.etcd.is_none() {
                    continue;
                }
                let mut measured = measure(self, is_ours).await;
                let (m, seen) = (&mut measured.0, &mut measured.1);
                println!(
                    "{name:16} {:5}: {:8.0}/s  p50 {:7.3} p99 {:7.3} ms  server {:6.1} µs/op  generator {:5.1} µs/op  foreign {:.2} cores{}",
                    if is_ours { "ours" } else { "etcd" },
                    m.rate(),
                    m.latencies.quantile_ms(0.5),
                    m.latencies.quantile_ms(0.99),
                    m.server_us(),
                    m.generator_us(),
                    m.spent.foreign_cores,
                    if seen.len() == 0 {
                        String::new()
                    } else {
                        format!(
                            "  seen p50 {:.3} p99 {:.3} ms ({})",
                            seen.quantile_ms(0.5),
                            seen.quantile_ms(0.99),
                            seen.len()
                        )
                    },
                );
                if is_ours { &mut ours } else { &mut etcd }.push(measured);
            }
        }
        (etcd, ours)
    }

    pub(crate) fn servers(&self, is_ours: bool) -> &Processes {
        match &self.etcd {
            Some(etcd) if !is_ours => &etcd.processes,
            _ => &self.ours.processes,
        }
    }

    async fn puts(&self, is_ours: bool, clients: usize) -> (Measured, Latencies) {
        let numbers = self.numbers.clone();
        let connections = if clients == 1 { 1 } else { CONNECTIONS };
        let member = |leader: usize, connection: usize| leader + connection;
        let measured = if is_ours {
            let leader = self.ours.leader;
            let clients_of: Vec<_> = (0..connections).map(|n| self.ours.connect(member(leader, n))).collect();
            let clock = Rc::new(fanout::Clock::new());
            closed_loop(self.servers(true), clients, self.options.time, move |client, _| {
                let (connection, key) = (clients_of[client % connections].clone(), numbers.next() % KEYS);
                let mark = random_mark(&clock, &numbers);
                async move { connection.put(key, mark).await }
            })
            .await
        } else {
            let etcd = self.etcd.clone().expect("etcd is measured only where it runs");
            let clients_of: Vec<_> = (0..connections).map(|n| etcd.connect(member(etcd.leader, n))).collect();
            closed_loop(self.servers(false), clients, self.options.time, move |client, _| {
                let connection = clients_of[client % connections].clone();
                let key = format!("bench/k{:08}", numbers.next() % KEYS).into_bytes();
                let value: Vec<u8> = (0..32).flat_map(|_| numbers.next().to_le_bytes()).collect();
                async move { connection.put(key, value).await }
            })
            .await
        };
        (measured, Latencies::default())
    }

    fn report_puts(
        &mut self,
        name: &str,
        clients: usize,
        etcd: &[(Measured, Latencies)],
        ours: &[(Measured, Latencies)],
    ) {
        if clients == 1 {
            self.compare(
                name,
                "ms, p50",
                |m| m.latencies.clone().quantile_ms(0.5),
                etcd,
                ours,
                Some(Target::AtMost(0.5)),
            );
            self.compare(
                name,
                "ms, p99",
                |m| m.latencies.clone().quantile_ms(0.99),
                etcd,
                ours,
                Some(Target::AtMost(0.6)),
            );
            self.compare(name, "µs server CPU", Measured::server_us, etcd, ours, None);
        } else {
            self.compare(name, "µs server CPU", Measured::server_us, etcd, ours, Some(Target::AtMost(0.25)));
            self.compare(name, "puts/s", Measured::rate, etcd, ours, Some(Target::AtLeast(4.0)));
            self.compare(name, "ms, p50", |m| m.latencies.clone().quantile_ms(0.5), etcd, ours, None);
            self.compare(name, "ms, p99", |m| m.latencies.clone().quantile_ms(0.99), etcd, ours, None);
        }
        self.compare(name, "µs generator CPU", Measured::generator_us, etcd, ours, None);
    }

    fn compare(
        &mut self,
        name: &str,
        unit: &str,
        figure: impl Fn(&Measured) -> f64,
        etcd: &[(Measured, Latencies)],
        ours: &[(Measured, Latencies)],
        target: Option<Target>,
    ) {
        let of = |all: &[(Measured, Latencies)]| median(all.iter().map(|(measured, _)| figure(measured)).collect());
        let peer = (!etcd.is_empty()).then(|| of(etcd));
        self.rows.compare(name, unit, of(ours), peer, target);
    }

    /// New label sets, with one follower (of another member than the leader) that sees them.
    async fn identities(&self, is_ours: bool, agents: usize) -> (Measured, Latencies) {
        let run = self.numbers.next() % 0xffff_ffff;
        let seen = Seen::new();
        seen.counting.set(true);
        let measured = if is_ours {
            let stream = self.follow_ours(self.ours.leader + 1).await;
            let reader = tokio::task::spawn_local(seen.clone().read(stream));
            let clients: Vec<_> = (0..agents).map(|n| self.ours.connect(self.ours.leader + n)).collect();
            let clock = seen.clone();
            let measured = closed_loop(self.servers(true), agents, self.options.time, move |agent, count| {
                let client = clients[agent].clone();
                // The mark's colons are not allowed nowhere: a label's value is free text.
                let app = format!("{run:08x}-{agent}-{count}-{}", clock.clock.mark());
                async move { client.allocate(agent as u32, &app).await }
            });
            let measured = measured.await;
            reader.abort();
            measured
        } else {
            let etcd = self.etcd.clone().expect("etcd is measured only where it runs");
            let stream = etcd.connect(etcd.leader + 1).watch_raw(b"id/").await;
            let reader = tokio::task::spawn_local(seen.clone().read(stream));
            let clients: Vec<_> = (0..agents).map(|n| etcd.connect(etcd.leader + n)).collect();
            let clock = seen.clone();
            let measured = closed_loop(self.servers(false), agents, self.options.time, move |agent, count| {
                let client = clients[agent].clone();
                let app = format!("{run:08x}-{agent}-{count}-{}", clock.clock.mark());
                let labels = labels(&app, "payments").join(";");
                let number = run << 24 | (agent as u64) << 20 | count;
                async move { client.allocate(&labels, number, agent).await }
            });
            let measured = measured.await;
            reader.abort();
            measured
        };
        let latencies = seen.latencies.take();
        (measured, latencies)
    }

    async fn report_identities(
        &mut self,
        name: &str,
        agents: usize,
        etcd: &[(Measured, Latencies)],
        ours: &[(Measured, Latencies)],
    ) {
        let p50 = |m: &Measured| m.latencies.clone().quantile_ms(0.5);
        if agents == 1 {
            self.compare(name, "ms, p50, against the allocator's 7 calls", p50, etcd, ours, Some(Target::AtMost(0.12)));
            if self.etcd.is_some() {
                // The same moment's put, for "as fast as one put of etcd".
                let put = vec![self.puts(false, 1).await];
                self.compare(name, "ms, p50, against one put", p50, &put, ours, Some(Target::AtMost(1.0)));
            }
        } else {
            self.compare(
                name,
                "identities/s, against its 7 calls",
                Measured::rate,
                etcd,
                ours,
                Some(Target::AtLeast(30.0)),
            );
        }
        self.compare(name, "µs server CPU", Measured::server_us, etcd, ours, None);
        let target = Some(Target::AtMost(if agents == 1 { 0.25 } else { 0.1 }));
        for (part, unit) in [(0.5, "ms until a follower sees it, p50"), (0.99, "ms until a follower sees it, p99")] {
            let of = |all: &[(Measured, Latencies)]| {
                median(all.iter().map(|(_, seen)| seen.clone().quantile_ms(part)).collect())
            };
            self.rows.compare(name, unit, of(ours), (!etcd.is_empty()).then(|| of(etcd)), target);
        }
    }

    /// Our store's stream from its head on.
    async fn follow_ours(&self, member: usize) -> Stream {
        let client = self.ours.connect(member);
        let mut mesh = ringfence_proto::v1::mesh_client::MeshClient::new(client.0);
        let status = mesh.status(ringfence_proto::v1::StatusRequest {}).await.unwrap().into_inner();
        self.ours.follow(member, status.revision).await
    }

    async fn fanouts(&mut self) {
        for (followers, rate) in [(100, 200), (1000, 50), (1000, 200)] {
            let name = format!("fanout-{followers}x{rate}");
            if self.options.wants(&name) {
                let (etcd, ours) =
                    self.in_turns(&name, |bench, is_ours| Box::pin(bench.fanout(is_ours, followers, rate))).await;
                self.report_fanout(&name, followers, rate, &etcd, &ours);
            }
        }
    }

    /// The latencies are those of the puts; what the followers saw comes second.
    async fn fanout(&self, is_ours: bool, followers: usize, rate: u32) -> (Measured, Latencies) {
        let seen = Seen::new();
        let mut readers = Vec::new();
        for n in 0..followers {
            let stream = match &self.etcd {
                Some(etcd) if !is_ours => etcd.connect(n).watch_raw(b"bench/").await,
                _ => self.follow_ours(n).await,
            };
            readers.push(tokio::task::spawn_local(seen.clone().read(stream)));
        }
        // One client's connection to each member in turn would hide a slow one: the leader takes all.
        let putter = self.putter(is_ours);
        let put_latencies = Rc::new(RefCell::new(Latencies::default()));
        let pace = tokio::task::spawn_local(pace(putter, rate, seen.clone(), put_latencies.clone()));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let meter = Meter::start(self.servers(is_ours));
        seen.counting.set(true);
        tokio::time::sleep(self.options.time).await;
        seen.counting.set(false);
        let spent = meter.read(self.servers(is_ours));
        pace.abort();
        assert_eq!(seen.broken.get(), 0, "streams that broke");
        readers.iter().for_each(tokio::task::JoinHandle::abort);
        let latencies = put_latencies.take();
        (Measured { latencies, spent }, seen.latencies.take())
    }

    fn putter(&self, is_ours: bool) -> Putter {
        let numbers = self.numbers.clone();
        match self.etcd.clone() {
            Some(etcd) if !is_ours => {
                let client = etcd.connect(etcd.leader);
                Box::new(move |mark| {
                    let (client, key) = (client.clone(), format!("bench/k{:08}", numbers.next() % KEYS).into_bytes());
                    let mut value = mark.into_bytes();
                    value.resize(256, b'x');
                    Box::pin(async move { client.put(key, value).await })
                })
            }
            _ => {
                let client = self.ours.connect(self.ours.leader);
                Box::new(move |mark| {
                    let (client, key) = (client.clone(), numbers.next() % KEYS);
                    Box::pin(async move { client.put(key, mark).await })
                })
            }
        }
    }

    fn report_fanout(
        &mut self,
        name: &str,
        followers: usize,
        rate: u32,
        etcd: &[(Measured, Latencies)],
        ours: &[(Measured, Latencies)],
    ) {
        type Both = (Measured, Latencies);
        let delivered = |(m, seen): &Both| seen.len() as f64 / m.spent.seconds;
        let cpu = |(m, seen): &Both| m.spent.servers * 1e6 / seen.len() as f64;
        let generator = |(m, seen): &Both| m.spent.generator * 1e6 / seen.len() as f64;
        let quantile = |part: f64| move |(_, seen): &Both| seen.clone().quantile_ms(part);
        let ack = |(m, _): &Both| m.latencies.clone().quantile_ms(0.5);
        let full = followers * rate as usize;
        let small = Some(Target::AtMost(0.35));
        let mut row = |unit: &str, figure: &dyn Fn(&Both) -> f64, target| {
            let of = |all: &[Both]| median(all.iter().map(figure).collect());
            self.rows.compare(name, unit, of(ours), (!etcd.is_empty()).then(|| of(etcd)), target);
        };
        row(&format!("deliveries/s of {full}"), &delivered, None);
        row("µs server CPU per delivery", &cpu, if followers == 100 { small } else { None });
        row("µs generator CPU per delivery", &generator, None);
        row("ms until seen, p50", &quantile(0.5), (rate == 50).then_some(Target::AtMost(0.3)));
        let seen_p99 = Target::AtMost(if rate == 200 { 0.25 } else { 0.3 });
        row("ms until seen, p99", &quantile(0.99), (followers == 1000).then_some(seen_p99));
        row("ms put answered, p50", &ack, (rate == 50).then_some(Target::AtMost(0.1)));
    }
}

type Putter = Box<dyn Fn(String) -> Pin<Box<dyn Future<Output = ()>>>>;

/// Issues `rate` puts a second, evenly, at most `PUTTERS` under way.
async fn pace(put: Putter, rate: u32, seen: Rc<Seen>, latencies: Rc<RefCell<Latencies>>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(PUTTERS));
    loop {
        ticks.tick().await;
        let place = places.clone().acquire_owned().await.unwrap();
        let (started, done) = (std::time::Instant::now(), put(seen.clock.mark()));
        let (seen, latencies) = (seen.clone(), latencies.clone());
        tokio::task::spawn_local(async move {
            done.await;
            if seen.counting.get() {
                latencies.borrow_mut().push(started.elapsed());
            }
            drop(place);
        });
    }
}

/// An address that no other record has.
fn random_mark(clock: &fanout::Clock, numbers: &Numbers) -> String {
    let mark = clock.mark();
    format!("fd01:{:x}:{}", numbers.next() & 0xffff, &mark[7..])
}
