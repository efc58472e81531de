//! The lab's process: it holds the model, and everything that nodes and commands ask arrives here. It is in no
//! scenario killed. It ends when its owner says so or its directory is gone.

use std::fs;
use std::io::{self, BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kwdb_scale_core::rows::StoreRow;
use kwdb_scale_core::topology::{Address, ClusterId};
use serde::{Deserialize, Serialize};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::hub::{self, Front, Pace, acceptor};
use super::wire::{
    Ask, Control, ControlReply, Hello, NodeEvent, NodeSignal, Registration, receive, receiver, send,
};
use crate::cli::StartArgs;
use crate::model::{Cluster, Config, NodeStart, Phase, Security, Shared, TableSpec};
use crate::pgwire::{Stream, with_prefix};

/// What a lab's process is started with: the file [`CONFIG`] in its directory.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct LabConfig {
    /// The port to listen at.
    pub(crate) port: u16,
    /// Shown by everyone who asks something of the lab.
    pub(crate) token: String,
    /// Model seconds in a real one.
    pub(crate) speed: f64,
    pub(crate) seed: u64,
    pub(crate) cluster_id: ClusterId,
    /// Standard input is a pipe that its owner holds open.
    pub(crate) ends_with_owner: bool,
    /// The text of `ca.crt` of a secure cluster.
    pub(crate) ca: Option<String>,
    /// A directory in which it listens at a socket too, for nodes in network namespaces that have no loopback of ours.
    pub(crate) hub: Option<Hub>,
}

/// Where nodes on hosts of their own find the lab.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Hub {
    /// The directory here.
    pub(crate) dir: PathBuf,
    /// The same directory as the hosts see it.
    pub(crate) seen_as: PathBuf,
}

pub(crate) const CONFIG: &str = "twin.json";
const ADDRESS: &str = "twin.addr";
/// The socket in the directory of [`Hub`].
pub(crate) const SOCKET: &str = "twin.sock";

/// Where a lab listens: the file that it writes when it is ready.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct LabAddress {
    /// `host:port`, or the absolute path of a socket.
    address: String,
    token: String,
    pub(crate) pid: u32,
}

impl LabAddress {
    /// Reads it from the lab's directory.
    pub(crate) fn read(dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(dir.join(ADDRESS))?)?)
    }

    /// Opens a connection and sends its first line.
    pub(crate) async fn ask(&self, ask: Ask) -> io::Result<Box<dyn Stream>> {
        let mut stream: Box<dyn Stream> = if self.address.starts_with('/') {
            Box::new(UnixStream::connect(&self.address).await?)
        } else {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        };
        send(&mut stream, &Hello { token: self.token.clone(), ask }).await?;
        Ok(stream)
    }

    /// Puts a request of the lab's owner. Blocks.
    pub(crate) fn control(&self, control: &Control) -> io::Result<ControlReply> {
        let address = self.address.parse().map_err(io::Error::other)?;
        let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut line = serde_json::to_vec(&serde_json::json!({
            "token": self.token,
            "ask": { "Control": control },
        }))?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        std::io::BufReader::new(stream).read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }
}

/// Runs the lab; the result is the exit code.
pub(crate) fn main(dir: &Path) -> i32 {
    // A session of its own: no Ctrl-C of the terminal in which the lab was made reaches it.
    let _ = rustix::process::setsid();
    let result = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(run(dir)));
    match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("lab: {error}");
            1
        }
    }
}

