//! `ringfence monitor`: events of this node's datapath, until Ctrl-C.

mod view;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ringfence_proto::v1;

use super::{
    agent::{DEFAULT_SOCKET, packet::Protocol},
    flow_end::FlowEnd,
};
use crate::{
    agent_socket::{Agent, next},
    failure::Failure,
    flags::Global,
    output::{Format, note, read_line},
};
use view::{EventView, HEADER, LostView};

/// What to watch.
#[derive(Debug, Args)]
pub(crate) struct MonitorArguments {
    /// The agent's socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// What events tell of; several: any of them.
    #[arg(short = 't', long = "type", value_enum, value_delimiter = ',', value_name = "TYPE")]
    types: Vec<EventType>,
    /// Who sent the packet: an address, a range, an identity, labels (app=web,k8s:tier=front) or an endpoint of the node.
    #[arg(long, value_name = "END")]
    from: Vec<FlowEnd>,
    /// Who receives it.
    #[arg(long, value_name = "END")]
    to: Vec<FlowEnd>,
    /// Either end.
    #[arg(long = "related-to", visible_alias = "end", value_name = "END")]
    related_to: Vec<FlowEnd>,
    /// An identity of either end: its number, its reserved name, or labels.
    #[arg(long, value_name = "IDENTITY")]
    identity: Vec<FlowEnd>,
    /// A port of either end; the type for ICMP.
    #[arg(long, value_delimiter = ',')]
    port: Vec<u16>,
    /// tcp, udp, sctp, icmp, icmpv6 or an IP protocol number.
    #[arg(long, value_delimiter = ',')]
    protocol: Vec<Protocol>,
    /// The packet's direction, seen from the endpoint that was judged.
    #[arg(long, value_enum)]
    direction: Option<Side>,
    /// Why packets were treated so: deny-default, spoofed, …
    #[arg(long, value_delimiter = ',')]
    reason: Vec<String>,
    /// Ends after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// What an event tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EventType {
    /// A connection began.
    New,
    /// A packet was refused.
    Drop,
    /// Policy was asked, whatever it said.
    #[value(alias = "policy-verdict")]
    Verdict,
    /// A connection was refused that was allowed before.
    Cut,
    /// A refusal was let through, or a policy under audit would decide otherwise.
    Audit,
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// To the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

impl Side {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Prints events until Ctrl-C, until there were enough, or until nobody reads them any more.
pub(crate) async fn run(arguments: MonitorArguments, global: &Global) -> Result<(), Failure> {
    if global.output == Format::Yaml {
        let reason = "events come one by one: give -o table or -o json (one object a line)".to_owned();
        return Err(Failure::Usage { reason });
    }
    let agent = Agent::connect(&arguments.socket, global.timeout).await?;
    let limit = arguments.count;
    let request = v1::MonitorRequest::from(arguments);
    let mut stream = agent.stream("monitor", async |mut client| client.monitor(request).await).await?;
    let mut printed = 0;
    loop {
        let answer = tokio::select! {
            answer = next(&mut stream) => answer?,
            // Whoever ends it has seen enough: that is no failure.
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Some(answer) = answer else {
            return Err(Failure::Failed(anyhow::anyhow!("the agent has ended the stream")));
        };
        let begun = answer.started.map_or(Ok(true), |started| begin(&started, global.output));
        let told = answer.lost.map_or(Ok(true), |lost| lose(&LostView::from(lost), global.output))?;
        if !begun? || !told {
            return Ok(());
        }
        for event in answer.events {
            let read = show(&EventView::from(event), global.output)?;
            printed += 1;
            if !read || Some(printed) == limit {
                return Ok(());
            }
        }
    }
}

fn begin(started: &v1::MonitorStarted, format: Format) -> anyhow::Result<bool> {
    let v1::MonitorStarted { cluster, node, revision, datapath } = started;
    note(&format!("watching node {cluster}/{node} ({datapath} datapath) at revision {revision}; Ctrl-C ends"));
    if format == Format::Table { read_line(HEADER) } else { Ok(true) }
}

fn lose(lost: &LostView, format: Format) -> anyhow::Result<bool> {
    match format {
        Format::Table => read_line(&lost.text()),
        Format::Json | Format::Yaml => read_line(&serde_json::to_string(&serde_json::json!({ "lost": lost }))?),
    }
}

fn show(event: &EventView, format: Format) -> anyhow::Result<bool> {
    match format {
        Format::Table => read_line(&event.text()),
        Format::Json | Format::Yaml => read_line(&serde_json::to_string(event)?),
    }
}

impl From<MonitorArguments> for v1::MonitorRequest {
    fn from(arguments: MonitorArguments) -> Self {
        let ends = |ends: Vec<FlowEnd>| ends.into_iter().map(Into::into).collect();
        let word = |one: &EventType| one.to_possible_value().map(|value| value.get_name().to_owned());
        let either = arguments.related_to.into_iter().chain(arguments.identity).collect();
        Self {
            types: arguments.types.iter().filter_map(word).collect(),
            from: ends(arguments.from),
            to: ends(arguments.to),
            either: ends(either),
            ports: arguments.port.into_iter().map(Into::into).collect(),
            protocols: arguments.protocol.into_iter().map(|protocol| protocol.0.into()).collect(),
            directions: arguments.direction.iter().map(|side| side.word().to_owned()).collect(),
            reasons: arguments.reason,
        }
    }
}
