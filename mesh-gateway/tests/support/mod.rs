//! Real parts around the process under test: certificates, a store on loopback, runtimes that can be killed.
//!
//! ```text
//! TestStore (history, real Mesh service over mTLS) ◄─ Follow, Execute, Report ─ process under test
//! ```

mod certificates;
mod killable;
mod store;

pub(crate) use certificates::{as_role, certificates};
pub(crate) use killable::Killable;
pub(crate) use store::{TestStore, node};

use std::time::{Duration, Instant};

/// Waits until a condition holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An address of this machine that nobody listens on.
pub(crate) fn free_address() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
