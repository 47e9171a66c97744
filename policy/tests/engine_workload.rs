//! Workloads A1, A2 and B come to the entries that a correct engine has.

#[path = "../benches/workload/mod.rs"]
#[cfg(test)]
mod workload;

#[cfg(test)]
mod tests {
    use ringfence_policy::{
        engine::{Class, PortForm},
        flow::Direction,
    };

    use crate::workload::{PODS, SUBJECT, engine, import, policies_a, policies_b};

    /// All entries, those of ingress, and those that deny.
    fn counts(texts: &[String]) -> [usize; 3] {
        let mut engine = engine(PODS);
        import(&mut engine, texts);
        engine.add_subject(SUBJECT);
        let entries = engine.entries(SUBJECT, PortForm::Blocks);
        assert_eq!(entries.len(), engine.count_entries(SUBJECT, PortForm::Blocks));
        let ingress = entries.iter().filter(|entry| entry.key.direction == Direction::Ingress).count();
        let denies = entries.iter().filter(|entry| entry.class == Class::Deny).count();
        [entries.len(), ingress, denies]
    }

    #[test]
    fn map_1_to_5_workload_a1() {
        assert_eq!(counts(&policies_a(true)), [101_663, 81_463, 3_333]);
    }

    #[test]
    fn map_1_to_5_workload_a2() {
        assert_eq!(counts(&policies_a(false)), [838, 636, 33]);
    }

    #[test]
    fn map_6_workload_b_gains_and_loses_the_entries_of_one_identity() {
        let mut engine = engine(PODS);
        import(&mut engine, &policies_b(1000, false));
        engine.add_subject(SUBJECT);
        assert_eq!(engine.count_entries(SUBJECT, PortForm::Blocks), 100_002);
        let before = engine.dump();
        let (identity, labels) = crate::workload::pod(10_007);
        let added = engine.put_identities([(identity, labels)]);
        assert_eq!(added.iter().map(|diff| (diff.put.len(), diff.removed.len())).collect::<Vec<_>>(), [(10, 0)]);
        let removed = engine.remove_identities([identity]);
        assert_eq!(removed.iter().map(|diff| (diff.put.len(), diff.removed.len())).collect::<Vec<_>>(), [(0, 10)]);
        assert_eq!(engine.dump(), before);
    }
}
