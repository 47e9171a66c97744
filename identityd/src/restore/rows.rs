//! The ledger in a backup.
//!
//! ```text
//! Ledger ─ kept ─► v1::LedgerRow (clock, counters, numbers) ─ backup file ─► rebuilt ─► Ledger of the new store
//! ```
//!
//! Signs of life are not kept: every node of the restored store has a fresh lease and has realised nothing, so nothing
//! leaves quarantine before each of them was heard. What a file from before the ledger lacks is derived from its records.

use std::collections::BTreeSet;

use ringfence_policy::{
    identity::{ClusterId, Identity},
    mesh::Mesh,
    name::Name,
    revision::Revision,
};
use ringfence_proto::{
    convert::InvalidMessage,
    v1::{LedgerRow, ledger_row},
};

use crate::machine::ledger::{Counter, Lease, Ledger, NumberState, Row, RowKey};

/// The rows of a backup.
#[must_use]
pub fn kept(ledger: &Ledger) -> Vec<LedgerRow> {
    ledger.rows().filter_map(|(key, row)| message(&key, row)).map(|row| LedgerRow { row: Some(row) }).collect()
}

fn message(key: &RowKey, row: Row) -> Option<ledger_row::Row> {
    Some(match (key, row) {
        (RowKey::Clock, Row::Clock(clock_ms)) => ledger_row::Row::ClockMs(clock_ms),
        (RowKey::Counter(id), Row::Counter(Counter { owner, last })) => {
            let (cluster_id, owner) = (u32::from(id.get()), owner.to_string());
            ledger_row::Row::Counter(ledger_row::Counter { cluster_id, owner, last })
        }
        (RowKey::Number(identity), Row::Number(state)) => {
            let state = match state {
                NumberState::Idle { since_ms } => ledger_row::number::State::IdleSinceMs(since_ms),
                NumberState::Quarantined { gone } => ledger_row::number::State::QuarantinedGone(gone.0),
                NumberState::Resting { until_ms } => ledger_row::number::State::RestingUntilMs(until_ms),
            };
            ledger_row::Row::Number(ledger_row::Number { identity: identity.bits(), state: Some(state) })
        }
        _ => return None,
    })
}

/// The ledger of a restored mesh.
///
/// # Errors
/// `InvalidMessage` for a row without meaning.
pub fn rebuilt(mesh: &Mesh, rows: Vec<LedgerRow>) -> Result<Ledger, InvalidMessage> {
    let mut ledger = Ledger::default();
    for LedgerRow { row } in rows {
        let (key, row) = parse(row.ok_or(InvalidMessage::Missing { field: "LedgerRow.row" })?)?;
        ledger.set(&key, Some(row));
    }
    for node in mesh.nodes() {
        let key = RowKey::Lease((node.cluster.clone(), node.name.clone()));
        ledger.set(&key, Some(Row::Lease(Lease::default())));
    }
    let used: BTreeSet<Identity> = mesh.endpoints().map(|endpoint| endpoint.identity).collect();
    let since_ms = ledger.clock_ms();
    for identity in mesh.identities().map(|record| record.identity) {
        if !used.contains(&identity) && !ledger.numbers().contains_key(&identity) {
            let idle = Row::Number(NumberState::Idle { since_ms });
            ledger.set(&RowKey::Number(identity), Some(idle));
        }
    }
    for cluster in mesh.clusters() {
        let numbers = mesh.identities().map(|record| record.identity);
        let last = numbers.filter(|identity| identity.cluster() == Some(cluster.id)).map(Identity::number).max();
        if let Some(last) = last.filter(|_| !ledger.counters().contains_key(&cluster.id)) {
            let counter = Counter { owner: cluster.name.clone(), last };
            ledger.set(&RowKey::Counter(cluster.id), Some(Row::Counter(counter)));
        }
    }
    Ok(ledger)
}

