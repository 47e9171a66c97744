//! What to measure, and for how long.

use std::{path::PathBuf, time::Duration};

pub(crate) struct Options {
    /// Time of one measurement, after a warm-up of half a second.
    pub(crate) time: Duration,
    /// Measurements of each workload and system.
    pub(crate) rounds: usize,
    /// What is measured beside us.
    pub(crate) peer: Option<Peer>,
    /// Workloads whose name contains one of these; all if empty.
    pub(crate) only: Vec<String>,
    pub(crate) json: Option<PathBuf>,
}

/// How etcd is run. Ours has no mode without TLS (decision 0012).
#[derive(Clone, Copy)]
pub(crate) enum Peer {
    /// With mutual TLS for clients and between members, as ours.
    Etcd,
    /// Without any.
    EtcdPlain,
}

impl Options {
    pub(crate) fn wants(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| workload.contains(part.as_str()))
    }
}

/// `[--quick] [--seconds S] [--rounds N] [--peer etcd|etcd-plain] [--only PART]… [--json FILE]`; cargo adds `--bench`.
pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Options {
    let mut options = Options { time: Duration::from_secs(4), rounds: 3, peer: None, only: Vec::new(), json: None };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--bench" => {}
            "--quick" => (options.time, options.rounds) = (Duration::from_secs(1), 1),
            "--seconds" => options.time = Duration::from_secs_f64(value().parse().expect("--seconds: a number")),
            "--rounds" => options.rounds = value().parse().expect("--rounds: a number"),
            "--peer" => match value().as_str() {
                "etcd" => options.peer = Some(Peer::Etcd),
                "etcd-plain" => options.peer = Some(Peer::EtcdPlain),
                other => panic!("--peer: there is no {other}, only etcd and etcd-plain"),
            },
            "--only" => options.only.push(value()),
            "--json" => options.json = Some(PathBuf::from(value())),
            other => panic!("{other} is not an option of this bench"),
        }
    }
    options
}
