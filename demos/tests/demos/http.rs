//! As much of HTTP as the tests need.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
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

impl Answer {
    /// Its body, if that is JSON as it says.
    pub(crate) fn json(&self) -> Value {
        assert!(self.headers.contains("content-type: application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }
}

pub(crate) async fn get(url: &str) -> Answer {
    request("GET", url, "", "").await
}

pub(crate) async fn post(url: &str, headers: &str) -> Answer {
    request("POST", url, headers, "").await
}

/// With a body of JSON; `null` is none at all.
pub(crate) async fn ask(method: &str, url: &str, body: Value) -> Answer {
    match body {
        Value::Null => request(method, url, "", "").await,
        body => request(method, url, "Content-Type: application/json\r\n", &body.to_string()).await,
    }
}

/// Whether anybody listens.
pub(crate) async fn answers(url: &str) -> bool {
    TcpStream::connect(authority(url)).await.is_ok()
}

/// Each header of `headers` ends in a line break. Without a first one that says something else, the host is that of the URL.
pub(crate) async fn request(method: &str, url: &str, headers: &str, body: &str) -> Answer {
    let host = authority(url);
    let head = head(method, url, &format!("{headers}Content-Length: {}\r\n", body.len()));
    let exchange = async {
        let mut stream = TcpStream::connect(host).await.unwrap();
        // A server that refuses a body may not read all of it.
        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        let mut answer = Vec::new();
        while let Ok(1..) = stream.read_buf(&mut answer).await {}
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = timeout(DEADLINE, exchange).await.expect("the server answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, headers: head.to_lowercase(), body: body.to_owned() }
}

/// Asks for something without an end. Returns what comes of it: the head, and a body that is not cut into chunks.
pub(crate) async fn open(url: &str, headers: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(authority(url)).await.unwrap();
    let head = head("GET", url, headers).replace("HTTP/1.1", "HTTP/1.0");
    stream.write_all(head.as_bytes()).await.unwrap();
    BufReader::new(stream)
}

fn head(method: &str, url: &str, headers: &str) -> String {
    let path = url.splitn(4, '/').nth(3).unwrap_or_default();
    let host =
        if headers.starts_with("Host: ") { String::new() } else { format!("Host: {}\r\n", authority(url)) };
    format!("{method} /{path} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n")
}

fn authority(url: &str) -> &str {
    url.split('/').nth(2).expect("a URL with a host")
}
