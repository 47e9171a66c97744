//! Step 3: a cluster is cut off.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Stage;
use super::expected::Quarantine;
use crate::testbed::Mode;
use crate::testbed::ringfence::{Applied, EXIT_TIMED_OUT, NodeName, Status};
use crate::testbed::topology::{self, CLUSTERS, CUT_CLUSTER};

const MAJORITY_TIMEOUT: Duration = Duration::from_secs(30);
/// Long enough for the connected nodes to realise the deny by far, short enough to wait in vain for the others.
const WAIT: Duration = Duration::from_secs(6);
/// The staleness that the cut-off gateway has to show before the drill goes on.
const STALENESS_MS: u64 = 2500;

const STATUS_TIMEOUT: Duration = Duration::from_secs(15);
/// Room for the gateway to try every member and to hear from its own why it cannot.
const MINORITY_TIMEOUT: Duration = Duration::from_secs(10);
/// What a refusal must speak of: of the quorum, or of the members that the gateway cannot reach.
const REASONS: [&str; 2] = ["no quorum of the store", "no member of the store could answer"];

/// Runs the step.
///
/// # Errors
/// When the mesh cannot be asked.
pub fn run(stage: &mut Stage) -> Result<()> {
    stage.report.step("3. west is cut off from east and south");
    let begin = Instant::now();
    stage.bed.cut()?;
    stage.report.say(match stage.bed.mode() {
        Mode::Kernel => {
            "nft in the fabric drops every packet between west's nodes and control plane and the others' \
             (10.40.2.0/24, fd40::2:0/112);\n             packets between endpoints still travel, so that verdicts can be tried"
        }
        Mode::Memory => "the relays in front of the store's members pass no byte between west and the others",
    });
    wait_for_majority_leader(stage, begin)?;
    stage.check_matrix("cut off, nothing has changed for packets")?;
    check_staleness(stage)?;
    apply_on_majority(stage)?;
    write_on_minority(stage)?;
    stage.check_matrix("the quarantine is in force in east and south, west judges by the revision it has")?;
    Ok(())
}

fn wait_for_majority_leader(stage: &mut Stage, begin: Instant) -> Result<()> {
    let leads = |status: &Status| {
        let leader = status.members.iter().any(|m| m.state == "leader" && m.cluster != CUT_CLUSTER);
        (!leader).then(|| "no leader on the majority side".to_owned())
    };
    stage.bed.wait(&["east"], MAJORITY_TIMEOUT, "a leader on the majority side", leads)?;
    stage.report.time("the majority has a leader after the cut", begin.elapsed());
    Ok(())
}

/// S11: the cut-off side shows its staleness, and it grows.
fn check_staleness(stage: &mut Stage) -> Result<()> {
    let first = stage.bed.wait(&[CUT_CLUSTER], STATUS_TIMEOUT, "west's gateway to answer", |_| None)?.staleness_ms;
    let grown = move |status: &Status| {
        let wanted = STALENESS_MS.max(first + 1000);
        (status.staleness_ms < wanted).then(|| format!("staleness is {} ms", status.staleness_ms))
    };
    let outcome = stage.bed.wait(&[CUT_CLUSTER], STATUS_TIMEOUT, "west's gateway to show its staleness", grown);
    let (held, seen) = match &outcome {
        Ok(status) => (true, format!("from {first} ms to {} ms", status.staleness_ms)),
        Err(error) => (false, format!("{error:#}")),
    };
    stage.report.expect(&format!("`status` of west's gateway shows growing staleness ({seen})"), held, &seen);
    Ok(())
}

fn apply_on_majority(stage: &mut Stage) -> Result<()> {
    let servers = stage.bed.gateways_of(&["east", "south"]);
    let file = stage.policies.file(4);
    stage.report.say(&format!("a new deny through east's gateway, waiting {} s for all nodes", WAIT.as_secs()));
    let answer = stage.bed.ringfence().apply(&servers, &[&file], WAIT)?;
    stage.rules.quarantine = Quarantine::NotInTheCutCluster;
    let code = answer.code == Some(EXIT_TIMED_OUT);
    stage.report.expect("`policy apply --wait` ends with exit code 4 (timed out)", code, &answer.to_string());
    let waited = answer.json::<Applied>().ok().and_then(|applied| applied.waited);
    let (realised, lagging) = waited.map(|waited| (set(waited.realised), set(waited.lagging))).unwrap_or_default();
    let (cut, connected): (BTreeSet<String>, BTreeSet<String>) =
        topology::nodes().iter().map(ToString::to_string).partition(|name| name.starts_with(CUT_CLUSTER));
    stage.report.expect(
        &format!("it names the nodes that lag: {}", join(&cut)),
        lagging == cut,
        &format!("lagging: {}; {answer}", join(&lagging)),
    );
    let what = format!("it is realised on the others: {}", join(&connected));
    stage.report.expect(&what, realised == connected, &format!("realised: {}", join(&realised)));
    Ok(())
}

/// S11: a minority commits nothing mesh-wide.
fn write_on_minority(stage: &mut Stage) -> Result<()> {
    let (minority, majority) = (stage.bed.gateways_of(&[CUT_CLUSTER]), stage.bed.gateways_of(&["east", "south"]));
    let file = stage.policies.file(5);
    let file = file.to_string_lossy();
    let apply = ["policy", "apply", "-f", file.as_ref()];
    let answer = stage.bed.ringfence().call(&minority, MINORITY_TIMEOUT, &apply)?;
    let says_why = REASONS.iter().any(|reason| answer.message.contains(reason));
    let refused = answer.code.is_some_and(|code| code != 0) && says_why;
    stage.report.expect("a write through west's gateway is refused, and says why", refused, &answer.to_string());
    stage.report.say(&format!("it says: {}", answer.message.split_whitespace().collect::<Vec<_>>().join(" ")));
    let list = stage.bed.ringfence().call(&majority, Duration::from_secs(10), &["-o", "json", "policy", "get"])?;
    let list = list.expect_success()?;
    let absent = list.output.contains("quarantine-south-web") && !list.output.contains("refused-on-the-minority");
    stage.report.expect("nothing of it is in the store", absent, &list.output);
    Ok(())
}

fn set(nodes: Vec<NodeName>) -> BTreeSet<String> {
    nodes.into_iter().map(|node| format!("{}/{}", node.cluster, node.name)).collect()
}

fn join(names: &BTreeSet<String>) -> String {
    if names.is_empty() { "none".to_owned() } else { names.iter().cloned().collect::<Vec<_>>().join(", ") }
}

const _: () = assert!(CLUSTERS.len() == 3, "a majority of two is what this step is about");
