//! Opening a connection: to the first member that answers as it should.

use std::{error::Error as StdError, io, sync::Arc, time::Duration};

use discovery::{Error, ErrorKind, Result};
use etcd_client::{Channel, Client, ConnectOptions, GetOptions, KeyValue, KvClient, ResponseHeader};
use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper_util::rt::TokioIo;
use tokio::time::{sleep, timeout};
use tower::service_fn;

use super::{
    Connection,
    history::{Claim, History, Recall, Witness},
    stream::{Objection, Stream},
};
use crate::{
    config::{EtcdConfig, Server},
    error::Trouble,
};

/// How long a member, or an address of one, may keep us waiting before the next one is tried as well.
pub(super) const STAGGER: Duration = Duration::from_millis(250);

/// The oldest server that has all we need: asking a watch for a sign of life came with it.
const OLDEST: (u32, u32) = (3, 4);

/// Tries the servers, from the `first`th on, until one is fit for use. A slow one does not hold up the others.
pub(super) async fn open(config: &EtcdConfig, history: &History, first: usize) -> Result<Arc<Connection>> {
    let servers = config.servers();
    let mut untried = (0..servers.len()).map(|n| &servers[(first + n) % servers.len()]).peekable();
    let mut attempts = FuturesUnordered::new();
    let mut refusals = Vec::new();
    loop {
        if let Some(server) = untried.next() {
            attempts.push(attempt(config, history, server));
        }
        let has_more = untried.peek().is_some();
        tokio::select! {
            Some(outcome) = attempts.next() => match outcome {
                Ok(connection) => return Ok(Arc::new(connection)),
                Err(refusal) => refusals.push(refusal),
            },
            () = sleep(STAGGER), if has_more => {}
            else => return Err(no_server(config, refusals)),
        }
    }
}

/// One server, and why it is of no use.
struct Refusal<'c> {
    server: &'c Server,
    error: Error,
}

async fn attempt<'c>(
    config: &EtcdConfig,
    history: &History,
    server: &'c Server,
) -> Result<Connection, Refusal<'c>> {
    let connected = timeout(config.connect_timeout(), connect(config, history, server)).await;
    let connected = connected.unwrap_or_else(|_| {
        let message = format!("does not answer within {:?}", config.connect_timeout());
        Err(Error::new(ErrorKind::Timeout, message))
    });
    connected
        .inspect(|_| tracing::debug!(server = server.address(), "connected"))
        .map_err(|error| Refusal { server, error })
}

/// Connects, logs in, and has the member prove that it is new enough, has a leader and is up to date.
async fn connect(config: &EtcdConfig, history: &History, server: &Server) -> Result<Connection> {
    let objection = Objection::default();
    let refused = |trouble| refused(config, &objection, trouble);
    let channel = channel(config, server, &objection).await?;
    let mut client = log_in(config, &channel).await.map_err(refused)?;
    let status = match client.status().await.map_err(Trouble::from) {
        Ok(status) => Some(status),
        // Some versions tell it to nobody but root. The read below demands a leader as well.
        Err(trouble) if trouble.is_permission_denied() => None,
        Err(trouble) => return Err(refused(trouble)),
    };
    if let Some(status) = &status {
        check_version(status.version())?;
        if status.leader() == 0 {
            return Err(unavailable("has no leader: the cluster has no majority here"));
        }
    }
    let (known, witnesses) = history.known();
    let kv = client.kv_client();
    let (header, recall) = recall(config, witnesses, &kv).await.map_err(refused)?;
    let told = header.as_ref().or(status.as_ref().and_then(|status| status.header()));
    let cluster = told.map_or(0, ResponseHeader::cluster_id);
    let now = header.as_ref().map(ResponseHeader::revision);
    let era = history.resume(Claim { cluster, known, now, recall });
    Ok(Connection::new(server.address(), era, &client))
}

/// A channel over one TCP connection. When that is lost, so is the channel: it finds no second one.
async fn channel(
    config: &EtcdConfig,
    server: &Server,
    objection: &Objection,
) -> Result<tonic::transport::Channel> {
    let stream = Stream::connect(server, config.tls(), objection).await.map_err(|error| {
        let described = match objection.get() {
            Some(objection) => objected(objection),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                unavailable("closes the connection amid the TLS handshake; does it speak TLS?")
            }
            None => unavailable("cannot be reached"),
        };
        described.with_source(error)
    })?;
    let mut once = Some(TokioIo::new(stream));
    let connector = service_fn(move |_| {
        std::future::ready(once.take().ok_or_else(|| io::Error::other("the connection is over")))
    });
    let channel = server.endpoint().connect_with_connector(connector).await;
    channel.map_err(|error| unavailable("closes the connection at once").with_source(error))
}

