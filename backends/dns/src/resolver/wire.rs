//! Asks servers questions.
//!
//! The client library's own resolver takes some errors for "no such records" (a chain of aliases without end, an answer
//! to something else), and asks no other server if one says that it cannot tell. So only its transport is used, a pool
//! for each server, and what the answers mean is decided in [`answer`](super::answer).

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use discovery::{Error, ErrorKind, Result};
use futures_util::{StreamExt, stream::FuturesUnordered};
use hickory_proto::{
    op::{DnsRequestOptions, Message, Query},
    rr::{Name, RecordType},
};
use hickory_resolver::{
    NameServerPool, PoolContext, TlsConfig,
    config::{ConnectionConfig, NameServerConfig, ResolverOpts},
    net::{
        runtime::TokioRuntimeProvider,
        xfer::{DnsHandle, FirstAnswer},
    },
};
use tokio::{sync::Semaphore, time};

use super::{
    DnsConfig,
    answer::{self, Answer, Question, Said},
};

/// How many questions are under way at a time. More than the client library has on one TCP connection would fail there.
const IN_FLIGHT: usize = 128;
/// How many hops a chain of aliases may have from message to message.
const HOPS: usize = 8;

/// Answers questions.
#[async_trait]
pub(crate) trait Ask: fmt::Debug + Send + Sync + 'static {
    /// The records of a type at a name. Nothing there is an answer too; "cannot tell" is an error.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Answer>;
}

/// The servers.
pub(crate) struct Wire {
    servers: Vec<Server>,
    /// The server that answered last. Written by whoever was answered by another one, read by all; a hint, so relaxed
    /// ordering will do.
    preferred: AtomicUsize,
    in_flight: Semaphore,
    stagger: Duration,
}

struct Server {
    address: SocketAddr,
    pool: NameServerPool<TokioRuntimeProvider>,
}

impl Wire {
    /// Opens nothing yet.
    pub(crate) fn new(config: &DnsConfig) -> Result<Self> {
        let mut options = ResolverOpts::default();
        // For one server; the deadline of a lookup is over all.
        options.timeout = config.deadline();
        options.cache_size = 0;
        options.max_active_requests = 2 * IN_FLIGHT;
        let tls = TlsConfig::new().map_err(|error| {
            Error::new(ErrorKind::Other, "the DNS client cannot be made").with_source(error)
        })?;
        let context = Arc::new(PoolContext::new(options, tls));
        let server = |address: &SocketAddr| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = address.port();
                connection
            });
            let server = NameServerConfig::new(address.ip(), true, connections.into());
            let pool =
                NameServerPool::from_config([server], context.clone(), TokioRuntimeProvider::default());
            Server { address: *address, pool }
        };
        Ok(Self {
            servers: config.servers().iter().map(server).collect(),
            preferred: AtomicUsize::new(0),
            in_flight: Semaphore::new(IN_FLIGHT),
            stagger: config.deadline() / 8,
        })
    }

    /// One question, to one server after the other: the next as soon as one fails, or is slow. Some of them being down
    /// costs a moment once.
    async fn exchange(&self, question: &Question) -> Result<Reply> {
        let count = self.servers.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut waiting = (0..count).map(|n| (first + n) % count);
        let mut asked = FuturesUnordered::new();
        let mut failed = None;
        loop {
            if asked.is_empty() {
                let Some(next) = waiting.next() else { break };
                asked.push(self.send(next, question));
            }
            tokio::select! {
                Some((server, reply)) = asked.next() => match reply {
                    Ok(reply) => {
                        if server != first {
                            self.preferred.store(server, Ordering::Relaxed);
                        }
                        return Ok(reply);
                    }
                    Err(error) => {
                        tracing::debug!(server = %self.servers[server].address, %error, "no answer");
                        failed = Some(answer::more_hopeful(failed, error));
                        asked.extend(waiting.next().map(|next| self.send(next, question)));
                    }
                },
                () = time::sleep(self.stagger), if waiting.len() > 0 => {
                    asked.extend(waiting.next().map(|next| self.send(next, question)));
                }
            }
        }
        Err(failed.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, "there is no server to ask")))
    }

    async fn send(&self, server: usize, question: &Question) -> (usize, Result<Reply>) {
        let mut options = DnsRequestOptions::default();
        options.use_edns = true;
        let query = Query::query(question.name.clone(), question.kind);
        let reply = match self.servers[server].pool.lookup(query, options).first_answer().await {
            Ok(response) => Ok(Reply::Message(response.into_message())),
            Err(error) => answer::read_error(error, question).map(Reply::Nothing),
        };
        (server, reply)
    }
}

/// What comes back from a server that can tell.
enum Reply {
    Message(Message),
    Nothing(Answer),
}

#[async_trait]
impl Ask for Wire {
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Answer> {
        let mut question = Question { name: name.to_lowercase(), kind };
        let (mut visited, mut ttl) = (Vec::new(), Duration::MAX);
        for _ in 0..HOPS {
            let permit = self.in_flight.acquire().await;
            let reply = self.exchange(&question).await?;
            drop(permit);
            let mut answer = match reply {
                Reply::Nothing(answer) => answer,
                Reply::Message(message) => match answer::read(&message, &mut question, &mut visited)? {
                    Said::Answer(answer) => answer,
                    Said::Elsewhere { ttl: lives } => {
                        ttl = ttl.min(lives);
                        continue;
                    }
                },
            };
            if ttl < Duration::MAX {
                answer.ttl = Some(answer.ttl.map_or(ttl, |own| own.min(ttl)));
            }
            return Ok(answer);
        }
        Err(Error::new(ErrorKind::Corrupt, format!("{question}: reached by more than {HOPS} aliases")))
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.servers.iter().map(|server| server.address)).finish()
    }
}
