//! What a change of the mesh costs a node's compiler.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ringfence_policy::{
    compile::{Compiler, LocalNode},
    identity::Identity,
    label::LabelSet,
    mesh::Mesh,
    name::Name,
    record::{Change, Delta, Endpoint, IdentityRecord, PolicyRecord, Record},
    tables::{EndpointId, Tables},
};

use super::{median, time};
use crate::workload::{self, PODS};

const ENDPOINTS: u32 = 100_000;
const ENDPOINTS_OF_NODE: u32 = 100;
const CHANGED: u32 = 100;

/// The changes of the nth revision.
type Changes<'c> = &'c dyn Fn(u32) -> Vec<Change>;

/// Prints how long following takes beside compiling everything anew.
pub(super) fn print() {
    println!("\nA node with {ENDPOINTS_OF_NODE} endpoints, {ENDPOINTS} addresses of {PODS} identities, workload A2\n");
    let mut mesh = mesh();
    let local = local();
    let mut in_force = Tables::default();
    let mut compiler = Compiler::default();
    let start = time(|| follow(&mut compiler, &mesh, &local, &mut in_force));
    println!("| step | time |\n| --- | ---: |");
    println!("| everything ({} rows), once | {start:.1?} |", in_force.rows.len());
    let moved = |round: u32| {
        let endpoint = move |i: u32| Record::Endpoint(endpoint(ENDPOINTS / 2 + i, 1 + round % 2).into());
        (0..CHANGED).map(endpoint).map(Change::Put).collect()
    };
    let new_identities = |round: u32| {
        let identity = move |i: u32| {
            let record = identity(PODS + 100 * i);
            if round.is_multiple_of(2) { Change::Put(record) } else { Change::Delete(record.key()) }
        };
        (0..CHANGED).map(identity).collect()
    };
    let policy = |round: u32| {
        // A range of ports from 10000 to 10020, or a little further.
        let PolicyRecord { key, text } = policies().swap_remove(1);
        let last = 10_021 + round % 2;
        let text = text.replace("\"endPort\":10020", &format!("\"endPort\":{last}"));
        vec![Change::Put(Record::Policy(PolicyRecord { key, text }))]
    };
    let cases: [(&str, Changes<'_>); 3] = [
        ("100 endpoints with other addresses", &moved),
        ("100 identities that come or go", &new_identities),
        ("a policy with another range of ports", &policy),
    ];
    for (name, changes) in cases {
        let mut times: Vec<Duration> = Vec::new();
        let mut edits = 0;
        for round in 0..40 {
            let revision = mesh.revision().next();
            mesh.apply(&Delta { revision, changes: changes(round) }).expect("it is the next revision");
            let mut diff = None;
            times.push(time(|| diff = Some(compiler.compile(&mesh, &local, &in_force).expect("all is known").diff)));
            let diff = diff.expect("it was just compiled");
            edits = edits.max(diff.len());
            in_force.apply(&diff);
            compiler.realised();
        }
        println!("| {name} (up to {edits} edits) | {:.1?} |", median(times));
    }
}

fn follow(compiler: &mut Compiler, mesh: &Mesh, local: &LocalNode, in_force: &mut Tables) {
    let diff = compiler.compile(mesh, local, in_force).expect("all is known").diff;
    in_force.apply(&diff);
    compiler.realised();
}

fn mesh() -> Mesh {
    let identities = (0..PODS).map(identity);
    let endpoints = (0..ENDPOINTS).map(|i| Record::Endpoint(endpoint(i, 0).into()));
    let records = identities.chain(endpoints).chain(policies().into_iter().map(Record::Policy));
    let mut mesh = Mesh::default();
    let changes = records.map(Change::Put).collect();
    mesh.apply(&Delta { revision: mesh.revision().next(), changes }).expect("it is the first revision");
    mesh
}

fn policies() -> Vec<PolicyRecord> {
    let objects = workload::decode(&workload::policies_a(false));
    objects.into_iter().map(|object| PolicyRecord { key: object.key, text: object.text }).collect()
}

fn local() -> LocalNode {
    let endpoint = |i: u32| (name(&format!("pod-{i}")), EndpointId(i + 1));
    let endpoints: BTreeMap<Name, EndpointId> = (0..ENDPOINTS_OF_NODE).map(endpoint).collect();
    LocalNode { endpoints, ..LocalNode::new(name("default"), name("node-0")) }
}

fn identity(i: u32) -> Record {
    let (identity, labels) = workload::pod(i);
    Record::Identity(IdentityRecord { identity, labels })
}

/// The `i`th endpoint, the `nth` time.
fn endpoint(i: u32, nth: u32) -> Endpoint {
    Endpoint {
        cluster: name("default"),
        node: name(&format!("node-{}", i / ENDPOINTS_OF_NODE)),
        name: name(&format!("pod-{i}")),
        addresses: vec![IpAddr::V4(Ipv4Addr::from_bits((10 << 24) + (nth << 20) + i))],
        labels: LabelSet::default(),
        identity: Identity::from_bits(1000 + i % PODS),
        named_ports: Vec::new(),
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("it is a name")
}
