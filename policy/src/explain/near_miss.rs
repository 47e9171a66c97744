//! The element that comes nearest to allowing a flow.

use super::{
    matching::{Candidate, Candidates},
    place::Place,
    text::{describe_ports, describe_requirement, describe_selector},
};
use crate::{
    flow::Flow,
    label::LabelSet,
    selector::{Requirement, Selector},
};

/// How many requirements are named.
const MAX_NAMED: usize = 4;
/// Worse than any number of labels that differ.
const BOTH_DIFFER: usize = 1_000;

/// An element that would allow a flow if it were a little different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// Where it is.
    pub place: Place,
    /// What it wants, after the word "wants": `port 8080/TCP`, `a peer with k8s:app=web`.
    pub wants: String,
}

impl Candidates<'_> {
    /// The nearest element: one for other ports of this peer, then one for these ports of a peer with few other labels.
    pub(super) fn nearest(&self, flow: &Flow, peer: &LabelSet) -> Option<NearMiss> {
        let distance = |candidate: &&Candidate<'_>| {
            let ports = self.covering(candidate, flow).is_some();
            if self.speaks_of(candidate, flow, peer) {
                return 0;
            }
            let labels = closest(candidate, peer).map_or(BOTH_DIFFER / 2, |(_, missing)| missing.len());
            labels + if ports { 0 } else { BOTH_DIFFER }
        };
        let nearest = self.allowing().filter(|candidate| !candidate.selectors.is_empty()).min_by_key(distance)?;
        let mut wants = Vec::new();
        if !self.speaks_of(nearest, flow, peer) {
            wants.push(describe_peer(nearest, peer));
        }
        if self.covering(nearest, flow).is_none() {
            wants.push(describe_ports(nearest.element.ports.as_deref().unwrap_or_default()));
        }
        Some(NearMiss { place: self.place(nearest, flow.direction), wants: wants.join(" and ") })
    }
}

/// The selector that misses the fewest labels, with what it misses.
fn closest<'e>(candidate: &'e Candidate<'_>, peer: &LabelSet) -> Option<(&'e Selector, Vec<&'e Requirement>)> {
    let missing = |selector: &'e Selector| -> Vec<&'e Requirement> {
        selector.requirements().filter(|requirement| !requirement.matches(peer)).collect()
    };
    let all = candidate.selectors.iter().map(|selector| (selector, missing(selector)));
    all.min_by_key(|(_, missing)| missing.len())
}

fn describe_peer(candidate: &Candidate<'_>, peer: &LabelSet) -> String {
    let Some((selector, missing)) = closest(candidate, peer) else { return "another peer".to_owned() };
    if missing.is_empty() {
        return format!("a peer that is known, with {}", describe_selector(selector));
    }
    let mut texts: Vec<String> = missing.iter().take(MAX_NAMED).map(|missing| describe_requirement(missing)).collect();
    if missing.len() > MAX_NAMED {
        texts.push(format!("{} more", missing.len() - MAX_NAMED));
    }
    format!("a peer with {}", texts.join(", "))
}
