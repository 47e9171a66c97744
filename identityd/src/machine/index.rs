//! What a transition must find quickly: derived from mesh and ledger, kept up to date change by change.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ringfence_policy::{
    command::{IdentityUsage, Refusal},
    identity::{ClusterId, Identity},
    label::LabelSet,
    label_filter::LabelFilter,
    mesh::Mesh,
    name::Name,
    record::{BoundAddress, Change, Endpoint, FqdnRecord, MeshSettings, Record, RecordKey},
    revision::Revision,
};

use super::{
    Transition,
    ledger::{Counter, Ledger, NumberState, Row, RowKey},
    numbers::Numbers,
};

/// Label set → number, address → owner, number → how many refer to it, which numbers are free, and what is due when.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Index {
    by_labels: HashMap<LabelSet, Identity>,
    addresses: HashMap<IpAddr, Owner>,
    references: HashMap<Identity, u32>,
    numbers: BTreeMap<ClusterId, Numbers>,
    /// Idle numbers, by the time since when they are.
    pub(super) idle: BTreeSet<(u64, Identity)>,
    /// Quarantined numbers, by the first revision without them.
    pub(super) quarantined: BTreeSet<(Revision, Identity)>,
    /// Resting numbers, by the time when they are free.
    pub(super) resting: BTreeSet<(u64, Identity)>,
    /// DNS names, by the time when their first address expires.
    pub(super) expiring: BTreeSet<(u64, RecordKey)>,
    pub(super) settings: MeshSettings,
    pub(super) filter: LabelFilter,
}

/// Whose an address is: a record that lies in the mesh anyway, or its key.
#[derive(Debug, Clone, PartialEq)]
enum Owner {
    Endpoint(Arc<Endpoint>),
    Node(Arc<RecordKey>),
}

impl Owner {
    /// Of an address of a record that has some.
    fn of(record: &Record) -> Option<Self> {
        match record {
            Record::Endpoint(endpoint) => Some(Self::Endpoint(endpoint.clone())),
            Record::Node(_) => Some(Self::Node(Arc::new(record.key()))),
            _ => None,
        }
    }

    fn key(&self) -> RecordKey {
        match self {
            Self::Endpoint(endpoint) => endpoint.key(),
            Self::Node(key) => RecordKey::clone(key),
        }
    }
}

impl Index {
    pub(super) fn of(mesh: &Mesh, ledger: &Ledger) -> Self {
        let mut index = Self::default();
        mesh.records().values().for_each(|versioned| index.insert(&versioned.record, None));
        for (identity, state) in ledger.numbers().iter() {
            index.insert_state(*identity, *state);
        }
        index
    }

    /// Follows what one command does; the ledger is still as before.
    pub(super) fn apply(&mut self, transition: &Transition, ledger: &Ledger) {
        // Everything old first: within one revision an address may move from one record to another.
        for (change, former) in transition.changes() {
            if let Some(old) = former {
                self.remove(&old.record, put(change));
            }
        }
        for (change, former) in transition.changes() {
            if let Some(new) = put(change) {
                self.insert(new, former.map(|former| &former.record));
            }
        }
        for (key, row) in transition.rows.iter() {
            let RowKey::Number(identity) = key else { continue };
            if let Some(old) = ledger.numbers().get(identity) {
                self.remove_state(*identity, *old);
            }
            if let Some(Row::Number(new)) = row {
                self.insert_state(*identity, *new);
            }
        }
    }

    /// The number of a label set (cluster label included), if it has one.
    pub(super) fn number(&self, labels: &LabelSet) -> Option<Identity> {
        self.by_labels.get(labels).copied()
    }

    /// The same label set as the mesh has it already, so that nobody holds it twice.
    pub(super) fn shared(&self, labels: LabelSet) -> LabelSet {
        self.by_labels.get_key_value(&labels).map_or(labels, |(shared, _)| shared.clone())
    }

