//! Running the binary.

use std::{
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// What a run of the binary gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The binary, without what the environment of the test might say to it.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
    for variable in ["SERVER", "TLS_DIR", "CA", "CERTIFICATE", "KEY"] {
        command.env_remove(format!("RINGFENCE_{variable}"));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub(crate) fn run(arguments: &[&str]) -> Outcome {
    finish(command().args(arguments).spawn().unwrap())
}

/// Runs it with a text on standard input.
pub(crate) fn run_with_input(arguments: &[&str], input: &str) -> Outcome {
    let mut child = command().args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    finish(child)
}

fn finish(child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Outcome {
    /// The command ended with this code, and did not panic.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        self
    }

    /// Standard error has all of these.
    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in {self:#?}");
        }
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// Standard output, its blanks made one.
    pub(crate) fn rows(&self) -> Vec<String> {
        self.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }
}

/// A directory with an authority and certificates, `admin/test` under the names that `--tls-dir` looks for.
pub(crate) fn authority() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    run(&["ca", "init", "--dir", path.to_str().unwrap(), "member/1", "gateway/east", "admin/test"]).exits(0);
    for suffix in ["crt", "key"] {
        std::fs::copy(path.join(format!("admin-test.{suffix}")), path.join(format!("tls.{suffix}"))).unwrap();
    }
    directory
}

/// A file's path as an argument.
pub(crate) fn argument(path: &Path) -> &str {
    path.to_str().unwrap()
}
