//! `ringfence get services|cidrgroups|fqdns|blocks|settings`.

use ringfence_policy::record::{Kind, MeshSettings, Record, Versioned};

use super::list::{fetch, show};
use crate::{
    args::GetKind,
    connect::Servers,
    failure::Failure,
    flags::Consistency,
    output::Format,
    view::{BlockView, CidrGroupView, FqdnView, ServiceView, SettingsView},
};

pub(crate) async fn run(
    kind: GetKind,
    consistency: Consistency,
    servers: &mut Servers,
    format: Format,
) -> Result<(), Failure> {
    let kind_of_record = match kind {
        GetKind::Services => Kind::Service,
        GetKind::CidrGroups => Kind::CidrGroup,
        GetKind::Fqdns => Kind::Fqdn,
        GetKind::Blocks => Kind::Block,
        GetKind::Settings => Kind::Settings,
    };
    let records = fetch(servers, kind_of_record, consistency).await?;
    Ok(match kind {
        GetKind::Services => services(records, format),
        GetKind::CidrGroups => cidr_groups(records, format),
        GetKind::Fqdns => fqdns(records, format),
        GetKind::Blocks => blocks(records, format),
        GetKind::Settings => settings(&records, format),
    }?)
}

fn services(records: Vec<Versioned>, format: Format) -> anyhow::Result<()> {
    let view = |versioned: &Versioned| match &versioned.record {
        Record::Service(service) => Some(ServiceView::new(service, versioned.revision.0)),
        _ => None,
    };
    let header = ["CLUSTER", "NAMESPACE", "NAME", "ADDRESSES", "PORTS", "BACKENDS", "LABELS"];
    show(Some(records), format, view, header, |view| {
        let backends = if view.selector.is_empty() { view.backends.join(",") } else { selector(&view.selector) };
        let ports: Vec<_> =
            view.ports.iter().map(|port| format!("{}:{}/{}", port.port, port.target_port, port.protocol)).collect();
        [
            view.cluster.clone(),
            view.namespace.clone(),
            view.name.clone(),
            view.cluster_addresses.join(","),
            ports.join(","),
            backends,
            view.labels.join(","),
        ]
    })
}

fn selector(labels: &std::collections::BTreeMap<String, String>) -> String {
    let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("pods with {}", labels.join(","))
}

fn cidr_groups(records: Vec<Versioned>, format: Format) -> anyhow::Result<()> {
    let view = |versioned: &Versioned| match &versioned.record {
        Record::CidrGroup(group) => Some(CidrGroupView::new(group, versioned.revision.0)),
        _ => None,
    };
    show(Some(records), format, view, ["NAME", "RANGES", "LABELS"], |view| {
        let labels: Vec<_> = view.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        [view.name.clone(), view.ranges.join(","), labels.join(",")]
    })
}

fn fqdns(records: Vec<Versioned>, format: Format) -> anyhow::Result<()> {
    let view = |versioned: &Versioned| match &versioned.record {
        Record::Fqdn(fqdn) => Some(FqdnView::new(fqdn, versioned.revision.0)),
        _ => None,
    };
    show(Some(records), format, view, ["CLUSTER", "NAME", "ADDRESSES"], |view| {
        let addresses: Vec<_> = view.addresses.iter().map(|bound| bound.address.clone()).collect();
        [view.cluster.clone(), view.name.clone(), addresses.join(",")]
    })
}

fn blocks(records: Vec<Versioned>, format: Format) -> anyhow::Result<()> {
    let view = |versioned: &Versioned| match &versioned.record {
        Record::Block(block) => Some(BlockView::new(block, versioned.revision.0)),
        _ => None,
    };
    show(Some(records), format, view, ["CLUSTER", "GATEWAY", "FIRST", "COUNT", "SPENT"], |view| {
        let (first, count, spent) = (view.first.to_string(), view.count.to_string(), view.spent.to_string());
        [view.cluster.clone(), view.holder.clone(), first, count, spent]
    })
}

/// The defaults are shown where there is no record: they are what holds.
fn settings(records: &[Versioned], format: Format) -> anyhow::Result<()> {
    let stored = records.iter().find_map(|versioned| match &versioned.record {
        Record::Settings(settings) => Some((settings.clone(), versioned.revision.0)),
        _ => None,
    });
    let (settings, revision) = stored.unwrap_or_else(|| (MeshSettings::default(), 0));
    let view = SettingsView::new(&settings, revision);
    crate::output::print(format, &view, || {
        let filter = match (view.label_filter_replaces_defaults, view.label_filter.is_empty()) {
            (false, true) => "built-in".to_owned(),
            (false, false) => format!("built-in, {}", view.label_filter.join(", ")),
            (true, _) => view.label_filter.join(", "),
        };
        let rows = [
            ["label filter".to_owned(), filter],
            ["identity grace".to_owned(), format!("{} ms", view.identity_grace_ms)],
            ["quarantine".to_owned(), format!("{} ms", view.quarantine_ms)],
            ["node lease".to_owned(), format!("{} ms", view.node_lease_ms)],
            ["node grace".to_owned(), format!("{} ms", view.node_grace_ms)],
        ];
        crate::output::table(["SETTING", "VALUE"], rows)
    })
}
