//! Medians beside the peer's CPU times, and how adding an identity grows.

mod node;

use std::{
    collections::HashMap,
    fs,
    hash::{BuildHasherDefault, Hasher},
    hint::black_box,
    io,
    path::Path,
    time::{Duration, Instant},
};

use ringfence_policy::{
    engine::{Engine, Subject},
    flow::{Direction, Flow, protocol},
    identity::Identity,
    tables::{Class, PolicyId, PortsKey, PortsOfProtocol, Row, RowKey},
};

use crate::{
    cold_with_rows, warm_with_rows,
    workload::{self, PODS, SUBJECT},
};

/// The peer's CPU times, as the workload's text has them.
struct PeerFigures {
    name: &'static str,
    all_select: bool,
    import: f64,
    cold: f64,
    cold_and_rows: f64,
    warm: f64,
    warm_and_rows: f64,
    lookup: f64,
}

const PEER: [PeerFigures; 2] = [
    PeerFigures {
        name: "A1",
        all_select: true,
        import: 46e-3,
        cold: 1.2,
        cold_and_rows: 1.25,
        warm: 6.4e-3,
        warm_and_rows: 51e-3,
        lookup: 0.20e-6,
    },
    PeerFigures {
        name: "A2",
        all_select: false,
        import: 65e-3,
        cold: 12e-3,
        cold_and_rows: 12e-3,
        warm: 0.90e-3,
        warm_and_rows: 1.2e-3,
        lookup: 0.12e-6,
    },
];

/// The rows that were printed, for `--json`.
#[derive(Default)]
pub(crate) struct Rows(Vec<serde_json::Value>);

/// Measures everything once more, and prints it.
pub(crate) fn print() -> Rows {
    let mut rows = Rows::default();
    println!("| workload | step | median | peer, CPU | ratio |\n| --- | --- | ---: | ---: | ---: |");
    for peer in &PEER {
        workload_a(peer, &mut rows);
    }
    workload_b(&mut rows);
    growth();
    node::print();
    rows
}

/// 65,536 flows as workload A asks for them.
pub(crate) fn flows() -> Vec<Flow> {
    let mut state = 1_u64;
    let mut below = move |limit: u32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((state >> 33) % u64::from(limit)).expect("the limit has 32 bits")
    };
    let mut flow = |_| {
        let peer = Identity::from_bits(1000 + below(PODS));
        let direction = if below(3) == 0 { Direction::Egress } else { Direction::Ingress };
        let (protocol, port) = match below(5) {
            0 => (protocol::TCP, 22),
            1 => (protocol::UDP, 53),
            2 => (protocol::TCP, 443),
            3 => (protocol::TCP, 8000 + below(200)),
            _ => (protocol::TCP, 10_000 + below(1850)),
        };
        let port = u16::try_from(port).expect("they are ports");
        Flow { subject: SUBJECT, peer, direction, protocol, port }
    };
    (0..65_536).map(&mut flow).collect()
}

