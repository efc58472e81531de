//! From the text of a failed command to an error kind to decide by.
//!
//! Texts: `cli/error.go`, `server/admin.go`, `server/server.go` of V2.0.4 to V3.2.1, and real output of V3.2.1.
//! kwbase knows only the exit codes 0 and 1, so everything hangs on the text. The whole of it stays in the error's
//! source.

use super::output;
use crate::ports::{CommandEnd, CommandOutput, PortError, PortErrorKind};
use crate::topology::HostName;

/// Everything a failed command said, as the source of its error. Without terminal escapes and passwords.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Said(String);

struct Rule {
    /// Any of these, in lower case.
    any: &'static [&'static str],
    kind: PortErrorKind,
    says: &'static str,
}

const fn rule(any: &'static [&'static str], kind: PortErrorKind, says: &'static str) -> Rule {
    Rule { any, kind, says }
}

/// In order: the first that fits counts. What names the true cause stands before what kwbase wraps around it.
const RULES: &[Rule] = &[
    rule(
        &[
            "inappropriate ioctl for device",
            "enter password:",
            "problem with client cert",
            "no password supplied",
        ],
        PortErrorKind::Authentication,
        "no usable client certificate of root in --certs-dir (kwbase asked for a password instead): put \
         client.root.crt and client.root.key there",
    ),
    rule(
        &["cannot load certificates"],
        PortErrorKind::Config,
        "the certificates cannot be loaded: check certs_dir, or say that the cluster is insecure",
    ),
    rule(
        &[
            "cannot establish secure connection to insecure server",
            "does not look like a tls handshake",
            "ssl is not enabled on the server",
        ],
        PortErrorKind::Tls,
        "certificates were used on an insecure cluster: set its security to insecure",
    ),
    rule(
        &["x509:", "ssl authentication error", "authentication handshake failed", "tls: "],
        PortErrorKind::Tls,
        "TLS failed: the certificate's authority or name does not fit the cluster",
    ),
    rule(
        &["ssl connection required"],
        PortErrorKind::Tls,
        "the cluster is secure and the client was insecure: configure certs_dir",
    ),
    rule(
        &["password authentication failed"],
        PortErrorKind::Authentication,
        "root was not accepted (an insecure client of a secure cluster is answered so too): check certs_dir",
    ),
    rule(
        &["node not in the liveness table"],
        PortErrorKind::UnknownNode,
        "a node id is not in the liveness table; ids given before it may have been marked all the same: look at \
         the cluster again",
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
        &["waiting for init", "before it has been initialized", "not been initialized"],
        PortErrorKind::NotInitialised,
        "the node belongs to no cluster yet",
    ),
    rule(
        &[
            "57p01",
            "not accepting clients",
            "server is shutting down",
            "node is shutting down",
            "node unavailable; try another peer",
        ],
        PortErrorKind::ShuttingDown,
        "the node is draining or shutting down: go through another",
    ),
    rule(
        &["only users with the admin role", "42501"],
        PortErrorKind::Denied,
        "the user lacks the admin role",
    ),
    rule(
        &["connection refused"],
        PortErrorKind::Unreachable,
        "nobody listens at that address: check that the node runs and that the address is right",
    ),
    rule(
        &[
            "no such host",
            "no route to host",
            "network is unreachable",
            "host is down",
            "dial tcp",
            "error while dialing",
        ],
        PortErrorKind::Unreachable,
        "the address cannot be reached: check name, network and firewall",
    ),
    rule(
        &["operation timed out", "i/o timeout", "deadline exceeded", "drain timeout"],
        PortErrorKind::Deadline,
        "no answer in time (so also a node that has not joined, and a cluster without quorum)",
    ),
    rule(
        &["cannot dial server"],
        PortErrorKind::Unreachable,
        "the address cannot be reached: check name, network and firewall",
    ),
    rule(
        &["remove --insecure"],
        PortErrorKind::Tls,
        "the server closed the connection, as a secure node does to an insecure client: configure certs_dir",
    ),
    rule(
        &[
            "server closed the connection",
            "transport is closing",
            "connection reset by peer",
            "broken pipe",
            "unexpected eof",
            "connection lost",
        ],
        PortErrorKind::ConnectionLost,
        "the connection was lost",
    ),
    rule(
        &[
            "unknown flag",
            "unknown shorthand flag",
            "unknown command",
            "invalid argument \"",
            "requires at least",
            "accepts at most",
            "unable to parse",
            "could not parse node_id",
        ],
        PortErrorKind::Config,
        "kwbase did not accept the command line",
    ),
    rule(
        // Docker 20 and 28, podman 4.
        &["container state improper", "is not running", "is paused, unpause", "is restarting, wait"],
        PortErrorKind::NotFound,
        "the container that exec_prefix enters does not run: start it, or give an exec_prefix that needs none",
    ),
    rule(
        &["executable file not found", "no such container", "no such file or directory"],
        PortErrorKind::NotFound,
        "kwbase, or the container it runs in, is not there: check program and exec_prefix",
    ),
    // A server got the request and failed in a way not listed here: what it did before is open.
    rule(&["rpc error"], PortErrorKind::Other, "the server failed"),
];

/// Makes the error of a command that ended with a failure. `command` is its name, such as `node decommission`.
pub fn classify(host: &HostName, command: &str, output: &CommandOutput) -> PortError {
    let (kind, says) = kind_of(output);
    let all = output::last_lines(&format!("{}\n{}", output.stdout, output.stderr), 40);
    let error = output::diagnostics(&output.stderr).error;
    let first = error.as_deref().unwrap_or(&all).lines().next().unwrap_or_default().trim();
    let message = if says.is_empty() || matches!(kind, PortErrorKind::Config | PortErrorKind::Other) {
        let says = if says.is_empty() { "failed" } else { says };
        format!("kwbase {command} on {host}: {says} ({}): {first}", output.end)
    } else {
        format!("kwbase {command} on {host}: {says}")
    };
    let error = PortError::new(kind, message);
    if all.is_empty() { error } else { error.with_source(Said(all)) }
}

fn kind_of(output: &CommandOutput) -> (PortErrorKind, &'static str) {
    let diagnostics = output::diagnostics(&output.stderr);
    // kwbase prints its whole help above some errors: where there is an error, only that counts.
    let text = match &diagnostics.error {
        Some(error) => [
            Some(error),
            diagnostics.sqlstate.as_ref(),
            diagnostics.detail.as_ref(),
            diagnostics.hint.as_ref(),
        ]
        .into_iter()
        .flatten()
        .map(|s| s.to_lowercase())
        .collect::<Vec<_>>()
        .join("\n"),
        None => format!("{}\n{}", output.stdout, output.stderr).to_lowercase(),
    };
    match output.end {
        // The shell's and the container engines' codes for a program that is not there or may not run.
        CommandEnd::Exit(126 | 127) => {
            return (
                PortErrorKind::NotFound,
                "the program is not there or may not be run: check program and exec_prefix",
            );
        }
        CommandEnd::Signal(_) => return (PortErrorKind::Other, "the command was ended from outside"),
        CommandEnd::Exit(_) => {}
    }
    let unknown_row =
        diagnostics.error.as_ref().is_some_and(|e| e.starts_with("node ") && e.ends_with("doesn't exist"));
    if unknown_row {
        return (
            PortErrorKind::UnknownNode,
            "the node is not among those that plain node status shows: it never joined, or it is removed",
        );
    }
    let rule = RULES.iter().find(|r| r.any.iter().any(|needle| text.contains(needle)));
    rule.map_or((PortErrorKind::CommandFailed, ""), |r| (r.kind, r.says))
}
