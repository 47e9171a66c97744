//! Encoded deltas, put together from records that are encoded already.

use ringfence_policy::{record::RecordKey, revision::Revision};

use super::{encode_into, push};

/// The encoded deltas of some revisions, one behind the other: made of records that were encoded for the state.
#[derive(Debug, Default)]
pub(crate) struct EncodedDeltas {
    bytes: Vec<u8>,
    /// Each revision with where its delta ends.
    ends: Vec<(Revision, usize)>,
}

impl EncodedDeltas {
    /// Begins the delta of a revision; exactly `count` changes and `end` follow.
    pub(crate) fn begin(&mut self, revision: Revision, count: usize) {
        encode_into(&mut self.bytes, &revision);
        push(&mut self.bytes, &count);
    }

    /// `Change::Put` of a record that is encoded already.
    pub(crate) fn put(&mut self, record: &[u8]) {
        self.bytes.push(0);
        self.bytes.extend_from_slice(record);
    }

    /// `Change::Delete`.
    pub(crate) fn delete(&mut self, key: &RecordKey) {
        self.bytes.push(1);
        push(&mut self.bytes, key);
    }

    /// The delta is whole.
    pub(crate) fn end(&mut self, revision: Revision) {
        self.ends.push((revision, self.bytes.len()));
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Revision, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        self.ends.iter().zip(starts).map(|((revision, end), start)| (*revision, &self.bytes[start..*end]))
    }

    /// Forgets them, and keeps the memory as far as it is not unusually much.
    pub(crate) fn clear(&mut self) {
        const KEPT_BYTES: usize = 1 << 20;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.ends.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{encode, encode_versioned};
    use ringfence_policy::record::Record;

    #[test]
    fn a_delta_put_together_is_a_delta_encoded() {
        use ringfence_policy::{
            name::Name,
            record::{Change, Delta, PolicyKey, PolicyKind, PolicyRecord, Versioned},
        };
        let key = |name: &str| PolicyKey {
            kind: PolicyKind::NetworkPolicy,
            namespace: Some(Name::new("shop").unwrap()),
            name: Name::new(name).unwrap(),
        };
        let record = |name: &str| Record::Policy(PolicyRecord { key: key(name), text: "x".repeat(300) });
        let changes = vec![
            Change::Put(record("a")),
            Change::Delete(RecordKey::Policy(key("b"))),
            Change::Delete(RecordKey::Settings),
            Change::Put(record("c")),
        ];
        let whole = [(300, changes.clone()), (301, Vec::new()), (302, vec![changes[0].clone(); 200])];
        let whole = whole.map(|(revision, changes)| Delta { revision: Revision(revision), changes });
        let (mut deltas, mut buffer) = (EncodedDeltas::default(), Vec::new());
        for Delta { revision, changes } in &whole {
            deltas.begin(*revision, changes.len());
            for change in changes {
                match change {
                    Change::Put(record) => {
                        buffer.clear();
                        let start = encode_versioned(&mut buffer, *revision, record);
                        assert_eq!(buffer, encode(&Versioned { revision: *revision, record: record.clone() }));
                        deltas.put(&buffer[start..]);
                    }
                    Change::Delete(key) => deltas.delete(key),
                }
            }
            deltas.end(*revision);
        }
        let expected: Vec<_> = whole.iter().map(|delta| (delta.revision, encode(delta))).collect();
        assert!(deltas.iter().eq(expected.iter().map(|(revision, bytes)| (*revision, &bytes[..]))));
        deltas.clear();
        assert_eq!(deltas.iter().count(), 0);
    }
}
