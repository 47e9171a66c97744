//! One authority, and a certificate for each member: names as our members and etcd's want them.

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
    dialer(files).channel(address).unwrap()
}

/// Makes connections.
pub(crate) fn dialer(files: &TlsFiles) -> Dialer {
    let tls = Tls::open(files.clone()).unwrap();
    Dialer::new(Expected::Member, move || tls.client())
}

/// A link of its own, made when first used.
pub(crate) fn link(files: &TlsFiles, address: &str) -> Link {
    Link::new(dialer(files), address, MAX_MESSAGE_BYTES)
}

/// The files of member 1, which etcd and clients use, too.
pub(crate) fn write(directory: &Path) -> TlsFiles {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let ca = directory.join("ca.crt");
    fs::write(&ca, authority.pem()).unwrap();
    for id in 1..=3 {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([SERVER_NAME.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let name = format!("spiffe://ringfence/member/{id}");
        params.subject_alt_names.push(SanType::URI(name.try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let files = of_member(&ca, id);
        fs::write(files.certificate, params.signed_by(&key, &authority).unwrap().pem()).unwrap();
        fs::write(files.key, key.serialize_pem()).unwrap();
    }
    of_member(&ca, 1)
}

/// The files of a member, beside those of its authority. Members with one certificate would be taken for one member.
pub(crate) fn of_member(ca: &Path, id: usize) -> TlsFiles {
    let file = |suffix: &str| ca.with_file_name(format!("member-{id}.{suffix}"));
    TlsFiles { ca: ca.to_owned(), certificate: file("crt"), key: file("key") }
}
