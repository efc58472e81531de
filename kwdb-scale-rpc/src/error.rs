//! What went wrong, told apart: one line that names the address, the reason and the cure.
//!
//! The server says UNKNOWN to nearly everything, so the text decides. Texts: seen on V3.2.1, and `server/admin.go`,
//! `server/server.go`, `kv/kvserver/node_liveness.go` of V2.2.2 to V3.2.1.

use std::error::Error;
use std::fmt;
use std::io;

use kwdb_scale_core::ports::{PortError, PortErrorKind};
use kwdb_scale_core::topology::Address;
use rustls::{AlertDescription, CertificateError};
use tonic::{Code, Status};

/// A text of the server is cut there: descriptors in it can be long.
const MAX_TEXT: usize = 1000;

/// What the server said, as the source of an error: `rpc error: code = Unknown desc = …`.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ServerSaid {
    /// The gRPC code by its name, such as `UNKNOWN`.
    pub code: &'static str,
    /// The description on one line.
    pub message: String,
}

impl fmt::Display for ServerSaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl Error for ServerSaid {}

struct Rule {
    /// Any of these, in lower case.
    any: &'static [&'static str],
    kind: PortErrorKind,
    says: &'static str,
}

const fn rule(any: &'static [&'static str], kind: PortErrorKind, says: &'static str) -> Rule {
    Rule { any, kind, says }
}

/// In order: the first that fits counts.
const RULES: &[Rule] = &[
    rule(
        &["is not allowed to perform this rpc"],
        PortErrorKind::Denied,
        "the client certificate is of a user who may not call the admin service: give that of root or node",
    ),
    rule(
        &["no client certificates in request"],
        PortErrorKind::Authentication,
        "the node got no client certificate: give that of root or node",
    ),
    rule(
        &["node not in the liveness table", "unable to look up descriptor for"],
        PortErrorKind::UnknownNode,
        "a node id is not in the liveness table: look at the cluster again",
    ),
    rule(
        &["in mpp mode"],
        PortErrorKind::SingleReplica,
        "the cluster runs in single-replica mode, in which nodes cannot be decommissioned",
    ),
    rule(
        &["cluster has node upgrading"],
        PortErrorKind::Upgrading,
        "a node is being upgraded: wait until it is done",
    ),
    rule(
        &["enterprise license"],
        PortErrorKind::Licence,
        "this release scales only with a licence: use 2.2.1 or newer",
    ),
    rule(
        &["waiting for init", "waiting for cluster initialization", "before it has been initialized"],
        PortErrorKind::NotInitialised,
        "the node belongs to no cluster yet: run kwbase init, or wait until it has joined",
    ),
    rule(
        &[
            "node is shutting down",
            "server is shutting down",
            "not accepting clients",
            "node unavailable; try another peer",
        ],
        PortErrorKind::ShuttingDown,
        "the node is draining or shutting down: go through another",
    ),
    rule(
        &["context deadline exceeded", "operation timed out"],
        PortErrorKind::Deadline,
        "the node was too busy to answer in time, or ranges have lost their quorum: try again, and look at the cluster's health",
    ),
    rule(
        &["requires admin privilege", "remote_debugging.mode"],
        PortErrorKind::Denied,
        "the server does not allow this call: use the client certificate of root or node",
    ),
    rule(
        &["grpc-status header missing", "invalid content-type"],
        PortErrorKind::Malformed,
        "the answer is not KWDB's: is this a node's RPC address?",
    ),
    rule(
        &["socket closed", "transport is closing", "connection reset", "broken pipe"],
        PortErrorKind::ConnectionLost,
        "the connection was lost: look whether the node still runs",
    ),
];

/// The kind of what a server said, and a sentence with the cure. Only for statuses that came from a server.
fn kind_of(code: Code, message: &str) -> (PortErrorKind, Option<&'static str>) {
    let text = message.to_lowercase();
    if let Some(rule) = RULES.iter().find(|r| r.any.iter().any(|needle| text.contains(needle))) {
        return (rule.kind, Some(rule.says));
    }
    match code {
        Code::DeadlineExceeded | Code::Cancelled => (
            PortErrorKind::Deadline,
            Some("the call ran out of time: try again, and look at the cluster's health"),
        ),
        Code::Unimplemented => (
            PortErrorKind::Unsupported,
            Some("this release does not serve that method: use the command line or SQL in its place"),
        ),
        Code::PermissionDenied => (
            PortErrorKind::Denied,
            Some("the server does not allow this call: use the client certificate of root or node"),
        ),
        Code::Unauthenticated => (
            PortErrorKind::Authentication,
            Some("the client was not accepted: give the client certificate of root or node"),
        ),
        Code::InvalidArgument => (PortErrorKind::Config, Some("the server does not take the arguments")),
        _ => (PortErrorKind::Other, None),
    }
}

/// When something failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// From the first byte to the first answer of a new channel: no call was made.
    Connecting,
    /// After a call was sent: what it asked for may have been done.
    Calling,
}

