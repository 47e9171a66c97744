//! Step 4: the store's leader and an agent are killed while traffic flows.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Stage;
use super::matrix::Matrix;
use crate::testbed::Mode;
use crate::testbed::flow::{Family, Flow};
use crate::testbed::ringfence::Status;
use crate::testbed::topology::{self, CUT_CLUSTER, Endpoint, Node};
use crate::workload::protocol::{HammerPlan, HammerReport, Request, Response};

const BEFORE: Duration = Duration::from_millis(1500);
const DEAD: Duration = Duration::from_secs(2);
const RECOVER_TIMEOUT: Duration = Duration::from_secs(30);

/// One client and what it does to whom.
struct Client {
    source: Endpoint,
    allowed: Vec<Flow>,
    denied: Vec<Flow>,
}

/// Runs the step.
///
/// # Errors
/// When the mesh cannot be asked, or a process cannot be started again.
pub fn run(stage: &mut Stage) -> Result<()> {
    stage.report.step("4. kill -9 of the store's leader and of an agent");
    let clients = clients(stage)?;
    let before = arrived(stage, &clients)?;
    if stage.bed.mode() == Mode::Kernel {
        for client in &clients {
            let targets = |flows: &[Flow]| flows.iter().map(Flow::target).collect();
            let plan = HammerPlan { allowed: targets(&client.allowed), denied: targets(&client.denied) };
            stage.report.say(&describe(client));
            stage.bed.ask(client.source, &Request::Hammer(plan))?;
        }
        thread::sleep(BEFORE);
    } else {
        stage.report.say("no packets in this mode: the agents of the other nodes are asked");
    }
    let leader = leader(stage)?;
    let node = topology::nodes()[0];
    let died = Instant::now();
    kill(stage, &leader, node)?;
    // The memory datapath dies with its agent: there, only the other nodes can be asked.
    let concerns = |flow: &Flow| flow.source.node != node && flow.destination.node != node;
    let all = stage.bed.mode() == Mode::Kernel;
    Matrix::take(&mut stage.bed, stage.rules, |flow| all || concerns(flow))?
        .check("both dead, no verdict has changed", &mut stage.report);
    thread::sleep(DEAD.saturating_sub(died.elapsed()));
    stage.bed.agent(node)?.restart()?;
    stage.bed.member(&leader)?.restart()?;
    wait_for_recovery(stage, node)?;
    if stage.bed.mode() == Mode::Kernel {
        let mut total = HammerReport::default();
        for client in &clients {
            let Response::Hammered(report) = stage.bed.ask(client.source, &Request::Stop)? else {
                bail!("the workload {} did not report what became of its traffic", client.source);
            };
            total = total.merged(report);
        }
        let through = arrived(stage, &clients)? - before;
        check_traffic(stage, &total, through);
    }
    stage.check_matrix("both are back, no verdict has changed")?;
    Ok(())
}

fn kill(stage: &mut Stage, leader: &str, node: Node) -> Result<()> {
    let agent = stage.bed.agent(node)?;
    let agent_id = agent.id();
    agent.kill()?;
    let member = stage.bed.member(leader)?;
    let member_id = member.id();
    member.kill()?;
    stage.report.say(&format!(
        "killed: the agent of {node} (process {agent_id}), the leader in {leader} (process {member_id})"
    ));
    Ok(())
}

/// Traffic within a node, across clusters, and to the cut-off cluster; denied ports, and the flows of the quarantine.
fn clients(stage: &Stage) -> Result<Vec<Client>> {
    let find = |cluster: &str, name: &str| -> Result<Endpoint> {
        let found = topology::endpoints().into_iter().find(|e| e.node.cluster.name == cluster && e.name == name);
        found.with_context(|| format!("no endpoint {cluster}/{name}"))
    };
    let web = find("east", "web-1")?;
    let south_web = find("south", "web-1")?;
    let apis = [find("east", "api-1")?, find("south", "api-1")?, find(CUT_CLUSTER, "api-1")?];
    let flow = |source, destination, port, family| Flow { source, destination, family, port };
    let clients = vec![
        Client {
            source: web,
            allowed: vec![
                flow(web, apis[0], 8080, Family::Four),
                flow(web, apis[1], 8080, Family::Six),
                flow(web, apis[2], 8080, Family::Four),
            ],
            denied: apis.iter().flat_map(|api| [Family::Four, Family::Six].map(|f| flow(web, *api, 9090, f))).collect(),
        },
        Client {
            source: south_web,
            allowed: vec![flow(south_web, apis[2], 8080, Family::Six)],
            denied: vec![flow(south_web, apis[0], 8080, Family::Four), flow(south_web, apis[0], 8080, Family::Six)],
        },
    ];
    for client in &clients {
        let wrong =
            client.allowed.iter().any(|f| !stage.rules.allow(f)) || client.denied.iter().any(|f| stage.rules.allow(f));
        if wrong {
            bail!("the drill's plan for {} does not fit the policies in force", client.source);
        }
    }
    Ok(clients)
}

