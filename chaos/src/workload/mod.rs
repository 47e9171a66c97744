//! The process that runs inside an endpoint: serves, probes and hammers; told what to do in JSON lines.
//!
//! ```text
//! test bed ── {"command":"probe",…} ──► stdin  ┌──────────┐ ◄── TCP and UDP on 8080 and 9090, IPv4 and IPv6
//!          ◄── {"answer":"probed",…} ── stdout │ workload │ ──► connections, SYNs and datagrams to other endpoints
//!                                              └──────────┘
//! ```

pub mod hammer;
pub mod probe;
pub mod protocol;
pub mod server;
pub mod stall;

use std::io::{BufRead, Write};

use anyhow::{Context, Result};

use hammer::Hammer;
use protocol::{Request, Response};
use server::Server;

/// Serves until standard input ends.
///
/// # Errors
/// When a port cannot be bound or standard output is gone.
pub fn run() -> Result<()> {
    let server = Server::start(&protocol::PORTS)?;
    let mut hammer = None;
    let mut output = std::io::stdout().lock();
    answer(&mut output, &Response::Ready)?;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read standard input")?;
        let response = match serde_json::from_str(&line) {
            Ok(request) => handle(request, &server, &mut hammer),
            Err(error) => Response::Failed { message: format!("not a request: {error}") },
        };
        answer(&mut output, &response)?;
    }
    Ok(())
}

fn handle(request: Request, server: &Server, hammer: &mut Option<Hammer>) -> Response {
    match request {
        Request::Probe { targets, timeout_ms } => Response::Probed { outcomes: probe::all(&targets, timeout_ms) },
        Request::Counters => Response::Counted { counts: server.counts() },
        Request::Hammer(plan) => match hammer {
            Some(_) => Response::Failed { message: "a hammer runs already".to_owned() },
            None => match Hammer::start(&plan) {
                Ok(started) => {
                    *hammer = Some(started);
                    Response::Hammering
                }
                Err(error) => Response::Failed { message: format!("{error:#}") },
            },
        },
        Request::Stop => match hammer.take() {
            Some(running) => Response::Hammered(running.stop()),
            None => Response::Failed { message: "no hammer runs".to_owned() },
        },
    }
}

fn answer(output: &mut impl Write, response: &Response) -> Result<()> {
    let line = serde_json::to_string(response).context("a response has no part that JSON refuses")?;
    writeln!(output, "{line}").and_then(|()| output.flush()).context("standard output is gone")
}
