//! What the twin's processes say to each other: one JSON value a line, over loopback TCP, or over a socket
//! in the file system from hosts that have a network of their own.
//!
//! A node opens one connection to the lab and keeps it: when it breaks, the node is dead. For every client that
//! the node accepts it opens another, over which the client's bytes pass.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// A line longer than this is not ours.
const MAX_LINE: u64 = 4 << 20;

/// The first line of a connection to the lab.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Hello {
    /// Proves that the caller can read the lab's directory.
    pub(crate) token: String,
    pub(crate) ask: Ask,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Ask {
    /// A node starts. Then come [`NodeEvent`]s one way and [`NodeSignal`]s the other.
    Node(Box<Registration>),
    /// A client of a node's SQL and RPC port: its bytes follow.
    Sql(u64),
    /// A client of a node's HTTP port: its bytes follow.
    Http(u64),
    /// One request about the lab; one [`ControlReply`] follows.
    Control(Control),
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Registration {
    /// The command line, from the sub-command on.
    pub(crate) args: Vec<String>,
    /// One name for each store, which a wiped store does not keep.
    pub(crate) stores: Vec<String>,
    /// The cluster whose data the stores hold.
    pub(crate) cluster: Option<String>,
    /// Certificates of a secure node.
    pub(crate) certs: Option<NodeCerts>,
}

/// The texts of `ca.crt`, `node.crt` and `node.key`.
#[derive(Deserialize, Serialize)]
pub(crate) struct NodeCerts {
    pub(crate) ca: String,
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl std::fmt::Debug for NodeCerts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeCerts")
    }
}

/// What the lab tells a node.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum NodeEvent {
    /// The process is registered under this number.
    Accepted(u64),
    /// `start --background` may come back.
    Ready,
    /// It neither joined nor was initialised so far.
    Waiting,
    /// It is a member.
    Joined { status: String, cluster: String, node: u32 },
    /// It is to end, after printing the message.
    Exit { code: i32, message: String },
}

/// What a node tells the lab.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum NodeSignal {
    /// SIGTERM: drain and stop.
    Terminate,
}

/// Requests of the lab's owner.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Control {
    /// Answers with what there is.
    Ping,
    /// Makes `app.kv` of so many ranges.
    Ranges(u32),
    /// Whether every range has the replicas that it needs.
    Replicated,
    /// Makes a SQL user, or changes one.
    User { name: String, password: Option<String>, admin: bool },
    /// Makes the node at that address fall silent, as one whose network is cut, or come back.
    Freeze { address: String, frozen: bool },
    /// Ends the lab and with it every node.
    Down,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum ControlReply {
    Done,
    Replicated(bool),
    Failed(String),
}

/// The first line of a kwbase client command at a node's RPC port, behind [`CLIENT_MAGIC`].
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ClientHello {
    /// The command line without the program's name.
    pub(crate) args: Vec<String>,
    /// Whether standard output is a terminal.
    pub(crate) terminal: bool,
}

/// No start-up of the PostgreSQL protocol, no TLS record and no HTTP/2 preface begins so.
pub(crate) const CLIENT_MAGIC: &[u8] = b"KWTWIN1 ";

/// What a kwbase client command is answered with.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum ClientEvent {
    /// The node has taken the command.
    Accepted,
    Stdout(String),
    Stderr(String),
    Exit(i32),
}

/// All values that come, read by a task of its own: a reader that waits for something else too loses none.
pub(crate) fn receiver<R, T>(mut stream: R) -> mpsc::Receiver<T>
where
    R: AsyncBufRead + Send + Unpin + 'static,
    T: DeserializeOwned + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok(Some(value)) = receive(&mut stream).await {
            if sender.send(value).await.is_err() {
                return;
            }
        }
    });
    receiver
}

pub(crate) async fn send<W: AsyncWrite + Unpin, T: Serialize>(stream: &mut W, value: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}

/// The next value; `None` at the end of the stream.
pub(crate) async fn receive<R: AsyncBufRead + Unpin, T: DeserializeOwned>(
    stream: &mut R,
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    if stream.take(MAX_LINE).read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
