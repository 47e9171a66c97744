//! Dialling another process of the mesh.

use std::time::Duration;

use tonic::transport::{ClientTlsConfig, Endpoint};

/// The largest message that servers and clients take: a delta is one message, snapshots come in chunks.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// The name that every server certificate of a mesh carries, so that clients need not know where a process runs.
pub const SERVER_NAME: &str = "ringfence.mesh";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer that vanished without a word is noticed within these two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A text is not an address to dial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address:?} is not an address: write host:port, for example 10.40.1.10:7401")]
pub struct InvalidAddress {
    /// The text as given.
    pub address: String,
}

/// How to reach a member or gateway: over mutual TLS, with bounded connect time and keep-alive.
///
/// # Errors
/// `InvalidAddress` unless `address` is `host:port`.
pub fn endpoint(address: &str, tls: ClientTlsConfig) -> Result<Endpoint, InvalidAddress> {
    let invalid = || InvalidAddress { address: address.to_owned() };
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    let bad_host = host.is_empty() || host.contains(['/', '@']) || host.contains(char::is_whitespace);
    if bad_host || !matches!(port.parse::<u16>(), Ok(port) if port != 0) {
        return Err(invalid());
    }
    Endpoint::from_shared(format!("https://{address}"))
        .and_then(|endpoint| endpoint.tls_config(tls))
        .map(|endpoint| {
            endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
                .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                .keep_alive_while_idle(true)
        })
        .map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["10.0.0.1:7400", "[fd00::1]:7400", "store.east:7400"] {
            assert!(endpoint(good, ClientTlsConfig::new()).is_ok(), "{good}");
        }
        for bad in ["", "10.0.0.1", "10.0.0.1:", ":7400", "10.0.0.1:0", "10.0.0.1:70000", "https://a:1", "a b:1"] {
            assert!(endpoint(bad, ClientTlsConfig::new()).is_err(), "{bad}");
        }
    }
}
