//! Somebody in a network namespace who sends and receives what it is told to: this test's executable, run again.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

/// Set in the process of a station.
const STATION: &str = "RINGFENCE_TEST_STATION";
/// How long a station waits for what should come. What should not come is waited for as long.
const PATIENCE: Duration = Duration::from_millis(400);
/// How long a transfer may stand still.
const STALL: Duration = Duration::from_secs(4);

/// A station, as the test sees it.
pub(crate) struct Station {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Station {
    /// In a network namespace of this name; none for the node's own.
    pub(crate) fn start(test: &str, namespace: Option<&str>) -> Self {
        let this = std::env::current_exe().expect("a test is an executable");
        let mut command = Command::new("ip");
        match namespace {
            Some(namespace) => command.args(["netns", "exec", namespace]).arg(this),
            None => {
                command = Command::new(this);
                &mut command
            }
        };
        command.args([test, "--exact", "--nocapture"]).env(STATION, "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ip is installed");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut station = Self { child, answers };
        station.answer();
        station
    }

    /// Has something done; answers what came of it.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        let input = self.child.stdin.as_mut().expect("it is piped");
        writeln!(input, "{command}").expect("the station runs");
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        while !line.contains("> ") {
            line.clear();
            assert_ne!(self.answers.read_line(&mut line).expect("text"), 0, "the station ended");
        }
        line.split_once("> ").expect("it was just found").1.trim().to_owned()
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Serves as a station until its input ends, if this process is to be one.
pub(crate) fn serve() -> bool {
    if std::env::var_os(STATION).is_none() {
        return false;
    }
    let mut sockets: HashMap<String, UdpSocket> = HashMap::new();
    println!("\n> ready");
    for line in std::io::stdin().lines() {
        let line = line.expect("text");
        let words: Vec<&str> = line.split_whitespace().collect();
        println!("> {}", perform(&words, &mut sockets).unwrap_or_else(|error| format!("error {error}")));
    }
    true
}

fn perform(words: &[&str], sockets: &mut HashMap<String, UdpSocket>) -> std::io::Result<String> {
    let ok = || "ok".to_owned();
    match *words {
        ["udp", address] => {
            let socket = UdpSocket::bind(address)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            sockets.insert(address.to_owned(), socket);
            Ok(ok())
        }
        ["udp-with-mark", address, mark] => {
            let socket = UdpSocket::bind(address)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket2::SockRef::from(&socket).set_mark(mark.parse().expect("a number"))?;
            sockets.insert(address.to_owned(), socket);
            Ok(ok())
        }
        ["send", from, to, bytes] => {
            sockets[from].send_to(&vec![7; bytes.parse().expect("a number")], to)?;
            Ok(ok())
        }
        // How many bytes came, and from where.
        ["receive", at] => Ok(match sockets[at].recv_from(&mut [0; 65_536]) {
            Ok((bytes, from)) => format!("{bytes} {from}"),
            Err(_) => "nothing".to_owned(),
        }),
        ["listen", at] => TcpListener::bind(at).map(|listener| {
            thread::spawn(move || listener.incoming().flatten().for_each(count));
            ok()
        }),
        ["transfer", to, bytes] => transfer(to.parse().expect("an address"), bytes.parse().expect("a number")),
        ["transfer-with-mark", to, bytes, mark] => {
            let to: SocketAddr = to.parse().expect("an address");
            let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
            let socket = Socket::new(domain, Type::STREAM, None)?;
            socket.set_mark(mark.parse().expect("a number"))?;
            socket.connect_timeout(&to.into(), PATIENCE * 3)?;
            exchange(socket.into(), bytes.parse().expect("a number"))
        }
        // A whole IP packet.
        ["raw", to, hexadecimal] => {
            let to: SocketAddr = SocketAddr::new(to.parse().expect("an address"), 0);
            let socket = raw(to.ip(), 255)?;
            socket.send_to(&bytes(hexadecimal), &to.into())?;
            Ok(ok())
        }
        ["message", from, to, kind] => {
            message(from.parse().expect("an address"), to.parse().expect("an address"), kind.parse().expect("a type"))
        }
        _ => Ok(format!("not understood: {words:?}")),
    }
}

/// Answers with how many bytes came.
fn count(mut stream: TcpStream) {
    let read = stream.read_to_end(&mut Vec::new()).unwrap_or(0);
    let _ = stream.write_all(&read.to_be_bytes());
}

fn transfer(to: SocketAddr, bytes: usize) -> std::io::Result<String> {
    exchange(TcpStream::connect_timeout(&to, PATIENCE * 3)?, bytes)
}

fn exchange(mut stream: TcpStream, bytes: usize) -> std::io::Result<String> {
    stream.set_write_timeout(Some(STALL))?;
    stream.set_read_timeout(Some(STALL))?;
    stream.write_all(&vec![7; bytes])?;
    stream.shutdown(Shutdown::Write)?;
    let mut counted = [0; size_of::<usize>()];
    stream.read_exact(&mut counted)?;
    Ok(usize::from_be_bytes(counted).to_string())
}

fn raw(family: IpAddr, protocol: i32) -> std::io::Result<Socket> {
    let domain = if family.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    // SOCK_RAW, linux/net.h
    let socket = Socket::new(domain, Type::from(3), Some(Protocol::from(protocol)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Sends an ICMP message of a type; answers with the type of what comes back with the same identifier.
fn message(from: IpAddr, to: IpAddr, kind: u8) -> std::io::Result<String> {
    const IDENTIFIER: u16 = 0x5a01;
    let protocol = if to.is_ipv4() { 1 } else { 58 };
    let socket = raw(to, protocol)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    let mut message = vec![kind, 0, 0, 0];
    message.extend(IDENTIFIER.to_be_bytes());
    message.extend([0, 1]);
    // A timestamp message is longer (RFC 792).
    message.extend([0; 12]);
    let sum = checksum(&message).to_be_bytes();
    // The kernel fills it in for ICMPv6.
    message[2..4].copy_from_slice(&sum);
    socket.send_to(&message, &SocketAddr::new(to, 0).into())?;
    for _ in 0..16 {
        let mut buffer = [0; 2048];
        let Ok(read) = (&socket).read(&mut buffer) else { break };
        // Raw IPv4 sockets get the header, too.
        let start = if to.is_ipv4() { usize::from(buffer[0] & 15) * 4 } else { 0 };
        let answer = &buffer[start..read];
        if answer.len() >= 6 && answer[0] != kind && answer[4..6] == IDENTIFIER.to_be_bytes() {
            return Ok(answer[0].to_string());
        }
    }
    Ok("nothing".to_owned())
}

/// RFC 1071
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("it was folded")
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hexadecimal[at..at + 2], 16).expect("two digits");
    (0..hexadecimal.len()).step_by(2).map(digit).collect()
}
