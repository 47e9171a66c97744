//! Workloads A1, A2 and B come to the entries that a correct engine has.

#[path = "../benches/workload/mod.rs"]
#[cfg(test)]
mod workload;

#[cfg(test)]
mod tests {
    use ringfence_policy::engine::Engine;

    use crate::workload::{Entries, PODS, SUBJECT, engine, entries, import, policies_a, policies_b};

    fn imported(texts: &[String]) -> Engine {
        let mut engine = engine(PODS);
        import(&mut engine, texts);
        engine.add_subject(SUBJECT);
        engine
    }

    #[test]
    fn map_1_to_5_workload_a1() {
        let tables = imported(&policies_a(true)).tables();
        let expected = Entries { blocks: 101_663, ranges: 56_868, ingress: 81_463, denies: 3_333 };
        assert_eq!(entries(&tables), expected);
        assert_eq!((tables.rows.len(), tables.ports.len()), (31_005, 3));
    }

    #[test]
    fn map_1_to_5_workload_a2() {
        let tables = imported(&policies_a(false)).tables();
        assert_eq!(entries(&tables), Entries { blocks: 838, ranges: 570, ingress: 636, denies: 33 });
    }

    #[test]
    fn map_6_workload_b_gains_and_loses_the_entries_of_one_identity() {
        let mut engine = imported(&policies_b(1000, false));
        assert_eq!(entries(&engine.tables()).blocks, 100_002);
        engine.take_edits();
        let before = engine.tables();
        let (identity, labels) = crate::workload::pod(10_007);
        engine.put_identities([(identity, labels)]);
        let added = engine.take_edits();
        assert!(added.rows.iter().all(|edit| edit.key.peer == identity && edit.before.is_none()));
        let bands: u32 = added.rows.iter().filter_map(|edit| edit.after).map(|row| row.low.count_ones()).sum();
        assert_eq!((bands, added.len()), (10, added.rows.len()));
        engine.remove_identities([identity]);
        assert_eq!(engine.take_edits(), added.inverse());
        assert_eq!(engine.tables(), before);
    }
}
