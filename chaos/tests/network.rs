//! The namespaces by themselves: without any agent everything reaches everything, and the cut stops what it should.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use ringfence_chaos::run::cleanup;
use ringfence_chaos::run::directory::RunDirectory;
use ringfence_chaos::testbed::client::Workload;
use ringfence_chaos::testbed::network::{Network, endpoint_role, node_role};
use ringfence_chaos::testbed::process::{Launcher, Recipe};
use ringfence_chaos::testbed::topology::{self, CLUSTERS, CUT_CLUSTER, Endpoint};
use ringfence_chaos::workload::protocol::{Outcome, Request, Response};

/// Removes the run also when the test fails.
struct Removed(RunDirectory);

impl Drop for Removed {
    fn drop(&mut self) {
        cleanup::remove(&self.0, false).expect("the run is removed");
    }
}

fn workload(launcher: &Launcher, endpoint: Endpoint, role: String) -> Workload {
    let recipe = Recipe {
        name: format!("workload-{role}"),
        role,
        program: PathBuf::from(env!("CARGO_BIN_EXE_ringfence-demo")),
        arguments: vec!["workload".to_owned()],
        piped: true,
    };
    let mut workload =
        Workload::new(endpoint, launcher.start(recipe).expect("the workload starts")).expect("it has pipes");
    assert!(matches!(workload.receive().expect("it answers"), Response::Ready));
    workload
}

fn probe(workload: &mut Workload, targets: Vec<SocketAddr>) -> Vec<Outcome> {
    match workload.ask(&Request::Probe { targets, timeout_ms: 600 }).expect("it answers") {
        Response::Probed { outcomes } => outcomes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_is_reachable_and_a_cut_separates_infrastructure_only() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        println!("skipped: network namespaces need root");
        return;
    }
    let run = RunDirectory::create().unwrap();
    fs::create_dir(run.logs()).unwrap();
    let removed = Removed(run.clone());
    let network = Network::create(&run).unwrap();
    let launcher = Launcher::new(&run, Some(network.clone()), false);
    let mut endpoints: Vec<Workload> = topology::endpoints()
        .into_iter()
        .map(|endpoint| workload(&launcher, endpoint, endpoint_role(endpoint)))
        .collect();
    let everyone: Vec<SocketAddr> = topology::endpoints()
        .iter()
        .flat_map(|endpoint| endpoint.addresses())
        .map(|address| SocketAddr::new(address, 8080))
        .collect();
    for workload in &mut endpoints {
        let outcomes = probe(workload, everyone.clone());
        let name = workload.endpoint;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Connected), "from {name}: {outcomes:?}");
    }

    // The same process, in the namespaces of nodes, stands for the control plane's traffic.
    let nodes = topology::nodes();
    let mut on_nodes: Vec<Workload> =
        nodes.iter().map(|node| workload(&launcher, node.endpoints()[0], node_role(*node))).collect();
    let node_targets: Vec<SocketAddr> =
        nodes.iter().flat_map(|node| node.addresses()).map(|address| SocketAddr::new(address, 9090)).collect();
    let cut = CLUSTERS.into_iter().find(|cluster| cluster.name == CUT_CLUSTER).unwrap();
    network.cut(cut).unwrap();
    for (node, workload) in nodes.iter().zip(&mut on_nodes) {
        let outcomes = probe(workload, node_targets.clone());
        for (index, outcome) in outcomes.iter().enumerate() {
            let other = nodes[index / 2];
            let together = (node.cluster == cut) == (other.cluster == cut);
            let expected = if together { Outcome::Connected } else { Outcome::TimedOut };
            assert_eq!(*outcome, expected, "{node} to {other} during the cut");
        }
    }
    let during = probe(&mut endpoints[0], everyone);
    assert!(during.iter().all(|outcome| *outcome == Outcome::Connected), "endpoints during the cut: {during:?}");
    network.heal().unwrap();
    let after = probe(&mut on_nodes[0], node_targets);
    assert!(after.iter().all(|outcome| *outcome == Outcome::Connected), "after healing: {after:?}");

    drop(removed);
    assert!(!run.path().exists() && cleanup::processes(&run).is_empty());
}
