//! Which rules have a say in a verdict: worked out by the specification from the followed policies, and told only where it
//! comes to the verdict that the packet met.

use std::collections::{BTreeMap, HashMap};

use ringfence_datapath::{FlowEvent, Reason};
use ringfence_policy::{
    address::AddressBook,
    evaluate::Decision,
    explain::{Explanation, Party, Place, explain},
    flow::{Direction, Flow},
    identity::Identity,
    label::LabelSet,
    mesh::Mesh,
    name::Name,
    object::{Object, parse_record},
    record::{NamedPort, PolicyKey, PolicyKind, Record, RecordKey},
    revision::Revision,
    rule::{PortNumber, Rule},
    tables::EndpointId,
    world::{Settings, World},
};
use ringfence_proto::v1;

/// Answers that are remembered, at most.
const ANSWERS: usize = 4096;

/// Policies of the followed state.
pub(super) struct Rules {
    settings: Settings,
    at: Revision,
    objects: Vec<Object>,
    revisions: BTreeMap<PolicyKey, Revision>,
    /// Every endpoint's; only looked for where a rule has a name for a port.
    peer_ports: Vec<NamedPort>,
    addresses: AddressBook,
    answers: HashMap<Question, Vec<v1::RuleReference>>,
}

/// What an answer depends on, at one revision.
#[derive(PartialEq, Eq, Hash)]
struct Question {
    endpoint: EndpointId,
    identity: Identity,
    peer: Identity,
    direction: Direction,
    protocol: u8,
    port: u16,
    reason: &'static str,
}

impl Rules {
    pub(super) fn new(settings: Settings) -> Self {
        let addresses = AddressBook::new(settings.dual_stack, false);
        let (objects, answers) = (Vec::new(), HashMap::new());
        let (revisions, peer_ports) = (BTreeMap::new(), Vec::new());
        Self { settings, at: Revision::ZERO, objects, revisions, peer_ports, addresses, answers }
    }

    /// Reads the policies that changed.
    pub(super) fn refresh(&mut self, mesh: &Mesh) {
        if mesh.revision() == self.at {
            return;
        }
        self.at = mesh.revision();
        self.answers.clear();
        let first = PolicyKey { kind: PolicyKind::CiliumNetworkPolicy, namespace: None, name: Name::first() };
        let policies = mesh.records().range(RecordKey::Policy(first)..).map_while(|(_, versioned)| {
            if let Record::Policy(policy) = &versioned.record { Some((policy, versioned.revision)) } else { None }
        });
        let policies: Vec<_> = policies.collect();
        let revisions: BTreeMap<_, _> = policies.iter().map(|(policy, at)| (policy.key.clone(), *at)).collect();
        if revisions != self.revisions {
            let known: BTreeMap<PolicyKey, Object> =
                std::mem::take(&mut self.objects).into_iter().map(|object| (object.key.clone(), object)).collect();
            let read = |(policy, at): &(&ringfence_policy::record::PolicyRecord, Revision)| {
                let same = self.revisions.get(&policy.key) == Some(at);
                known.get(&policy.key).filter(|_| same).cloned().or_else(|| parse_record(policy).ok())
            };
            self.objects = policies.iter().filter_map(read).collect();
            self.revisions = revisions;
            self.addresses = AddressBook::new(self.settings.dual_stack, false);
            self.addresses.add_ranges(self.objects.iter().flat_map(|object| &object.rules));
        }
        self.peer_ports = if self.objects.iter().flat_map(|object| &object.rules).any(has_names) {
            mesh.endpoints().flat_map(|endpoint| endpoint.named_ports.iter().cloned()).collect()
        } else {
            Vec::new()
        };
    }

    /// The rules that have a say in an event's verdict.
    pub(super) fn of(
        &mut self,
        event: &FlowEvent,
        (subject, peer): (&LabelSet, &LabelSet),
        own_ports: Vec<NamedPort>,
    ) -> Vec<v1::RuleReference> {
        let question = Question {
            endpoint: event.endpoint,
            identity: event.identity,
            peer: event.peer,
            direction: event.direction,
            protocol: event.protocol,
            port: event.port,
            reason: event.reason.name(),
        };
        if let Some(answer) = self.answers.get(&question) {
            return answer.clone();
        }
        let answer = self.explain(event, subject, peer, own_ports);
        if self.answers.len() >= ANSWERS {
            self.answers.clear();
        }
        self.answers.insert(question, answer.clone());
        answer
    }

    fn explain(
        &self,
        event: &FlowEvent,
        subject: &LabelSet,
        peer: &LabelSet,
        own_ports: Vec<NamedPort>,
    ) -> Vec<v1::RuleReference> {
        let world = World { own_ports, peer_ports: self.peer_ports.clone(), ..World::default() };
        let subject = Party { identity: event.identity, labels: subject.clone() };
        // What only this node has a number for is known by the address.
        let peer = match event.peer.is_local() {
            true => Party { identity: event.peer, ..Party::address(event.remote.0, &self.addresses) },
            false => Party { identity: event.peer, labels: peer.clone() },
        };
        let FlowEvent { direction, protocol, port, .. } = *event;
        let flow = Flow { subject: event.identity, peer: event.peer, direction, protocol, port };
        let explanation = explain(&self.settings, &world, &self.objects, &subject, &peer, flow);
        if agrees(&explanation, event.reason) { references(&explanation) } else { Vec::new() }
    }
}

/// Whether the specification comes to what the packet met.
fn agrees(explanation: &Explanation, reason: Reason) -> bool {
    matches!(
        (&explanation.decision, reason),
        (Ok(Decision::Allow { .. }), Reason::New | Reason::Reevaluated | Reason::Established)
            | (Ok(Decision::DenyDefault), Reason::DenyDefault | Reason::AuditDefault)
            | (Ok(Decision::DenyExplicit), Reason::DenyExplicit | Reason::AuditExplicit)
            | (Ok(Decision::Redirect(_)), Reason::NoProxy | Reason::AuditNoProxy)
    )
}

/// Those that decided; where nothing allows a flow, those that close the direction.
fn references(explanation: &Explanation) -> Vec<v1::RuleReference> {
    let denied = matches!(explanation.decision, Ok(Decision::DenyExplicit));
    let reference = |place: &Place, verdict: &str, audit: bool, log: Option<&String>| v1::RuleReference {
        object: place.key.to_string(),
        path: place.path.clone(),
        verdict: verdict.to_owned(),
        audit,
        log: log.cloned().unwrap_or_default(),
    };
    if matches!(explanation.decision, Ok(Decision::DenyDefault)) {
        return explanation.selected_by.iter().map(|place| reference(place, "default-deny", false, None)).collect();
    }
    let deciding = explanation.matches.iter().filter(|found| found.denies == denied);
    let word = if denied { "deny" } else { "allow" };
    deciding.map(|found| reference(&found.place, word, found.audit, found.log.as_ref())).collect()
}

fn has_names(rule: &Rule) -> bool {
    let ports = rule.elements().flat_map(|(_, _, element)| element.ports.iter().flatten()).flat_map(|rule| &rule.ports);
    ports.into_iter().any(|port| matches!(port.number, PortNumber::Named { .. }))
}
