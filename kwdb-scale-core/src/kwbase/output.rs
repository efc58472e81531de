//! Parsers of what kwbase prints beside tables: version, drain progress, start, and the form of its errors.

use super::parse::ParseError;
use crate::topology::{Address, ClusterId, NodeId, StartMode};

/// What `kwbase version` says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VersionOutput {
    /// Build tag, such as `V3.2.1`; `unknown` of a build that was not made by the makefile.
    pub build: String,
    /// `Platform:`.
    pub platform: Option<String>,
    /// `Build SHA-1:`.
    pub sha1: Option<String>,
}

/// Parses `kwbase version`.
pub fn version(text: &str) -> Result<VersionOutput, ParseError> {
    let value = |wanted: &[&str]| {
        text.lines().filter_map(|l| l.split_once(':')).find_map(|(key, value)| {
            let known = wanted.iter().any(|w| key.trim().eq_ignore_ascii_case(w));
            Some(value.trim().to_owned()).filter(|v| known && !v.is_empty())
        })
    };
    Ok(VersionOutput {
        build: value(&["KaiwuDB Version", "KWDB Version", "Build Tag"])
            .ok_or(ParseError::Absent("KaiwuDB Version:"))?,
        platform: value(&["Platform"]),
        sha1: value(&["Build SHA-1"]),
    })
}

/// One line of `node drain` or `quit` on stderr: `node is draining... remaining: 39`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DrainProgress {
    /// Connections and leases left.
    pub remaining: u64,
    /// Whether the server called it complete.
    pub complete: bool,
}

/// All progress lines of a drain, in order.
pub fn drain_progress(stderr: &str) -> Vec<DrainProgress> {
    let line = |l: &str| {
        let rest = l.split_once("node is draining... remaining:")?.1.trim();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some(DrainProgress { remaining: digits.parse().ok()?, complete: rest.ends_with("(complete)") })
    };
    stderr.lines().filter_map(line).collect()
}

/// What kwbase prints on stderr, taken apart. `ERROR: …` may span lines and end in `SQLSTATE:`, `DETAIL:`, `HINT:`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Diagnostics {
    /// Lines `warning: …`, without that word. They come with success too.
    pub warnings: Vec<String>,
    /// Log lines such as `E261123 … cannot reuse client connection`. Harmless with success.
    pub log: Vec<String>,
    /// The last error.
    pub error: Option<String>,
    /// `SQLSTATE:`; kwbase leaves out its own code XXUUU.
    pub sqlstate: Option<String>,
    /// `DETAIL:`.
    pub detail: Option<String>,
    /// `HINT:`.
    pub hint: Option<String>,
    /// The command of `Failed running "…"`.
    pub failed: Option<String>,
}

/// Takes stderr apart.
pub fn diagnostics(stderr: &str) -> Diagnostics {
    let mut d = Diagnostics::default();
    let clean = clean(stderr);
    let mut in_error = false;
    for line in clean.lines() {
        let severity = ["ERROR: ", "FATAL: ", "PANIC: "].iter().find_map(|s| line.strip_prefix(s));
        if let Some(first) = severity {
            (d.sqlstate, d.detail, d.hint) = (None, None, None);
            // A message that came through the logger carries its severity twice.
            d.error = Some(first.strip_prefix("ERROR: ").unwrap_or(first).to_owned());
            in_error = true;
        } else if let Some(command) = line.strip_prefix("Failed running ") {
            d.failed = Some(command.trim().trim_matches('"').to_owned());
            in_error = false;
        } else if let Some(text) = line.strip_prefix("warning: ") {
            d.warnings.push(text.to_owned());
            in_error = false;
        } else if is_log_line(line) {
            d.log.push(line.to_owned());
            in_error = false;
        } else if let Some(code) = line.strip_prefix("SQLSTATE: ") {
            d.sqlstate = Some(code.trim().to_owned());
        } else if let Some(text) = line.strip_prefix("DETAIL: ") {
            d.detail = Some(text.to_owned());
        } else if let Some(text) = line.strip_prefix("HINT: ") {
            d.hint = Some(text.to_owned());
        } else if in_error && let Some(error) = &mut d.error {
            error.push('\n');
            error.push_str(line);
        }
    }
    d.error = d.error.map(|e| e.trim().to_owned());
    d
}

/// `E261123 13:14:50.452520 28 rpc/context.go:1029  …`
fn is_log_line(line: &str) -> bool {
    let mut chars = line.chars();
    let severity = chars.next().is_some_and(|c| "IWEF".contains(c));
    severity && chars.by_ref().take(6).filter(char::is_ascii_digit).count() == 6 && chars.next() == Some(' ')
}

