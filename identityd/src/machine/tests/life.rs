//! The life of a number: given, referred to, idle, quarantined, free again.

use super::*;

const GRACE_MS: u64 = 15 * 60_000;
const QUARANTINE_MS: u64 = 10 * 60_000;
const STEP_MS: u64 = Housekeeping::MAX_STEP_MS;

/// A scene in which number 1 stands for app=web without any endpoint since now.
fn with_idle() -> Scene {
    let mut scene = Scene::new();
    scene.run(&endpoint("east", "web", &["10.101.1.1"], &["k8s:app=web"])).unwrap();
    scene.run(&Command::Delete(key("east", "web"))).unwrap();
    scene
}

fn state(scene: &Scene, identity: Option<Identity>) -> Option<NumberState> {
    scene.book.ledger().numbers().get(&identity.unwrap()).copied()
}

fn stands(scene: &Scene, identity: Option<Identity>) -> bool {
    scene.mesh.get(&RecordKey::Identity(identity.unwrap())).is_some()
}

#[test]
fn s6_a_number_keeps_its_label_set_for_the_grace_and_while_it_is_referred_to() {
    let mut scene = with_idle();
    assert_eq!(scene.pass(GRACE_MS + STEP_MS - 1), 0, "never early, not even by a step");
    // Whoever comes back in time gets the number it had.
    assert_eq!(scene.run(&endpoint("east", "b", &["10.101.1.2"], &["k8s:app=web"])), Ok((1, number(1, 1))));
    assert_eq!(scene.pass(3 * GRACE_MS), 0);
    assert_eq!(state(&scene, number(1, 1)), None);
    let user = key("east", "b");
    let identity = RecordKey::Identity(number(1, 1).unwrap());
    let refusal = scene.refused(&Command::ReleaseIdentity(number(1, 1).unwrap()));
    assert_eq!(refusal, Refusal::InUse { key: identity, user });
    // Another label set for the endpoint: the old one is idle, the new one is not.
    assert_eq!(scene.run(&endpoint("east", "b", &["10.101.1.2"], &["k8s:app=api"])), Ok((2, number(1, 2))));
    assert_eq!(scene.pass(GRACE_MS + STEP_MS), 1);
    assert!(!stands(&scene, number(1, 1)) && stands(&scene, number(1, 2)));
}

#[test]
fn alloc_7_asking_again_begins_the_grace_again() {
    let mut scene = Scene::new();
    scene.run(&allocate("east", &["k8s:app=web"])).unwrap();
    for _ in 0..5 {
        assert_eq!(scene.pass(GRACE_MS), 0);
        assert_eq!(scene.run(&allocate("east", &["k8s:app=web"])), Ok((0, number(1, 1))));
    }
    assert_eq!(scene.pass(GRACE_MS + STEP_MS), 1);
}

#[test]
fn s4_a_released_number_rests_until_every_live_node_has_realised_it_and_a_time_has_passed() {
    let mut scene = with_idle();
    // One number is left beside the released one, so the next but one would have to be that one.
    scene.put(all_but(2));
    scene.pass(GRACE_MS + STEP_MS);
    let gone = scene.mesh.revision();
    assert_eq!(state(&scene, number(1, 1)), Some(NumberState::Quarantined { gone }));
    assert_eq!(scene.run(&allocate("east", &["k8s:app=a"])), Ok((1, number(1, 2))));
    scene.run(&endpoint("east", "a", &["10.101.1.3"], &["k8s:app=a"])).unwrap();
    let exhausted = |scene: &mut Scene| {
        let refusal = scene.refused(&allocate("east", &["k8s:app=b"]));
        assert!(matches!(refusal, Refusal::IdentitiesExhausted { .. }), "{refusal}");
    };
    // East has, west has not.
    scene.run(&keep_alive("east", &[("n1", gone)])).unwrap();
    scene.run(&keep_alive("west", &[("n1", Revision(gone.0 - 1))])).unwrap();
    scene.pass(3 * QUARANTINE_MS);
    exhausted(&mut scene);
    scene.realise();
    scene.pass(STEP_MS);
    let Some(NumberState::Resting { until_ms }) = state(&scene, number(1, 1)) else { panic!("it does not rest") };
    scene.pass(until_ms - scene.book.ledger().clock_ms() - 1);
    exhausted(&mut scene);
    scene.pass(1);
    assert_eq!(scene.run(&allocate("east", &["k8s:app=b"])), Ok((1, number(1, 1))));
}

#[test]
fn s4_a_node_that_is_gone_holds_no_number_back_and_a_new_one_does() {
    let mut scene = with_idle();
    scene.pass(GRACE_MS + STEP_MS);
    scene.realise();
    scene.run(&Command::PutNode(node("west", "n2", &["10.40.2.2"]))).unwrap();
    scene.pass(3 * QUARANTINE_MS);
    assert!(matches!(state(&scene, number(1, 1)), Some(NumberState::Quarantined { .. })), "n2 has told nothing yet");
    let expire = Housekeeping::ExpireNode { cluster: name("west"), node: name("n2"), renewals: 1 };
    scene.run(&Command::Housekeeping(expire)).unwrap();
    scene.pass(QUARANTINE_MS + STEP_MS);
    assert_eq!(state(&scene, number(1, 1)), None);
}

