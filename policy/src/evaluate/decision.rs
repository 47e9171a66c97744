//! What is decided about a flow.

use std::collections::BTreeSet;

use crate::{
    flow::Verdict,
    l7::rules::L7Rules,
    rule::{Authentication, Parser, TlsContext},
};

/// The outcome for one flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The flow passes once its ends have proved who they are.
    Allow {
        /// How; `Disabled` for not at all.
        authentication: Authentication,
    },
    /// The flow passes through the proxy.
    Redirect(Box<Redirect>),
    /// Nothing allows it in an enforced direction.
    DenyDefault,
    /// A deny rule matches it; no allow can help.
    DenyExplicit,
}

/// What the proxy must know about the flows of one peer and port: a request is allowed if any rule allows it (L7-2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Who reads the flow.
    pub parser: Parser,
    /// All rules of all elements that cover the peer and the port, each once, in order.
    pub rules: L7Rules,
    /// An element without rules covers the peer and the port, too: every request is allowed (L7-3).
    pub allow_all: bool,
    /// An element without ports covers the peer, too: every request is allowed, but for DNS (L7-4, L7-5).
    pub l3_allow_all: bool,
    /// The names a TLS client may ask for; empty for any (TLS-1).
    pub server_names: BTreeSet<String>,
    /// The listener that decides by itself (LSN-2).
    pub listener: Option<String>,
    /// The certificate the proxy shows (TLS-3).
    pub terminating_tls: Option<TlsContext>,
    /// What the proxy checks servers with (TLS-3).
    pub originating_tls: Option<TlsContext>,
    /// How both ends prove who they are.
    pub authentication: Authentication,
}

impl Decision {
    /// Plainly allowed.
    pub const ALLOW: Self = Self::Allow { authentication: Authentication::Disabled };

    /// Whether nothing of the flow passes.
    #[must_use]
    pub const fn refuses(&self) -> bool {
        matches!(self, Self::DenyDefault | Self::DenyExplicit)
    }

    /// What the tables can say about it; none for a flow that needs a proxy or authentication.
    #[must_use]
    pub const fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::Allow { authentication: Authentication::Disabled } => Some(Verdict::Allow),
            Self::DenyDefault => Some(Verdict::DenyDefault),
            Self::DenyExplicit => Some(Verdict::DenyExplicit),
            Self::Allow { .. } | Self::Redirect(_) => None,
        }
    }
}
