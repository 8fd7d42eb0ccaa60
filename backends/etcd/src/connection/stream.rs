//! A TCP connection, with TLS or without, that remembers what TLS had against it.
//!
//! A server that does not like our certificate says so after the handshake, in an alert that comes instead of the first
//! answer. The client library then reports that the connection broke. What broke it is noted here.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    time::sleep,
};
use tokio_rustls::TlsConnector;

use super::open::STAGGER;
use crate::config::{Server, Tls};

/// What TLS had against a connection, if anything; the first thing counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Objection(Arc<OnceLock<rustls::Error>>);

impl Objection {
    pub(super) fn get(&self) -> Option<&rustls::Error> {
        self.0.get()
    }

    fn note(&self, error: &io::Error) {
        if let Some(objection) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            let _ = self.0.set(objection.clone());
        }
    }
}

/// Bytes to and from a server.
pub(super) struct Stream {
    inner: Box<dyn Io>,
    objection: Objection,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Stream {
    /// Connects, and shakes hands if there is to be TLS; where that fails, it is an unexpected end.
    pub(super) async fn connect(
        server: &Server,
        tls: Option<&Tls>,
        objection: &Objection,
    ) -> io::Result<Self> {
        let stream = connect(server.address()).await?;
        stream.set_nodelay(true)?;
        let inner: Box<dyn Io> = match tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::try_from(server.host().to_owned()).map_err(io::Error::other)?;
                let shaken = TlsConnector::from(tls.config().clone()).connect(name, stream).await;
                Box::new(shaken.map_err(|error| {
                    objection.note(&error);
                    // However it was cut short: the connection was there already.
                    io::Error::new(io::ErrorKind::UnexpectedEof, error)
                })?)
            }
        };
        Ok(Self { inner, objection: objection.clone() })
    }

    /// What became of an attempt to write. Where that failed, the reason is still to be read: a server that sends an
    /// alert closes the connection behind it. So the failure has to wait for the end of what there is to read, which
    /// comes when a connection is broken.
    fn written<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if !matches!(outcome, Poll::Ready(Err(_))) {
            return outcome;
        }
        let mut last_words = [0; 1024];
        loop {
            let mut buf = ReadBuf::new(&mut last_words);
            match Pin::new(&mut *self.inner).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(Ok(())) => return outcome,
                Poll::Ready(Err(error)) => {
                    self.objection.note(&error);
                    return outcome;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Connects to the first of the addresses that a name has. One that swallows everything does not hold up the others
/// (as in RFC 8305, section 5).
async fn connect(name: &str) -> io::Result<TcpStream> {
    let mut untried = lookup_host(name).await?.peekable();
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        attempts.extend(untried.next().map(TcpStream::connect));
        let has_more = untried.peek().is_some();
        tokio::select! {
            Some(outcome) = attempts.next() => match outcome {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            },
            () = sleep(STAGGER), if has_more => {}
            else => return Err(failure),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut *self.inner).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &outcome {
            self.objection.note(error);
        }
        outcome
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut *self.inner).poll_write(cx, buf);
        self.written(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut *self.inner).poll_write_vectored(cx, bufs);
        self.written(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut *self.inner).poll_flush(cx);
        self.written(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut *self.inner).poll_shutdown(cx);
        self.written(cx, outcome)
    }
}
