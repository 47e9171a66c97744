//! What happens because time passes: a bounded amount at a time, so that no revision is large.

use ringfence_policy::{
    command::Housekeeping,
    record::{BoundAddress, FqdnRecord, Record, RecordKey},
};

use super::{
    Transition, View, identity, lease,
    ledger::{NumberState, Row, RowKey},
};

/// How much of each kind one tick does.
pub(super) const MOST_PER_TICK: usize = 1024;

pub(super) fn tick(view: View<'_>, now_ms: u64) -> Transition {
    let before_ms = view.ledger().clock_ms();
    let clock_ms = now_ms.clamp(before_ms, before_ms.saturating_add(Housekeeping::MAX_STEP_MS));
    let mut transition = Transition::default();
    if clock_ms == before_ms {
        return transition;
    }
    transition.set(RowKey::Clock, Some(Row::Clock(clock_ms)));
    let (index, settings) = (view.index(), &view.index().settings);

    let free = index.resting.iter().take_while(|(until_ms, _)| *until_ms <= clock_ms);
    for (_, number) in free.take(MOST_PER_TICK) {
        transition.set(RowKey::Number(*number), None);
    }
    let realised = lease::realised_everywhere(view);
    let forgotten = index.quarantined.iter().take_while(|(gone, _)| *gone <= realised);
    for (_, number) in forgotten.take(MOST_PER_TICK) {
        let until_ms = clock_ms.saturating_add(settings.quarantine_ms);
        transition.set(RowKey::Number(*number), Some(Row::Number(NumberState::Resting { until_ms })));
    }
    let is_over = |since_ms: u64| since_ms.saturating_add(settings.identity_grace_ms) <= clock_ms;
    let unused = index.idle.iter().take_while(|(since_ms, _)| is_over(*since_ms));
    for (_, number) in unused.take(MOST_PER_TICK) {
        identity::quarantine(view, *number, &mut transition);
    }
    let expiring = index.expiring.iter().take_while(|(first_ms, _)| *first_ms <= clock_ms);
    for (_, key) in expiring.take(MOST_PER_TICK) {
        without_expired(view, key, clock_ms, &mut transition);
    }
    transition
}

fn without_expired(view: View<'_>, key: &RecordKey, clock_ms: u64, transition: &mut Transition) {
    let Some(Record::Fqdn(fqdn)) = view.mesh.get(key) else { return };
    let valid = |bound: &&BoundAddress| bound.expires_ms > clock_ms;
    let addresses: Vec<_> = fqdn.addresses.iter().filter(valid).copied().collect();
    match addresses.is_empty() {
        true => transition.delete(view, key.clone()),
        false => transition.put(view, Record::Fqdn(FqdnRecord { addresses, ..fqdn.clone() })),
    }
}
