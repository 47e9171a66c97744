//! The largest node that is asked for: 512k addresses, 64k rows of one policy, 250 endpoints, a million connections.

use std::{
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use ringfence_datapath::{Datapath, KernelDatapath, Reading, Tally};
use ringfence_policy::{
    flow::Direction,
    identity::Identity,
    name::Name,
    revision::Revision,
    tables::{AddressEntry, Class, EndpointEntry, EndpointId, PolicyId, Row, RowKey, TableDiff, Tables},
};

use crate::{
    BENCH, FIRST_PORT, LOCAL, SUBJECT,
    figures::{Figure, Target, cpu_ms},
    load, run,
};

/// Policies of their own, so that the million connections are allowed whatever the peer.
const OPEN: PolicyId = PolicyId(2);
const CONNECTIONS: u32 = 1_000_000;
const ROUNDS: u32 = 1000;

/// Adds the endpoint whose connections fill the table.
pub(crate) fn add_endpoint(datapath: &mut KernelDatapath, tables: &mut Tables) -> EndpointId {
    let endpoint = datapath.attach(&Name::new("scale").unwrap(), "ep0").unwrap();
    tables.addresses.insert(LOCAL.into(), AddressEntry { identity: SUBJECT, endpoint: Some(endpoint) });
    let entry = EndpointEntry { identity: SUBJECT, policy: OPEN, shadow: None, audit: false };
    tables.endpoints.insert(endpoint, entry);
    let mut row = Row::default();
    row.set(0, Class::Allow);
    for peer in [Identity::WORLD, Identity::WORLD_IPV4] {
        tables.rows.insert(RowKey::of(OPEN, Direction::Egress, peer, 0), row);
    }
    endpoint
}

/// What changes, reading back and a full table of connections cost; the datapath is at revision 1 with `tables`.
pub(crate) fn measure(
    datapath: &mut KernelDatapath,
    tables: &Tables,
    endpoint: EndpointId,
    pins: &Path,
    part: u32,
) -> Vec<Figure> {
    let name = |whole, quick| if part == 1 { whole } else { quick };
    let mut figures = hundred(datapath, tables);
    let (cpu, [most, longest]) = verify(datapath, tables);
    figures.push(Figure::new(
        name("  reading all of it back, CPU time", "  reading it back, CPU time"),
        cpu,
        "ms",
        None,
    ));
    let target = Some(Target::AtMost(5.0));
    figures.push(Figure::new("  a revision that comes meanwhile waits, 99th percentile", most, "ms", target));
    figures.push(Figure::new("  … the longest, where others run beside it", longest, "ms", None));
    figures.extend(connections(datapath, endpoint, pins));
    figures
}

/// 100 entries that change: who has addresses, and rows of the large policy.
fn hundred(datapath: &mut KernelDatapath, tables: &Tables) -> Vec<Figure> {
    let mut after = tables.clone();
    for entry in after.addresses.values_mut().filter(|entry| entry.endpoint.is_none()).take(50) {
        entry.identity = Identity::WORLD;
    }
    let keys: Vec<RowKey> = tables.rows.keys().take(50).copied().collect();
    for key in keys {
        after.rows.remove(&key);
    }
    let there = tables.diff(&after);
    let back = there.inverse();
    // The kernel brings a thread's time up to date with its ticks only: one change is too short to be measured.
    let started = cpu_ms();
    for round in 0..ROUNDS {
        let diff: &TableDiff = if round.is_multiple_of(2) { &there } else { &back };
        datapath.apply(Revision(10 + u64::from(round)), diff).unwrap();
    }
    let one = (cpu_ms() - started) / f64::from(ROUNDS);
    vec![Figure::new("  apply 100 entries there, both sets, CPU time", one, "ms", Some(Target::AtMost(1.0)))]
}

/// CPU time of reading everything back, and for how long nothing else can be done: 99 of 100 times at most, and ever; milliseconds.
fn verify(datapath: &mut KernelDatapath, tables: &Tables) -> (f64, [f64; 2]) {
    let (cpu, mut reading, mut parts) = (cpu_ms(), Reading::default(), Vec::new());
    let verified = loop {
        let started = Instant::now();
        let verified = datapath.verify_part(tables, &mut reading).unwrap();
        parts.push(milliseconds(started.elapsed()));
        if let Some(verified) = verified {
            break verified;
        }
    };
    assert_eq!((verified.served, verified.unserved), (0, 0));
    let cpu = cpu_ms() - cpu;
    parts.sort_by(f64::total_cmp);
    (cpu, [parts[parts.len() * 99 / 100], parts[parts.len() - 1]])
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A million new connections, as fast as they go.
fn connections(datapath: &mut KernelDatapath, endpoint: EndpointId, pins: &Path) -> Vec<Figure> {
    let mut objects = [load(BENCH, pins)];
    for _ in 0..10 {
        run(&mut objects, "new_flow", FIRST_PORT, endpoint, CONNECTIONS / 10);
    }
    let mut kept = 0_u32;
    let started = Instant::now();
    datapath
        .reader()
        .unwrap()
        .connections(&mut |_| {
            kept += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    let read_ms = milliseconds(started.elapsed());
    let tallies = datapath.counters().unwrap().1;
    let lost = tallies.get(Tally::FlowsEvicted) + tallies.get(Tally::FlowsNotKept);
    let lost = f64::from(u32::try_from(lost).unwrap());
    vec![
        Figure::new("  a million new connections: known afterwards", f64::from(kept), "", None),
        Figure::new("  … pushed out or not kept", lost, "", Some(Target::AtMost(1000.0))),
        Figure::new("  … listed by user space in", read_ms, "ms", None),
    ]
}
