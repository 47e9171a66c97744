//! One authority, and one certificate for everybody: names as our members and etcd's want them.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use ringfence_proto::{
    connect::{Dialer, Expected, MAX_MESSAGE_BYTES, SERVER_NAME},
    link::Link,
};
use ringfence_runtime::tls::{Tls, TlsFiles};
use tonic::transport::Channel;

/// A connection of its own, made when first used.
pub(crate) fn dial(files: &TlsFiles, address: &str) -> Channel {
    let tls = Tls::open(files.clone()).unwrap();
    Dialer::new(Expected::Member, move || tls.client()).channel(address).unwrap()
}

/// A link of its own, made when first used.
pub(crate) fn link(files: &TlsFiles, address: &str) -> Link {
    let tls = Tls::open(files.clone()).unwrap();
    Link::new(Dialer::new(Expected::Member, move || tls.client()), address, MAX_MESSAGE_BYTES)
}

pub(crate) fn write(directory: &Path) -> TlsFiles {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([SERVER_NAME.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI("spiffe://ringfence/member/1".try_into().unwrap()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &authority).unwrap();
    let file = |name: &str, text: String| {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    TlsFiles {
        ca: file("ca.crt", authority.pem()),
        certificate: file("tls.crt", certificate.pem()),
        key: file("tls.key", key.serialize_pem()),
    }
}
