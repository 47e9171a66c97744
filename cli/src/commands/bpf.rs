//! `ringfence bpf policy|ipcache|ct|endpoint list`: what the datapath's maps hold.
//!
//! Rows are printed as they come: a map may be larger than anybody wants to hold. JSON is one document all the same.

mod rows;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ringfence_proto::v1::{self, DatapathMap};
use serde_json::Value;

use super::{agent::DEFAULT_SOCKET, flow_end::FlowEnd, monitor::Side};
use crate::{
    agent_socket::{Agent, next},
    failure::Failure,
    flags::Global,
    output::{Format, line, note, read_line},
};
use rows::Shape;

/// The datapath's maps.
#[derive(Debug, Subcommand)]
pub(crate) enum BpfCommand {
    /// What policies say of peers, with the packets that each band of ports decided.
    #[command(subcommand)]
    Policy(PolicyMap),
    /// Which identity addresses and ranges stand for.
    #[command(subcommand)]
    Ipcache(IpcacheMap),
    /// Connections that are known and allowed.
    #[command(subcommand)]
    Ct(ConnectionMap),
    /// Endpoints of this node, and what they are judged by.
    #[command(subcommand)]
    Endpoint(EndpointMap),
}

/// Where to ask.
#[derive(Debug, Args)]
pub(crate) struct At {
    /// The agent's socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Only of this endpoint: its name, or the index of its interface.
    #[arg(long, value_name = "ENDPOINT")]
    endpoint: Option<String>,
}

/// `bpf policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyMap {
    /// All rows, or those that are asked for.
    #[command(alias = "get")]
    List {
        /// Where to ask.
        #[command(flatten)]
        at: At,
        /// Only of this policy.
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
        policy: Option<u32>,
        /// Only of this peer: an identity or labels.
        #[arg(long, value_name = "IDENTITY")]
        identity: Option<FlowEnd>,
        /// Only of this direction.
        #[arg(long, value_enum)]
        direction: Option<Side>,
    },
}

/// `bpf ipcache`.
#[derive(Debug, Subcommand)]
pub(crate) enum IpcacheMap {
    /// All entries, or those that are asked for.
    #[command(alias = "get")]
    List {
        /// Where to ask.
        #[command(flatten)]
        at: At,
        /// Only addresses inside, and ranges around, this address or range.
        #[arg(long, value_name = "ADDRESS")]
        address: Option<String>,
        /// Only of this identity: its number, its reserved name, or labels.
        #[arg(long, value_name = "IDENTITY")]
        identity: Option<FlowEnd>,
    },
}

/// `bpf ct`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConnectionMap {
    /// All connections, or those that are asked for.
    List {
        /// Where to ask.
        #[command(flatten)]
        at: At,
        /// Only with an end inside this address or range.
        #[arg(long, value_name = "ADDRESS")]
        address: Option<String>,
        /// Only those that were begun in this direction.
        #[arg(long, value_enum)]
        direction: Option<Side>,
    },
}

/// `bpf endpoint`.
#[derive(Debug, Subcommand)]
pub(crate) enum EndpointMap {
    /// All endpoints, or those that are asked for.
    List {
        /// Where to ask.
        #[command(flatten)]
        at: At,
        /// Only those that are judged by this policy, or have it for a shadow.
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
        policy: Option<u32>,
        /// Only of this identity: its number, its reserved name, or labels.
        #[arg(long, value_name = "IDENTITY")]
        identity: Option<FlowEnd>,
    },
}

/// Asks and prints.
pub(crate) async fn run(command: BpfCommand, global: &Global) -> Result<(), Failure> {
    let (at, request) = request(command);
    let shape = Shape::of(request.map());
    let request = v1::ReadMapsRequest { endpoint: at.endpoint.unwrap_or_default(), ..request };
    let agent = Agent::connect(&at.socket, global.timeout).await?;
    let mut stream = agent.stream("maps", async |mut client| client.read_maps(request).await).await?;
    let mut printer = Printer { shape, format: global.output, printed: 0 };
    while let Some(piece) = next(&mut stream).await? {
        for entry in piece.entries.into_iter().filter_map(|entry| entry.entry) {
            if !printer.print(entry)? {
                return Ok(());
            }
        }
        if let Some(end) = piece.end {
            printer.finish()?;
            tell(&end);
            return Ok(());
        }
    }
    printer.finish()?;
    Err(Failure::Failed(anyhow::anyhow!("the agent has ended before the list did: entries are missing")))
}

fn request(command: BpfCommand) -> (At, v1::ReadMapsRequest) {
    let ask = |map: DatapathMap| v1::ReadMapsRequest { map: map.into(), ..v1::ReadMapsRequest::default() };
    let word = |side: Option<Side>| side.map(|side| side.word().to_owned()).unwrap_or_default();
    match command {
        BpfCommand::Policy(PolicyMap::List { at, policy, identity, direction }) => {
            let (policy, peer) = (policy.unwrap_or_default(), identity.map(Into::into));
            (at, v1::ReadMapsRequest { policy, peer, direction: word(direction), ..ask(DatapathMap::Policy) })
        }
        BpfCommand::Ipcache(IpcacheMap::List { at, address, identity }) => {
            let (range, peer) = (address.unwrap_or_default(), identity.map(Into::into));
            (at, v1::ReadMapsRequest { range, peer, ..ask(DatapathMap::Ipcache) })
        }
        BpfCommand::Ct(ConnectionMap::List { at, address, direction }) => {
            let (range, direction) = (address.unwrap_or_default(), word(direction));
            (at, v1::ReadMapsRequest { range, direction, ..ask(DatapathMap::Connections) })
        }
        BpfCommand::Endpoint(EndpointMap::List { at, policy, identity }) => {
            let (policy, peer) = (policy.unwrap_or_default(), identity.map(Into::into));
            (at, v1::ReadMapsRequest { policy, peer, ..ask(DatapathMap::Endpoints) })
        }
    }
}

/// Prints entries one by one; each format's document is whole at the end.
struct Printer {
    shape: Shape,
    format: Format,
    printed: u64,
}

impl Printer {
    /// Answers whether somebody is there to read the next one.
    fn print(&mut self, entry: v1::map_entry::Entry) -> anyhow::Result<bool> {
        let first = self.printed == 0;
        self.printed += 1;
        match self.format {
            Format::Table => {
                if first {
                    line(&self.shape.header())?;
                }
                read_line(&self.shape.row(entry))
            }
            Format::Json => {
                let object: Value = rows::object(entry)?;
                read_line(&format!("{}{}", if first { "[" } else { "," }, serde_json::to_string(&object)?))
            }
            Format::Yaml => {
                let object: Value = rows::object(entry)?;
                read_line(yaml_serde::to_string(&[object])?.trim_end())
            }
        }
    }

    fn finish(&self) -> anyhow::Result<()> {
        match (self.format, self.printed) {
            (Format::Table, 0) => line(&self.shape.header()),
            (Format::Json, 0) | (Format::Yaml, 0) => line("[]"),
            (Format::Json, _) => line("]"),
            (Format::Table | Format::Yaml, _) => Ok(()),
        }
    }
}

/// What a reader of the list should know.
fn tell(end: &v1::ReadMapsEnd) {
    let v1::ReadMapsEnd { revision, revision_after, strays, .. } = *end;
    if revision != revision_after {
        note(&format!(
            "packets moved from revision {revision} to {revision_after} while the map was read: entries of both may be listed"
        ));
    }
    if strays > 0 {
        note(&format!(
            "{strays} entries that Ringfence never wrote were left out; the agent removes them when it reads the maps back"
        ));
    }
}
