//! The specification: short, slow, obviously right. Everything else is measured against it.
//!
//! ```text
//! rules ─ the subject's sections ─ enforced? ─► none: everything passes
//!                                     └► filters by (protocol, ports), selectors merged, or Conflict
//! filters + peer + port ─ lookup ─► Decision
//! ```
//!
//! All of it twice where objects under audit select the subject: without them for what is done, with them for what would
//! be (AUD-5). An endpoint or a node under audit refuses nothing, and says what it would have refused (AUD-1 … AUD-3).

mod decision;
mod filter;
mod lookup;
mod outcome;
mod peers;

pub use decision::{Decision, Redirect};
pub use filter::Conflict;
pub use outcome::Outcome;
pub(crate) use peers::{Requirements, selectors};

use std::collections::BTreeSet;

use filter::Filters;

use crate::{
    compat::Compat,
    flow::{Direction, Flow},
    identity::Identity,
    label::{LabelSet, SOURCE_RESERVED},
    name::Name,
    rule::{Rule, Section},
    selector::Selector,
    world::{Enforcement, Settings, World},
};

/// What all rules together say about one subject.
#[derive(Clone, Debug)]
pub struct SubjectPolicy {
    /// What the rules in force say.
    in_force: Directions,
    /// What those under audit say with them; none if none of them selects the subject (AUD-5).
    shadow: Option<Result<Directions, Conflict>>,
    /// The endpoint or its node is under audit (AUD-1).
    audit: bool,
}

/// Both directions of some rules; none if the direction is not enforced.
#[derive(Clone, Debug)]
struct Directions {
    ingress: Option<Filters>,
    egress: Option<Filters>,
    /// Ports of the node that no rule closes; none of any other subject.
    failsafe: BTreeSet<(u8, u16)>,
}

/// How rules for one subject contradict each other whatever else there is; none if they do not.
pub(crate) fn contradiction(rules: &[&Rule], direction: Direction) -> Option<Conflict> {
    let settings = Settings::new(Name::new("default").expect("it is a name"), Compat::Ringfence);
    let sections: Vec<&Section> = rules.iter().map(|rule| rule.section(direction)).collect();
    Filters::new(&settings, &World::default(), direction).add_sections(&sections).err()
}

/// Whether rules that select a subject make a policy, whether they are under audit or not.
///
/// # Errors
/// `Conflict` if they contradict each other.
pub(crate) fn consistent(
    settings: &Settings,
    world: &World,
    rules: &[&Rule],
    subject: Identity,
    labels: &LabelSet,
) -> Result<(), Conflict> {
    Directions::resolve(settings, world, rules, subject, labels).map(drop)
}

/// How a direction of a subject is enforced (SEM-1 … SEM-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enforced {
    /// Everything passes.
    No,
    /// What nothing allows is refused.
    Yes,
    /// What nothing denies passes (SEM-5).
    Open,
}

/// The decision about a flow under all rules of all objects that are in force; kind, name, order and age of objects never matter (SEM-40,
/// SEM-42).
///
/// `subject` and `peer` are the label sets of `flow.subject` and `flow.peer`. A peer without labels is `unknown`.
///
/// # Errors
/// `Conflict` if the rules contradict each other for this subject: there is no policy for it then.
pub fn evaluate<'a>(
    settings: &Settings,
    world: &World,
    rules: impl IntoIterator<Item = &'a Rule>,
    subject: &LabelSet,
    peer: &LabelSet,
    flow: &Flow,
) -> Result<Decision, Conflict> {
    let policy = SubjectPolicy::resolve(settings, world, rules, flow.subject, subject)?;
    Ok(policy.decide(flow, peer))
}

