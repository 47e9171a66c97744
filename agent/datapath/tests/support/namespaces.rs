//! A test's own network namespace, mount namespace and bpffs.

use std::process::{Command, Stdio};

/// Set in the process that runs inside the namespaces.
const INSIDE: &str = "RINGFENCE_TEST_INSIDE";
/// Where the private bpffs is mounted; over the private mount namespace's copy, nobody else sees it.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// Runs `test` inside namespaces of its own: nothing it makes outlives it, however it ends. The test is run again in a
/// child process; `name` is its full name. Prints why where that is not permitted.
pub(crate) fn in_own_namespaces(name: &str, test: impl FnOnce()) {
    if inside() {
        return test();
    }
    if let Some(success) = run_again(&[name, "--exact", "--nocapture", "--test-threads=1"]) {
        assert!(success, "{name} failed inside its namespaces");
    }
}

/// Whether this process runs in namespaces of its own.
pub(crate) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this executable again in namespaces of its own; answers whether it succeeded. None, and a printed reason, where
/// that is not permitted.
pub(crate) fn run_again(arguments: &[&str]) -> Option<bool> {
    let probe = format!("mount -t bpf bpf {BPFFS} && ip link add probe0 type veth peer name probe1");
    let permitted =
        Command::new("unshare").args(["--net", "--mount", "sh", "-c", &probe]).stderr(Stdio::piped()).output();
    match permitted {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            println!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
            return None;
        }
        Err(error) => {
            println!("skipped: cannot run unshare: {error}");
            return None;
        }
    }
    let this = std::env::current_exe().expect("a test is an executable");
    let prepare = format!("mount -t tmpfs tmpfs /run && mount -t bpf bpf {BPFFS} && ip link set lo up");
    let status = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", &format!("{prepare} && exec \"$0\" \"$@\"")])
        .arg(this)
        .args(arguments)
        .env(INSIDE, "1")
        .status()
        .expect("unshare ran a moment ago");
    Some(status.success())
}

/// Runs `ip` with arguments.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
