//! Mutual TLS from files: every connection between Ringfence processes is authenticated on both sides.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// Where a process finds its certificates (PEM). `ringfence ca` makes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The authority that both sides trust.
    pub ca: PathBuf,
    /// This process's certificate.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
}

/// A certificate file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read the TLS {what} {}: {source} ('ringfence ca' makes certificates)", path.display())]
    Read {
        /// Which of the three.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the TLS {what} {} holds no PEM block '{expected}'", path.display())]
    NotPem {
        /// Which of the three.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
}

impl TlsFiles {
    /// For a server: shows its certificate and asks clients for one of the same authority.
    ///
    /// # Errors
    /// `TlsError` for a file that is missing or not PEM.
    pub fn server(&self) -> Result<ServerTlsConfig, TlsError> {
        let (ca, identity) = self.load()?;
        Ok(ServerTlsConfig::new().identity(identity).client_ca_root(ca))
    }

    /// For a client: expects a server of the same authority whose certificate carries `server_name`.
    ///
    /// # Errors
    /// `TlsError` for a file that is missing or not PEM.
    pub fn client(&self, server_name: &str) -> Result<ClientTlsConfig, TlsError> {
        let (ca, identity) = self.load()?;
        Ok(ClientTlsConfig::new().identity(identity).ca_certificate(ca).domain_name(server_name))
    }

    fn load(&self) -> Result<(Certificate, Identity), TlsError> {
        let ca = read_pem("authority", &self.ca, "CERTIFICATE")?;
        let certificate = read_pem("certificate", &self.certificate, "CERTIFICATE")?;
        let key = read_pem("key", &self.key, "PRIVATE KEY")?;
        Ok((Certificate::from_pem(ca), Identity::from_pem(certificate, key)))
    }
}

fn read_pem(what: &'static str, path: &Path, expected: &'static str) -> Result<Vec<u8>, TlsError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| TlsError::Read { what, path: path.to_owned(), source })?;
    if text.contains("-----BEGIN ") && text.contains(expected) {
        Ok(text.into_bytes())
    } else {
        Err(TlsError::NotPem { what, path: path.to_owned(), expected })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file_and_its_part() {
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.crt");
        std::fs::write(&ca, "not pem").unwrap();
        let files = TlsFiles { ca, certificate: "missing.crt".into(), key: "missing.key".into() };
        assert!(matches!(files.client("localhost"), Err(TlsError::NotPem { what: "authority", .. })));
    }
}
