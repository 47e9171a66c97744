//! 50,000 identities for a new follower, and the memory they take.

use std::time::Instant;

use crate::{
    etcd::Client as EtcdClient,
    ours::labels,
    processes::Meter,
    rows::{Target, median},
    workloads::Bench,
};

const IDENTITIES: u64 = 50_000;
const LOADERS: u64 = 64;
const PAGE: i64 = 256;
const AT_ONCE: usize = 16;

pub(crate) async fn run(bench: &mut Bench<'_>) {
    fill(bench).await;
    let both = |bench: &Bench<'_>| if bench.etcd.is_some() { vec![false, true] } else { vec![true] };
    let mut figures = std::collections::BTreeMap::<(&str, bool), Vec<f64>>::new();
    for _ in 0..bench.options.rounds {
        for is_ours in both(bench) {
            let ways = [("1", "cpu-1", 1, true), ("paged", "cpu-paged", 1, false), ("16", "cpu-16", AT_ONCE, false)];
            // Ours knows no pages; a second client within two seconds gets what the first one got.
            for (name, cpu_name, clients, whole) in ways.into_iter().filter(|way| !(is_ours && way.0 == "paged")) {
                let meter = Meter::start(bench.servers(is_ours));
                let started = Instant::now();
                let tasks: Vec<_> = (0..clients).map(|n| sync(bench, is_ours, n, whole)).collect();
                for task in tasks {
                    task.await.unwrap();
                }
                let elapsed = started.elapsed().as_secs_f64() * 1000.0;
                // The kernel counts in ticks: what is still being sent must be counted, too.
                let cpu = meter.read(bench.servers(is_ours)).servers;
                println!(
                    "sync-{name:5} {}: {elapsed:.0} ms, {cpu:.2} s server CPU",
                    if is_ours { "ours" } else { "etcd" }
                );
                figures.entry((name, is_ours)).or_default().push(elapsed);
                figures.entry((cpu_name, is_ours)).or_default().push(cpu);
            }
        }
    }
    let peer = bench.etcd.is_some();
    let of = |name, is_ours| median(figures.get(&(name, is_ours)).cloned().unwrap_or_default());
    let rss = |is_ours: bool| bench.servers(is_ours).rss_mb();
    let (ours_rss, etcd_rss) = (rss(true), peer.then(|| rss(false)));
    let mut row = |name: &str, unit: &str, key, target| {
        bench.rows.compare(name, unit, of(key, true), peer.then(|| of(key, false)), Some(target));
    };
    row("sync-1", "ms, against one Get of everything", "1", Target::AtMost(0.8));
    row("sync-16", "ms, against pages of 256", "16", Target::AtMost(0.15));
    row("sync-16", "s server CPU, against pages of 256", "cpu-16", Target::AtMost(0.1));
    let paged = peer.then(|| of("paged", false));
    bench.rows.compare("sync-1", "ms, against pages of 256", of("1", true), paged, Some(Target::AtMost(0.2)));
    bench.rows.compare("sync", "MB resident with 50,000 identities", ours_rss, etcd_rss, Some(Target::AtMost(0.5)));
}

fn sync(bench: &Bench<'_>, is_ours: bool, n: usize, whole: bool) -> tokio::task::JoinHandle<()> {
    match &bench.etcd {
        Some(etcd) if !is_ours => tokio::task::spawn_local(get_all(etcd.connect(n), whole)),
        _ => {
            let ours = bench.ours.clone();
            tokio::task::spawn_local(async move {
                let mut stream = ours.follow(n, 0).await;
                let mut bytes = 0;
                loop {
                    let message = stream.message().await.unwrap();
                    // Field 3 of FollowEvent is the progress mark that follows the snapshot.
                    if message[0] == 3 << 3 | 2 {
                        break;
                    }
                    bytes += message.len() as u64;
                }
                assert!(bytes > IDENTITIES * 200, "{bytes} bytes are not all identities");
            })
        }
    }
}

async fn get_all(client: EtcdClient, whole: bool) {
    let end = b"id0".to_vec();
    let mut from = b"id/".to_vec();
    let mut count = 0;
    loop {
        let page = client.range(from.clone(), end.clone(), if whole { 0 } else { PAGE }).await;
        count += page.len();
        if whole || page.len() < PAGE as usize {
            break;
        }
        from = page.last().unwrap().key.clone();
        from.push(0);
    }
    assert_eq!(count as u64, IDENTITIES);
    let _watch = client.watch_raw(b"id/").await;
}

async fn fill(bench: &Bench<'_>) {
    let mut tasks = Vec::new();
    for loader in 0..LOADERS {
        let ours = bench.ours.connect(bench.ours.leader);
        let etcd = bench.etcd.as_ref().map(|etcd| etcd.connect(etcd.leader));
        tasks.push(tokio::task::spawn_local(async move {
            for number in (loader..IDENTITIES).step_by(LOADERS as usize) {
                let app = format!("app-{number:06}-of-a-cluster");
                if let Some(etcd) = &etcd {
                    let value = labels(&app, "payments").join(";").into_bytes();
                    etcd.put(format!("id/{number:08}").into_bytes(), value).await;
                }
                ours.allocate(number as u32, &app).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}
