//! A node's process: reads the command line of `kwbase start`, takes the ports and the stores, registers with the
//! lab and passes bytes between its clients and the lab until one of them ends it.

use std::env;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::lab::LabAddress;
use super::store::Store;
use super::wire::{Ask, NodeCerts, NodeEvent, NodeSignal, Registration, receiver, send};
use super::{READY, client, print, socket_address};
use crate::cli::StartArgs;

/// Runs `kwbase start …`; the result is the exit code.
pub(crate) fn main(lab: &Path, args: &[String]) -> i32 {
    let command = args.first().map(String::as_str).unwrap_or_default();
    if args.iter().any(|a| a == "--help" || a == "-h") {
        return client::main(args);
    }
    let insecure = args.iter().any(|a| a == "--insecure" || a == "--insecure=true");
    let start = match StartArgs::parse(args) {
        Ok(start) => start,
        // What the server itself finds wrong comes after its warning, and in a box.
        Err(message) if message.starts_with("--brpc-addr") => {
            if insecure {
                eprint!("{}", insecure_warning("127.0.0.1"));
            }
            return fail_boxed(command, &format!("failed to start server: {message}"));
        }
        Err(message) => {
            eprintln!("Usage:\n  kwbase {command} [flags]\n\nERROR: {message}");
            return failed(command);
        }
    };
    if start.background && env::var_os(READY).is_none() {
        return match background(args) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("ERROR: {error}");
                failed(command)
            }
        };
    }
    if insecure {
        eprint!("{}", insecure_warning(start.listen.host()));
    }
    let certs = match start.certs_dir.as_deref().map(read_certs).transpose() {
        Ok(certs) => certs,
        Err(message) => {
            let message = format!(
                "cannot load certificates.\nCheck your certificate settings, set --certs-dir, or use --insecure for \
                 insecure clusters.\n\nfailed to start server: {message}"
            );
            return fail_boxed(command, &message);
        }
    };
    let opened = start.stores.iter().map(|path| {
        std::path::absolute(path).map_err(|error| error.to_string()).and_then(|path| Store::open(&path))
    });
    let ended = opened.collect::<Result<Vec<_>, _>>().and_then(|mut stores| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(run(lab, args, &start, certs, &mut stores))
    });
    ended.unwrap_or_else(|message| fail_boxed(command, &message))
}

