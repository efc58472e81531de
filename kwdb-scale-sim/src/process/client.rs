//! The `kwbase` commands that are not `start`: they connect to the node that `--host` names, as the real one does,
//! and pass their command line on. What has no connection to make (`version`, help, a wrong command line), or fails
//! to make one, is answered here.

use std::env;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::socket_address;
use super::wire::{CLIENT_MAGIC, ClientEvent, ClientHello, receive, send};
use super::{command, print};
use crate::pgwire::Stream;

/// `KWBASE_CONNECT_TIMEOUT`.
const CONNECT: Duration = Duration::from_secs(15);

/// Runs the command; the result is the exit code.
pub(crate) fn main(args: &[String]) -> i32 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ERROR: {error}");
            return 1;
        }
    };
    loop {
        let answer =
            if connects(args) { runtime.block_on(remotely(args)) } else { Err(Failure::Unreachable) };
        match answer {
            Ok(code) => return code,
            Err(Failure::Unreachable) => {
                let reply = command::locally(args);
                print(&reply.stdout, &reply.stderr);
                match reply.exit {
                    Some(code) => return code,
                    // `init` waits for its server.
                    None => thread::sleep(Duration::from_secs(1)),
                }
            }
            Err(Failure::Text(text)) => {
                eprintln!("ERROR: {text}\nFailed running \"{}\"", name(args));
                return 1;
            }
        }
    }
}

enum Failure {
    /// Nothing listens there.
    Unreachable,
    /// What is printed behind `ERROR: `.
    Text(String),
}

fn connects(args: &[String]) -> bool {
    let help = args.iter().any(|a| a == "--help" || a == "-h");
    match args.first().map(String::as_str) {
        Some("init" | "quit" | "sql") => !help,
        Some("node") => !help && args.get(1).is_some_and(|sub| !sub.starts_with('-')),
        _ => false,
    }
}

/// The command without its flags and arguments, as `Failed running` names it.
fn name(args: &[String]) -> String {
    let words = if args.first().is_some_and(|a| a == "node") { 2 } else { 1 };
    args.iter().take(words).cloned().collect::<Vec<_>>().join(" ")
}

/// Commands that are SQL behind the scenes; the others are RPCs and fail in other words.
fn is_sql(args: &[String]) -> bool {
    matches!(name(args).as_str(), "node status" | "node ls" | "sql")
}

async fn remotely(args: &[String]) -> Result<i32, Failure> {
    let value = |flag: &str, variable: &str| {
        let joined = format!("--{flag}=");
        let separate = format!("--{flag}");
        let after = args.iter().position(|a| *a == separate).and_then(|at| args.get(at + 1));
        args.iter()
            .find_map(|a| a.strip_prefix(joined.as_str()).map(str::to_owned))
            .or_else(|| after.cloned())
            .or_else(|| env::var(variable).ok())
    };
    let url = value("url", "KWBASE_URL").and_then(|url| {
        let rest = url.split_once("://")?.1.to_owned();
        let host = rest.split(['/', '?']).next()?.rsplit('@').next()?.to_owned();
        Some(host)
    });
    let host = url.or_else(|| value("host", "KWBASE_HOST")).unwrap_or_default();
    let address = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() => {
            format!("{}:{port}", if name.is_empty() { "127.0.0.1" } else { name })
        }
        _ if host.is_empty() => "127.0.0.1:26257".to_owned(),
        _ => format!("{}:26257", host.trim_end_matches(':')),
    };
    let insecure = args.iter().any(|a| a == "--insecure" || a == "--insecure=true")
        || env::var("KWBASE_INSECURE").is_ok_and(|v| v == "true");
    let connector = if insecure {
        None
    } else {
        let dir = value("certs-dir", "KWBASE_CERTS_DIR").map(PathBuf::from);
        let dir = dir.or_else(|| env::home_dir().map(|home| home.join(".kwbase-certs")));
        Some(connector(dir.unwrap_or_default(), is_sql(args))?)
    };
    let target = socket_address(&address).ok_or(Failure::Unreachable)?;
    let stream = match tokio::time::timeout(CONNECT, TcpStream::connect(target)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) | Err(_) => return Err(Failure::Unreachable),
    };
    let hello = ClientHello { args: args.to_vec(), terminal: io::stdout().is_terminal() };
    match connector {
        None => match converse(stream, &hello).await {
            Conversation::Ended(code) => Ok(code),
            Conversation::Refused if is_sql(args) => {
                Err(Failure::Text("password authentication failed for user root".to_owned()))
            }
            Conversation::Refused => Err(Failure::Text(format!(
                "server closed the connection.\nIs this a KwDB node?\n\nIf the node is configured to require secure \
                 connections,\nremove --insecure and configure secure credentials instead.\n\n{}",
                transient("connection closed")
            ))),
            Conversation::Silent => Err(Failure::Text(silent(&address))),
            Conversation::Lost => Err(Failure::Text(lost())),
        },
        Some(connector) => {
            let name = ServerName::IpAddress(target.ip().into());
            let stream = match tokio::time::timeout(CONNECT, connector.connect(name, stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) if is_no_tls(&error) => {
                    return Err(Failure::Text(
                        "cannot establish secure connection to insecure server.\nMaybe use --insecure?\n\n\
                         SSL is not enabled on the server"
                            .to_owned(),
                    ));
                }
                Ok(Err(error)) => {
                    return Err(Failure::Text(format!(
                        "SSL authentication error while connecting.\n\n{error}"
                    )));
                }
                Err(_) => return Err(Failure::Text(silent(&address))),
            };
            match converse(stream, &hello).await {
                Conversation::Ended(code) => Ok(code),
                // TLS 1.2 accepted our certificate before the handshake ended, so this is no refusal of it.
                Conversation::Refused | Conversation::Lost => Err(Failure::Text(lost())),
                Conversation::Silent => Err(Failure::Text(silent(&address))),
            }
        }
    }
}

