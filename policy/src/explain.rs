//! Why a flow passes or does not: what [`evaluate`](crate::evaluate) decides, with the rules that made it so.
//!
//! ```text
//! objects + flow ─ evaluate ─────────────────► decision ┐
//!                └ each element: peers? ports? ─► Matches ├─► Explanation ─ Display ─► one line for people
//!                └ the nearest one that is not ─► NearMiss ┘
//! ```
//!
//! The decision is never worked out here a second time: matches only say where it comes from. Where objects under audit
//! select the subject, there is a second explanation, of what would be decided if they counted (AUD-5).

mod classes;
mod difference;
mod idle;
mod matching;
mod near_miss;
mod party;
mod place;
mod request;
mod text;
mod usage;

pub use difference::{Difference, differences};
pub use idle::{Idle, idle};
pub use near_miss::NearMiss;
pub use party::{InvalidParty, Party};
pub use place::Place;
pub use request::{KafkaCall, Request};
pub use text::{describe_decision, describe_protocol, describe_selector, describe_verdict, parse_protocol};
pub use usage::{SelectorUse, selector_uses};

use crate::{
    evaluate::{Conflict, Decision, Enforced, Outcome, SubjectPolicy, enforced},
    flow::Flow,
    identity::Identity,
    object::Object,
    rule::{Parser, Rule, Section},
    world::{Settings, World},
};
use matching::Candidates;
use place::Places;

/// A flow's outcome and everything that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The flow that was asked about. The numbers of its ends are those of the parties.
    pub flow: Flow,
    /// What `evaluate` says.
    pub decision: Result<Decision, Conflict>,
    /// What made it so.
    pub reason: Reason,
    /// Every rule that enforces the direction for the subject.
    pub selected_by: Vec<Place>,
    /// Every element that covers the flow, in the order of the objects; none if the direction is not enforced.
    pub matches: Vec<Match>,
    /// The endpoint or its node is under audit: a refusal is reported and let through (AUD-2).
    pub audit: bool,
    /// What would be if the objects under audit counted; none if none of them selects the subject (AUD-5).
    pub shadow: Option<Box<Explanation>>,
}

/// What made a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No rule with content selects the subject (SEM-1), or enforcement is off for it (SEM-10).
    NotEnforced,
    /// An element denies it: its place in `matches` (SEM-43).
    Denied(usize),
    /// An element allows it: its place in `matches`.
    Allowed(usize),
    /// The node reaches its own endpoints (SEM-50).
    Localhost,
    /// The rules only deny, and do not refuse the rest (SEM-5).
    NoDefaultDeny,
    /// No element covers it; the one that comes nearest, if there is any.
    NothingMatches(Option<NearMiss>),
    /// The rules contradict each other: a node keeps the policy it has.
    Contradiction,
}

/// An element that covers a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Where it is.
    pub place: Place,
    /// Whether it denies.
    pub denies: bool,
    /// Who reads the flow for it, if a proxy does.
    pub parser: Option<Parser>,
    /// Its object is under audit.
    pub audit: bool,
    /// What records of such flows are marked with: `log` of its rule.
    pub log: Option<String>,
}

/// Explains the decision about a flow between two parties, seen from `subject`; the identities of `flow` are taken from
/// the parties.
///
/// `objects` are all objects in force, whatever they select. Places name them by their index.
#[must_use]
pub fn explain(
    settings: &Settings,
    world: &World,
    objects: &[Object],
    subject: &Party,
    peer: &Party,
    flow: Flow,
) -> Explanation {
    let flow = Flow { subject: subject.identity, peer: peer.identity, ..flow };
    let rules = objects.iter().flat_map(|object| &object.rules);
    let policy = SubjectPolicy::resolve(settings, world, rules, subject.identity, &subject.labels);
    let outcome = policy.map(|policy| policy.judge(&flow, &peer.labels));
    let parts = Parts { settings, world, objects, subject, peer, flow };
    let (decision, shadow) = match outcome {
        Ok(Outcome { decision, shadow, .. }) => (Ok(decision), shadow),
        Err(conflict) => (Err(conflict), None),
    };
    let shadow = shadow.map(|decision| Box::new(parts.explain(decision, |_| true)));
    Explanation { shadow, audit: settings.audit, ..parts.explain(decision, |rule| !rule.audit) }
}

