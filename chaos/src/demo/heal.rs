//! Step 5: the cut ends.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Stage;
use super::expected::Quarantine;
use crate::testbed::topology::CUT_CLUSTER;

const CONVERGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs the step.
///
/// # Errors
/// When the mesh cannot be asked.
pub fn run(stage: &mut Stage) -> Result<()> {
    stage.report.step("5. The cut is healed");
    let begin = Instant::now();
    stage.bed.heal()?;
    let outcome = stage.bed.wait_for_one_revision(&["east"], CONVERGE_TIMEOUT);
    let elapsed = begin.elapsed();
    let (held, seen) = match &outcome {
        Ok(status) => (true, format!("revision {}", status.revision)),
        Err(error) => (false, format!("{error:#}")),
    };
    stage.report.expect(&format!("3 members, 3 gateways and 6 nodes are at one revision ({seen})"), held, &seen);
    stage.report.time("converge after healing", elapsed);
    if held {
        stage.rules.quarantine = Quarantine::Everywhere;
    }
    let matrix = stage.check_matrix("the quarantine is in force everywhere")?;
    println!("{}", matrix.table());
    write_through_the_healed_side(stage)
}

/// L2: the cut-off cluster's door takes writes again.
fn write_through_the_healed_side(stage: &mut Stage) -> Result<()> {
    let servers = stage.bed.gateways_of(&[CUT_CLUSTER]);
    let file = stage.policies.file(4);
    let file = file.to_string_lossy();
    let delete = ["policy", "delete", "-f", file.as_ref()];
    let answer = stage.bed.ringfence().call(&servers, Duration::from_secs(10), &delete)?;
    stage.report.expect(
        "west's gateway takes writes again: the quarantine is lifted",
        answer.is_success(),
        &answer.to_string(),
    );
    if answer.is_success() {
        stage.rules.quarantine = Quarantine::Nowhere;
        stage.bed.wait_for_one_revision(&[CUT_CLUSTER], CONVERGE_TIMEOUT)?;
        stage.check_matrix("the matrix is that of step 2 again")?;
    }
    Ok(())
}
