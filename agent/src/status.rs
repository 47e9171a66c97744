//! What the agent says about its node and its endpoints.

use std::{collections::BTreeMap, time::Instant};

use ringfence_policy::{name::Name, revision::Revision, tables::EndpointId};
use ringfence_proto::v1::{self, list_local_endpoints_response::Entry as EndpointStatus};
use tokio::sync::watch;

use crate::{
    figures::Verification,
    owner::DatapathHandle,
    realise::Realised,
    registry::{Attachment, Entry, Registration, Registry},
};

/// How far an endpoint is, as the local API says it.
const WAITING_FOR_INTERFACE: &str = "waiting-for-interface";
const WAITING_FOR_STORE: &str = "waiting-for-store";
const REFUSED: &str = "refused";
const READY: &str = "ready";

/// Where the figures come from.
#[derive(Debug)]
pub(crate) struct NodeSources<'a> {
    pub(crate) cluster: &'a Name,
    pub(crate) node: &'a Name,
    pub(crate) datapath: &'a DatapathHandle,
    pub(crate) registry: &'a Registry,
    /// Why the node itself, its proxy or its health check are not registered.
    pub(crate) unregistered: &'a watch::Receiver<Vec<String>>,
}

/// The node's report.
pub(crate) fn node_status(sources: &NodeSources<'_>) -> v1::NodeStatus {
    let realised = sources.datapath.realised().borrow().clone();
    let mut problems = realised.problems;
    problems.extend(sources.unregistered.borrow().clone());
    problems.extend(sources.registry.entries().iter().filter_map(endpoint_problem));
    v1::NodeStatus {
        cluster: sources.cluster.to_string(),
        name: sources.node.to_string(),
        realised_revision: realised.revision.0,
        report_age_ms: 0,
        reported: true,
        problems,
        datapath: sources.datapath.kind().to_owned(),
        gone: false,
    }
}

/// What reading the maps back has found.
pub(crate) fn verification(read_back: &Verification, interval_ms: u64) -> v1::Verification {
    let age = |at: Option<Instant>| at.map_or(0, |at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX));
    v1::Verification {
        interval_ms,
        runs: read_back.runs,
        age_ms: age(read_back.last),
        repaired_served: read_back.served,
        repaired_unserved: read_back.unserved,
        repair_age_ms: age(read_back.last_repair),
        problem: read_back.problem.clone().unwrap_or_default(),
    }
}

fn endpoint_problem(entry: &Entry) -> Option<String> {
    let name = &entry.declared.name;
    match (&entry.attachment, &entry.registration) {
        (Attachment::Waiting { reason }, _) if !reason.is_empty() => Some(reason.clone()),
        (_, Registration::Refused { reason }) => Some(format!("endpoint {name} is refused: {reason}")),
        _ => None,
    }
}

/// All endpoints: declared ones, and those that an earlier agent attached.
pub(crate) fn endpoint_statuses(
    registry: &Registry,
    attached: &BTreeMap<Name, EndpointId>,
    realised: &Realised,
) -> Vec<EndpointStatus> {
    let entries = registry.entries();
    let declared = entries.iter().map(|entry| endpoint_status(entry, realised.revision));
    let undeclared = attached.keys().filter(|name| !entries.iter().any(|entry| entry.declared.name == **name));
    let adopted = undeclared.map(|name| EndpointStatus {
        endpoint: Some(v1::LocalEndpoint { name: name.to_string(), ..v1::LocalEndpoint::default() }),
        identity: 0,
        state: READY.to_owned(),
        detail: "attached by an earlier agent and not declared any more; it is enforced until it is deleted".to_owned(),
    });
    declared.chain(adopted).collect()
}

fn endpoint_status(entry: &Entry, realised: Revision) -> EndpointStatus {
    let (identity, state, detail) = match (&entry.attachment, &entry.registration) {
        (Attachment::Waiting { reason }, _) => (0, WAITING_FOR_INTERFACE, reason.clone()),
        (_, Registration::Waiting { reason }) => (0, WAITING_FOR_STORE, reason.clone()),
        (_, Registration::Refused { reason }) => (0, REFUSED, reason.clone()),
        (_, Registration::Registered { identity, revision }) if realised < *revision => {
            let detail = format!("the store has it at revision {revision}; packets are judged by revision {realised}");
            (identity.bits(), WAITING_FOR_STORE, detail)
        }
        (_, Registration::Registered { identity, .. }) => (identity.bits(), READY, String::new()),
    };
    EndpointStatus { endpoint: Some(entry.declared.clone().into()), identity, state: state.to_owned(), detail }
}
