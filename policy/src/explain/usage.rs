//! Which selectors policies use, and whom they select.

use std::collections::BTreeMap;

use super::place::{Place, Places, list};
use crate::{
    evaluate::{Requirements, selectors},
    flow::Direction,
    object::Object,
    rule::{Section, Subject},
    selector::Selector,
    world::{Settings, World},
};

/// One selector and where it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorUse {
    /// The selector, with everything that was added to it.
    pub selector: Selector,
    /// Where it chooses subjects.
    pub subjects: Vec<Place>,
    /// Where it chooses peers.
    pub peers: Vec<Place>,
}

/// Every selector of some objects, once, in order.
#[must_use]
pub fn selector_uses(settings: &Settings, world: &World, objects: &[Object]) -> Vec<SelectorUse> {
    let places = Places::of(objects);
    let mut uses: BTreeMap<Selector, SelectorUse> = BTreeMap::new();
    let mut of = |selector: Selector, place: Place, subject: bool| {
        let found = uses.entry(selector.clone()).or_insert_with(|| SelectorUse {
            selector,
            subjects: Vec::new(),
            peers: Vec::new(),
        });
        let list = if subject { &mut found.subjects } else { &mut found.peers };
        if !list.contains(&place) {
            list.push(place);
        }
    };
    for (object, rules) in objects.iter().enumerate().map(|(index, object)| (index, &object.rules)) {
        for (index, rule) in rules.iter().enumerate() {
            let (Subject::Endpoints(selector) | Subject::Nodes(selector)) = &rule.subject;
            of(selector.clone(), places.rule(object, index), true);
            for direction in [Direction::Ingress, Direction::Egress] {
                let section: &Section = rule.section(direction);
                for denies in [false, true] {
                    // What other rules require is added for each subject: not here.
                    let requirements = Requirements::of(&[section], denies);
                    for (at, element) in list(section, denies).unwrap_or_default().iter().enumerate() {
                        for selector in selectors(settings, world, element, denies, &requirements) {
                            of(selector, places.element((object, index), direction, denies, at), false);
                        }
                    }
                }
            }
        }
    }
    uses.into_values().collect()
}
