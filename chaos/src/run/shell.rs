//! Short commands of the system, run to their end, with errors that say what was run and what it answered.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use super::gate;

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started or does not end with 0: the command line and what it wrote to standard error.
pub fn run(command: &mut Command) -> Result<String> {
    let _gate = gate::enter();
    let output = command.output().with_context(|| format!("cannot run {}", line(command)))?;
    text(command, &output)
}

/// Like [`run`], with `input` on the command's standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let _gate = gate::enter();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", line(command)))?;
    let mut stdin = child.stdin.take().expect("standard input was asked for above");
    // A command that ends early closes its end; its exit status then says why.
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {}", line(command)))?;
    let answer = text(command, &output)?;
    written.with_context(|| format!("cannot write to {}", line(command)))?;
    Ok(answer)
}

/// The command as a person would type it.
#[must_use]
pub fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

fn text(command: &Command, output: &Output) -> Result<String> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {}", line(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_says_what_was_run_and_what_it_answered() {
        let error = run(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err().to_string();
        assert!(
            error.contains("sh -c") && error.contains("exit status: 3") && error.contains("no such thing"),
            "{error}"
        );
    }

    #[test]
    fn input_reaches_the_command() {
        assert_eq!(run_with_input(&mut Command::new("cat"), "text").unwrap(), "text");
    }
}
