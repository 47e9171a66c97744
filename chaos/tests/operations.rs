//! The operator's pages, run as they are written: every block of docs/operations/store.md and certificates.md, in its order,
//! against real members on loopback.
//!
//! ```text
//! page ─► sections ─► blocks ─ addresses, directories put into the test's own ─► bash, on the machine that the text names
//!                                               `systemctl` and the daemon in the foreground ─► a real identityd, kept here
//! ```
//!
//! A machine is a directory with its own `/etc/ringfence`, `/var/lib/ringfence` and home. What people carry from one machine to
//! the other, this test copies where the text says so. A block that no step runs fails the test.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::binaries;

/// What a test waits for at most.
const PATIENCE: Duration = Duration::from_secs(30);
const POLICY: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: kept, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: api}}
  ingress: [{fromEndpoints: [{matchLabels: {app: web}}]}]
";

/// The blocks of a page by section, in their order; each is run once.
struct Page {
    name: &'static str,
    blocks: BTreeMap<String, Vec<String>>,
    run: BTreeSet<(String, usize)>,
}

impl Page {
    fn read(name: &'static str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations").join(name);
        let text = fs::read_to_string(path).expect("the page");
        let (mut blocks, mut section, mut block) = (BTreeMap::<_, Vec<String>>::new(), String::new(), None::<String>);
        for line in text.lines() {
            match (&mut block, line) {
                (Some(open), "```") => {
                    blocks.entry(section.clone()).or_default().push(std::mem::take(open));
                    block = None;
                }
                (Some(open), line) => *open += &format!("{line}\n"),
                (None, line) if line.starts_with("```") => block = Some(String::new()),
                (None, line) => {
                    if let Some(title) = line.strip_prefix("## ") {
                        title.clone_into(&mut section);
                    }
                }
            }
        }
        Self { name, blocks, run: BTreeSet::new() }
    }

    /// The block of a section with a number from 1.
    fn block(&mut self, section: &str, number: usize) -> String {
        self.run.insert((section.to_owned(), number));
        let blocks = self.blocks.get(section).unwrap_or_else(|| panic!("{}: no section {section:?}", self.name));
        blocks.get(number - 1).unwrap_or_else(|| panic!("{}: {section} has no block {number}", self.name)).clone()
    }

    fn everything_was_run(&self) {
        let all = self.blocks.iter().flat_map(|(name, blocks)| (1..=blocks.len()).map(|number| (name.clone(), number)));
        let left: Vec<_> = all.filter(|block| !self.run.contains(block)).collect();
        assert!(left.is_empty(), "{}: no step runs {left:?}", self.name);
    }
}

/// A place with files of its own, and perhaps a member of the store.
struct Machine {
    root: PathBuf,
    /// Pairs that are replaced in what a page says.
    own: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    member: Option<Child>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Machine {
    fn new(directory: &Path, name: &str, network: u8, host: &str) -> Self {
        let root = directory.join(name);
        for folder in ["home", "work", "etc/ringfence/tls", "var/lib/ringfence", "var/backups"] {
            fs::create_dir_all(root.join(folder)).expect("a directory");
        }
        let own = |from: &str, to: String| (from.to_owned(), to);
        let inside = |path: &str| own(&format!("/{path}"), root.join(path).display().to_string());
        let own = vec![
            own("127.0.0.1:7410", format!("127.{network}.{host}:7410")),
            own("10.40.", format!("127.{network}.")),
            inside("etc/ringfence"),
            inside("var/lib/ringfence"),
            inside("var/backups/ringfence"),
        ];
        let home = root.join("home").display().to_string();
        let path = std::env::var("PATH").expect("a path");
        let path = format!("{}:{path}", binaries().display());
        let environment = vec![("HOME".to_owned(), home), ("PATH".to_owned(), path)];
        Self { root, own, environment, member: None }
    }

    fn own(&self, text: &str) -> String {
        self.own.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// Runs a block; it must succeed.
    fn run(&mut self, block: &str) -> String {
        let (output, text) = self.try_run(block);
        assert!(output.status.success(), "{block}failed:\n{text}{}", self.log());
        text
    }

    fn try_run(&mut self, block: &str) -> (Output, String) {
        let block = self.own(block);
        let mut script = String::new();
        for line in block.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["systemctl", "start", "identityd"] => self.start(),
                ["systemctl", "stop", "identityd"] => self.stop(),
                ["systemctl", "restart", "identityd"] => {
                    self.stop();
                    self.start();
                }
                ["identityd", "--config", _] => self.start(),
                ["export", ..] => {
                    let pairs = line["export ".len()..].split(' ').filter_map(|pair| pair.split_once('='));
                    for (name, value) in pairs {
                        let value = value.replace("$HOME", &self.root.join("home").display().to_string());
                        self.environment.push((name.to_owned(), value));
                    }
                }
                _ => script += &format!("{line}\n"),
            }
        }
        let mut bash = Command::new("bash");
        bash.args(["-e", "-u", "-o", "pipefail", "-c", &script]).current_dir(self.root.join("work")).env_clear();
        let output = bash.envs(self.environment.iter().cloned()).stdin(Stdio::null()).output().expect("bash runs");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("$ {}\n{text}", block.trim_end().replace('\n', "\n$ "));
        (output, text)
    }

