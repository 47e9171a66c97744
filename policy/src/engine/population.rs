//! Everyone who can be a peer, by slot.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::label_index::LabelIndex;
use crate::{identity::Identity, label::LabelSet};

/// The slot of the host, which is there from the beginning and stays.
pub(super) const HOST_SLOT: u32 = 0;

/// Identities with dense slots, which are used again once they are free.
#[derive(Debug, Default)]
pub(super) struct Population {
    slots: HashMap<Identity, u32, BuildHasherDefault<Spread>>,
    members: Vec<Member>,
    free: Vec<u32>,
    pub(super) index: LabelIndex,
}

/// Who has a slot.
#[derive(Debug)]
struct Member {
    identity: Identity,
    /// None for a slot that is free.
    labels: Option<LabelSet>,
}

/// Spreads identities, which are small numbers in a row, over a table. They come from allocators, not from users, so
/// nobody chooses them to collide.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, bits: u32) {
        self.0 = (self.0 ^ u64::from(bits)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

impl Population {
    /// The slot of a new identity.
    pub(super) fn add(&mut self, identity: Identity, labels: LabelSet) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.members.push(Member { identity, labels: None });
            u32::try_from(self.members.len() - 1).expect("there are at most 2^32 identities")
        });
        self.index.add(slot, &labels);
        self.members[slot as usize] = Member { identity, labels: Some(labels) };
        self.slots.insert(identity, slot);
        slot
    }

    /// Forgets an identity. Its slot may not be used before every bitmap has forgotten it.
    pub(super) fn remove(&mut self, identity: Identity) {
        let Some(slot) = self.slots.remove(&identity) else { return };
        if let Some(labels) = self.members[slot as usize].labels.take() {
            self.index.remove(slot, &labels);
        }
        self.free.push(slot);
    }

    pub(super) fn slot(&self, identity: Identity) -> Option<u32> {
        self.slots.get(&identity).copied()
    }

    pub(super) fn labels(&self, identity: Identity) -> Option<&LabelSet> {
        self.labels_at(self.slot(identity)?)
    }

    pub(super) fn labels_at(&self, slot: u32) -> Option<&LabelSet> {
        self.members.get(slot as usize)?.labels.as_ref()
    }

    /// Every slot is below.
    pub(super) fn slot_count(&self) -> usize {
        self.members.len()
    }

    /// Of a slot in use.
    pub(super) fn identity(&self, slot: u32) -> Identity {
        self.members[slot as usize].identity
    }
}
