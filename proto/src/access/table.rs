//! The table: what each role may ask for. Pure.

use std::{collections::BTreeSet, fmt};

use ringfence_policy::{command::Command, name::Name, record::RecordKey};

use super::Role;
use crate::v1;

/// Where something is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Site {
    /// A member of the store.
    Store,
    /// A cluster's gateway.
    Gateway(Name),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// As its certificate says.
    pub role: Role,
    /// For whom a gateway says that it asks.
    pub on_behalf_of: Option<Role>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// `Mesh.Follow`, `Mesh.List`, `Mesh.Status`.
    Read,
    /// `Mesh.Follow` of what one node needs.
    View {
        /// Its cluster.
        cluster: Name,
        /// The node.
        node: Name,
    },
    /// A change of records.
    Write(Scope),
    /// A report about how something does.
    Report(Scope),
    /// Consensus between members.
    Raft,
    /// Consensus, by a call that says which member calls.
    RaftAs(u64),
    /// The store itself: membership, snapshots, hashes, everything that is not in this list.
    Administer,
}

/// Whose records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's: policies, CIDR groups and settings.
    Mesh,
    /// A cluster's: its own record, its identities and their blocks, leases, services and DNS names.
    Cluster(Name),
    /// A node's: its own record and its endpoints.
    Node {
        /// Its cluster.
        cluster: Name,
        /// The node.
        node: Name,
    },
    /// A name that cannot be one.
    Unknown,
}

/// A request that the caller may not make.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{caller} may not {access} here: {rule}")]
pub struct Refusal {
    /// Who asked.
    pub caller: Caller,
    /// For what.
    pub access: Access,
    /// What is right.
    pub rule: &'static str,
}

const READERS: &str = "a reader's certificate only reads; changes need one of an admin (ringfence ca issue admin/NAME)";
const ADMINS: &str = "this needs an admin's certificate, shown to a member of the store itself";
const OWN_CLUSTER: &str = "a gateway writes and reports only what belongs to its own cluster";
const OWN_NODE: &str = "an agent writes and reports only its own node and that node's endpoints";
const OWN_GATEWAY: &str = "an agent talks to the gateway of its own cluster";
const STORE: &str = "agents talk to their cluster's gateway, not to the store";
const GATEWAY: &str = "gateways and members do not talk to gateways";
const OWN_ID: &str = "a member speaks for itself alone; each needs the certificate of its own id ('ringfence ca issue member/ID'), and \
                      that id in its configuration";
const RAFT: &str = "consensus is between members of the store";
const VIEWS: &str = "the view of a node is for its own agent, at the gateway of its cluster; correct the agent's cluster and \
                     node, or give it a certificate of its own";
const SPEAKS: &str = "only a gateway asks for somebody else: for admins, and for agents of its own cluster";

/// The whole table.
///
/// # Errors
/// A `Refusal`; the request must not be carried out.
pub fn authorise(site: &Site, caller: &Caller, access: &Access) -> Result<(), Box<Refusal>> {
    let refusal = |rule| Box::new(Refusal { caller: caller.clone(), access: access.clone(), rule });
    rule(site, caller, access).map_err(refusal)
}

fn rule(site: &Site, caller: &Caller, access: &Access) -> Result<(), &'static str> {
    if let Access::View { cluster, node } = access {
        let agent = Role::Agent { cluster: cluster.clone(), node: node.clone() };
        let is_there = matches!(site, Site::Gateway(of) if of == cluster);
        return allow(is_there && caller.on_behalf_of.is_none() && caller.role == agent, VIEWS);
    }
    if let Access::RaftAs(id) = access {
        rule(site, caller, &Access::Raft)?;
        return allow(caller.role == Role::Member(*id), OWN_ID);
    }
    let Some(asker) = &caller.on_behalf_of else { return own(site, &caller.role, access) };
    let (Site::Store, Role::Gateway(cluster)) = (site, &caller.role) else { return Err(SPEAKS) };
    match (asker, access) {
        (_, Access::Raft) => Err(RAFT),
        (_, Access::Administer) => Err(ADMINS),
        (Role::Admin(_), Access::Read) => Ok(()),
        (Role::Admin(_), Access::Write(scope)) => allow(*scope == Scope::Mesh || scope.is_in(cluster), OWN_CLUSTER),
        (Role::Agent { cluster: of, .. }, Access::Read | Access::Write(_)) if of == cluster => by_agent(asker, access),
        _ => Err(SPEAKS),
    }
}

fn own(site: &Site, role: &Role, access: &Access) -> Result<(), &'static str> {
    match (role, site) {
        (Role::Member(_), Site::Store) => Ok(()),
        (Role::Member(_), Site::Gateway(_)) => Err(GATEWAY),
        (_, _) if *access == Access::Raft => Err(RAFT),
        (Role::Admin(_), Site::Store) => Ok(()),
        (Role::Admin(_), Site::Gateway(_)) => allow(!matches!(access, Access::Administer), ADMINS),
        (Role::Reader(_), _) => allow(*access == Access::Read, READERS),
        (Role::Gateway(_), Site::Gateway(_)) => Err(GATEWAY),
        (Role::Gateway(own), Site::Store) => match access {
            Access::Read => Ok(()),
            Access::Write(scope) | Access::Report(scope) => allow(scope.is_in(own), OWN_CLUSTER),
            Access::View { .. } => Err(VIEWS),
            Access::Raft | Access::RaftAs(_) | Access::Administer => Err(ADMINS),
        },
        (Role::Agent { .. }, Site::Store) => Err(STORE),
        (Role::Agent { cluster, .. }, Site::Gateway(of)) if cluster != of => Err(OWN_GATEWAY),
        (Role::Agent { .. }, Site::Gateway(_)) => by_agent(role, access),
    }
}

