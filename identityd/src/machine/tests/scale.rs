//! L3: collection keeps up with garbage, hour after hour.

use std::time::Instant;

use ringfence_policy::record::{Endpoint, IdentityRecord};

use super::*;

const STANDING: u32 = 60_000;
const PODS_PER_SECOND: u32 = 40;
const LIFE_SECONDS: u32 = 60;
const HOURS: u32 = 2;

fn pod(number: u32) -> (String, IpAddr, LabelSet) {
    let address = IpAddr::from((0x0a65_0000 + number % 0xffff).to_be_bytes());
    let labels = labels(&[&format!("k8s:job=j{number}"), "k8s:io.cilium.k8s.policy.cluster=east"]);
    (format!("pod-{number}"), address, labels)
}

/// `STANDING` endpoints with a label set each, put past the commands.
fn standing() -> Scene {
    let mut scene = Scene::new();
    let records = (1..=STANDING).flat_map(|at| {
        let identity = number(1, at).unwrap();
        let labels = labels(&[&format!("k8s:app=a{at}"), "k8s:io.cilium.k8s.policy.cluster=east"]);
        let endpoint = Endpoint {
            cluster: name("east"),
            node: name("n1"),
            name: name(&format!("standing-{at}")),
            addresses: vec![IpAddr::from((0x0b00_0000 + at).to_be_bytes())],
            labels: labels.clone(),
            identity,
            named_ports: vec![],
        };
        [Record::Identity(IdentityRecord { identity, labels }), Record::Endpoint(endpoint.into())]
    });
    scene.put(records);
    scene
}

#[test]
fn l3_collection_keeps_up_with_40_pods_a_second_at_60_000_identities() {
    let mut scene = standing();
    // Expressions are slow without optimisation, and not what is tested here.
    let mut settings = MeshSettings::default();
    settings.label_filter.replaces_defaults = true;
    scene.run_unchecked(&Command::PutSettings(settings)).unwrap();
    let started = Instant::now();
    let (mut most_changes, mut most_rows, mut most_identities) = (0, 0, 0);
    for second in 0..HOURS * 3600 {
        for number in second * PODS_PER_SECOND..(second + 1) * PODS_PER_SECOND {
            let (pod_name, address, labels) = pod(number);
            let spec = EndpointSpec {
                cluster: name("east"),
                node: name("n1"),
                name: name(&pod_name),
                addresses: vec![address],
                labels,
                named_ports: vec![],
            };
            scene.run_unchecked(&Command::PutEndpoint(spec)).unwrap();
            if let Some(old) = number.checked_sub(LIFE_SECONDS * PODS_PER_SECOND) {
                scene.run_unchecked(&Command::Delete(key("east", &pod(old).0))).unwrap();
            }
        }
        if second % 5 == 0 {
            let now_ms = u64::from(second) * 1000;
            let tick = Command::Housekeeping(Housekeeping::Tick { now_ms });
            most_changes = most_changes.max(scene.run_unchecked(&tick).unwrap().0);
            for cluster in ["east", "west"] {
                scene.run_unchecked(&keep_alive(cluster, &[("n1", scene.mesh.revision())])).unwrap();
            }
        }
        most_rows = most_rows.max(scene.book.ledger().numbers().len());
        if second % 60 == 0 {
            most_identities = most_identities.max(scene.book.usage(&scene.mesh)[&name("east")].in_use);
        }
    }
    let usage = scene.book.usage(&scene.mesh)[&name("east")];
    println!(
        "{HOURS} h simulated in {:?}: {usage:?}, at most {most_identities} identities, {most_rows} numbers at rest, \
         {most_changes} changes in a revision",
        started.elapsed()
    );
    // A life, a grace, a quarantine and some steps of the clock, 40 numbers a second: what is in flight, and no more.
    let per_minute = PODS_PER_SECOND * 60;
    assert!(most_identities < STANDING + per_minute * (1 + 15 + 1), "{most_identities} identities");
    assert!(most_rows < (per_minute * (15 + 10 + 1)) as usize, "{most_rows} numbers at rest");
    assert!(most_changes <= tick::MOST_PER_TICK);
    assert_eq!(usage.in_use - usage.idle, STANDING + LIFE_SECONDS * PODS_PER_SECOND);
    scene.check_book(&Command::PutPolicies(vec![]));
}
