//! As much of HTTP as the tests need.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::DEADLINE;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Lower case, a line each.
    pub(crate) headers: String,
    pub(crate) body: String,
}

pub(crate) async fn get(url: &str) -> Answer {
    request("GET", url, "").await
}

pub(crate) async fn post(url: &str, headers: &str) -> Answer {
    request("POST", url, headers).await
}

/// Whether anybody listens.
pub(crate) async fn answers(url: &str) -> bool {
    TcpStream::connect(authority(url)).await.is_ok()
}

async fn request(method: &str, url: &str, headers: &str) -> Answer {
    let host = authority(url);
    let path = url.splitn(4, '/').nth(3).unwrap_or_default();
    let exchange = async {
        let mut stream = TcpStream::connect(host).await.unwrap();
        let head = format!(
            "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = timeout(DEADLINE, exchange).await.expect("the server answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, headers: head.to_lowercase(), body: body.to_owned() }
}

fn authority(url: &str) -> &str {
    url.split('/').nth(2).expect("a URL with a host")
}
