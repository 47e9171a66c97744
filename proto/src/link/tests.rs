use std::{sync::Arc, time::Duration};

use prost::bytes::Bytes;
use tokio::io::{AsyncWriteExt as _, duplex};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{
    ANSWER, FAILURE, HELLO, Handler, Limits, PING, decode_failure, encode_failure,
    frame::{self, Frames},
    serve,
};
use crate::version::Introduction;

const LIMITS: Limits = Limits { longest_call: 1000, calls: 4 };

/// Gives back what it is told; fails, or waits for ever, when told so.
struct Echo;

impl Handler for Echo {
    fn hello(&self, introduction: Introduction) {
        assert_eq!(introduction, Introduction::own());
    }

    async fn call(&self, method: u8, payload: Bytes) -> Result<Vec<u8>, Status> {
        match method {
            20 => Ok(payload.to_vec()),
            21 => std::future::pending().await,
            _ => Err(Status::with_details(Code::NotFound, format!("no method {method}"), Bytes::from_static(b"why"))),
        }
    }
}

fn frames(calls: &[(u32, u8, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, kind, payload) in calls {
        frame::push(&mut bytes, *number, *kind, payload).unwrap();
    }
    bytes
}

#[tokio::test]
async fn calls_are_answered_by_number_and_a_slow_one_holds_up_no_other() {
    let (ours, theirs) = duplex(1 << 16);
    let stopping = CancellationToken::new();
    let serving = tokio::spawn(serve(theirs, Arc::new(Echo), LIMITS, stopping.clone()));
    let (read, mut write) = tokio::io::split(ours);
    let hello = Introduction::own().to_string();
    let calls = frames(&[(0, HELLO, hello.as_bytes()), (1, 21, b""), (2, 20, b"two"), (3, 99, b""), (4, PING, b"")]);
    // In pieces, as networks deliver.
    for piece in calls.chunks(5) {
        write.write_all(piece).await.unwrap();
    }
    let mut answers = Frames::new(read, 1000);
    let mut got = Vec::new();
    for _ in 0..3 {
        got.push(answers.next().await.unwrap().unwrap());
    }
    got.sort_by_key(|answer| answer.number);
    assert_eq!(
        got.iter().map(|answer| (answer.number, answer.kind)).collect::<Vec<_>>(),
        [(2, ANSWER), (3, FAILURE), (4, ANSWER)]
    );
    assert_eq!(got[0].payload, "two");
    let failure = decode_failure(&got[1].payload);
    assert_eq!((failure.code(), failure.message(), failure.details()), (Code::NotFound, "no method 99", &b"why"[..]));
    drop((answers, write));
    serving.abort();
}

#[tokio::test]
async fn what_is_no_frame_closes_the_link_without_taking_memory_for_it() {
    let too_long = frames(&[(1, 20, &[0; 1001])]);
    let no_introduction = frames(&[(0, HELLO, b"curl/8")]);
    for bytes in [&too_long, &no_introduction, &vec![1, 0, 0, 0, 9], &vec![0xff; 64]] {
        let (mut ours, theirs) = duplex(1 << 16);
        let serving = tokio::spawn(serve(theirs, Arc::new(Echo), LIMITS, CancellationToken::new()));
        ours.write_all(bytes).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
        assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::InvalidData, "{:?}", &bytes[..5]);
    }
}

#[tokio::test]
async fn a_caller_that_does_not_wait_for_answers_is_read_no_further() {
    let (ours, theirs) = duplex(64);
    let serving = tokio::spawn(serve(theirs, Arc::new(Echo), LIMITS, CancellationToken::new()));
    let (_unread, mut write) = tokio::io::split(ours);
    let call = frames(&[(1, 20, &[7; 40])]);
    let flood = async {
        loop {
            write.write_all(&call).await.unwrap();
        }
    };
    // All places and buffers are taken at some time, and then nothing more is: a flood that goes on would never end.
    assert!(tokio::time::timeout(Duration::from_millis(500), flood).await.is_err());
    serving.abort();
}

#[test]
fn failures_travel_whole() {
    let status = Status::unavailable("no quorum");
    let back = decode_failure(&encode_failure(&status));
    assert_eq!((back.code(), back.message(), back.details().len()), (Code::Unavailable, "no quorum", 0));
    for garbage in [&[][..], &[14], &[14, 9, 0, 1]] {
        assert_eq!(decode_failure(garbage).code(), Code::Internal);
    }
}
