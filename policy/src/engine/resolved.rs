//! What all rules together say about subjects that are alike.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use super::{
    bands::Bands,
    effective::{Effective, each_slot, keys},
    entry::{Class, Outcome, PortForm, Ports},
    selectors::SelectorId,
};
use crate::flow::Direction;

/// A policy, resolved.
#[derive(Debug)]
pub struct Resolved {
    /// None if the direction is not enforced.
    pub(super) ingress: Option<Bands>,
    pub(super) egress: Option<Bands>,
    /// Selectors that were acquired for this policy alone.
    pub(super) held: Vec<SelectorId>,
}

/// Entries by slot; `None` stands for any peer.
pub(super) type SlotEntry = (Direction, Ports, Option<u32>);

/// How entries differ.
#[derive(Debug, Default)]
pub(super) struct SlotDiff {
    pub(super) put: Vec<(SlotEntry, Class)>,
    pub(super) removed: Vec<SlotEntry>,
}

const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

impl Resolved {
    /// Whether a direction is enforced.
    #[must_use]
    pub const fn enforces(&self, direction: Direction) -> bool {
        self.bands(direction).is_some()
    }

    /// How many intervals of ports it speaks of.
    #[must_use]
    pub fn interval_count(&self) -> usize {
        [&self.ingress, &self.egress].into_iter().flatten().map(|bands| bands.bands.len()).sum()
    }

    pub(super) const fn bands(&self, direction: Direction) -> Option<&Bands> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }

    /// What is decided about a flow with the peer of a slot; none for a peer without one.
    pub(super) fn lookup(&self, direction: Direction, slot: Option<u32>, protocol: u8, port: u16) -> Outcome {
        match self.bands(direction) {
            None => Outcome::Allow, // SEM-1
            Some(bands) => Outcome::of(bands.class(slot, protocol, port)),
        }
    }

    /// Calls a function with every entry: direction, ports, the peer's slot or none for any peer, and the class.
    pub(super) fn each_entry(&self, form: PortForm, mut found: impl FnMut(Direction, Ports, Option<u32>, Class)) {
        for direction in BOTH {
            for (ports, effective) in self.effective(direction, form) {
                if let Some(class) = effective.any {
                    found(direction, ports, None, class);
                }
                effective.each(|slot, class| found(direction, ports, Some(slot), class));
            }
        }
    }

    pub(super) fn count_entries(&self, form: PortForm) -> usize {
        let in_direction = |direction| self.effective(direction, form).map(|(_, effective)| effective.len());
        BOTH.into_iter().flat_map(in_direction).sum()
    }

    fn effective(&self, direction: Direction, form: PortForm) -> impl Iterator<Item = (Ports, Effective<'_>)> {
        let bands = self.bands(direction);
        let keys = bands.map_or_else(|| vec![Ports::EVERYTHING], |bands| keys(bands, form));
        keys.into_iter().map(move |ports| {
            let effective = bands.map_or_else(Effective::unenforced, |bands| Effective::of(bands, ports, form));
            (ports, effective)
        })
    }

    /// The entries of one peer that selectors select.
    pub(super) fn entries_of(&self, selecting: &[SelectorId], slot: u32) -> BTreeMap<SlotEntry, Class> {
        let mut entries = BTreeMap::new();
        for direction in BOTH {
            let Some(bands) = self.bands(direction) else { continue };
            each_slot(bands, selecting, slot, |ports, class| {
                entries.insert((direction, ports, Some(slot)), class);
            });
        }
        entries
    }

    /// Sets a slot in, or takes it out of, the bands that speak of selectors.
    pub(super) fn set(&mut self, selecting: &[SelectorId], slot: u32, selected: bool) {
        for bands in [&mut self.ingress, &mut self.egress].into_iter().flatten() {
            let naming = bands.naming(selecting);
            bands.set(&naming, slot, selected);
        }
    }

    /// How the entries of this policy lead to those of another one. Either may be missing, and has no entries then.
    pub(super) fn difference(before: Option<&Self>, after: Option<&Self>) -> SlotDiff {
        let mut diff = SlotDiff::default();
        for direction in BOTH {
            let [before, mut after] = [before, after].map(|policy| -> BTreeMap<Ports, Effective<'_>> {
                policy.into_iter().flat_map(|policy| policy.effective(direction, PortForm::Blocks)).collect()
            });
            for (ports, old) in &before {
                diff.add(direction, *ports, old, &after.remove(ports).unwrap_or_default());
            }
            for (ports, new) in &after {
                diff.add(direction, *ports, &Effective::default(), new);
            }
        }
        diff
    }
}

impl SlotDiff {
    fn add(&mut self, direction: Direction, ports: Ports, old: &Effective<'_>, new: &Effective<'_>) {
        match (old.any, new.any) {
            (before, after) if before == after => {}
            (_, Some(class)) => self.put.push(((direction, ports, None), class)),
            (_, None) => self.removed.push((direction, ports, None)),
        }
        if old.peers == new.peers {
            return;
        }
        let mut kept = RoaringBitmap::new();
        for class in Class::ALL {
            let (before, after) = (&*old.peers[class as usize], &*new.peers[class as usize]);
            self.put.extend((after - before).iter().map(|slot| ((direction, ports, Some(slot)), class)));
            kept |= after;
        }
        for gone in old.peers.iter().map(|before| &**before - &kept) {
            self.removed.extend(gone.iter().map(|slot| (direction, ports, Some(slot))));
        }
    }
}
