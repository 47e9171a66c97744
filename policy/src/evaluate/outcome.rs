//! What becomes of a flow, and what would become of it if nothing were under audit.

use super::{Conflict, Decision};

/// The outcome for one flow of a subject some of whose policies may be under audit, or all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the objects in force say.
    pub decision: Decision,
    /// The endpoint or its node is under audit: a refusal, also for want of authentication, is reported and let through
    /// (AUD-2). What a proxy refuses stays refused (AUD-3).
    pub audit: bool,
    /// What would be decided if the objects under audit counted, too; none if none of them selects the subject (AUD-5).
    pub shadow: Option<Result<Decision, Conflict>>,
}

impl Outcome {
    /// Whether the flow passes; through the proxy, as far as no request is looked at.
    #[must_use]
    pub const fn passes(&self) -> bool {
        self.audit || !self.decision.refuses()
    }

    /// Whether it passes although it is refused: verdict AUDIT of flow records (AUD-2).
    #[must_use]
    pub const fn is_audited(&self) -> bool {
        self.audit && self.decision.refuses()
    }

    /// Whether it passes, and would not without audit of either kind.
    #[must_use]
    pub fn would_be_refused(&self) -> bool {
        let shadow = matches!(&self.shadow, Some(Ok(shadow)) if shadow.refuses());
        self.is_audited() || self.passes() && shadow
    }
}
