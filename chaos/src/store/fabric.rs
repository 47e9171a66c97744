//! The network between the members: a namespace for each, and this process's own namespace as the router between them.
//!
//! ```text
//!  m1 ── veth ── 10.98.1.1 ┐
//!  m2 ── veth ── 10.98.2.1 ┼─ this process: clients and watchers; nft in its `forward` hook loses packets between members
//!  m3 ── veth ── 10.98.3.1 ┘
//! ```

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::directory::RunDirectory;
use crate::run::shell;
use crate::testbed::network::Network;

/// Where every member listens, in its own namespace.
const PORT: u16 = 7400;
/// Set for the process that lives in a namespace of its own.
const INSIDE: &str = "RINGFENCE_STORE_DRILL_INSIDE";

/// The network of one run; its namespaces are removed with the run.
#[derive(Debug)]
pub struct Fabric {
    members: usize,
}

/// Packets that get lost between members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All from one member, by index, to another.
    Link {
        /// Who sends.
        from: usize,
        /// Who does not receive.
        to: usize,
    },
    /// Some of all.
    Everywhere {
        /// Of 100.
        percent: u64,
    },
}

/// Goes on in a new network namespace: this program is started anew, with the same arguments.
///
/// # Errors
/// When namespaces are not permitted.
pub fn enter() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let own = std::env::current_exe().context("cannot find this binary's path")?;
    let mut command = Command::new("unshare");
    command.args(["--net", "--"]).arg(own).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    bail!("cannot run unshare (util-linux): {}", command.exec());
}

/// Why the drill cannot be run here, if it cannot.
#[must_use]
pub fn obstacle() -> Option<String> {
    let attempt = "ip link set lo up && nft add table inet probe && mkdir -p /run/netns";
    shell::run(Command::new("unshare").args(["--net", "sh", "-ec", attempt])).err().map(|error| format!("{error:#}"))
}

impl Fabric {
    /// Makes the namespaces and links of a run.
    ///
    /// # Errors
    /// The first command that fails, with what it said.
    pub fn create(run: &RunDirectory, members: usize) -> Result<Self> {
        let network = Network::of(run);
        shell::run(Command::new("sh").args(["-ec", "echo 1 > /proc/sys/net/ipv4/ip_forward"]))?;
        let mut script = String::from("link set lo up\n");
        for index in 0..members {
            let (role, gateway) = (role(index), gateway(index));
            let namespace = run.namespace(&role);
            let _ =
                writeln!(script, "netns add {namespace}\nlink add {role} type veth peer name eth0 netns {namespace}");
            let _ = writeln!(script, "link set {role} up\naddress add {gateway}/24 dev {role}");
        }
        shell::run_with_input(Command::new("ip").args(["-batch", "-"]), &script)
            .context("cannot make the namespaces")?;
        for index in 0..members {
            let (own, gateway) = (address(index).ip(), gateway(index));
            let script = format!(
                "link set lo up\nlink set eth0 up\naddress add {own}/24 dev eth0\nroute add default via {gateway}\n"
            );
            shell::run_with_input(network.command(&role(index), "ip").args(["-batch", "-"]), &script)
                .with_context(|| format!("cannot set up the links of {}", role(index)))?;
        }
        Ok(Self { members })
    }

    /// Loses these packets and no others, from now on.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn lose(&self, losses: &[Loss]) -> Result<()> {
        let mut rules = String::new();
        for loss in losses {
            let _ = match loss {
                Loss::Link { from, to } => {
                    writeln!(rules, "ip saddr {} ip daddr {} drop", address(*from).ip(), address(*to).ip())
                }
                Loss::Everywhere { percent } => writeln!(rules, "numgen random mod 100 < {percent} drop"),
            };
        }
        let ruleset = format!(
            "table inet drill {{}}\ndelete table inet drill\ntable inet drill {{\n  chain forward {{\n    \
             type filter hook forward priority 0; policy accept;\n{rules}  }}\n}}\n"
        );
        shell::run_with_input(Command::new("nft").args(["-f", "-"]), &ruleset).map(drop)
    }

    /// Every link between two groups, in both directions.
    #[must_use]
    pub fn between(&self, group: &[usize]) -> Vec<Loss> {
        let others = (0..self.members).filter(|index| !group.contains(index));
        let both = |(inside, outside): (usize, usize)| {
            [Loss::Link { from: inside, to: outside }, Loss::Link { from: outside, to: inside }]
        };
        others.flat_map(|other| group.iter().map(move |member| (*member, other))).flat_map(both).collect()
    }
}

/// The name of a member, by index: of its namespace, its device and its process.
#[must_use]
pub fn role(index: usize) -> String {
    format!("m{}", index + 1)
}

/// Where a member is reached.
#[must_use]
pub fn address(index: usize) -> SocketAddr {
    SocketAddr::from((subnet(index, 10), PORT))
}

fn gateway(index: usize) -> Ipv4Addr {
    subnet(index, 1)
}

fn subnet(index: usize, host: u8) -> Ipv4Addr {
    let third = u8::try_from(index + 1).expect("a store has few members");
    Ipv4Addr::new(10, 98, third, host)
}