/// Whether the other side does not speak TLS at all.
fn is_no_tls(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    error.kind() == io::ErrorKind::UnexpectedEof || matches!(tls, Some(rustls::Error::InvalidMessage(_)))
}

enum Conversation {
    Ended(i32),
    /// Closed before a word was said.
    Refused,
    /// Not a word within the time to connect.
    Silent,
    /// Closed in the middle.
    Lost,
}

async fn converse<S: Stream>(stream: S, hello: &ClientHello) -> Conversation {
    let mut stream = BufReader::new(stream);
    if stream.write_all(CLIENT_MAGIC).await.is_err() || send(&mut stream, hello).await.is_err() {
        return Conversation::Refused;
    }
    match tokio::time::timeout(CONNECT, receive::<_, ClientEvent>(&mut stream)).await {
        Ok(Ok(Some(ClientEvent::Accepted))) => {}
        Ok(_) => return Conversation::Refused,
        Err(_) => return Conversation::Silent,
    }
    while let Ok(Some(event)) = receive::<_, ClientEvent>(&mut stream).await {
        match event {
            ClientEvent::Exit(code) => return Conversation::Ended(code),
            ClientEvent::Stdout(text) => print(&text, ""),
            ClientEvent::Stderr(text) => print("", &text),
            ClientEvent::Accepted => {}
        }
    }
    Conversation::Lost
}

fn connector(dir: PathBuf, sql: bool) -> Result<TlsConnector, Failure> {
    let problem = |what: &str| {
        Failure::Text(format!(
            "cannot load certificates.\nCheck your certificate settings, set --certs-dir, or use --insecure for \
             insecure clusters.\n\nproblem with {what} certificate: not found"
        ))
    };
    let ca = CertificateDer::pem_file_iter(dir.join("ca.crt"))
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|_| problem("CA"))?;
    let mut roots = RootCertStore::empty();
    for cert in ca {
        roots.add(cert).map_err(|_| problem("CA"))?;
    }
    let pair = ["client.root", "node"].iter().find_map(|name| {
        let chain = CertificateDer::pem_file_iter(dir.join(format!("{name}.crt"))).ok()?;
        let chain = chain.collect::<Result<Vec<_>, _>>().ok()?;
        let key = PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key"))).ok()?;
        Some((chain, key))
    });
    let Some((chain, key)) = pair else {
        if sql {
            // The real one asks for a password and finds no terminal.
            print("Enter password: ", "");
            return Err(Failure::Text("inappropriate ioctl for device".to_owned()));
        }
        return Err(problem("user"));
    };
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .map(|builder| builder.with_root_certificates(roots))
        .and_then(|builder| builder.with_client_auth_cert(chain, key));
    match config {
        Ok(config) => Ok(TlsConnector::from(Arc::new(config))),
        Err(error) => Err(Failure::Text(format!("cannot load certificates.\n\n{error}"))),
    }
}

fn transient(why: &str) -> String {
    format!(
        "Failed to connect to the node: initial connection heartbeat failed: rpc error: code = Unavailable desc = \
         all SubConns are in TransientFailure, latest connection error: {why}"
    )
}

fn silent(address: &str) -> String {
    format!(
        "cannot dial server.\nIs the server running?\nIf the server is running, check --host client-side and \
         --advertise server-side.\n\nread tcp {address}: i/o timeout"
    )
}

fn lost() -> String {
    "rpc error: code = Unavailable desc = transport is closing".to_owned()
}
