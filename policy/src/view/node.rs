//! One node's view, as bitmaps.

use std::collections::BTreeSet;

use roaring::RoaringBitmap;

use super::{Touched, Viewer, is_everywhere, peers::Peers};
use crate::{
    engine::{PeerSelectors, Reach},
    identity::Identity,
    label::LabelSet,
    name::Name,
    record::RecordKey,
};

/// What a node is shown, besides what all are shown.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The identities of its endpoints.
    subjects: BTreeSet<Identity>,
    /// The labels of its host.
    host: LabelSet,
    /// Of the rules that are applied to these.
    selectors: PeerSelectors,
    /// Whom these select, as identities' bits.
    selected: RoaringBitmap,
    /// Slots of endpoints that are shown.
    endpoints: RoaringBitmap,
    /// Bits of identities that are shown, if they have a record; selectors select reserved ones, too, which never have one.
    identities: RoaringBitmap,
}

impl View {
    pub(super) fn new(viewer: &Viewer, reach: &Reach, peers: &Peers) -> Self {
        let node = &viewer.node;
        let (subjects, host) = (peers.identities_on(node), peers.host(node));
        let mut view = Self { subjects, host, ..Self::default() };
        view.selectors = reach.peers(&view.subjects, &view.host);
        view.selected = reach.selected(&view.selectors);
        view.endpoints = peers.on_node(node) | peers.always() | peers.claiming(&viewer.addresses);
        for identity in &view.selected {
            view.endpoints |= peers.of_identity(Identity::from_bits(identity));
        }
        let worn = view.endpoints.iter().filter_map(|slot| peers.identity(slot));
        view.identities = &view.selected | worn.map(Identity::bits).collect::<RoaringBitmap>();
        view
    }

    /// Moves on; the keys of identities and endpoints that came, changed or went.
    pub(super) fn advance(
        &mut self,
        viewer: &Viewer,
        touched: &Touched,
        reach: &Reach,
        peers: &Peers,
    ) -> Vec<RecordKey> {
        let flipped = self.select(&viewer.node, touched, reach, peers);
        let mut candidates = touched.endpoints.clone();
        for identity in &flipped {
            candidates |= peers.of_identity(Identity::from_bits(identity));
        }
        let mut keys = Vec::new();
        let mut identities = flipped;
        identities.extend(touched.identities.iter().chain(&touched.worn).map(|identity| identity.bits()));
        for slot in &candidates {
            let (before, after) = (self.endpoints.contains(slot), self.needs(viewer, slot, peers));
            if before != after || after && touched.changed.contains(slot) {
                keys.push(peers.key(slot).clone());
            }
            if after {
                self.endpoints.insert(slot)
            } else {
                self.endpoints.remove(slot)
            };
            identities.extend(peers.identity(slot).map(Identity::bits));
        }
        for bits in &identities {
            let identity = Identity::from_bits(bits);
            let worn = !peers.of_identity(identity).is_disjoint(&self.endpoints);
            let (before, after) = (self.identities.contains(bits), worn || self.selected.contains(bits));
            if before != after || after && touched.identities.contains(&identity) {
                keys.push(RecordKey::Identity(identity));
            }
            if after {
                self.identities.insert(bits)
            } else {
                self.identities.remove(bits)
            };
        }
        keys
    }

    pub(super) fn shows(&self, key: &RecordKey, peers: &Peers) -> bool {
        match key {
            RecordKey::Identity(identity) => self.identities.contains(identity.bits()),
            RecordKey::Endpoint(..) => peers.slot(key).is_some_and(|slot| self.endpoints.contains(slot)),
            other => is_everywhere(other),
        }
    }

    /// Of the identities and endpoints that are shown.
    pub(super) fn keys<'v>(&'v self, peers: &'v Peers) -> impl Iterator<Item = RecordKey> + 'v {
        let identities = self.identities.iter().map(|bits| RecordKey::Identity(Identity::from_bits(bits)));
        identities.chain(self.endpoints.iter().map(|slot| peers.key(slot).clone()))
    }

    /// Brings to whom the rules speak of now; who is selected that was not, and the other way round.
    fn select(&mut self, node: &Name, touched: &Touched, reach: &Reach, peers: &Peers) -> RoaringBitmap {
        let mut stale = false;
        if touched.nodes.contains(node) {
            let subjects = peers.identities_on(node);
            let host = peers.host(node);
            stale = subjects != self.subjects || host != self.host;
            (self.subjects, self.host) = (subjects, host);
        }
        stale |= touched.identities.iter().any(|identity| self.subjects.contains(identity));
        stale |= touched.subjects.iter().any(|rule| {
            let selects_host = rule.selects(Identity::HOST, &self.host);
            let mut subjects = self.subjects.iter();
            selects_host
                || subjects.any(|subject| reach.labels(*subject).is_some_and(|labels| rule.selects(*subject, labels)))
        });
        if stale {
            self.selectors = reach.peers(&self.subjects, &self.host);
            let selected = reach.selected(&self.selectors);
            return std::mem::replace(&mut self.selected, selected) ^ &self.selected;
        }
        let mut flipped = RoaringBitmap::new();
        for identity in &touched.identities {
            let bits = identity.bits();
            if reach.selects(&self.selectors, *identity) != self.selected.contains(bits) {
                flipped.insert(bits);
            }
        }
        self.selected ^= &flipped;
        flipped
    }

    fn needs(&self, viewer: &Viewer, slot: u32, peers: &Peers) -> bool {
        let Some(identity) = peers.identity(slot) else { return false };
        peers.on_node(&viewer.node).contains(slot)
            || peers.always().contains(slot)
            || self.selected.contains(identity.bits())
            || peers.claims_any(slot, &viewer.addresses)
    }
}
