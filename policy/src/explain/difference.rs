//! Which verdicts differ between two sets of policies.
//!
//! Parties that no selector tells apart are asked about once, so that the work grows with what policies distinguish and
//! not with the square of the mesh.

use super::{
    Party,
    classes::{PROTOCOLS, classes, cuts},
};
use crate::{
    evaluate::{Conflict, Decision, SubjectPolicy},
    flow::{Direction, Flow},
    object::Object,
    world::{Settings, World},
};

/// Flows that are decided differently: from the view of one subject, or of several alike, and a range of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Indices of the subjects in the parties given: those whom no rule tells apart.
    pub subjects: Vec<usize>,
    /// Indices of the peers, in the same way. Nobody is meant as the peer of itself.
    pub peers: Vec<usize>,
    /// Seen from the subject.
    pub direction: Direction,
    /// IP protocol number.
    pub protocol: u8,
    /// The first port or message type.
    pub first: u16,
    /// The last one.
    pub last: u16,
    /// What the old objects say.
    pub before: Result<Decision, Conflict>,
    /// What the new ones say.
    pub after: Result<Decision, Conflict>,
}

/// Every difference between two sets of objects, over all pairs of subjects and peers, both directions, every port of
/// every protocol. Neighbouring ports with the same outcome are one difference. `subjects` and `peers` are indices of
/// `parties`.
#[must_use]
pub fn differences(
    settings: &Settings,
    world: &World,
    before: &[Object],
    after: &[Object],
    parties: &[Party],
    subjects: &[usize],
) -> Vec<Difference> {
    let cuts = PROTOCOLS.map(|number| cuts(world, number, before.iter().chain(after)));
    let classes = classes(settings, world, before.iter().chain(after), parties);
    let mut differences: Vec<Difference> = Vec::new();
    for members in &classes {
        let own: Vec<usize> = members.iter().copied().filter(|party| subjects.contains(party)).collect();
        let Some(subject) = own.first().map(|first| &parties[*first]) else { continue };
        let resolve = |objects: &[Object]| {
            let rules = objects.iter().flat_map(|object| &object.rules);
            SubjectPolicy::resolve(settings, world, rules, subject.identity, &subject.labels)
        };
        let policies = [resolve(before), resolve(after)];
        for peers in classes.iter().filter(|peers| own.len() > 1 || peers.iter().any(|peer| *peer != own[0])) {
            for direction in [Direction::Ingress, Direction::Egress] {
                let sides = (own.as_slice(), peers.as_slice());
                compare(&policies, parties, sides, direction, &cuts, &mut differences);
            }
        }
    }
    differences
}

/// Every port of every protocol between subjects and peers that are alike.
fn compare(
    policies: &[Result<SubjectPolicy, Conflict>; 2],
    parties: &[Party],
    (subjects, peers): (&[usize], &[usize]),
    direction: Direction,
    cuts: &[Vec<(u16, u16)>; PROTOCOLS.len()],
    differences: &mut Vec<Difference>,
) {
    let (subject, peer) = (&parties[subjects[0]], &parties[peers[0]]);
    for (protocol, cuts) in PROTOCOLS.into_iter().zip(cuts) {
        for (first, last) in cuts.iter().copied() {
            let flow = Flow { subject: subject.identity, peer: peer.identity, direction, protocol, port: first };
            let [before, after] = [&policies[0], &policies[1]].map(|policy| match policy {
                Ok(policy) => Ok(policy.decide(&flow, &peer.labels)),
                Err(conflict) => Err(*conflict),
            });
            if before != after {
                let (subjects, peers) = (subjects.to_vec(), peers.to_vec());
                push(differences, Difference { subjects, peers, direction, protocol, first, last, before, after });
            }
        }
    }
}

/// Neighbouring ports with the same outcome are one.
fn push(differences: &mut Vec<Difference>, found: Difference) {
    if let Some(last) = differences.last_mut() {
        let same = Difference { first: last.first, last: found.last, ..found.clone() };
        if last.last.checked_add(1) == Some(found.first) && *last == (Difference { last: last.last, ..same.clone() }) {
            *last = same;
            return;
        }
    }
    differences.push(found);
}
