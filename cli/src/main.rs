//! The `ringfence` command: administers a mesh through the same public APIs that gateways and agents use.
//!
//! ```text
//! arguments ─► command ─► Servers (tries each, mTLS) ─► Mesh service of a gateway or member ─► view ─► table|json|yaml
//!                  └────► ca (local files), agent (Unix socket)
//! ```
//!
//! Exit codes: 0 ok, 1 failed, 2 usage, 3 cannot connect, 4 timed out.

mod agent_socket;
mod args;
mod ca;
mod commands;
mod connect;
mod credentials;
mod failure;
mod flags;
mod output;
mod view;

use std::process::ExitCode;

use clap::Parser;

use crate::{args::Arguments, failure::Failure};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match commands::run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(&format!("error: {failure}"));
            ExitCode::from(Failure::exit_code(&failure))
        }
    }
}
