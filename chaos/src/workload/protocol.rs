//! What the test bed and a workload say to each other, one JSON object per line.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The ports that every workload serves, over TCP (echo) and UDP (counted, not answered).
pub const PORTS: [u16; 2] = [8080, 9090];

/// The test bed to a workload. Every request has one response.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// One connection to each target, all at the same time.
    Probe {
        /// Addresses and ports.
        targets: Vec<SocketAddr>,
        /// For the connection, and again for the echo.
        timeout_ms: u64,
    },
    /// Starts traffic that goes on until [`Request::Stop`].
    Hammer(HammerPlan),
    /// Ends the hammer.
    Stop,
    /// What has arrived here so far.
    Counters,
}

/// Where a hammer's traffic goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HammerPlan {
    /// Established and new TCP connections, which must succeed.
    pub allowed: Vec<SocketAddr>,
    /// SYNs and UDP datagrams, which must not arrive.
    pub denied: Vec<SocketAddr>,
}

/// A workload to the test bed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case", deny_unknown_fields)]
pub enum Response {
    /// The ports are bound.
    Ready,
    /// One outcome per target, in order.
    Probed {
        /// What happened.
        outcomes: Vec<Outcome>,
    },
    /// Traffic flows.
    Hammering,
    /// What became of the traffic.
    Hammered(HammerReport),
    /// What arrived.
    Counted {
        /// By protocol, port and source.
        counts: Vec<Count>,
    },
    /// The request could not be carried out.
    Failed {
        /// Why.
        message: String,
    },
}

/// What became of one connection attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Connected, and the echo came back.
    Connected,
    /// No answer in time: what a dropped packet looks like.
    TimedOut,
    /// Anything else: neither an allow nor a drop.
    Failed(String),
}

/// Transport protocols that workloads serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Accepted connections.
    Tcp,
    /// Received datagrams.
    Udp,
}

/// Connections or datagrams of one source at one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// TCP: accepted connections; UDP: received datagrams.
    pub protocol: Protocol,
    /// The port here.
    pub port: u16,
    /// The sender.
    pub source: IpAddr,
    /// How many.
    pub count: u64,
}

/// What became of a hammer's traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HammerReport {
    /// Round trips on the connections that were established at the start.
    pub exchanges: u64,
    /// Why one of those connections broke.
    pub broken: Vec<String>,
    /// The longest time between two round trips.
    pub longest_gap_us: u64,
    /// New connections to allowed targets that connected and echoed.
    pub connected: u64,
    /// New connections to allowed targets that did not: why.
    pub failed: Vec<String>,
    /// New connections that took as long as a retransmitted SYN does: a packet of them was dropped.
    pub slow: u64,
    /// New connections that were late while the machine let nobody run.
    pub stalled: u64,
    /// TCP attempts at denied targets.
    pub denied_attempts: u64,
    /// Those of them that connected.
    pub denied_connected: u64,
    /// UDP datagrams sent to denied targets.
    pub datagrams: u64,
}

impl HammerReport {
    /// Adds what another thread or workload saw.
    #[must_use]
    pub fn merged(mut self, other: Self) -> Self {
        self.exchanges += other.exchanges;
        self.broken.extend(other.broken);
        self.longest_gap_us = self.longest_gap_us.max(other.longest_gap_us);
        self.connected += other.connected;
        self.failed.extend(other.failed);
        self.slow += other.slow;
        self.stalled += other.stalled;
        self.denied_attempts += other.denied_attempts;
        self.denied_connected += other.denied_connected;
        self.datagrams += other.datagrams;
        self
    }
}
