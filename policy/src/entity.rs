//! Entities: peers with a name of their own (§2.4).

use std::fmt;

use crate::{
    label::{CLUSTER_KEY, SOURCE_K8S, SOURCE_RESERVED},
    name::Name,
    selector::{LabelKey, Requirement, Selector},
};

/// A word of `fromEntities` and `toEntities`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entity {
    /// Everyone, `unknown` included: the true wildcard.
    All,
    /// Everything outside the mesh.
    World,
    /// The local cluster's endpoints, and the nodes of every cluster.
    Cluster,
    /// The local node.
    Host,
    /// Every other node, of every cluster.
    RemoteNode,
    /// Everything outside the mesh, IPv4.
    WorldIpv4,
    /// Everything outside the mesh, IPv6.
    WorldIpv6,
    /// Whoever serves the Kubernetes API.
    KubeApiserver,
    /// The proxy behind Ingress and Gateway objects.
    Ingress,
    /// Endpoints without labels yet.
    Init,
    /// Health check endpoints.
    Health,
    /// Endpoints of the cluster that no agent manages.
    Unmanaged,
    /// Nobody; the direction is enforced all the same.
    None,
}

impl Entity {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::All,
        Self::World,
        Self::Cluster,
        Self::Host,
        Self::RemoteNode,
        Self::WorldIpv4,
        Self::WorldIpv6,
        Self::KubeApiserver,
        Self::Ingress,
        Self::Init,
        Self::Health,
        Self::Unmanaged,
        Self::None,
    ];

    /// The word as policies write it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::World => "world",
            Self::Cluster => "cluster",
            Self::Host => "host",
            Self::RemoteNode => "remote-node",
            Self::WorldIpv4 => "world-ipv4",
            Self::WorldIpv6 => "world-ipv6",
            Self::KubeApiserver => "kube-apiserver",
            Self::Ingress => "ingress",
            Self::Init => "init",
            Self::Health => "health",
            Self::Unmanaged => "unmanaged",
            Self::None => "none",
        }
    }

    /// The label of every address of a family outside the mesh: without a second family, that is the world (ID-22).
    #[must_use]
    pub fn world_of(ipv4: bool, dual_stack: bool) -> Selector {
        let name = match (dual_stack, ipv4) {
            (false, _) => "world",
            (true, true) => "world-ipv4",
            (true, false) => "world-ipv6",
        };
        Selector::label(SOURCE_RESERVED, name)
    }

    /// The entity of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|entity| entity.word() == word)
    }

    /// The selectors it stands for; any of them selects (§2.4).
    #[must_use]
    pub fn selectors(self, local_cluster: &Name) -> Vec<Selector> {
        let reserved = |names: &[&str]| names.iter().map(|name| Selector::label(SOURCE_RESERVED, name)).collect();
        match self {
            Self::All => vec![Selector::WILDCARD],
            Self::World => reserved(&["world", "world-ipv4", "world-ipv6"]),
            Self::Host
            | Self::RemoteNode
            | Self::WorldIpv4
            | Self::WorldIpv6
            | Self::KubeApiserver
            | Self::Ingress
            | Self::Init
            | Self::Health
            | Self::Unmanaged
            | Self::None => reserved(&[self.word()]),
            Self::Cluster => {
                let mut selectors: Vec<_> =
                    reserved(&["host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver"]);
                let own = Requirement::equals(LabelKey::new(SOURCE_K8S, CLUSTER_KEY), local_cluster.as_str());
                selectors.push(Selector::from_iter([own]));
                selectors
            }
        }
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::Identity,
        label::LabelSet,
        reserved::{RESERVED_PEERS, reserved_labels},
    };

    #[test]
    fn entities_select_what_section_2_4_says() {
        let east = Name::new("east").unwrap();
        let cases: [(Entity, &[u32]); 13] = [
            (Entity::All, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
            (Entity::World, &[2, 9, 10]),
            (Entity::Cluster, &[1, 3, 4, 5, 6, 7, 8]),
            (Entity::Host, &[1]),
            (Entity::RemoteNode, &[6, 7]),
            (Entity::WorldIpv4, &[9]),
            (Entity::WorldIpv6, &[10]),
            (Entity::KubeApiserver, &[7]),
            (Entity::Ingress, &[8]),
            (Entity::Init, &[5]),
            (Entity::Health, &[4]),
            (Entity::Unmanaged, &[3]),
            (Entity::None, &[]),
        ];
        for (entity, expected) in cases {
            let selects =
                |peer: Identity, labels: &LabelSet| entity.selectors(&east).iter().any(|s| s.selects(peer, labels));
            let peers = [Identity::UNKNOWN].into_iter().chain(RESERVED_PEERS);
            let selected: Vec<u32> =
                peers.filter(|peer| selects(*peer, &reserved_labels(*peer))).map(Identity::bits).collect();
            assert_eq!(selected, expected, "{entity}");
            for (cluster, own) in [("east", true), ("west", false)] {
                let labels = LabelSet::parse([format!("k8s:io.cilium.k8s.policy.cluster={cluster}")]).unwrap();
                let pod = Identity::from_bits(0x0010_0001);
                assert_eq!(selects(pod, &labels), entity == Entity::All || own && entity == Entity::Cluster);
            }
        }
    }
}