fn describe(client: &Client) -> String {
    let names =
        |flows: &[Flow]| flows.iter().map(|f| format!("{}:{}", f.destination, f.port)).collect::<Vec<_>>().join(", ");
    format!("{} hammers allowed {} and denied {}", client.source, names(&client.allowed), names(&client.denied))
}

/// What has arrived over the clients' denied flows, at the receivers.
fn arrived(stage: &mut Stage, clients: &[Client]) -> Result<u64> {
    if stage.bed.mode() == Mode::Memory {
        return Ok(0);
    }
    // A counter covers both families, so each pair is counted once.
    let four = clients.iter().flat_map(|client| &client.denied).filter(|flow| flow.family == Family::Four);
    four.map(|flow| stage.bed.arrived(flow.source, flow.destination, flow.port)).sum()
}

fn leader(stage: &Stage) -> Result<String> {
    let servers = stage.bed.gateways_of(&["east", "south"]);
    let status = stage.bed.ringfence().status(&servers)?;
    let leader = status.members.iter().find(|member| member.state == "leader" && member.cluster != CUT_CLUSTER);
    Ok(leader.context("the majority has no leader")?.cluster.clone())
}

/// The connected clusters have a leader, two live members, and their nodes report the head's revision; the node whose
/// agent was killed has done so since.
fn wait_for_recovery(stage: &mut Stage, restarted: Node) -> Result<()> {
    let begin = Instant::now();
    let missing = |status: &Status| {
        let live = status.members.iter().filter(|m| m.cluster != CUT_CLUSTER && m.revision == status.revision);
        let states: Vec<&str> = live.map(|member| member.state.as_str()).collect();
        if !states.contains(&"leader") || !states.contains(&"follower") {
            return Some(format!("the connected members are {states:?}"));
        }
        let mut connected = status.nodes.iter().filter(|node| node.cluster != CUT_CLUSTER);
        let lagging = connected.find(|node| {
            let is_restarted = node.cluster == restarted.cluster.name && node.name == restarted.name();
            let is_old = is_restarted && Duration::from_millis(node.report_age_ms) >= begin.elapsed();
            is_old || !node.reported || node.realised_revision != status.revision
        });
        lagging.map(|node| format!("{}/{} lags: {:?}", node.cluster, node.name, node.problems))
    };
    stage.bed.wait(&["east"], RECOVER_TIMEOUT, "leader and agent to be back", missing)?;
    stage.report.time("leader and agent are back after their restart", begin.elapsed());
    Ok(())
}

fn check_traffic(stage: &mut Stage, total: &HammerReport, through: u64) {
    let report = &mut stage.report;
    let denied =
        format!("{} connection attempts and {} datagrams to denied ports", total.denied_attempts, total.datagrams);
    let none = through == 0 && total.denied_connected == 0 && total.denied_attempts > 0 && total.datagrams > 0;
    report.expect(
        &format!("{denied}: none arrived"),
        none,
        &format!("{through} arrived, {} connected", total.denied_connected),
    );
    let whole = total.broken.is_empty() && total.exchanges > 0;
    let what = format!("{} exchanges on established connections: none failed", total.exchanges);
    report.expect(&what, whole, &total.broken.join(", "));
    let fresh = total.failed.is_empty() && total.slow == 0 && total.connected > 0;
    let what = format!("{} new connections to allowed ports: none failed, no SYN was lost", total.connected);
    let failures = &total.failed[..total.failed.len().min(5)];
    report.expect(
        &what,
        fresh,
        &format!("{} failed, {} slow: {}", total.failed.len(), total.slow, failures.join(", ")),
    );
    report.figure(
        "denied attempts during the kills",
        format!("{} (0 arrived expected, {through} seen)", total.denied_attempts + total.datagrams),
    );
    report.figure("exchanges on established connections", total.exchanges.to_string());
    let late = format!("{} ({} late while the machine stood still)", total.connected, total.stalled);
    report.figure("new connections", if total.stalled == 0 { total.connected.to_string() } else { late });
    let gap = Duration::from_micros(total.longest_gap_us);
    report.figure("longest gap of an established connection", format!("{:.1} ms", gap.as_secs_f64() * 1000.0));
}
