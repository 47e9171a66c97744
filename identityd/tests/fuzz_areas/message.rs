//! What members send each other, by the first byte: entries, a vote, the head of a snapshot, a delta of the history, an
//! answer. What decodes is encoded and decoded again.

use std::{fmt::Debug, time::Duration};

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use ringfence_identityd::{
    codec,
    raft::{Answer, Entry, SnapshotMeta, TypeConfig, Vote},
    state::Marker,
};
use ringfence_policy::record::{Delta, Versioned};
use serde::{Serialize, de::DeserializeOwned};

/// Decodes one message.
pub(crate) fn exercise(bytes: &[u8]) -> bool {
    let (Some(kind), body) = (bytes.first(), bytes.get(1..).unwrap_or_default()) else { return false };
    match kind % 10 {
        0 => again::<(Duration, AppendEntriesRequest<TypeConfig>)>(body),
        1 => again::<AppendEntriesResponse<u64>>(body),
        2 => again::<VoteRequest<u64>>(body),
        3 => again::<VoteResponse<u64>>(body),
        4 => again::<(Vote, SnapshotMeta)>(body),
        5 => again::<Delta>(body),
        6 => again::<Versioned>(body),
        7 => again::<Vec<Answer>>(body),
        8 => again::<Marker>(body),
        _ => again::<Entry>(body),
    }
}

fn again<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) -> bool {
    let Ok(value) = codec::decode::<T>(bytes) else { return false };
    let encoded = codec::encode(&value);
    let decoded: T = codec::decode(&encoded).expect("what was encoded decodes");
    assert_eq!(codec::encode(&decoded), encoded, "{value:?}");
    true
}
