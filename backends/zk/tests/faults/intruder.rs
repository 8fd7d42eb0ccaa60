//! Ends sessions of others, as ZooKeeper itself does when it believes that their owners are dead.
//!
//! Whoever knows id and password of a session can take it over and close it. The password is no secret: ZooKeeper
//! derives it from the id, so that every server of an ensemble knows it.

use std::{collections::BTreeSet, time::Duration};

use discovery::conformance::stage::eventually;
use discovery_testbed::ZooKeeper;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The sessions with this timeout that are connected.
pub(crate) async fn sessions(server: &ZooKeeper, timeout: Duration) -> BTreeSet<i64> {
    let connections = server.four_letter_word("cons").await.unwrap();
    let timeout = format!(",to={},", timeout.as_millis());
    connections.lines().filter(|line| line.contains(&timeout)).filter_map(id).collect()
}

/// The sessions that own ephemeral nodes.
pub(crate) async fn holders(server: &ZooKeeper) -> BTreeSet<i64> {
    let dump = server.four_letter_word("dump").await.unwrap();
    let (_, holders) = dump.split_once("Sessions with Ephemerals").unwrap();
    let (holders, _) = holders.split_once("Connections dump").unwrap();
    holders.lines().skip(1).filter_map(id).collect()
}

/// The first session id in a line.
fn id(line: &str) -> Option<i64> {
    let (_, digits) = line.split_once("0x")?;
    let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    Some(i64::from_str_radix(&digits[..end], 16).unwrap())
}

/// Takes a session over and closes it, which its owner learns when it comes back.
///
/// An owner that is connected sees its connection closed and takes its session back, as often as it is faster.
pub(crate) async fn end(server: &ZooKeeper, session: i64) {
    const PROTOCOL: i32 = 0;
    const TIMEOUT_MS: i32 = 10_000;
    const CLOSE_SESSION: i32 = -11;
    let mut connect = PROTOCOL.to_be_bytes().to_vec();
    connect.extend(0_i64.to_be_bytes()); // The last zxid we have seen.
    connect.extend(TIMEOUT_MS.to_be_bytes());
    connect.extend(session.to_be_bytes());
    connect.extend(16_i32.to_be_bytes());
    connect.extend(password(session));
    let close = [1_i32.to_be_bytes(), CLOSE_SESSION.to_be_bytes()].concat();
    let both = [framed(&connect), framed(&close)].concat();
    eventually("the session has ended", async || {
        let mut line = TcpStream::connect(server.address()).await.unwrap();
        line.write_all(&both).await.unwrap();
        let mut answer = Vec::new();
        let _ = line.read_to_end(&mut answer).await;
        // Behind its length, protocol and timeout comes the id of the session, or zero if there is no such session.
        (answer.get(12..20) != Some(&[0; 8])).then(|| format!("{answer:?}"))
    })
    .await;
}

/// What `SessionTracker` and its like do: sixteen bytes of `java.util.Random`, seeded by the id and a constant.
fn password(session: i64) -> Vec<u8> {
    const SECRET: i64 = 0xB341_5C00;
    const FACTOR: i64 = 0x5_DEEC_E66D;
    const MASK: i64 = (1 << 48) - 1;
    let mut state = (session ^ SECRET ^ FACTOR) & MASK;
    let mut next = || {
        state = state.wrapping_mul(FACTOR).wrapping_add(0xB) & MASK;
        u32::try_from(state >> 16).unwrap().to_le_bytes()
    };
    (0..4).flat_map(|_| next()).collect()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&length.to_be_bytes(), message].concat()
}