    /// How many endpoints have a number.
    pub(super) fn references(&self, identity: Identity) -> u32 {
        self.references.get(&identity).copied().unwrap_or_default()
    }

    /// The first of `count` consecutive free numbers of a cluster, and its counter after them.
    ///
    /// # Errors
    /// `IdentitiesExhausted` if there are none.
    pub(super) fn free_run(
        &self,
        ledger: &Ledger,
        id: ClusterId,
        cluster: &Name,
        count: u32,
    ) -> Result<(Identity, Counter), Refusal> {
        let last = ledger.counters().get(&id).map_or(0, |counter| counter.last);
        let first = match self.numbers.get(&id) {
            Some(numbers) => numbers.free_run(last, count),
            None => Numbers::default().free_run(last, count),
        };
        let first = first.and_then(|number| Identity::global(id, number).ok());
        let first =
            first.ok_or_else(|| Refusal::IdentitiesExhausted { cluster: cluster.clone(), usage: self.usage(id) })?;
        Ok((first, Counter { owner: cluster.clone(), last: first.number() + count - 1 }))
    }

    /// What the numbers of a cluster are used for.
    pub(super) fn usage(&self, id: ClusterId) -> IdentityUsage {
        let Some(numbers) = self.numbers.get(&id) else { return IdentityUsage::default() };
        let idle = self.idle.iter().filter(|(_, identity)| identity.cluster() == Some(id)).count();
        IdentityUsage {
            in_use: numbers.recorded.len(),
            idle: u32::try_from(idle).unwrap_or(u32::MAX),
            quarantined: numbers.resting.len(),
            granted: numbers.unadopted(),
        }
    }

    /// The id under which a cluster has numbers that are not free.
    pub(super) fn id_with_numbers(&self, ledger: &Ledger, cluster: &Name) -> Option<ClusterId> {
        let mut counters = ledger.counters().iter();
        counters.find(|(id, counter)| counter.owner == *cluster && self.has_numbers(**id)).map(|(id, _)| *id)
    }

