//! Edits of ports and rows, kept until somebody takes them.

use crate::tables::{Edit, PortsKey, PortsOfProtocol, Row, RowKey, TableDiff};

/// In the order in which they happened.
#[derive(Debug, Default)]
pub(super) struct Edits {
    ports: Vec<Edit<PortsKey, PortsOfProtocol>>,
    rows: Vec<Edit<RowKey, Row>>,
    /// Beyond this many rows they are put together, so that a node that cannot move for long keeps no history.
    limit: usize,
}

const SMALLEST_LIMIT: usize = 1 << 16;

impl Edits {
    pub(super) fn port(&mut self, key: PortsKey, before: Option<PortsOfProtocol>, after: Option<PortsOfProtocol>) {
        self.ports.push(Edit { key, before, after });
    }

    pub(super) fn row(&mut self, key: RowKey, before: Option<Row>, after: Option<Row>) {
        if self.rows.len() >= self.limit.max(SMALLEST_LIMIT) {
            self.rows = put_together(std::mem::take(&mut self.rows));
            self.limit = 2 * self.rows.len();
        }
        self.rows.push(Edit { key, before, after });
    }

    /// All of them, each key once and in order.
    pub(super) fn take(&mut self) -> TableDiff {
        let Self { ports, rows, .. } = std::mem::take(self);
        TableDiff { ports: put_together(ports), rows: put_together(rows), ..TableDiff::default() }
    }
}

fn put_together<K: Ord + Copy, V: PartialEq>(mut edits: Vec<Edit<K, V>>) -> Vec<Edit<K, V>> {
    edits.sort_by_key(|edit| edit.key);
    edits.dedup_by(|later, earlier| {
        let same = later.key == earlier.key;
        if same {
            earlier.after = later.after.take();
        }
        same
    });
    edits.retain(|edit| edit.before != edit.after);
    edits
}
