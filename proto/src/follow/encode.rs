//! Records as the bytes of their messages, without making the messages: what followers get is encoded from the mesh as it
//! lies there. Identities and endpoints are nearly all of a mesh; the others go by their messages.

use prost::{
    Message,
    bytes::{BufMut, Bytes, BytesMut},
    encoding::{WireType, encode_key, encode_varint},
};
use ringfence_policy::{
    label::{Label, LabelSet},
    record::{Change, Delta, Endpoint, IdentityRecord, Record, RecordKey, Versioned},
    revision::Revision,
    store::StoreId,
};

use crate::v1;

/// Fields of `FollowEvent`.
const SNAPSHOT: u32 = 1;
const DELTA: u32 = 2;
/// Key and length of the one field of a `FollowEvent`, at most.
const HEAD_BYTES: usize = 6;

/// A part of a snapshot while it is filled.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Begins with room for the head.
    bytes: BytesMut,
    body: Vec<u8>,
    record: Vec<u8>,
}

impl Chunk {
    /// `anew`: what the chunks before said counts no more.
    pub(super) fn new(revision: Revision, anew: bool, capacity: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(capacity);
        bytes.put_bytes(0, HEAD_BYTES);
        prost::encoding::uint64::encode(1, &revision.0, &mut bytes);
        if anew {
            prost::encoding::bool::encode(5, &true, &mut bytes);
        }
        Self { bytes, body: Vec::new(), record: Vec::new() }
    }

    /// In bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn put(&mut self, versioned: &Versioned) {
        self.record.clear();
        put_record(&versioned.record, &mut self.body, &mut self.record);
        let revision_length = prost::encoding::uint64::encoded_len(1, &versioned.revision.0);
        put_head(2, revision_length + delimited_len(2, self.record.len()), &mut self.bytes);
        prost::encoding::uint64::encode(1, &versioned.revision.0, &mut self.bytes);
        put_delimited(2, &self.record, &mut self.bytes);
    }

    pub(super) fn remove(&mut self, key: &RecordKey) {
        prost::encoding::message::encode(4, &v1::RecordKey::from(key.clone()), &mut self.bytes);
    }

    /// The last chunk says of which revision, and of which store, all of them are.
    pub(super) fn finish(mut self, whole_at: Option<(Revision, Option<StoreId>)>) -> Bytes {
        if let Some((revision, store)) = whole_at {
            prost::encoding::bool::encode(3, &true, &mut self.bytes);
            prost::encoding::uint64::encode(6, &revision.0, &mut self.bytes);
            if let Some(store) = store {
                prost::encoding::string::encode(15, &store.to_string(), &mut self.bytes);
            }
        }
        let length = self.bytes.len() - HEAD_BYTES;
        let mut head = Vec::with_capacity(HEAD_BYTES);
        put_head(SNAPSHOT, length, &mut head);
        let start = HEAD_BYTES - head.len();
        self.bytes[start..HEAD_BYTES].copy_from_slice(&head);
        self.bytes.freeze().slice(start..)
    }
}

/// A delta as an event.
pub(super) fn encode_delta(delta: &Delta) -> Bytes {
    encode_step(delta, Revision::default())
}

/// A delta of a view: nothing of it changed since another revision; 0 for the one before.
pub(super) fn encode_step(delta: &Delta, after: Revision) -> Bytes {
    let (mut changes, mut body, mut record) = (Vec::new(), Vec::new(), Vec::new());
    prost::encoding::uint64::encode(1, &delta.revision.0, &mut changes);
    for change in &delta.changes {
        record.clear();
        let tag = match change {
            Change::Put(put) => {
                put_record(put, &mut body, &mut record);
                1
            }
            Change::Delete(key) => {
                let encoded = v1::RecordKey::from(key.clone()).encode(&mut record);
                encoded.expect("a vector takes everything");
                2
            }
        };
        put_head(2, delimited_len(tag, record.len()), &mut changes);
        put_delimited(tag, &record, &mut changes);
    }
    if after > Revision::default() {
        prost::encoding::uint64::encode(3, &after.0, &mut changes);
    }
    let mut event = Vec::with_capacity(delimited_len(DELTA, changes.len()));
    put_delimited(DELTA, &changes, &mut event);
    event.into()
}

/// Appends a `Record`; `body` is for its own use.
fn put_record(record: &Record, body: &mut Vec<u8>, out: &mut Vec<u8>) {
    body.clear();
    match record {
        Record::Identity(identity) => {
            put_identity(identity, body);
            put_delimited(3, body, out);
        }
        Record::Endpoint(endpoint) => {
            put_endpoint(endpoint, body);
            put_delimited(4, body, out);
        }
        other => v1::Record::from(other.clone()).encode(out).expect("a vector takes everything"),
    }
}

fn put_identity(record: &IdentityRecord, out: &mut Vec<u8>) {
    put_number(1, record.identity.bits(), out);
    put_labels(2, &record.labels, out);
}

