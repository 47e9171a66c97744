//! `ringfence ca`, and that its certificates hold in mutual TLS.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::{
    ringfence::{argument, authority, run},
    server::TestMesh,
};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn init_makes_files_that_only_the_owner_can_use_and_prints_them() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("tls");
    let outcome =
        run(&["ca", "init", "--dir", argument(&directory), "member/1", "gateway/east", "agent/east/n1"]).exits(0);
    let stems = ["agent-east-n1", "ca", "gateway-east", "member-1"];
    let expected: Vec<String> = stems.iter().flat_map(|stem| [format!("{stem}.crt"), format!("{stem}.key")]).collect();
    let mut listed = expected.clone();
    listed.push("issued.yaml".to_owned());
    listed.sort();
    assert_eq!(names(&directory), listed);
    assert_eq!(mode(&directory), 0o700);
    for name in &expected {
        let path = directory.join(name);
        assert!(outcome.stdout.lines().any(|line| Path::new(line) == path), "{name}: {outcome:#?}");
        assert_eq!(mode(&path) & 0o077 == 0, name.ends_with(".key"), "{name}");
    }
}

#[test]
fn nothing_is_overwritten_without_force() {
    let directory = authority();
    let flags = ["--dir", argument(directory.path())];
    let content = |name: &str| fs::read(directory.path().join(name)).unwrap();
    let all = || names(directory.path()).iter().map(|name| content(name)).collect::<Vec<_>>();
    let before = all();

    run(&[&["ca", "init"], &flags[..], &["member/2"]].concat()).exits(1).says(&["ca.crt exists already", "ca issue"]);
    // The second one exists, so the first one is not made either.
    let both = ["reader/new", "admin/test"];
    run(&[&["ca", "issue"], &flags[..], &both].concat()).exits(1).says(&["admin-test.key exists already", "--force"]);
    assert_eq!(all(), before);

    run(&[&["ca", "issue", "--force"], &flags[..], &both].concat()).exits(0);
    assert_ne!(content("admin-test.key"), content("tls.key"));
    assert_eq!(mode(&directory.path().join("admin-test.key")), 0o600);
    let authority = content("ca.crt");
    run(&[&["ca", "init", "--force"], &flags[..]].concat()).exits(0);
    assert_ne!(content("ca.crt"), authority);
}

