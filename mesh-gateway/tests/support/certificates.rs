use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use ringfence_proto::{access::Role, connect::SERVER_NAME};
use ringfence_runtime::tls::TlsFiles;

pub(crate) const ROLES: [&str; 8] = [
    "gateway/east",
    "gateway/west",
    "member/1",
    "agent/east/n1",
    "agent/east/n2",
    "agent/west/n1",
    "admin/test",
    "reader/test",
];

/// A new authority with a certificate of it for every role; the files of the first one, gateway/east.
pub(crate) fn certificates(directory: &Path) -> TlsFiles {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    std::fs::write(directory.join("ca.crt"), authority_certificate.pem()).unwrap();
    for role in ROLES {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
        let uri = role.parse::<Role>().unwrap().uri();
        leaf.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        std::fs::write(file(directory, role, "crt"), leaf.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(file(directory, role, "key"), key.serialize_pem()).unwrap();
    }
    files(directory, ROLES[0])
}

/// The files of another role beside those.
pub(crate) fn as_role(tls: &TlsFiles, role: &str) -> TlsFiles {
    files(tls.ca.parent().unwrap(), role)
}

fn files(directory: &Path, role: &str) -> TlsFiles {
    let (certificate, key) = (file(directory, role, "crt"), file(directory, role, "key"));
    TlsFiles { ca: directory.join("ca.crt"), certificate, key }
}

fn file(directory: &Path, role: &str, suffix: &str) -> PathBuf {
    directory.join(format!("{}.{suffix}", role.replace('/', "-")))
}
