//! TCP relays in front of the store's members, for the test bed without namespaces: what nft does there, they do here.
//!
//! ```text
//!  member or gateway of a cluster ──► relay of member M ──► member M
//!                                       └ cut: bytes between the cut cluster and the others stop, both ways
//! ```
//!
//! All processes share one loopback address, so a relay learns a connection's origin from the process that owns the other
//! end of it (/proc/net/tcp, /proc/PID/fd).

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::addresses::Addresses;
use super::topology::{CLUSTERS, CUT_CLUSTER, Cluster};
use crate::run::cleanup;
use crate::run::directory::RunDirectory;

/// Every process carries its role (for control-plane processes: its cluster) under this name.
pub const ROLE_VARIABLE: &str = "RINGFENCE_DEMO_ROLE";
const CUT_POLL: Duration = Duration::from_millis(20);

/// The relays of one run.
#[derive(Debug)]
pub struct Relays {
    is_cut: Arc<AtomicBool>,
}

/// One relayed connection, as seen by the thread that copies one of its directions.
struct Direction {
    from: TcpStream,
    to: TcpStream,
    crosses: bool,
    is_cut: Arc<AtomicBool>,
}

impl Relays {
    /// Starts a relay for every member.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn start(run: &RunDirectory, addresses: &Addresses) -> Result<Self> {
        let is_cut = Arc::new(AtomicBool::new(false));
        for cluster in CLUSTERS {
            let address = addresses.member(cluster);
            let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
            let (run, target, is_cut) = (run.clone(), addresses.member_listen(cluster), Arc::clone(&is_cut));
            thread::spawn(move || accept(&listener, &run, cluster, target, &is_cut));
        }
        Ok(Self { is_cut })
    }

    /// Stops every byte between the cut cluster and the others.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    /// Lets new connections pass again; those that waited are closed.
    pub fn heal(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

fn accept(listener: &TcpListener, run: &RunDirectory, cluster: Cluster, target: SocketAddr, is_cut: &Arc<AtomicBool>) {
    for inbound in listener.incoming().flatten() {
        let (run, is_cut) = (run.clone(), Arc::clone(is_cut));
        thread::spawn(move || {
            let origin = inbound.peer_addr().ok().and_then(|peer| role_behind(&run, peer));
            let crosses = origin.is_some_and(|role| (role == CUT_CLUSTER) != (cluster.name == CUT_CLUSTER));
            // A member that is down: the client sees the connection close, as it would see a refusal.
            let Ok(outbound) = TcpStream::connect(target) else { return };
            let (Ok(inbound_again), Ok(outbound_again)) = (inbound.try_clone(), outbound.try_clone()) else { return };
            let there = Direction { from: inbound, to: outbound, crosses, is_cut: Arc::clone(&is_cut) };
            let back = Direction { from: outbound_again, to: inbound_again, crosses, is_cut };
            thread::spawn(move || back.copy());
            there.copy();
        });
    }
}

impl Direction {
    fn copy(mut self) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = self.from.read(&mut buffer) {
            if self.waited_out_a_cut() || self.to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        // Both ends learn at once that the connection is over; one may be closed already.
        let _ = self.from.shutdown(Shutdown::Both);
        let _ = self.to.shutdown(Shutdown::Both);
    }

    /// During a cut: waits for its end and says so, since the bytes of that time are lost.
    fn waited_out_a_cut(&self) -> bool {
        let mut waited = false;
        while self.crosses && self.is_cut.load(Ordering::SeqCst) {
            waited = true;
            thread::sleep(CUT_POLL);
        }
        waited
    }
}

/// The role of the run's process that owns the socket with this local address.
fn role_behind(run: &RunDirectory, peer: SocketAddr) -> Option<String> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let port = format!(":{:04X}", peer.port());
    let inode = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1)?.ends_with(&port) && *fields.get(9)? != "0").then(|| (*fields[9]).to_owned())
    })?;
    let socket = format!("socket:[{inode}]");
    let owner = cleanup::processes(run).into_iter().find(|pid| {
        fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|files| {
            files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == socket.as_str()))
        })
    })?;
    let environment = fs::read(format!("/proc/{owner}/environ")).ok()?;
    let prefix = format!("{ROLE_VARIABLE}=");
    environment
        .split(|byte| *byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok())
        .find_map(|entry| entry.strip_prefix(&prefix).map(str::to_owned))
}