fn put_endpoint(endpoint: &Endpoint, out: &mut Vec<u8>) {
    for (tag, name) in [(1, &endpoint.cluster), (2, &endpoint.node), (3, &endpoint.name)] {
        put_delimited(tag, name.as_str().as_bytes(), out);
    }
    for address in &endpoint.addresses {
        put_delimited(4, address.to_string().as_bytes(), out);
    }
    put_labels(5, &endpoint.labels, out);
    put_number(6, endpoint.identity.bits(), out);
    for port in &endpoint.named_ports {
        prost::encoding::message::encode(7, &v1::NamedPort::from(port.clone()), out);
    }
}

/// Each label as `Label`'s `Display` writes it.
fn put_labels(tag: u32, labels: &LabelSet, out: &mut Vec<u8>) {
    for Label { key, source, value } in labels.iter() {
        let value_length = if value.is_empty() { 0 } else { 1 + value.len() };
        put_head(tag, source.len() + 1 + key.len() + value_length, out);
        out.extend_from_slice(source.as_bytes());
        out.push(b':');
        out.extend_from_slice(key.as_bytes());
        if !value.is_empty() {
            out.push(b'=');
            out.extend_from_slice(value.as_bytes());
        }
    }
}

fn put_number(tag: u32, number: u32, out: &mut Vec<u8>) {
    if number != 0 {
        prost::encoding::uint32::encode(tag, &number, out);
    }
}

fn put_delimited(tag: u32, bytes: &[u8], out: &mut impl BufMut) {
    put_head(tag, bytes.len(), out);
    out.put_slice(bytes);
}

fn put_head(tag: u32, length: usize, out: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

fn delimited_len(tag: u32, length: usize) -> usize {
    prost::encoding::key_len(tag) + prost::encoding::encoded_len_varint(length as u64) + length
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::follow::wire::{FollowEvent, follow_event::Event};
    use ringfence_policy::{
        identity::{ClusterId, Identity},
        name::Name,
        record::{Cluster, MeshSettings, NamedPort},
    };

    fn records() -> Vec<Record> {
        let name = |text: &str| Name::new(text).unwrap();
        let labels =
            LabelSet::parse(["k8s:app=web", "k8s:empty", "unspec:a=b=c", &format!("k8s:l={}", "x".repeat(200))]);
        let (labels, east) = (labels.unwrap(), ClusterId::new(1).unwrap());
        let identity = Identity::global(east, 300).unwrap();
        let endpoint = |addresses: &[&str], named_ports| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let (cluster, node, name) = (name("east"), name("n1"), name("web-0"));
            let labels = labels.clone();
            Record::Endpoint(Arc::new(Endpoint { cluster, node, name, addresses, labels, identity, named_ports }))
        };
        let port = NamedPort { name: "http".to_owned(), protocol: 6, port: 8080 };
        vec![
            Record::Cluster(Cluster { name: name("east"), id: east, pod_cidrs: vec!["10.0.0.0/8".parse().unwrap()] }),
            Record::Identity(IdentityRecord { identity, labels: labels.clone() }),
            Record::Identity(IdentityRecord { identity: Identity::from_bits(0), labels: LabelSet::default() }),
            endpoint(&[], vec![]),
            endpoint(&["10.0.0.1", "fd00::1"], vec![port.clone(), port]),
            Record::Settings(MeshSettings::default()),
        ]
    }

    #[test]
    fn bytes_are_those_of_the_messages() {
        let mut changes: Vec<Change> = records().into_iter().map(Change::Put).collect();
        changes.extend(records().iter().map(|record| Change::Delete(record.key())));
        let delta = Delta { revision: Revision(77_777), changes };
        let message = FollowEvent::from(Event::Delta(delta.clone().into()));
        assert_eq!(encode_delta(&delta), message.encode_to_vec());
        let empty = Delta { revision: Revision(1), changes: vec![] };
        assert_eq!(encode_delta(&empty), FollowEvent::from(Event::Delta(empty.into())).encode_to_vec());
    }

    #[test]
    fn chunks_are_read_as_they_were_written() {
        let (mut chunk, mut message) = (Chunk::new(Revision(7), true, 10), v1::SnapshotChunk::default());
        for (revision, record) in records().into_iter().enumerate() {
            let versioned = Versioned { revision: Revision(revision as u64 * 1000), record };
            chunk.put(&versioned);
            message.records.push(versioned.into());
        }
        chunk.remove(&RecordKey::Settings);
        message.removed.push(RecordKey::Settings.into());
        let store = StoreId::new(1_795_000_000_000, [7; 10]);
        (message.revision, message.last, message.anew, message.whole_at) = (7, true, true, 9);
        message.store_id = store.to_string();
        let read = FollowEvent::decode(chunk.finish(Some((Revision(9), Some(store))))).unwrap();
        assert_eq!(read, FollowEvent::from(Event::Snapshot(message)));
        let empty = FollowEvent::decode(Chunk::new(Revision(7), false, 0).finish(None)).unwrap();
        let message = v1::SnapshotChunk { revision: 7, ..Default::default() };
        assert_eq!(empty, FollowEvent::from(Event::Snapshot(message)));
    }
}
