//! Numbers set aside for gateways that may be cut off.

use ringfence_policy::{
    command::{NumberTaken, Refusal},
    identity::Identity,
    label::LabelSet,
    name::Name,
    record::{IdentityBlock, IdentityRecord, MAX_BLOCK_NUMBERS, Record, RecordKey},
};

use super::{
    Transition, View, identity,
    ledger::{NumberState, Row, RowKey},
};

/// The most blocks of one cluster: a gateway each.
const MAX_BLOCKS: usize = 16;

pub(super) fn grant(view: View<'_>, cluster: &Name, holder: &Name, count: u32) -> Result<Transition, Refusal> {
    let owner = view.cluster(cluster)?;
    if count == 0 || count > MAX_BLOCK_NUMBERS {
        return Err(Refusal::BlockSize { count });
    }
    if view.mesh.get(&RecordKey::Block(cluster.clone(), holder.clone())).is_some() {
        return Ok(Transition::default());
    }
    let blocks = view.mesh.blocks_of(cluster).count();
    if blocks >= MAX_BLOCKS {
        return Err(Refusal::TooManyBlocks { cluster: cluster.clone(), count: blocks });
    }
    let (first, counter) = view.index().free_run(view.ledger(), owner.id, cluster, count)?;
    let block = IdentityBlock { cluster: cluster.clone(), holder: holder.clone(), first, count, spent: 0 };
    let mut transition = Transition::default();
    transition.put(view, Record::Block(block));
    transition.set(RowKey::Counter(owner.id), Some(Row::Counter(counter)));
    Ok(transition)
}

/// What the gateway gave out without telling may live on in its cluster, so every number that stands for nothing rests.
pub(super) fn give_back(view: View<'_>, cluster: &Name, holder: &Name) -> Result<Transition, Refusal> {
    let (key, block) = find(view, cluster, holder)?;
    let gone = view.mesh.revision().next();
    let mut transition = Transition::default();
    transition.delete(view, key);
    for number in block.numbers() {
        let stands = view.mesh.get(&RecordKey::Identity(number)).is_some();
        if !stands && !view.ledger().numbers().contains_key(&number) {
            transition.set(RowKey::Number(number), Some(Row::Number(NumberState::Quarantined { gone })));
        }
    }
    Ok(transition)
}

pub(super) fn adopt(
    view: View<'_>,
    cluster: &Name,
    holder: &Name,
    number: Identity,
    labels: &LabelSet,
) -> Result<Transition, Refusal> {
    let (key, block) = find(view, cluster, holder)?;
    let Some(position) = block.position(number) else {
        return Err(Refusal::NotInBlock { identity: number, block: key });
    };
    identity::check(cluster, labels)?;
    let labels = identity::relevant(view, cluster, labels);
    match view.index().number(&labels) {
        // The answer to the first attempt was lost.
        Some(identity) if identity == number => {
            return Ok(Transition::of(number));
        }
        Some(identity) => return Err(Refusal::LabelsTaken { labels, identity, wanted: number }),
        None => {}
    }
    if let Some(Record::Identity(other)) = view.mesh.get(&RecordKey::Identity(number)) {
        let state = NumberTaken::Labels { labels: other.labels.clone() };
        return Err(Refusal::NumberTaken { identity: number, labels, state });
    }
    if view.ledger().numbers().contains_key(&number) {
        return Err(Refusal::NumberTaken { identity: number, labels, state: NumberTaken::Quarantine });
    }
    let spent = block.spent.max(position + 1);
    let mut transition = Transition::of(number);
    transition.put(view, Record::Identity(IdentityRecord { identity: number, labels }));
    transition.put(view, Record::Block(IdentityBlock { spent, ..block.clone() }));
    transition.set(RowKey::Number(number), Some(Row::Number(identity::idle(view))));
    Ok(transition)
}

fn find<'v>(view: View<'v>, cluster: &Name, holder: &Name) -> Result<(RecordKey, &'v IdentityBlock), Refusal> {
    let key = RecordKey::Block(cluster.clone(), holder.clone());
    match view.mesh.get(&key) {
        Some(Record::Block(block)) => Ok((key, block)),
        _ => Err(Refusal::NotFound { key }),
    }
}
