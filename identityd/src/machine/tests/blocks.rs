//! Numbers that gateways give out while they are cut off.

use super::*;

fn grant(holder: &str, count: u32) -> Command {
    Command::GrantBlock { cluster: name("east"), holder: name(holder), count }
}

fn give_back(holder: &str) -> Command {
    Command::ReturnBlock { cluster: name("east"), holder: name(holder) }
}

fn adopt(holder: &str, at: u32, app: &str) -> Command {
    let (cluster, holder, labels) = (name("east"), name(holder), labels(&[&format!("k8s:app={app}")]));
    Command::AdoptFromBlock { cluster, holder, identity: number(1, at).unwrap(), labels }
}

fn block(scene: &Scene, holder: &str) -> IdentityBlock {
    match scene.mesh.get(&RecordKey::Block(name("east"), name(holder))) {
        Some(Record::Block(block)) => block.clone(),
        other => panic!("{other:?} is no block"),
    }
}

#[test]
fn numbers_of_a_block_are_given_to_nobody_else_and_adopted_as_they_are() {
    let mut scene = Scene::new();
    scene.run(&allocate("east", &["k8s:app=first"])).unwrap();
    assert_eq!(scene.run(&grant("g1", 100)), Ok((1, None)));
    assert_eq!(block(&scene, "g1").first, number(1, 2).unwrap());
    assert_eq!(scene.run(&grant("g1", 50)), Ok((0, None)), "it has one");
    scene.run(&grant("g2", 10)).unwrap();
    assert_eq!(block(&scene, "g2").first, number(1, 102).unwrap());
    assert_eq!(scene.run(&allocate("east", &["k8s:app=next"])), Ok((1, number(1, 112))));

    // In any order, and as often as the answer is lost.
    assert_eq!(scene.run(&adopt("g1", 4, "c")), Ok((2, number(1, 4))));
    assert_eq!(scene.run(&adopt("g1", 4, "c")), Ok((0, number(1, 4))));
    assert_eq!(scene.run(&adopt("g1", 2, "a")), Ok((1, number(1, 2))));
    assert_eq!(block(&scene, "g1").spent, 3);
    assert_eq!(scene.run(&allocate("east", &["k8s:app=c"])), Ok((0, number(1, 4))));
    assert_eq!(scene.run(&endpoint("east", "c", &["10.101.1.1"], &["k8s:app=c"])), Ok((1, number(1, 4))));
    let usage = scene.book.usage(&scene.mesh)[&name("east")];
    assert_eq!(usage, IdentityUsage { in_use: 4, idle: 3, quarantined: 0, granted: 108 });
}

#[test]
fn what_is_not_the_gateways_to_give_is_refused() {
    let mut scene = Scene::new();
    scene.run(&grant("g1", 10)).unwrap();
    scene.run(&adopt("g1", 1, "a")).unwrap();
    let key = |holder| RecordKey::Block(name("east"), name(holder));
    let with_cluster = |app: &str| labels(&[&format!("k8s:app={app}"), "k8s:io.cilium.k8s.policy.cluster=east"]);
    let (one, two, eleven) = (number(1, 1).unwrap(), number(1, 2).unwrap(), number(1, 11).unwrap());
    let other = ringfence_policy::command::NumberTaken::Labels { labels: with_cluster("a") };
    let cases = [
        (grant("g2", 0), Refusal::BlockSize { count: 0 }),
        (grant("g2", 4097), Refusal::BlockSize { count: 4097 }),
        (give_back("g9"), Refusal::NotFound { key: key("g9") }),
        (adopt("g9", 1, "a"), Refusal::NotFound { key: key("g9") }),
        (adopt("g1", 11, "x"), Refusal::NotInBlock { identity: eleven, block: key("g1") }),
        (adopt("g1", 2, "a"), Refusal::LabelsTaken { labels: with_cluster("a"), identity: one, wanted: two }),
        (adopt("g1", 1, "b"), Refusal::NumberTaken { identity: one, labels: with_cluster("b"), state: other }),
        (
            Command::Delete(RecordKey::Cluster(name("west"))),
            Refusal::InUse { key: RecordKey::Cluster(name("west")), user: RecordKey::Node(name("west"), name("n1")) },
        ),
        (Command::Delete(key("g1")), Refusal::NotDeletable { key: key("g1") }),
    ];
    for (command, refusal) in cases {
        assert_eq!(scene.refused(&command), refusal, "{command:?}");
    }
    scene.run(&Command::ReleaseIdentity(one)).unwrap();
    let taken = scene.refused(&adopt("g1", 1, "b"));
    assert!(taken.to_string().contains("it was released and is in quarantine"), "{taken}");
    for holder in 2..=16 {
        scene.run(&grant(&format!("g{holder}"), 1)).unwrap();
    }
    assert_eq!(scene.refused(&grant("g17", 1)), Refusal::TooManyBlocks { cluster: name("east"), count: 16 });
}

#[test]
fn s4_a_block_that_comes_back_rests_before_its_numbers_are_given_to_anybody() {
    let mut scene = Scene::new();
    scene.put(all_but(4));
    scene.put([Record::Block(IdentityBlock {
        cluster: name("east"),
        holder: name("g1"),
        first: number(1, 1).unwrap(),
        count: 4,
        spent: 0,
    })]);
    scene.run(&adopt("g1", 2, "kept")).unwrap();
    scene.run(&endpoint("east", "kept", &["10.101.1.1"], &["k8s:app=kept"])).unwrap();
    scene.run(&give_back("g1")).unwrap();
    assert_eq!(scene.book.ledger().numbers().len(), 3, "1, 3 and 4 may be in use in a cluster that was cut off");
    assert!(matches!(scene.refused(&allocate("east", &["k8s:app=new"])), Refusal::IdentitiesExhausted { .. }));
    scene.realise();
    scene.pass(11 * 60_000);
    let given: Vec<_> =
        ["a", "b", "c"].map(|app| scene.run(&allocate("east", &[&format!("k8s:app={app}")])).unwrap().1).to_vec();
    assert_eq!(given, [number(1, 1), number(1, 3), number(1, 4)]);
}
