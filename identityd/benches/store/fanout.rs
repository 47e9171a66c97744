//! Many streams, one writer: what arrives, how late, and what it costs.
//!
//! Messages are not decoded: each record carries the moment of its write as text (`Mark`), which is searched for in
//! the bytes, for both systems alike.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::OnceLock,
    time::{Duration, Instant},
};

use prost::bytes::Bytes;
use ringfence_proto::{connect::Dialer, link::Asking, v1};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

use crate::latency::Latencies;

const MARK_PREFIX: &[u8] = b"fd00:1:1:1:";
const MARK_DIGITS: usize = 4;

/// The moment of a write as an IPv6 address whose text always has the same length: four groups `8xxx` of 12 bits each.
pub(crate) struct Clock {
    /// The same for all clocks: addresses are unique in our store, also those of an earlier round.
    started: Instant,
    /// Two writes of one microsecond get different marks: addresses are unique in our store.
    last: Cell<u64>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        static STARTED: OnceLock<Instant> = OnceLock::new();
        Self { started: *STARTED.get_or_init(Instant::now), last: Cell::new(0) }
    }

    pub(crate) fn mark(&self) -> String {
        let micros = (self.started.elapsed().as_micros() as u64).max(self.last.get() + 1);
        self.last.set(micros);
        let group = |shift: u32| 0x8000 | micros >> shift & 0xfff;
        format!("fd00:1:1:1:{:x}:{:x}:{:x}:{:x}", group(36), group(24), group(12), group(0))
    }

    /// How long ago the writes were issued whose marks are in `bytes`.
    pub(crate) fn ages<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = Duration> + 'a {
        let now = self.started.elapsed();
        let starts = bytes.windows(MARK_PREFIX.len()).enumerate();
        let starts = starts.filter(|(_, window)| *window == MARK_PREFIX).map(|(start, _)| start + MARK_PREFIX.len());
        starts.filter_map(move |start| {
            let text = std::str::from_utf8(bytes.get(start..start + 4 * MARK_DIGITS + 3)?).ok()?;
            let micros = text
                .split(':')
                .try_fold(0, |sum, group| u64::from_str_radix(group, 16).map(|group| sum << 12 | group & 0xfff));
            Some(now.saturating_sub(Duration::from_micros(micros.ok()?)))
        })
    }
}

/// What all streams of a measurement have seen.
pub(crate) struct Seen {
    pub(crate) clock: Clock,
    pub(crate) counting: Cell<bool>,
    pub(crate) latencies: RefCell<Latencies>,
    pub(crate) broken: Cell<usize>,
}

impl Seen {
    pub(crate) fn new() -> Rc<Self> {
        let (counting, latencies, broken) = (Cell::new(false), RefCell::default(), Cell::new(0));
        Rc::new(Self { clock: Clock::new(), counting, latencies, broken })
    }

    /// Reads a stream for ever.
    pub(crate) async fn read(self: Rc<Self>, mut stream: Stream) {
        while let Some(bytes) = stream.message().await {
            if self.counting.get() {
                let mut latencies = self.latencies.borrow_mut();
                self.clock.ages(&bytes).for_each(|age| latencies.push(age));
            }
        }
        self.broken.set(self.broken.get() + 1);
    }
}

/// Messages as bytes.
pub(crate) enum Stream {
    /// Of etcd, over gRPC.
    Call(Box<Streaming<Vec<u8>>>),
    /// Of our store, over a link, as gateways follow.
    Link(Box<Asking>),
}

impl Stream {
    /// The next one; none once the stream broke.
    pub(crate) async fn message(&mut self) -> Option<Bytes> {
        match self {
            Self::Call(stream) => stream.message().await.ok()?.map(Bytes::from),
            Self::Link(link) => link.message().await.ok()?,
        }
    }
}

/// Opens a stream whose messages come as bytes; returns when the first one is here.
pub(crate) async fn open<M: prost::Message + Send + 'static>(
    channel: Channel,
    path: &'static str,
    request: M,
) -> Stream {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(64 << 20);
    grpc.ready().await.unwrap();
    let requests = tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
    let path = PathAndQuery::from_static(path);
    let answer = grpc.streaming(Request::new(requests), path, Raw(std::marker::PhantomData)).await;
    let mut stream = Stream::Call(Box::new(answer.unwrap().into_inner()));
    stream.message().await.expect("the stream begins with a message");
    stream
}

/// Follows our store from its head on.
pub(crate) async fn follow(dialer: &Dialer, address: &str, from: u64) -> Stream {
    let request =
        v1::FollowRequest { from_revision: from, follower: "bench".to_owned(), ..v1::FollowRequest::default() };
    Stream::Link(Box::new(Asking::connect(dialer, address, &request).await.unwrap()))
}

/// Encodes messages, leaves the answers as they are.
pub(crate) struct Raw<M>(pub(crate) std::marker::PhantomData<M>);

impl<M: prost::Message + Send + 'static> Codec for Raw<M> {
    type Encode = M;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Copied;

    fn encoder(&mut self) -> Self {
        Self(std::marker::PhantomData)
    }

    fn decoder(&mut self) -> Copied {
        Copied
    }
}

impl<M: prost::Message> Encoder for Raw<M> {
    type Item = M;
    type Error = Status;

    fn encode(&mut self, item: M, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

pub(crate) struct Copied;

impl Decoder for Copied {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; prost::bytes::Buf::remaining(buffer)];
        prost::bytes::Buf::copy_to_slice(buffer, &mut bytes);
        Ok(Some(bytes))
    }
}
