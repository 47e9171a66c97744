//! Mutual TLS from files: every connection between Ringfence processes is authenticated on both sides, and the files
//! may change while the process runs.
//!
//! ```text
//! ca (authorities, revocation lists) ┐             ┌─► ServerConfig ─► incoming: handshake ─► Session ─► tonic
//! certificate, key ──────────────────┴─► Material ─┤                                            │
//!        ▲ looked at every 5 s and on SIGHUP       └─► ClientConfig ─► each new connection      │
//!        └─ broken: the old material stays, and the log says so          cut off once it is not trusted any more
//! ```
//!
//! The `ca` file is the trust bundle: it may hold several authorities (while one takes the place of another) and their
//! revocation lists, as PEM blocks. An authority without a list has revoked nothing.

mod error;
mod incoming;
mod material;
mod reload;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use error::TlsError;
pub use incoming::{Incoming, Session};
pub use material::{Expiry, Material};
pub use reload::Tls;

/// Where a process finds its certificates (PEM). `ringfence ca` makes them. They are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The authorities that both sides trust, with their revocation lists.
    pub ca: PathBuf,
    /// This process's certificate.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
}
