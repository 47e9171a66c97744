//! The mesh's certificate authority: files in a directory.
//!
//! ```text
//! init ───► ca.crt, ca.key ─┬─► <subject>.crt, <subject>.key for each subject, a line of each in issued.yaml
//! issue ──► reads them ─────┘
//! revoke ─► issued.yaml ─► revocation lists in ca.crt
//! rotate ─► a new authority first in ca.crt, the old one behind it (ca-old.key) ─ finish ─► the new one alone
//! ```
//!
//! `ca.crt` is what every process trusts: authorities, the issuing one first, and their revocation lists.

mod bundle;
mod files;
mod issued;
mod revoke;
mod rotate;
mod show;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use ringfence_proto::connect::SERVER_NAME;
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

pub(crate) use files::FileError;
use files::NewFile;
use issued::{Issued, IssuedCertificate};
pub(crate) use revoke::revoke;
pub(crate) use ringfence_proto::access::Role as Subject;
pub(crate) use rotate::{finish, rotate};
pub(crate) use show::{Shown, show};

const AUTHORITY_NAME: &str = "ringfence mesh CA";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_LIFETIME: Duration = DAY.saturating_mul(3653);
const CERTIFICATE_LIFETIME: Duration = DAY.saturating_mul(365);
/// A new certificate is good on machines whose clock is behind by up to this much.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60 * 60);
/// The longest common name (RFC 5280, ub-common-name). The subject is in the URI in any case.
const MAX_COMMON_NAME: usize = 64;

/// Certificates cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaError {
    /// There is an authority in the directory.
    #[error(
        "{} exists already: 'ringfence ca issue' adds certificates; --force makes a new authority, with which the \
         certificates of the old one do not work",
        path.display()
    )]
    AuthorityExists {
        /// Its file.
        path: PathBuf,
    },
    /// There is no authority in the directory.
    #[error("{} does not exist: make the authority first, with 'ringfence ca init --dir {}'", path.display(), directory.display())]
    NoAuthority {
        /// The file that was looked for.
        path: PathBuf,
        /// Where.
        directory: PathBuf,
    },
    /// A file of the authority cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the authority is damaged.
    #[error("{} is not {expected} in PEM format", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// The certificate may not sign others.
    #[error("{} is not an authority's certificate: use what 'ringfence ca init' made", path.display())]
    NotAnAuthority {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not belong together.
    #[error("{} is not the key of {}: both must come from one 'ringfence ca init'", key.display(), certificate.display())]
    OtherKey {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The list of what was issued is damaged.
    #[error("{}: {source}: put the right file back; without it nothing can be revoked", path.display())]
    Issued {
        /// The file.
        path: PathBuf,
        /// Why.
        source: yaml_serde::Error,
    },
    /// Nothing was issued to the subject.
    #[error("no certificate of {subject} that is still good was issued here")]
    NotIssued {
        /// Whose.
        subject: String,
    },
    /// An authority whose key is gone cannot revoke.
    #[error("the key of authority {authority} is not here: it cannot revoke its certificates; rotate instead")]
    NoKey {
        /// Its name.
        authority: String,
    },
    /// One rotation after the other.
    #[error(
        "{} holds two authorities already: give everybody a certificate of the new one, then 'ringfence ca rotate --finish'",
        path.display()
    )]
    Rotating {
        /// The bundle.
        path: PathBuf,
    },
    /// There is nothing to finish.
    #[error("{} holds one authority: 'ringfence ca rotate' begins a rotation", path.display())]
    NotRotating {
        /// The bundle.
        path: PathBuf,
    },
    /// Somebody would be locked out.
    #[error(
        "only certificates of the old authority were issued to {subjects}: issue new ones first, or revoke them; --force locks them out"
    )]
    StillOld {
        /// To whom.
        subjects: String,
    },
    /// Two subjects would share their files.
    #[error("{first} and {second} would both be written to {stem}.crt: issue them into different directories")]
    SameFile {
        /// One of them.
        first: String,
        /// The other one.
        second: String,
        /// What both files are called.
        stem: String,
    },
    /// The machine's clock is of no use.
    #[error("the clock of this machine shows no date that a certificate can carry: set it right")]
    Clock,
    /// The cryptography library refuses.
    #[error("cannot make the certificate of {subject}: {source}")]
    Certificate {
        /// For whom.
        subject: String,
        /// Why.
        source: rcgen::Error,
    },
    /// The files cannot be made.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Makes an authority and a certificate for each subject; returns the files.
