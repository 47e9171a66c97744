//! The programs on the endpoints' devices, and on the node's uplinks.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{SchedClassifier, TcAttachType},
};
use ringfence_ebpf_common::program;
use ringfence_policy::{name::Name, tables::EndpointId};

use super::{
    attachment::{self, Attachment, Pinned},
    error::{LinkFailure, OpenError},
    features::Mechanism,
    open::classifier,
    system,
};
use crate::error::AttachError;

/// ARPHRD_ETHER, linux/if_arp.h
const ETHERNET: u16 = 1;
/// Which program goes where on a device; the names are also those of the pins.
pub(super) type Hooks = [(&'static str, TcAttachType); 2];

/// On the host-side device of an endpoint.
pub(super) const OF_ENDPOINTS: Hooks =
    [(program::FROM_ENDPOINT, TcAttachType::Ingress), (program::TO_ENDPOINT, TcAttachType::Egress)];
/// On an uplink of the node.
pub(super) const OF_UPLINKS: Hooks =
    [(program::TO_HOST, TcAttachType::Ingress), (program::FROM_HOST, TcAttachType::Egress)];

/// Programs by hook.
type Hooked = Vec<(&'static str, Attachment)>;

/// Every endpoint's links, by directory of pins. An uplink is an endpoint here, with hooks of its own.
pub(super) struct Links {
    directory: PathBuf,
    hooks: Hooks,
    /// For endpoints that are not attached yet.
    mechanism: Mechanism,
    endpoints: BTreeMap<Name, Attached>,
}

/// One endpoint's links. They stay attached when this is dropped: the pins hold them.
struct Attached {
    id: EndpointId,
    links: Hooked,
    /// Where the pins of an older layout are, as long as its programs judge packets.
    older: Option<PathBuf>,
}

/// A name as a directory: a bpffs refuses dots, and no name has an underscore.
pub(super) fn pin_name(name: &Name) -> String {
    name.as_str().replace('.', "_")
}

impl Links {
    pub(super) const fn new(directory: PathBuf, hooks: Hooks, mechanism: Mechanism) -> Self {
        Self { directory, hooks, mechanism, endpoints: BTreeMap::new() }
    }

    pub(super) fn attached(&self) -> BTreeMap<Name, EndpointId> {
        self.endpoints.iter().map(|(name, attached)| (name.clone(), attached.id)).collect()
    }

    /// Whose device it is.
    pub(super) fn owner(&self, interface: &str) -> Option<&Name> {
        let index = system::interface_index(interface)?;
        self.endpoints.iter().find(|(_, attached)| attached.id.0 == index).map(|(name, _)| name)
    }

    /// Takes over every pinned link, and replaces its program by the one just loaded. Pins of devices that are gone are
    /// removed.
    pub(super) fn adopt(&mut self, ebpf: &mut Ebpf) -> Result<(), OpenError> {
        for name in pinned(&self.directory)? {
            let directory = self.endpoint_directory(&name);
            let adopted = adopt(&directory, &self.hooks, |link, hook, place| link.replace(program(ebpf, hook)?, place))
                .map_err(|source| OpenError::Link { name: name.clone(), source })?;
            if let Some((id, links)) = adopted {
                self.endpoints.insert(name, Attached { id, links, older: None });
            }
        }
        Ok(())
    }

    /// Makes the endpoints of an older layout known; their programs stay. Ones that are known already stay as they are.
    pub(super) fn adopt_older(&mut self, directory: &Path) -> Result<(), OpenError> {
        if !directory.exists() {
            return Ok(());
        }
        for name in pinned(directory)? {
            let pins = directory.join(pin_name(&name));
            let adopted = adopt(&pins, &self.hooks, |link, _, _| Ok(Some(link)))
                .map_err(|source| OpenError::Link { name: name.clone(), source })?;
            let Some((id, links)) = adopted else { continue };
            let attached = self.endpoints.entry(name).or_insert(Attached { id, links: Vec::new(), older: None });
            // A hook that has this layout's program already was replaced before its pin could be removed.
            let missing = links.into_iter().filter(|(hook, _)| attached.links.iter().all(|(there, _)| there != hook));
            let missing: Vec<_> = missing.collect();
            attached.links.extend(missing);
            attached.older = Some(pins);
        }
        Ok(())
    }

    /// Replaces every program of an older layout, and moves the pins.
    pub(super) fn replace_older(&mut self, ebpf: &mut Ebpf) -> Result<(), LinkFailure> {
        for (name, attached) in &mut self.endpoints {
            let Some(older) = &attached.older else { continue };
            let directory = self.directory.join(pin_name(name));
            fs::create_dir_all(&directory).map_err(|source| LinkFailure::File { path: directory.clone(), source })?;
            for (hook, place) in self.hooks {
                let old_pin = older.join(hook);
                let file = |source| LinkFailure::File { path: old_pin.clone(), source };
                let Pinned::On(_) = attachment::pinned(&old_pin).map_err(file)? else { continue };
                let older = Attachment::adopt(&old_pin)?;
                let Some(link) = older.replace(program(ebpf, hook)?, place)? else { continue };
                // Pinned twice for a moment.
                let link = link.pin_again(&directory.join(hook))?;
                attached.links.retain(|(other, _)| *other != hook);
                attached.links.push((hook, link));
                fs::remove_file(&old_pin).map_err(file)?;
            }
            remove_pins(older, &self.hooks)?;
            attached.older = None;
        }
        Ok(())
    }

    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, name: &Name, interface: &str) -> Result<EndpointId, AttachError> {
        let id = self.check(name, interface)?;
        let failed = |source| AttachError::Link { name: name.clone(), source };
        let directory = self.endpoint_directory(name);
        // The device may have been made anew under the same name.
        if let Some(attached) = self.endpoints.get(name).filter(|attached| attached.id != id) {
            let older = attached.older.clone();
            self.endpoints.remove(name);
            older.iter().chain([&directory]).try_for_each(|pins| remove_pins(pins, &self.hooks)).map_err(failed)?;
        }
        let older = self.endpoints.get(name).and_then(|attached| attached.older.clone());
        if older.is_some() && self.endpoints.get(name).is_some_and(|attached| attached.links.len() == self.hooks.len())
        {
            // The older layout's programs judge until there is a revision for this one's.
            return Ok(id);
        }
        fs::create_dir_all(&directory)
            .map_err(|source| failed(LinkFailure::File { path: directory.clone(), source }))?;
        let mut links = self.endpoints.remove(name).map_or_else(Vec::new, |attached| attached.links);
        let mut result = Ok(id);
        for (hook, place) in self.hooks {
            if links.iter().any(|(linked, _)| *linked == hook) {
                continue;
            }
            let pin = directory.join(hook);
            let made = program(ebpf, hook)
                .and_then(|program| Attachment::make(program, interface, place, &pin, self.mechanism));
            match made {
                Ok(link) => links.push((hook, link)),
                Err(source) => result = Err(failed(source)),
            }
        }
        if links.is_empty() {
            // Nothing to remember; a directory without links means nothing either.
            let _ = fs::remove_dir_all(&directory);
        } else {
            self.endpoints.insert(name.clone(), Attached { id, links, older });
        }
        result
    }

    pub(super) fn detach(&mut self, name: &Name) -> Result<(), AttachError> {
        if !self.endpoints.contains_key(name) {
            return Err(AttachError::NotAttached { name: name.clone() });
        }
        let directory = self.endpoint_directory(name);
        let older = self.endpoints.get(name).and_then(|attached| attached.older.clone());
        for pins in older.iter().chain([&directory]) {
            remove_pins(pins, &self.hooks).map_err(|source| AttachError::Link { name: name.clone(), source })?;
        }
        // Closing the last descriptor takes the programs off.
        self.endpoints.remove(name);
        Ok(())
    }

    /// Puts back what somebody else took off; answers how many programs that were.
    pub(super) fn restore(&self, ebpf: &mut Ebpf) -> Result<usize, LinkFailure> {
        let mut restored = 0;
        for (name, attached) in self.endpoints.iter().filter(|(_, attached)| attached.older.is_none()) {
            for (hook, place) in self.hooks {
                let Some((_, link)) = attached.links.iter().find(|(linked, _)| *linked == hook) else { continue };
                if link.restore(program(ebpf, hook)?, place)? {
                    tracing::error!(endpoint = %name, hook, "somebody took the program off the device: it is back");
                    restored += 1;
                }
            }
        }
        Ok(restored)
    }

    /// Whether the endpoint may be attached to the device; answers the device's index.
    fn check(&self, name: &Name, interface: &str) -> Result<EndpointId, AttachError> {
        let (owner, asked) = (name.clone(), interface.to_owned());
        let Some(index) = system::interface_index(interface) else {
            return Err(AttachError::NoInterface { name: owner, interface: asked });
        };
        let file = |source| LinkFailure::File { path: interface.into(), source };
        let hardware_type = system::hardware_type(interface)
            .map_err(|source| AttachError::Link { name: owner.clone(), source: file(source) })?;
        if hardware_type != ETHERNET {
            return Err(AttachError::NotEthernet { name: owner, interface: asked, hardware_type });
        }
        let id = EndpointId(index);
        if let Some((other, _)) = self.endpoints.iter().find(|(other, attached)| *other != name && attached.id == id) {
            return Err(AttachError::Taken { name: owner, interface: asked, owner: other.clone() });
        }
        if let Some(attached) = self.endpoints.get(name)
            && attached.id != id
            && self.is_alive(name)
        {
            return Err(AttachError::Elsewhere { name: owner, attached: attached.id, interface: asked });
        }
        Ok(id)
    }

    /// Whether one of the endpoint's links is on a device that is still there.
    fn is_alive(&self, name: &Name) -> bool {
        let older = self.endpoints.get(name).and_then(|attached| attached.older.clone());
        let directory = older.unwrap_or_else(|| self.endpoint_directory(name));
        self.hooks.iter().any(|(hook, _)| matches!(attachment::pinned(&directory.join(hook)), Ok(Pinned::On(_))))
    }

    fn endpoint_directory(&self, name: &Name) -> PathBuf {
        self.directory.join(pin_name(name))
    }
}

/// The endpoints with pins in a directory.
fn pinned(directory: &Path) -> Result<Vec<Name>, OpenError> {
    let failed = |source| OpenError::Directory { path: directory.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let text = entry.map_err(failed)?.file_name().to_string_lossy().replace('_', ".");
        match Name::new(text) {
            Ok(name) => names.push(name),
            Err(error) => tracing::warn!(%error, "a directory of pins that Ringfence did not make is left alone"),
        }
    }
    Ok(names)
}

/// The links pinned in a directory, each after `take`; none (and no pins any more) if their device is gone.
fn adopt(
    directory: &Path,
    hooks: &Hooks,
    mut take: impl FnMut(Attachment, &'static str, TcAttachType) -> Result<Option<Attachment>, LinkFailure>,
) -> Result<Option<(EndpointId, Hooked)>, LinkFailure> {
    let mut adopted: Option<(EndpointId, Vec<_>)> = None;
    for (hook, place) in *hooks {
        let pin = directory.join(hook);
        let file = |source| LinkFailure::File { path: pin.clone(), source };
        let Pinned::On(interface) = attachment::pinned(&pin).map_err(file)? else { continue };
        if let Some(link) = take(Attachment::adopt(&pin)?, hook, place)? {
            adopted.get_or_insert_with(|| (EndpointId(interface), Vec::new())).1.push((hook, link));
        }
    }
    if adopted.is_none() {
        remove_pins(directory, hooks)?;
    }
    Ok(adopted)
}

/// Takes the programs off that are not held by a pin, of all endpoints with pins in a directory.
pub(super) fn take_off_all(directory: &Path, hooks: &Hooks) -> Result<(), LinkFailure> {
    let failed = |source| LinkFailure::File { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        take_off(&entry.map_err(failed)?.path(), hooks)?;
    }
    Ok(())
}

fn take_off(directory: &Path, hooks: &Hooks) -> Result<(), LinkFailure> {
    hooks.iter().try_for_each(|(hook, place)| attachment::take_off(&directory.join(hook), *place))
}

fn program<'a>(ebpf: &'a mut Ebpf, hook: &'static str) -> Result<&'a mut SchedClassifier, LinkFailure> {
    match classifier(ebpf, hook) {
        Ok(program) => Ok(program),
        Err(OpenError::Program { source, .. }) => Err(LinkFailure::Attach { source }),
        Err(_) => Err(LinkFailure::Attach { source: aya::programs::ProgramError::NotLoaded }),
    }
}

/// Takes the programs off with their pins.
fn remove_pins(directory: &Path, hooks: &Hooks) -> Result<(), LinkFailure> {
    take_off(directory, hooks)?;
    match fs::remove_dir_all(directory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LinkFailure::File { path: directory.to_owned(), source })
        }
        _ => Ok(()),
    }
}
