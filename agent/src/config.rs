//! The agent's configuration file.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr as _,
};

use ringfence_policy::{
    compile::{LocalHost, LocalNode},
    flow::protocol,
    identity::Identity,
    label::{LabelSet, SOURCE_K8S},
    name::Name,
    world::Enforcement,
};
use ringfence_runtime::{checked, telemetry::LogFormat, tls::TlsFiles};
use serde::{Deserialize, Deserializer, Serialize};

use crate::register::Reserved;

/// `agent.yaml`. Relative paths start at the working directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster of this node; its gateway registers it.
    #[serde(deserialize_with = "name")]
    pub cluster: Name,
    /// This node's name, unique in its cluster; two agents must never share one.
    #[serde(deserialize_with = "name")]
    pub node: Name,
    /// The node's own addresses: `host` for its own endpoints, `remote-node` everywhere else.
    #[serde(deserialize_with = "node_addresses")]
    pub addresses: Vec<IpAddr>,
    /// Addresses that the node's proxy behind Ingress and Gateway objects sends from: entity `ingress` everywhere. They are
    /// nobody else's, but may be of the node's devices.
    #[serde(default, deserialize_with = "reserved_addresses")]
    pub ingress_addresses: Vec<IpAddr>,
    /// Addresses of the node's health check endpoint: entity `health` everywhere.
    #[serde(default, deserialize_with = "reserved_addresses")]
    pub health_addresses: Vec<IpAddr>,
    /// The node's labels, as `key=value`: what `nodeSelector`, `fromNodes` and `toNodes` select it by.
    #[serde(default, deserialize_with = "node_labels")]
    pub labels: Vec<String>,
    /// The devices that lead off the node, like `eth0`: policies for nodes (`nodeSelector`) are enforced there. Without any
    /// the node itself is not under enforcement, and says so where a policy selects it.
    #[serde(default)]
    pub uplinks: Vec<String>,
    /// Ports of the node that anybody reaches whatever policies say, as `tcp/22`: who closes them by mistake could not put it
    /// right any more.
    #[serde(default = "default_failsafe_ports", deserialize_with = "failsafe_ports")]
    pub failsafe_ports: Vec<String>,
    /// The cluster's gateways as `host:port`; the first one is taken first, the others when it is out of reach.
    #[serde(deserialize_with = "gateways")]
    pub gateways: Vec<String>,
    /// Certificates for the gateways.
    pub tls: TlsFiles,
    /// Where packets are judged.
    pub datapath: DatapathConfig,
    /// Policies are tried out: what they would refuse, to or from any endpoint of the node, is reported and passes.
    #[serde(default)]
    pub policy_audit_mode: bool,
    /// Which directions of endpoints, and of the node with uplinks, are enforced: where a policy selects them (`default`), all of them (`always`), or
    /// none, deny rules included (`never`).
    #[serde(default)]
    pub policy_enforcement: EnforcementMode,
    /// How often the datapath's maps are read back and compared with what was written; 0 for never. What somebody else
    /// changed is repaired, and told in log, status and metrics.
    #[serde(default = "default_verify_interval_ms")]
    pub verify_interval_ms: u64,
    /// The node's endpoints; read when the agent starts.
    #[serde(default)]
    pub endpoints_file: Option<PathBuf>,
    /// The local API's Unix socket, for root only. Endpoints declared through the API are kept beside it, in
    /// `<socket>.endpoints.yaml`.
    pub socket: PathBuf,
    /// How often the gateway hears from this agent when nothing changes.
    #[serde(default = "default_report_interval_ms", deserialize_with = "positive")]
    pub report_interval_ms: u64,
    /// Where `/livez`, `/readyz` and `/metrics` are served, in plain HTTP: an address that only the node and the
    /// collectors reach. Nowhere without it.
    #[serde(default)]
    pub health_listen: Option<SocketAddr>,
    /// How log lines look.
    #[serde(default)]
    pub log_format: LogFormat,
    /// How long an orderly stop may take. Enforcement stays in place in any case.
    #[serde(default = "default_drain_timeout_ms")]
    pub drain_timeout_ms: u64,
}

/// Fields that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// Two lists have one address.
    #[error(
        "{field}: {address} is in {other}, too: packets from it would be judged as one of the two; \
         give each an address of its own, like one of the node's range of pods"
    )]
    SharedAddress {
        /// Where it is.
        field: &'static str,
        /// Where it is as well.
        other: &'static str,
        /// The address.
        address: IpAddr,
    },
}

