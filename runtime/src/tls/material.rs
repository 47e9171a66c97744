//! Certificates that were read and found to fit together.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::WebPkiServerVerifier,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    TlsFiles,
    error::{TlsError, Wrong},
};

const HTTP2: &[u8] = b"h2";

/// What new connections use.
#[derive(Debug)]
pub struct Material {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    clients: Arc<dyn ClientCertVerifier>,
    own: CertificateDer<'static>,
    expiries: Vec<Expiry>,
}

/// Until when a certificate is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// `"own"` or `"authority"`.
    pub what: &'static str,
    /// Its common name; empty if it has none.
    pub name: String,
    /// Its serial number, in hexadecimal bytes: `"4f:a0:…"`.
    pub serial: String,
    /// The last moment.
    pub not_after: SystemTime,
}

/// The files as they are on disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Contents {
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |what, path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read { what, path: path.to_owned(), source })
        };
        Ok(Self {
            ca: read("authority", &files.ca)?,
            certificate: read("certificate", &files.certificate)?,
            key: read("key", &files.key)?,
        })
    }
}

impl Material {
    /// Checks that the files fit together.
    pub(super) fn new(files: &TlsFiles, contents: &Contents) -> Result<Self, TlsError> {
        let content = |what, path: &Path, reason: Wrong| TlsError::Content { what, path: path.to_owned(), reason };
        let bad_ca = |reason| content("authority", &files.ca, reason);
        let bad_certificate = |reason| content("certificate", &files.certificate, reason);

        let authorities: Vec<CertificateDer<'_>> = blocks("authority", &files.ca, &contents.ca, "CERTIFICATE")?;
        let lists = CertificateRevocationListDer::pem_slice_iter(&contents.ca)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| bad_ca(Wrong::Certificate))?;
        let chain: Vec<CertificateDer<'static>> =
            blocks("certificate", &files.certificate, &contents.certificate, "CERTIFICATE")?;
        let no_key = |_| TlsError::NotPem { what: "key", path: files.key.clone(), expected: "PRIVATE KEY" };
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(no_key)?;

        let mut expiries = vec![expiry("own", &chain[0]).ok_or_else(|| bad_certificate(Wrong::Certificate))?];
        let own = chain[0].clone();
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            expiries.push(expiry("authority", &authority).ok_or_else(|| bad_ca(Wrong::Certificate))?);
            roots.add(authority).map_err(|error| bad_ca(error.into()))?;
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(ring::default_provider()));
        let clients = client_verifier(&roots, &provider, lists.clone()).map_err(bad_ca)?;
        let servers = server_verifier(&roots, &provider, lists).map_err(bad_ca)?;
        let server = server_config(&provider, &clients, chain.clone(), key.clone_key()).map_err(bad_certificate)?;
        let client = client_config(&provider, servers, chain, key).map_err(bad_certificate)?;
        Ok(Self { server: Arc::new(server), client: Arc::new(client), clients, own, expiries })
    }

    /// Whether a client that showed `chain` would be let in now.
    pub(super) fn trusts(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((own, others)) = chain.split_first() else { return false };
        self.clients.verify_client_cert(own, others, UnixTime::now()).is_ok()
    }

    /// The own certificate (DER).
    #[must_use]
    pub fn own(&self) -> &[u8] {
        &self.own
    }

    /// Until when the own certificate (first) and the authorities are good.
    #[must_use]
    pub fn expiries(&self) -> &[Expiry] {
        &self.expiries
    }
}

fn client_verifier(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    lists: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Arc<dyn ClientCertVerifier>, Wrong> {
    let builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    Ok(builder.with_crls(lists).only_check_end_entity_revocation().allow_unknown_revocation_status().build()?)
}

fn server_verifier(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    lists: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Arc<WebPkiServerVerifier>, Wrong> {
    let builder = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
    Ok(builder.with_crls(lists).only_check_end_entity_revocation().allow_unknown_revocation_status().build()?)
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    clients: &Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, Wrong> {
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients.clone())
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(config)
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    servers: Arc<WebPkiServerVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, Wrong> {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_webpki_verifier(servers)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(config)
}

/// At least one block of a kind.
fn blocks<T: PemObject>(
    what: &'static str,
    path: &Path,
    pem: &[u8],
    expected: &'static str,
) -> Result<Vec<T>, TlsError> {
    match T::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(blocks) if !blocks.is_empty() => Ok(blocks),
        _ => Err(TlsError::NotPem { what, path: path.to_owned(), expected }),
    }
}

fn expiry(what: &'static str, certificate: &CertificateDer<'_>) -> Option<Expiry> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default();
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Some(Expiry { what, name: name.to_owned(), serial: certificate.raw_serial_as_string(), not_after })
}
