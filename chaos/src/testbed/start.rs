//! From nothing to twelve control processes and twelve workloads.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::addresses::Addresses;
use super::client::Workload;
use super::config::{self, ConfigFiles};
use super::network::{Network, endpoint_role, node_role};
use super::process::{Launcher, Process, Recipe};
use super::relay::Relays;
use super::ringfence::Ringfence;
use super::topology::{self, CLUSTERS};
use super::{Link, Mode, Testbed};
use crate::run::directory::RunDirectory;
use crate::run::shell;
use crate::workload::protocol::Response;

/// The binaries under test.
#[derive(Debug, Clone)]
pub struct Binaries {
    directory: PathBuf,
}

impl Binaries {
    /// Those of one build directory.
    ///
    /// # Errors
    /// When one is missing: which, and how it is built.
    pub fn in_directory(directory: &Path) -> Result<Self> {
        let directory = fs::canonicalize(directory).with_context(|| format!("no directory {}", directory.display()))?;
        let found = Self { directory };
        for name in ["identityd", "mesh-gateway", "ringfence-agent", "ringfence"] {
            if !found.path(name).is_file() {
                bail!("{} is missing: `cargo xtask demo` builds it", found.path(name).display());
            }
        }
        Ok(found)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Testbed {
    /// Makes the network and the certificates and starts every process. `keep`: they outlive this process.
    ///
    /// # Errors
    /// The first thing that could not be made, and why.
    pub fn start(mode: Mode, run: &RunDirectory, binaries: &Binaries, keep: bool) -> Result<Self> {
        let config = ConfigFiles::new(run)?;
        let (link, addresses) = match mode {
            Mode::Kernel => (Link::Network(Network::create(run)?), Addresses::in_namespaces()),
            Mode::Memory => {
                let addresses = Addresses::on_loopback()?;
                (Link::Relays(Relays::start(run, &addresses)?), addresses)
            }
        };
        let network = if let Link::Network(network) = &link { Some(network.clone()) } else { None };
        let launcher = Launcher::new(run, network, keep);
        let ringfence = Ringfence::new(launcher.clone(), binaries.path("ringfence"), run.path().join("tls"));
        ringfence.init_authority(&ConfigFiles::subjects())?;
        config.write_all(&addresses, mode == Mode::Kernel)?;
        let mut bed = Self {
            mode,
            addresses,
            config,
            ringfence,
            link,
            members: Vec::new(),
            gateways: Vec::new(),
            agents: Vec::new(),
            workloads: Vec::new(),
        };
        bed.start_control_plane(&launcher, binaries)?;
        if mode == Mode::Kernel {
            bed.start_workloads(&launcher)?;
            mount_bpffs(&bed.config.bpffs())?;
        }
        for node in topology::nodes() {
            let recipe = bed.recipe(config::agent_name(node), node_role(node), binaries.path("ringfence-agent"));
            bed.agents.push((node, launcher.start(recipe)?));
        }
        Ok(bed)
    }

    fn start_control_plane(&mut self, launcher: &Launcher, binaries: &Binaries) -> Result<()> {
        for cluster in CLUSTERS {
            let role = cluster.name.to_owned();
            let member = self.recipe(config::member_name(cluster), role.clone(), binaries.path("identityd"));
            self.members.push(launcher.start(member)?);
            let gateway = self.recipe(config::gateway_name(cluster), role, binaries.path("mesh-gateway"));
            self.gateways.push(launcher.start(gateway)?);
        }
        Ok(())
    }

    fn start_workloads(&mut self, launcher: &Launcher) -> Result<()> {
        let program = std::env::current_exe().context("cannot find this binary's path")?;
        for endpoint in topology::endpoints() {
            let role = endpoint_role(endpoint);
            let recipe = Recipe {
                name: format!("workload-{role}"),
                role,
                program: program.clone(),
                arguments: vec!["workload".to_owned()],
                piped: true,
            };
            self.workloads.push(Workload::new(endpoint, launcher.start(recipe)?)?);
        }
        for workload in &mut self.workloads {
            if !matches!(workload.receive()?, Response::Ready) {
                bail!("workload {} does not say that it is ready", workload.endpoint);
            }
        }
        Ok(())
    }

    fn recipe(&self, name: String, role: String, program: PathBuf) -> Recipe {
        let arguments = vec!["--config".to_owned(), self.config.path(&name).to_string_lossy().into_owned()];
        Recipe { name, role, program, arguments, piped: false }
    }

    /// Every process of the control plane and the nodes, for messages.
    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.members.iter().chain(&self.gateways).chain(self.agents.iter().map(|(_, process)| process))
    }
}

/// The machine's /sys/fs/bpf is not touched, and unmounting removes every pin.
fn mount_bpffs(directory: &Path) -> Result<()> {
    fs::create_dir(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    shell::run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(directory)).map(drop)
}
