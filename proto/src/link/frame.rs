//! Frames, written and read.

use std::io;

use prost::bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Length, number and kind.
const HEADER_BYTES: usize = 9;
const LENGTH_BYTES: usize = 4;
/// Room for what is read at once.
const READ_BYTES: usize = 16 << 10;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) number: u32,
    pub(super) kind: u8,
    pub(super) payload: Bytes,
}

/// Appends a frame to what is written next.
///
/// # Errors
/// `InvalidInput` for a payload of 4 GiB and more.
pub(super) fn push(buffer: &mut Vec<u8>, number: u32, kind: u8, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(HEADER_BYTES - LENGTH_BYTES + payload.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a frame is shorter than 4 GiB"))?;
    buffer.reserve(HEADER_BYTES + payload.len());
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&number.to_le_bytes());
    buffer.push(kind);
    buffer.extend_from_slice(payload);
    Ok(())
}

/// Reads frames. Cancel-safe: what was read stays.
#[derive(Debug)]
pub(super) struct Frames<R> {
    source: R,
    buffer: BytesMut,
    /// The longest payload that is taken, in bytes.
    longest: usize,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(source: R, longest: usize) -> Self {
        Self { source, buffer: BytesMut::with_capacity(READ_BYTES), longest }
    }

    /// The next frame; none when the other side has closed the connection between two frames.
    ///
    /// # Errors
    /// That of the connection; `InvalidData` for a frame that is too long or too short, `UnexpectedEof` inside a frame.
    pub(super) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ_BYTES);
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    fn take(&mut self) -> io::Result<Option<Frame>> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        let Some(payload) = length.checked_sub(HEADER_BYTES - LENGTH_BYTES) else {
            return Err(invalid(format!("a frame of {length} bytes is too short")));
        };
        if payload > self.longest {
            return Err(invalid(format!("a frame of {payload} bytes is too long: {} are taken", self.longest)));
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            // Announced lengths are not reserved: memory is given for bytes that came.
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let number = self.buffer.get_u32_le();
        let kind = self.buffer.get_u8();
        Ok(Some(Frame { number, kind, payload: self.buffer.split_to(payload).freeze() }))
    }
}
