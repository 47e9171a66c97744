//! Files of identities and of expected verdicts.
//!
//! ```yaml
//! policies: [base.yaml, shop/]        # files and directories, beside this file
//! cluster: east                       # the local cluster; "default" if it is not written
//! identities:
//!   web: ["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"]
//! named_ports: [{name: http, protocol: TCP, port: 8080}]
//! cases:
//! - {subject: web, peer: world, direction: ingress, port: 443, expect: deny}
//! ```

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use ringfence_policy::{
    diagnostic::Position,
    document::{self, Value},
    flow::Direction,
    label::{Label, LabelSet, SOURCE_K8S},
    name::Name,
    record::NamedPort,
    world::{Enforcement, Settings, World},
};
use serde::Deserialize;

use super::{
    files,
    sources::{Member, member},
};
use crate::flags::CompatWord;

/// What a file says, and where.
#[derive(Debug)]
pub(crate) struct File {
    /// As it was given.
    pub(crate) name: String,
    pub(crate) content: Content,
    /// Where each case begins.
    pub(crate) positions: Vec<Position>,
    folder: PathBuf,
}

/// The fields of a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Content {
    #[serde(default)]
    policies: Vec<PathBuf>,
    #[serde(default = "default_cluster")]
    cluster: String,
    #[serde(default)]
    compat: CompatWord,
    #[serde(default)]
    enforcement: EnforcementWord,
    /// The node is under audit.
    #[serde(default)]
    audit: bool,
    #[serde(default)]
    identities: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    named_ports: Vec<NamedPortEntry>,
    #[serde(default)]
    pub(crate) cases: Vec<Case>,
}

/// One flow and what must become of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// Said when it fails.
    pub(crate) name: Option<String>,
    /// A name of `identities`, labels, …
    pub(crate) subject: String,
    /// A name of `identities`, labels, an entity, an address or a DNS name.
    pub(crate) peer: String,
    pub(crate) direction: Direction,
    #[serde(default = "tcp")]
    pub(crate) protocol: String,
    /// The message type for ICMP.
    pub(crate) port: u16,
    pub(crate) http: Option<HttpCase>,
    pub(crate) dns: Option<String>,
    pub(crate) kafka: Option<KafkaCase>,
    /// The subject's endpoint is under audit.
    #[serde(default)]
    pub(crate) audit: bool,
    pub(crate) expect: Expected,
    /// What must become of it if the policies under audit counted.
    pub(crate) shadow: Option<Expected>,
}

/// One HTTP request of the flow.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpCase {
    pub(crate) method: String,
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) host: String,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
}

/// One Kafka request of the flow.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct KafkaCase {
    pub(crate) api_key: String,
    #[serde(default)]
    pub(crate) topics: Vec<String>,
}

/// What must become of a flow, and of the request in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Expected {
    /// It passes, through the proxy or not.
    Allow,
    /// It passes, and the proxy sees it.
    Redirect,
    /// It does not pass.
    Deny,
    /// Nothing allows it.
    DenyDefault,
    /// A deny rule refuses it.
    DenyExplicit,
    /// It passes, and would not if nothing were under audit.
    Audit,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EnforcementWord {
    #[default]
    Default,
    Always,
    Never,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedPortEntry {
    name: String,
    protocol: String,
    port: u16,
}

fn default_cluster() -> String {
    "default".to_owned()
}

fn tcp() -> String {
    "TCP".to_owned()
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read or is no such file; with `file:line:column`.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = files::read(path)?;
        let name = files::display_name(path);
        // Refuses what readers could disagree about, with its place.
        let read = document::read(&text);
        if let Some(finding) = read.diagnostics.first() {
            anyhow::bail!("{name}:{finding}");
        }
        let content: Content = yaml_serde::from_str(&text).map_err(|error| {
            let place = error.location().map(|at| format!(":{}:{}", at.line(), at.column())).unwrap_or_default();
            anyhow::anyhow!("{name}{place}: error: {error}")
        })?;
        let root = read.documents.first().map(|document| &document.root.value);
        let positions = if let Some(Value::Mapping(entries)) = root { cases(entries) } else { Vec::new() };
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Self { name, content, positions, folder })
    }

    /// The policy files, relative to where we are.
    pub(crate) fn policies(&self) -> Vec<PathBuf> {
        self.content.policies.iter().map(|path| self.folder.join(path)).collect()
    }

    /// How verdicts are worked out.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let Content { cluster, compat, enforcement, audit, .. } = &self.content;
        let cluster = Name::new(cluster.as_str()).with_context(|| format!("{}: cluster", self.name))?;
        let enforcement = match enforcement {
            EnforcementWord::Default => Enforcement::Default,
            EnforcementWord::Always => Enforcement::Always,
            EnforcementWord::Never => Enforcement::Never,
        };
        Ok(Settings { enforcement, audit: *audit, ..Settings::new(cluster, (*compat).into()) })
    }

    /// What the names of ports stand for, at both ends.
    pub(crate) fn world(&self) -> anyhow::Result<World> {
        let port = |entry: &NamedPortEntry| {
            let protocol = ringfence_policy::explain::parse_protocol(&entry.protocol).with_context(|| {
                format!("{}: named_ports: {:?} is not a protocol: write TCP, UDP or SCTP", self.name, entry.protocol)
            })?;
            Ok(NamedPort { name: entry.name.clone(), protocol, port: entry.port })
        };
        let ports: Vec<NamedPort> = self.content.named_ports.iter().map(port).collect::<anyhow::Result<_>>()?;
        Ok(World { own_ports: ports.clone(), peer_ports: ports, ..World::default() })
    }

    /// The identities by name. Labels without a source are those of Kubernetes.
    pub(crate) fn members(&self, settings: &Settings) -> anyhow::Result<BTreeMap<String, Member>> {
        let member = |(name, texts): (&String, &Vec<String>)| {
            let labels: Result<Vec<Label>, _> = texts.iter().map(|text| Label::parse_with(text, SOURCE_K8S)).collect();
            let labels = labels.and_then(|labels| LabelSet::parse(labels.iter().map(ToString::to_string)));
            let labels = labels.with_context(|| format!("{}: identities.{name}", self.name))?;
            Ok((name.clone(), member(name.clone(), labels, settings)))
        };
        self.content.identities.iter().map(member).collect()
    }

    /// `file:line:column` of a case.
    pub(crate) fn location(&self, case: usize) -> String {
        match self.positions.get(case) {
            Some(position) => format!("{}:{position}", self.name),
            None => self.name.clone(),
        }
    }
}

fn cases(entries: &[document::Entry]) -> Vec<Position> {
    let cases = entries.iter().find(|entry| entry.key == "cases").map(|entry| &entry.value.value);
    if let Some(Value::Sequence(items)) = cases { items.iter().map(|item| item.position).collect() } else { Vec::new() }
}