/// Starts itself again and comes back when the child is ready, or with the code with which it ended before.
fn background(args: &[String]) -> io::Result<i32> {
    let ready = StdListener::bind("127.0.0.1:0")?;
    ready.set_nonblocking(true)?;
    // The descriptors are inherited, as the real one's child does: a caller's pipe stays open.
    let mut child =
        Command::new(env::current_exe()?).args(args).env(READY, ready.local_addr()?.to_string()).spawn()?;
    loop {
        if ready.accept().is_ok() {
            return Ok(0);
        }
        if let Some(status) = child.try_wait()? {
            return Ok(status.code().unwrap_or(1));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

async fn run(
    lab: &Path,
    args: &[String],
    start: &StartArgs,
    certs: Option<NodeCerts>,
    stores: &mut [Store],
) -> Result<i32, String> {
    let listen = bind("--listen-addr", start.listen.as_str()).await?;
    let sql = match &start.sql {
        Some(sql) if *sql != start.listen => Some(bind("--sql-addr", sql.as_str()).await?),
        _ => None,
    };
    let http = bind("--http-addr", start.http.as_str()).await?;
    // Nothing is said there in the twin; the port takes connections as the real one does.
    if let Some(address) = brpc_address(args, start.listen.host()) {
        let brpc = bind("--brpc-addr", &address).await?;
        tokio::spawn(async move {
            while let Ok((connection, _)) = brpc.accept().await {
                drop(connection);
            }
        });
    }

    let lab = LabAddress::read(lab).map_err(|e| format!("no lab is running in {}: {e}", lab.display()))?;
    let registration = Registration {
        args: args.to_vec(),
        stores: stores.iter().map(Store::name).collect(),
        cluster: stores.iter().find_map(Store::cluster),
        certs,
    };
    let stream = lab.ask(Ask::Node(Box::new(registration))).await.map_err(|e| format!("lab: {e}"))?;
    let (read, mut write) = tokio::io::split(stream);
    let mut events = receiver::<_, NodeEvent>(BufReader::new(read));

    let process = match events.recv().await {
        Some(NodeEvent::Accepted(process)) => process,
        Some(NodeEvent::Exit { code, message }) => return Ok(leave(&message, code)),
        _ => return Err("the lab has ended".to_owned()),
    };
    leave_traces(start, stores).map_err(|e| e.to_string())?;
    let mut ports = Ports { listeners: JoinSet::new(), connections: mpsc::channel(1), lab };
    ports.serve(listen, move || Ask::Sql(process));
    if let Some(sql) = sql {
        ports.serve(sql, move || Ask::Sql(process));
    }
    ports.serve(http, move || Ask::Http(process));

    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    let mut stopping = false;
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = async { tokio::select! { s = terminate.recv() => s, s = interrupt.recv() => s } } => {
                // A first signal asks for a drain, which may take for ever; a second one ends it.
                if stopping {
                    return Ok(1);
                }
                stopping = true;
                log(stores, "initiating graceful shutdown of server");
                // A lab that is gone says so below.
                let _ = send(&mut write, &NodeSignal::Terminate).await;
                continue;
            }
        };
        match event {
            Some(NodeEvent::Ready) => tell_parent(),
            Some(NodeEvent::Waiting) => print("", WAITING),
            Some(NodeEvent::Joined { status, cluster, node }) => {
                for store in stores.iter_mut() {
                    store.joined(&cluster, start.mode.as_str()).map_err(|e| e.to_string())?;
                }
                announce(start, stores, &status, &cluster, node);
            }
            Some(NodeEvent::Exit { code, message }) => {
                ports.close().await;
                if code == 0 {
                    log(stores, "server drained and shutdown completed");
                }
                return Ok(leave(&message, code));
            }
            Some(NodeEvent::Accepted(_)) => {}
            None => return Ok(1),
        }
    }
}

/// The listeners and the connections that they accepted.
struct Ports {
    listeners: JoinSet<()>,
    /// Every connection holds a clone.
    connections: (mpsc::Sender<()>, mpsc::Receiver<()>),
    lab: LabAddress,
}

impl Ports {
    /// Accepts clients for ever and passes their bytes to the lab.
    fn serve(&mut self, listener: TcpListener, ask: impl Fn() -> Ask + Send + 'static) {
        let (lab, guard) = (self.lab.clone(), self.connections.0.clone());
        self.listeners.spawn(async move {
            loop {
                let Ok((mut client, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                let (lab, ask, guard) = (lab.clone(), ask(), guard.clone());
                tokio::spawn(async move {
                    if let Ok(mut stream) = lab.ask(ask).await {
                        let _ = client.set_nodelay(true);
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut stream).await;
                    }
                    drop(guard);
                });
            }
        });
    }

    /// Refuses clients from now on, and waits a moment for what was said last to reach those that are there.
    async fn close(&mut self) {
        self.listeners.shutdown().await;
        let (last, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.connections.0, last));
        let _ = tokio::time::timeout(Duration::from_millis(500), self.connections.1.recv()).await;
    }
}

async fn bind(flag: &str, address: &str) -> Result<TcpListener, String> {
    let Some(resolved) = socket_address(address) else {
        let name = address.rsplit_once(':').map_or(address, |(name, _)| name);
        return Err(format!("failed to start server: invalid {flag}: lookup {name}: no such host"));
    };
    TcpListener::bind(resolved).await.map_err(|error| {
        let text = match error.kind() {
            io::ErrorKind::AddrInUse => "bind: address already in use".to_owned(),
            io::ErrorKind::AddrNotAvailable => "bind: cannot assign requested address".to_owned(),
            _ => error.to_string(),
        };
        format!("kwbase server exited with error: consider changing the port via {flag}: listen tcp {address}: {text}")
    })
}

/// The value of `--brpc-addr`, which is there. The real one takes a port without a host on every interface; the twin
/// only where the node listens, because a lab of loopback ports is nothing to other machines.
fn brpc_address(args: &[String], host: &str) -> Option<String> {
    let at = args.iter().rposition(|a| a == "--brpc-addr" || a.starts_with("--brpc-addr="))?;
    let value = match args.get(at)?.split_once('=') {
        Some((_, value)) => value,
        None => args.get(at + 1)?,
    };
    let port = value.strip_prefix(':').or_else(|| value.strip_prefix("0.0.0.0:"));
    Some(port.map_or_else(|| value.to_owned(), |port| format!("{host}:{port}")))
}

fn read_certs(dir: &str) -> Result<NodeCerts, String> {
    let dir = match (dir.strip_prefix("~/"), env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(dir),
    };
    let read = |what: &str, file: &str| {
        fs::read_to_string(dir.join(file)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("problem with {what} certificate: not found"),
            _ => format!("problem with {what} certificate: {error}"),
        })
    };
    Ok(NodeCerts {
        ca: read("CA", "ca.crt")?,
        cert: read("node", "node.crt")?,
        key: read("node", "node.key")?,
    })
}

