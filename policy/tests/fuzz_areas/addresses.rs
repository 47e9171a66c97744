//! Addresses, ranges and names: each line is one text; the last address is looked for in all ranges.

use std::net::IpAddr;

use ringfence_policy::{address::AddressBook, cidr::Cidr, label::SOURCE_CIDR, name::Name, object::parse_objects};

const MOST_LINES: usize = 64;

/// Reads every line as each kind of text; what is accepted has one spelling and keeps its meaning.
pub(crate) fn exercise(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.split('\n').take(MOST_LINES).collect();
    let ranges: Vec<Cidr> = lines.iter().filter_map(|line| range(line)).collect();
    let mut addresses: Vec<IpAddr> = lines.iter().filter_map(|line| line.parse().ok()).collect();
    addresses.extend(ranges.iter().map(Cidr::address));
    for line in &lines {
        if let Ok(name) = Name::new(*line) {
            assert_eq!(name.to_string().parse::<Name>().as_ref(), Ok(&name));
        }
        let _ = Cidr::from_label_key(line);
    }
    for range in &ranges {
        for other in &ranges {
            let both = range.covers(other) && other.covers(range);
            assert_eq!(both, range == other, "{range} {other}");
        }
    }
    for dual_stack in [false, true] {
        let mut book = AddressBook::new(dual_stack, false);
        ranges.iter().for_each(|range| book.add_range(*range));
        for address in &addresses {
            longest_prefix_wins(&book, &ranges, *address);
        }
    }
    as_object(&lines, &ranges);
}

fn range(line: &str) -> Option<Cidr> {
    let range: Cidr = line.parse().ok()?;
    assert_eq!(range.to_string().parse(), Ok(range), "its own text");
    assert_eq!(Cidr::from_label_key(&range.label_key()), Some(range), "LBL-8: its label's key");
    assert!(range.contains(range.address()), "its own first address");
    assert!(range.covers(&Cidr::host(range.address())));
    assert_eq!(Cidr::new(range.address(), range.prefix_length()), Some(range), "host bits are clear");
    Some(range)
}

/// ID-21: the only range among an address's labels is the narrowest one that holds it.
fn longest_prefix_wins(book: &AddressBook, ranges: &[Cidr], address: IpAddr) {
    let labels = book.labels(address);
    let holding = ranges.iter().filter(|range| range.prefix_length() > 0 && range.contains(address));
    let narrowest = holding.max_by_key(|range| range.prefix_length()).map(Cidr::label_key);
    let found: Vec<&str> =
        labels.iter().filter(|label| label.source == SOURCE_CIDR).map(|label| label.key.as_str()).collect();
    assert_eq!(found, narrowest.iter().map(String::as_str).collect::<Vec<_>>(), "{address} in {ranges:?}");
    let _ = AddressBook::identity(&labels);
}

/// The lines as `toCIDR`, and as one CIDRSet whose first line is the range and whose others are exceptions.
fn as_object(lines: &[&str], ranges: &[Cidr]) {
    let except = lines.get(1..).unwrap_or_default();
    let element = serde_json::json!({"toCIDR": lines});
    let set = serde_json::json!({"toCIDRSet": [{"cidr": lines.first(), "except": except}]});
    for (element, has_exceptions) in [(element, false), (set, true)] {
        let spec = serde_json::json!({"endpointSelector": {}, "egress": [element]});
        let metadata = serde_json::json!({"name": "a", "namespace": "b"});
        let object = serde_json::json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec,
        });
        let parsed = parse_objects(&object.to_string());
        for (_, _, element) in parsed.objects.iter().flat_map(|object| &object.rules).flat_map(|rule| rule.elements()) {
            let Some(peers) = &element.peers else { continue };
            if !has_exceptions {
                assert_eq!(peers.cidrs.len(), lines.len(), "accepted as a whole: {lines:?}");
            }
            for set in &peers.cidr_sets {
                let own = ranges.first().expect("a CIDRSet is accepted with a range only");
                assert!(set.except.iter().all(|except| own.covers(except)), "VAL: exceptions lie inside {own}");
            }
        }
    }
}