    /// The cluster that has numbers under an id that are not free.
    pub(super) fn owner_of_numbers<'l>(&self, ledger: &'l Ledger, id: ClusterId) -> Option<&'l Name> {
        ledger.counters().get(&id).map(|counter| &counter.owner).filter(|_| self.has_numbers(id))
    }

    fn has_numbers(&self, id: ClusterId) -> bool {
        self.numbers.contains_key(&id)
    }

    /// Whether a record may have these addresses.
    ///
    /// # Errors
    /// `AddressInUse` for the first one that belongs to another record.
    pub(super) fn check_addresses<'a>(
        &self,
        key: &RecordKey,
        addresses: impl Iterator<Item = &'a IpAddr>,
    ) -> Result<(), Refusal> {
        for address in addresses {
            if let Some(owner) = self.addresses.get(address).map(Owner::key).filter(|owner| owner != key) {
                return Err(Refusal::AddressInUse { address: *address, owner });
            }
        }
        Ok(())
    }

    /// `old` is what the record was; `remove` has left of it what stays.
    fn insert(&mut self, record: &Record, old: Option<&Record>) {
        if let Some(owner) = Owner::of(record) {
            for address in addresses(record) {
                self.addresses.insert(*address, owner.clone());
            }
        }
        match record {
            Record::Identity(record) => {
                self.by_labels.insert(record.labels.clone(), record.identity);
                self.change(record.identity, |numbers, number| numbers.recorded.insert(number));
            }
            Record::Endpoint(endpoint) => {
                if old.and_then(worn) != Some(endpoint.identity) {
                    *self.references.entry(endpoint.identity).or_default() += 1;
                }
            }
            Record::Block(block) => self.change(block.first, |numbers, first| {
                (first..first + block.count).for_each(|number| numbers.granted.insert(number));
            }),
            Record::Fqdn(fqdn) => {
                self.expiring.insert((first_expiry(fqdn), record.key()));
            }
            Record::Settings(settings) => {
                self.settings = settings.clone();
                self.filter = settings.check().expect("only settings that were checked get into the mesh");
            }
            Record::Cluster(_) | Record::Node(_) | Record::Policy(_) | Record::CidrGroup(_) | Record::Service(_) => {}
        }
    }

    /// `new` is what the record becomes: what both have stays for `insert` to replace it.
    fn remove(&mut self, record: &Record, new: Option<&Record>) {
        let staying = new.map_or(&[][..], addresses);
        for address in addresses(record).iter().filter(|address| !staying.contains(address)) {
            self.addresses.remove(address);
        }
        match record {
            Record::Identity(record) => {
                self.by_labels.remove(&record.labels);
                self.change(record.identity, |numbers, number| numbers.recorded.remove(number));
            }
            Record::Endpoint(endpoint) => {
                if new.and_then(worn) == Some(endpoint.identity) {
                    return;
                }
                let count = self.references(endpoint.identity);
                match count {
                    0 | 1 => self.references.remove(&endpoint.identity),
                    _ => self.references.insert(endpoint.identity, count - 1),
                };
            }
            Record::Block(block) => self.change(block.first, |numbers, first| {
                (first..first + block.count).for_each(|number| numbers.granted.remove(number));
            }),
            Record::Fqdn(fqdn) => {
                self.expiring.remove(&(first_expiry(fqdn), record.key()));
            }
            Record::Settings(_) => (self.settings, self.filter) = Default::default(),
            Record::Cluster(_) | Record::Node(_) | Record::Policy(_) | Record::CidrGroup(_) | Record::Service(_) => {}
        }
    }

    fn insert_state(&mut self, identity: Identity, state: NumberState) {
        match state {
            NumberState::Idle { since_ms } => self.idle.insert((since_ms, identity)),
            NumberState::Quarantined { gone } => self.quarantined.insert((gone, identity)),
            NumberState::Resting { until_ms } => self.resting.insert((until_ms, identity)),
        };
        if !matches!(state, NumberState::Idle { .. }) {
            self.change(identity, |numbers, number| numbers.resting.insert(number));
        }
    }

    fn remove_state(&mut self, identity: Identity, state: NumberState) {
        match state {
            NumberState::Idle { since_ms } => self.idle.remove(&(since_ms, identity)),
            NumberState::Quarantined { gone } => self.quarantined.remove(&(gone, identity)),
            NumberState::Resting { until_ms } => self.resting.remove(&(until_ms, identity)),
        };
        if !matches!(state, NumberState::Idle { .. }) {
            self.change(identity, |numbers, number| numbers.resting.remove(number));
        }
    }

    /// A cluster without numbers has no entry.
    fn change(&mut self, identity: Identity, change: impl FnOnce(&mut Numbers, u32)) {
        let Some(id) = identity.cluster() else { return };
        let numbers = self.numbers.entry(id).or_default();
        change(numbers, identity.number());
        if numbers.is_unused() {
            self.numbers.remove(&id);
        }
    }
}

fn addresses(record: &Record) -> &[IpAddr] {
    match record {
        Record::Node(node) => &node.addresses,
        Record::Endpoint(endpoint) => &endpoint.addresses,
        _ => &[],
    }
}

/// The number that an endpoint has.
pub(super) fn worn(record: &Record) -> Option<Identity> {
    if let Record::Endpoint(endpoint) = record { Some(endpoint.identity) } else { None }
}

/// What a record is after a change.
pub(super) fn put(change: &Change) -> Option<&Record> {
    if let Change::Put(record) = change { Some(record) } else { None }
}

fn first_expiry(fqdn: &FqdnRecord) -> u64 {
    fqdn.addresses.iter().map(|BoundAddress { expires_ms, .. }| *expires_ms).min().unwrap_or_default()
}
