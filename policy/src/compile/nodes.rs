//! Other nodes as peers. Their labels count only while a policy asks for nodes: until then they are all `remote-node`, and a
//! policy that means that has one row for them (ID-11, ID-24).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{addresses::Addresses, ranges::IdentityChanges};
use crate::{
    identity::Identity,
    label::{Label, LabelSet, SOURCE_NODE},
    record::{Node, RecordKey},
    reserved::reserved_labels,
    tables::AddressEntry,
};

/// Local identities from here on are those of nodes.
const FIRST: u32 = 1 << 19;

/// The other nodes of the mesh.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    known: BTreeMap<RecordKey, Known>,
    /// How many objects ask for nodes by their labels.
    askers: usize,
    /// With how many nodes have it.
    identities: BTreeMap<LabelSet, (Identity, usize)>,
    /// What addresses stood for in tables that were there before (ID-17).
    in_force: BTreeMap<IpAddr, Identity>,
    last: u32,
}

#[derive(Debug)]
struct Known {
    addresses: Vec<IpAddr>,
    /// As a peer's; empty if it has none.
    labels: LabelSet,
}

impl Nodes {
    pub(super) fn new(in_force: &BTreeMap<IpAddr, AddressEntry>) -> Self {
        let of_nodes = in_force.iter().filter(|(_, entry)| entry.identity.is_local());
        Self { in_force: of_nodes.map(|(address, entry)| (*address, entry.identity)).collect(), ..Self::default() }
    }

    pub(super) fn put(&mut self, node: &Node, addresses: &mut Addresses, changes: &mut IdentityChanges) {
        let key = RecordKey::Node(node.cluster.clone(), node.name.clone());
        let own = node.labels.iter().map(|label| Label::new(SOURCE_NODE, label.key.as_str(), label.value.as_str()));
        // What is built in comes last, so that no label of that name replaces it (LBL-6).
        let built_in = reserved_labels(Identity::REMOTE_NODE);
        let labels =
            if node.labels.is_empty() { LabelSet::default() } else { own.chain(built_in.iter().cloned()).collect() };
        self.known.insert(key.clone(), Known { addresses: node.addresses.clone(), labels });
        self.claim(&key, addresses, changes);
    }

    pub(super) fn remove(&mut self, node: &Node, addresses: &mut Addresses, changes: &mut IdentityChanges) {
        let key = RecordKey::Node(node.cluster.clone(), node.name.clone());
        if let Some(known) = self.known.remove(&key) {
            addresses.give_up(&key, &known.addresses);
            self.release(&known.labels, changes);
        }
    }

    /// Another object asks for nodes by their labels, or one does no more.
    pub(super) fn ask(&mut self, more: bool, addresses: &mut Addresses, changes: &mut IdentityChanges) {
        let before = self.askers;
        self.askers = if more { before + 1 } else { before - 1 };
        if (before == 0) == (self.askers == 0) {
            return;
        }
        let keys: Vec<RecordKey> = self.known.keys().cloned().collect();
        if self.askers == 0 {
            std::mem::take(&mut self.identities).into_values().for_each(|(identity, _)| changes.remove(identity));
        }
        keys.iter().for_each(|key| self.claim(key, addresses, changes));
    }

    fn claim(&mut self, key: &RecordKey, addresses: &mut Addresses, changes: &mut IdentityChanges) {
        let Some(Known { addresses: own, labels }) = self.known.get(key) else { return };
        let identity = if self.askers == 0 || labels.is_empty() {
            Identity::REMOTE_NODE
        } else {
            let before = own.iter().find_map(|address| self.in_force.get(address)).copied();
            acquire(&mut self.identities, &mut self.last, &self.in_force, labels, before, changes)
        };
        addresses.claim(key, own, identity, None);
    }

    fn release(&mut self, labels: &LabelSet, changes: &mut IdentityChanges) {
        if let Some((identity, users)) = self.identities.get_mut(labels) {
            *users -= 1;
            if *users == 0 {
                changes.remove(*identity);
                self.identities.remove(labels);
            }
        }
    }
}

/// The number of a label set: what one of its nodes stood for `before`, or one that nothing stands for and that was not given
/// for long.
fn acquire(
    identities: &mut BTreeMap<LabelSet, (Identity, usize)>,
    last: &mut u32,
    in_force: &BTreeMap<IpAddr, Identity>,
    labels: &LabelSet,
    before: Option<Identity>,
    changes: &mut IdentityChanges,
) -> Identity {
    if let Some((identity, users)) = identities.get_mut(labels) {
        *users += 1;
        return *identity;
    }
    let taken: BTreeSet<Identity> = identities.values().map(|(identity, _)| *identity).collect();
    let free = before.filter(|identity| !taken.contains(identity));
    let identity = free.unwrap_or_else(|| {
        let in_force: BTreeSet<Identity> = in_force.values().copied().collect();
        loop {
            *last = (*last + 1) % FIRST;
            let identity = Identity::local(FIRST + *last).expect("at most the largest number");
            if !taken.contains(&identity) && !in_force.contains(&identity) {
                return identity;
            }
        }
    });
    changes.put(identity, labels.clone());
    identities.insert(labels.clone(), (identity, 1));
    identity
}
