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

/// GET in plain HTTP: status and body.
pub(crate) fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The value of a metric without labels.
pub(crate) fn metric(address: std::net::SocketAddr, name: &str) -> Option<f64> {
    let text = get(address, "/metrics").1;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

/// An address of this machine that nobody listens on.
pub(crate) fn free_address() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
