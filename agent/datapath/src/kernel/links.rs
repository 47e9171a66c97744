//! The programs on the endpoints' devices.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions},
    },
};
use ringfence_ebpf_common::program;
use ringfence_policy::{name::Name, tables::EndpointId};

use super::{
    error::{LinkFailure, OpenError},
    open::classifier,
    system,
};
use crate::error::AttachError;

/// ARPHRD_ETHER, linux/if_arp.h
const ETHERNET: u16 = 1;
/// Which program goes where on a host-side device; the names are also those of the pins.
const HOOKS: [(&str, TcAttachType); 2] =
    [(program::FROM_ENDPOINT, TcAttachType::Ingress), (program::TO_ENDPOINT, TcAttachType::Egress)];

/// Every endpoint's links, by directory of pins.
pub(super) struct Links {
    directory: PathBuf,
    endpoints: BTreeMap<Name, Attached>,
}

/// One endpoint's links. They stay attached when this is dropped: the pins hold them.
struct Attached {
    id: EndpointId,
    links: Vec<(&'static str, FdLink)>,
}

/// A name as a directory: a bpffs refuses dots, and no name has an underscore.
pub(super) fn pin_name(name: &Name) -> String {
    name.as_str().replace('.', "_")
}

impl Links {
    pub(super) const fn new(directory: PathBuf) -> Self {
        Self { directory, endpoints: BTreeMap::new() }
    }

    pub(super) fn attached(&self) -> BTreeMap<Name, EndpointId> {
        self.endpoints.iter().map(|(name, attached)| (name.clone(), attached.id)).collect()
    }

    /// Takes over every pinned link, and replaces its program by the one just loaded. Pins of devices that are gone are
    /// removed.
    pub(super) fn adopt(&mut self, ebpf: &mut Ebpf) -> Result<(), OpenError> {
        let failed = |source| OpenError::Directory { path: self.directory.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let text = entry.map_err(failed)?.file_name().to_string_lossy().replace('_', ".");
            match Name::new(text) {
                Ok(name) => names.push(name),
                Err(error) => tracing::warn!(%error, "a directory of pins that Ringfence did not make is left alone"),
            }
        }
        for name in names {
            let directory = self.endpoint_directory(&name);
            let adopted = adopt(ebpf, &directory).map_err(|source| OpenError::Link { name: name.clone(), source })?;
            if let Some(attached) = adopted {
                self.endpoints.insert(name, attached);
            }
        }
        Ok(())
    }

    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, name: &Name, interface: &str) -> Result<EndpointId, AttachError> {
        let id = self.check(name, interface)?;
        let failed = |source| AttachError::Link { name: name.clone(), source };
        let directory = self.endpoint_directory(name);
        // The device may have been made anew under the same name.
        if self.endpoints.get(name).is_some_and(|attached| attached.id != id) {
            self.endpoints.remove(name);
            remove_pins(&directory).map_err(failed)?;
        }
        fs::create_dir_all(&directory)
            .map_err(|source| failed(LinkFailure::File { path: directory.clone(), source }))?;
        let mut links = self.endpoints.remove(name).map_or_else(Vec::new, |attached| attached.links);
        let mut result = Ok(id);
        for (hook, place) in HOOKS {
            if links.iter().any(|(linked, _)| *linked == hook) {
                continue;
            }
            match attach(ebpf, hook, interface, place, &directory.join(hook)) {
                Ok(link) => links.push((hook, link)),
                Err(source) => result = Err(failed(source)),
            }
        }
        if links.is_empty() {
            // Nothing to remember; the empty directory means nothing either.
            let _ = fs::remove_dir(&directory);
        } else {
            self.endpoints.insert(name.clone(), Attached { id, links });
        }
        result
    }

    pub(super) fn detach(&mut self, name: &Name) -> Result<(), AttachError> {
        if !self.endpoints.contains_key(name) {
            return Err(AttachError::NotAttached { name: name.clone() });
        }
        let directory = self.endpoint_directory(name);
        remove_pins(&directory).map_err(|source| AttachError::Link { name: name.clone(), source })?;
        // Closing the last descriptor takes the programs off.
        self.endpoints.remove(name);
        Ok(())
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
        let directory = self.endpoint_directory(name);
        HOOKS.iter().any(|(hook, _)| matches!(system::linked_interface(&directory.join(hook)), Ok(Some(_))))
    }

    fn endpoint_directory(&self, name: &Name) -> PathBuf {
        self.directory.join(pin_name(name))
    }
}

/// The endpoint whose pins are in a directory; none (and no pins any more) if its device is gone.
fn adopt(ebpf: &mut Ebpf, directory: &Path) -> Result<Option<Attached>, LinkFailure> {
    let mut adopted: Option<Attached> = None;
    for (hook, _) in HOOKS {
        let pin = directory.join(hook);
        let interface = match system::linked_interface(&pin) {
            Ok(interface) => interface,
            Err(source) if source.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(LinkFailure::File { path: pin, source }),
        };
        let Some(interface) = interface else { continue };
        let link = SchedClassifierLink::try_from(FdLink::from(PinnedLink::from_pin(&pin)?))?;
        let program = program(ebpf, hook)?;
        let replaced = program.attach_to_link(link)?;
        let link = FdLink::try_from(program.take_link(replaced)?)?;
        adopted
            .get_or_insert_with(|| Attached { id: EndpointId(interface), links: Vec::new() })
            .links
            .push((hook, link));
    }
    if adopted.is_none() {
        remove_pins(directory)?;
    }
    Ok(adopted)
}

/// Attaches before every other program on the device, so that none can let a packet pass unjudged, and pins the link.
fn attach(
    ebpf: &mut Ebpf,
    hook: &'static str,
    interface: &str,
    place: TcAttachType,
    pin: &Path,
) -> Result<FdLink, LinkFailure> {
    let program = program(ebpf, hook)?;
    let attached = program.attach_with_options(interface, place, TcAttachOptions::TcxOrder(LinkOrder::first()))?;
    let link = FdLink::try_from(program.take_link(attached)?)?;
    Ok(FdLink::from(link.pin(pin)?))
}

fn program<'a>(ebpf: &'a mut Ebpf, hook: &'static str) -> Result<&'a mut SchedClassifier, LinkFailure> {
    match classifier(ebpf, hook) {
        Ok(program) => Ok(program),
        Err(OpenError::Program { source, .. }) => Err(LinkFailure::Attach { source }),
        Err(_) => Err(LinkFailure::Attach { source: aya::programs::ProgramError::NotLoaded }),
    }
}

fn remove_pins(directory: &Path) -> Result<(), LinkFailure> {
    match fs::remove_dir_all(directory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LinkFailure::File { path: directory.to_owned(), source })
        }
        _ => Ok(()),
    }
}