fn parse(row: ledger_row::Row) -> Result<(RowKey, Row), InvalidMessage> {
    Ok(match row {
        ledger_row::Row::ClockMs(clock_ms) => (RowKey::Clock, Row::Clock(clock_ms)),
        ledger_row::Row::Counter(ledger_row::Counter { cluster_id, owner, last }) => {
            let field = "LedgerRow.Counter.owner";
            let owner = Name::new(owner).map_err(|source| InvalidMessage::Name { field, source })?;
            let field = "LedgerRow.Counter.cluster_id";
            let id = ClusterId::new(cluster_id).map_err(|source| InvalidMessage::Identity { field, source })?;
            (RowKey::Counter(id), Row::Counter(Counter { owner, last }))
        }
        ledger_row::Row::Number(ledger_row::Number { identity, state }) => {
            let field = "LedgerRow.Number.identity";
            let cluster = ClusterId::new(identity / (Identity::MAX_NUMBER + 1));
            let identity = cluster.and_then(|id| Identity::global(id, Identity::from_bits(identity).number()));
            let identity = identity.map_err(|source| InvalidMessage::Identity { field, source })?;
            let state = match state.ok_or(InvalidMessage::Missing { field: "LedgerRow.Number.state" })? {
                ledger_row::number::State::IdleSinceMs(since_ms) => NumberState::Idle { since_ms },
                ledger_row::number::State::QuarantinedGone(gone) => NumberState::Quarantined { gone: Revision(gone) },
                ledger_row::number::State::RestingUntilMs(until_ms) => NumberState::Resting { until_ms },
            };
            (RowKey::Number(identity), Row::Number(state))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_policy::{
        label::LabelSet,
        record::{Change, Cluster, Delta, IdentityRecord, Node, Record},
    };

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn number(number: u32) -> Identity {
        Identity::global(ClusterId::new(1).unwrap(), number).unwrap()
    }

    /// Cluster east with node n1 and numbers 1 and 7, which nobody refers to.
    fn mesh() -> Mesh {
        let (cluster, id) = (name("east"), ClusterId::new(1).unwrap());
        let identity = |identity| Record::Identity(IdentityRecord { identity, labels: LabelSet::default() });
        let records = [
            Record::Cluster(Cluster { name: cluster.clone(), id, pod_cidrs: vec![] }),
            Record::Node(Node { cluster, name: name("n1"), addresses: vec![], labels: LabelSet::default() }),
            identity(number(1)),
            identity(number(7)),
        ];
        let mut mesh = Mesh::default();
        let changes = records.into_iter().map(Change::Put).collect();
        mesh.apply(&Delta { revision: Revision(1), changes }).unwrap();
        mesh
    }

    #[test]
    fn what_numbers_are_used_for_survives_and_leases_begin_anew() {
        let mut ledger = Ledger::default();
        let n1 = (name("east"), name("n1"));
        let rows = [
            (RowKey::Clock, Row::Clock(500)),
            (RowKey::Counter(number(1).cluster().unwrap()), Row::Counter(Counter { owner: name("east"), last: 40 })),
            (RowKey::Number(number(1)), Row::Number(NumberState::Idle { since_ms: 100 })),
            (RowKey::Number(number(7)), Row::Number(NumberState::Idle { since_ms: 200 })),
            (RowKey::Number(number(8)), Row::Number(NumberState::Quarantined { gone: Revision(9) })),
            (RowKey::Number(number(9)), Row::Number(NumberState::Resting { until_ms: 700 })),
        ];
        rows.iter().for_each(|(key, row)| ledger.set(key, Some(row.clone())));
        let mut expected = ledger.clone();
        let lived = Lease { renewals: 3, realised: Revision(5), gone: true };
        ledger.set(&RowKey::Lease(n1.clone()), Some(Row::Lease(lived)));
        ledger.set(&RowKey::Gateway(name("east")), Some(Row::Gateway(4)));
        expected.set(&RowKey::Lease(n1), Some(Row::Lease(Lease::default())));
        assert_eq!(rebuilt(&mesh(), kept(&ledger)).unwrap(), expected);
    }

    #[test]
    fn a_backup_from_before_the_ledger_gives_no_number_twice() {
        let ledger = rebuilt(&mesh(), Vec::new()).unwrap();
        assert_eq!(ledger.counters().values().map(|counter| counter.last).collect::<Vec<_>>(), [7]);
        let idle = NumberState::Idle { since_ms: 0 };
        assert_eq!(*ledger.numbers(), [(number(1), idle), (number(7), idle)].into_iter().collect());
        assert_eq!(ledger.leases().len(), 1);
    }

    #[test]
    fn rows_without_meaning_are_refused() {
        let with = |row| rebuilt(&Mesh::default(), vec![LedgerRow { row }]).unwrap_err().to_string();
        let state = Some(ledger_row::number::State::IdleSinceMs(1));
        assert_eq!(with(None), "LedgerRow.row is missing");
        let bits = ledger_row::Row::Number(ledger_row::Number { identity: 5, state });
        assert!(with(Some(bits)).starts_with("LedgerRow.Number.identity: "));
        let stateless = ledger_row::Row::Number(ledger_row::Number { identity: number(1).bits(), state: None });
        assert_eq!(with(Some(stateless)), "LedgerRow.Number.state is missing");
        let counter = ledger_row::Counter { cluster_id: 1, owner: "East".to_owned(), last: 1 };
        assert!(with(Some(ledger_row::Row::Counter(counter))).starts_with("LedgerRow.Counter.owner: "));
    }
}
