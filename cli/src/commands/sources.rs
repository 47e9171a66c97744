//! What the offline commands work on: objects of files or of the store, and who is in the mesh.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context as _;
use ringfence_policy::{
    address::AddressBook,
    compat::Compat,
    diagnostic::{Diagnostic, Position, Severity},
    explain::{Party, Place},
    identity::Identity,
    label::LabelSet,
    name::Name,
    object::{CidrGroup, Object, not_enforceable, parse_documents, parse_record, services},
    record::{IdentityRecord, Kind, Record},
    reserved::RESERVED_PEERS,
    rule::{Peers, Rule},
    world::{Service, Settings, World},
};

use super::{apply, expectations, files, list};
use crate::{
    connect::Servers,
    failure::Failure,
    flags::{Consistency, Global, Reading},
    output::note,
};

/// Objects and where they are from.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(crate) objects: Vec<Object>,
    /// The name of each object's file.
    pub(crate) files: Vec<String>,
    pub(crate) groups: Vec<CidrGroup>,
    pub(crate) services: Vec<Service>,
    /// Findings with the names of their files.
    pub(crate) findings: Vec<(String, Diagnostic)>,
}

/// Somebody in the mesh.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) party: Party,
}

impl Sources {
    /// Reads every document of every file. What is wrong with them is in `findings`.
    ///
    /// # Errors
    /// If a file cannot be read, or there is no object at all.
    pub(crate) fn read(paths: &[PathBuf], compat: Compat) -> anyhow::Result<Self> {
        let mut sources = Self::default();
        let mut first_files: BTreeMap<_, String> = BTreeMap::new();
        let mut parts = Vec::new();
        let mut documents = 0;
        for path in files::expand(paths)? {
            let name = files::display_name(&path);
            let parsed = parse_documents(&files::read(&path)?, compat);
            documents += parsed.objects.len() + parsed.groups.len() + parsed.services.len() + parsed.diagnostics.len();
            parts.extend(parsed.services);
            sources.findings.extend(parsed.diagnostics.into_iter().map(|finding| (name.clone(), finding)));
            sources.groups.extend(parsed.groups);
            for object in parsed.objects {
                if let Some(first) = first_files.insert(object.key.clone(), name.clone()) {
                    let finding = Diagnostic::error(object.position, format!("{} is also in {first}", object.key));
                    sources.findings.push((name.clone(), finding));
                    continue;
                }
                for finding in not_enforceable(&object) {
                    sources.findings.push((name.clone(), Diagnostic { severity: Severity::Warning, ..finding }));
                }
                sources.objects.push(object);
                sources.files.push(name.clone());
            }
        }
        sources.services = services(&parts);
        anyhow::ensure!(documents > 0, "no policy object found in the files given");
        Ok(sources)
    }

    /// As `read`, for commands that need objects without errors: errors go to standard error, warnings nowhere.
    ///
    /// # Errors
    /// As `read`, and if an object has an error.
    pub(crate) fn without_errors(paths: &[PathBuf], compat: Compat) -> anyhow::Result<Self> {
        let sources = Self::read(paths, compat)?;
        let errors = sources.findings.iter().filter(|(_, finding)| finding.is_error());
        let count = errors.map(|(file, finding)| note(&format!("{file}:{finding}"))).count();
        anyhow::ensure!(count == 0, "{} above", counted(count, "error"));
        Ok(sources)
    }

    /// The objects of files, or of the store where no file is given.
    pub(crate) async fn of(paths: &[PathBuf], compat: Compat, global: &Global) -> Result<Self, Failure> {
        if !paths.is_empty() {
            return Ok(Self::without_errors(paths, compat)?);
        }
        let mut sources = Self::default();
        let policies = apply::policies(&mut Servers::new(global)?, Consistency::Linearizable).await?;
        for (_, policy) in policies.values() {
            let findings = |findings: Vec<Diagnostic>| {
                let first = findings.first().map(ToString::to_string).unwrap_or_default();
                anyhow::anyhow!("the store's {} cannot be read: {first}", policy.key)
            };
            sources.objects.push(parse_record(policy).map_err(findings)?);
            sources.files.push("store".to_owned());
        }
        Ok(sources)
    }

    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.objects.iter().flat_map(|object| &object.rules)
    }

    /// What addresses mean under these objects.
    pub(crate) fn addresses(&self, settings: &Settings) -> AddressBook {
        let mut addresses = AddressBook::new(settings.dual_stack, false);
        addresses.add_ranges(self.rules());
        self.groups.iter().for_each(|group| addresses.add_group(group));
        self.services.iter().flat_map(Service::addresses).for_each(|range| addresses.add_range(range));
        addresses
    }

    /// `file:line:column` of a place.
    pub(crate) fn location(&self, place: &Place) -> String {
        let Position { line, column } = place.position;
        format!("{}:{line}:{column}", self.files[place.object])
    }
}

/// How verdicts are worked out.
pub(crate) fn settings(reading: &Reading) -> Result<Settings, Failure> {
    let cluster = Name::new(reading.cluster.as_str());
    let cluster = cluster.map_err(|error| Failure::Usage { reason: format!("--cluster: {error}") })?;
    Ok(Settings::new(cluster, reading.compat.into()))
}

