//! Real handshakes on loopback, with files that change.

use std::{fs, path::Path, sync::Arc, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::{StreamExt as _, wrappers::TcpListenerStream};

use super::*;

const NAME: &str = "server.test";
const PATIENCE: Duration = Duration::from_secs(20);

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate with a serial number, written to a directory.
    fn issue(&self, directory: &Path, serial: u64) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new([NAME.to_owned()]).unwrap();
        parameters.serial_number = Some(SerialNumber::from(serial));
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        let path = |suffix: &str| directory.join(format!("{serial}.{suffix}"));
        fs::write(path("crt"), certificate.pem()).unwrap();
        fs::write(path("key"), key.serialize_pem()).unwrap();
        fs::write(path("ca"), self.0.pem()).unwrap();
        TlsFiles { ca: path("ca"), certificate: path("crt"), key: path("key") }
    }

    fn revoke(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2026, 2, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

/// An echo server; its address.
async fn serve(tls: &Arc<Tls>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut incoming = tls.incoming(TcpListenerStream::new(listener));
    tokio::spawn(async move {
        while let Some(Ok(mut session)) = incoming.next().await {
            tokio::spawn(async move {
                let mut byte = [0];
                while session.read_exact(&mut byte).await.is_ok() && session.write_all(&byte).await.is_ok() {
                    if session.flush().await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

async fn connect(tls: &Tls, address: std::net::SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(tls.client()).connect(ServerName::try_from(NAME).unwrap(), stream).await?;
    // A server refuses a client only after the client's side of the handshake is done.
    echo(&mut stream).await?;
    Ok(stream)
}

async fn echo(stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
    let mut byte = [0];
    stream.write_all(b"x").await?;
    stream.flush().await?;
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut byte)).await.expect("an answer or an end")?;
    Ok(())
}

#[tokio::test]
async fn a_revoked_client_is_cut_off_and_not_let_in_again_while_others_stay() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("one");
    let server_files = authority.issue(directory.path(), 1);
    let server = Tls::open(server_files.clone()).unwrap();
    let (bad, good) = (authority.issue(directory.path(), 2), authority.issue(directory.path(), 3));
    let (bad, good) = (Tls::open(bad).unwrap(), Tls::open(good).unwrap());
    let address = serve(&server).await;
    let mut bad_stream = connect(&bad, address).await.unwrap();
    let mut good_stream = connect(&good, address).await.unwrap();

    assert!(!server.reload().unwrap(), "nothing has changed");
    let bundle = format!("{}{}", authority.0.pem(), authority.revoke(2));
    fs::write(&server_files.ca, bundle).unwrap();
    assert!(server.reload().unwrap());
    // Nothing is sent: the server ends it on its own.
    let mut byte = [0];
    let ended = tokio::time::timeout(PATIENCE, bad_stream.read(&mut byte)).await.expect("the connection is cut off");
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    assert!(connect(&bad, address).await.is_err());
    echo(&mut good_stream).await.unwrap();
    connect(&good, address).await.unwrap();
}

#[tokio::test]
async fn authorities_take_each_others_place_without_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server_files = old.issue(directory.path(), 1);
    let client_files = old.issue(directory.path(), 2);
    let server = Tls::open(server_files.clone()).unwrap();
    let client = Tls::open(client_files.clone()).unwrap();
    let address = serve(&server).await;
    connect(&client, address).await.unwrap();

    // Both are trusted by both, then one certificate after the other is new.
    let both = format!("{}{}", new.0.pem(), old.0.pem());
    fs::write(&server_files.ca, &both).unwrap();
    fs::write(&client_files.ca, &both).unwrap();
    assert!(server.reload().unwrap() && client.reload().unwrap());
    let fresh = new.issue(directory.path(), 3);
    fs::copy(&fresh.certificate, &server_files.certificate).unwrap();
    assert!(server.reload().is_err(), "the key is still the old one");
    connect(&client, address).await.expect("what was in use stays in use");
    fs::copy(&fresh.key, &server_files.key).unwrap();
    assert!(server.reload().unwrap());
    let mut stream = connect(&client, address).await.unwrap();

    // The old one is dropped: so is who has nothing newer.
    fs::write(&server_files.ca, new.0.pem()).unwrap();
    assert!(server.reload().unwrap());
    assert!(echo(&mut stream).await.is_err() || echo(&mut stream).await.is_err());
    assert!(connect(&client, address).await.is_err());
    let fresh = new.issue(directory.path(), 4);
    fs::copy(&fresh.certificate, &client_files.certificate).unwrap();
    fs::copy(&fresh.key, &client_files.key).unwrap();
    assert!(client.reload().unwrap());
    connect(&client, address).await.unwrap();
}

#[tokio::test]
async fn a_broken_file_is_told_once_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let files = Authority::new("one").issue(directory.path(), 1);
    let tls = Tls::open(files.clone()).unwrap();
    let before = tls.material();
    fs::write(&files.certificate, "rubbish").unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::NotPem { what: "certificate", .. })));
    assert!(Arc::ptr_eq(&before, &tls.material()));
    let other = Authority::new("two").issue(directory.path(), 2);
    fs::copy(&other.certificate, &files.certificate).unwrap();
    let error = tls.reload().unwrap_err();
    assert!(matches!(error, TlsError::Content { what: "certificate", .. }), "{error}");
    assert!(Arc::ptr_eq(&before, &tls.material()));
}

#[test]
fn errors_name_the_file_and_its_part() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.crt");
    let files = TlsFiles { ca: ca.clone(), certificate: "missing.crt".into(), key: "missing.key".into() };
    assert!(matches!(Tls::open(files), Err(TlsError::Read { what: "authority", .. })));
    let files = Authority::new("one").issue(directory.path(), 1);
    fs::write(&ca, "not pem").unwrap();
    assert!(matches!(Tls::open(TlsFiles { ca, ..files }), Err(TlsError::NotPem { what: "authority", .. })));
}