impl Config {
    /// Checks what no field says alone.
    ///
    /// # Errors
    /// The first `InvalidConfig`.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let [own, ingress, health] = [
            ("addresses", &self.addresses),
            ("ingress_addresses", &self.ingress_addresses),
            ("health_addresses", &self.health_addresses),
        ];
        for ((field, list), (other, others)) in [(ingress, own), (health, own), (health, ingress)] {
            if let Some(address) = list.iter().find(|address| others.contains(address)) {
                return Err(InvalidConfig::SharedAddress { field, other, address: *address });
            }
        }
        Ok(())
    }

    /// What the node has for its proxy and its health check.
    pub(crate) fn reserved(&self) -> [Reserved; 2] {
        [(Identity::INGRESS, &self.ingress_addresses), (Identity::HEALTH, &self.health_addresses)]
            .map(|(identity, addresses)| Reserved { identity, addresses: addresses.clone() })
    }

    /// The node's labels.
    pub(crate) fn node_labels(&self) -> LabelSet {
        LabelSet::parse(self.labels.iter().map(|label| format!("{SOURCE_K8S}:{label}"))).unwrap_or_default()
    }

    /// The node as the compiler has to know it.
    pub(crate) fn local_node(&self) -> LocalNode {
        let failsafe = self.failsafe_ports.iter().filter_map(|text| failsafe_port(text).ok()).collect();
        let host = LocalHost { failsafe, audit: self.policy_audit_mode, ..LocalHost::default() };
        LocalNode {
            enforcement: self.policy_enforcement.into(),
            host: (!self.uplinks.is_empty()).then_some(host),
            ..LocalNode::new(self.cluster.clone(), self.node.clone())
        }
    }
}

/// Where packets are judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatapathConfig {
    /// Which one.
    pub kind: DatapathKind,
    /// A mounted bpffs: enforcement outlives the agent there. The kernel datapath's alone.
    #[serde(default = "default_bpffs")]
    pub bpffs: PathBuf,
    /// False: endpoints are attached as on kernels without TCX (before Linux 6.6), with filters of a clsact qdisc. For
    /// endpoints that are not attached yet.
    #[serde(default = "default_tcx")]
    pub tcx: bool,
}

/// The kinds of datapaths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatapathKind {
    /// In the kernel, by eBPF on the endpoints' interfaces.
    Kernel,
    /// In this process, for trying out and for tests: decides what the kernel would decide, and touches no packet.
    Memory,
}

/// When a direction of an endpoint is enforced (policy semantics §4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnforcementMode {
    /// Where a policy selects the endpoint.
    #[default]
    Default,
    /// Everywhere: what nothing allows is refused, whether a policy selects the endpoint or not.
    Always,
    /// Nowhere, deny rules included.
    Never,
}

impl EnforcementMode {
    /// As the configuration writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

impl From<EnforcementMode> for Enforcement {
    fn from(mode: EnforcementMode) -> Self {
        match mode {
            EnforcementMode::Default => Self::Default,
            EnforcementMode::Always => Self::Always,
            EnforcementMode::Never => Self::Never,
        }
    }
}

const fn default_verify_interval_ms() -> u64 {
    30_000
}

const fn default_report_interval_ms() -> u64 {
    1000
}

const fn default_drain_timeout_ms() -> u64 {
    5000
}

const fn default_tcx() -> bool {
    true
}

fn default_bpffs() -> PathBuf {
    PathBuf::from("/sys/fs/bpf")
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let check =
        |interval| if interval == 0 { Err("0 is not an interval: give at least 1 millisecond") } else { Ok(interval) };
    checked::number(deserializer, check)
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
    checked::text(deserializer, Name::from_str)
}

fn node_addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    checked::texts(deserializer, ip_address, |addresses| some(addresses, "IPv4 or IPv6 address of the node"))
}

/// The most addresses of one list; Cilium has one of each family.
const MAX_RESERVED_ADDRESSES: usize = 16;

fn reserved_addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    checked::texts(deserializer, unicast_address, |addresses: &[IpAddr]| {
        let repeated = addresses.iter().enumerate().find(|(at, address)| addresses[..*at].contains(address));
        match repeated {
            Some((_, address)) => Err(format!("{address} is given twice: once is enough")),
            None if addresses.len() > MAX_RESERVED_ADDRESSES => Err(format!(
                "{} addresses given: at most {MAX_RESERVED_ADDRESSES} are allowed, and one of each family is enough",
                addresses.len()
            )),
            None => Ok(()),
        }
    })
}

