//! S4, S5 and S6 for commands in any order, against a model that remembers everything.

use std::{collections::BTreeMap, sync::LazyLock};

use proptest::prelude::*;

use super::*;

const QUARANTINE_MS: u64 = 30_000;
/// Few, so that numbers come round.
const FREE_NUMBERS: u32 = 6;

static START: LazyLock<Scene> = LazyLock::new(|| {
    let mut scene = Scene::new();
    let settings = MeshSettings { identity_grace_ms: 20_000, quarantine_ms: QUARANTINE_MS, ..MeshSettings::default() };
    scene.put(all_but(FREE_NUMBERS).chain([Record::Settings(settings)]));
    scene
});

#[derive(Debug, Clone)]
enum Step {
    Run(Command),
    /// A node serves packets with a revision that many behind the newest.
    Realise(&'static str, u64),
    /// The leader saw the node last that many signs of life ago.
    Expire(&'static str, u64),
    Tick(u64),
}

fn app() -> impl Strategy<Value = String> {
    (0..9_u32).prop_map(|app| format!("k8s:app=a{app}"))
}

fn step() -> impl Strategy<Value = Step> {
    let cluster = || prop_oneof![9 => Just("east"), 1 => Just("west")];
    let pod = || (0..5_u32).prop_map(|pod| format!("p{pod}"));
    prop_oneof![
        6 => (cluster(), pod(), app()).prop_map(|(cluster, pod, app)| {
            let address = format!("10.10{}.1.{}", u32::from(cluster == "west") + 1, &pod[1..]);
            Step::Run(endpoint(cluster, &pod, &[&address], &[&app]))
        }),
        4 => (cluster(), pod()).prop_map(|(cluster, pod)| Step::Run(Command::Delete(key(cluster, &pod)))),
        2 => (cluster(), app()).prop_map(|(cluster, app)| Step::Run(allocate(cluster, &[&app]))),
        2 => (1..=FREE_NUMBERS).prop_map(|at| Step::Run(Command::ReleaseIdentity(number(1, at).unwrap()))),
        1 => (1..4_u32).prop_map(|count| {
            Step::Run(Command::GrantBlock { cluster: name("east"), holder: name("g"), count })
        }),
        1 => Just(Step::Run(Command::ReturnBlock { cluster: name("east"), holder: name("g") })),
        2 => (1..=FREE_NUMBERS, app()).prop_map(|(at, app)| {
            let (cluster, holder, identity) = (name("east"), name("g"), number(1, at).unwrap());
            Step::Run(Command::AdoptFromBlock { cluster, holder, identity, labels: labels(&[&app]) })
        }),
        6 => (cluster(), 0..3_u64).prop_map(|(cluster, behind)| Step::Realise(cluster, behind)),
        1 => (cluster(), 0..2_u64).prop_map(|(cluster, ago)| Step::Expire(cluster, ago)),
        8 => prop_oneof![0..5000_u64, Just(Housekeeping::MAX_STEP_MS), Just(u64::MAX)].prop_map(Step::Tick),
    ]
}

/// What the rules say, remembered in the plainest way.
#[derive(Default)]
struct Model {
    /// What each number stood for last, and the first revision without it.
    gone: BTreeMap<Identity, (LabelSet, Revision)>,
    /// When every live node had realised that the number is gone, on the store's clock.
    known: BTreeMap<Identity, u64>,
    realised: BTreeMap<&'static str, Revision>,
    dead: BTreeMap<&'static str, bool>,
    stands: BTreeMap<Identity, LabelSet>,
    reused: u32,
}

impl Model {
    fn follow(&mut self, scene: &Scene) -> Result<(), TestCaseError> {
        let clock_ms = scene.book.ledger().clock_ms();
        let now: BTreeMap<_, _> = scene.mesh.identities().map(|r| (r.identity, r.labels.clone())).collect();
        for (number, labels) in &now {
            if self.stands.get(number) == Some(labels) {
                continue;
            }
            prop_assert!(!self.stands.contains_key(number), "{number} changes its label set while it stands");
            if self.gone.remove(number).is_some() {
                let known_ms = self.known.remove(number);
                prop_assert!(known_ms.is_some(), "S4: {number} is used again, and a live node still knows it");
                prop_assert!(known_ms.unwrap() + QUARANTINE_MS <= clock_ms, "S4: {number} is used again too early");
                self.reused += 1;
            }
        }
        for (number, labels) in std::mem::replace(&mut self.stands, now) {
            if !self.stands.contains_key(&number) {
                self.gone.insert(number, (labels, scene.mesh.revision()));
            }
        }
        for (number, (_, gone)) in &self.gone {
            let live = |cluster: &&str| !self.dead.get(*cluster).copied().unwrap_or_default();
            let realised = |cluster: &str| self.realised.get(cluster).copied().unwrap_or_default();
            if ["east", "west"].iter().filter(|cluster| live(cluster)).all(|cluster| realised(cluster) >= *gone) {
                self.known.entry(*number).or_insert(clock_ms);
            }
        }
        Ok(())
    }
}

fn one_to_one(scene: &Scene) -> Result<(), TestCaseError> {
    let by_labels: BTreeMap<_, _> = scene.mesh.identities().map(|record| (&record.labels, record.identity)).collect();
    prop_assert_eq!(by_labels.len(), scene.mesh.identities().count(), "S5: one label set, one number");
    for endpoint in scene.mesh.endpoints() {
        let number = by_labels.get(&endpoint.labels);
        prop_assert_eq!(number, Some(&endpoint.identity), "S6: {}'s number is there, for its labels", endpoint.name);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn s4_s5_and_s6_hold_for_commands_in_any_order(steps in proptest::collection::vec(step(), 1..150)) {
        let mut scene = START.clone();
        let mut model = Model::default();
        for step in &steps {
            let command = match step {
                Step::Run(command) => command.clone(),
                Step::Tick(ahead_ms) => {
                    let now_ms = scene.book.ledger().clock_ms().saturating_add(*ahead_ms);
                    Command::Housekeeping(Housekeeping::Tick { now_ms })
                }
                Step::Realise(cluster, behind) => {
                    let realised = Revision(scene.mesh.revision().0.saturating_sub(*behind));
                    model.realised.insert(cluster, realised);
                    keep_alive(cluster, &[("n1", realised)])
                }
                Step::Expire(cluster, ago) => {
                    let (cluster, node) = (name(cluster), name("n1"));
                    let renewals = scene.book.ledger().leases()[&(cluster.clone(), node.clone())].renewals;
                    Command::Housekeeping(Housekeeping::ExpireNode { cluster, node, renewals: renewals - ago })
                }
            };
            let ran = scene.run_unchecked(&command);
            // Signs of life.
            match (step, &command) {
                (Step::Expire(cluster, 0), _) => { model.dead.insert(cluster, true); }
                (Step::Realise(cluster, _), _) => { model.dead.insert(cluster, false); }
                (_, Command::PutEndpoint(spec)) if ran.is_ok() => {
                    model.dead.insert(if spec.cluster.as_str() == "east" { "east" } else { "west" }, false);
                }
                _ => {}
            }
            model.follow(&scene)?;
            one_to_one(&scene)?;
        }
        scene.check_book(&Command::PutPolicies(vec![]));
    }
}
