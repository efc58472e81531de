//! What went wrong, told apart: one line that names the address, the reason and the cure.

use std::error::Error;
use std::io;

use kwdb_scale_core::ports::{PortError, PortErrorKind};
use kwdb_scale_core::topology::Address;
use rustls::{AlertDescription, CertificateError};
use tokio_postgres::error::DbError;

/// Whom we spoke to, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer<'a> {
    pub(crate) address: &'a Address,
    pub(crate) user: &'a str,
    pub(crate) secure: bool,
}

impl Peer<'_> {
    pub(crate) fn error(&self, kind: PortErrorKind, what: impl AsRef<str>) -> PortError {
        let line = what.as_ref().split_whitespace().collect::<Vec<_>>().join(" ");
        PortError::new(kind, format!("{}: {line}", self.address))
    }

    /// An error from the first byte to the end of log-in.
    pub(crate) fn of_connect(&self, error: tokio_postgres::Error) -> PortError {
        if let Some(db) = error.as_db_error() {
            let kind_and_text = match db.code().code() {
                // KWDB has no SQLSTATE of its own for a refused log-in; it says XXUUU, "uncategorised".
                "XXUUU" | "28000" | "28P01" if !db.message().contains("SSL connection required") => Some((
                    PortErrorKind::Authentication,
                    format!(
                        "the log-in as '{}' was refused: {} (check the user, its password or its client certificate)",
                        self.user,
                        db.message()
                    ),
                )),
                _ if db.message().contains("SSL connection required") => Some((
                    PortErrorKind::Tls,
                    "the node runs in secure mode (give the cluster's CA and a client certificate or password)"
                        .to_owned(),
                )),
                _ => None,
            };
            return match kind_and_text {
                Some((kind, text)) => self.error(kind, text).with_source(error),
                None => self.of_statement(error),
            };
        }
        if let Some(tls) = cause::<rustls::Error>(&error) {
            let (kind, text) = tls_text(tls);
            return self.error(kind, text).with_source(error);
        }
        let causes = causes(&error);
        if causes.contains("password missing") {
            // Asked for a password that is not there. On a plaintext connection this is a secure node.
            return if self.secure {
                let text = format!(
                    "the node asks for the password of '{}' and none is given (it does not take the client certificate)",
                    self.user
                );
                self.error(PortErrorKind::Authentication, text).with_source(error)
            } else {
                let text = "the node runs in secure mode: it asks for a password over plaintext, which is not \
                            answered (give the cluster's CA and a client certificate or password)";
                self.error(PortErrorKind::Tls, text).with_source(error)
            };
        }
        if causes.contains("server does not support TLS") {
            let text = "the node does not speak TLS, which is demanded (is this an insecure cluster, or another \
                        port?)";
            return self.error(PortErrorKind::Tls, text).with_source(error);
        }
        if causes.contains("TLS handshake") && cause::<io::Error>(&error).is_none_or(|e| !is_loss(e)) {
            return self.error(PortErrorKind::Tls, format!("TLS failed: {causes}")).with_source(error);
        }
        match cause::<io::Error>(&error) {
            Some(io) if is_loss(io) => {
                self.error(PortErrorKind::ConnectionLost, "the node closed the connection during log-in")
            }
            Some(io) if causes.contains("error connecting") => {
                let why = match io.kind() {
                    io::ErrorKind::TimedOut => "no answer in time".to_owned(),
                    _ => io.to_string(),
                };
                let text = format!("cannot connect: {why} (is the node up, and is this its SQL address?)");
                self.error(PortErrorKind::Unreachable, text)
            }
            _ if error.is_closed() => {
                self.error(PortErrorKind::ConnectionLost, "the node closed the connection during log-in")
            }
            Some(io) if io.kind() == io::ErrorKind::InvalidInput => {
                let text = format!("the answer is not that of an SQL port: {io}");
                self.error(PortErrorKind::Malformed, text)
            }
            Some(_) => self.error(PortErrorKind::ConnectionLost, format!("connection lost: {causes}")),
            None => self.error(PortErrorKind::Malformed, format!("log-in went wrong: {causes}")),
        }
        .with_source(error)
    }

    /// An error of a statement on a connection that was there.
    pub(crate) fn of_statement(&self, error: tokio_postgres::Error) -> PortError {
        let Some(db) = error.as_db_error() else {
            let lost = error.is_closed() || cause::<io::Error>(&error).is_some();
            let causes = causes(&error);
            return if lost {
                self.error(PortErrorKind::ConnectionLost, format!("connection lost: {causes}"))
            } else {
                self.error(PortErrorKind::Malformed, format!("the answer could not be understood: {causes}"))
            }
            .with_source(error);
        };
        let (kind, text) = self.db_text(db);
        self.error(kind, text).with_source(error)
    }

    fn db_text(&self, db: &DbError) -> (PortErrorKind, String) {
        let (code, message) = (db.code().code(), db.message());
        match code {
            "57P01" | "57P02" | "57P03" => {
                (PortErrorKind::ShuttingDown, format!("the node is draining or shutting down: {message}"))
            }
            "57014" => (
                PortErrorKind::Deadline,
                format!("the node gave the statement up: {message} (are all ranges available?)"),
            ),
            "42501" => (
                PortErrorKind::Denied,
                format!(
                    "'{}' lacks a right: {message} (cure: GRANT admin TO {})",
                    self.user,
                    ident(self.user)
                ),
            ),
            _ if message.contains("only users with the admin role") => (
                PortErrorKind::Denied,
                format!(
                    "'{}' lacks a right: {message} (cure: GRANT admin TO {})",
                    self.user,
                    ident(self.user)
                ),
            ),
            "42P01" | "42703" | "42883" => (
                PortErrorKind::Unsupported,
                format!("this release (or this database) lacks what is asked: {message} [{code}]"),
            ),
            _ if message.contains("unknown cluster setting") => {
                (PortErrorKind::Unsupported, format!("this release lacks the setting: {message}"))
            }
            _ => (PortErrorKind::Other, format!("{message} [{code}]")),
        }
    }
}