/// Why a start failed, as far as it is known.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StartFailure {
    /// `Check start mode failed!`: the cluster runs with another sub-command. The store now holds the cluster's
    /// mode and must be emptied before another try.
    StartMode {
        /// With which it was started.
        is: StartMode,
        /// With which the cluster runs.
        should: StartMode,
    },
    /// Another process listens there.
    PortInUse {
        /// The flag to change, such as `--http-addr`, when it was named.
        flag: Option<String>,
    },
    /// The machine on which it was started has no such address.
    AddressNotLocal {
        /// The flag with the address, such as `--listen-addr`, when it was named.
        flag: Option<String>,
    },
    /// The machine on which it was started cannot resolve the name of an address.
    NameUnknown {
        /// The flag with the address, such as `--listen-addr`, when it was named.
        flag: Option<String>,
        /// The name.
        name: String,
    },
    /// `--brpc-addr` without a port.
    BrpcPort,
    /// The store belongs to another cluster.
    OtherCluster,
    /// The store has the start-mode file of an earlier life, or lacks the one it should have.
    StartModeFile,
    /// Another process uses the store.
    StoreLocked,
    /// Certificates absent, unreadable or of another authority.
    Certificates,
    /// The release needs a licence to join (2.2.0).
    Licence,
    /// The release does not know a flag.
    UnknownFlag(String),
    /// A file or directory may not be used.
    Permission,
}

impl StartFailure {
    /// One line: what happened and what to do.
    pub fn advice(&self) -> String {
        match self {
            Self::StartMode { is, should } => format!(
                "the node was started with {is} but the cluster runs with {should}: empty the store, then start \
                 with {should}"
            ),
            Self::PortInUse { flag: Some(flag) } => {
                format!("the port of {flag} is in use: stop what listens there, or change {flag}")
            }
            Self::PortInUse { flag: None } => "a port is in use: stop what listens there, or change it".to_owned(),
            Self::AddressNotLocal { flag } => {
                let flag = flag.as_deref().unwrap_or("an address of its command line");
                format!(
                    "the machine has no such address as {flag} names: correct it, or how the host is reached (the node \
                     may have been started on another machine)"
                )
            }
            Self::NameUnknown { flag, name } => {
                let flag = flag.as_deref().unwrap_or("its command line");
                format!(
                    "the machine cannot resolve {name} of {flag}: write an IP address of the machine there, or make the name \
                     known to it (in its /etc/hosts, or by DNS)"
                )
            }
            Self::BrpcPort => "--brpc-addr has no port: give one, such as :27257".to_owned(),
            Self::OtherCluster => "the store belongs to another cluster: empty it, or name another".to_owned(),
            Self::StartModeFile => {
                "the store holds traces of an earlier life (kwbase.start_mode): empty it, or name another".to_owned()
            }
            Self::StoreLocked => "another process uses the store: stop it, or name another store".to_owned(),
            Self::Certificates => {
                "the certificates cannot be used: check certs_dir (ca.crt, node.crt, node.key of mode 0600, the \
                 node's address in node.crt, the cluster's authority)"
                    .to_owned()
            }
            Self::Licence => "this release joins only with a licence: use 2.2.1 or newer".to_owned(),
            Self::UnknownFlag(flag) => format!("this release does not know {flag}: leave it out"),
            Self::Permission => "a file or directory may not be used by this user: check the owner".to_owned(),
        }
    }
}

/// What a start printed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StartOutput {
    /// `initial startup completed. Node will now attempt to join …`: up, and not joined yet at that moment.
    pub waiting_to_join: bool,
    /// `The server appears to be unable to contact the other nodes`, after 30 s.
    pub cannot_reach_cluster: bool,
    /// The line `status:` of the block `node startup completed`, such as `initialized new node, joined pre-existing
    /// cluster`. Printed without `--background`; otherwise in the log.
    pub status: Option<String>,
    /// `clusterID:` of the block.
    pub cluster_id: Option<ClusterId>,
    /// `nodeID:` of the block.
    pub node_id: Option<NodeId>,
    /// `RPC client flags`/`listen` are not kept; where SQL listens is.
    pub sql_address: Option<Address>,
    /// A failure that is known by its text.
    pub failure: Option<StartFailure>,
}

