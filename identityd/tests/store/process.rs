//! The process: its command line, its configuration, its exit codes, and what it does after it stood still.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use ringfence_policy::revision::Revision;
use ringfence_proto::{
    follow::{FollowEvent, Follower},
    v1,
};
use tonic::Request;

use crate::support::{Store, until};

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
    let other = good.replacen("id: 1", "id: 2", 1).replacen("cluster: east", "cluster: west", 1);
    write(&other);
    let (code, message) = failure(&identityd(&path, &[]));
    assert_eq!(code, Some(2), "{message}");
    assert!(message.contains("it is of member/1, and id says that this is member 2"), "{message}");

    write(&other.replace("member-1.", "member-2."));
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

/// A member's process; killed when dropped.
struct Process(Child);

impl Process {
    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// On a busy machine its threads run on for a while after the signal.
    async fn stop(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.0.id());
        until("a process that stands still", || async {
            let stands =
                |task: fs::DirEntry| fs::read_to_string(task.path().join("stat")).ok()?.contains(") T ").then_some(());
            fs::read_dir(&tasks).unwrap().map(Result::unwrap).try_for_each(stands)
        })
        .await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that stands still is killed all the same; it may have ended on its own.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_stood_still_keeps_the_connections_whose_callers_gave_up() {
    const GIVEN_UP: usize = 100;
    let mut store = Store::start(5000).await;
    store.kill(3).await;
    let path = store.directory.path().join("identityd.yaml");
    fs::write(&path, ringfence_runtime::config::dump(&store.configs[&3])).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_identityd"));
    let process = Process(command.arg("--config").arg(&path).stdout(Stdio::null()).spawn().unwrap());
    let channel = store.channel(3);
    let mut follower = until("a member that serves", || async {
        Follower::connect(channel.clone(), Revision(0), "test".to_owned()).await.ok()
    })
    .await;
    while !matches!(follower.next().await.unwrap(), FollowEvent::Progress { .. }) {}

    process.stop().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..GIVEN_UP {
        let mut client = store.client(3);
        calls.spawn(async move {
            let call = client.status(Request::new(v1::StatusRequest {}));
            tokio::time::timeout(Duration::from_millis(300), call).await.is_err()
        });
    }
    assert!(calls.join_all().await.into_iter().all(|gave_up| gave_up), "a process that stands still answers nothing");
    process.signal("CONT");

    store.client(3).status(v1::StatusRequest {}).await.unwrap();
    // It was opened before on the same connection, which must be the same still.
    for _ in 0..3 {
        follower.next().await.unwrap();
    }
}