/// What an explanation is of.
struct Parts<'p> {
    settings: &'p Settings,
    world: &'p World,
    objects: &'p [Object],
    subject: &'p Party,
    peer: &'p Party,
    flow: Flow,
}

impl Parts<'_> {
    /// Why a decision is what it is under the rules that count.
    fn explain(&self, decision: Result<Decision, Conflict>, counts: impl Fn(&Rule) -> bool) -> Explanation {
        let Self { settings, world, objects, subject, peer, flow } = *self;
        let places = Places::of(objects);
        let mut sections: Vec<(usize, usize, &Section)> = Vec::new();
        for (object, rules) in objects.iter().enumerate().map(|(index, object)| (index, &object.rules)) {
            let selects = |rule: &Rule| counts(rule) && rule.subject.selects(subject.identity, &subject.labels);
            let selecting = rules.iter().enumerate().filter(|(_, rule)| selects(rule));
            sections.extend(selecting.map(|(rule, content)| (object, rule, content.section(flow.direction))));
        }
        let plain: Vec<&Section> = sections.iter().map(|(_, _, section)| *section).collect();
        let state = enforced(settings, subject.identity, &subject.labels, &plain);
        let with_content = sections.iter().filter(|(_, _, section)| section.has_content(settings.compat));
        let selected_by = with_content.map(|(object, rule, _)| places.rule(*object, *rule)).collect();

        let candidates = Candidates::new(settings, world, &sections, &places);
        let matches = if state == Enforced::No { Vec::new() } else { candidates.matches(&flow, &peer.labels) };
        let reason = match &decision {
            Err(_) => Reason::Contradiction,
            Ok(_) if state == Enforced::No => Reason::NotEnforced,
            Ok(decision) => {
                let host = settings.allow_localhost && flow.peer == Identity::HOST;
                reason(decision, &matches, host).unwrap_or_else(|| match decision {
                    Decision::DenyDefault => Reason::NothingMatches(candidates.nearest(&flow, &peer.labels)),
                    _ => Reason::NoDefaultDeny,
                })
            }
        };
        Explanation { flow, decision, reason, selected_by, matches, audit: false, shadow: None }
    }
}

/// The match that decided; none if no match did.
fn reason(decision: &Decision, matches: &[Match], from_host: bool) -> Option<Reason> {
    let first = |wanted: &dyn Fn(&Match) -> bool| matches.iter().position(wanted);
    match decision {
        Decision::DenyDefault => None,
        Decision::DenyExplicit => first(&|found| found.denies).map(Reason::Denied),
        Decision::Redirect(redirect) => first(&|found| found.parser.as_ref() == Some(&redirect.parser))
            .or_else(|| first(&|found| !found.denies))
            .map(Reason::Allowed),
        Decision::Allow { .. } => first(&|found| !found.denies && found.parser.is_none())
            .or_else(|| first(&|found| !found.denies))
            .map(Reason::Allowed)
            .or_else(|| from_host.then_some(Reason::Localhost)),
    }
}

impl Explanation {
    /// Whether the flow passes; through the proxy, as far as no request is looked at.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.decision.as_ref().is_ok_and(|decision| self.audit || !decision.refuses())
    }

    /// What becomes of the flow; none if the rules in force contradict each other.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        let decision = self.decision.clone().ok()?;
        let shadow = self.shadow.as_ref().map(|shadow| shadow.decision.clone());
        Some(Outcome { decision, audit: self.audit, shadow })
    }

    /// The match that decided.
    #[must_use]
    pub fn decided_by(&self) -> Option<&Match> {
        match self.reason {
            Reason::Denied(index) | Reason::Allowed(index) => self.matches.get(index),
            _ => None,
        }
    }

    /// The element that comes nearest to allowing the flow.
    #[must_use]
    pub const fn near_miss(&self) -> Option<&NearMiss> {
        match &self.reason {
            Reason::NothingMatches(near) => near.as_ref(),
            _ => None,
        }
    }
}
