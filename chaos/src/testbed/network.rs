//! The routed network of namespaces: a fabric that routes between clusters, nodes that route to their endpoints.
//!
//! ```text
//!  admin 10.40.0.10 ─┐            ┌─ east (member, gateway) 10.40.1.10
//!                    ├── fabric ──┼─ east-n1 10.40.1.1 ── veth-web-1 ── endpoint east-web-1 10.101.1.10
//!                    │  (router)  ├─ east-n2 …
//!                    └────────────┴─ west …, south …
//! ```
//!
//! Every link is point to point: the leaf has a /32 and a /128 and sends everything to its router's link-local address.
//! Nothing of the machine's own network is touched.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::topology::{self, CLUSTERS, Cluster, Endpoint};
use crate::run::directory::RunDirectory;
use crate::run::shell;

const ROUTER: &str = "fabric";
/// The namespace from which the demo's operator uses the CLI.
pub const ADMIN: &str = "admin";
/// No duplicate address detection: an address is usable at once. Reverse path filters off: the machine's default may be strict.
const SETTINGS: &str = "for f in all default; do \
    echo 0 >/proc/sys/net/ipv6/conf/$f/accept_dad; echo 0 >/proc/sys/net/ipv4/conf/$f/rp_filter; \
    echo 0 >/proc/sys/net/ipv6/conf/$f/disable_ipv6; done";
const FORWARDING: &str = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";

/// The namespaces of one run.
#[derive(Debug, Clone)]
pub struct Network {
    run: RunDirectory,
}

/// What a router answers for on each of its links. The fabric's differ from the nodes': a node has both sides, and the
/// kernel refuses a gateway that is an address of its own.
const FABRIC_GATEWAY: [&str; 2] = ["169.254.2.1", "fe80::2"];
const NODE_GATEWAY: [&str; 2] = ["169.254.1.1", "fe80::1"];

/// A namespace with one uplink.
struct Leaf {
    role: String,
    router: String,
    router_device: String,
    gateway: [&'static str; 2],
    addresses: [IpAddr; 2],
    /// Ranges behind the leaf.
    behind: Vec<String>,
}

impl Network {
    /// Makes every namespace, link, address and route.
    ///
    /// # Errors
    /// The first command that fails, with what it said.
    pub fn create(run: &RunDirectory) -> Result<Self> {
        let network = Self { run: run.clone() };
        let leaves = leaves();
        network.add_namespaces(&leaves)?;
        for router in routers() {
            network.batch(&router, &router_script(&leaves, &router, &network.run))?;
        }
        for leaf in &leaves {
            network.batch(&leaf.role, &leaf_script(leaf))?;
        }
        Ok(network)
    }

    /// The namespaces of a run that makes them by itself.
    #[must_use]
    pub fn of(run: &RunDirectory) -> Self {
        Self { run: run.clone() }
    }

    /// A command that runs inside a namespace. The process keeps its id and its mount namespace.
    #[must_use]
    pub fn command(&self, role: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path(role).display())).arg("--").arg(program);
        command
    }

    /// The namespace's file, for `nsenter --net=`.
    #[must_use]
    pub fn path(&self, role: &str) -> PathBuf {
        PathBuf::from("/run/netns").join(self.run.namespace(role))
    }

    /// Drops every packet between the cluster's control plane and nodes and those of the other clusters. Packets between
    /// endpoints pass: whether *they* are still judged by the last realised revision is what the drill looks at.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn cut(&self, cluster: Cluster) -> Result<()> {
        let mut rules = String::new();
        let [four, six] = cluster.infrastructure_cidrs();
        for other in CLUSTERS.iter().filter(|other| **other != cluster) {
            let [other_four, other_six] = other.infrastructure_cidrs();
            for (family, ours, theirs) in [("ip", &four, &other_four), ("ip6", &six, &other_six)] {
                let _ = writeln!(rules, "    {family} saddr {ours} {family} daddr {theirs} counter drop");
                let _ = writeln!(rules, "    {family} saddr {theirs} {family} daddr {ours} counter drop");
            }
        }
        let ruleset = format!(
            "table inet ringfence_cut {{\n  chain forward {{\n    type filter hook forward priority 0; policy accept;\n{rules}  }}\n}}\n"
        );
        shell::run_with_input(self.command(ROUTER, "nft").args(["-f", "-"]), &ruleset).map(drop)
    }

    /// Undoes [`Self::cut`].
    ///
    /// # Errors
    /// When nft refuses.
    pub fn heal(&self) -> Result<()> {
        shell::run(self.command(ROUTER, "nft").args(["delete", "table", "inet", "ringfence_cut"])).map(drop)
    }

    fn add_namespaces(&self, leaves: &[Leaf]) -> Result<()> {
        let mut script = format!("netns add {}\n", self.run.namespace(ROUTER));
        for leaf in leaves {
            let _ = writeln!(script, "netns add {}", self.run.namespace(&leaf.role));
        }
        shell::run_with_input(Command::new("ip").args(["-batch", "-"]), &script)
            .context("cannot make the namespaces")?;
        let routers = routers();
        for role in leaves.iter().map(|leaf| &leaf.role).chain([&ROUTER.to_owned()]) {
            let forwarding = if routers.contains(role) { FORWARDING } else { ":" };
            shell::run(self.command(role, "sh").args(["-ec", &format!("{SETTINGS}; {forwarding}")]))
                .with_context(|| format!("cannot set up namespace {role}"))?;
        }
        Ok(())
    }

    fn batch(&self, role: &str, script: &str) -> Result<()> {
        shell::run_with_input(self.command(role, "ip").args(["-batch", "-"]), script)
            .map(drop)
            .with_context(|| format!("cannot set up the links of namespace {role}"))
    }
}

