//! The process: its command line, its configuration, its exit codes.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use crate::support::Store;

fn identityd(config: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_identityd")).arg("--config").arg(config).args(more).output().unwrap()
}

fn failure(output: &Output) -> (Option<i32>, String) {
    assert!(output.stdout.is_empty());
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_not_to_start_has_its_message_and_exit_code() {
    let mut store = Store::start(5000).await;
    let path = store.directory.path().join("identityd.yaml");
    let good = ringfence_runtime::config::dump(&store.configs[&1]);
    let write = |text: &str| fs::write(&path, text).unwrap();

    write(&good);
    let dumped = identityd(&path, &["--dump-config"]);
    assert!(dumped.status.success());
    assert_eq!(String::from_utf8(dumped.stdout).unwrap(), good);
    assert_eq!(identityd(&path, &["--nope"]).status.code(), Some(2));

    let (code, message) = failure(&identityd(&path, &[]));
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("cannot listen on 127.0.0.1:"), "{message}");

    write(&good.replacen("listen: 127.0.0.1:", "listen: 127.0.0.1:0 #", 1));
    let (code, message) = failure(&identityd(&path, &[]));
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("in use by another identityd"), "{message}");

    store.kill(1).await;
    write(&good.replacen("id: 1", "id: 2", 1).replacen("cluster: east", "cluster: west", 1));
    let (code, message) = failure(&identityd(&path, &[]));
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("belongs to member 1, not to member 2"), "{message}");

    write(&good.replacen("id: 1", "id: 9", 1));
    let (code, message) = failure(&identityd(&path, &[]));
    assert_eq!(code, Some(2), "{message}");
    assert!(message.contains("identityd.yaml: id: member 9 is not in 'members'"), "{message}");

    write(&good.replacen("id: 1", "idd: 1", 1));
    let (code, message) = failure(&identityd(&path, &[]));
    assert_eq!(code, Some(2), "{message}");
    assert!(message.contains("identityd.yaml:1:1: unknown field `idd`"), "{message}");

    write(&good.replacen("ca.crt", "missing.crt", 1));
    let (code, message) = failure(&identityd(&path, &[]));
    assert_eq!(code, Some(2), "{message}");
    assert!(message.contains("missing.crt"), "{message}");
}
