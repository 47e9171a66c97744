//! Commands. The first byte says how the rest came: as a client sends one (protobuf), or as members send several
//! (`codec`). What decodes is carried out by the state machine.

use std::sync::LazyLock;

use prost::Message as _;
use ringfence_identityd::{
    codec,
    machine::{Book, transition},
    raft::batch::{Batch, Proposal},
};
use ringfence_policy::{
    command::{Command, EndpointSpec, Housekeeping},
    identity::ClusterId,
    label::{Label, LabelSet},
    mesh::Mesh,
    name::Name,
    record::{Cluster, Delta, Node},
};
use ringfence_proto::v1;

/// A mesh with a cluster, nodes, endpoints, an idle number, one in quarantine and a block.
static SCENE: LazyLock<(Mesh, Book)> = LazyLock::new(|| {
    let mut scene = (Mesh::default(), Book::default());
    for command in &beginning() {
        run(&mut scene, command);
    }
    scene
});

/// Decodes commands, encodes them again, and lets the state machine carry them out.
pub(crate) fn exercise(bytes: &[u8]) -> bool {
    let (Some(mode), body) = (bytes.first(), bytes.get(1..).unwrap_or_default()) else { return false };
    let commands = if *mode == 0 {
        let Some(command) = v1::Command::decode(body).ok().and_then(|message| Command::try_from(message).ok()) else {
            return false;
        };
        let again = Command::try_from(v1::Command::from(command.clone()));
        assert_eq!(again.as_ref(), Ok(&command));
        vec![command]
    } else {
        let Ok(commands) = codec::decode::<Vec<Command>>(body) else { return false };
        commands
    };
    let encoded = codec::encode(&Batch::join(commands.iter().cloned().map(Proposal::new).collect()));
    let batch: Batch = codec::decode(&encoded).expect("what was encoded decodes");
    assert_eq!(batch.take().as_ref(), Ok(&commands));
    let mut scene = SCENE.clone();
    for command in &commands {
        run(&mut scene, command);
    }
    // Time passes over what they did.
    for _ in 0..3 {
        let now_ms = scene.1.ledger().clock_ms().saturating_add(Housekeeping::MAX_STEP_MS);
        run(&mut scene, &Command::Housekeeping(Housekeeping::Tick { now_ms }));
    }
    let (mesh, book) = scene;
    assert!(
        book == Book::of(&mesh, book.ledger().clone()),
        "the index follows mesh and ledger, whatever {commands:?} did"
    );
    true
}

/// Carries out a command as the applier does; nothing changes where it is refused.
fn run((mesh, book): &mut (Mesh, Book), command: &Command) {
    let Ok(transition) = transition(mesh, book, command) else { return };
    book.apply(&transition);
    let (changes, _) = transition.into_parts();
    if !changes.is_empty() {
        let delta = Delta { revision: mesh.revision().next(), changes };
        mesh.apply(&delta).expect("it is the next revision");
    }
}

fn beginning() -> Vec<Command> {
    let name = |text: &str| Name::new(text).expect("a name");
    let labels = |app: &str| -> LabelSet { [Label::new("k8s", "app", app)].into_iter().collect() };
    let mut commands = Vec::new();
    for (id, cluster) in [(1, "east"), (2, "west")] {
        let pod_cidrs = vec![format!("10.10{id}.0.0/16").parse().expect("a range")];
        let id = ClusterId::new(id).expect("an id");
        commands.push(Command::PutCluster(Cluster { name: name(cluster), id, pod_cidrs }));
        commands.push(Command::PutNode(Node {
            cluster: name(cluster),
            name: name("n1"),
            addresses: vec![],
            labels: LabelSet::default(),
        }));
    }
    for (number, app) in ["web", "api"].into_iter().enumerate() {
        commands.push(Command::PutEndpoint(EndpointSpec {
            cluster: name("east"),
            node: name("n1"),
            name: name(app),
            addresses: vec![format!("10.101.0.{}", number + 1).parse().expect("an address")],
            labels: labels(app),
            named_ports: vec![],
        }));
    }
    commands.push(Command::AllocateIdentity { cluster: name("west"), labels: labels("idle") });
    commands.push(Command::GrantBlock { cluster: name("east"), holder: name("gateway"), count: 16 });
    commands
}
