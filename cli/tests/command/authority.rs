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
    assert_eq!(names(&directory), expected);
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
