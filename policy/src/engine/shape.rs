//! What the policies of subjects depend on: subjects that are alike in it share one policy.

use super::{
    Engine,
    bands::Bands,
    entry::{Class, Ports},
    resolved::Resolved,
    rules::RuleId,
    selectors::HOST_ITSELF,
    terms::{Context, Term, Terms},
};
use crate::{
    evaluate::{Conflict, Enforced, SubjectPolicy, enforced},
    flow::Direction,
    identity::Identity,
    label::{LabelSet, SOURCE_RESERVED},
    rule::{Rule, Section},
};

/// What a subject's policy is resolved from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    /// Those that select it, in order.
    pub(super) rules: Vec<RuleId>,
    /// It is the node itself (SEM-10).
    host: bool,
    /// It has no labels yet (SEM-9).
    init: bool,
}

impl Engine {
    /// Of a subject whose labels are known.
    pub(super) fn shape(&self, subject: Identity) -> Option<Shape> {
        let labels = self.population.labels(subject)?;
        let init = labels.get("init").is_some_and(|label| label.source == SOURCE_RESERVED);
        let rules = self.rules.selecting(subject, labels);
        Some(Shape { rules, host: subject == Identity::HOST, init })
    }

    /// The policy of a subject, from selectors that are known already as far as they are.
    ///
    /// # Errors
    /// `Conflict` if the rules contradict each other.
    pub(super) fn resolve(&mut self, subject: Identity, shape: &Shape) -> Result<Resolved, Conflict> {
        let known: Vec<_> = shape.rules.iter().filter_map(|number| self.rules.get(*number)).collect();
        let unknown = LabelSet::default();
        let labels = self.population.labels(subject).unwrap_or(&unknown);
        if known.iter().any(|known| known.can_conflict) {
            let rules = known.iter().map(|known| &known.rule);
            SubjectPolicy::resolve(&self.settings, &self.world, rules, subject, labels)?;
        }
        let requires = known.iter().any(|known| known.requires);
        let rules: Vec<&Rule> = known.iter().map(|known| &known.rule).collect();
        let enforced = [Direction::Ingress, Direction::Egress].map(|direction| {
            let sections: Vec<&Section> = rules.iter().map(|rule| rule.section(direction)).collect();
            enforced(&self.settings, subject, labels, &sections)
        });
        let mut held = Vec::new();
        let [ingress, egress] = [(Direction::Ingress, enforced[0]), (Direction::Egress, enforced[1])]
            .map(|(direction, enforced)| self.direction(direction, enforced, shape, requires, &mut held));
        Ok(Resolved { ingress, egress, held })
    }

    fn direction(
        &mut self,
        direction: Direction,
        enforced: Enforced,
        shape: &Shape,
        requires: bool,
        held: &mut Vec<u32>,
    ) -> Option<Bands> {
        if enforced == Enforced::No {
            return None; // SEM-1, SEM-10
        }
        let mut terms = if requires { self.with_requirements(direction, shape) } else { self.alone(direction, shape) };
        let allow = |peers: Option<u32>| Term { ports: Ports::EVERYTHING, class: Class::Allow, peers };
        if enforced == Enforced::Open {
            terms.list.push(allow(None)); // SEM-5
        }
        if direction == Direction::Ingress && self.settings.allow_localhost && !shape.host {
            terms.list.push(allow(Some(HOST_ITSELF))); // SEM-50
        }
        terms.list.sort_unstable();
        terms.list.dedup();
        for peers in terms.list.iter().filter_map(|term| term.peers) {
            self.selectors.ensure(peers, &self.population);
        }
        held.append(&mut terms.held);
        Some(Bands::new(&terms.list, &self.selectors))
    }

    fn alone(&self, direction: Direction, shape: &Shape) -> Terms {
        let known = shape.rules.iter().filter_map(|number| self.rules.get(*number));
        let list = known.flat_map(|known| &known.terms[direction as usize].list).copied().collect();
        Terms { list, held: Vec::new() }
    }

    /// REQ-1: what the elements say with the requirements of all of them.
    fn with_requirements(&mut self, direction: Direction, shape: &Shape) -> Terms {
        let required = self.rules.requirements(&shape.rules, direction);
        let context = Context { settings: &self.settings, world: &self.world, population: &self.population };
        let mut terms = Terms::default();
        for known in shape.rules.iter().filter_map(|number| self.rules.get(*number)) {
            context.add(direction, known.rule.section(direction), &required, &mut self.selectors, &mut terms);
        }
        terms
    }
}