/// Parses what a start printed, stdout and stderr together.
pub fn start(text: &str) -> StartOutput {
    let clean = clean(text);
    let value = |key: &str| {
        let line =
            |l: &str| l.trim().strip_prefix(key).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        clean.lines().filter_map(line).next_back()
    };
    StartOutput {
        waiting_to_join: clean.contains("initial startup completed"),
        cannot_reach_cluster: clean.contains("appears to be unable to contact the other nodes"),
        status: value("status:"),
        cluster_id: value("clusterID:").map(ClusterId::new),
        node_id: value("nodeID:").and_then(|v| v.parse().ok()),
        sql_address: value("sql:").and_then(|url| {
            let (_, rest) = url.split_once('@')?;
            Some(Address::new(rest.split(['/', '?']).next()?))
        }),
        failure: start_failure(&clean),
    }
}

fn start_failure(text: &str) -> Option<StartFailure> {
    let has = |needle: &str| text.contains(needle);
    if let Some((_, rest)) = text.split_once("Node start mode is ") {
        let mut words = rest.split([',', ' ', '\n']).filter(|w| !w.is_empty());
        let is = words.next().unwrap_or_default();
        let should = words.skip_while(|w| *w != "be").nth(1).unwrap_or_default().trim_end_matches('.');
        return Some(StartFailure::StartMode { is: StartMode::from(is), should: StartMode::from(should) });
    }
    if has("--brpc-addr's port not specified") {
        return Some(StartFailure::BrpcPort);
    }
    if let Some(failure) = name_unknown(text) {
        return Some(failure);
    }
    if let Some((_, rest)) = text.split_once("consider changing the port via ") {
        let flag = first_word(rest);
        // kwbase gives this advice whatever hinders it.
        return Some(if is_not_local(text) {
            StartFailure::AddressNotLocal { flag }
        } else {
            StartFailure::PortInUse { flag }
        });
    }
    if let Some((_, rest)) = text.split_once("unknown flag: ") {
        return Some(StartFailure::UnknownFlag(
            rest.split_whitespace().next().unwrap_or_default().to_owned(),
        ));
    }
    if is_not_local(text) {
        return Some(StartFailure::AddressNotLocal { flag: None });
    }
    let table: [(&[&str], StartFailure); 7] = [
        (&["address already in use"], StartFailure::PortInUse { flag: None }),
        (&["doesn't match server cluster ID", "from different cluster"], StartFailure::OtherCluster),
        (
            &["start mode file does not exist", "start mode file exist when bootstrap"],
            StartFailure::StartModeFile,
        ),
        (&["enterprise license"], StartFailure::Licence),
        (&["cannot load certificates", "x509:", "key file ", "problem with "], StartFailure::Certificates),
        (
            &["Resource temporarily unavailable", "resource temporarily unavailable", "could not lock"],
            StartFailure::StoreLocked,
        ),
        (&["permission denied", "Permission denied", "read-only file system"], StartFailure::Permission),
    ];
    table.into_iter().find_map(|(needles, failure)| needles.iter().any(|n| has(n)).then_some(failure))
}

fn first_word(text: &str) -> Option<String> {
    text.split_whitespace().next().map(|word| word.trim_end_matches(['.', ',', ':', ')']).to_owned())
}

/// `invalid --listen-addr: lookup NAME on 10.0.0.53:53: no such host`, whatever kept the name from being resolved. A
/// node whose name is gone only when it listens gives the advice about its port.
fn name_unknown(text: &str) -> Option<StartFailure> {
    let before_flag = ["invalid --", "consider changing the port via --"];
    before_flag.iter().find_map(|before| {
        let (_, rest) = text.split_once(before)?;
        let line = rest.lines().next()?;
        let flag = first_word(line).map(|flag| format!("--{flag}"));
        Some(StartFailure::NameUnknown { flag, name: first_word(line.split_once(": lookup ")?.1)? })
    })
}

/// `EADDRNOTAVAIL`, which Go writes with a small letter and libc with a capital one.
fn is_not_local(text: &str) -> bool {
    text.contains("annot assign requested address")
}

/// The last `lines` lines of an output that say something, on one line each: without the banner of insecure mode,
/// colours and secrets.
pub fn last_lines(text: &str, lines: usize) -> String {
    let clean = clean(text);
    let says = |l: &&str| {
        let bare = l.trim_start_matches(['*', ' ']);
        !bare.is_empty()
            && !bare.starts_with("- ")
            && !bare.starts_with("WARNING: RUNNING IN INSECURE MODE")
            && !bare.starts_with("Check out how to secure")
    };
    let mut kept: Vec<&str> = clean.lines().map(str::trim_end).filter(says).collect();
    let tail = kept.split_off(kept.len().saturating_sub(lines));
    tail.join("\n")
}

