//! The packet that a probe asks about.

use std::{net::IpAddr, str::FromStr};

use ringfence_policy::flow::protocol;
use ringfence_proto::v1;
use serde::Deserialize;

/// The first packet of a connection; in a batch, one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "write an object like {\"from\": IP, \"to\": IP, \"port\": N}")]
pub(super) struct ProbePacket {
    /// Who sends.
    pub(super) from: IpAddr,
    /// Who receives.
    pub(super) to: IpAddr,
    /// TCP without.
    #[serde(default)]
    pub(super) protocol: Protocol,
    /// The destination port.
    pub(super) port: u16,
    /// Another one each time without.
    #[serde(default)]
    pub(super) source_port: Option<u16>,
}

/// An IP protocol number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ProtocolText")]
pub(crate) struct Protocol(pub(crate) u8);

/// A text is not an IP protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a protocol: use tcp, udp, sctp, icmp, icmpv6 or an IP protocol number up to 255")]
pub(crate) struct InvalidProtocol {
    text: String,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a protocol is a name like \"tcp\" or an IP protocol number")]
enum ProtocolText {
    Number(u64),
    Name(String),
}

impl Default for Protocol {
    fn default() -> Self {
        Self(protocol::TCP)
    }
}

impl FromStr for Protocol {
    type Err = InvalidProtocol;
    fn from_str(text: &str) -> Result<Self, InvalidProtocol> {
        let number = match text.to_ascii_lowercase().as_str() {
            "tcp" => protocol::TCP,
            "udp" => protocol::UDP,
            "sctp" => protocol::SCTP,
            "icmp" => protocol::ICMP,
            "icmpv6" => protocol::ICMPV6,
            number => number.parse().map_err(|_| InvalidProtocol { text: text.to_owned() })?,
        };
        Ok(Self(number))
    }
}

impl TryFrom<ProtocolText> for Protocol {
    type Error = InvalidProtocol;
    fn try_from(text: ProtocolText) -> Result<Self, InvalidProtocol> {
        match text {
            ProtocolText::Number(number) => number.to_string().parse(),
            ProtocolText::Name(name) => name.parse(),
        }
    }
}

impl From<&ProbePacket> for v1::ProbeRequest {
    fn from(packet: &ProbePacket) -> Self {
        Self {
            source: packet.from.to_string(),
            destination: packet.to.to_string(),
            protocol: packet.protocol.0.into(),
            source_port: packet.source_port.unwrap_or(0).into(),
            destination_port: packet.port.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_batch() {
        let packet = |line: &str| serde_json::from_str::<ProbePacket>(line);
        let tcp = packet(r#"{"from": "10.0.0.1", "to": "10.0.0.2", "port": 80}"#).unwrap();
        assert_eq!(v1::ProbeRequest::from(&tcp).protocol, 6);
        let udp = packet(r#"{"from": "fd00::1", "to": "fd00::2", "port": 53, "protocol": "UDP", "source_port": 7}"#);
        let request = v1::ProbeRequest::from(&udp.unwrap());
        assert_eq!((request.protocol, request.source_port, request.source.as_str()), (17, 7, "fd00::1"));
        let number = packet(r#"{"from": "10.0.0.1", "to": "10.0.0.2", "port": 80, "protocol": 132}"#).unwrap();
        assert_eq!(number.protocol, "sctp".parse().unwrap());
        for (line, expected) in [
            (r#"{"from": "10.0.0.1", "to": "10.0.0.2"}"#, "missing field `port`"),
            (r#"{"from": "web", "to": "10.0.0.2", "port": 1}"#, "invalid IP address"),
            (r#"{"from": "10.0.0.1", "to": "10.0.0.2", "port": 65536}"#, "65536"),
            (r#"{"from": "10.0.0.1", "to": "10.0.0.2", "port": 1, "protocol": 256}"#, "\"256\" is not a protocol"),
            (r#"{"from": "10.0.0.1", "to": "10.0.0.2", "port": 1, "protocol": []}"#, "a protocol is a name"),
            (r#"{"from": "10.0.0.1", "to": "10.0.0.2", "port": 1, "dport": 2}"#, "unknown field `dport`"),
            ("10", "write an object like"),
        ] {
            let error = packet(line).unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
