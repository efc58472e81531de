//! A node that says what a test wants: raw bytes of the PostgreSQL protocol in the form that a KWDB V3.2.1 sends
//! (no `V` field in errors, `XXUUU` for a refused log-in).
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kwdb_scale_core::rows::{Query, Rows};
use kwdb_scale_core::statement;
use kwdb_scale_core::topology::Address;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a node heard, in order; one line for every message.
pub type Heard = Arc<Mutex<Vec<String>>>;

pub struct Fake {
    pub address: Address,
    pub heard: Heard,
    pub connections: Arc<AtomicUsize>,
}

impl Fake {
    /// Listens and gives every connection, numbered from 1, to `behave`.
    pub async fn start<F, B>(behave: B) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
        B: Fn(usize, TcpStream, Heard) -> F + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::new(listener.local_addr().unwrap().to_string());
        let (heard, connections) = (Heard::default(), Arc::new(AtomicUsize::new(0)));
        let (h, c) = (Arc::clone(&heard), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = c.fetch_add(1, Ordering::SeqCst) + 1;
                let work = behave(number, stream, Arc::clone(&h));
                tokio::spawn(work);
            }
        });
        Self { address, heard, connections }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until the node heard a line, which it must within some seconds.
    pub async fn wait_for(&self, line: &str) {
        for _ in 0..500 {
            if self.heard().iter().any(|l| l == line) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("never heard '{line}' but {:?}", self.heard());
    }
}

/// An address at which nothing listens.
pub async fn nobody() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Address::new(listener.local_addr().unwrap().to_string())
}

/// One side of a conversation.
pub struct Talk<S> {
    pub stream: S,
    heard: Heard,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    pub fn new(stream: S, heard: Heard) -> Self {
        Self { stream, heard }
    }

    pub fn note(&self, line: impl Into<String>) {
        self.heard.lock().unwrap().push(line.into());
    }

    /// Reads the first message; `None` is a request for TLS.
    pub async fn startup(&mut self) -> std::io::Result<Option<HashMap<String, String>>> {
        let length = self.stream.read_u32().await? as usize;
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body).await?;
        if body == [4, 210, 22, 47] {
            self.note("SSLRequest");
            return Ok(None);
        }
        let words: Vec<String> =
            body[4..].split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        let pairs = words.chunks_exact(2).filter(|p| !p[0].is_empty());
        let parameters: HashMap<_, _> = pairs.map(|p| (p[0].clone(), p[1].clone())).collect();
        self.note("startup");
        Ok(Some(parameters))
    }

    /// Reads the next message and notes it; `None` at the end of the stream.
    pub async fn message(&mut self) -> std::io::Result<Option<(char, String)>> {
        let tag = match self.stream.read_u8().await {
            Ok(tag) => char::from(tag),
            Err(_) => {
                self.note("end");
                return Ok(None);
            }
        };
        let length = self.stream.read_u32().await? as usize;
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body).await?;
        let text = String::from_utf8_lossy(&body).trim_end_matches('\0').to_owned();
        self.note(format!("{tag} {text}"));
        Ok(Some((tag, text)))
    }

    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// What a node says after a good log-in.
    pub async fn welcome(&mut self) -> std::io::Result<()> {
        let mut bytes = message('R', &[0, 0, 0, 0]);
        for (name, value) in [
            ("server_version", "9.5.0"),
            ("client_encoding", "UTF8"),
            ("TimeZone", ""),
            ("kwdb_version", "KaiwuDB V3.2.1 (x86_64-linux-gnu)"),
        ] {
            bytes.extend(message('S', format!("{name}\0{value}\0").as_bytes()));
        }
        bytes.extend(message('Z', b"I"));
        self.send(&bytes).await
    }

    /// Startup without TLS, log-in and the first `SET`.
    pub async fn log_in(&mut self) -> std::io::Result<HashMap<String, String>> {
        let parameters = self.startup().await?.expect("no TLS is wanted here");
        self.welcome().await?;
        self.set().await?;
        Ok(parameters)
    }

    /// Reads `SET statement_timeout` and says yes.
    pub async fn set(&mut self) -> std::io::Result<()> {
        let set = self.message().await?;
        assert!(set.is_some_and(|(_, text)| text.starts_with("SET statement_timeout = ")));
        self.send(&done("SET")).await
    }

    /// Answers everything from `rows`, to the end.
    pub async fn serve(&mut self, rows: impl Fn(&Query) -> Rows) -> std::io::Result<()> {
        while let Some((tag, text)) = self.message().await? {
            if tag == 'X' {
                break;
            }
            self.answer(&text, &rows).await?;
        }
        Ok(())
    }

    /// Answers one statement.
    pub async fn answer(&mut self, text: &str, rows: &impl Fn(&Query) -> Rows) -> std::io::Result<()> {
        let bytes = match statement::query_of(text) {
            Some(query) => table(&query, &rows(&query)),
            None => failure("42601", "at or near \"x\": syntax error"),
        };
        self.send(&bytes).await
    }
}

/// One message.
pub fn message(tag: char, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag as u8];
    bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

/// An ErrorResponse as KWDB sends it (no `V`) and ReadyForQuery.
pub fn failure(code: &str, text: &str) -> Vec<u8> {
    let mut bytes = error(code, text);
    bytes.extend(message('Z', b"I"));
    bytes
}

/// An ErrorResponse as KWDB sends it: no `V`.
pub fn error(code: &str, text: &str) -> Vec<u8> {
    message('E', format!("SERROR\0C{code}\0Fauth.go\0L111\0RhandleAuthentication\0M{text}\0\0").as_bytes())
}

/// CommandComplete and ReadyForQuery.
pub fn done(tag: &str) -> Vec<u8> {
    let mut bytes = message('C', format!("{tag}\0").as_bytes());
    bytes.extend(message('Z', b"I"));
    bytes
}

/// The rows of a query as a server sends them.
pub fn table(query: &Query, rows: &Rows) -> Vec<u8> {
    let now = "2026-11-23T13:44:29.277952469Z".parse().unwrap();
    let (columns, rows) = statement::encode(query, rows, now);
    cells(columns, &rows)
}

/// RowDescription, DataRows, CommandComplete and ReadyForQuery.
pub fn cells(columns: &[&str], rows: &[Vec<Option<String>>]) -> Vec<u8> {
    let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
    for column in columns {
        body.extend(column.as_bytes());
        body.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0]);
    }
    let mut bytes = message('T', &body);
    for row in rows {
        let mut body = u16::try_from(row.len()).unwrap().to_be_bytes().to_vec();
        for cell in row {
            match cell {
                Some(text) => {
                    body.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                    body.extend(text.as_bytes());
                }
                None => body.extend((-1_i32).to_be_bytes()),
            }
        }
        bytes.extend(message('D', &body));
    }
    bytes.extend(done(&format!("SELECT {}", rows.len())));
    bytes
}
