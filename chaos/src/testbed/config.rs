//! The configuration files of every process, written as an operator would write them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::addresses::Addresses;
use super::network::node_role;
use super::topology::{self, CLUSTERS, Cluster, Node};
use crate::run::directory::RunDirectory;

/// Writes and finds the configuration files of a run.
#[derive(Debug, Clone)]
pub struct ConfigFiles {
    directory: PathBuf,
    certificates: PathBuf,
    run: PathBuf,
}

impl ConfigFiles {
    /// For a run; makes the directories.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn new(run: &RunDirectory) -> Result<Self> {
        let files = Self {
            directory: run.path().join("config"),
            certificates: run.path().join("tls"),
            run: run.path().to_owned(),
        };
        for directory in [&files.directory, &run.logs(), &run.path().join("store")] {
            fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        Ok(files)
    }

    /// The file of a component, by the name it was written under.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.yaml"))
    }

    /// An agent's Unix socket.
    #[must_use]
    pub fn agent_socket(&self, node: Node) -> PathBuf {
        self.run.join(format!("{}.sock", node_role(node)))
    }

    /// A bpffs of the run's own, where the agents pin their links and maps.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.run.join("bpf")
    }

    /// The certificate subjects that the processes and the operator need.
    #[must_use]
    pub fn subjects() -> Vec<String> {
        let clusters = CLUSTERS.iter().flat_map(|c| [format!("member/{}", c.id), format!("gateway/{}", c.name)]);
        let agents = topology::nodes().into_iter().map(|node| format!("agent/{}/{}", node.cluster.name, node.name()));
        clusters.chain(agents).chain(["admin/demo".to_owned()]).collect()
    }

    /// Writes every file.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn write_all(&self, addresses: &Addresses, kernel: bool) -> Result<()> {
        for cluster in CLUSTERS {
            self.write(&member_name(cluster), &self.member(cluster, addresses))?;
            self.write(&gateway_name(cluster), &self.gateway(cluster, addresses))?;
        }
        for node in topology::nodes() {
            self.write(&endpoints_name(node), &endpoints(node))?;
            self.write(&agent_name(node), &self.agent(node, addresses, kernel))?;
        }
        Ok(())
    }

    fn member(&self, cluster: Cluster, addresses: &Addresses) -> Value {
        let members: Vec<Value> = CLUSTERS
            .iter()
            .map(|member| {
                json!({"id": member.id, "cluster": member.name, "address": addresses.member(*member).to_string()})
            })
            .collect();
        json!({
            "id": cluster.id,
            "cluster": cluster.name,
            "listen": addresses.member_listen(cluster).to_string(),
            "data_dir": self.run.join("store").join(cluster.name),
            "members": members,
            "tls": self.tls(&format!("member-{}", cluster.id)),
        })
    }

    fn gateway(&self, cluster: Cluster, addresses: &Addresses) -> Value {
        // Its own cluster's member first.
        let own = [cluster].into_iter();
        let others = CLUSTERS.into_iter().filter(|other| *other != cluster);
        let members: Vec<String> = own.chain(others).map(|member| addresses.member(member).to_string()).collect();
        json!({
            "cluster": {"name": cluster.name, "id": cluster.id, "pod_cidrs": cluster.pod_cidrs()},
            "listen": addresses.gateway(cluster).to_string(),
            "members": members,
            "tls": self.tls(&format!("gateway-{}", cluster.name)),
        })
    }

    fn agent(&self, node: Node, addresses: &Addresses, kernel: bool) -> Value {
        let datapath =
            if kernel { json!({"kind": "kernel", "bpffs": self.bpffs()}) } else { json!({"kind": "memory"}) };
        json!({
            "cluster": node.cluster.name,
            "node": node.name(),
            "addresses": node.addresses(),
            "gateways": [addresses.gateway(node.cluster).to_string()],
            "tls": self.tls(&format!("agent-{}-{}", node.cluster.name, node.name())),
            "datapath": datapath,
            "endpoints_file": self.path(&endpoints_name(node)),
            "socket": self.agent_socket(node),
        })
    }

    fn tls(&self, name: &str) -> Value {
        let file = |name: &str| self.certificates.join(name);
        json!({
            "ca": file("ca.crt"),
            "certificate": file(&format!("{name}.crt")),
            "key": file(&format!("{name}.key")),
        })
    }

    fn write(&self, name: &str, value: &Value) -> Result<()> {
        let path = self.path(name);
        let text = yaml_serde::to_string(value).with_context(|| format!("cannot write {name} as YAML"))?;
        write(&path, &text)
    }
}

/// A member's process, log and configuration file.
#[must_use]
pub fn member_name(cluster: Cluster) -> String {
    format!("identityd-{}", cluster.name)
}

/// A gateway's process, log and configuration file.
#[must_use]
pub fn gateway_name(cluster: Cluster) -> String {
    format!("gateway-{}", cluster.name)
}

/// An agent's process, log and configuration file.
#[must_use]
pub fn agent_name(node: Node) -> String {
    format!("agent-{}", node_role(node))
}

fn endpoints_name(node: Node) -> String {
    format!("endpoints-{}", node_role(node))
}

fn endpoints(node: Node) -> Value {
    let entries: Vec<Value> = node
        .endpoints()
        .into_iter()
        .map(|endpoint| {
            json!({
                "name": endpoint.name,
                "interface": endpoint.interface(),
                "addresses": endpoint.addresses(),
                "labels": endpoint.labels(),
                "named_ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
            })
        })
        .collect();
    json!({ "endpoints": entries })
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