fn by_agent(agent: &Role, access: &Access) -> Result<(), &'static str> {
    match access {
        Access::Read => Ok(()),
        Access::Write(scope) | Access::Report(scope) => allow(scope.is_of(agent), OWN_NODE),
        Access::View { .. } => Err(VIEWS),
        Access::Raft | Access::RaftAs(_) | Access::Administer => Err(ADMINS),
    }
}

const fn allow(allowed: bool, rule: &'static str) -> Result<(), &'static str> {
    if allowed { Ok(()) } else { Err(rule) }
}

impl Scope {
    fn of_key(key: &RecordKey) -> Self {
        match key {
            RecordKey::Node(cluster, node) | RecordKey::Endpoint(cluster, node, _) => {
                Self::Node { cluster: cluster.clone(), node: node.clone() }
            }
            RecordKey::Cluster(cluster)
            | RecordKey::Service(cluster, ..)
            | RecordKey::Fqdn(cluster, _)
            | RecordKey::Block(cluster, _) => Self::Cluster(cluster.clone()),
            RecordKey::Identity(_) | RecordKey::Policy(_) | RecordKey::CidrGroup(_) | RecordKey::Settings => Self::Mesh,
        }
    }

    fn is_in(&self, own: &Name) -> bool {
        matches!(self, Self::Cluster(cluster) | Self::Node { cluster, .. } if cluster == own)
    }

    fn is_of(&self, agent: &Role) -> bool {
        match (self, agent) {
            (Self::Node { cluster, node }, Role::Agent { cluster: own_cluster, node: own }) => {
                cluster == own_cluster && node == own
            }
            _ => false,
        }
    }
}

impl Access {
    /// Everything that a command asks for; never nothing.
    #[must_use]
    pub fn of_command(command: &Command) -> Vec<Self> {
        let node = |cluster: &Name, node: &Name| Scope::Node { cluster: cluster.clone(), node: node.clone() };
        let owners = |clusters: &mut dyn Iterator<Item = &Name>| -> Vec<Self> {
            let clusters: BTreeSet<&Name> = clusters.collect();
            match clusters.is_empty() {
                true => vec![Self::Write(Scope::Mesh)],
                false => clusters.into_iter().map(|cluster| Self::Write(Scope::Cluster(cluster.clone()))).collect(),
            }
        };
        let scope = match command {
            Command::PutServices(services) => return owners(&mut services.iter().map(|service| &service.cluster)),
            Command::PutFqdns(names) => return owners(&mut names.iter().map(|name| &name.cluster)),
            // It has no form on the wire.
            Command::Housekeeping(_) => return vec![Self::Raft],
            Command::PutCluster(cluster) => Scope::Cluster(cluster.name.clone()),
            Command::PutNode(put) => node(&put.cluster, &put.name),
            Command::PutEndpoint(spec) => node(&spec.cluster, &spec.node),
            Command::AllocateIdentity { cluster, .. }
            | Command::KeepAlive { cluster, .. }
            | Command::GrantBlock { cluster, .. }
            | Command::ReturnBlock { cluster, .. }
            | Command::AdoptFromBlock { cluster, .. } => Scope::Cluster(cluster.clone()),
            Command::Delete(key) => Scope::of_key(key),
            Command::PutPolicies(_)
            | Command::DeletePolicies(_)
            | Command::PutObjects { .. }
            | Command::PutSettings(_)
            | Command::ReleaseIdentity(_) => Scope::Mesh,
        };
        vec![Self::Write(scope)]
    }

    /// Everything that a report tells of.
    #[must_use]
    pub fn of_report(report: &v1::ReportRequest) -> Vec<Self> {
        let cluster = |name: &str| Name::new(name).map_or(Scope::Unknown, Scope::Cluster);
        let node = |node: &v1::NodeStatus| match (Name::new(&node.cluster), Name::new(&node.name)) {
            (Ok(cluster), Ok(node)) => Scope::Node { cluster, node },
            _ => Scope::Unknown,
        };
        let gateway = report.gateway.iter().map(|gateway| cluster(&gateway.cluster));
        gateway.chain(report.nodes.iter().map(node)).map(Self::Report).collect()
    }

    /// One word for metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::View { .. } => "view",
            Self::Write(_) => "write",
            Self::Report(_) => "report",
            Self::Raft | Self::RaftAs(_) => "raft",
            Self::Administer => "administer",
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.on_behalf_of {
            Some(asker) => write!(f, "{} for {asker}", self.role),
            None => self.role.fmt(f),
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::View { cluster, node } => write!(f, "follow the view of node {cluster}/{node}"),
            Self::Write(scope) => write!(f, "change {scope}"),
            Self::Report(scope) => write!(f, "report about {scope}"),
            Self::Raft => f.write_str("take part in consensus"),
            Self::RaftAs(id) => write!(f, "take part in consensus as member {id}"),
            Self::Administer => f.write_str("administer the store"),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh => f.write_str("records of the whole mesh"),
            Self::Cluster(cluster) => write!(f, "records of cluster {cluster}"),
            Self::Node { cluster, node } => write!(f, "records of node {cluster}/{node}"),
            Self::Unknown => f.write_str("something without a valid name"),
        }
    }
}