///
/// # Errors
/// `CaError`; nothing has changed then, except where `force` meets a disk that fails halfway.
pub(crate) fn init(directory: &Path, subjects: &[Subject], force: bool) -> Result<Vec<PathBuf>, CaError> {
    let (certificate, key) = authority_paths(directory);
    if !force && let Some(path) = [&certificate, &key].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(CaError::AuthorityExists { path: path.clone() });
    }
    let authority = new_authority()?;
    let mut files = vec![
        NewFile { path: key, content: authority.key().serialize_pem(), private: true },
        NewFile { path: certificate, content: authority.pem(), private: false },
    ];
    let (name, mut issued) = (bundle::name_of(authority.der()), Issued::default());
    files.extend(certificates(directory, subjects, &authority, &name, &mut issued)?);
    let paths = files::place(directory, &files, force)?;
    issued.save(directory)?;
    Ok(paths)
}

/// Every authority has a name of its own, so that revocation lists are not taken for another's.
fn new_authority() -> Result<CertifiedIssuer<'static, KeyPair>, CaError> {
    let failed = |source| CaError::Certificate { subject: AUTHORITY_NAME.to_owned(), source };
    let key = KeyPair::generate().map_err(failed)?;
    let name = format!("{AUTHORITY_NAME} {}", &hex(&serial_bytes(&key))[..8]);
    let mut parameters = parameters(&name, AUTHORITY_LIFETIME)?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(parameters, key).map_err(failed)
}

/// Makes a certificate for each subject with the authority of the directory; returns the files.
///
/// # Errors
/// `CaError`; nothing has changed then, except where `force` meets a disk that fails halfway.
pub(crate) fn issue(directory: &Path, subjects: &[Subject], force: bool) -> Result<Vec<PathBuf>, CaError> {
    let (certificate, key) = authority_paths(directory);
    let authority = load_authority(directory, &certificate, &key)?;
    let mut issued = Issued::load(directory)?;
    let name = bundle::read(directory)?.names().remove(0);
    let files = certificates(directory, subjects, &authority, &name, &mut issued)?;
    let paths = files::place(directory, &files, force)?;
    issued.save(directory)?;
    Ok(paths)
}

fn certificates(
    directory: &Path,
    subjects: &[Subject],
    authority: &Issuer<'_, KeyPair>,
    authority_name: &str,
    issued: &mut Issued,
) -> Result<Vec<NewFile>, CaError> {
    let mut stems: BTreeMap<String, &Subject> = BTreeMap::new();
    let mut files = Vec::new();
    for subject in subjects {
        let stem = subject.to_string().replace('/', "-");
        if let Some(first) = stems.insert(stem.clone(), subject) {
            return Err(CaError::SameFile { first: first.to_string(), second: subject.to_string(), stem });
        }
        let failed = |source| CaError::Certificate { subject: subject.to_string(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut parameters = subject_parameters(subject)?;
        let serial = serial_bytes(&key);
        parameters.serial_number = Some(SerialNumber::from(serial.to_vec()));
        let not_after = parameters.not_after.unix_timestamp();
        let certificate = parameters.signed_by(&key, authority).map_err(failed)?;
        issued.certificates.push(IssuedCertificate {
            serial: hex(&serial),
            subject: subject.to_string(),
            authority: authority_name.to_owned(),
            not_after,
            revoked_at: None,
        });
        let path = |suffix: &str| directory.join(format!("{stem}.{suffix}"));
        files.push(NewFile { path: path("key"), content: key.serialize_pem(), private: true });
        files.push(NewFile { path: path("crt"), content: certificate.pem(), private: false });
    }
    Ok(files)
}

/// Members and gateways are servers, too: nobody else's certificate can be used as theirs.
fn subject_parameters(subject: &Subject) -> Result<CertificateParams, CaError> {
    let name = subject.to_string();
    let failed = |source| CaError::Certificate { subject: name.clone(), source };
    let mut parameters = parameters(&name, CERTIFICATE_LIFETIME)?;
    parameters.subject_alt_names = vec![SanType::URI(subject.uri().try_into().map_err(failed)?)];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if subject.is_server() {
        parameters.subject_alt_names.push(SanType::DnsName(SERVER_NAME.try_into().map_err(failed)?));
        parameters.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

fn parameters(name: &str, lifetime: Duration) -> Result<CertificateParams, CaError> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    if name.len() <= MAX_COMMON_NAME {
        parameters.distinguished_name.push(DnType::CommonName, name);
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|_| CaError::Clock)?;
    let start = now.checked_sub(CLOCK_TOLERANCE).ok_or(CaError::Clock)?;
    let at = |since_epoch: Duration| {
        let since_epoch = since_epoch.try_into().map_err(|_| CaError::Clock)?;
        date_time_ymd(1970, 1, 1).checked_add(since_epoch).ok_or(CaError::Clock)
    };
    parameters.not_before = at(start)?;
    parameters.not_after = at(start.saturating_add(lifetime))?;
    Ok(parameters)
}

fn load_authority(
    directory: &Path,
    certificate_path: &Path,
    key_path: &Path,
) -> Result<Issuer<'static, KeyPair>, CaError> {
    let certificate = read(certificate_path, directory)?;
    let bad_certificate = || CaError::NotPem { path: certificate_path.to_owned(), expected: "a certificate" };
    let chain = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| bad_certificate())?;
    authority_of(&chain, certificate_path, &read(key_path, directory)?, key_path)
}

/// An authority that can sign, from its certificate and the text of its key file.
fn authority_of(
    chain: &CertificateDer<'_>,
    certificate_path: &Path,
    key: &str,
    key_path: &Path,
) -> Result<Issuer<'static, KeyPair>, CaError> {
    let bad_certificate = || CaError::NotPem { path: certificate_path.to_owned(), expected: "a certificate" };
    let bad_key = || CaError::NotPem { path: key_path.to_owned(), expected: "a private key" };
    let private = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| bad_key())?;
    let private = ring::default_provider().key_provider.load_private_key(private).map_err(|_| bad_key())?;
    if CertifiedKey::new(vec![chain.clone().into_owned()], private).keys_match().is_err() {
        return Err(CaError::OtherKey { certificate: certificate_path.to_owned(), key: key_path.to_owned() });
    }
    let key = KeyPair::from_pem(key).map_err(|_| bad_key())?;
    let authority = Issuer::from_ca_cert_der(chain, key).map_err(|_| bad_certificate())?;
    if !authority.key_usages().contains(&KeyUsagePurpose::KeyCertSign) {
        return Err(CaError::NotAnAuthority { path: certificate_path.to_owned() });
    }
    Ok(authority)
}

