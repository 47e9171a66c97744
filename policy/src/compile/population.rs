//! Everyone who can be a peer, with labels.

use std::{borrow::Cow, collections::BTreeMap};

use crate::{
    identity::Identity,
    label::LabelSet,
    mesh::Mesh,
    reserved::{RESERVED_PEERS, reserved_labels},
    selector::Selector,
};

/// The identities of a mesh and the reserved ones. `unknown` is not among them: only wildcards select it.
pub(super) struct Population<'mesh>(BTreeMap<Identity, Cow<'mesh, LabelSet>>);

impl<'mesh> Population<'mesh> {
    pub(super) fn of(mesh: &'mesh Mesh) -> Self {
        let endpoints = mesh.endpoints().map(|endpoint| (endpoint.identity, Cow::Borrowed(&endpoint.labels)));
        let identities = mesh.identities().map(|record| (record.identity, Cow::Borrowed(&record.labels)));
        let reserved = RESERVED_PEERS.into_iter().map(|peer| (peer, Cow::Owned(reserved_labels(peer))));
        // The last one counts: a reserved number means the same everywhere, whatever a record says.
        let mut all: BTreeMap<_, _> = endpoints.chain(identities).chain(reserved).collect();
        all.remove(&Identity::UNKNOWN);
        Self(all)
    }

    pub(super) fn labels(&self, identity: Identity) -> Option<&LabelSet> {
        self.0.get(&identity).map(Cow::as_ref)
    }

    /// The identities a selector selects.
    pub(super) fn select(&self, selector: &Selector) -> Vec<Identity> {
        let selected = self.0.iter().filter(|(identity, labels)| selector.selects(**identity, labels));
        selected.map(|(identity, _)| *identity).collect()
    }
}
