//! What runs in the containers of the testbed's own tests: something to be found, and something that looks.
//!
//! ```text
//! probe serve PORT      listens, and tells everybody who connects its host name
//! probe resolve NAME    prints the addresses that the name server of /etc/resolv.conf has for a name
//! probe deny            is a name server that knows no name at all
//! ```
//!
//! It asks the name server in DNS, as a library of our own would. What the C library does about names depends on files
//! that an image from scratch does not have.

use std::{
    env, fs,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    process::{self, ExitCode},
    time::Duration,
};

const DNS_PORT: u16 = 53;

const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The code of an answer that says that there is no such name.
const NO_SUCH_NAME: u8 = 3;

/// Record type `A` in the class `IN`.
const A_IN: [u8; 4] = [0, 1, 0, 1];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["serve", port] => serve(port),
        ["resolve", name] => print_addresses(name),
        ["deny"] => deny(),
        _ => Err(other("usage: probe serve PORT | resolve NAME | deny")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: &str) -> io::Result<()> {
    let port = port.parse().map_err(other)?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let host = fs::read_to_string("/etc/hostname")?;
    println!("{} listens on port {port}", host.trim());
    for stream in listener.incoming() {
        // Who connects and does not listen is no reason to end.
        let _ = stream.and_then(|mut stream| stream.write_all(host.as_bytes()));
    }
    Ok(())
}

fn deny() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, DNS_PORT))?;
    let mut message = [0; 512];
    loop {
        let (length, client) = socket.recv_from(&mut message)?;
        let [_, _, flags, code, ..] = &mut message[..length] else { continue };
        // The question becomes the answer to it.
        *flags |= 0x80;
        *code = NO_SUCH_NAME;
        socket.send_to(&message[..length], client)?;
    }
}

fn print_addresses(name: &str) -> io::Result<()> {
    let mut addresses = resolve(name)?;
    addresses.sort();
    for address in addresses {
        println!("{address}");
    }
    Ok(())
}

fn resolve(name: &str) -> io::Result<Vec<Ipv4Addr>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    socket.connect((name_server()?, DNS_PORT))?;
    let query = query(name)?;
    socket.send(&query)?;
    let mut buffer = [0; 4096];
    let length = match socket.recv(&mut buffer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(other(format!("no answer within {ANSWER_WITHIN:?}")));
        }
        result => result?,
    };
    addresses(&query, &buffer[..length])
}

fn name_server() -> io::Result<IpAddr> {
    let config = fs::read_to_string("/etc/resolv.conf")?;
    let server = config.lines().find_map(|line| line.strip_prefix("nameserver "));
    server.ok_or_else(|| other("no nameserver in /etc/resolv.conf"))?.trim().parse().map_err(other)
}

/// A question for the addresses of `name`, which need not be one that a host may have: `a_b` is fine.
fn query(name: &str) -> io::Result<Vec<u8>> {
    let [high, low] = process::id().to_be_bytes()[2..] else { return Err(other("a short id")) };
    // Recursion desired, one question.
    let mut query = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split_terminator('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
        query.push(length.ok_or_else(|| other(format!("not a name: {name}")))?);
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(A_IN);
    Ok(query)
}

/// The addresses in the answer to `query`, which an answer repeats up to its flags and counts.
fn addresses(query: &[u8], answer: &[u8]) -> io::Result<Vec<Ipv4Addr>> {
    let header = answer.get(..12).ok_or_else(cut_short)?;
    if header[..2] != query[..2] {
        return Err(other("the answer is to another question"));
    }
    match header[3] & 0xf {
        0 => {}
        NO_SUCH_NAME => return Err(io::Error::new(io::ErrorKind::NotFound, "there is no such name")),
        code => return Err(other(format!("the name server says: error {code}"))),
    }
    let mut rest = answer.get(query.len()..).ok_or_else(cut_short)?;
    let mut found = Vec::new();
    for _ in 0..u16::from_be_bytes([header[6], header[7]]) {
        rest = behind_name(rest).ok_or_else(cut_short)?;
        let (fixed, behind) = rest.split_at_checked(10).ok_or_else(cut_short)?;
        let length = u16::from_be_bytes([fixed[8], fixed[9]]);
        let (data, behind) = behind.split_at_checked(length.into()).ok_or_else(cut_short)?;
        if let (true, &[a, b, c, d]) = (fixed[..4] == A_IN, data) {
            found.push(Ipv4Addr::new(a, b, c, d));
        }
        rest = behind;
    }
    Ok(found)
}

/// What is behind the name that a record begins with.
fn behind_name(record: &[u8]) -> Option<&[u8]> {
    match *record.first()? {
        0 => record.get(1..),
        // The rest of the name is elsewhere; this is a pointer to it.
        length if length >= 0xc0 => record.get(2..),
        length => behind_name(record.get(1 + usize::from(length)..)?),
    }
}

fn cut_short() -> io::Error {
    other("the answer is cut short")
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}
