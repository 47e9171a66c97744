//! The store against etcd: three members each, on one disk, one run, workloads in turns.
//!
//! ```text
//! generator (this process, one thread) ─┬─ gRPC over mutual TLS ─► identityd ×3   (processes of this build)
//!                                       └─ gRPC over mutual TLS ─► etcd ×3        (the system's etcd, `--peer etcd`; `etcd-plain`: no TLS)
//! every workload: etcd, ours, etcd, ours, … ; CPU of servers and generator from /proc, foreign load from /proc/stat
//! ```
//!
//! Medians of the rounds are compared: server CPU per operation first, it moves least with the machine's noise.
#![expect(clippy::unwrap_used, reason = "a panic is how a bench fails")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people: counts and times far below where precision ends"
)]

mod certificates;
mod etcd;
mod fanout;
mod latency;
mod load;
mod options;
mod ours;
mod processes;
mod rows;
mod sync;
mod workloads;

fn main() {
    let options = options::parse(std::env::args().skip(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rows = tokio::task::LocalSet::new().block_on(&runtime, workloads::run(&options));
    for line in &rows.lines {
        println!("{line}");
    }
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&rows.rows).unwrap() + "\n").unwrap();
    }
}
