//! The selectors of peers, each once, with whom it selects.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::{
    anchors::{Anchor, Anchors},
    label_index::{is_exact, is_positive},
    population::{HOST_SLOT, Population},
};
use crate::{identity::Identity, label::LabelSet, reserved::reserved_labels, selector::Selector};

/// The number of a selector.
pub(super) type SelectorId = u32;

/// Whatever selects exactly the host (SEM-50), whatever its labels are.
pub(super) const HOST_ITSELF: SelectorId = 0;

/// Stands for everyone on the node's ports that no rule closes; it is no selector.
pub(super) const FAILSAFE: SelectorId = SelectorId::MAX;

/// Selectors by number.
#[derive(Debug)]
pub(super) struct Selectors {
    dual_stack: bool,
    numbers: HashMap<Selector, SelectorId>,
    known: Vec<Option<Known>>,
    free: Vec<SelectorId>,
    anchors: Anchors,
    host: RoaringBitmap,
}

/// One selector.
#[derive(Debug)]
struct Known {
    selector: Selector,
    anchor: Anchor,
    /// How many elements of rules name it.
    users: usize,
    /// None until a policy needs it.
    selected: Option<RoaringBitmap>,
}

impl Selectors {
    pub(super) fn new(dual_stack: bool) -> Self {
        Self {
            dual_stack,
            numbers: HashMap::new(),
            known: vec![None],
            free: Vec::new(),
            anchors: Anchors::default(),
            host: RoaringBitmap::from_iter([HOST_SLOT]),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The number of a selector, which stays until it is released as often as it was acquired.
    pub(super) fn acquire(&mut self, selector: Selector, population: &Population) -> SelectorId {
        if let Some(number) = self.numbers.get(&selector) {
            if let Some(known) = &mut self.known[*number as usize] {
                known.users += 1;
            }
            return *number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.known.push(None);
            u32::try_from(self.known.len() - 1).expect("there are at most 2^32 selectors")
        });
        let anchor = Anchors::choose(&selector, &population.index);
        self.anchors.add(number, &anchor);
        self.numbers.insert(selector.clone(), number);
        self.known[number as usize] = Some(Known { selector, anchor, users: 1, selected: None });
        number
    }

    pub(super) fn release(&mut self, number: SelectorId) {
        let Some(known) = &mut self.known[number as usize] else { return };
        known.users -= 1;
        if known.users == 0
            && let Some(known) = self.known[number as usize].take()
        {
            self.anchors.remove(number, &known.anchor);
            self.numbers.remove(&known.selector);
            self.free.push(number);
        }
    }

    /// Looks for whom a selector selects, unless that is known.
    pub(super) fn ensure(&mut self, number: SelectorId, population: &Population) {
        let dual_stack = self.dual_stack;
        if let Some(known) = &mut self.known[number as usize]
            && known.selected.is_none()
        {
            known.selected = Some(select(&known.selector, dual_stack, population));
        }
    }

    /// The slots that a selector selects; none before `ensure`.
    pub(super) fn selected(&self, number: SelectorId) -> Option<&RoaringBitmap> {
        if number == HOST_ITSELF {
            return Some(&self.host);
        }
        self.known[number as usize].as_ref()?.selected.as_ref()
    }

    /// The selectors that select somebody, in order.
    pub(super) fn selecting(&self, slot: u32, identity: Identity, labels: &LabelSet) -> Vec<SelectorId> {
        let mut candidates = Vec::new();
        self.anchors.candidates(labels, &mut candidates);
        if self.dual_stack && is_world_family(identity) {
            self.anchors.candidates(&reserved_labels(Identity::WORLD), &mut candidates);
        }
        candidates.sort_unstable();
        candidates.dedup();
        let selects = |number: &SelectorId| {
            let known = self.known[*number as usize].as_ref();
            known.is_some_and(|known| selects(&known.selector, self.dual_stack, identity, labels))
        };
        candidates.retain(selects);
        if slot == HOST_SLOT {
            candidates.insert(0, HOST_ITSELF);
        }
        candidates
    }

    /// Somebody new, or no more, is selected by these.
    pub(super) fn set(&mut self, selecting: &[SelectorId], slot: u32, selected: bool) {
        for number in selecting {
            if let Some(known) = &mut self.known[*number as usize]
                && let Some(slots) = &mut known.selected
            {
                if selected {
                    slots.insert(slot)
                } else {
                    slots.remove(slot)
                };
            }
        }
    }
}

fn is_world_family(identity: Identity) -> bool {
    identity == Identity::WORLD_IPV4 || identity == Identity::WORLD_IPV6
}

fn selects(selector: &Selector, dual_stack: bool, identity: Identity, labels: &LabelSet) -> bool {
    if dual_stack { selector.selects(identity, labels) } else { selector.selects_labels(labels) }
}

/// The slots that a selector selects, from the label index.
fn select(selector: &Selector, dual_stack: bool, population: &Population) -> RoaringBitmap {
    let index = &population.index;
    let mut positive = Vec::new();
    let mut negative = Vec::new();
    for requirement in selector.requirements() {
        if is_positive(&requirement.condition) {
            positive.push((index.count(requirement), requirement));
        } else {
            negative.push(requirement);
        }
    }
    positive.sort_by_key(|(count, _)| *count);
    let mut positive = positive.into_iter();
    let mut slots = match positive.next() {
        Some((_, rarest)) => index.having(rarest),
        None => index.labelled().clone(),
    };
    for (count, requirement) in positive {
        if slots.is_empty() || count == 0 {
            return with_world_families(RoaringBitmap::new(), selector, dual_stack, population);
        }
        slots &= index.having(requirement);
    }
    for requirement in negative.into_iter().filter(|requirement| is_exact(requirement)) {
        slots -= index.having(requirement);
    }
    if !selector.requirements().all(is_exact) {
        let selected = |slot: &u32| population.labels_at(*slot).is_some_and(|labels| selector.selects_labels(labels));
        slots = slots.iter().filter(selected).collect();
    }
    with_world_families(slots, selector, dual_stack, population)
}

/// ID-15: what selects the world selects both of its families, by labels that they do not have.
fn with_world_families(
    mut slots: RoaringBitmap,
    selector: &Selector,
    dual_stack: bool,
    population: &Population,
) -> RoaringBitmap {
    for family in [Identity::WORLD_IPV4, Identity::WORLD_IPV6] {
        if let (Some(slot), Some(labels)) = (population.slot(family), population.labels(family))
            && selects(selector, dual_stack, family, labels)
        {
            slots.insert(slot);
        }
    }
    slots
}