#[test]
fn issue_needs_an_authority() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["ca", "issue", "--dir", argument(directory.path()), "member/1"];
    run(&flags).exits(1).says(&["ca.crt does not exist", "ringfence ca init --dir"]);
    fs::write(directory.path().join("ca.crt"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    fs::write(directory.path().join("ca.key"), "").unwrap();
    run(&flags).exits(1).says(&["ca.crt is not a certificate in PEM format"]);
    assert_eq!(names(directory.path()), ["ca.crt", "ca.key"]);
}

#[test]
fn every_subject_can_talk_to_a_member_and_is_known_by_its_uri() {
    let mesh = TestMesh::start();
    let directory = mesh.tls.path();
    run(&["ca", "issue", "--dir", argument(directory), "reader/dashboard", "agent/east/n1"]).exits(0);
    for subject in ["admin/test", "gateway/east", "reader/dashboard", "agent/east/n1"] {
        let file = |suffix: &str| directory.join(format!("{}.{suffix}", subject.replace('/', "-")));
        let (certificate, key) = (file("crt"), file("key"));
        mesh.run(&["--certificate", argument(&certificate), "--key", argument(&key), "status"]).exits(0);
        let seen = mesh.store.certificates.lock().unwrap().pop().unwrap();
        let uri = format!("spiffe://ringfence/{subject}");
        assert!(seen.windows(uri.len()).any(|part| part == uri.as_bytes()), "{subject}");
    }
}

#[test]
fn a_stranger_gets_no_answer_on_either_side() {
    let mesh = TestMesh::start();
    let stranger = authority();
    let theirs = |name: &str| stranger.path().join(name);
    let server = mesh.address.to_string();

    // A certificate of another authority: the server refuses.
    let (certificate, key) = (theirs("tls.crt"), theirs("tls.key"));
    let flags = ["--certificate", argument(&certificate), "--key", argument(&key)];
    // It may say so before or after the request is sent, and the connection may break before it is heard.
    for _ in 0..10 {
        let outcome = mesh.run(&[&flags[..], &["status"]].concat());
        let broken = outcome.code == Some(1) && outcome.stderr.contains("does it trust the authority");
        outcome.exits(if broken { 1 } else { 3 }).says(&[&server]);
    }
    // Another authority to trust: the client refuses.
    mesh.run(&["--ca", argument(&theirs("ca.crt")), "status"]).exits(3).says(&[&server, "certificate"]);
    assert_eq!(mesh.requests(), 0);
    mesh.run(&["status"]).exits(0);
}

#[test]
fn files_that_do_not_fit_together_are_told() {
    let mesh = TestMesh::start();
    let directory = mesh.tls.path();
    let other_key = directory.join("member-1.key");
    let outcome = mesh.run(&["--key", argument(&other_key), "status"]);
    outcome.exits(1).says(&["member-1.key is not the key of", "tls.crt"]);
    let bad = directory.join("bad.pem");
    for content in ["", "no", "-----BEGIN CERTIFICATE-----\nAAAA\n"] {
        fs::write(&bad, content).unwrap();
        mesh.run(&["--ca", argument(&bad), "status"]).exits(1).says(&["bad.pem is not a certificate"]);
        mesh.run(&["--certificate", argument(&bad), "status"]).exits(1).says(&["bad.pem is not a certificate"]);
        mesh.run(&["--key", argument(&bad), "status"]).exits(1).says(&["bad.pem is not a private key"]);
    }
    assert_eq!(mesh.requests(), 0);
}

/// The states that `ca show` prints for a subject.
fn states(directory: &Path, subject: &str) -> Vec<String> {
    let shown = run(&["ca", "show", "--dir", argument(directory), "-o", "json"]).exits(0);
    let all: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    let of_subject = all.as_array().unwrap().iter().filter(|one| one["subject"] == subject);
    of_subject.map(|one| one["state"].as_str().unwrap().to_owned()).collect()
}

/// Blocks of a kind in the trust bundle.
fn blocks(directory: &Path, kind: &str) -> usize {
    fs::read_to_string(directory.join("ca.crt")).unwrap().matches(&format!("BEGIN {kind}")).count()
}

#[test]
fn revoked_certificates_are_listed_and_new_ones_are_not() {
    let directory = authority();
    let dir = argument(directory.path());
    run(&["ca", "issue", "--dir", dir, "agent/east/n1"]).exits(0);
    run(&["ca", "revoke", "--dir", dir, "agent/east/n2"]).exits(1).says(&["agent/east/n2", "was issued here"]);
    assert_eq!(blocks(directory.path(), "X509 CRL"), 0);
    run(&["ca", "revoke", "--dir", dir, "agent/east/n1"]).exits(0).says(&["1 certificates revoked"]);
    assert_eq!((blocks(directory.path(), "X509 CRL"), blocks(directory.path(), "CERTIFICATE")), (1, 1));
    run(&["ca", "issue", "--force", "--dir", dir, "agent/east/n1"]).exits(0);
    assert_eq!(states(directory.path(), "agent/east/n1"), ["revoked", "good"]);
    assert_eq!(blocks(directory.path(), "X509 CRL"), 1, "issuing leaves the list as it is");
}

#[test]
fn a_rotation_has_two_steps_and_locks_nobody_out() {
    let directory = authority();
    let dir = argument(directory.path());
    let finish = ["ca", "rotate", "--finish", "--dir", dir];
    run(&finish).exits(1).says(&["holds one authority"]);
    run(&["ca", "issue", "--dir", dir, "reader/gone"]).exits(0);
    run(&["ca", "revoke", "--dir", dir, "reader/gone"]).exits(0);
    run(&["ca", "rotate", "--dir", dir]).exits(0).says(&["ca issue --force"]);
    assert_eq!((blocks(directory.path(), "CERTIFICATE"), blocks(directory.path(), "X509 CRL")), (2, 1));
    assert_eq!(states(directory.path(), "authority"), ["good", "good"]);
    run(&["ca", "rotate", "--dir", dir]).exits(1).says(&["two authorities already"]);
    run(&["ca", "issue", "--dir", dir, "reader/new"]).exits(0);
    run(&finish).exits(1).says(&["admin/test, gateway/east, member/1", "locks them out"]);
    run(&["ca", "issue", "--force", "--dir", dir, "admin/test", "member/1"]).exits(0);
    run(&finish).exits(1).says(&["issued to gateway/east:"]);
    // What the old one signed can be revoked while it is trusted.
    run(&["ca", "revoke", "--dir", dir, "gateway/east"]).exits(0);
    assert_eq!(blocks(directory.path(), "X509 CRL"), 1);
    run(&finish).exits(0);
    assert_eq!((blocks(directory.path(), "CERTIFICATE"), blocks(directory.path(), "X509 CRL")), (1, 0));
    assert!(!directory.path().join("ca-old.key").exists());
    run(&["ca", "issue", "--dir", dir, "member/7"]).exits(0);
}