#[test]
fn a_label_set_that_comes_back_during_the_quarantine_gets_another_number() {
    let mut scene = with_idle();
    scene.run(&Command::ReleaseIdentity(number(1, 1).unwrap())).unwrap();
    assert!(!stands(&scene, number(1, 1)), "released without the grace");
    assert_eq!(scene.run(&allocate("east", &["k8s:app=web"])), Ok((1, number(1, 2))));
    let absent = Command::ReleaseIdentity(number(1, 1).unwrap());
    assert!(matches!(scene.refused(&absent), Refusal::NotFound { .. }));
}

#[test]
fn a_clock_that_jumps_makes_nothing_early_and_one_that_goes_back_nothing_at_all() {
    let mut scene = with_idle();
    let tick = |now_ms| Command::Housekeeping(Housekeeping::Tick { now_ms });
    scene.run(&tick(u64::MAX)).unwrap();
    assert_eq!(scene.book.ledger().clock_ms(), STEP_MS);
    scene.run(&tick(3)).unwrap();
    scene.run(&tick(STEP_MS)).unwrap();
    assert_eq!(scene.book.ledger().clock_ms(), STEP_MS);
    assert!(stands(&scene, number(1, 1)));
}

#[test]
fn the_last_number_is_followed_by_a_refusal_that_says_what_the_numbers_are_used_for() {
    let mut scene = Scene::new();
    scene.put(all_but(3));
    scene.run(&endpoint("east", "web", &["10.101.1.1"], &["k8s:app=web"])).unwrap();
    scene.run(&allocate("east", &["k8s:app=api"])).unwrap();
    scene.run(&allocate("east", &["k8s:app=db"])).unwrap();
    scene.run(&Command::ReleaseIdentity(number(1, 3).unwrap())).unwrap();
    let granted = Identity::MAX_NUMBER - 3;
    let usage = IdentityUsage { in_use: 2, idle: 1, quarantined: 1, granted };
    assert_eq!(scene.book.usage(&scene.mesh)[&name("east")], usage);
    assert_eq!(usage.taken(), Identity::MAX_NUMBER);
    let refusal = scene.refused(&endpoint("east", "new", &["10.101.1.2"], &["k8s:app=new"]));
    assert_eq!(refusal, Refusal::IdentitiesExhausted { cluster: name("east"), usage });
    assert!(refusal.to_string().contains("of 1048575 numbers 2 stand for label sets (1 of them"), "{refusal}");
    // Who has a number keeps it, and other clusters have their own.
    assert_eq!(scene.run(&allocate("east", &["k8s:app=api"])), Ok((0, number(1, 2))));
    assert_eq!(scene.run(&allocate("west", &["k8s:app=new"])), Ok((1, number(2, 1))));
}

#[test]
fn numbers_that_were_released_come_last() {
    let mut scene = with_idle();
    scene.run(&Command::ReleaseIdentity(number(1, 1).unwrap())).unwrap();
    scene.realise();
    scene.pass(QUARANTINE_MS + STEP_MS);
    assert_eq!(state(&scene, number(1, 1)), None, "it is free");
    assert_eq!(scene.run(&allocate("east", &["k8s:app=a"])), Ok((1, number(1, 2))));
}

#[test]
fn a_cluster_id_is_free_once_all_its_numbers_are() {
    let mut scene = with_idle();
    for key in [RecordKey::Node(name("east"), name("n1")), RecordKey::Cluster(name("east"))] {
        scene.run(&Command::Delete(key)).unwrap();
    }
    scene.refused(&Command::PutCluster(cluster_of("south", 1, &[])));
    scene.pass(GRACE_MS + STEP_MS);
    scene.realise_in(&["west"]);
    scene.pass(QUARANTINE_MS + STEP_MS);
    scene.run(&Command::PutCluster(cluster_of("south", 1, &[]))).unwrap();
    assert_eq!(scene.run(&allocate("south", &["k8s:app=a"])), Ok((1, number(1, 2))));
}

#[test]
fn lbl_30_the_settings_of_the_mesh_say_which_labels_make_an_identity() {
    let mut scene = Scene::new();
    let noisy = ["k8s:app=web", "k8s:pod-template-hash=a1", "k8s:team=a"];
    scene.run(&endpoint("east", "web-1", &["10.101.1.1"], &noisy)).unwrap();
    let other = ["k8s:app=web", "k8s:pod-template-hash=b2", "k8s:team=a"];
    assert_eq!(scene.run(&endpoint("east", "web-2", &["10.101.1.2"], &other)), Ok((1, number(1, 1))));
    // Comes with all the labels that it is known to have.
    let exact = endpoint("east", "web-3", &["10.101.1.3"], &["k8s:app=web", "k8s:team=a"]);
    assert_eq!(scene.run(&exact), Ok((1, number(1, 1))));
    assert_eq!(scene.run(&exact), Ok((0, number(1, 1))));
    let mut settings = MeshSettings::default();
    settings.label_filter.entries = vec!["k8s:app".to_owned()];
    scene.run(&Command::PutSettings(settings.clone())).unwrap();
    assert_eq!(scene.run(&endpoint("east", "web-1", &["10.101.1.1"], &noisy)), Ok((2, number(1, 2))));
    assert_eq!(scene.run(&exact), Ok((1, number(1, 2))), "what it has is not what counts any more");
    let Some(Record::Endpoint(web)) = scene.mesh.get(&key("east", "web-1")) else { panic!("no endpoint") };
    assert_eq!(web.labels, labels(&["k8s:app=web", "k8s:io.cilium.k8s.policy.cluster=east"]));
    settings.label_filter.entries = vec!["k8s:(".to_owned()];
    let refusal = scene.refused(&Command::PutSettings(settings));
    assert!(refusal.to_string().contains("settings: label_filter: \"k8s:(\""), "{refusal}");
}