/// The namespace of an endpoint.
#[must_use]
pub fn endpoint_role(endpoint: Endpoint) -> String {
    format!("{}-{}", endpoint.node.cluster.name, endpoint.name)
}

/// The namespace of a node.
#[must_use]
pub fn node_role(node: topology::Node) -> String {
    format!("{}-{}", node.cluster.name, node.name())
}

fn routers() -> Vec<String> {
    [ROUTER.to_owned()].into_iter().chain(topology::nodes().into_iter().map(node_role)).collect()
}

fn leaves() -> Vec<Leaf> {
    let fabric = |role: String, addresses, behind| Leaf {
        router: ROUTER.to_owned(),
        router_device: role.clone(),
        gateway: FABRIC_GATEWAY,
        role,
        addresses,
        behind,
    };
    let admin = [IpAddr::from([10, 40, 0, 10]), IpAddr::from([0xfd40, 0, 0, 0, 0, 0, 0, 0x10])];
    let mut leaves = vec![fabric(ADMIN.to_owned(), admin, Vec::new())];
    leaves.extend(CLUSTERS.iter().map(|c| fabric(c.name.to_owned(), c.control_addresses(), Vec::new())));
    let nodes = topology::nodes();
    leaves.extend(nodes.iter().map(|node| fabric(node_role(*node), node.addresses(), node.pod_cidrs().to_vec())));
    leaves.extend(topology::endpoints().into_iter().map(|endpoint| Leaf {
        role: endpoint_role(endpoint),
        router: node_role(endpoint.node),
        router_device: endpoint.interface(),
        gateway: NODE_GATEWAY,
        addresses: endpoint.addresses(),
        behind: Vec::new(),
    }));
    leaves
}

/// The router's side of each of its links: the device, the addresses that every leaf sends to, the leaf's routes.
fn router_script(leaves: &[Leaf], router: &str, run: &RunDirectory) -> String {
    let mut script = String::from("link set lo up\n");
    for leaf in leaves.iter().filter(|leaf| leaf.router == router) {
        let (device, [four, six]) = (&leaf.router_device, leaf.addresses);
        let [gateway_four, gateway_six] = leaf.gateway;
        let namespace = run.namespace(&leaf.role);
        let _ = writeln!(script, "link add {device} type veth peer name eth0 netns {namespace}");
        let _ = writeln!(script, "link set {device} up");
        let _ = writeln!(script, "address add {gateway_four}/32 dev {device}");
        let _ = writeln!(script, "address add {gateway_six}/64 dev {device} nodad");
        let _ = writeln!(script, "route add {four}/32 dev {device}");
        let _ = writeln!(script, "route add {six}/128 dev {device}");
        for range in &leaf.behind {
            let via = if range.contains(':') { six } else { four };
            let _ = writeln!(script, "route add {range} via {via} dev {device}");
        }
    }
    script
}

fn leaf_script(leaf: &Leaf) -> String {
    let ([four, six], [gateway_four, gateway_six]) = (leaf.addresses, leaf.gateway);
    format!(
        "link set lo up\nlink set eth0 up\naddress add {four}/32 dev eth0\naddress add {six}/128 dev eth0 nodad\n\
         route add default via {gateway_four} dev eth0 onlink\nroute add default via {gateway_six} dev eth0\n"
    )
}
