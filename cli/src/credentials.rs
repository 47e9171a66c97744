//! The certificates that a person shows to servers, checked before anybody is dialled.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use ringfence_proto::connect::{Dialer, Expected};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use crate::{failure::Failure, flags::Global};

/// Reads the files that the flags name, to dial whom a command is meant for and nobody else.
///
/// # Errors
/// `Failure::Usage` if a flag is missing, `Failure::Failed` for a file that cannot be used.
pub(crate) fn dialer(global: &Global, expected: Expected) -> Result<Dialer, Failure> {
    let tls = Arc::new(load(global)?);
    Ok(Dialer::new(expected, move || tls.clone()))
}

fn load(global: &Global) -> Result<ClientConfig, Failure> {
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
    let authorities = certificates(&ca, &ca_path)?;
    let certificate = read(&certificate_path)?;
    let key = read(&key_path)?;
    let chain = certificates(&certificate, &certificate_path)?;
    let key = check_pair(chain.clone(), &certificate_path, &key, &key_path)?;
    Ok(client_config(authorities, chain, key)
        .with_context(|| format!("{} and {}", ca_path.display(), certificate_path.display()))?)
}

fn client_config(
    authorities: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots);
    let mut tls = builder.with_client_auth_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

/// The key, if it is that of the certificate.
fn check_pair(
    chain: Vec<CertificateDer<'static>>,
    certificate: &Path,
    key_pem: &[u8],
    key: &Path,
) -> anyhow::Result<PrivateKeyDer<'static>> {
    let wrong = || format!("{} is not a private key in PEM format", key.display());
    let private = PrivateKeyDer::from_pem_slice(key_pem).with_context(wrong)?;
    let loaded = ring::default_provider().key_provider.load_private_key(private.clone_key()).with_context(wrong)?;
    let fits = CertifiedKey::new(chain, loaded).keys_match();
    fits.with_context(|| format!("{} is not the key of {}", key.display(), certificate.display()))?;
    Ok(private)
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