impl SubjectPolicy {
    /// Collects what rules say about a subject.
    ///
    /// # Errors
    /// `Conflict` if those in force contradict each other (CONF-1 … CONF-6).
    pub fn resolve<'a>(
        settings: &Settings,
        world: &World,
        rules: impl IntoIterator<Item = &'a Rule>,
        subject: Identity,
        labels: &LabelSet,
    ) -> Result<Self, Conflict> {
        let all: Vec<&Rule> = rules.into_iter().filter(|rule| rule.subject.selects(subject, labels)).collect();
        let in_force: Vec<&Rule> = all.iter().copied().filter(|rule| !rule.audit).collect();
        let resolve = |rules: &[&Rule]| Directions::resolve(settings, world, rules, subject, labels);
        let shadow = (in_force.len() < all.len()).then(|| resolve(&all));
        Ok(Self { in_force: resolve(&in_force)?, shadow, audit: settings.audit })
    }

    /// The policy of an endpoint that is under audit by itself (AUD-1).
    #[must_use]
    pub fn under_audit(self) -> Self {
        Self { audit: true, ..self }
    }

    /// Whether a direction is enforced.
    #[must_use]
    pub const fn enforces(&self, direction: Direction) -> bool {
        self.in_force.filters(direction).is_some()
    }

    /// Whether it speaks of peers through a selector: only then are the addresses of a DNS name looked for (FQDN-8).
    #[must_use]
    pub fn uses(&self, selector: &Selector) -> bool {
        let shadow = self.shadow.iter().flatten();
        shadow.chain([&self.in_force]).any(|directions| directions.uses(selector))
    }

    /// The decision of the rules in force about a flow of the subject. `peer` are the labels of `flow.peer`.
    #[must_use]
    pub fn decide(&self, flow: &Flow, peer: &LabelSet) -> Decision {
        self.in_force.decide(flow, peer)
    }

    /// What becomes of a flow of the subject, and what would without audit. `peer` are the labels of `flow.peer`.
    #[must_use]
    pub fn judge(&self, flow: &Flow, peer: &LabelSet) -> Outcome {
        let shadow = self.shadow.as_ref().map(|shadow| match shadow {
            Ok(directions) => Ok(directions.decide(flow, peer)),
            Err(conflict) => Err(*conflict),
        });
        Outcome { decision: self.decide(flow, peer), audit: self.audit, shadow }
    }
}

impl Directions {
    fn resolve(
        settings: &Settings,
        world: &World,
        rules: &[&Rule],
        subject: Identity,
        labels: &LabelSet,
    ) -> Result<Self, Conflict> {
        let resolve = |direction: Direction| {
            let sections: Vec<&Section> = rules.iter().map(|rule| rule.section(direction)).collect();
            let enforced = enforced(settings, subject, labels, &sections);
            if enforced == Enforced::No {
                return Ok(None);
            }
            let mut filters = Filters::new(settings, world, direction);
            filters.add_sections(&sections)?;
            if enforced == Enforced::Open {
                filters.allow_everyone();
            }
            if direction == Direction::Ingress && settings.allow_localhost && subject != Identity::HOST {
                filters.allow_host();
            }
            Ok(Some(filters))
        };
        let failsafe = if subject == Identity::HOST { settings.failsafe.clone() } else { BTreeSet::new() };
        Ok(Self { ingress: resolve(Direction::Ingress)?, egress: resolve(Direction::Egress)?, failsafe })
    }

    fn uses(&self, selector: &Selector) -> bool {
        let directions = [&self.ingress, &self.egress].into_iter().flatten();
        directions.flat_map(|filters| filters.filters.values()).any(|filter| filter.policies.contains_key(selector))
    }

    fn decide(&self, flow: &Flow, peer: &LabelSet) -> Decision {
        if flow.direction == Direction::Ingress && self.failsafe.contains(&(flow.protocol, flow.port)) {
            return Decision::ALLOW;
        }
        match self.filters(flow.direction) {
            None => Decision::ALLOW, // SEM-1
            Some(filters) => lookup::decide(filters, flow, peer),
        }
    }

    const fn filters(&self, direction: Direction) -> Option<&Filters> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }
}

/// Whether a direction with these sections is enforced for a subject.
pub(crate) fn enforced(settings: &Settings, subject: Identity, labels: &LabelSet, sections: &[&Section]) -> Enforced {
    // SEM-10: without a host firewall the node itself is never enforced.
    if subject == Identity::HOST && !settings.host_firewall || settings.enforcement == Enforcement::Never {
        return Enforced::No;
    }
    if settings.enforcement == Enforcement::Always || is_init(labels) {
        return Enforced::Yes;
    }
    let compat = settings.compat;
    let mut with_content = sections.iter().filter(|section| section.has_content(compat)).peekable();
    if with_content.peek().is_none() {
        return Enforced::No; // SEM-1
    }
    let by_default = |section: &&Section| section.denies_by_default() || !settings.optional_default_deny;
    if with_content.any(by_default) { Enforced::Yes } else { Enforced::Open }
}

/// SEM-9: an endpoint without labels yet is enforced in both directions, selected or not.
fn is_init(subject: &LabelSet) -> bool {
    subject.get("init").is_some_and(|label| label.source == SOURCE_RESERVED)
}

/// Whether Cilium's reading counts.
pub(crate) fn as_cilium(settings: &Settings) -> bool {
    settings.compat == Compat::Cilium
}
