//! An event as a line and as an object.

use ringfence_policy::{explain::describe_protocol, flow::protocol};
use ringfence_proto::v1;
use serde::Serialize;

/// The names of a line's columns: lines come one by one, so their widths are fixed.
pub(super) const HEADER: &str =
    "TIME             VERDICT  REASON            DIRECTION  FLOW                                      WHAT ELSE";

/// An event.
#[derive(Debug, Serialize)]
pub(super) struct EventView {
    /// RFC 3339, UTC.
    time: String,
    verdict: &'static str,
    reason: String,
    direction: String,
    connection: String,
    endpoint: String,
    source: PartyView,
    destination: PartyView,
    protocol: String,
    port: u32,
    revision: u64,
    policy: Option<u32>,
    band: Option<u32>,
    shadow_differs: bool,
    cut: bool,
    rules: Vec<RuleView>,
}

/// One end.
#[derive(Debug, Serialize)]
struct PartyView {
    address: String,
    port: u32,
    identity: u32,
    labels: Vec<String>,
    endpoint: String,
}

/// A rule that has a say.
#[derive(Debug, Serialize)]
struct RuleView {
    object: String,
    path: String,
    verdict: String,
    audit: bool,
    log: String,
}

/// Events that nobody will see.
#[derive(Debug, Serialize)]
pub(super) struct LostView {
    ring: u64,
    rate_limit: u64,
    undecodable: u64,
    slow_reader: u64,
}

impl From<v1::FlowEvent> for EventView {
    fn from(event: v1::FlowEvent) -> Self {
        let asked = event.policy != 0;
        Self {
            time: time(event.time_unix_ns),
            verdict: match (event.allowed, event.reason.starts_with("audit-")) {
                (true, true) => "audit",
                (true, false) => "allow",
                (false, _) => "deny",
            },
            reason: event.reason,
            direction: event.direction,
            connection: event.connection,
            endpoint: event.endpoint,
            source: event.source.unwrap_or_default().into(),
            destination: event.destination.unwrap_or_default().into(),
            protocol: describe_protocol(u8::try_from(event.protocol).unwrap_or(0)),
            port: event.port,
            revision: event.revision,
            policy: asked.then_some(event.policy),
            band: asked.then_some(event.band),
            shadow_differs: event.shadow_differs,
            cut: event.cut,
            rules: event.rules.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::FlowParty> for PartyView {
    fn from(party: v1::FlowParty) -> Self {
        let v1::FlowParty { address, port, identity, labels, endpoint } = party;
        Self { address, port, identity, labels, endpoint }
    }
}

impl From<v1::RuleReference> for RuleView {
    fn from(rule: v1::RuleReference) -> Self {
        let v1::RuleReference { object, path, verdict, audit, log } = rule;
        Self { object, path, verdict, audit, log }
    }
}

impl From<v1::LostEvents> for LostView {
    fn from(lost: v1::LostEvents) -> Self {
        let v1::LostEvents { ring, rate_limit, undecodable, slow_reader } = lost;
        Self { ring, rate_limit, undecodable, slow_reader }
    }
}

impl EventView {
    pub(super) fn text(&self) -> String {
        // The day is that of today: a line need not say it.
        let clock = self.time.get(11..26).unwrap_or(&self.time);
        let ported = [protocol::TCP, protocol::UDP, protocol::SCTP].map(describe_protocol).contains(&self.protocol);
        let (source, destination) = (self.source.text(ported), self.destination.text(ported));
        let what = if ported || self.policy.is_none() { String::new() } else { format!(" type {}", self.port) };
        let flow = format!("{source} → {destination} {}{what}", self.protocol);
        let Self { verdict, reason, direction, .. } = self;
        format!("{clock:<15}  {verdict:<7}  {reason:<16}  {direction:<9}  {flow}{}", self.rest())
    }

    fn rest(&self) -> String {
        let mut parts = vec![format!("revision {}", self.revision)];
        if let Some((policy, band)) = self.policy.zip(self.band) {
            parts.push(format!("policy {policy} band {band} of {}", self.endpoint));
        }
        if self.cut {
            parts.push("cut: it was allowed before".to_owned());
        }
        if self.shadow_differs {
            parts.push("a policy under audit would decide otherwise".to_owned());
        }
        parts.extend(self.rules.iter().map(|rule| format!("{} by {} {}", rule.verdict, rule.object, rule.path)));
        format!("  ({})", parts.join("; "))
    }
}

impl PartyView {
    fn text(&self, ported: bool) -> String {
        let place = match (self.address.as_str(), ported) {
            ("", _) => "?".to_owned(),
            (address, true) if address.contains(':') => format!("[{address}]:{}", self.port),
            (address, true) => format!("{address}:{}", self.port),
            (address, false) => address.to_owned(),
        };
        let who = match (self.endpoint.as_str(), &self.labels[..]) {
            ("", []) => return place,
            ("", labels) => format!("{} {}", self.identity, labels.join(",")),
            (endpoint, []) => endpoint.to_owned(),
            (endpoint, labels) => format!("{endpoint} {} {}", self.identity, labels.join(",")),
        };
        format!("{place} ({who})")
    }
}

impl LostView {
    pub(super) fn text(&self) -> String {
        let causes = [
            (self.ring, "the datapath's ring was full"),
            (self.rate_limit, "a CPU had written too many"),
            (self.undecodable, "not understood"),
            (self.slow_reader, "this output was read too slowly"),
        ];
        let lost: u64 = causes.iter().map(|(count, _)| count).sum();
        let causes = causes.iter().filter(|(count, _)| *count > 0).map(|(count, why)| format!("{count}: {why}"));
        format!("--- {lost} events lost ({})", causes.collect::<Vec<_>>().join("; "))
    }
}

/// RFC 3339 with microseconds, UTC (days to dates: H. Hinnant, "chrono-compatible low-level date algorithms").
fn time(unix_ns: u64) -> String {
    let (seconds, micros) = (unix_ns / 1_000_000_000, unix_ns / 1000 % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{micros:06}Z", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (4_102_444_800, "2100-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(time(seconds * 1_000_000_000), expected);
        }
        assert_eq!(time(1_234_567), "1970-01-01T00:00:00.001234Z");
    }
}