fn workload_a(peer: &PeerFigures, rows: &mut Rows) {
    let texts = workload::policies_a(peer.all_select);
    let decoding = times(7, || workload::decode(&texts));
    let (mut imports, mut colds, mut colds_with_rows) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..15 {
        let mut engine = workload::engine(PODS);
        imports.push(time(|| workload::import(&mut engine, &texts)));
        if round % 2 == 0 {
            colds.push(time(|| engine.measure_resolving(SUBJECT)));
        } else {
            colds_with_rows.push(time(|| cold_with_rows(&mut engine)));
        }
    }
    let mut engine = workload::engine(PODS);
    let before = resident_mib();
    workload::import(&mut engine, &texts);
    engine.add_subject(SUBJECT);
    let after = resident_mib();
    let name = peer.name;
    rows.add(name, "import 1,000 objects", imports, peer.import, Some(1.0 / 5.0));
    rows.add(name, "… of it decoding and checking", decoding, peer.import, None);
    rows.add(name, "cold", colds, peer.cold, Some(1.0 / 25.0));
    rows.add(name, "cold and rows", colds_with_rows, peer.cold_and_rows, Some(1.0 / 25.0));
    rows.add(name, "warm", times(100, || engine.measure_resolving(SUBJECT)), peer.warm, Some(1.0 / 20.0));
    rows.add(name, "warm and rows", times(50, || warm_with_rows(&mut engine)), peer.warm_and_rows, Some(1.0 / 20.0));
    let (flows, datapath) = (flows(), Datapath::of(&engine));
    let count = || flows.iter().filter(|flow| datapath.allows(flow)).count();
    let lookups = times(30, count);
    rows.add(name, "one lookup", lookups.iter().map(|all| *all / 65_536).collect(), peer.lookup, None);
    let entries = workload::entries(&engine.tables());
    println!(
        "| {name} | {} rows; as entries: {} with blocks of ports, {} with ranges; {} selectors; {:.1} % of lookups allowed; resident {after} MiB, {} of them for policies | | | |",
        datapath.rows.len(),
        entries.blocks,
        entries.ranges,
        engine.selector_count(),
        100.0 * f64::from(u32::try_from(count()).unwrap_or(u32::MAX)) / 65_536.0,
        after.saturating_sub(before),
    );
}

/// The subject's policy as hash tables, as a datapath keeps it: the ports, and a probe for the peer and for anyone.
pub(crate) struct Datapath {
    policy: PolicyId,
    ports: HashMap<PortsKey, PortsOfProtocol, BuildHasherDefault<Mixed>>,
    rows: HashMap<RowKey, Row, BuildHasherDefault<Mixed>>,
}

