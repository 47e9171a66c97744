//! Dialling another process of the mesh.

mod dialer;

use std::time::Duration;

use tonic::transport::Endpoint;

pub use dialer::{Dialer, Expected};

/// The largest message that servers and clients take: a delta is one message, snapshots come in chunks.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Calls of one connection that their callers gave up before a server came to them. HTTP/2 servers close the whole
/// connection beyond 20 of them (against CVE-2023-44487), with every call that is alive on it: too few for a process that
/// stood still for a moment. Callers show a certificate here; who floods loses it.
pub const MAX_CALLS_GIVEN_UP: usize = 4096;

/// The name that every server certificate of a mesh carries, so that clients need not know where a process runs.
pub const SERVER_NAME: &str = "ringfence.mesh";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer that vanished without a word is noticed within these two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// An address cannot be dialled.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAddress {
    /// The text is no address.
    #[error("{address:?} is not an address: write host:port, for example 10.40.1.10:7401")]
    Form {
        /// The text as given.
        address: String,
    },
}

/// Whether an address can be dialled.
///
/// # Errors
/// `InvalidAddress::Form` unless it is `host:port`.
pub fn check_address(address: &str) -> Result<(), InvalidAddress> {
    plain(address).map(drop)
}

/// How to reach a member or gateway: with bounded connect time and keep-alive.
fn plain(address: &str) -> Result<Endpoint, InvalidAddress> {
    let invalid = || InvalidAddress::Form { address: address.to_owned() };
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    let bad_host = host.is_empty() || host.contains(['/', '@']) || host.contains(char::is_whitespace);
    if bad_host || !matches!(port.parse::<u16>(), Ok(port) if port != 0) {
        return Err(invalid());
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| invalid())?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["10.0.0.1:7400", "[fd00::1]:7400", "store.east:7400"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in ["", "10.0.0.1", "10.0.0.1:", ":7400", "10.0.0.1:0", "10.0.0.1:70000", "https://a:1", "a b:1"] {
            let error = check_address(bad).unwrap_err();
            assert!(matches!(error, InvalidAddress::Form { .. }), "{bad}: {error}");
        }
    }
}
