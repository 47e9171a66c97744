//! Which server is asked, and what happens when none answers.

use std::{
    io::Read as _,
    net::TcpListener,
    process::Stdio,
    time::{Duration, Instant},
};

use ringfence_policy::{
    name::Name,
    record::{PolicyKey, PolicyKind, PolicyRecord, Record},
};

use crate::{
    ringfence::{argument, authority, run},
    server::TestMesh,
};

/// Nothing listens on these (RFC 6335: system ports, given to services that nobody runs any more).
const NOBODY: [&str; 2] = ["127.0.0.1:1", "127.0.0.1:2"];

#[test]
fn exit_code_3_names_every_server_and_why() {
    let tls = authority();
    let flags = ["--tls-dir", argument(tls.path())];
    for servers in [&["--server", NOBODY[0], "--server", NOBODY[1]][..], &["--server", &NOBODY.join(",")]] {
        for arguments in [&["status"][..], &["node", "list"], &["policy", "get"]] {
            let outcome = run(&[&flags[..], servers, arguments].concat()).exits(3);
            assert_eq!(outcome.stderr.matches("onnection refused").count(), 2, "{outcome:#?}");
            assert_eq!(outcome.stdout, "");
            outcome.says(&NOBODY);
        }
    }
}

#[test]
fn members_are_asked_of_members_only() {
    // It serves what gateways serve, and nothing of the store's own.
    let gateway = TestMesh::start();
    let address = gateway.address.to_string();
    let flags = ["--tls-dir", argument(gateway.tls.path()), "--server", &address, "store", "member"];
    for arguments in [&["list"][..], &["add", "10.0.0.4:7400"], &["promote", "4"], &["remove", "4"], &["move-leader"]] {
        run(&[&flags[..], arguments].concat()).exits(1).says(&["no member of the store", "--server"]);
    }
}

#[test]
fn who_answers_must_be_whom_the_command_is_for() {
    let gateway = TestMesh::start_as("gateway-east");
    let address = gateway.address.to_string();
    gateway.run(&["status"]).exits(0);
    let asked = gateway.requests();
    let file = gateway.tls.path().join("backup");
    let wrong = "gateway/east answered where a member of the store should be";
    for arguments in [
        &["store", "member", "list"][..],
        &["store", "member", "remove", "4"],
        &["store", "snapshot", "save", argument(&file)],
    ] {
        gateway.run(arguments).exits(3).says(&[&address, wrong]);
    }
    assert_eq!(gateway.requests(), asked, "it was asked for nothing");
    // Nobody but members and gateways serves, whoever holds a certificate that would do for it.
    let other = TestMesh::start_as("admin-test");
    let address = other.address.to_string();
    other.run(&["status"]).exits(3).says(&[&address]);
    assert_eq!(other.requests(), 0);
}

#[test]
fn servers_are_tried_in_order_until_one_answers() {
    let mesh = TestMesh::start();
    run(&[
        "--tls-dir",
        argument(mesh.tls.path()),
        "--server",
        &format!("{},{}", NOBODY[0], mesh.address),
        "cluster",
        "list",
    ])
    .exits(0);
    assert_eq!(mesh.requests(), 1);
}

#[test]
fn the_environment_names_servers_and_certificates_too() {
    let mesh = TestMesh::start();
    let output = crate::ringfence::command()
        .env("RINGFENCE_SERVER", format!("{},{}", NOBODY[0], mesh.address))
        .env("RINGFENCE_TLS_DIR", mesh.tls.path())
        .arg("status")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn exit_code_4_when_a_server_takes_the_connection_and_says_nothing() {
    let tls = authority();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let started = Instant::now();
    let flags = ["--tls-dir", argument(tls.path()), "--server", &address, "--timeout", "0.3"];
    run(&[&flags[..], &["status"]].concat()).exits(4).says(&[&address, "timed out"]);
    assert!(started.elapsed() < Duration::from_secs(5), "--timeout holds");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mesh = TestMesh::start();
    // More than a pipe holds.
    let policy = |number: u32| {
        let key = PolicyKey {
            kind: PolicyKind::CiliumNetworkPolicy,
            namespace: Some(Name::new("shop").unwrap()),
            name: Name::new(format!("p{number}")).unwrap(),
        };
        Record::Policy(PolicyRecord { key, text: "# ".repeat(10_000) })
    };
    mesh.put((0..50).map(policy));
    for format in ["table", "json", "yaml"] {
        let mut child = mesh.command(&["-o", format, "policy", "get"]).spawn().unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""), "{format}");
    }
    // Nobody reads the error either: the exit code still tells.
    let mut command = crate::ringfence::command();
    let mut child =
        command.args(["agent", "status", "--socket", "/nonexistent"]).stdout(Stdio::null()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));
}
