//! The table, exhaustively: every role × every request × every site, with and without somebody to speak for.

use super::*;
use ringfence_policy::{
    command::{Command, FqdnSpec, Housekeeping},
    identity::{ClusterId, Identity},
    l7::dns_name::DnsName,
    label::LabelSet,
    name::Name,
    record::{MeshSettings, RecordKey, ServiceRecord},
};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn role(text: &str) -> Role {
    text.parse().unwrap()
}

const ROLES: [&str; 7] =
    ["member/1", "gateway/east", "gateway/west", "agent/east/n1", "agent/west/n1", "admin/alice", "reader/bob"];

const VIEWS: [&str; 3] = ["view east/n1", "view east/n2", "view west/n1"];

fn node(cluster: &str, node: &str) -> Scope {
    Scope::Node { cluster: name(cluster), node: name(node) }
}

/// Every kind of request; `own` marks what belongs to cluster east and node east/n1.
fn requests() -> Vec<(&'static str, Access)> {
    let mut all = vec![("read", Access::Read), ("raft", Access::Raft), ("administer", Access::Administer)];
    all.extend([("raft as 1", Access::RaftAs(1)), ("raft as 2", Access::RaftAs(2))]);
    let scopes = || {
        [
            ("mesh", Scope::Mesh),
            ("east", Scope::Cluster(name("east"))),
            ("west", Scope::Cluster(name("west"))),
            ("east/n1", node("east", "n1")),
            ("east/n2", node("east", "n2")),
            ("west/n1", node("west", "n1")),
            ("unknown", Scope::Unknown),
        ]
    };
    for (word, (cluster, node)) in VIEWS.into_iter().zip([("east", "n1"), ("east", "n2"), ("west", "n1")]) {
        all.push((word, Access::View { cluster: name(cluster), node: name(node) }));
    }
    all.extend(
        scopes()
            .map(|(word, scope)| (Box::leak(format!("write {word}").into_boxed_str()) as &str, Access::Write(scope))),
    );
    all.extend(
        scopes()
            .map(|(word, scope)| (Box::leak(format!("report {word}").into_boxed_str()) as &str, Access::Report(scope))),
    );
    all
}

/// What a caller may do at a site, in the words of `requests`.
fn allowed(site: &Site, caller: &str, asker: Option<&str>) -> Vec<&'static str> {
    let caller = Caller { role: role(caller), on_behalf_of: asker.map(role) };
    requests()
        .into_iter()
        .filter(|(_, access)| authorise(site, &caller, access).is_ok())
        .map(|(word, _)| word)
        .collect()
}

fn all_but(excluded: &[&str]) -> Vec<&'static str> {
    requests().into_iter().map(|(word, _)| word).filter(|word| !excluded.contains(word)).collect()
}

#[test]
fn the_table_at_the_store() {
    for caller in ROLES {
        let expected = match caller {
            "member/1" => all_but(&[VIEWS[0], VIEWS[1], VIEWS[2], "raft as 2"]),
            "admin/alice" => all_but(&["raft", "raft as 1", "raft as 2", VIEWS[0], VIEWS[1], VIEWS[2]]),
            "reader/bob" => vec!["read"],
            "gateway/east" => vec![
                "read",
                "write east",
                "write east/n1",
                "write east/n2",
                "report east",
                "report east/n1",
                "report east/n2",
            ],
            "gateway/west" => vec!["read", "write west", "write west/n1", "report west", "report west/n1"],
            _ => vec![],
        };
        assert_eq!(allowed(&Site::Store, caller, None), expected, "{caller}");
    }
}

#[test]
fn the_table_at_a_gateway() {
    let site = Site::Gateway(name("east"));
    for caller in ROLES {
        let expected = match caller {
            "admin/alice" => all_but(&["raft", "raft as 1", "raft as 2", "administer", VIEWS[0], VIEWS[1], VIEWS[2]]),
            "reader/bob" => vec!["read"],
            "agent/east/n1" => vec!["read", "view east/n1", "write east/n1", "report east/n1"],
            _ => vec![],
        };
        assert_eq!(allowed(&site, caller, None), expected, "{caller}");
    }
}