/// What the names of ports stand for: without files, what the store's endpoints say, too.
pub(crate) async fn world_of(
    files: &[PathBuf],
    sources: &Sources,
    subject: &Party,
    reading: &Reading,
    global: &Global,
) -> Result<World, Failure> {
    let mut world = world(reading, &[sources]);
    if files.is_empty() {
        for versioned in list::fetch(&mut Servers::new(global)?, Kind::Endpoint, Consistency::Linearizable).await? {
            let Record::Endpoint(endpoint) = versioned.record else { continue };
            if endpoint.labels == subject.labels {
                world.own_ports.extend(endpoint.named_ports.iter().cloned());
            }
            world.peer_ports.extend(Arc::unwrap_or_clone(endpoint).named_ports);
        }
    }
    Ok(world)
}

/// `1 error`, `2 errors`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What flags say the names of ports stand for, and files the names of services.
pub(crate) fn world(reading: &Reading, sources: &[&Sources]) -> World {
    let ports = || reading.named_ports.clone();
    let services = sources.iter().flat_map(|sources| sources.services.iter().cloned()).collect();
    World { own_ports: ports(), peer_ports: ports(), services, ..World::default() }
}

/// Whom identities do not stand for: reserved peers, and an address of each range and a name of each rule.
pub(crate) fn others(sources: &[&Sources], settings: &Settings) -> Vec<Member> {
    let rules = || sources.iter().flat_map(|sources| sources.rules());
    let groups = || sources.iter().flat_map(|sources| &sources.groups);
    let mut addresses = AddressBook::new(settings.dual_stack, false);
    addresses.add_ranges(rules());
    groups().for_each(|group| addresses.add_group(group));
    let services = || sources.iter().flat_map(|sources| &sources.services).flat_map(Service::addresses);
    services().for_each(|range| addresses.add_range(range));
    let reserved = RESERVED_PEERS.into_iter().filter(|peer| *peer != Identity::WORLD);
    let reserved = reserved
        .filter_map(|peer| Some(Member { name: peer.reserved_name()?.to_owned(), party: Party::reserved(peer) }));
    let peers = || rules().flat_map(Rule::elements).filter_map(|(_, _, element)| element.peers.as_ref());
    let ranges = peers().flat_map(Peers::ranges).chain(groups().flat_map(|group| group.ranges.iter().copied()));
    let ranges = ranges.chain(services()).filter(|range| range.prefix_length() > 0).map(|range| {
        let party = Party::address(range.address(), &addresses);
        Member { name: range.to_string(), party }
    });
    let names = peers().flat_map(|peers| &peers.fqdns).filter_map(|fqdn| fqdn.names.as_ref());
    // A pattern is a name of its own as far as selectors go: an example of it, with a letter for each star.
    let names = names.map(|names| {
        let party = Party::dns_name(&names.label().replace('*', "x"), rules(), settings);
        Member { name: names.label().to_owned(), party }
    });
    let mut seen = BTreeSet::new();
    let mut members: Vec<Member> = reserved.chain(ranges).chain(names).collect();
    members.retain(|member| seen.insert(member.name.clone()));
    members
}

/// Everyone of an identities file, or of the store where none is given.
pub(crate) async fn members(
    file: Option<&PathBuf>,
    settings: &Settings,
    global: &Global,
) -> Result<Vec<Member>, Failure> {
    if let Some(path) = file {
        let file = expectations::File::read(path)?;
        let members: Vec<Member> = file.members(settings)?.into_values().collect();
        if members.is_empty() {
            return Err(anyhow::anyhow!("{} has no identities", path.display()).into());
        }
        return Ok(members);
    }
    if global.servers.is_empty() {
        let reason = "whose? give --identities FILE, or --server HOST:PORT for those of the store".to_owned();
        return Err(Failure::Usage { reason });
    }
    let records = list::fetch(&mut Servers::new(global)?, Kind::Identity, Consistency::Linearizable).await?;
    let identities = records.into_iter().filter_map(|versioned| match versioned.record {
        Record::Identity(record) => Some(record),
        _ => None,
    });
    Ok(identities
        .map(|IdentityRecord { identity, labels }| member(identity.bits().to_string(), labels, settings))
        .collect())
}

pub(crate) fn member(name: String, labels: LabelSet, settings: &Settings) -> Member {
    Member { name, party: Party::of(labels, settings) }
}

/// The endpoint, proxy or health check that has an address in the store; none where no store is asked.
async fn owner(address: IpAddr, settings: &Settings, global: &Global) -> Result<Option<Party>, Failure> {
    if global.servers.is_empty() {
        return Ok(None);
    }
    let records = list::fetch(&mut Servers::new(global)?, Kind::Endpoint, Consistency::Linearizable).await?;
    Ok(records.into_iter().find_map(|versioned| match versioned.record {
        Record::Endpoint(endpoint) if endpoint.addresses.contains(&address) => {
            Some(Party::of(endpoint.labels.clone(), settings))
        }
        _ => None,
    }))
}

/// One end of a flow: the number of one of the store's identities, or what `Party::parse` takes.
pub(crate) async fn party(
    text: &str,
    flag: &str,
    sources: &Sources,
    settings: &Settings,
    global: &Global,
) -> Result<Party, Failure> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let members = members(None, settings, global).await?;
        let found = members.into_iter().find(|member| member.name == text);
        return Ok(found.with_context(|| format!("{flag}: the store has no identity {text}"))?.party);
    }
    if let Ok(address) = text.parse()
        && let Some(party) = owner(address, settings, global).await?
    {
        return Ok(party);
    }
    let party = Party::parse(text, sources.rules(), &sources.addresses(settings), settings);
    party.map_err(|error| Failure::Usage { reason: format!("{flag}: {error}") })
}
