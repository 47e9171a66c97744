//! The mesh under test: three clusters of real processes, in network namespaces or on loopback.
//!
//! ```text
//!            Testbed ── starts, kills, restarts ──► identityd, mesh-gateway, ringfence-agent (real binaries)
//!   demo ──►   │ ────── ringfence CLI ────────────► gateways          (the only way it speaks to the mesh)
//!              │ ────── JSON lines ───────────────► workloads          real connections between endpoints
//!              └ ────── nft in the fabric, or relays ► cut and heal
//! ```

pub mod addresses;
pub mod client;
pub mod config;
pub mod flow;
pub mod network;
pub mod process;
pub mod readiness;
pub mod relay;
pub mod ringfence;
pub mod start;
pub mod topology;

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};

use addresses::Addresses;
use client::Workload;
use config::ConfigFiles;
use network::Network;
use process::Process;
use relay::Relays;
use ringfence::Ringfence;
use topology::{CLUSTERS, CUT_CLUSTER, Cluster, Endpoint, Node};

use crate::workload::protocol::{Request, Response};

/// How packets are judged in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// eBPF programs on real devices in network namespaces.
    Kernel,
    /// The agents' memory datapath; no packets.
    Memory,
}

/// Everything that runs.
#[derive(Debug)]
pub struct Testbed {
    mode: Mode,
    addresses: Addresses,
    config: ConfigFiles,
    ringfence: Ringfence,
    link: Link,
    /// In the order of [`CLUSTERS`].
    members: Vec<Process>,
    gateways: Vec<Process>,
    /// In the order of [`topology::nodes`].
    agents: Vec<(Node, Process)>,
    /// In the order of [`topology::endpoints`]; none in memory mode.
    workloads: Vec<Workload>,
}

/// What lies between the clusters.
#[derive(Debug)]
pub enum Link {
    /// The fabric namespace.
    Network(Network),
    /// Relays in this process.
    Relays(Relays),
}

impl Testbed {
    /// How packets are judged.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The CLI.
    #[must_use]
    pub fn ringfence(&self) -> &Ringfence {
        &self.ringfence
    }

    /// The gateways of some clusters, as servers for the CLI.
    #[must_use]
    pub fn gateways_of(&self, clusters: &[&str]) -> Vec<SocketAddr> {
        clusters.iter().flat_map(|name| named(name)).map(|cluster| self.addresses.gateway(cluster)).collect()
    }

    /// Cuts the drill's cluster off from the others.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn cut(&self) -> Result<()> {
        match &self.link {
            Link::Network(network) => named(CUT_CLUSTER).into_iter().try_for_each(|cluster| network.cut(cluster)),
            Link::Relays(relays) => {
                relays.cut();
                Ok(())
            }
        }
    }

    /// Undoes [`Self::cut`].
    ///
    /// # Errors
    /// When nft refuses.
    pub fn heal(&self) -> Result<()> {
        match &self.link {
            Link::Network(network) => network.heal(),
            Link::Relays(relays) => {
                relays.heal();
                Ok(())
            }
        }
    }

    /// The process of a cluster's store member.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub fn member(&mut self, cluster: &str) -> Result<&mut Process> {
        let index = CLUSTERS.iter().position(|known| known.name == cluster);
        index.and_then(|index| self.members.get_mut(index)).with_context(|| format!("no member in cluster {cluster}"))
    }

    /// The process of a node's agent.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn agent(&mut self, node: Node) -> Result<&mut Process> {
        let found = self.agents.iter_mut().find(|(known, _)| *known == node);
        found.map(|(_, process)| process).with_context(|| format!("no agent on {node}"))
    }

    /// Asks the workload in an endpoint.
    ///
    /// # Errors
    /// When there is none, or when it cannot do what is asked.
    pub fn ask(&mut self, endpoint: Endpoint, request: &Request) -> Result<Response> {
        match self.workloads.iter_mut().find(|workload| workload.endpoint == endpoint) {
            Some(workload) => workload.ask(request),
            None => bail!("no workload in {endpoint}"),
        }
    }

    /// Whether every process still runs.
    ///
    /// # Errors
    /// The first one that ended by itself, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        let agents = self.agents.iter_mut().map(|(_, process)| process);
        let workloads = self.workloads.iter_mut().map(Workload::process);
        self.members.iter_mut().chain(&mut self.gateways).chain(agents).chain(workloads).try_for_each(Process::check)
    }
}

fn named(name: &str) -> Option<Cluster> {
    CLUSTERS.into_iter().find(|cluster| cluster.name == name)
}
