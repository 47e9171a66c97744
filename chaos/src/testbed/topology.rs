//! The demo's mesh as data: three clusters, two nodes each, two endpoints per node, and every address.
//!
//! Placement is chosen so that each policy of `demo/` decides cells within a node, across the nodes of a cluster and
//! across clusters: `web` and `api` share a node in east only, the `dev` endpoint sits beside `web` in west and beside
//! `api` in south.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A cluster: one store member, one gateway, two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cluster {
    /// Its name in the mesh.
    pub name: &'static str,
    /// Its number in the mesh, also the id of its store member and the third octet of its addresses.
    pub id: u8,
}

/// A node of a cluster: one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// The cluster it belongs to.
    pub cluster: Cluster,
    /// 1 or 2.
    pub number: u8,
}

/// A workload with one IPv4 and one IPv6 address on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The node it runs on.
    pub node: Node,
    /// Unique within its node.
    pub name: &'static str,
    /// The value of its label `app`.
    pub app: &'static str,
    /// Its Kubernetes namespace.
    pub namespace: &'static str,
    /// The last part of its addresses.
    pub number: u8,
}

/// The three clusters.
pub const CLUSTERS: [Cluster; 3] =
    [Cluster { name: "east", id: 1 }, Cluster { name: "west", id: 2 }, Cluster { name: "south", id: 3 }];

/// The cluster that the drill cuts off.
pub const CUT_CLUSTER: &str = "west";

/// (cluster, node, name, app, namespace)
const PLACEMENT: [(usize, u8, &str, &str, &str); 12] = [
    (0, 1, "web-1", "web", "shop"),
    (0, 1, "api-1", "api", "shop"),
    (0, 2, "db-1", "db", "shop"),
    (0, 2, "web-dev", "web", "dev"),
    (1, 1, "web-1", "web", "shop"),
    (1, 1, "api-dev", "api", "dev"),
    (1, 2, "api-1", "api", "shop"),
    (1, 2, "db-1", "db", "shop"),
    (2, 1, "api-1", "api", "shop"),
    (2, 1, "web-dev", "web", "dev"),
    (2, 2, "web-1", "web", "shop"),
    (2, 2, "db-1", "db", "shop"),
];

/// All six nodes, by cluster.
#[must_use]
pub fn nodes() -> Vec<Node> {
    CLUSTERS.iter().flat_map(|cluster| [1, 2].map(|number| Node { cluster: *cluster, number })).collect()
}

/// All twelve endpoints, by cluster and node.
#[must_use]
pub fn endpoints() -> Vec<Endpoint> {
    let mut last = (0, 0);
    let mut number = 10;
    PLACEMENT
        .iter()
        .map(|&(cluster, node, name, app, namespace)| {
            number = if last == (cluster, node) { number + 1 } else { 10 };
            last = (cluster, node);
            Endpoint { node: Node { cluster: CLUSTERS[cluster], number: node }, name, app, namespace, number }
        })
        .collect()
}

impl Cluster {
    /// Where its store member and its gateway listen, in namespaces.
    #[must_use]
    pub fn control_addresses(self) -> [IpAddr; 2] {
        host_addresses(self.id, 10)
    }

    /// The ranges of its endpoints' addresses.
    #[must_use]
    pub fn pod_cidrs(self) -> [String; 2] {
        [format!("10.10{}.0.0/16", self.id), format!("fd10:{}::/32", self.id)]
    }

    /// The ranges of its nodes and its control plane.
    #[must_use]
    pub fn infrastructure_cidrs(self) -> [String; 2] {
        [format!("10.40.{}.0/24", self.id), format!("fd40::{}:0/112", self.id)]
    }
}

impl Node {
    /// Its name within its cluster.
    #[must_use]
    pub fn name(self) -> String {
        format!("n{}", self.number)
    }

    /// The node's own addresses.
    #[must_use]
    pub fn addresses(self) -> [IpAddr; 2] {
        host_addresses(self.cluster.id, self.number)
    }

    /// The ranges of the endpoints on this node.
    #[must_use]
    pub fn pod_cidrs(self) -> [String; 2] {
        let (cluster, node) = (self.cluster.id, self.number);
        [format!("10.10{cluster}.{node}.0/24"), format!("fd10:{cluster}:{node}::/64")]
    }

    /// The endpoints on this node.
    #[must_use]
    pub fn endpoints(self) -> Vec<Endpoint> {
        endpoints().into_iter().filter(|endpoint| endpoint.node == self).collect()
    }
}

impl Endpoint {
    /// Its addresses, IPv4 first.
    #[must_use]
    pub fn addresses(self) -> [IpAddr; 2] {
        let (cluster, node, number) = (self.node.cluster.id, self.node.number, self.number);
        let text = u16::from(number / 10 * 16 + number % 10); // fd10:1:1::10 beside 10.101.1.10, as a person writes it
        let six = Ipv6Addr::new(0xfd10, u16::from(cluster), u16::from(node), 0, 0, 0, 0, text);
        [Ipv4Addr::new(10, 100 + cluster, node, number).into(), six.into()]
    }

    /// The host-side device on its node.
    #[must_use]
    pub fn interface(self) -> String {
        format!("veth-{}", self.name)
    }

    /// Its labels, `source:key=value`.
    #[must_use]
    pub fn labels(self) -> [String; 2] {
        [format!("k8s:app={}", self.app), format!("k8s:io.kubernetes.pod.namespace={}", self.namespace)]
    }
}

impl fmt::Display for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/n{}", self.cluster.name, self.number)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.node.cluster.name, self.name)
    }
}

fn host_addresses(cluster: u8, host: u8) -> [IpAddr; 2] {
    let text = u16::from(host / 10 * 16 + host % 10);
    let six = Ipv6Addr::new(0xfd40, 0, 0, 0, 0, 0, u16::from(cluster), text);
    [Ipv4Addr::new(10, 40, cluster, host).into(), six.into()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn addresses_are_unique_and_inside_their_ranges() {
        let all: BTreeSet<IpAddr> = endpoints().iter().flat_map(|endpoint| endpoint.addresses()).collect();
        assert_eq!(all.len(), 24);
        let first = endpoints()[0];
        assert_eq!(first.addresses().map(|address| address.to_string()), ["10.101.1.10", "fd10:1:1::10"]);
        assert_eq!(CLUSTERS[1].control_addresses().map(|a| a.to_string()), ["10.40.2.10", "fd40::2:10"]);
        assert_eq!(nodes()[5].addresses().map(|a| a.to_string()), ["10.40.3.2", "fd40::3:2"]);
    }

    #[test]
    fn device_names_fit_the_kernels_fifteen_bytes() {
        assert!(endpoints().iter().all(|endpoint| endpoint.interface().len() <= 15));
    }

    #[test]
    fn every_node_has_two_endpoints() {
        assert!(nodes().iter().all(|node| node.endpoints().len() == 2));
    }
}