/// One that a packet can come from, and that means the same on every node.
fn unicast_address(text: &str) -> Result<IpAddr, String> {
    let address = ip_address(text)?;
    let what = match address {
        _ if address.is_unspecified() => "means no address",
        _ if address.is_loopback() => "never leaves its machine",
        _ if address.is_multicast() => "is a group's",
        IpAddr::V4(four) if four.is_broadcast() => "is everybody's",
        IpAddr::V4(four) if four.is_link_local() => "means something on one link only",
        IpAddr::V6(six) if six.is_unicast_link_local() => "means something on one link only",
        IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => "is an IPv4 address in IPv6 form",
        _ => return Ok(address),
    };
    Err(format!(
        "{address} {what}: give an address that the node's own packets come from, like 10.101.1.8 or fd10:1:1::8"
    ))
}

fn node_labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let check = |labels: &[String]| {
        LabelSet::parse(labels.iter().map(|label| format!("{SOURCE_K8S}:{label}"))).map(drop).map_err(|e| e.to_string())
    };
    checked::texts(deserializer, node_label, check)
}

fn node_label(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() && !key.contains(':') => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not a label of a node: write it as key=value, like zone=a")),
    }
}

/// Shells, and what Ringfence's own processes listen on: all of them ask for proof of who is there.
fn default_failsafe_ports() -> Vec<String> {
    ["tcp/22", "tcp/7400", "tcp/7401"].map(str::to_owned).to_vec()
}

fn failsafe_ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    checked::texts(
        deserializer,
        |text| failsafe_port(text).map(|_| text.to_owned()),
        |_: &[String]| Ok::<(), String>(()),
    )
}

/// An IP protocol number and a port.
fn failsafe_port(text: &str) -> Result<(u8, u16), String> {
    let parsed = text.split_once('/').and_then(|(protocol, port)| {
        let protocol = match protocol {
            "tcp" => protocol::TCP,
            "udp" => protocol::UDP,
            "sctp" => protocol::SCTP,
            _ => return None,
        };
        Some((protocol, port.parse().ok().filter(|port| *port != 0)?))
    });
    parsed.ok_or_else(|| format!("{text:?} is not a port: write it as tcp/22, udp/53 or sctp/3868"))
}

fn gateways<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    checked::texts(deserializer, address, |gateways| some(gateways, "gateway of the cluster as host:port"))
}

fn some<T>(list: &[T], what: &str) -> Result<(), String> {
    if list.is_empty() { Err(format!("the list is empty: give at least one {what}")) } else { Ok(()) }
}

/// Says what would be right, which the standard library's error does not.
pub(crate) fn ip_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address: write it like 10.40.1.1 or fd40::1:1"))
}