    /// Runs a command of the CLI that has JSON for an answer.
    fn json(&mut self, command: &str) -> serde_json::Value {
        let text = self.run(&format!("{command} -o json\n"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{command}: {error}: {text}"))
    }

    fn config(&self) -> PathBuf {
        self.root.join("etc/ringfence/identityd.yaml")
    }

    fn start(&mut self) {
        assert!(self.member.is_none(), "it runs already");
        let log = fs::File::options().create(true).append(true).open(self.root.join("log")).expect("a log");
        let mut command = Command::new(binaries().join("identityd"));
        command.arg("--config").arg(self.config()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.member = Some(command.spawn().expect("identityd starts"));
    }

    /// As a service manager does: asks, waits, and wants success.
    fn stop(&mut self) {
        let mut member = self.member.take().expect("it runs");
        let id = member.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill runs").success());
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = member.try_wait().expect("a child of ours") {
                break status;
            }
            assert!(Instant::now() < deadline, "identityd does not stop\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "identityd stopped with {status}\n{}", self.log());
    }

    /// As the power does.
    fn kill(&mut self) {
        if let Some(mut member) = self.member.take() {
            drop(member.kill());
            drop(member.wait());
        }
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.root.join("log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(15).collect();
        tail.into_iter().rev().map(|line| format!("  {line}\n")).collect()
    }
}

/// The machines of a store, and the one with the authority where an admin sits.
struct Site {
    directory: PathBuf,
    network: u8,
    admin: Machine,
    members: BTreeMap<u64, Machine>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.members.clear();
        drop(fs::remove_dir_all(&self.directory));
    }
}

const CLUSTERS: [(u64, &str, &str); 3] = [(1, "east", "1.10"), (2, "west", "2.10"), (3, "south", "3.10")];

impl Site {
    /// Machines with no file yet.
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("ringfence-{name}-{}", std::process::id()));
        // All of 127.0.0.0/8 is this machine's; two runs at once rarely meet.
        let of_test = name.bytes().map(u32::from).sum::<u32>();
        let network = u8::try_from(40 + (std::process::id() + of_test) % 200).expect("below 256");
        let admin = Machine::new(&directory, "admin", network, "9.10");
        let members = CLUSTERS.map(|(id, _, host)| (id, Machine::new(&directory, &format!("m{id}"), network, host)));
        Self { directory, network, admin, members: members.into() }
    }

    fn member(&mut self, id: u64) -> &mut Machine {
        self.members.get_mut(&id).expect("a machine")
    }

    /// Carries the authority's certificate and a member's own two files to its machine.
    fn carry_certificates(&mut self) {
        let from = self.admin.root.join("work/tls");
        for (id, machine) in &self.members {
            for file in ["ca.crt".to_owned(), format!("member-{id}.crt"), format!("member-{id}.key")] {
                if from.join(&file).exists() {
                    // Beside, then renamed: a process may read at any moment.
                    let to = machine.root.join("etc/ringfence/tls");
                    fs::copy(from.join(&file), to.join("carried")).expect("a file to carry");
                    fs::rename(to.join("carried"), to.join(file)).expect("a name");
                }
            }
        }
        let own = self.admin.root.join("home/.ringfence");
        if own.exists() {
            for (file, to) in [("ca.crt", "ca.crt"), ("admin-me.crt", "tls.crt"), ("admin-me.key", "tls.key")] {
                fs::copy(from.join(file), own.join(to)).expect("the admin's files");
            }
        }
    }

    /// Writes the first members' files out of the first one's.
    fn configure(&mut self, file_of_first: &str) {
        for (id, cluster, host) in CLUSTERS {
            let text = file_of_first
                .replacen("id: 1\ncluster: east", &format!("id: {id}\ncluster: {cluster}"), 1)
                .replacen("listen: 10.40.1.10", &format!("listen: 10.40.{host}"), 1)
                .replace("member-1.", &format!("member-{id}."));
            let machine = self.member(id);
            fs::write(machine.config(), machine.own(&text)).expect("a configuration file");
        }
    }

    /// A machine for a member that joins, with its configuration file.
    fn join(&mut self, id: u64, host: &str, file: &str) {
        let machine = Machine::new(&self.directory, &format!("m{id}"), self.network, host);
        fs::write(machine.config(), machine.own(file)).expect("a configuration file");
        self.members.insert(id, machine);
        self.carry_certificates();
    }

    /// "Once the status shows no lag": every member of the list answers, one leads, nobody is behind.
    fn wait_for_no_lag(&mut self, members: &[u64]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (output, text) = self.admin.try_run("ringfence store status -o json\n");
            let rows: Vec<serde_json::Value> = if output.status.success() {
                serde_json::from_slice(&output.stdout).expect("rows")
            } else {
                Vec::new()
            };
            let ids: Vec<u64> = rows.iter().filter_map(|row| row["id"].as_u64()).collect();
            let level = rows.iter().all(|row| row["lag"] == 0 && row["applied_index"] == rows[0]["applied_index"]);
            let leads = rows.iter().any(|row| row["state"] == "leader");
            if ids == members && level && leads {
                return;
            }
            assert!(Instant::now() < deadline, "members {members:?} do not agree: {text}\n{}", self.member(1).log());
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The page about the store, from its beginning to its end.
#[test]
fn every_step_of_the_page_about_the_store_does_what_it_says() {
    let (mut page, mut site) = (Page::read("store.md"), Site::new("store-page"));
    let began = Instant::now();
    begin(&mut page, &mut site);
    every_day(&mut page, &mut site);
    add_and_remove(&mut page, &mut site);
    replace(&mut page, &mut site);
    lose_the_majority(&mut page, &mut site);
    restore(&mut page, &mut site);
    compact_and_upgrade(&mut page, &mut site);
    page.everything_was_run();
    println!("the page about the store: {:?}", began.elapsed());
}

fn begin(page: &mut Page, site: &mut Site) {
    let surroundings = page.block("", 1);
    site.admin.run(&surroundings);
    site.admin.run(&page.block("Begin", 1));
    site.admin.run(&page.block("Begin", 2));
    let file = page.block("Begin", 3);
    site.configure(&file);
    site.carry_certificates();
    let (start, ready) = (page.block("Begin", 4), page.block("Begin", 5));
    let (ready, status) = ready.split_once("\nringfence").expect("a probe, then the status");
    (1..=3).for_each(|id| drop(site.member(id).run(&start)));
    (1..=3).for_each(|id| assert!(site.member(id).run(ready).starts_with("ok\n")));
    let text = site.admin.run(&format!("ringfence{status}"));
    assert!(text.contains("leader") && !text.contains("unreachable"), "{text}");
    fs::write(site.admin.root.join("work/kept.yaml"), POLICY).expect("a policy");
    site.admin.run("ringfence policy apply -f kept.yaml\n");
}

fn every_day(page: &mut Page, site: &mut Site) {
    site.wait_for_no_lag(&[1, 2, 3]);
    site.admin.run(&page.block("Every day", 1));
    let backups = fs::read_dir(site.admin.root.join("var/backups/ringfence")).expect("a directory of backups");
    assert_eq!(backups.count(), 1);
    let verified = site.admin.run(&page.block("Every day", 2));
    assert!(verified.lines().all(|line| line.contains("whole") && line.contains("1 policies")), "{verified}");
}

fn add_and_remove(page: &mut Page, site: &mut Site) {
    let section = "Add a member";
    site.admin.run(&page.block(section, 1));
    let file = page.block(section, 2);
    site.join(4, "1.11", &file);
    site.member(4).run(&page.block(section, 3));
    wait_until_listening(site, 4);
    site.admin.run(&page.block(section, 4));
    site.wait_for_no_lag(&[1, 2, 3, 4]);
    site.admin.run(&page.block(section, 5));
    wait_until_it_votes(site, 4);

    let section = "Remove a member";
    site.admin.run(&page.block(section, 1));
    assert_eq!(states(site).keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    site.member(4).run(&page.block(section, 2));
    site.admin.run(&page.block(section, 3));
    site.members.remove(&4);
    site.carry_certificates();
}

fn replace(page: &mut Page, site: &mut Site) {
    site.member(3).kill();
    let lost = site.member(3).root.join("var/lib/ringfence");
    fs::remove_dir_all(lost).expect("the disk is lost");
    let section = "Replace a member whose disk or machine is lost";
    site.admin.run(&page.block(section, 1));
    site.members.remove(&3);
    let file = page.block("Add a member", 2);
    let file = file.replacen("id: 4\ncluster: east", "id: 5\ncluster: south", 1);
    site.join(5, "3.11", &file.replace("10.40.1.11", "10.40.3.11").replace("member-4.", "member-5."));
    site.member(5).run(&page.block("Add a member", 3));
    wait_until_listening(site, 5);
    site.admin.run(&page.block(section, 2));
    site.wait_for_no_lag(&[1, 2, 5]);
    site.admin.run(&page.block(section, 3));
    wait_until_it_votes(site, 5);
}

fn lose_the_majority(page: &mut Page, site: &mut Site) {
    let section = "The majority is lost";
    [2, 5].into_iter().for_each(|id| site.member(id).kill());
    let read = site.admin.run(&page.block(section, 1));
    assert!(read.contains("kept"), "{read}");
    let (output, text) = site.admin.try_run("ringfence --timeout 2 policy delete cnp shop/kept\n");
    assert!(!output.status.success(), "a minority writes nothing: {text}");
    let saved = site.admin.run(&page.block(section, 2));
    assert!(saved.contains("1 policies"), "{saved}");
}

fn restore(page: &mut Page, site: &mut Site) {
    let section = "Restore";
    let before = site.admin.json("RINGFENCE_SERVER=10.40.1.10:7400 ringfence store snapshot verify rescue.snapshot");
    for machine in site.members.values() {
        let (from, to) = (site.admin.root.join("work/rescue.snapshot"), machine.root.join("work/rescue.snapshot"));
        fs::copy(from, to).expect("the file is carried");
    }
    let first = page.block(section, 1);
    let (output, proposal) = site.member(1).try_run(&first);
    assert!(!output.status.success() && proposal.contains("whole"), "{proposal}");
    let id = proposal.split("--store-id ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("an id");
    let (aside, make) = (page.block(section, 2), page.block(section, 3));
    let (example, _) = make.split_once('\n').expect("the id, then the command");
    // The ones that are down are stopped already.
    let stop = |line: &str, runs: bool| runs || !line.starts_with("systemctl");
    for member in [1, 2, 5] {
        let machine = site.member(member);
        let runs = machine.member.is_some();
        let lines = aside.lines().filter(|line| stop(line, runs)).map(|line| format!("{line}\n"));
        machine.run(&lines.collect::<String>());
        let text = fs::read_to_string(machine.config()).expect("its file");
        let list = "members:\n- {id: 1, cluster: east, address: '10.40.1.10:7400'}\n- {id: 2, cluster: west, address: '10.40.2.10:7400'}\n\
                    - {id: 5, cluster: south, address: '10.40.3.11:7400'}\n";
        let others = |line: &&str| !line.starts_with("members:") && !line.starts_with("- {id") && *line != "join: true";
        let rest: String = text.lines().filter(others).map(|line| format!("{line}\n")).collect();
        fs::write(machine.config(), format!("{rest}{}", machine.own(list))).expect("its new file");
        let made = machine.run(&make.replace(example, &format!("export STORE_ID={id}")));
        assert!(made.contains(&format!("store {id} goes on from revision")), "{made}");
    }
    let start = page.block(section, 4);
    [1, 2, 5].into_iter().for_each(|member| drop(site.member(member).run(&start)));
    site.admin.environment.retain(|(name, _)| name != "RINGFENCE_SERVER");
    site.admin.run("export RINGFENCE_SERVER=10.40.1.10:7400,10.40.2.10:7400,10.40.3.11:7400\n");
    site.wait_for_no_lag(&[1, 2, 5]);
    site.admin.run(&page.block(section, 5));
    let rows = site.admin.json("ringfence store status");
    let rows = rows.as_array().expect("rows");
    assert!(rows.iter().all(|row| row["store_id"] == id), "{rows:?}");
    assert!(rows[0]["revision"].as_u64() > before["revision"].as_u64().map(|revision| revision + 999_999), "{rows:?}");
    assert!(site.admin.run("ringfence policy get\n").contains("kept"));
}

fn compact_and_upgrade(page: &mut Page, site: &mut Site) {
    let revision = site.admin.json("ringfence store status")[0]["revision"].to_string();
    let text = site.admin.run(&page.block("Memory", 1).replace("120000", &revision));
    assert_eq!(text.matches(&format!("resumes from {revision}")).count(), 3, "{text}");
    let (status, restart) = (page.block("Upgrade", 1), page.block("Upgrade", 2));
    let leader = states(site).into_iter().find(|(_, state)| state == "leader").expect("a leader").0;
    for member in [1, 2, 5].into_iter().filter(|id| *id != leader).chain([leader]) {
        site.admin.run(&status);
        site.member(member).run(&restart);
        site.wait_for_no_lag(&[1, 2, 5]);
    }
    let log = fs::read_to_string(site.member(leader).root.join("log")).expect("a log");
    assert!(log.contains("leadership handed over"), "{}", site.member(leader).log());
}

/// The page about certificates, while the store runs: nobody is locked out at any step, and who is revoked is.
#[test]
fn every_step_of_the_page_about_certificates_does_what_it_says() {
    let (mut page, mut site) = (Page::read("certificates.md"), Site::new("certificates-page"));
    let mut store = Page::read("store.md");
    let surroundings = store.block("", 1);
    site.admin.run(&surroundings);
    let shown = site.admin.run(&page.block("Begin", 1));
    assert!(shown.contains("agent/east/n1"), "{shown}");
    site.admin.run(&store.block("Begin", 2));
    site.configure(&store.block("Begin", 3));
    site.carry_certificates();
    (1..=3).for_each(|id| site.member(id).start());
    site.wait_for_no_lag(&[1, 2, 3]);

    site.admin.run(&page.block("One more", 1));
    assert!(site.admin.root.join("work/tls/reader-dashboard.crt").exists());
    let before = fs::read(site.member(1).root.join("etc/ringfence/tls/member-1.crt")).expect("a certificate");
    site.admin.run(&page.block("Before one ends", 1));
    carry_and_wait(&mut site, &[1]);
    let after = fs::read(site.member(1).root.join("etc/ringfence/tls/member-1.crt")).expect("a certificate");
    assert_ne!(before, after);
    site.wait_for_no_lag(&[1, 2, 3]);

    site.admin.run(&page.block("A key was lost", 1));
    carry_and_wait(&mut site, &[1, 2, 3]);
    let shown = site.admin.run("ringfence ca show --dir tls\n");
    assert!(shown.contains("revoked"), "{shown}");
    site.wait_for_no_lag(&[1, 2, 3]);

    let section = "A new authority";
    site.admin.run(&page.block(section, 1));
    carry_and_wait(&mut site, &[1, 2, 3]);
    site.wait_for_no_lag(&[1, 2, 3]);
    site.admin.run(&page.block(section, 2));
    carry_and_wait(&mut site, &[1, 2, 3]);
    site.wait_for_no_lag(&[1, 2, 3]);
    site.admin.run(&page.block(section, 3));
    carry_and_wait(&mut site, &[1, 2, 3]);
    site.wait_for_no_lag(&[1, 2, 3]);
    page.everything_was_run();
}

/// Gives everybody the files, and waits until these members have taken them into use.
fn carry_and_wait(site: &mut Site, members: &[u64]) {
    let reloads = |site: &mut Site, id: u64| {
        let text = site.member(id).run("curl --fail --silent --show-error http://127.0.0.1:7410/metrics\n");
        let line = text.lines().find(|line| line.starts_with("ringfence_tls_reloads_total{result=\"ok\"}"));
        let count = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or_default();
        (count, text.contains("\nringfence_tls_files_refused 0"))
    };
    let before: Vec<u64> = members.iter().map(|id| reloads(site, *id).0).collect();
    site.carry_certificates();
    let deadline = Instant::now() + PATIENCE;
    for (id, before) in members.iter().zip(before) {
        while !matches!(reloads(site, *id), (count, true) if count > before) {
            assert!(Instant::now() < deadline, "member {id} does not take the new files\n{}", site.member(*id).log());
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// The states of the members by their ids.
fn states(site: &mut Site) -> BTreeMap<u64, String> {
    let members = site.admin.json("ringfence store member list");
    let members = members.as_array().expect("members").iter();
    let state = |member: &serde_json::Value| Some((member["id"].as_u64()?, member["state"].as_str()?.to_owned()));
    members.filter_map(state).collect()
}

/// What a member knows of the others is a ping old.
fn wait_until_it_votes(site: &mut Site, id: u64) {
    let deadline = Instant::now() + PATIENCE;
    while states(site).get(&id).is_none_or(|state| state != "follower") {
        assert!(Instant::now() < deadline, "member {id} does not vote");
        thread::sleep(Duration::from_millis(100));
    }
}

/// A process that was just started listens a moment later; a person is slower than that.
fn wait_until_listening(site: &mut Site, id: u64) {
    let machine = site.member(id);
    let address = machine.own("127.0.0.1:7410");
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(&address).is_err() {
        assert!(Instant::now() < deadline, "member {id} does not listen\n{}", machine.log());
        thread::sleep(Duration::from_millis(20));
    }
}
