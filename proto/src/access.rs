//! Who may ask what: names in certificates, and one table.
//!
//! ```text
//! certificate ─ spiffe://ringfence/ROLE ─► Role ┐
//! ringfence-on-behalf-of (a gateway's word) ────┴► Caller ┐
//! path, then content of the request ─► Access ────────────┴─ authorise(Site) ─► Ok, or a Refusal: PERMISSION_DENIED,
//!                                                                               a line in the log, a count
//! ```
//!
//! `AccessLayer` lies around every server: it knows each call by its path, refuses what the role may not do whatever
//! the request says, and takes every path that it does not know for administration. What depends on the content
//! (`Execute`, `Report`) the handlers ask of `Permit::check`.
//!
//! Members are the trusted base: each could write any log entry when it leads. A gateway speaks for those who call it,
//! and says for whom: the store holds it to its own cluster's records and agents, and to the rules of the caller; that
//! an admin really asked is the gateway's word. No gateway can pass on administration.

mod layer;
mod role;
mod table;
#[cfg(test)]
mod tests;

pub use layer::{AccessLayer, AccessService, Permit, count, refuse_unknown};
pub use role::{InvalidRole, Role, UnknownRole};
pub use table::{Access, Caller, Refusal, Scope, Site, authorise};

/// Carries the role for which a gateway hands over a write.
pub const ON_BEHALF_OF: &str = "ringfence-on-behalf-of";
