//! What runs in the containers of the tests on Docker: a service to be found, and somebody who follows it.
//!
//! ```text
//! container serve PORT PATH             answers a GET of PATH with 200, or with 503 while it is ill
//! container tell PORT ill|well          tells the service in the same container how it is
//! container watch LOCATOR SERVICE...    prints what is heard of services
//! ```
//!
//! Each thing that is heard is a line: the milliseconds since 1970, the service, what it was (`reset`, `delta`, `stale` or
//! `live`), and behind that all instances that are known, as `id=address,status`.

use std::{
    error::Error,
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use discovery::{Connectors, Discovery, Event, Instance, ServiceName, Snapshot};
use futures_util::{StreamExt, future::try_join_all};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
};

/// The most bytes of a request that are read.
const REQUEST_MAX: usize = 4096;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let work = async {
        match arguments[..] {
            ["serve", port, path] => serve(port.parse()?, path).await,
            ["tell", port, state @ ("ill" | "well")] => tell(port.parse()?, state).await,
            ["watch", locator, ref services @ ..] => watch(locator, services).await,
            _ => {
                Err("usage: container serve PORT PATH | tell PORT ill|well | watch LOCATOR SERVICE...".into())
            }
        }
    };
    // The first process of a container is not ended by signals that it does not ask for.
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = work => result,
        _ = terminate.recv() => Ok(()),
    }
}

/// What a service answers: whether it is well, and the path that it has.
struct Service {
    path: String,
    well: AtomicBool,
}

async fn serve(port: u16, path: &str) -> Result<()> {
    let service = Arc::new(Service { path: path.to_owned(), well: AtomicBool::new(true) });
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let service = service.clone();
        tokio::spawn(async move {
            // Who connects and does not speak is no reason to end.
            let _ = service.answer(stream).await;
        });
    }
}

impl Service {
    async fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") && request.len() < REQUEST_MAX {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let request = String::from_utf8_lossy(&request);
        let mut words = request.split(' ');
        let status = match (words.next(), words.next()) {
            (Some("GET"), Some(path)) if path == self.path => {
                if self.well.load(Ordering::Relaxed) {
                    "200 OK"
                } else {
                    "503 Service Unavailable"
                }
            }
            (Some("PUT"), Some(state @ ("/well" | "/ill"))) => {
                self.well.store(state == "/well", Ordering::Relaxed);
                "200 OK"
            }
            _ => "404 Not Found",
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await
    }
}

async fn tell(port: u16, state: &str) -> Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(format!("PUT /{state} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer.into()) }
}

async fn watch(locator: &str, services: &[&str]) -> Result<()> {
    let connectors = Connectors::new().with(discovery_dns::connector());
    let discovery = Discovery::connect(locator, &connectors).await?;
    try_join_all(services.iter().map(|service| follow(&discovery, service))).await?;
    Ok(())
}

async fn follow(discovery: &Discovery, service: &str) -> Result<()> {
    let service: ServiceName = service.parse()?;
    let (mut events, mut known) = (discovery.watch(&service), Snapshot::default());
    while let Some(event) = events.next().await {
        let event = event?;
        known.take(&event);
        let what = match event {
            Event::Reset(_) => "reset",
            Event::Delta { .. } => "delta",
            Event::Live => "live",
            Event::Stale(error) => {
                eprintln!("{service}: {error}");
                "stale"
            }
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
        let instances: String = known.iter().map(|instance| show(instance)).collect();
        println!("{now} {service} {what}{instances}");
    }
    Ok(())
}

fn show(instance: &Instance) -> String {
    let address = instance.endpoints().first().map(ToString::to_string).unwrap_or_default();
    format!(" {}={address},{}", instance.id(), instance.status())
}
