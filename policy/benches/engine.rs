//! The incremental compiler under workloads A1, A2 and B.
//!
//! `cargo bench -p ringfence-policy --bench engine` runs the criterion benches and then prints medians beside the peer's
//! CPU times; with `RINGFENCE_TABLE=only` it prints just the table, and with `--json FILE` it also writes its rows.

mod table;
mod workload;

use std::{hint::black_box, path::PathBuf, time::Duration};

use criterion::{BatchSize, Criterion};
use ringfence_policy::{engine::Engine, tables::Tables};
use workload::{PODS, SUBJECT};

fn main() -> std::io::Result<()> {
    if let Some(file) = json_file() {
        return table::print().write(&file);
    }
    if std::env::var("RINGFENCE_TABLE").as_deref() != Ok("only") {
        let short = (Duration::from_millis(300), Duration::from_secs(2));
        let mut criterion =
            Criterion::default().warm_up_time(short.0).measurement_time(short.1).sample_size(20).configure_from_args();
        workload_a(&mut criterion, "A1", true);
        workload_a(&mut criterion, "A2", false);
        workload_b(&mut criterion);
        criterion.final_summary();
    }
    if !std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        table::print();
    }
    Ok(())
}

/// What follows `--json`; criterion knows no such flag.
fn json_file() -> Option<PathBuf> {
    std::env::args_os().skip_while(|argument| argument != "--json").nth(1).map(PathBuf::from)
}

fn workload_a(criterion: &mut Criterion, name: &str, all_select: bool) {
    let texts = workload::policies_a(all_select);
    let mut group = criterion.benchmark_group(name);
    let empty = || workload::engine(PODS);
    let imported = || {
        let mut engine = workload::engine(PODS);
        workload::import(&mut engine, &texts);
        engine
    };
    group.bench_function("import", |bencher| {
        bencher.iter_batched_ref(empty, |engine| workload::import(engine, &texts), BatchSize::PerIteration);
    });
    group.bench_function("cold", |bencher| {
        bencher.iter_batched_ref(imported, |engine| engine.measure_resolving(SUBJECT), BatchSize::PerIteration);
    });
    group.bench_function("cold and rows", |bencher| {
        bencher.iter_batched_ref(imported, cold_with_rows, BatchSize::PerIteration);
    });
    let mut engine = imported();
    engine.add_subject(SUBJECT);
    group.bench_function("warm", |bencher| bencher.iter(|| black_box(engine.measure_resolving(SUBJECT))));
    group.bench_function("warm and rows", |bencher| bencher.iter(|| black_box(warm_with_rows(&mut engine))));
    let (flows, datapath) = (table::flows(), table::Datapath::of(&engine));
    group.bench_function("65,536 lookups", |bencher| {
        bencher.iter(|| flows.iter().filter(|flow| datapath.allows(flow)).count());
    });
    group.finish();
}

fn cold_with_rows(engine: &mut Engine) -> usize {
    engine.add_subject(SUBJECT);
    engine.take_edits().len()
}

/// What the tables of the one policy there is hold.
fn warm_with_rows(engine: &mut Engine) -> Tables {
    engine.measure_resolving(SUBJECT);
    engine.tables()
}

fn workload_b(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("B");
    let texts = workload::policies_b(1000, false);
    let mut engine = workload::engine(PODS);
    workload::import(&mut engine, &texts);
    engine.add_subject(SUBJECT);
    let one = workload::pod(10_007);
    group.bench_function("add and remove one", |bencher| {
        bencher.iter(|| {
            engine.put_identities([one.clone()]);
            engine.remove_identities([one.0]);
            engine.take_edits()
        });
    });
    let hundred: Vec<_> = (0..100).map(|b| workload::pod(10_007 + 100 * b)).collect();
    group.bench_function("add and remove a hundred", |bencher| {
        bencher.iter(|| {
            engine.put_identities(hundred.clone());
            engine.remove_identities(hundred.iter().map(|(identity, _)| *identity));
            engine.take_edits()
        });
    });
    group.finish();
}
