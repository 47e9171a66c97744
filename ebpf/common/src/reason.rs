//! Why a packet was treated as it was, and what else is counted.

/// Why a packet was treated as it was; the index of its counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum Reason {
    /// A known connection, judged by the current generation already.
    Established = 0,
    /// A known connection, judged again after a change.
    Reevaluated = 1,
    /// A new connection that policy allows.
    New = 2,
    /// Judged at the sender's hook.
    Judged = 3,
    /// Neighbour discovery, multicast listener reports or ARP.
    NeighbourDiscovery = 4,
    /// No rule allows it.
    DenyDefault = 5,
    /// A deny rule matches.
    DenyExplicit = 6,
    /// The endpoint is not part of a realised revision (S9).
    NotRealised = 7,
    /// The endpoint sends with an address that is not its own.
    Spoofed = 8,
    /// Not IP, truncated, or not understood.
    Unparsable = 9,
    /// A later fragment of a datagram whose first one did not pass here before it.
    Fragment = 10,
    /// The program could not do its work: a map that must be there is not.
    Internal = 11,
    /// An ICMP error about a connection that is known and allowed.
    Related = 12,
    /// An endpoint reaches itself through another address, a service's for example.
    Hairpin = 13,
    /// No rule allows it, but the endpoint is under audit: it passes (AUD-2).
    AuditDefault = 14,
    /// A deny rule matches, but the endpoint is under audit: it passes (AUD-2).
    AuditExplicit = 15,
    /// A rule sends it to the proxy, which is not there.
    NoProxy = 16,
    /// A rule sends it to the proxy, which is not there, but the endpoint is under audit: it passes (AUD-2).
    AuditNoProxy = 17,
    /// An ICMP error about nothing that is known here.
    Unrelated = 18,
    /// Seen at an uplink, and not the node's own: an endpoint's, forwarded, or not IP.
    Passing = 19,
    /// What must never be cut at an uplink: DHCP, IGMP.
    Exempt = 20,
}

/// What is counted beside packets; the index of its counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Tally {
    /// Events that the ring had no room for.
    EventsLost = 0,
    /// Events that were not written because their CPU had written too many.
    EventsSuppressed = 1,
    /// Events that were written.
    EventsWritten = 2,
    /// Cells of connections, and elements of an LRU map, that went to another key while they were read; treated as not
    /// found.
    Reused = 3,
    /// Judgements that allow what the shadow policy would refuse.
    ShadowRefuses = 4,
    /// Judgements that refuse what the shadow policy would allow.
    ShadowAllows = 5,
    /// Connections that were alive and had to make room for others.
    FlowsEvicted = 6,
    /// Connections that were not remembered because other CPUs were writing where they could have been.
    FlowsNotKept = 7,
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: u32 = 21;
    /// Every reason, in the order of its counter.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::Established,
        Self::Reevaluated,
        Self::New,
        Self::Judged,
        Self::NeighbourDiscovery,
        Self::DenyDefault,
        Self::DenyExplicit,
        Self::NotRealised,
        Self::Spoofed,
        Self::Unparsable,
        Self::Fragment,
        Self::Internal,
        Self::Related,
        Self::Hairpin,
        Self::AuditDefault,
        Self::AuditExplicit,
        Self::NoProxy,
        Self::AuditNoProxy,
        Self::Unrelated,
        Self::Passing,
        Self::Exempt,
    ];

    /// The reason with a number; `Internal` for what is none that the parser gives.
    #[must_use]
    #[inline(always)]
    pub const fn of_parser(number: u64) -> Self {
        const PASS: u64 = Reason::NeighbourDiscovery as u64;
        const PASSING: u64 = Reason::Passing as u64;
        const UNPARSABLE: u64 = Reason::Unparsable as u64;
        const FRAGMENT: u64 = Reason::Fragment as u64;
        const UNRELATED: u64 = Reason::Unrelated as u64;
        match number {
            PASS => Self::NeighbourDiscovery,
            PASSING => Self::Passing,
            UNPARSABLE => Self::Unparsable,
            FRAGMENT => Self::Fragment,
            UNRELATED => Self::Unrelated,
            _ => Self::Internal,
        }
    }

    /// A short name for people and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Reevaluated => "reevaluated",
            Self::New => "new",
            Self::Judged => "judged-at-sender",
            Self::NeighbourDiscovery => "neighbour-discovery",
            Self::DenyDefault => "deny-default",
            Self::DenyExplicit => "deny-explicit",
            Self::NotRealised => "not-realised",
            Self::Spoofed => "spoofed",
            Self::Unparsable => "unparsable",
            Self::Fragment => "fragment",
            Self::Internal => "internal",
            Self::Related => "related",
            Self::Hairpin => "hairpin",
            Self::AuditDefault => "audit-default",
            Self::AuditExplicit => "audit-explicit",
            Self::NoProxy => "no-proxy",
            Self::AuditNoProxy => "audit-no-proxy",
            Self::Unrelated => "unrelated",
            Self::Passing => "passing-through",
            Self::Exempt => "exempt",
        }
    }

    /// Whether packets with this reason pass.
    #[must_use]
    #[inline(always)]
    pub const fn passes(self) -> bool {
        match self {
            Self::Established
            | Self::Reevaluated
            | Self::New
            | Self::Judged
            | Self::NeighbourDiscovery
            | Self::Related
            | Self::Hairpin
            | Self::AuditDefault
            | Self::AuditExplicit
            | Self::AuditNoProxy
            | Self::Passing
            | Self::Exempt => true,
            Self::DenyDefault
            | Self::DenyExplicit
            | Self::NotRealised
            | Self::Spoofed
            | Self::Unparsable
            | Self::Fragment
            | Self::Internal
            | Self::NoProxy
            | Self::Unrelated => false,
        }
    }

    /// What a refusal by policy becomes at an endpoint under audit.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn under_audit(self) -> Self {
        match self {
            Self::DenyDefault => Self::AuditDefault,
            Self::DenyExplicit => Self::AuditExplicit,
            Self::NoProxy => Self::AuditNoProxy,
            other => other,
        }
    }
}

impl Tally {
    /// How many there are.
    pub const COUNT: u32 = 8;
    /// Every tally, in the order of its counter.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::EventsLost,
        Self::EventsSuppressed,
        Self::EventsWritten,
        Self::Reused,
        Self::ShadowRefuses,
        Self::ShadowAllows,
        Self::FlowsEvicted,
        Self::FlowsNotKept,
    ];

    /// A short name for people and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EventsLost => "events-lost",
            Self::EventsSuppressed => "events-suppressed",
            Self::EventsWritten => "events-written",
            Self::Reused => "flow-elements-reused",
            Self::ShadowRefuses => "shadow-refuses",
            Self::ShadowAllows => "shadow-allows",
            Self::FlowsEvicted => "flows-evicted",
            Self::FlowsNotKept => "flows-not-kept",
        }
    }
}
