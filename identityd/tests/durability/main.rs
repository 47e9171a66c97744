//! What the store promises when disks fail: acknowledged writes are there, each once, and nothing wrong is ever served.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod clients;
mod disk;
mod faults;
mod power;
mod random;
#[path = "../store/support.rs"]
mod support;