async fn run(dir: &Path) -> io::Result<()> {
    let config: LabConfig = serde_json::from_slice(&fs::read(dir.join(CONFIG))?)?;
    let listener = TcpListener::bind(("127.0.0.1", config.port)).await?;
    let socket = config.hub.as_ref().map(|hub| open_to_all(&hub.dir)).transpose()?;
    let cluster: Shared = Arc::new(std::sync::Mutex::new(Cluster::new(Config {
        seed: config.seed,
        cluster_id: Some(config.cluster_id),
        base_time: Timestamp::now(),
        security: config.ca.map_or(Security::Insecure, Security::Ca),
        ..Config::default()
    })));
    let lab = Arc::new(Lab {
        hub: hub::Hub::start(cluster, Pace::Times(config.speed)),
        token: config.token.clone(),
        fronts: tokio::sync::RwLock::default(),
        down: tokio::sync::Notify::new(),
    });
    let mut address = LabAddress {
        address: listener.local_addr()?.to_string(),
        token: config.token,
        pid: std::process::id(),
    };
    let text = serde_json::to_vec(&address)?;
    if let Some(hub) = &config.hub {
        address.address = hub.seen_as.join(SOCKET).display().to_string();
        // Only the hosts see the directory, and there every user may start a node.
        fs::write(hub.dir.join(ADDRESS), serde_json::to_vec(&address)?)?;
    }
    super::write_private(&dir.join(ADDRESS), &text)?;
    let gone = gone(dir.join(ADDRESS), text);
    tokio::select! {
        () = accept(listener, &lab) => {}
        () = accept_at_socket(socket, &lab) => {}
        () = lab.down.notified() => {}
        () = gone => {}
        () = owner_gone(config.ends_with_owner) => {}
    }
    Ok(())
}

/// Comes back when the owner of a lab that ends with it has closed its pipe.
async fn owner_gone(ends_with_owner: bool) {
    if !ends_with_owner {
        return std::future::pending().await;
    }
    let (closed, is_closed) = tokio::sync::oneshot::channel();
    // A thread, because a read of standard input cannot be given up.
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = closed.send(());
    });
    let _ = is_closed.await;
}

async fn accept(listener: TcpListener, lab: &Arc<Lab>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let lab = Arc::clone(lab);
        // An error is a connection that broke: the other side knows.
        tokio::spawn(async move { lab.serve(stream).await });
    }
}

/// The socket of nodes on hosts of their own, which any user there may start.
fn open_to_all(dir: &Path) -> io::Result<UnixListener> {
    let path = dir.join(SOCKET);
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

async fn accept_at_socket(listener: Option<UnixListener>, lab: &Arc<Lab>) {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let lab = Arc::clone(lab);
        tokio::spawn(async move { lab.serve(stream).await });
    }
}

