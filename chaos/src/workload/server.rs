//! TCP echo and UDP sinks that count what arrives, by source.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

use super::protocol::{Count, Protocol};

type Counters = Arc<Mutex<BTreeMap<(Protocol, u16, IpAddr), u64>>>;

/// Serves until the process ends.
#[derive(Debug)]
pub struct Server {
    counters: Counters,
}

impl Server {
    /// Binds each port for TCP and UDP, IPv4 and IPv6.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn start(ports: &[u16]) -> Result<Self> {
        let counters = Counters::default();
        for &port in ports {
            // One socket for both families: Linux maps IPv4 peers into it (ipv6(7), IPV6_V6ONLY off by default).
            let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on TCP port {port}"))?;
            let socket = UdpSocket::bind(address).with_context(|| format!("cannot bind UDP port {port}"))?;
            let (tcp, udp) = (Arc::clone(&counters), Arc::clone(&counters));
            thread::spawn(move || accept(&listener, port, &tcp));
            thread::spawn(move || receive(&socket, port, &udp));
        }
        Ok(Self { counters })
    }

    /// What has arrived so far.
    #[must_use]
    pub fn counts(&self) -> Vec<Count> {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.iter().map(|(&(protocol, port, source), &count)| Count { protocol, port, source, count }).collect()
    }
}

fn accept(listener: &TcpListener, port: u16, counters: &Counters) {
    loop {
        // A connection that was reset before it was accepted is the client's matter.
        let Ok((stream, peer)) = listener.accept() else { continue };
        add(counters, Protocol::Tcp, port, peer);
        thread::spawn(move || echo(stream));
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    // Ends with the connection, however that ends.
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn receive(socket: &UdpSocket, port: u16, counters: &Counters) {
    let mut buffer = [0; 1024];
    loop {
        if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            add(counters, Protocol::Udp, port, peer);
        }
    }
}

fn add(counters: &Counters, protocol: Protocol, port: u16, peer: SocketAddr) {
    let mut counters = counters.lock().unwrap_or_else(PoisonError::into_inner);
    *counters.entry((protocol, port, peer.ip().to_canonical())).or_default() += 1;
}
