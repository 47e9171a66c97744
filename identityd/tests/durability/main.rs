//! What the store promises when disks fail: acknowledged writes are there, each once, and nothing wrong is ever served.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(
    clippy::result_large_err,
    reason = "tonic's Status and the reasons not to start are large and not ours to box"
)]

mod clients;
mod disk;
mod faults;
mod flips;
mod lag;
mod leader;
mod past;
mod power;
mod random;
#[path = "../store/support.rs"]
mod support;