fn address(text: &str) -> Result<String, String> {
    let valid = text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    let help = || format!("{text:?} is not an address: write it as host:port, like 10.40.1.10:7401");
    if valid { Ok(text.to_owned()) } else { Err(help()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "cluster: east\nnode: n1\naddresses: [10.40.1.1, 'fd40::1:1']\ngateways: ['10.40.1.10:7401']\n\
                        tls: {ca: a, certificate: b, key: c}\ndatapath: {kind: kernel}\nsocket: agent.sock\n";

    fn load(text: &str) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.yaml");
        std::fs::write(&path, text).unwrap();
        ringfence_runtime::config::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_dumped_configuration_loads_to_the_same() {
        let config = load(GOOD).unwrap();
        assert_eq!(
            config.datapath,
            DatapathConfig { kind: DatapathKind::Kernel, bpffs: "/sys/fs/bpf".into(), tcx: true }
        );
        assert_eq!(load(&ringfence_runtime::config::dump(&config)), Ok(config.clone()));
        let open: Vec<_> = config.failsafe_ports.iter().map(String::as_str).collect();
        assert_eq!(open, ["tcp/22", "tcp/7400", "tcp/7401"]);
        assert_eq!(config.local_node().host, None, "no uplinks");
        let host = load(&GOOD.replace("gateways:", "uplinks: [eth0]\ngateways:")).unwrap().local_node().host.unwrap();
        assert_eq!(host.failsafe, [(6, 22), (6, 7400), (6, 7401)].into());
        let host = "labels: ['zone=a', 'k8s.io/role=edge']\nuplinks: [eth0]\nfailsafe_ports: []\ngateways:";
        let host = load(&GOOD.replace("gateways:", host)).unwrap();
        assert_eq!(host.local_node().host, Some(LocalHost::default()));
        assert_eq!(host.node_labels().to_string(), "k8s:k8s.io/role=edge,k8s:zone=a");
        let memory = load(&GOOD.replace("kind: kernel", "kind: memory")).unwrap();
        assert_eq!(memory.datapath.kind, DatapathKind::Memory);
    }

    #[test]
    fn an_address_is_the_nodes_or_its_proxys_or_its_health_checks() {
        let with = |lines: &str| load(&GOOD.replace("gateways:", &format!("{lines}\ngateways:"))).unwrap();
        let good = with("ingress_addresses: [10.101.1.8, 'fd10:1:1::8']\nhealth_addresses: [10.101.1.4]");
        assert_eq!(good.validate(), Ok(()));
        assert_eq!(load(&ringfence_runtime::config::dump(&good)), Ok(good.clone()));
        assert_eq!(good.reserved().map(|one| one.addresses.len()), [2, 1]);
        for (lines, fields) in [
            ("ingress_addresses: ['fd40::1:1']", ["ingress_addresses: fd40::1:1", "in addresses, too"]),
            ("health_addresses: [10.40.1.1]", ["health_addresses: 10.40.1.1", "in addresses, too"]),
            (
                "ingress_addresses: [10.101.1.8]\nhealth_addresses: [10.101.1.8]",
                ["health_addresses: 10.101.1.8", "in ingress_addresses, too"],
            ),
        ] {
            let error = with(lines).validate().unwrap_err().to_string();
            assert!(fields.iter().all(|field| error.contains(field)), "{error}");
        }
        let many: Vec<String> = (0..17).map(|last| format!("10.101.1.{last}")).collect();
        let many = GOOD.replace("gateways:", &format!("ingress_addresses: [{}]\ngateways:", many.join(", ")));
        let error = load(&many).unwrap_err();
        assert!(error.contains("17 addresses given: at most 16 are allowed"), "{error}");
    }

    #[test]
    fn errors_say_where_and_what_would_be_right() {
        let cases = [
            ("node: n1", "node: N1", ":2:7", "not a valid name"),
            ("10.40.1.1, ", "10.40.1, ", ":3:13", "IP address"),
            ("['10.40.1.10:7401']", "[]", ":4:11", "at least one gateway"),
            ("'10.40.1.10:7401'", "'10.40.1.10'", ":4:12", "host:port"),
            ("gateways:", "ingress_addresses: [10.101.1.8, 127.0.0.1]\ngateways:", ":4:33", "never leaves its machine"),
            ("gateways:", "ingress_addresses: ['::']\ngateways:", ":4:21", "like 10.101.1.8 or fd10:1:1::8"),
            ("gateways:", "health_addresses: ['ff02::1']\ngateways:", ":4:20", "is a group's"),
            ("gateways:", "health_addresses: ['fe80::1']\ngateways:", ":4:20", "one link only"),
            ("gateways:", "health_addresses: ['::ffff:10.1.2.3']\ngateways:", ":4:20", "in IPv6 form"),
            ("gateways:", "ingress_addresses: [10.101.1.8/32]\ngateways:", ":4:21", "not an IP address"),
            ("gateways:", "ingress_addresses: [10.101.1.8, 10.101.1.8]\ngateways:", ":4:20", "given twice"),
            ("gateways:", "labels: [zone]\ngateways:", ":4:10", "key=value"),
            ("gateways:", "failsafe_ports: [tcp/22, ssh]\ngateways:", ":4:26", "tcp/22"),
            ("gateways:", "policy_enforcement: often\ngateways:", ":4:21", "`always`"),
            ("kind: kernel", "kind: iptables", ":6:18", "`kernel` or `memory`"),
            ("kind: kernel", "kind: memory, size: 1", ":6:26", "`bpffs`"),
            ("socket", "sokcet", ":7:1", "socket"),
            ("socket:", "policy_enforcement: off\nsocket:", ":7:21", "`default`, `always`, `never`"),
        ];
        for (from, to, position, help) in cases {
            let message = load(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(message.contains(&format!("agent.yaml{position}")), "{message}");
            assert!(message.contains(help), "{message}");
        }
    }
}
