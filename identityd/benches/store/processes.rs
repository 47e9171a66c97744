//! Server processes, and what the kernel says of their CPU time and memory.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

/// Clock ticks of /proc in a second: fixed by the kernel's user interface.
const TICKS: f64 = 100.0;

/// Servers of one system; killed when dropped.
#[derive(Default)]
pub(crate) struct Processes(Vec<Child>);

impl Processes {
    pub(crate) fn spawn(&mut self, command: &mut Command, log: &Path) {
        let log = File::create(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.0.push(child.unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display())));
    }

    /// CPU seconds of all of them so far.
    pub(crate) fn cpu(&self) -> f64 {
        self.0.iter().map(|child| cpu_of(&child.id().to_string())).sum()
    }

    /// Resident memory of the largest, in MB.
    pub(crate) fn rss_mb(&self) -> f64 {
        let rss = |child: &Child| {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
        };
        self.0.iter().map(rss).fold(0.0, f64::max)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended on its own.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn cpu_of(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("a server has ended: see its log");
    // The command's name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS
}

/// Busy seconds of all cores.
fn machine() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<f64> =
        stat.lines().next().unwrap().split_whitespace().skip(1).map(|field| field.parse().unwrap()).collect();
    (fields[0] + fields[1] + fields[2] + fields[5] + fields[6]) / TICKS
}

/// CPU times at a moment.
pub(crate) struct Meter {
    at: Instant,
    servers: f64,
    generator: f64,
    machine: f64,
}

/// CPU times since then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) seconds: f64,
    pub(crate) servers: f64,
    pub(crate) generator: f64,
    /// Cores that others kept busy.
    pub(crate) foreign_cores: f64,
}

impl Meter {
    pub(crate) fn start(servers: &Processes) -> Self {
        Self { at: Instant::now(), servers: servers.cpu(), generator: cpu_of("self"), machine: machine() }
    }

    pub(crate) fn read(&self, servers: &Processes) -> Spent {
        let seconds = self.at.elapsed().as_secs_f64();
        let (servers, generator) = (servers.cpu() - self.servers, cpu_of("self") - self.generator);
        let foreign_cores = ((machine() - self.machine) - servers - generator) / seconds;
        Spent { seconds, servers, generator, foreign_cores }
    }
}
