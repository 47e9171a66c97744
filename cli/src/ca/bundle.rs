//! `ca.crt`: the authorities that everybody trusts, the issuing one first, and their revocation lists.

use std::path::{Path, PathBuf};

use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevocationReason, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CaError, authority_of, authority_paths, issued::Issued};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The authorities of a bundle; one, or two during a rotation.
pub(crate) struct Bundle {
    pub(crate) path: PathBuf,
    pub(crate) authorities: Vec<Authority>,
}

/// One of them.
pub(crate) struct Authority {
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
}

/// Reads the authorities.
pub(crate) fn read(directory: &Path) -> Result<Bundle, CaError> {
    let (path, _) = authority_paths(directory);
    let text = super::read(&path, directory)?;
    let not_pem = || CaError::NotPem { path: path.clone(), expected: "a certificate" };
    let mut authorities = Vec::new();
    for block in text.split(BEGIN).skip(1) {
        let (body, _) = block.split_once(END).ok_or_else(not_pem)?;
        let pem = format!("{BEGIN}{body}{END}\n");
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| not_pem())?;
        authorities.push(Authority { pem, der });
    }
    if authorities.is_empty() { Err(not_pem()) } else { Ok(Bundle { path, authorities }) }
}

/// The common name of a certificate; empty without one.
pub(crate) fn name_of(der: &[u8]) -> String {
    let certificate = X509Certificate::from_der(der).ok();
    let name = certificate.as_ref().and_then(|(_, certificate)| certificate.subject().iter_common_name().next());
    name.and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned()
}

impl Bundle {
    /// The authorities' common names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.authorities.iter().map(|authority| name_of(&authority.der)).collect()
    }

    /// The bundle's text with the revocation lists that follow from what was issued.
    pub(crate) fn text(&self, directory: &Path, issued: &Issued, now: i64) -> Result<String, CaError> {
        let mut text: String = self.authorities.iter().map(|authority| authority.pem.as_str()).collect();
        for authority in &self.authorities {
            text += &self.list(directory, authority, issued, now)?.unwrap_or_default();
        }
        Ok(text)
    }

    /// The list of one authority; none where it has revoked nothing.
    fn list(
        &self,
        directory: &Path,
        authority: &Authority,
        issued: &Issued,
        now: i64,
    ) -> Result<Option<String>, CaError> {
        let name = name_of(&authority.der);
        let of_authority = issued.certificates.iter().filter(|one| one.authority == name && one.not_after > now);
        let revoked: Vec<RevokedCertParams> = of_authority
            .filter_map(|one| Some((SerialNumber::from(bytes(&one.serial)?), one.revoked_at?)))
            .map(|(serial_number, at)| RevokedCertParams {
                serial_number,
                revocation_time: date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(at.unsigned_abs()),
                reason_code: Some(RevocationReason::Unspecified),
                invalidity_date: None,
            })
            .collect();
        if revoked.is_empty() {
            return Ok(None);
        }
        let issuer = self.issuer(directory, authority)?;
        let seconds = |at: i64| date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(at.unsigned_abs());
        let list = CertificateRevocationListParams {
            this_update: seconds(now),
            // The list is good until another takes its place, at most as long as its authority.
            next_update: seconds(now) + super::AUTHORITY_LIFETIME,
            crl_number: SerialNumber::from(now.unsigned_abs()),
            issuing_distribution_point: None,
            revoked_certs: revoked,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let failed = |source| CaError::Certificate { subject: format!("the revocation list of {name}"), source };
        Ok(Some(list.signed_by(&issuer).and_then(|list| list.pem()).map_err(failed)?))
    }

    /// The key of the first authority is in ca.key, the one of the other in ca-old.key.
    fn issuer(&self, directory: &Path, authority: &Authority) -> Result<Issuer<'static, KeyPair>, CaError> {
        let (_, current) = authority_paths(directory);
        for key_path in [current, old_key(directory)] {
            let Ok(key) = super::read(&key_path, directory) else { continue };
            match authority_of(&authority.der, &self.path, &key, &key_path) {
                Err(CaError::OtherKey { .. }) => {}
                found => return found,
            }
        }
        Err(CaError::NoKey { authority: name_of(&authority.der) })
    }
}

/// Where the old authority's key is during a rotation.
pub(crate) fn old_key(directory: &Path) -> PathBuf {
    directory.join("ca-old.key")
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}
