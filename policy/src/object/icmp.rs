//! `icmps`: message types (VAL-16, ICMP-1).

use super::{
    fields::{ICMP_FIELD, ICMP_RULE, nearest},
    located::{Findings, Located},
};
use crate::{
    diagnostic::quoted,
    rule::{Port, PortNumber, PortProtocol, PortRule, Proxy},
};

/// The most fields of one element (VAL-16).
const MAX_FIELDS: usize = 40;
/// Names of the message types of IPv4 (§3.2).
const IPV4: [(&str, u8); 14] = [
    ("EchoReply", 0),
    ("DestinationUnreachable", 3),
    ("Redirect", 5),
    ("Echo", 8),
    ("EchoRequest", 8),
    ("RouterAdvertisement", 9),
    ("RouterSelection", 10),
    ("TimeExceeded", 11),
    ("ParameterProblem", 12),
    ("Timestamp", 13),
    ("TimestampReply", 14),
    ("Photuris", 40),
    ("ExtendedEchoRequest", 42),
    ("ExtendedEchoReply", 43),
];
/// Names of the message types of IPv6 (§3.2).
const IPV6: [(&str, u8); 27] = [
    ("DestinationUnreachable", 1),
    ("PacketTooBig", 2),
    ("TimeExceeded", 3),
    ("ParameterProblem", 4),
    ("EchoRequest", 128),
    ("EchoReply", 129),
    ("MulticastListenerQuery", 130),
    ("MulticastListenerReport", 131),
    ("MulticastListenerDone", 132),
    ("RouterSolicitation", 133),
    ("RouterAdvertisement", 134),
    ("NeighborSolicitation", 135),
    ("NeighborAdvertisement", 136),
    ("RedirectMessage", 137),
    ("RouterRenumbering", 138),
    ("ICMPNodeInformationQuery", 139),
    ("ICMPNodeInformationResponse", 140),
    ("InverseNeighborDiscoverySolicitation", 141),
    ("InverseNeighborDiscoveryAdvertisement", 142),
    ("HomeAgentAddressDiscoveryRequest", 144),
    ("HomeAgentAddressDiscoveryReply", 145),
    ("MobilePrefixSolicitation", 146),
    ("MobilePrefixAdvertisement", 147),
    ("DuplicateAddressRequestCodeSuffix", 157),
    ("DuplicateAddressConfirmationCodeSuffix", 158),
    ("ExtendedEchoRequest", 160),
    ("ExtendedEchoReply", 161),
];

/// All elements of `icmps`; none for an empty list (SEM-25).
pub(super) fn decode(at: &Located<'_>, findings: &mut Findings) -> Option<Vec<PortRule>> {
    let items = at.items(findings)?;
    if items.is_empty() {
        return None;
    }
    let mut rules = Vec::new();
    for item in &items {
        let Some(entry) = item.mapping(ICMP_RULE, findings) else { continue };
        let fields = entry.list("fields", findings).unwrap_or_default();
        if fields.len() > MAX_FIELDS {
            let message = format!("has {} fields: at most {MAX_FIELDS} are allowed", fields.len());
            let finding = entry.at_path("fields").error(message).rule("VAL-16");
            findings.add(finding.help("split the list over several elements of icmps"));
        }
        let ports = fields.iter().filter_map(|field| decode_field(field, findings)).collect();
        rules.push(PortRule { position: item.node.position, ports, proxy: Proxy::default() });
    }
    Some(rules)
}

fn decode_field(at: &Located<'_>, findings: &mut Findings) -> Option<Port> {
    let field = at.mapping(ICMP_FIELD, findings)?;
    let family = field.text("family", findings);
    let (protocol, names): (_, &[(&str, u8)]) = match family.as_str() {
        "" | "IPv4" => (PortProtocol::Icmp, &IPV4),
        "IPv6" => (PortProtocol::Icmpv6, &IPV6),
        other => {
            let finding = field.at_path("family").error(format!("unknown family {}", quoted(other))).rule("VAL-16");
            findings.add(finding.help("write IPv4 or IPv6"));
            return None;
        }
    };
    let Some(at) = field.get("type") else {
        findings.add(field.at.error("has no type").rule("VAL-16").help("write type: EchoRequest"));
        return None;
    };
    let text = at.text_or_number(findings)?;
    let named = names.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    let number = named.or_else(|| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit())));
    if number.is_none() {
        let help = match nearest(text, names.iter().map(|(name, _)| *name)) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "write a number from 0 to 255, or a name such as EchoRequest".to_owned(),
        };
        findings.add(at.error(format!("unknown message type {}", quoted(text))).rule("VAL-16").help(help));
    }
    Some(Port { protocol, number: PortNumber::one(number?.into()), end_port: 0 })
}
