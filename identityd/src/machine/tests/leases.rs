//! Signs of life, and what happens without them.

use super::*;

fn expire(cluster: &str, node: &str, renewals: u64) -> Command {
    Command::Housekeeping(Housekeeping::ExpireNode { cluster: name(cluster), node: name(node), renewals })
}

fn lease(scene: &Scene, cluster: &str, node: &str) -> ledger::Lease {
    scene.book.ledger().leases()[&(name(cluster), name(node))].clone()
}

fn with_endpoints() -> Scene {
    let mut scene = Scene::new();
    for (endpoint_name, address) in [("a", "10.101.1.1"), ("b", "10.101.1.2"), ("c", "10.101.1.3")] {
        scene.run(&endpoint("east", endpoint_name, &[address], &[&format!("k8s:app={endpoint_name}")])).unwrap();
    }
    scene.run(&endpoint("west", "a", &["10.102.1.1"], &["k8s:app=a"])).unwrap();
    scene
}

#[test]
fn signs_of_life_of_many_nodes_are_one_command_and_no_revision() {
    let mut scene = Scene::new();
    let nodes: Vec<String> = (2..500).map(|number| format!("n{number}")).collect();
    for (number, node_name) in nodes.iter().enumerate() {
        let address = format!("10.41.{}.{}", number / 200, number % 200);
        scene.run_unchecked(&Command::PutNode(node("east", node_name, &[&address]))).unwrap();
    }
    let revision = scene.mesh.revision();
    let signs: Vec<_> = nodes.iter().map(|node| (node.as_str(), revision)).chain([("stranger", revision)]).collect();
    assert_eq!(scene.run(&keep_alive("east", &signs)), Ok((0, None)));
    assert_eq!(scene.mesh.revision(), revision);
    assert_eq!(scene.book.ledger().leases().len(), 500, "a node that is not registered has no lease");
    assert_eq!(lease(&scene, "east", "n7"), ledger::Lease { renewals: 2, realised: revision, gone: false });
    assert_eq!(scene.refused(&keep_alive("south", &[])), Refusal::UnknownCluster { cluster: name("south") });
}

#[test]
fn the_end_of_a_node_removes_its_endpoints_as_one_revision() {
    let mut scene = with_endpoints();
    let before = scene.mesh.revision();
    let renewals = lease(&scene, "east", "n1").renewals;
    assert_eq!(scene.run(&expire("east", "n1", renewals)).unwrap().0, 3);
    assert_eq!(scene.mesh.revision(), before.next());
    assert_eq!(scene.mesh.endpoints().map(|endpoint| endpoint.cluster.as_str()).collect::<Vec<_>>(), ["west"]);
    assert!(scene.book.ledger().is_gone(&(name("east"), name("n1"))));
    assert!(scene.mesh.get(&RecordKey::Node(name("east"), name("n1"))).is_some(), "it is still registered");
    assert_eq!(scene.book.ledger().numbers().len(), 3, "its numbers wait for the grace");
    assert_eq!(scene.run(&expire("east", "n1", renewals)).unwrap().0, 0);
}

#[test]
fn a_sign_of_life_after_the_leader_looked_keeps_the_node() {
    let mut scene = with_endpoints();
    let seen = lease(&scene, "east", "n1").renewals;
    scene.run(&keep_alive("east", &[("n1", Revision(1))])).unwrap();
    assert_eq!(scene.run(&expire("east", "n1", seen)).unwrap().0, 0);
    assert!(!lease(&scene, "east", "n1").gone);
    // So does everything else that a living agent does.
    for command in
        [Command::PutNode(node("east", "n1", &["10.40.1.1"])), endpoint("east", "a", &["10.101.1.1"], &["k8s:app=a"])]
    {
        let seen = lease(&scene, "east", "n1").renewals;
        assert_eq!(scene.run(&command).unwrap().0, 0, "{command:?}");
        assert_eq!(scene.run(&expire("east", "n1", seen)).unwrap().0, 0, "{command:?}");
    }
    assert_eq!(lease(&scene, "east", "n1").realised, Revision(1));
}

#[test]
fn a_node_that_comes_back_is_live_and_one_that_is_removed_has_no_lease() {
    let mut scene = with_endpoints();
    scene.run(&expire("east", "n1", lease(&scene, "east", "n1").renewals)).unwrap();
    scene.run(&keep_alive("east", &[("n1", scene.mesh.revision())])).unwrap();
    assert!(!lease(&scene, "east", "n1").gone);
    scene.run(&endpoint("east", "a", &["10.101.1.1"], &["k8s:app=a"])).unwrap();
    scene.run(&Command::Delete(key("east", "a"))).unwrap();
    scene.run(&Command::Delete(RecordKey::Node(name("east"), name("n1")))).unwrap();
    scene.run(&Command::Delete(RecordKey::Cluster(name("east")))).unwrap();
    let rows: Vec<_> = scene.book.ledger().rows().map(|(key, _)| key).collect();
    let of_east = |key: &&RowKey| match key {
        RowKey::Lease((cluster, _)) | RowKey::Gateway(cluster) => cluster.as_str() == "east",
        _ => false,
    };
    assert_eq!(rows.iter().find(of_east), None);
}
