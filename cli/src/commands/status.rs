//! `ringfence status`.

use ringfence_proto::v1;

use crate::{
    connect::Servers,
    failure::Failure,
    output::{self, Format, age, line, table, trimmed},
    view::{NodeStatusView, StatusView},
};

/// Staleness below this is the normal rhythm of heartbeats.
const STALE_AFTER_MS: u64 = 3000;

pub(crate) async fn run(servers: &mut Servers, format: Format) -> Result<(), Failure> {
    let status = fetch(servers).await?;
    if format == Format::Table {
        print_tables(&status)?;
    } else {
        output::print(format, &status, || table([""], []))?;
    }
    Ok(())
}

/// Asks a server for its view of the mesh.
pub(crate) async fn fetch(servers: &mut Servers) -> Result<StatusView, Failure> {
    let response = servers.call(v1::StatusRequest {}, async |mut client, request| client.status(request).await).await?;
    Ok(response.into_inner().into())
}

/// What to say of a node in one column.
pub(crate) fn describe(node: &NodeStatusView, head: u64) -> String {
    if node.gone {
        "gone".to_owned()
    } else if !node.reported {
        "no report".to_owned()
    } else if !node.problems.is_empty() {
        node.problems.join("; ")
    } else if node.report_age_ms > STALE_AFTER_MS {
        format!("silent for {}", age(node.report_age_ms))
    } else if node.realised_revision < head {
        "behind".to_owned()
    } else {
        "ok".to_owned()
    }
}

fn print_tables(status: &StatusView) -> anyhow::Result<()> {
    let stale = if status.staleness_ms > STALE_AFTER_MS {
        format!("  STALE: out of touch with a quorum for {}", age(status.staleness_ms))
    } else {
        String::new()
    };
    line(&format!("{} at revision {}{stale}\n", status.responder, status.revision))?;
    let members = status.members.iter().map(|member| {
        [
            member.id.to_string(),
            member.cluster.clone(),
            member.address.clone(),
            member.state.clone(),
            member.term.to_string(),
            format!("{}/{}", member.applied_index, member.last_log_index),
            member.revision.to_string(),
        ]
    });
    let header = ["MEMBER", "CLUSTER", "ADDRESS", "STATE", "TERM", "APPLIED/LOG", "REVISION"];
    line(&format!("{}\n", trimmed(&table(header, members))))?;
    let gateways = status.gateways.iter().map(|gateway| {
        let upstream = if gateway.upstream.is_empty() { "none" } else { &gateway.upstream };
        let age_ms = gateway.report_age_ms;
        let state = if gateway.staleness_ms.max(age_ms) > STALE_AFTER_MS {
            format!("stale for {}", age(gateway.staleness_ms.max(age_ms)))
        } else {
            "ok".to_owned()
        };
        [gateway.cluster.clone(), gateway.revision.to_string(), upstream.to_owned(), age(age_ms), state]
    });
    let header = ["GATEWAY", "REVISION", "FOLLOWS", "REPORT AGE", "STATE"];
    line(&format!("{}\n", trimmed(&table(header, gateways))))?;
    let nodes = status.nodes.iter().map(|node| {
        [
            format!("{}/{}", node.cluster, node.name),
            node.realised_revision.to_string(),
            if node.reported { age(node.report_age_ms) } else { "-".to_owned() },
            node.datapath.clone(),
            describe(node, status.revision),
        ]
    });
    line(&trimmed(&table(["NODE", "REALISED", "REPORT AGE", "DATAPATH", "STATE"], nodes)))
}