/// Whom we spoke to, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer<'a> {
    pub(crate) address: &'a Address,
    pub(crate) secure: bool,
}

impl Peer<'_> {
    pub(crate) fn error(&self, kind: PortErrorKind, what: impl AsRef<str>) -> PortError {
        PortError::new(kind, format!("{}: {}", self.address, one_line(what.as_ref())))
    }

    /// The one function from (code, message, transport source chain) to an error.
    pub(crate) fn of_status(&self, stage: Stage, status: Status) -> PortError {
        // A status with a source was made here, of a transport error; tonic gives those any code.
        if status.source().is_some() {
            return self.of_transport(stage, status);
        }
        let (kind, says) = kind_of(status.code(), status.message());
        let said = ServerSaid { code: code_name(status.code()), message: one_line(status.message()) };
        let what = match says {
            Some(says) => says.to_owned(),
            None => format!("the server failed: {} [{}]", said.message, said.code),
        };
        self.error(kind, what).with_source(said)
    }

    /// An error of TCP, TLS or HTTP/2.
    pub(crate) fn of_transport(&self, stage: Stage, error: impl Error + Send + Sync + 'static) -> PortError {
        let (kind, text) = self.transport_text(stage, &error);
        self.error(kind, text).with_source(error)
    }

    fn transport_text(&self, stage: Stage, error: &(dyn Error + 'static)) -> (PortErrorKind, String) {
        if let Some(tls) = cause::<rustls::Error>(error) {
            return tls_text(tls);
        }
        let causes = causes(error);
        let text = causes.to_lowercase();
        // An answer that is no HTTP/2 makes a protocol error, and the connection is then closed from here.
        let garbled = [
            "frame with invalid size",
            "protocol error",
            "http/2 error: unspecific",
            "invalid preface",
            "grpc-status",
        ]
        .iter()
        .any(|needle| text.contains(needle));
        match stage {
            _ if garbled => (
                PortErrorKind::Malformed,
                format!("the answer is not that of an RPC port ({causes}): is this a node's RPC address (--host)?"),
            ),
            Stage::Connecting if !self.secure => (
                PortErrorKind::Tls,
                "the node closed the connection at once, as a secure one does to plaintext: give the cluster's CA and the \
                 client certificate of root or node"
                    .to_owned(),
            ),
            Stage::Connecting => (
                PortErrorKind::ConnectionLost,
                format!("the node closed the connection before its first answer: {causes}"),
            ),
            Stage::Calling => (
                PortErrorKind::ConnectionLost,
                format!("the connection was lost in the middle of a call ({causes}): look whether the node still runs"),
            ),
        }
    }
}

/// Why TLS failed, from the handshake or from what came after it (TLS 1.3 refuses a client certificate there).
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
                "the node's certificate is for another name: {error} (use a name of the certificate as the address, or \
                 set the server name)"
            ),
        ),
        rustls::Error::InvalidCertificate(why) => {
            (PortErrorKind::Tls, format!("the node's certificate is not valid: {why}"))
        }
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
        rustls::Error::InvalidMessage(_) => (
            PortErrorKind::Tls,
            "the node does not speak TLS, which is demanded (is this an insecure cluster, or another port?)"
                .to_owned(),
        ),
        other => (PortErrorKind::Tls, format!("TLS failed: {other}")),
    }
}

/// Whether the server was only too busy: the same call may be made again.
pub(crate) fn is_overload(status: &Status) -> bool {
    status.source().is_none() && kind_of(status.code(), status.message()).0 == PortErrorKind::Deadline
}

/// Whether the connection ended under a call.
pub(crate) fn is_loss(status: &Status) -> bool {
    status.source().is_some() || kind_of(status.code(), status.message()).0 == PortErrorKind::ConnectionLost
}

