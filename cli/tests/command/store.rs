//! `ringfence store`: files of what the store holds.

use std::{fs, path::Path, sync::atomic::Ordering};

use ringfence_policy::{
    name::Name,
    record::{Node, Record},
};

use crate::{
    ringfence::{argument, run},
    server::TestMesh,
};

fn mesh() -> TestMesh {
    let mesh = TestMesh::start();
    let name = |text: &str| Name::new(text).unwrap();
    mesh.put([Record::Node(Node {
        cluster: name("east"),
        name: name("n1"),
        addresses: vec![],
        labels: ringfence_policy::label::LabelSet::default(),
    })]);
    mesh
}

fn names(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_snapshot_is_whole_or_not_there_and_can_be_checked_anywhere() {
    let (mesh, directory) = (mesh(), tempfile::tempdir().unwrap());
    let file = directory.path().join("mesh.snapshot");
    let save = ["store", "snapshot", "save", argument(&file)];
    mesh.store.cut_backups.store(true, Ordering::SeqCst);
    mesh.run(&save).exits(1).says(&["what was received is no good", "cut off"]);
    assert_eq!(names(directory.path()), Vec::<String>::new());

    mesh.store.cut_backups.store(false, Ordering::SeqCst);
    let saved = mesh.run(&save).exits(0);
    assert!(
        saved
            .stdout
            .contains("whole, revision 1 of store 00000000-0001-7101-8101-010101010101, saved by member 1 (east)"),
        "{saved:#?}"
    );
    mesh.run(&save).exits(1).says(&["exists already"]);
    let verify = ["store", "snapshot", "verify", argument(&file)];
    assert_eq!(run(&verify).exits(0).stdout, saved.stdout);
    let json: serde_json::Value = serde_json::from_str(&run(&[&verify[..], &["-o", "json"]].concat()).stdout).unwrap();
    assert_eq!((&json["nodes"], &json["policies"]), (&1.into(), &0.into()));

    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    run(&verify).exits(1).says(&["mesh.snapshot"]);
}

#[test]
fn a_backup_keeps_as_many_as_it_is_told_and_touches_nothing_else() {
    let (mesh, directory) = (mesh(), tempfile::tempdir().unwrap());
    for old in ["ringfence-000000000001.snapshot", "ringfence-000000000002.snapshot", "mine.snapshot"] {
        fs::write(directory.path().join(old), "").unwrap();
    }
    mesh.run(&["store", "backup", argument(directory.path()), "--keep", "2"]).exits(0);
    let names = names(directory.path());
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.iter().any(|name| name == "mine.snapshot") && !names.iter().any(|name| name.contains("0001.")));
}

#[test]
fn members_that_do_not_answer_are_named_and_the_command_fails() {
    let mesh = mesh();
    for command in ["status", "hash"] {
        let outcome = mesh.run(&["store", command]).exits(1).says(&["1 of 1 members did not answer: member 1"]);
        assert!(outcome.stdout.contains("MEMBER"), "{outcome:#?}");
    }
    mesh.run(&["store", "compact", "1"]).exits(1).says(&["member 1: "]);
}

#[test]
fn restore_runs_the_members_own_program() {
    let directory = tempfile::tempdir().unwrap();
    const ID: &str = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
    let restore = |program: &str| {
        let argument = argument(directory.path());
        run(&[
            "store",
            "snapshot",
            "restore",
            argument,
            "--config",
            "member.yaml",
            "--store-id",
            ID,
            "--identityd",
            program,
        ])
    };
    restore("/nowhere/identityd").exits(1).says(&["cannot run /nowhere/identityd"]);
    restore("false").exits(1).says(&["false restore failed"]);
    let told = restore("echo").exits(0).stdout;
    assert_eq!(
        told,
        format!("restore --config member.yaml --snapshot {} --store-id {ID}\n", directory.path().display())
    );
    let args = ["store", "snapshot", "restore", "x", "--config", "y", "--store-id", "mine", "--identityd", "echo"];
    run(&args).exits(2).says(&["--store-id", "UUID of version 7"]);
}
