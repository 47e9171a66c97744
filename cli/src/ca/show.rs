//! What there is, and until when it is good.

use std::path::Path;

use serde::Serialize;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CaError, bundle, issued::Issued, unix_now};

/// Less than this is "ends soon".
const SOON_SECONDS: i64 = 30 * 86_400;

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Shown {
    /// Whose; `authority` for the authorities themselves.
    pub(crate) subject: String,
    /// The authority's name.
    pub(crate) authority: String,
    /// Hexadecimal.
    pub(crate) serial: String,
    /// Until when it is good, in seconds since 1970.
    pub(crate) not_after: i64,
    /// Days that are left; negative when it has ended.
    pub(crate) days_left: i64,
    /// `good`, `ends soon`, `ended`, `revoked`.
    pub(crate) state: &'static str,
}

/// The authorities, then everything that was issued.
pub(crate) fn show(directory: &Path) -> Result<Vec<Shown>, CaError> {
    let (bundle, issued, now) = (bundle::read(directory)?, Issued::load(directory)?, unix_now()?);
    let shown = |subject: &str, authority: String, serial: String, not_after: i64, revoked: bool| Shown {
        subject: subject.to_owned(),
        authority,
        serial,
        not_after,
        days_left: (not_after - now).div_euclid(86_400),
        state: match not_after - now {
            _ if revoked => "revoked",
            ..=0 => "ended",
            1..=SOON_SECONDS => "ends soon",
            _ => "good",
        },
    };
    let mut all = Vec::new();
    for authority in &bundle.authorities {
        let not_pem = |_| CaError::NotPem { path: bundle.path.clone(), expected: "a certificate" };
        let (_, certificate) = X509Certificate::from_der(&authority.der).map_err(not_pem)?;
        let serial = super::hex(certificate.raw_serial());
        let not_after = certificate.validity().not_after.timestamp();
        all.push(shown("authority", bundle::name_of(&authority.der), serial, not_after, false));
    }
    for one in issued.certificates {
        let revoked = one.revoked_at.is_some();
        all.push(shown(&one.subject, one.authority, one.serial, one.not_after, revoked));
    }
    Ok(all)
}