/// A hash as cheap as a kernel's.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u8(&mut self, part: u8) {
        self.write_u64(u64::from(part));
    }

    fn write_u16(&mut self, part: u16) {
        self.write_u64(u64::from(part));
    }

    fn write_u32(&mut self, part: u32) {
        self.write_u64(u64::from(part));
    }

    fn write_u64(&mut self, part: u64) {
        self.0 = (self.0 ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn write_isize(&mut self, part: isize) {
        self.write_u64(part.cast_unsigned() as u64);
    }
}

impl Datapath {
    pub(crate) fn of(engine: &Engine) -> Self {
        let policy = engine.policed(&Subject::from(SUBJECT)).expect("it was added").policy;
        let tables = engine.tables();
        Self { policy, ports: tables.ports.into_iter().collect(), rows: tables.rows.into_iter().collect() }
    }

    pub(crate) fn allows(&self, flow: &Flow) -> bool {
        let Flow { peer, direction, protocol, port, .. } = *flow;
        let ports = self.ports.get(&PortsKey { policy: self.policy, direction, protocol });
        let band = ports.map_or(0, |ports| ports.band(port));
        let said = |peer| self.rows.get(&RowKey::of(self.policy, direction, peer, band))?.class(band);
        said(peer).max(said(Identity::UNKNOWN)) == Some(Class::Allow)
    }
}

fn workload_b(rows: &mut Rows) {
    let mut engine = workload::engine(PODS);
    workload::import(&mut engine, &workload::policies_b(1000, false));
    engine.add_subject(SUBJECT);
    engine.take_edits();
    let (entries, tables) = (workload::entries(&engine.tables()).blocks, engine.tables());
    println!("| B | {} rows; {entries} entries; {} selectors | | | |", tables.rows.len(), engine.selector_count());
    let [add, remove] = add_and_remove(&mut engine, 400, || vec![workload::pod(10_007)]);
    rows.add("B", "add 1 identity", add, 0.27e-3, Some(1.0 / 20.0));
    rows.add("B", "remove 1 identity", remove, 0.23e-3, None);
    let hundred = || (0..100).map(|b| workload::pod(10_007 + 100 * b)).collect();
    let [add, remove] = add_and_remove(&mut engine, 60, hundred);
    rows.add("B", "add 100 identities", add, 5.3e-3, None);
    rows.add("B", "remove 100 identities", remove, 3.1e-3, None);
    let unselected = || {
        let (identity, mut labels) = workload::pod(10_007);
        labels.insert(ringfence_policy::label::Label::new("k8s", "app", "none"));
        vec![(identity, labels)]
    };
    let [add, _] = add_and_remove(&mut engine, 400, unselected);
    rows.add("B", "add 1 unselected identity", add, 75e-6, None);
    let objects = workload::decode(&workload::policies_b(1000, false));
    let mut inserts = Vec::new();
    for _ in 0..7 {
        let mut engine = workload::engine(PODS);
        let objects: Vec<_> = objects.iter().cloned().map(workload::enforced).collect();
        inserts.push(time(|| {
            engine.change_objects(objects, []);
            engine.measure_resolving(SUBJECT)
        }));
    }
    rows.add("B", "insert 1,000 selectors", inserts, 2.6, Some(1.0 / 50.0));
}

/// Ten selectors match the new identity, whatever else there is.
fn growth() {
    println!("\nAdding one identity (median)\n");
    println!("| identities | 100 selectors | 1,000 selectors | 10,000 selectors |\n| ---: | ---: | ---: | ---: |");
    for pods in [1_000, 10_000, 100_000] {
        let cells = [100, 1_000, 10_000].map(|selectors| {
            let mut engine = workload::engine(pods);
            workload::import(&mut engine, &workload::policies_b(selectors, true));
            engine.add_subject(SUBJECT);
            engine.take_edits();
            let new = || vec![(Identity::from_bits(900_000), workload::labels(10_007))];
            let [add, _] = add_and_remove(&mut engine, 200, new);
            format!(" {:.1?} |", median(add))
        });
        println!("| {pods} |{}", cells.concat());
    }
}

fn add_and_remove(
    engine: &mut Engine,
    rounds: u32,
    new: impl Fn() -> Vec<(Identity, ringfence_policy::label::LabelSet)>,
) -> [Vec<Duration>; 2] {
    let (mut add, mut remove) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let identities = new();
        let gone: Vec<Identity> = identities.iter().map(|(identity, _)| *identity).collect();
        add.push(time(|| {
            engine.put_identities(identities);
            engine.take_edits()
        }));
        remove.push(time(|| {
            engine.remove_identities(gone);
            engine.take_edits()
        }));
    }
    [add, remove]
}

fn time<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    let result = black_box(work());
    let spent = start.elapsed();
    drop(result);
    spent
}

fn times<T>(rounds: u32, mut work: impl FnMut() -> T) -> Vec<Duration> {
    (0..rounds).map(|_| time(&mut work)).collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

impl Rows {
    /// One median beside the peer's CPU time; `target`: the ratio that is wanted.
    fn add(&mut self, workload: &str, step: &str, times: Vec<Duration>, peer_seconds: f64, target: Option<f64>) {
        let own = median(times);
        let peer = Duration::from_secs_f64(peer_seconds);
        let ratio = own.as_secs_f64() / peer_seconds;
        println!("| {workload} | {step} | {own:.1?} | {peer:.1?} | 1/{:.1} |", ratio.recip());
        self.0.push(serde_json::json!({
            "name": format!("{workload} {step}"),
            "value": own.as_secs_f64() * 1e6,
            "unit": "us",
            "peer": "Cilium, CPU",
            "peer_value": peer_seconds * 1e6,
            "ratio": ratio,
            "target": target.map(|target| format!("<= 1/{:.0} of the peer", target.recip())),
            "status": if target.is_some_and(|target| ratio > target) { "short" } else { "ok" },
        }));
    }

    /// Writes the rows as one JSON array.
    pub(crate) fn write(self, path: &Path) -> io::Result<()> {
        fs::write(path, format!("{:#}\n", serde_json::Value::Array(self.0)))
    }
}

/// Of this process; 0 where the system does not say.
fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
