//! One connection attempt: connect, send a line, want it back.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use super::protocol::Outcome;

const LINE: &[u8] = b"ringfence\n";

/// Tries every target at the same time; outcomes are in the targets' order.
#[must_use]
pub fn all(targets: &[SocketAddr], timeout_ms: u64) -> Vec<Outcome> {
    let timeout = Duration::from_millis(timeout_ms.max(1));
    thread::scope(|scope| {
        let attempts: Vec<_> = targets.iter().map(|target| scope.spawn(move || one(*target, timeout))).collect();
        let panicked = || Outcome::Failed("the attempt panicked".to_owned());
        attempts.into_iter().map(|attempt| attempt.join().unwrap_or_else(|_| panicked())).collect()
    })
}

fn one(target: SocketAddr, timeout: Duration) -> Outcome {
    match connect_and_echo(target, timeout) {
        Ok(()) => Outcome::Connected,
        // A read that runs into its timeout is WouldBlock on Linux.
        Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => Outcome::TimedOut,
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// Connects and exchanges one line.
///
/// # Errors
/// As the sockets say; a time-out is `TimedOut` or `WouldBlock`.
pub fn connect_and_echo(target: SocketAddr, timeout: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    exchange(&mut stream)
}

/// Sends a line and wants it back.
///
/// # Errors
/// As the socket says; another line is `InvalidData`.
pub fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    let mut answer = [0; LINE.len()];
    stream.write_all(LINE)?;
    stream.read_exact(&mut answer)?;
    if answer == LINE { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "the echo differs")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_echo_is_an_allow_silence_a_drop_and_a_refusal_neither() {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let targets = [echo.local_addr().unwrap(), silent.local_addr().unwrap(), closed];
        thread::spawn(move || {
            let (mut stream, _) = echo.accept().unwrap();
            let mut buffer = [0; LINE.len()];
            stream.read_exact(&mut buffer).unwrap();
            stream.write_all(&buffer).unwrap();
        });
        let outcomes = all(&targets, 300);
        assert_eq!(outcomes[..2], [Outcome::Connected, Outcome::TimedOut]);
        assert!(matches!(&outcomes[2], Outcome::Failed(why) if why.contains("refused")), "{outcomes:?}");
    }
}