/// Whether the statement may simply be sent again through the same node.
pub(crate) fn is_serialization_failure(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|c| c.code() == "40001")
}

fn tls_text(error: &rustls::Error) -> (PortErrorKind, String) {
    use AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(
            // All CAs made by `kwbase cert` have one name, so the wrong one shows as a bad signature too.
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => (
            PortErrorKind::Tls,
            "the node's certificate is not signed by the given CA (give the ca.crt of this cluster)"
                .to_owned(),
        ),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => (
            PortErrorKind::Tls,
            format!(
                "the node's certificate is for another name: {error} (use a name of the certificate as the \
                 address, or set the server name)"
            ),
        ),
        rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::CertificateRequired,
        ) => (
            PortErrorKind::Authentication,
            format!(
                "the node refused the client certificate: {error} (is it of this cluster's CA, and valid?)"
            ),
        ),
        rustls::Error::InvalidCertificate(why) => {
            (PortErrorKind::Tls, format!("the node's certificate is not valid: {why}"))
        }
        other => (PortErrorKind::Tls, format!("TLS failed: {other}")),
    }
}

/// A user name as SQL takes it.
fn ident(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn is_loss(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::UnexpectedEof | Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe
    )
}

/// The first cause of type `T`, also inside of an `io::Error`.
fn cause<T: Error + 'static>(error: &dyn Error) -> Option<&T> {
    let mut next = error.source();
    while let Some(e) = next {
        if let Some(found) = e.downcast_ref::<T>() {
            return Some(found);
        }
        let inner = e.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|i| i.downcast_ref::<T>()) {
            return Some(found);
        }
        next = e.source();
    }
    None
}

/// The error and its causes on one line.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        let more = e.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = e.source();
    }
    text
}
