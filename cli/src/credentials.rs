//! The certificates that a person shows to servers, checked before anybody is dialled.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use ringfence_proto::connect::SERVER_NAME;
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::{args::Global, failure::Failure};

/// Reads the files that the flags name.
///
/// # Errors
/// `Failure::Usage` if a flag is missing, `Failure::Failed` for a file that cannot be used.
pub(crate) fn load(global: &Global) -> Result<ClientTlsConfig, Failure> {
    let file = |given: &Option<PathBuf>, name: &str, flag: &str| {
        given.clone().or_else(|| global.tls_dir.as_ref().map(|directory| directory.join(name))).ok_or_else(|| {
            let reason =
                format!("no certificates given: use --tls-dir DIR (with ca.crt, tls.crt, tls.key) or {flag} FILE");
            Failure::Usage { reason }
        })
    };
    let ca_path = file(&global.ca, "ca.crt", "--ca")?;
    let certificate_path = file(&global.certificate, "tls.crt", "--certificate")?;
    let key_path = file(&global.key, "tls.key", "--key")?;

    let ca = read(&ca_path)?;
    certificates(&ca, &ca_path)?;
    let certificate = read(&certificate_path)?;
    let key = read(&key_path)?;
    let chain = certificates(&certificate, &certificate_path)?;
    check_pair(chain, &certificate_path, &key, &key_path)?;
    Ok(ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .identity(Identity::from_pem(certificate, key))
        .domain_name(SERVER_NAME))
}

fn check_pair(
    chain: Vec<CertificateDer<'static>>,
    certificate: &Path,
    key_pem: &[u8],
    key: &Path,
) -> anyhow::Result<()> {
    let wrong = || format!("{} is not a private key in PEM format", key.display());
    let private = PrivateKeyDer::from_pem_slice(key_pem).with_context(wrong)?;
    let private = ring::default_provider().key_provider.load_private_key(private).with_context(wrong)?;
    let fits = CertifiedKey::new(chain, private).keys_match();
    fits.with_context(|| format!("{} is not the key of {}", key.display(), certificate.display()))
}

fn certificates(pem: &[u8], path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let wrong = || format!("{} is not a certificate in PEM format", path.display());
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().with_context(wrong)?;
    ensure!(!found.is_empty(), wrong());
    Ok(found)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