/// Text that may be shown: without terminal escapes and other control characters, `\r` taken for a line's end,
/// and without passwords.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                // A control sequence ends at its first byte from @ to ~.
                for part in chars.by_ref() {
                    if ('@'..='~').contains(&part) {
                        break;
                    }
                }
            }
            '\r' if chars.peek() == Some(&'\n') => {}
            '\r' => out.push('\n'),
            '\n' | '\t' => out.push(c),
            _ if c.is_control() => {}
            _ => out.push(c),
        }
    }
    if out.contains("://") || out.to_ascii_lowercase().contains("password=") { redact(&out) } else { out }
}

fn redact(text: &str) -> String {
    text.split_inclusive(char::is_whitespace)
        .map(|word| {
            let lower = word.to_ascii_lowercase();
            if let Some(at) = lower.find("password=").map(|i| i + "password=".len()) {
                let end = word.len() - word.trim_end().len();
                let (head, tail) = (word.get(..at), word.get(word.len() - end..));
                return format!("{}[redacted]{}", head.unwrap_or_default(), tail.unwrap_or_default());
            }
            let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
            let authority = rest.split(['/', '?']).next().unwrap_or_default();
            match authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':')) {
                Some((user, secret)) => {
                    let from = scheme.len() + 3 + user.len() + 1 + secret.len();
                    format!("{scheme}://{user}:[redacted]{}", word.get(from..).unwrap_or_default())
                }
                None => word.to_owned(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_colours_and_no_secrets() {
        let text = "\u{1b}[1;31mbad\u{1b}[0m postgresql://root:se@cret@h:1/db?x --import-password=abc\nnext";
        assert_eq!(
            clean(text),
            "bad postgresql://root:[redacted]@h:1/db?x --import-password=[redacted]\nnext"
        );
        assert_eq!(clean("password authentication failed"), "password authentication failed");
    }

    #[test]
    fn start_failures_by_their_text() {
        let f = |t: &str| start(t).failure;
        assert_eq!(
            f("ERROR: Check start mode failed! Node start mode is start, should be start-single-replica\n"),
            Some(StartFailure::StartMode { is: StartMode::MultiReplica, should: StartMode::SingleReplica })
        );
        assert_eq!(
            f("ERROR: consider changing the port via --http-addr: listen tcp: bind: address already in use"),
            Some(StartFailure::PortInUse { flag: Some("--http-addr".into()) })
        );
        for said in ["cannot assign requested address", "Cannot assign requested address (os error 99)"] {
            let text = format!(
                "ERROR: consider changing the port via --listen-addr: listen tcp 10.0.0.7:26257: bind: {said}"
            );
            let failure = f(&text).unwrap();
            assert_eq!(failure, StartFailure::AddressNotLocal { flag: Some("--listen-addr".into()) });
            let advice = failure.advice();
            assert!(advice.contains("no such address as --listen-addr names"), "{advice}");
            assert!(!advice.contains("in use"), "{advice}");
        }
        for said in [
            // A real V3.2.1.
            "failed to start server: invalid --brpc-addr: lookup db5.example.org on 10.255.255.53:53: no such host",
            "consider changing the port via --brpc-addr: listen tcp: lookup db5.example.org: server misbehaving",
        ] {
            let failure = f(&format!("ERROR: {said}\nFailed running \"start\"\n")).unwrap();
            let expected = StartFailure::NameUnknown {
                flag: Some("--brpc-addr".into()),
                name: "db5.example.org".into(),
            };
            assert_eq!(failure, expected);
            assert!(failure.advice().contains("cannot resolve db5.example.org of --brpc-addr"));
        }
        assert_eq!(f("--brpc-addr's port not specified"), Some(StartFailure::BrpcPort));
        assert_eq!(
            f("unknown flag: --use-raft-store"),
            Some(StartFailure::UnknownFlag("--use-raft-store".into()))
        );
        assert_eq!(f("all is well"), None);
    }

    #[test]
    fn a_joined_node() {
        let text = "node startup completed:\nsql:   postgresql://root@10.0.0.1:26257?sslmode=disable\n\
                    status:              initialized new node, joined pre-existing cluster\n\
                    clusterID:           3a0b\nnodeID:              4\n";
        let out = start(text);
        assert_eq!(out.status.as_deref(), Some("initialized new node, joined pre-existing cluster"));
        assert_eq!((out.node_id, out.cluster_id), (Some(NodeId(4)), Some(ClusterId::new("3a0b"))));
        assert_eq!(out.sql_address, Some(Address::new("10.0.0.1:26257")));
    }
}
