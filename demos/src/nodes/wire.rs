//! What calls are made of: JSON in frames, over TCP. Nobody has to send what makes sense.

use std::{io, pin::Pin, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tarpc::{
    serde_transport,
    tokio_serde::{Deserializer, Serializer},
    tokio_util::{
        bytes::{Bytes, BytesMut},
        codec::LengthDelimitedCodec,
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time,
};

/// The longest that the answer to a call is waited for.
pub(super) const LONGEST: Duration = Duration::from_secs(120);

/// The largest frame in bytes, either way: a page of a journal is less, whatever is in it.
const FRAME: usize = 1 << 20;

/// How long to wait when no connection can be accepted, as without a free file handle.
const AGAIN: Duration = Duration::from_millis(100);

pub(super) type Transport<In, Out> = serde_transport::Transport<TcpStream, In, Out, Wire>;

/// A transport on an open connection.
pub(super) fn transport<In, Out>(stream: TcpStream) -> Transport<In, Out>
where
    In: for<'de> Deserialize<'de>,
    Out: Serialize,
{
    // A call is one small message, and should not wait for another one.
    let _ = stream.set_nodelay(true);
    let frames = LengthDelimitedCodec::builder().max_frame_length(FRAME).new_framed(stream);
    serde_transport::new(frames, Wire)
}

/// Takes connections until it is dropped, which ends them as well.
pub(super) async fn accept<F>(listener: TcpListener, attend: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(attend(stream))),
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    time::sleep(AGAIN).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// JSON with deadlines that are none too far: whatever reads them adds them to the time that it is, and panics if there
/// is no such time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire;

impl<T: Serialize> Serializer<T> for Wire {
    type Error = serde_json::Error;

    fn serialize(self: Pin<&mut Self>, item: &T) -> serde_json::Result<Bytes> {
        serde_json::to_vec(item).map(Into::into)
    }
}

impl<T: DeserializeOwned> Deserializer<T> for Wire {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, frame: &BytesMut) -> io::Result<T> {
        let mut message: Value = serde_json::from_slice(frame)?;
        if let Some(request) = message.get_mut("Request") {
            // Structs may be written as lists, too, but not to us.
            let deadline = request.pointer_mut("/context/deadline");
            let deadline = deadline.ok_or_else(|| io::Error::other("a request without a deadline"))?;
            let asked: Duration = serde_json::from_value(deadline.take())?;
            *deadline = serde_json::to_value(asked.min(LONGEST))?;
        }
        Ok(serde_json::from_value(message)?)
    }
}