/// Files that say where the node listens, and its pid.
fn leave_traces(start: &StartArgs, stores: &[Store]) -> io::Result<()> {
    if let Some(store) = stores.first() {
        store.write("kwbase.listen-addr", start.listen.as_str())?;
        store.write("kwbase.advertise-addr", start.advertise.as_str())?;
        store.write("kwbase.sql-addr", start.sql.as_ref().unwrap_or(&start.listen).as_str())?;
        store.write("kwbase.advertise-sql-addr", start.sql.as_ref().unwrap_or(&start.advertise).as_str())?;
        store.write("kwbase.http-addr", start.http.as_str())?;
    }
    if let Some(path) = &start.pid_file {
        fs::write(path, format!("{}\n", std::process::id()))?;
    }
    Ok(())
}

fn tell_parent() {
    let parent = env::var(READY).ok().and_then(|address| address.parse::<SocketAddr>().ok());
    if let Some(address) = parent {
        // A parent that is gone does not wait.
        let _ = std::net::TcpStream::connect(address);
    }
}

fn announce(start: &StartArgs, stores: &[Store], status: &str, cluster: &str, node: u32) {
    let paths = start.stores.iter().enumerate().map(|(i, path)| {
        let label = format!("store[{i}]:");
        format!("{label:<21}path={path}\n")
    });
    let block = format!(
        "KWDB node starting at {} (took 0.2s)\n\
         build:               V3.2.1 @ 2026/11/23 12:00:00 (go1.19.8)\n\
         sql:                 postgresql://root@{}\n\
         {}\
         status:              {status}\n\
         clusterID:           {cluster}\n\
         nodeID:              {node}",
        jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S.%f +0000 UTC"),
        start.sql.as_ref().unwrap_or(&start.advertise),
        paths.collect::<String>(),
    );
    log(stores, &format!("node startup completed:\n{block}"));
    if env::var_os(READY).is_none() {
        print(&format!("{block}\n"), "");
    }
}

fn log(stores: &[Store], text: &str) {
    if let Some(store) = stores.first() {
        store.log(text);
    }
}

const WAITING: &str = "*\n* INFO: initial startup completed.\n\
    * Node will now attempt to join a running cluster, or wait for `kwbase init`.\n\
    * Client connections will be accepted after this completes successfully.\n\
    * Check the log file(s) for progress. \n*\n";

fn insecure_warning(host: &str) -> String {
    format!(
        "*\n* WARNING: RUNNING IN INSECURE MODE!\n* \n\
         * - Your cluster is open for any client that can access {host}.\n\
         * - Any user, even root, can log in without providing a password.\n\
         * - Any user, connecting as root, can read or write any data in your cluster.\n\
         * - There is no network encryption nor authentication, and thus no confidentiality.\n* \n\
         * Check out how to secure your cluster on KWDB website\n*\n"
    )
}

fn leave(message: &str, code: i32) -> i32 {
    if !message.is_empty() {
        // The real one prints this on standard output.
        print(&format!("{message}\n"), "");
    }
    code
}

fn fail_boxed(command: &str, message: &str) -> i32 {
    eprintln!("*\n* ERROR: ERROR: {}\n*\nERROR: {message}", message.replace('\n', "\n* "));
    failed(command)
}

fn failed(command: &str) -> i32 {
    eprintln!("Failed running \"{command}\"");
    1
}
