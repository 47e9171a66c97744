//! What the policies of subjects depend on: subjects that are alike in it share one policy.

use super::{
    Engine, Subject,
    bands::Bands,
    resolved::{Resolved, Unresolvable},
    rules::{OwnNames, RuleId},
    selectors::{FAILSAFE, HOST_ITSELF},
    terms::{Context, Ports, Term, Terms},
};
use crate::{
    evaluate::{Enforced, consistent, enforced},
    flow::Direction,
    identity::Identity,
    label::{LabelSet, SOURCE_RESERVED},
    rule::{Rule, Section},
    tables::Class,
    world::World,
};

/// What a subject's policy is resolved from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    /// Those that select it and count, in order.
    pub(super) rules: Vec<RuleId>,
    /// What they call its own ports.
    names: OwnNames,
    /// It is the node itself (SEM-10).
    host: bool,
    /// It has no labels yet (SEM-9).
    init: bool,
}

/// The shapes of one subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shapes {
    pub(super) policy: Shape,
    /// With the rules under audit; none without any.
    pub(super) shadow: Option<Shape>,
}

impl Engine {
    /// Of a subject whose labels are known.
    pub(super) fn shapes(&self, subject: &Subject) -> Option<Shapes> {
        let labels = self.population.labels(subject.identity)?;
        let init = labels.get("init").is_some_and(|label| label.source == SOURCE_RESERVED);
        let all = self.rules.selecting(subject.identity, labels);
        let audited = |number: &RuleId| self.rules.get(*number).is_some_and(|known| known.rule.audit);
        let counting: Vec<RuleId> = all.iter().copied().filter(|number| !audited(number)).collect();
        let world = World { own_ports: subject.named_ports.iter().cloned().collect(), ..World::default() };
        let shape = |rules: Vec<RuleId>| {
            let names = self.rules.own_names(&rules, &world);
            Shape { rules, names, host: subject.identity == Identity::HOST, init }
        };
        let shadow = (counting.len() < all.len()).then(|| shape(all));
        Some(Shapes { policy: shape(counting), shadow })
    }

    /// The policy of a shape that a subject has, from selectors that are known already as far as they are.
    ///
    /// # Errors
    /// `Unresolvable`; what was acquired for it is released.
    pub(super) fn resolve(&mut self, subject: &Subject, shape: &Shape) -> Result<Resolved, Unresolvable> {
        let known: Vec<_> = shape.rules.iter().filter_map(|number| self.rules.get(*number)).collect();
        let unknown = LabelSet::default();
        let labels = self.population.labels(subject.identity).unwrap_or(&unknown);
        let world = World { own_ports: subject.named_ports.iter().cloned().collect(), ..self.world.clone() };
        let rules: Vec<&Rule> = known.iter().map(|known| &known.rule).collect();
        if known.iter().any(|known| known.can_conflict) {
            consistent(&self.settings, &world, &rules, subject.identity, labels)?;
        }
        let requires = known.iter().any(|known| known.requires);
        let enforced = [Direction::Ingress, Direction::Egress].map(|direction| {
            let sections: Vec<&Section> = rules.iter().map(|rule| rule.section(direction)).collect();
            enforced(&self.settings, subject.identity, labels, &sections)
        });
        let mut held = Vec::new();
        let [ingress, egress] =
            [(Direction::Ingress, enforced[0]), (Direction::Egress, enforced[1])].map(|(direction, enforced)| {
                // REQ-1, PORT-4: what rules say is not what each of them says alone.
                let together = requires || direction == Direction::Ingress && !shape.names.is_empty();
                let world = together.then_some(&world);
                self.direction(direction, enforced, shape, world, &mut held)
            });
        match (ingress, egress) {
            (Ok(ingress), Ok(egress)) => Ok(Resolved { ingress, egress, held }),
            (Err(reason), _) | (_, Err(reason)) => {
                held.into_iter().for_each(|selector| self.selectors.release(selector));
                Err(reason)
            }
        }
    }

    fn direction(
        &mut self,
        direction: Direction,
        enforced: Enforced,
        shape: &Shape,
        together_in: Option<&World>,
        held: &mut Vec<u32>,
    ) -> Result<Bands, Unresolvable> {
        if enforced == Enforced::No {
            return Ok(Bands::open()); // SEM-1, SEM-10
        }
        let mut terms = match together_in {
            Some(world) => self.together(direction, shape, world),
            None => self.alone(direction, shape),
        };
        let allow = |peers: Option<u32>| Term { ports: Ports::EVERYTHING, class: Class::Allow, peers };
        if enforced == Enforced::Open {
            terms.list.push(allow(None)); // SEM-5
        }
        if direction == Direction::Ingress && self.settings.allow_localhost && !shape.host {
            terms.list.push(allow(Some(HOST_ITSELF))); // SEM-50
        }
        for peers in terms.list.iter().filter_map(|term| term.peers) {
            self.selectors.ensure(peers, &self.population);
        }
        if direction == Direction::Ingress && shape.host {
            let ports = self.settings.failsafe.iter();
            let ports = ports.map(|(protocol, port)| Ports { protocol: *protocol, first: *port, last: *port });
            let term = |ports| Term { ports, class: Class::Allow, peers: Some(FAILSAFE) };
            terms.list.extend(ports.map(term));
        }
        terms.list.sort_unstable();
        terms.list.dedup();
        held.append(&mut terms.held);
        Ok(Bands::new(&terms.list)?)
    }

    fn alone(&self, direction: Direction, shape: &Shape) -> Terms {
        let known = shape.rules.iter().filter_map(|number| self.rules.get(*number));
        let list = known.flat_map(|known| &known.terms[direction as usize].list).copied().collect();
        Terms { list, held: Vec::new() }
    }

    /// What the elements say with the requirements of all of them, and with the subject's own names.
    fn together(&mut self, direction: Direction, shape: &Shape, world: &World) -> Terms {
        let required = self.rules.requirements(&shape.rules, direction);
        let context = Context { settings: &self.settings, world, population: &self.population };
        let mut terms = Terms::default();
        for known in shape.rules.iter().filter_map(|number| self.rules.get(*number)) {
            context.add(direction, known.rule.section(direction), &required, &mut self.selectors, &mut terms);
        }
        terms
    }
}