fn read(path: &Path, directory: &Path) -> Result<String, CaError> {
    fs::read_to_string(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CaError::NoAuthority { path: path.to_owned(), directory: directory.to_owned() },
        _ => CaError::Read { path: path.to_owned(), source },
    })
}

fn unix_now() -> Result<i64, CaError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|_| CaError::Clock)?;
    i64::try_from(now.as_secs()).map_err(|_| CaError::Clock)
}

fn authority_paths(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join("ca.crt"), directory.join("ca.key"))
}

/// A number that no other certificate has, made of its public key (RFC 5280, 4.1.2.2: positive, at most 20 bytes).
fn serial_bytes(key: &KeyPair) -> [u8; 16] {
    let mut serial = [0; 16];
    // The first byte of a point says how the rest is written.
    serial.iter_mut().zip(key.public_key_raw().iter().skip(1)).for_each(|(to, from)| *to = *from);
    serial[0] = serial[0] & 0x3f | 0x40;
    serial
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all that is written");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(texts: &[&str]) -> Vec<Subject> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_wrong_authority_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let attempt = || issue(directory.path(), &subjects(&["member/2"]), false).map(drop);
        assert!(matches!(attempt(), Err(CaError::NoAuthority { .. })));

        init(directory.path(), &subjects(&["member/1"]), false).unwrap();
        assert!(matches!(init(directory.path(), &[], false), Err(CaError::AuthorityExists { .. })));
        let key = fs::read(path("ca.key")).unwrap();

        fs::copy(path("member-1.key"), path("ca.key")).unwrap();
        assert!(matches!(attempt(), Err(CaError::OtherKey { .. })));
        fs::copy(path("member-1.crt"), path("ca.crt")).unwrap();
        assert!(matches!(attempt(), Err(CaError::NotAnAuthority { .. })));
        fs::write(path("ca.crt"), "-----BEGIN CERTIFICATE-----\nno\n").unwrap();
        assert!(matches!(attempt(), Err(CaError::NotPem { expected: "a certificate", .. })));
        fs::write(path("ca.crt"), key).unwrap();
        assert!(matches!(attempt(), Err(CaError::NotPem { expected: "a certificate", .. })));
        assert!(!path("member-2.crt").exists() && !path("member-2.key").exists());
    }

    #[test]
    fn subjects_that_would_share_their_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("tls");
        for pair in [["agent/a-b/c", "agent/a/b-c"], ["member/1", "member/1"]] {
            let error = init(&target, &subjects(&pair), false).unwrap_err();
            assert!(matches!(error, CaError::SameFile { .. }), "{error}");
        }
        assert!(!target.exists(), "a refused command leaves nothing");
    }

    #[test]
    fn a_subject_may_be_longer_than_a_common_name() {
        let directory = tempfile::tempdir().unwrap();
        let long = format!("agent/{}/{}", "c".repeat(100), "n".repeat(100));
        assert_eq!(init(directory.path(), &subjects(&[&long]), false).unwrap().len(), 4);
    }
}
