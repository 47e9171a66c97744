//! Steady traffic for the drills: connections that must go on, and packets that must never arrive.

use std::net::{Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::probe;
use super::protocol::{HammerPlan, HammerReport};
use super::stall::StallClock;

const PING_PONG_PAUSE: Duration = Duration::from_millis(1);
/// Far longer than any pause that a policy or a restart may cause, so that only a lost connection breaks.
const ESTABLISHED_TIMEOUT: Duration = Duration::from_secs(20);
const NEW_PAUSE: Duration = Duration::from_millis(10);
const NEW_TIMEOUT: Duration = Duration::from_secs(10);
/// A first retransmission of a SYN comes after one second (RFC 6298).
const RETRANSMITTED: Duration = Duration::from_millis(950);
/// Long enough for an allowed handshake between namespaces, short enough for many attempts.
const DENIED_TIMEOUT: Duration = Duration::from_millis(10);
const DATAGRAM_PAUSE: Duration = Duration::from_millis(1);

/// Running traffic.
#[derive(Debug)]
pub struct Hammer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<HammerReport>>,
}

impl Hammer {
    /// Establishes a connection to every allowed target, then starts all traffic.
    ///
    /// # Errors
    /// When an allowed target cannot be connected to.
    pub fn start(plan: &HammerPlan) -> Result<Self> {
        let mut established = Vec::new();
        for &target in &plan.allowed {
            let stream = TcpStream::connect_timeout(&target, NEW_TIMEOUT)
                .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
                .and_then(|stream| stream.set_read_timeout(Some(ESTABLISHED_TIMEOUT)).map(|()| stream))
                .with_context(|| format!("cannot connect to {target}"))?;
            established.push((target, stream));
        }
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).context("no UDP socket")?;
        let stop = Arc::new(AtomicBool::new(false));
        let clock = StallClock::start(&stop);
        let mut hammer = Self { stop, threads: Vec::new() };
        for (target, stream) in established {
            hammer.spawn(move |stop| ping_pong(target, stream, stop));
            let clock = clock.clone();
            hammer.spawn(move |stop| new_connections(target, &clock, stop));
        }
        for &target in &plan.denied {
            hammer.spawn(move |stop| denied_connections(target, stop));
        }
        let targets: Vec<SocketAddr> = plan.denied.iter().map(|target| mapped(*target)).collect();
        hammer.spawn(move |stop| datagrams(&socket, &targets, stop));
        Ok(hammer)
    }

    /// Ends the traffic and says what became of it.
    #[must_use]
    pub fn stop(self) -> HammerReport {
        self.stop.store(true, Ordering::Relaxed);
        let broken = || HammerReport { broken: vec!["a hammer thread panicked".to_owned()], ..HammerReport::default() };
        self.threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| broken()))
            .fold(HammerReport::default(), HammerReport::merged)
    }

    fn spawn(&mut self, work: impl FnOnce(&AtomicBool) -> HammerReport + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        self.threads.push(thread::spawn(move || work(&stop)));
    }
}

fn runs(stop: &AtomicBool) -> bool {
    !stop.load(Ordering::Relaxed)
}

fn ping_pong(target: SocketAddr, mut stream: TcpStream, stop: &AtomicBool) -> HammerReport {
    let mut report = HammerReport::default();
    let mut last = Instant::now();
    while runs(stop) {
        if let Err(error) = probe::exchange(&mut stream) {
            report
                .broken
                .push(format!("the connection to {target} broke after {} exchanges: {error}", report.exchanges));
            break;
        }
        let now = Instant::now();
        let gap = u64::try_from((now - last).as_micros()).unwrap_or(u64::MAX);
        report.longest_gap_us = report.longest_gap_us.max(gap);
        report.exchanges += 1;
        last = now;
        thread::sleep(PING_PONG_PAUSE);
    }
    report
}

fn new_connections(target: SocketAddr, clock: &StallClock, stop: &AtomicBool) -> HammerReport {
    let mut report = HammerReport::default();
    while runs(stop) {
        let begin = Instant::now();
        match probe::connect_and_echo(target, NEW_TIMEOUT) {
            Ok(()) => report.connected += 1,
            Err(error) => report.failed.push(format!("a new connection to {target} failed: {error}")),
        }
        if begin.elapsed() > RETRANSMITTED {
            // A machine that stood still for so long says nothing about packets.
            let stalled = clock.stalled_since(begin);
            report.slow += u64::from(begin.elapsed().saturating_sub(stalled) > RETRANSMITTED);
            report.stalled += u64::from(!stalled.is_zero());
        }
        thread::sleep(NEW_PAUSE);
    }
    report
}

fn denied_connections(target: SocketAddr, stop: &AtomicBool) -> HammerReport {
    let mut report = HammerReport::default();
    while runs(stop) {
        report.denied_attempts += 1;
        report.denied_connected += u64::from(TcpStream::connect_timeout(&target, DENIED_TIMEOUT).is_ok());
    }
    report
}

fn datagrams(socket: &UdpSocket, targets: &[SocketAddr], stop: &AtomicBool) -> HammerReport {
    let mut report = HammerReport::default();
    while runs(stop) {
        for target in targets {
            report.datagrams += u64::from(socket.send_to(b"ringfence", target).is_ok());
        }
        thread::sleep(DATAGRAM_PAUSE);
    }
    report
}

/// The target as a socket for both families names it.
fn mapped(target: SocketAddr) -> SocketAddr {
    match target {
        SocketAddr::V4(four) => SocketAddr::from((four.ip().to_ipv6_mapped(), four.port())),
        SocketAddr::V6(_) => target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn a_broken_connection_and_failed_new_ones_are_reported() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let hammer =
            thread::spawn(move || Hammer::start(&HammerPlan { allowed: vec![target], denied: vec![] }).unwrap());
        let (mut first, _) = listener.accept().unwrap();
        let hammer = hammer.join().unwrap();
        let mut buffer = [0; 10];
        first.read_exact(&mut buffer).unwrap();
        first.write_all(&buffer).unwrap();
        first.read_exact(&mut buffer).unwrap();
        drop((first, listener)); // from here on nothing answers
        let deadline = Instant::now() + Duration::from_secs(10);
        while !hammer.threads.iter().any(JoinHandle::is_finished) {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(5));
        }
        let report = hammer.stop();
        assert_eq!((report.exchanges, report.broken.len()), (1, 1), "{report:?}");
        assert!(!report.failed.is_empty(), "{report:?}");
    }
}
