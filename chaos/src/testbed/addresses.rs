//! Where the store's members and the gateways listen, and under which address they are known.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};

use super::topology::{CLUSTERS, Cluster};

const MEMBER_PORT: u16 = 7400;
const GATEWAY_PORT: u16 = 7401;

/// The control plane's addresses, by cluster id from 1.
#[derive(Debug, Clone)]
pub struct Addresses {
    member_listens: Vec<SocketAddr>,
    member_known_as: Vec<SocketAddr>,
    gateways: Vec<SocketAddr>,
}

impl Addresses {
    /// Each cluster's own namespace, the default ports.
    #[must_use]
    pub fn in_namespaces() -> Self {
        let at = |port| CLUSTERS.iter().map(|cluster| SocketAddr::new(cluster.control_addresses()[0], port)).collect();
        let members: Vec<SocketAddr> = at(MEMBER_PORT);
        Self { member_known_as: members.clone(), member_listens: members, gateways: at(GATEWAY_PORT) }
    }

    /// Free ports of the loopback address. Members are known by the address of the relay in front of them.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn on_loopback() -> Result<Self> {
        // All sockets are held until the last port is known, so that no port comes twice.
        let sockets: Vec<TcpListener> = (0..3 * CLUSTERS.len())
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free loopback port"))
            .collect::<Result<_>>()?;
        let ports: Vec<SocketAddr> =
            sockets.iter().map(|s| s.local_addr().context("a socket without address")).collect::<Result<_>>()?;
        let mut thirds = ports.chunks(CLUSTERS.len()).map(<[SocketAddr]>::to_vec);
        let mut next = || thirds.next().unwrap_or_default();
        Ok(Self { member_listens: next(), member_known_as: next(), gateways: next() })
    }

    /// Where a cluster's member listens.
    #[must_use]
    pub fn member_listen(&self, cluster: Cluster) -> SocketAddr {
        self.member_listens[index(cluster)]
    }

    /// Under which address everybody knows a cluster's member.
    #[must_use]
    pub fn member(&self, cluster: Cluster) -> SocketAddr {
        self.member_known_as[index(cluster)]
    }

    /// Where a cluster's gateway listens.
    #[must_use]
    pub fn gateway(&self, cluster: Cluster) -> SocketAddr {
        self.gateways[index(cluster)]
    }

    /// A node's own addresses as its agent declares them.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.gateways.iter().all(|gateway| gateway.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

fn index(cluster: Cluster) -> usize {
    usize::from(cluster.id) - 1
}