#[test]
fn only_a_gateway_speaks_for_others_and_only_at_the_store() {
    for caller in ROLES {
        for asker in ROLES {
            assert_eq!(
                allowed(&Site::Gateway(name("east")), caller, Some(asker)),
                Vec::<&str>::new(),
                "{caller} for {asker}"
            );
            let expected = match (caller, asker) {
                ("gateway/east", "admin/alice") => {
                    vec!["read", "write mesh", "write east", "write east/n1", "write east/n2"]
                }
                ("gateway/west", "admin/alice") => vec!["read", "write mesh", "write west", "write west/n1"],
                ("gateway/east", "agent/east/n1") => vec!["read", "write east/n1"],
                ("gateway/west", "agent/west/n1") => vec!["read", "write west/n1"],
                _ => vec![],
            };
            assert_eq!(allowed(&Site::Store, caller, Some(asker)), expected, "{caller} for {asker}");
        }
    }
}

/// Whether east's gateway may, whether it may for an admin, whether the agent of east/n1 may at its gateway.
fn may(command: &Command) -> [bool; 3] {
    let caller = |role_: &str, asker: Option<&str>| Caller { role: role(role_), on_behalf_of: asker.map(role) };
    let callers = [
        (Site::Store, caller("gateway/east", None)),
        (Site::Store, caller("gateway/east", Some("admin/alice"))),
        (Site::Gateway(name("east")), caller("agent/east/n1", None)),
    ];
    let asked = Access::of_command(command);
    assert!(!asked.is_empty(), "{command:?} would be everybody's");
    callers.map(|(site, caller)| asked.iter().all(|access| authorise(&site, &caller, access).is_ok()))
}

#[test]
fn every_command_is_its_owners() {
    let service = |cluster: &str| ServiceRecord {
        cluster: name(cluster),
        namespace: name("shop"),
        name: name("web"),
        labels: LabelSet::default(),
        cluster_addresses: vec![],
        ports: vec![],
        selector: [].into(),
        backends: vec![],
    };
    let bound =
        |cluster: &str| FqdnSpec { cluster: name(cluster), name: DnsName::new("a.example.com"), addresses: vec![] };
    let block = |cluster: &str| Command::ReturnBlock { cluster: name(cluster), holder: name("g1") };
    let (own, mesh, nobody) = ([true, true, false], [false, true, false], [false; 3]);
    let cases = [
        (Command::KeepAlive { cluster: name("east"), nodes: vec![] }, own),
        (Command::KeepAlive { cluster: name("west"), nodes: vec![] }, nobody),
        (Command::GrantBlock { cluster: name("east"), holder: name("g1"), count: 1 }, own),
        (Command::GrantBlock { cluster: name("west"), holder: name("g1"), count: 1 }, nobody),
        (block("east"), own),
        (block("west"), nobody),
        (Command::PutServices(vec![service("east")]), own),
        (Command::PutServices(vec![service("east"), service("west")]), nobody),
        (Command::PutServices(vec![]), mesh),
        (Command::PutFqdns(vec![bound("east")]), own),
        (Command::PutFqdns(vec![bound("west"), bound("east")]), nobody),
        (Command::PutFqdns(vec![]), mesh),
        (Command::PutSettings(MeshSettings::default()), mesh),
        (Command::PutObjects { policies: vec![], groups: vec![] }, mesh),
        (Command::ReleaseIdentity(Identity::global(ClusterId::new(1).unwrap(), 1).unwrap()), mesh),
        (Command::Delete(RecordKey::CidrGroup(name("partners"))), mesh),
        (Command::Delete(RecordKey::Settings), mesh),
        (Command::Delete(RecordKey::Service(name("east"), name("shop"), name("web"))), own),
        (Command::Delete(RecordKey::Fqdn(name("west"), DnsName::new("a.example.com"))), nobody),
        (Command::Delete(RecordKey::Node(name("east"), name("n1"))), [true; 3]),
        (Command::Housekeeping(Housekeeping::Tick { now_ms: 1 }), nobody),
    ];
    for (command, expected) in cases {
        assert_eq!(may(&command), expected, "{command:?}");
    }
}

#[test]
fn a_refusal_says_what_it_is_and_what_it_may_not() {
    let caller = Caller { role: role("agent/east/n1"), on_behalf_of: None };
    let access = Access::Write(node("east", "n2"));
    let refusal = authorise(&Site::Gateway(name("east")), &caller, &access).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "agent/east/n1 may not change records of node east/n2 here: an agent writes and reports only its own node and \
         that node's endpoints"
    );
}
