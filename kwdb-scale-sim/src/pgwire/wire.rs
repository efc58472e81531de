//! Messages of the PostgreSQL protocol, version 3, as KWDB writes them: what the twin needs of them and no more.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// No client of the twin has reason to send more in one message.
const MAX_MESSAGE: usize = 1 << 20;

/// An error as it goes over the wire. KWDB leaves out the field `V`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SqlError {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl SqlError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// What a statement is answered with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Reply {
    /// A result set in the text format; `None` is NULL.
    Rows { columns: Vec<String>, rows: Vec<Vec<Option<String>>> },
    /// Only a command tag.
    Done(&'static str),
    /// A statement without content.
    Empty,
}

impl Reply {
    /// One row of one column.
    pub(crate) fn value(column: &str, value: impl Into<String>) -> Self {
        Self::Rows { columns: vec![column.to_owned()], rows: vec![vec![Some(value.into())]] }
    }
}

/// What a connection starts with.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Startup {
    Ssl,
    Gss,
    Cancel,
    /// The parameters.
    Session(Vec<(String, String)>),
    Unknown(u32),
}

/// Reads the first message of a connection.
pub(crate) async fn read_startup<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Startup> {
    let body = read_body(stream).await?;
    let (code, rest) = body.split_first_chunk::<4>().ok_or(io::ErrorKind::InvalidData)?;
    Ok(match u32::from_be_bytes(*code) {
        80_877_103 => Startup::Ssl,
        80_877_104 => Startup::Gss,
        80_877_102 => Startup::Cancel,
        196_608 => {
            let mut texts = rest.split(|b| *b == 0).map(|t| String::from_utf8_lossy(t).into_owned());
            let mut parameters = Vec::new();
            while let (Some(name), Some(value)) = (texts.next().filter(|n| !n.is_empty()), texts.next()) {
                parameters.push((name, value));
            }
            Startup::Session(parameters)
        }
        other => Startup::Unknown(other),
    })
}

/// Reads a tagged message.
pub(crate) async fn read_message<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(u8, Vec<u8>)> {
    let tag = stream.read_u8().await?;
    Ok((tag, read_body(stream).await?))
}

async fn read_body<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let len = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    let len = len.checked_sub(4).filter(|len| *len <= MAX_MESSAGE).ok_or(io::ErrorKind::InvalidData)?;
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// Messages gathered for one write.
#[derive(Debug, Default)]
pub(crate) struct Out(Vec<u8>);

impl Out {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn authentication_ok(&mut self) {
        self.message(b'R', &0u32.to_be_bytes());
    }

    pub(crate) fn ask_password(&mut self) {
        self.message(b'R', &3u32.to_be_bytes());
    }

    pub(crate) fn parameter(&mut self, name: &str, value: &str) {
        self.message(b'S', &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }

    /// `status` is `I`, `T` or `E`.
    pub(crate) fn ready(&mut self, status: u8) {
        self.message(b'Z', &[status]);
    }

    pub(crate) fn error(&mut self, error: &SqlError) {
        let mut body = b"SERROR\0C".to_vec();
        body.extend_from_slice(error.code.as_bytes());
        body.extend_from_slice(b"\0M");
        // A NUL would end the field.
        body.extend(error.message.bytes().filter(|b| *b != 0));
        body.extend_from_slice(b"\0\0");
        self.message(b'E', &body);
    }

    pub(crate) fn reply(&mut self, reply: &Reply) {
        match reply {
            Reply::Empty => self.message(b'I', &[]),
            Reply::Done(tag) => self.complete(tag),
            Reply::Rows { columns, rows } => {
                let mut body = count(columns.len()).to_vec();
                for column in columns {
                    body.extend_from_slice(column.as_bytes());
                    // No table, no attribute; type text (25) of variable length; text format.
                    body.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25]);
                    body.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
                }
                self.message(b'T', &body);
                for row in rows {
                    let mut body = count(row.len()).to_vec();
                    for value in row {
                        match value {
                            None => body.extend_from_slice(&(-1i32).to_be_bytes()),
                            Some(text) => {
                                body.extend_from_slice(&length(text.len()));
                                body.extend_from_slice(text.as_bytes());
                            }
                        }
                    }
                    self.message(b'D', &body);
                }
                self.complete(&format!("SELECT {}", rows.len()));
            }
        }
    }

    fn complete(&mut self, tag: &str) {
        self.message(b'C', &[tag.as_bytes(), b"\0"].concat());
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        self.0.push(tag);
        self.0.extend_from_slice(&length(body.len() + 4));
        self.0.extend_from_slice(body);
    }
}

fn count(n: usize) -> [u8; 2] {
    u16::try_from(n).unwrap_or(u16::MAX).to_be_bytes()
}

fn length(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes()
}

/// Splits the text of a simple query into its statements, at semicolons outside of quotes and comments.
pub(crate) fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut quote = None;
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (None, ';') => {
                parts.push(text.get(start..i).unwrap_or_default());
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_kwdb_writes() {
        // From a raw session with KWDB V3.2.1, without the fields F, L and R that name its source.
        let mut out = Out::default();
        out.error(&SqlError::new("57P01", "server is not accepting clients"));
        assert_eq!(out.bytes(), b"E\0\0\0\x34SERROR\0C57P01\0Mserver is not accepting clients\0\0");
        let mut out = Out::default();
        out.reply(&Reply::value("version", "KaiwuDB"));
        assert_eq!(
            out.bytes(),
            b"T\0\0\0\x20\0\x01version\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0\
              D\0\0\0\x11\0\x01\0\0\0\x07KaiwuDB\
              C\0\0\0\x0dSELECT 1\0"
        );
    }

    #[test]
    fn splits_outside_of_quotes() {
        assert_eq!(split("SET a = 'x;y'; SELECT \";\";;  "), ["SET a = 'x;y'", "SELECT \";\""]);
        assert!(split(" ; ").is_empty());
    }

    #[tokio::test]
    async fn reads_startups_and_refuses_nonsense() {
        let mut ssl: &[u8] = &[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];
        assert_eq!(read_startup(&mut ssl).await.unwrap(), Startup::Ssl);
        let mut session: &[u8] = b"\0\0\0\x17\0\x03\0\0user\0root\0a\0b\0\0\0";
        let Startup::Session(parameters) = read_startup(&mut session).await.unwrap() else { panic!() };
        assert_eq!(parameters, [("user".into(), "root".into()), ("a".into(), "b".into())]);
        for nonsense in [&[0, 0, 0, 3, 0][..], &[0xff; 12], &[0, 0, 0, 5, 0]] {
            let mut nonsense = nonsense;
            assert!(read_startup(&mut nonsense).await.is_err());
        }
    }
}
