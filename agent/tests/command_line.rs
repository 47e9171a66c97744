//! The program's command line.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{path::Path, process::Command};

fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringfence-agent")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn write_config(directory: &Path, datapath: &str) -> String {
    let path = directory.join("agent.yaml");
    let socket = directory.join("agent.sock");
    let text = format!(
        "cluster: east\nnode: n1\naddresses: [10.40.1.1]\ngateways: ['127.0.0.1:7401']\n\
         tls: {{ca: ca.crt, certificate: a.crt, key: a.key}}\ndatapath: {datapath}\nsocket: {}\n",
        socket.display()
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_wrong_command_line_or_configuration_ends_with_2_and_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let good = write_config(directory.path(), "{kind: memory}");
    let (code, dumped, _) = run(&["--config", &good, "--dump-config"]);
    assert!(code == 0 && dumped.contains("report_interval_ms: 1000"), "{dumped}");
    assert_eq!(run(&[]).0, 2);
    assert_eq!(run(&["--config", &good, "--nonsense"]).0, 2);
    let (code, _, error) = run(&["--config", &good]);
    assert!(code == 2 && error.contains("ca.crt") && error.contains("ringfence ca"), "{error}");
    let bad = write_config(directory.path(), "{kind: cloud}");
    let (code, _, error) = run(&["--config", &bad]);
    assert!(code == 2 && error.contains("agent.yaml:6:18"), "{error}");
    let (code, _, error) = run(&["--config", "/nonexistent/agent.yaml"]);
    assert!(code == 2 && error.contains("/nonexistent/agent.yaml"), "{error}");
}

#[test]
fn uninstall_says_what_it_did_and_refuses_while_the_agent_runs() {
    let directory = tempfile::tempdir().unwrap();
    let config = write_config(directory.path(), "{kind: memory}");
    let (code, done, error) = run(&["uninstall", "--config", &config]);
    assert!(code == 0 && done.contains("nothing to remove"), "{done}{error}");
    let lock = std::fs::File::create(directory.path().join("agent.sock.lock")).unwrap();
    lock.lock().unwrap();
    let (code, _, error) = run(&["uninstall", "--config", &config]);
    assert!(code == 1 && error.contains("while the agent runs"), "{error}");
}