/// Comes back when the file no longer says that this is the lab.
async fn gone(file: PathBuf, text: Vec<u8>) {
    while fs::read(&file).is_ok_and(|now| now == text) {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

struct Lab {
    hub: Arc<hub::Hub>,
    token: String,
    fronts: tokio::sync::RwLock<std::collections::BTreeMap<u64, Arc<Front>>>,
    down: tokio::sync::Notify,
}

impl Lab {
    async fn serve<S: Stream + 'static>(&self, stream: S) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let Some(hello) = receive::<_, Hello>(&mut stream).await? else { return Ok(()) };
        if hello.token != self.token {
            return Ok(());
        }
        match hello.ask {
            Ask::Node(registration) => self.node(stream, *registration).await,
            Ask::Sql(process) => match self.front(process).await {
                Some(front) => front.serve_sql(unbuffered(stream)).await,
                None => Ok(()),
            },
            Ask::Http(process) => match self.front(process).await {
                Some(front) => front.serve_http(unbuffered(stream)).await,
                None => Ok(()),
            },
            Ask::Control(control) => {
                let reply = self.control(control);
                send(&mut stream, &reply).await
            }
        }
    }

    async fn front(&self, process: u64) -> Option<Arc<Front>> {
        self.fronts.read().await.get(&process).cloned()
    }

    async fn node<S: Stream + 'static>(
        &self,
        mut stream: BufReader<S>,
        registration: Registration,
    ) -> io::Result<()> {
        let (front, ready_at) = match self.start(registration) {
            Ok(started) => started,
            Err(message) => return send(&mut stream, &NodeEvent::Exit { code: 1, message }).await,
        };
        self.fronts.write().await.insert(front.process(), Arc::clone(&front));
        let ended = self.follow(stream, &front, ready_at).await;
        // Its process is gone: whatever it was doing, it fell silent.
        if front.follow().is_some() {
            self.hub.cluster().kill_node(front.address());
        }
        front.close();
        self.fronts.write().await.remove(&front.process());
        ended
    }

    /// Starts a process of the model; also says when `start --background` comes back.
    fn start(&self, registration: Registration) -> Result<(Arc<Front>, Timestamp), String> {
        let args = StartArgs::parse(&registration.args).map_err(|text| format!("ERROR: {text}"))?;
        let tls = registration.certs.as_ref().map(acceptor).transpose();
        let tls = tls.map_err(|error| format!("ERROR: problem with the node's certificates: {error}"))?;
        let mut cluster = self.hub.cluster();
        let own = cluster.cluster_id().map(ToString::to_string);
        // Nodes with another cluster's data are refused by gossip, without a word: as with a foreign authority.
        let other = registration.cluster.filter(|id| own.is_some_and(|own| own != *id));
        let ca = other.or_else(|| registration.certs.map(|certs| certs.ca));
        let start = NodeStart { stores: registration.stores, ..args.node_start("", ca.as_deref(), None) };
        let sql_address = start.sql_address.clone().unwrap_or_else(|| start.address.clone());
        let address = start.address.clone();
        let reply = cluster.start_node(start).map_err(|error| error.to_string())?;
        drop(cluster);
        let front = Front::new(Arc::clone(&self.hub), reply.process, address, sql_address, tls);
        Ok((front, reply.ready_at))
    }

    /// Tells a node's process what becomes of it, until it ends or is told to.
    async fn follow<S: Stream + 'static>(
        &self,
        stream: BufReader<S>,
        front: &Front,
        ready_at: Timestamp,
    ) -> io::Result<()> {
        let (mut ready, mut waiting, mut joined) = (false, false, false);
        let (read, mut stream) = tokio::io::split(stream);
        let mut signals = receiver::<_, NodeSignal>(BufReader::new(read));
        send(&mut stream, &NodeEvent::Accepted(front.process())).await?;
        loop {
            let now = self.hub.cluster().now();
            let Some(view) = front.follow() else { return Ok(()) };
            if let Phase::Exited { code, message } = view.phase {
                return send(&mut stream, &NodeEvent::Exit { code, message }).await;
            }
            if let (false, Some(node)) = (joined, view.node) {
                joined = true;
                let cluster = self.hub.cluster().cluster_id().map(ToString::to_string).unwrap_or_default();
                let event = NodeEvent::Joined { status: view.status.to_owned(), cluster, node: node.0 };
                send(&mut stream, &event).await?;
            }
            if !waiting && view.phase == Phase::Waiting {
                waiting = true;
                send(&mut stream, &NodeEvent::Waiting).await?;
            }
            if !ready && (joined || now >= ready_at) {
                ready = true;
                send(&mut stream, &NodeEvent::Ready).await?;
            }
            tokio::select! {
                () = self.hub.tick() => {}
                signal = signals.recv() => match signal {
                    Some(NodeSignal::Terminate) => { self.hub.cluster().stop_node(front.address()); }
                    None => return Ok(()),
                },
            }
        }
    }

    /// By the nodes' own gauges, as they are now and as the nodes have written them.
    fn is_replicated(&self) -> bool {
        let cluster = self.hub.cluster();
        let written = cluster.members.iter().all(|member| {
            let good =
                |row: &StoreRow| (row.ranges_unavailable, row.ranges_underreplicated) == (Some(0), Some(0));
            !member.status.is_empty() && member.status.iter().all(good)
        });
        written && cluster.stores.iter().all(|store| store.under_replicated == 0 && store.unavailable == 0)
    }

    fn control(&self, control: Control) -> ControlReply {
        match control {
            Control::Ping => ControlReply::Done,
            Control::Ranges(ranges) => {
                match self.hub.cluster().create_table(TableSpec::new("app", "kv", ranges.max(1))) {
                    Ok(_) => ControlReply::Done,
                    Err(error) => ControlReply::Failed(error.to_string()),
                }
            }
            Control::Replicated => ControlReply::Replicated(self.is_replicated()),
            Control::User { name, password, admin } => {
                self.hub.set_user(&name, password, admin);
                ControlReply::Done
            }
            Control::Freeze { address, frozen } => {
                match self.hub.cluster().freeze_node(&Address::new(&address), frozen) {
                    true => ControlReply::Done,
                    false => ControlReply::Failed(format!("no node runs at {address}")),
                }
            }
            Control::Down => {
                self.down.notify_one();
                ControlReply::Done
            }
        }
    }
}

/// The stream, with what was read of it beyond the first line.
fn unbuffered<S: Stream>(stream: BufReader<S>) -> impl Stream {
    let read = stream.buffer().to_vec();
    with_prefix(read, stream.into_inner())
}
