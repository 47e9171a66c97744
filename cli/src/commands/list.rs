//! `ringfence identity|endpoint|cluster|node list`.

use std::sync::Arc;

use comfy_table::Table;
use ringfence_policy::record::{Endpoint, Kind, Record, Versioned};
use ringfence_proto::v1;
use serde::Serialize;

use super::status;
use crate::{
    connect::Servers,
    failure::Failure,
    flags::{Consistency, ListCommand},
    output::{self, Format, age, table},
    view::{ClusterView, EndpointView, IdentityView, NodeView},
};

/// How one kind of record is shown.
pub(crate) type Show = fn(Option<Vec<Versioned>>, Format) -> Result<Kind, anyhow::Error>;

/// Lists one kind. `show` says which kind it wants when it is given no records.
pub(crate) async fn run(
    show: Show,
    command: &ListCommand,
    servers: &mut Servers,
    format: Format,
) -> Result<(), Failure> {
    let ListCommand::List { consistency } = command;
    let kind = show(None, format)?;
    let records = fetch(servers, kind, *consistency).await?;
    show(Some(records), format)?;
    Ok(())
}

/// Asks for all records of a kind. A stale answer's age goes to standard error.
pub(crate) async fn fetch(
    servers: &mut Servers,
    kind: Kind,
    consistency: Consistency,
) -> Result<Vec<Versioned>, Failure> {
    let consistency = match consistency {
        Consistency::Linearizable => v1::Consistency::Linearizable,
        Consistency::Stale => v1::Consistency::Stale,
    };
    let message = v1::ListRequest { kind: v1::Kind::from(kind).into(), consistency: consistency.into() };
    let chunks = servers
        .call(message, async |mut client, request| {
            let mut stream = client.list(request).await?.into_inner();
            let mut chunks = Vec::new();
            while let Some(chunk) = stream.message().await? {
                chunks.push(chunk);
            }
            Ok(chunks)
        })
        .await?;
    if let (v1::Consistency::Stale, Some(chunk)) = (consistency, chunks.first()) {
        output::note(&format!("stale read: revision {}, {} old", chunk.revision, age(chunk.staleness_ms)));
    }
    let records = chunks.into_iter().flat_map(|chunk| chunk.records).map(Versioned::try_from);
    records.collect::<Result<_, _>>().map_err(|error| Failure::Failed(error.into()))
}

pub(super) fn show<V: Serialize, const N: usize>(
    records: Option<Vec<Versioned>>,
    format: Format,
    view: impl Fn(&Versioned) -> Option<V>,
    header: [&str; N],
    row: impl Fn(&V) -> [String; N],
) -> anyhow::Result<()> {
    let Some(records) = records else { return Ok(()) };
    let views: Vec<V> = records.iter().filter_map(view).collect();
    output::print(format, &views, || -> Table { table(header, views.iter().map(row)) })
}

pub(crate) fn identities(records: Option<Vec<Versioned>>, format: Format) -> anyhow::Result<Kind> {
    let view = |versioned: &Versioned| match &versioned.record {
        Record::Identity(record) => Some(IdentityView::new(record, versioned.revision.0)),
        _ => None,
    };
    show(records, format, view, ["IDENTITY", "CLUSTER ID", "NUMBER", "LABELS"], |view| {
        [view.identity.to_string(), view.cluster_id.to_string(), view.number.to_string(), view.labels.join(",")]
    })?;
    Ok(Kind::Identity)
}

pub(crate) fn endpoints(records: Option<Vec<Versioned>>, format: Format) -> anyhow::Result<Kind> {
    let view = |versioned: &Versioned| match &versioned.record {
        Record::Endpoint(endpoint) => Some(EndpointView::new(endpoint, versioned.revision.0)),
        _ => None,
    };
    show(records, format, view, ["CLUSTER", "NODE", "NAME", "IDENTITY", "ADDRESSES", "LABELS"], |view| {
        let (addresses, labels) = (view.addresses.join(","), view.labels.join(","));
        [view.cluster.clone(), view.node.clone(), view.name.clone(), view.identity.to_string(), addresses, labels]
    })?;
    Ok(Kind::Endpoint)
}

pub(crate) fn clusters(records: Option<Vec<Versioned>>, format: Format) -> anyhow::Result<Kind> {
    let view = |versioned: &Versioned| match &versioned.record {
        Record::Cluster(cluster) => Some(ClusterView::new(cluster, versioned.revision.0)),
        _ => None,
    };
    show(records, format, view, ["NAME", "ID", "POD CIDRS"], |view| {
        [view.name.clone(), view.id.to_string(), view.pod_cidrs.join(",")]
    })?;
    Ok(Kind::Cluster)
}

/// Nodes are joined with the addresses of their proxies and health checks, and with what is known of their datapaths.
pub(crate) async fn run_nodes(command: &ListCommand, servers: &mut Servers, format: Format) -> Result<(), Failure> {
    let ListCommand::List { consistency } = command;
    let records = fetch(servers, Kind::Node, *consistency).await?;
    let endpoints = fetch(servers, Kind::Endpoint, *consistency).await?;
    let endpoints: Vec<Endpoint> = endpoints.into_iter().filter_map(reserved).collect();
    let mesh = status::fetch(servers).await?;
    let view = |versioned: &Versioned| match &versioned.record {
        Record::Node(node) => {
            let same = |status: &&crate::view::NodeStatusView| {
                status.reported && status.cluster == node.cluster.as_str() && status.name == node.name.as_str()
            };
            let status = mesh.nodes.iter().find(same).cloned();
            Some(NodeView::new(node, versioned.revision.0, &endpoints, status))
        }
        _ => None,
    };
    let header = ["CLUSTER", "NAME", "ADDRESSES", "INGRESS", "HEALTH", "REALISED", "REPORT AGE", "STATE"];
    show(Some(records), format, view, header, |view: &NodeView| {
        let (realised, report_age, state) = match &view.status {
            Some(node) => {
                (node.realised_revision.to_string(), age(node.report_age_ms), status::describe(node, mesh.revision))
            }
            None => ("-".to_owned(), "-".to_owned(), "no report".to_owned()),
        };
        let listed = |addresses: &[String]| match addresses {
            [] => "-".to_owned(),
            addresses => addresses.join(","),
        };
        let (ingress, health) = (listed(&view.ingress_addresses), listed(&view.health_addresses));
        let (cluster, name, addresses) = (view.cluster.clone(), view.name.clone(), view.addresses.join(","));
        [cluster, name, addresses, ingress, health, realised, report_age, state]
    })?;
    Ok(())
}

/// A node's proxy or health check.
fn reserved(versioned: Versioned) -> Option<Endpoint> {
    match versioned.record {
        Record::Endpoint(endpoint) if endpoint.identity.reserved_name().is_some() => {
            Some(Arc::unwrap_or_clone(endpoint))
        }
        _ => None,
    }
}
