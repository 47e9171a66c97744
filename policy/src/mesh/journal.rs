//! What records were before the newest changes, bounded.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::{
    record::{Record, RecordKey, Versioned},
    revision::Revision,
};

/// How many changes are remembered at most.
pub(super) const CHANGES: usize = 4096;

#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    /// The revision before the oldest step.
    start: Revision,
    /// Shared: a copy of the mesh costs little more for them.
    steps: VecDeque<Arc<Step>>,
    changes: usize,
}

/// One revision.
#[derive(Debug)]
struct Step {
    revision: Revision,
    /// Changed records, as they were before.
    former: Vec<(RecordKey, Option<Arc<Versioned>>)>,
}

impl Journal {
    /// Nothing is known of what was before a revision.
    pub(super) const fn from(start: Revision) -> Self {
        Self { start, steps: VecDeque::new(), changes: 0 }
    }

    pub(super) fn push(&mut self, revision: Revision, former: Vec<(RecordKey, Option<Arc<Versioned>>)>) {
        self.changes += former.len();
        self.steps.push_back(Arc::new(Step { revision, former }));
        while self.changes > CHANGES
            && let Some(oldest) = self.steps.pop_front()
        {
            self.changes -= oldest.former.len();
            self.start = oldest.revision;
        }
    }

    pub(super) fn since(&self, revision: Revision) -> Option<BTreeMap<&RecordKey, Option<&Record>>> {
        if revision < self.start {
            return None;
        }
        let after = self.steps.partition_point(|step| step.revision <= revision);
        let mut former = BTreeMap::new();
        for (key, record) in self.steps.range(after..).flat_map(|step| &step.former) {
            former.entry(key).or_insert(record.as_deref().map(|versioned| &versioned.record));
        }
        Some(former)
    }
}