/// The text on one line, without control characters, not longer than a screen.
pub(crate) fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = clean.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_TEXT) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or_default()),
        None => line,
    }
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The first of the error and its causes that is a `T`, also inside of an `io::Error`.
pub(crate) fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
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
fn causes(error: &(dyn Error + 'static)) -> String {
    // A status repeats its source in its own words.
    let error = error.downcast_ref::<Status>().and_then(Error::source).unwrap_or(error);
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
    one_line(&text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use std::error::Error;

    use kwdb_scale_core::ports::PortErrorKind as Kind;
    use kwdb_scale_core::topology::Address;
    use tonic::{Code, Status};

    use super::{Peer, ServerSaid, Stage, is_overload, one_line, tls_text};

    fn of(code: Code, message: &str) -> kwdb_scale_core::ports::PortError {
        let address = Address::new("10.0.0.1:26257");
        Peer { address: &address, secure: true }.of_status(Stage::Calling, Status::new(code, message))
    }

    /// Every row that a server says, verbatim as a KWDB V3.2.1 said it.
    const SEEN: &[(Code, &str, Kind, &str)] = &[
        (Code::Unknown, "user [alice] is not allowed to perform this RPC", Kind::Denied, "root or node"),
        (Code::Unknown, "no client certificates in request", Kind::Authentication, "root or node"),
        (
            Code::Unknown,
            "unable to get liveness for 99: node not in the liveness table",
            Kind::UnknownNode,
            "look at the cluster",
        ),
        (
            Code::Unknown,
            "unable to get liveness for -1: node not in the liveness table",
            Kind::UnknownNode,
            "look at the cluster",
        ),
        (
            Code::Unknown,
            "during liveness update 99 -> true: node not in the liveness table",
            Kind::UnknownNode,
            "look at the cluster",
        ),
        (Code::Unknown, "node cannot be decommissioned in mpp mode", Kind::SingleReplica, "single-replica"),
        (
            Code::Unavailable,
            "node waiting for init; /kwbase.server.serverpb.Admin/DecommissionStatus not available",
            Kind::NotInitialised,
            "kwbase init",
        ),
        (
            Code::Unavailable,
            "node is waiting for cluster initialization",
            Kind::NotInitialised,
            "kwbase init",
        ),
        (Code::Unavailable, "node is shutting down", Kind::ShuttingDown, "through another"),
        (Code::Unavailable, "Stream removed (Socket closed)", Kind::ConnectionLost, "still runs"),
        (Code::Unavailable, "transport is closing", Kind::ConnectionLost, "still runs"),
        (Code::DeadlineExceeded, "Deadline Exceeded", Kind::Deadline, "try again"),
        (
            Code::Unknown,
            "aborted during DistSender.Send: context deadline exceeded",
            Kind::Deadline,
            "try again",
        ),
        (
            Code::Unimplemented,
            "unknown method Nope for service kwbase.server.serverpb.Admin",
            Kind::Unsupported,
            "command line",
        ),
        (
            Code::Unknown,
            "can not run node decommission when cluster has node UPGRADING",
            Kind::Upgrading,
            "wait until",
        ),
        (Code::InvalidArgument, "range_id must be positive; got 0", Kind::Config, "arguments"),
        (Code::PermissionDenied, "this operation requires admin privilege", Kind::Denied, "root or node"),
        (Code::Unknown, "something nobody has seen", Kind::Other, "something nobody has seen [UNKNOWN]"),
    ];

    #[test]
    fn every_row_of_the_table() {
        for (code, message, kind, cure) in SEEN {
            let error = of(*code, message);
            assert_eq!(error.kind(), *kind, "{message}");
            assert!(error.to_string().starts_with("10.0.0.1:26257: "), "{error}");
            assert!(error.to_string().contains(cure), "{error}");
            let said = error.source().unwrap().downcast_ref::<ServerSaid>().unwrap();
            assert_eq!(said.message, *message, "the raw text is kept");
            assert!(error.chain().contains(message), "{}", error.chain());
        }
    }

    #[test]
    fn only_overload_is_tried_again() {
        for (code, message, kind, _) in SEEN {
            assert_eq!(is_overload(&Status::new(*code, *message)), *kind == Kind::Deadline, "{message}");
        }
    }

    #[test]
    fn transport_errors_by_stage_and_security() {
        let address = Address::new("10.0.0.1:26257");
        let of = |stage, secure| {
            let io = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            Peer { address: &address, secure }.of_status(stage, Status::from_error(Box::new(io)))
        };
        assert_eq!(of(Stage::Calling, false).kind(), Kind::ConnectionLost);
        assert_eq!(of(Stage::Calling, true).kind(), Kind::ConnectionLost);
        assert_eq!(of(Stage::Connecting, true).kind(), Kind::ConnectionLost);
        let plaintext = of(Stage::Connecting, false);
        assert_eq!(plaintext.kind(), Kind::Tls);
        assert!(plaintext.to_string().contains("secure"), "{plaintext}");
    }

    #[test]
    fn tls_by_cause() {
        use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
        let kind = |e: Error| tls_text(&e).0;
        assert_eq!(kind(Error::InvalidCertificate(CertificateError::BadSignature)), Kind::Tls);
        assert_eq!(kind(Error::InvalidCertificate(CertificateError::NotValidForName)), Kind::Tls);
        assert_eq!(kind(Error::AlertReceived(AlertDescription::BadCertificate)), Kind::Authentication);
        assert_eq!(kind(Error::InvalidMessage(InvalidMessage::InvalidContentType)), Kind::Tls);
        // A bad certificate that came after the handshake, wrapped as the transport wraps it.
        let alert = Error::AlertReceived(AlertDescription::BadCertificate);
        let status = Status::from_error(Box::new(std::io::Error::other(alert)));
        let address = Address::new("10.0.0.1:26257");
        let error = Peer { address: &address, secure: true }.of_status(Stage::Connecting, status);
        assert_eq!(error.kind(), Kind::Authentication, "{}", error.chain());
    }

    #[test]
    fn texts_of_a_server_are_one_short_line() {
        assert_eq!(one_line("a\n\u{1b}[31mb\t c"), "a [31mb c");
        assert!(one_line(&"x".repeat(5000)).chars().count() < 1100);
    }
}
