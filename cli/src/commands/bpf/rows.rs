//! Entries of maps as rows and as objects.

use ringfence_policy::{explain::describe_protocol, flow::protocol, identity::Identity};
use ringfence_proto::v1::{self, DatapathMap, map_entry::Entry};
use serde_json::{Value, json};

use crate::output::age;

/// The columns of one map, with their widths: rows come one by one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape(&'static [(&'static str, usize)]);

const IPCACHE: &[(&str, usize)] = &[("PREFIX", 43), ("IDENTITY", 10), ("ENDPOINT", 20), ("LABELS", 0)];
const POLICY: &[(&str, usize)] = &[
    ("POLICY", 6),
    ("DIRECTION", 9),
    ("VERDICT", 8),
    ("PEER", 10),
    ("PORTS", 22),
    ("BAND", 5),
    ("ALLOWED", 10),
    ("REFUSED", 10),
    ("ENDPOINTS", 20),
    ("LABELS", 0),
];
const CONNECTIONS: &[(&str, usize)] = &[
    ("ENDPOINT", 16),
    ("PROTOCOL", 8),
    ("BEGAN", 7),
    ("LOCAL", 32),
    ("REMOTE", 32),
    ("PHASE", 11),
    ("IDLE", 7),
    ("JUDGED", 7),
    ("PEER", 0),
];
const ENDPOINTS: &[(&str, usize)] =
    &[("INTERFACE", 9), ("ENDPOINT", 20), ("IDENTITY", 10), ("POLICY", 6), ("SHADOW", 6), ("AUDIT", 5), ("LABELS", 0)];

impl Shape {
    pub(super) const fn of(map: DatapathMap) -> Self {
        Self(match map {
            DatapathMap::Ipcache => IPCACHE,
            DatapathMap::Policy => POLICY,
            DatapathMap::Connections => CONNECTIONS,
            DatapathMap::Endpoints | DatapathMap::Unspecified => ENDPOINTS,
        })
    }

    pub(super) fn header(self) -> String {
        self.aligned(&self.0.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>())
    }

    /// What does not fit moves the rest of the row.
    pub(super) fn row(self, entry: Entry) -> String {
        self.aligned(&cells(entry))
    }

    fn aligned(self, cells: &[String]) -> String {
        let cells = cells.iter().zip(self.0).map(|(cell, (_, width))| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

fn cells(entry: Entry) -> Vec<String> {
    match entry {
        Entry::Ipcache(entry) => {
            vec![entry.prefix, identity(entry.identity), dash(entry.endpoint), entry.labels.join(",")]
        }
        Entry::Policy(entry) => {
            let count = |get: fn(&v1::BandPackets) -> u64| {
                entry.packets.as_ref().map_or_else(|| "-".to_owned(), |packets| get(packets).to_string())
            };
            let shadows = entry.shadow_of.iter().map(|name| format!("{name} (shadow)"));
            let endpoints: Vec<String> = entry.endpoints.iter().cloned().chain(shadows).collect();
            vec![
                entry.policy.to_string(),
                entry.direction.clone(),
                entry.verdict.clone(),
                if entry.peer == 0 { "ANY".to_owned() } else { entry.peer.to_string() },
                ports(&entry.ports),
                entry.band.to_string(),
                count(|packets| packets.allowed_packets),
                count(|packets| packets.refused_packets),
                dash(endpoints.join(",")),
                entry.labels.join(","),
            ]
        }
        Entry::Connection(entry) => vec![
            entry.endpoint,
            protocol_name(entry.protocol),
            entry.direction,
            place(&entry.local_address, entry.local_port, entry.protocol),
            place(&entry.remote_address, entry.remote_port, entry.protocol),
            entry.phase,
            age(entry.idle_ms),
            if entry.current { "now" } else { "earlier" }.to_owned(),
            entry.peer_endpoint,
        ],
        Entry::Endpoint(entry) => vec![
            entry.id.to_string(),
            dash(entry.name),
            identity(entry.identity),
            entry.policy.to_string(),
            if entry.shadow == 0 { "-".to_owned() } else { entry.shadow.to_string() },
            if entry.audit { "yes" } else { "no" }.to_owned(),
            entry.labels.join(","),
        ],
    }
}

/// As JSON and YAML have it: the names of the `.proto` files.
pub(super) fn object(entry: Entry) -> anyhow::Result<Value> {
    Ok(match entry {
        Entry::Ipcache(entry) => {
            let v1::IpcacheEntry { prefix, identity, labels, endpoint } = entry;
            json!({"prefix": prefix, "identity": identity, "labels": labels, "endpoint": endpoint})
        }
        Entry::Policy(entry) => {
            let range = |range: &v1::PortRange| json!({"protocol": protocol_name(range.protocol), "first": range.first, "last": range.last});
            let packets = entry.packets.unwrap_or_default();
            json!({
                "policy": entry.policy,
                "endpoints": entry.endpoints,
                "shadow_of": entry.shadow_of,
                "direction": entry.direction,
                "peer": entry.peer,
                "labels": entry.labels,
                "verdict": entry.verdict,
                "band": entry.band,
                "ports": entry.ports.iter().map(range).collect::<Vec<_>>(),
                "band_packets": {
                    "allowed_packets": packets.allowed_packets,
                    "allowed_bytes": packets.allowed_bytes,
                    "refused_packets": packets.refused_packets,
                    "refused_bytes": packets.refused_bytes,
                },
            })
        }
        Entry::Connection(entry) => json!({
            "endpoint": entry.endpoint,
            "protocol": protocol_name(entry.protocol),
            "direction": entry.direction,
            "local": {"address": entry.local_address, "port": entry.local_port},
            "remote": {"address": entry.remote_address, "port": entry.remote_port},
            "phase": entry.phase,
            "idle_ms": entry.idle_ms,
            "current": entry.current,
            "generation": entry.generation,
            "peer_endpoint": entry.peer_endpoint,
        }),
        Entry::Endpoint(entry) => json!({
            "id": entry.id,
            "name": entry.name,
            "identity": entry.identity,
            "labels": entry.labels,
            "policy": entry.policy,
            "shadow": if entry.shadow == 0 { Value::Null } else { entry.shadow.into() },
            "audit": entry.audit,
        }),
    })
}

fn identity(bits: u32) -> String {
    Identity::from_bits(bits).reserved_name().map_or_else(|| bits.to_string(), str::to_owned)
}

fn dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn protocol_name(number: u32) -> String {
    describe_protocol(u8::try_from(number).unwrap_or(0))
}

/// Ports of a band; those that no other band has are not listed one by one.
fn ports(ranges: &[v1::PortRange]) -> String {
    let range = |range: &v1::PortRange| {
        let name = protocol_name(range.protocol);
        if range.first == range.last {
            format!("{}/{name}", range.first)
        } else {
            format!("{}-{}/{name}", range.first, range.last)
        }
    };
    if ranges.is_empty() { "all others".to_owned() } else { ranges.iter().map(range).collect::<Vec<_>>().join(",") }
}

fn place(address: &str, port: u32, number: u32) -> String {
    let ported = [protocol::TCP, protocol::UDP, protocol::SCTP].map(u32::from).contains(&number);
    match (ported, address.contains(':')) {
        (false, _) => address.to_owned(),
        (true, true) => format!("[{address}]:{port}"),
        (true, false) => format!("{address}:{port}"),
    }
}
