//! One end of a flow as people write it.

use std::{net::IpAddr, str::FromStr};

use ringfence_policy::{cidr::Cidr, identity::Identity, label::Label, name::Name};
use ringfence_proto::v1::{self, flow_end::End};

/// An address, a range, an identity's number or reserved name, labels, or an endpoint of the node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FlowEnd(End);

/// A text names no end of a flow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidEnd {
    #[error(
        "{text:?} is no end of a flow: write an address (10.1.2.3), a range (fd00:1::/64), an identity (65537, world-ipv4), labels (app=web,k8s:tier=front) or an endpoint of the node (web-1)"
    )]
    Unknown { text: String },
    #[error("{label:?}: {reason}")]
    Label { label: String, reason: String },
}

impl FromStr for FlowEnd {
    type Err = InvalidEnd;

    fn from_str(text: &str) -> Result<Self, InvalidEnd> {
        let reserved = (0..=10).map(Identity::from_bits).find(|identity| identity.reserved_name() == Some(text));
        if let Some(identity) = reserved {
            return Ok(Self(End::Identity(identity.bits())));
        }
        if let Ok(bits) = text.parse() {
            return Ok(Self(End::Identity(bits)));
        }
        if text.parse::<IpAddr>().is_ok() || text.parse::<Cidr>().is_ok() {
            return Ok(Self(End::Range(text.to_owned())));
        }
        if text.contains('=') || text.starts_with("reserved:") {
            return labels(text);
        }
        match Name::new(text) {
            Ok(name) => Ok(Self(End::Endpoint(name.to_string()))),
            Err(_) => Err(InvalidEnd::Unknown { text: text.to_owned() }),
        }
    }
}

fn labels(text: &str) -> Result<FlowEnd, InvalidEnd> {
    let label = |text: &str| match Label::parse_with(text.trim(), "any") {
        Ok(_) => Ok(text.trim().to_owned()),
        Err(invalid) => Err(InvalidEnd::Label { label: text.to_owned(), reason: invalid.to_string() }),
    };
    let labels = text.split(',').map(label).collect::<Result<_, _>>()?;
    Ok(FlowEnd(End::Labels(v1::flow_end::Labels { labels })))
}

impl From<FlowEnd> for v1::FlowEnd {
    fn from(end: FlowEnd) -> Self {
        Self { end: Some(end.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        let labels = |labels: &[&str]| {
            End::Labels(v1::flow_end::Labels { labels: labels.iter().map(ToString::to_string).collect() })
        };
        for (text, expected) in [
            ("10.1.2.3", End::Range("10.1.2.3".to_owned())),
            ("fd00:1::/64", End::Range("fd00:1::/64".to_owned())),
            ("65537", End::Identity(65_537)),
            ("world-ipv6", End::Identity(10)),
            ("unknown", End::Identity(0)),
            ("app=web, k8s:tier=front", labels(&["app=web", "k8s:tier=front"])),
            ("web-1", End::Endpoint("web-1".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(FlowEnd(expected)), "{text}");
        }
        for text in ["10.1.2.3/99", "Web 1", "", "=x"] {
            assert!(text.parse::<FlowEnd>().is_err(), "{text}");
        }
    }
}
