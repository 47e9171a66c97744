//! The demo: one mesh, four policies, a partition, two kills, and every expectation checked.
//!
//! ```text
//!  policies ──► matrix ──► cut west ──► kill leader and agent ──► heal ──► summary
//!      every step: act through the CLI ─► try real flows ─► compare with `expected` ─► report
//! ```

pub mod cut;
pub mod expected;
pub mod heal;
pub mod kill;
pub mod matrix;
pub mod policies;
pub mod preflight;
pub mod report;
pub mod run;

use anyhow::Result;

use crate::testbed::Testbed;
use expected::Rules;
use matrix::Matrix;
use policies::Policies;
use report::Report;

/// What the steps work on.
#[derive(Debug)]
pub struct Stage {
    /// The mesh.
    pub bed: Testbed,
    /// What was expected and seen.
    pub report: Report,
    /// The policy files.
    pub policies: Policies,
    /// The policies that should be in force now.
    pub rules: Rules,
}

impl Stage {
    /// Tries the whole matrix and decides the expectation.
    ///
    /// # Errors
    /// When a workload or an agent does not answer.
    pub fn check_matrix(&mut self, what: &str) -> Result<Matrix> {
        let matrix = Matrix::take(&mut self.bed, self.rules, |_| true)?;
        matrix.check(what, &mut self.report);
        Ok(matrix)
    }
}