/// A client on a channel, logged in if we have a user.
async fn log_in(config: &EtcdConfig, channel: &tonic::transport::Channel) -> Result<Client, Trouble> {
    let options = ConnectOptions::new().with_require_leader(true);
    let on = |options| Client::from_channel(Channel::Tonic(channel.clone()), Some(options));
    let Some((user, secret)) = config.user() else { return Ok(on(options).await?) };
    let named = options.clone().with_user(user, secret).with_auto_token_refresh(true);
    match on(named).await.map_err(Trouble::from) {
        // As etcd's own clients do: it may be enabled later, and then we log in.
        Err(trouble) if trouble.is_auth_disabled() => {
            tracing::warn!(%config, "the server has no authentication enabled: anybody may do anything there");
            Ok(on(options).await?)
        }
        outcome => outcome,
    }
}

/// Asks for the witnesses, or else for nothing: a member that can answer is up to date with the others. Returns what the
/// answer says of the cluster, if we have the right to read there, and whether a witness is known; see
/// [`history`](super::history).
async fn recall(
    config: &EtcdConfig,
    witnesses: Vec<Witness>,
    kv: &KvClient,
) -> Result<(Option<ResponseHeader>, Recall), Trouble> {
    let ask = async |path: &[u8], options: GetOptions| {
        kv.clone().get(path, Some(options)).await.map_err(Trouble::from)
    };
    // Mostly one is there still, and then it does not matter how much is compacted.
    let as_of_now = witnesses.iter().map(|witness| (witness, GetOptions::new(), None));
    let as_of_then = witnesses
        .iter()
        .map(|witness| (witness, GetOptions::new().with_revision(witness.revision), Some(Recall::Different)));
    let mut otherwise = Recall::Unknown;
    for (witness, options, unless_it) in as_of_now.chain(as_of_then) {
        let is_it = |entry: &KeyValue| {
            entry.mod_revision() == witness.revision && entry.value() == &witness.value[..]
        };
        match ask(&witness.path, options).await {
            Ok(mut answer) => {
                let is_known = answer.kvs().iter().any(is_it);
                if let Some(recall) = if is_known { Some(Recall::Same) } else { unless_it } {
                    return Ok((answer.take_header(), recall));
                }
            }
            Err(trouble) if trouble.is_permission_denied() => {}
            // Compacted, or still to come.
            Err(trouble) if !trouble.is_of_connection() => otherwise = Recall::Different,
            Err(trouble) => return Err(trouble),
        }
    }
    let nothing = config.layout().nothing();
    match ask(nothing.as_bytes(), GetOptions::new().with_count_only()).await {
        Ok(mut answer) => Ok((answer.take_header(), otherwise)),
        Err(trouble) if trouble.is_permission_denied() => Ok((None, otherwise)),
        Err(trouble) => Err(trouble),
    }
}

/// What a server that we are connected to has against us.
fn refused(config: &EtcdConfig, objection: &Objection, trouble: Trouble) -> Error {
    if let Some(objection) = objection.get() {
        return objected(objection).with_source(objection.clone());
    }
    let is_answer = trouble.is_answer();
    let error = Error::from(trouble);
    if is_answer || error.kind() == ErrorKind::Unsupported {
        return error;
    }
    let message = match config.tls() {
        None => "closes the connection without an answer; if it wants TLS, set tls_ca",
        Some(_) => {
            "closes the connection without an answer; if it wants a certificate, set tls_cert and tls_key"
        }
    };
    unavailable(message).with_source(error)
}

/// What is wrong with the certificates of either side. Nothing was done then.
fn objected(objection: &rustls::Error) -> Error {
    use rustls::Error as E;
    let message = match objection {
        E::InvalidCertificate(_) => {
            "shows a certificate that is not what it should be; is tls_ca the authority that signed it, and the host \
             the one it is for?"
        }
        E::AlertReceived(_) => {
            "does not accept our certificate; set tls_cert and tls_key to one that it trusts"
        }
        E::InvalidMessage(_) => "does not speak TLS; leave tls_ca out, or check the port",
        _ => "cannot be talked to in TLS",
    };
    Error::new(ErrorKind::Denied, message)
}

fn unavailable(message: &str) -> Error {
    Error::new(ErrorKind::Unavailable, message)
}

fn check_version(version: &str) -> Result<()> {
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < OLDEST => Err(Error::new(
            ErrorKind::Unsupported,
            format!("is etcd {version}; {}.{} or later is needed", OLDEST.0, OLDEST.1),
        )),
        // What does not look like a version is taken for a newer one.
        _ => Ok(()),
    }
}

/// Why none of the servers is of use. As long as one may come to its senses, it is worth to try again.
fn no_server(config: &EtcdConfig, refusals: Vec<Refusal<'_>>) -> Error {
    let told: Vec<_> = refusals
        .iter()
        .map(|Refusal { server, error }| format!("{} {}", server.address(), described(error)))
        .collect();
    let message = format!("no server of {config} can be used: {}", told.join("; "));
    let errors = refusals.into_iter().map(|refusal| refusal.error);
    let Some(worst) = errors.min_by_key(|error| !error.is_transient()) else {
        return Error::new(ErrorKind::Unavailable, message).not_applied();
    };
    Error::new(worst.kind(), message).not_applied()
}

/// An error with its causes, in one line.
fn described(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = StdError::source(error);
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text} ({cause_text})");
        }
        next = cause.source();
    }
    text
}
