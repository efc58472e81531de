//! What `deploy.sh` prints, taken apart.
//!
//! The script ends with exit code 0 and its usage when it does not understand its command line, with 0 when it has
//! only begun, and puts its errors on standard output. So a run counts as done only when it ended with 0 **and**
//! printed the marker of its command, such as `[JOIN COMPLETED]:`; anything else is a failure, or unknown.

use std::fmt;

use super::ARCHIVE;
use crate::kwbase::error;
use crate::kwbase::output::{clean, last_lines};
use crate::ports::{CommandEnd, CommandOutput, PortError, PortErrorKind};
use crate::topology::HostName;

/// Lines of an output that are shown.
const LINES: usize = 6;

/// A sub-command of `deploy.sh` that scaling uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ScriptCommand {
    /// `join --addr IP:PORT [--tls]`.
    Join,
    /// `decommission`.
    Decommission,
    /// `status`.
    Status,
}

impl ScriptCommand {
    /// The word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Decommission => "decommission",
            Self::Status => "status",
        }
    }

    /// What stands before the last line of a run that came to its end.
    pub fn marker(self) -> &'static str {
        match self {
            Self::Join => "[JOIN COMPLETED]:",
            Self::Decommission => "[DECOMMISSION COMPLETED]:",
            Self::Status => "[STATUS COMPLETED]:",
        }
    }
}

impl fmt::Display for ScriptCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "deploy.sh {}", self.word())
    }
}

/// A run's output without colours.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ScriptOutput {
    /// What follows the marker of the command, when it was printed.
    pub completed: Option<String>,
    /// Texts of ` [ERROR] date time …`, in order.
    pub errors: Vec<String>,
    /// Texts of ` [WARN] date time …`.
    pub warnings: Vec<String>,
    /// Whether the script printed its usage instead of doing anything.
    pub usage: bool,
    /// The last lines, for a person.
    pub last: String,
}

/// Takes the output of a run of `command` apart.
pub fn read(command: ScriptCommand, text: &str) -> ScriptOutput {
    let clean = clean(text);
    let mut output = ScriptOutput { last: last_lines(text, LINES), ..ScriptOutput::default() };
    for line in clean.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix(command.marker()) {
            output.completed = Some(rest.trim().to_owned());
        } else if let Some(rest) = line.strip_prefix("[ERROR]") {
            output.errors.push(undated(rest).to_owned());
        } else if let Some(rest) = line.strip_prefix("[WARN]") {
            output.warnings.push(undated(rest).to_owned());
        } else if line == "Usage:" {
            output.usage = true;
        } else if matches!(line, "Invalid parameter" | "Miss option --addr") {
            output.errors.push(line.to_owned());
        }
    }
    output
}

/// Without the date and the time that `log_err` puts before its text.
fn undated(text: &str) -> &str {
    let text = text.trim();
    let mut words = text.splitn(3, ' ');
    let numeric = |word: Option<&str>, sign: char| {
        word.is_some_and(|w| w.contains(sign) && w.chars().all(|c| c.is_ascii_digit() || c == sign))
    };
    if numeric(words.next(), '-') && numeric(words.next(), ':') {
        words.next().unwrap_or_default().trim()
    } else {
        text
    }
}

/// Why a run of `deploy.sh` did not do what it should.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DeployError {
    /// There is no `kaiwudb.service`.
    #[error("KWDB is not installed by the script there (no kaiwudb.service); run deploy.sh install first")]
    NotInstalled,
    /// `join` on a host on which KWDB runs.
    #[error("KWDB runs there already; stop it first, or take another host")]
    AlreadyRunning,
    /// `decommission` on a host on which it does not.
    #[error(
        "KWDB does not run there, and deploy.sh decommission works only on a running node; start it, or give the \
         host the method kwbase, which marks dead nodes too"
    )]
    NotRunning,
    /// Line 2 of MODE.
    #[error(
        "the installation's mode cannot join a cluster; install with --multi-replica or --single-replica"
    )]
    ModeNotSupported,
    /// The script did not take the address.
    #[error("the script did not take the address to join ({0}); it takes only an IPv4 address and a port")]
    Address(String),
    /// There is no archive, or it could not be used.
    #[error("the certificates could not be made: {0}{cure}", cure = put_it_there(.0))]
    Certificates(String),
    /// The service did not start, or did not answer in time.
    #[error("the node did not start or did not answer in time ({0}); see the logs of the node")]
    Start(String),
    /// It runs and does not answer.
    #[error(
        "the node runs, and had not joined when the script looked ({0}); the cluster tells whether it does"
    )]
    NotJoinedYet(String),
    /// kwbase did not mark the nodes.
    #[error("the node could not be marked: {0}")]
    Decommission(String),
    /// The node did not answer when the script asked it for its number, and the script took the error for the number.
    #[error(
        "the node did not answer the script, which asked it for its number by kwbase node status; nothing was marked; see \
         whether the node answers, and try again"
    )]
    NumberUntold,
    /// The sudo password.
    #[error(
        "the script could not use sudo ({0}); let the user run sudo without a password, or run commands as root (the \
         script gives sudo one second to tell that it wants none)"
    )]
    Sudo(String),
    /// It could not write its error into its log, and then prints none.
    #[error(
        "the script failed and does not say why, because it could not write to its log {0}; remove that file, which may \
         be of another user's run today, or let the user of deploy.sh write there, and try again to learn the reason"
    )]
    Unlogged(String),
    /// The script printed its usage, with exit code 0.
    #[error("the script did not understand its command line and did nothing; is it a deploy.sh of KWDB?")]
    Usage,
    /// Another `[ERROR]`.
    #[error("{0}")]
    Failed(String),
    /// No marker and no error: it may have been done.
    #[error("the script ended with {end} without saying that it is done: {last}")]
    NoMarker {
        /// How it ended.
        end: CommandEnd,
        /// Its last lines.
        last: String,
    },
}

impl DeployError {
    /// What to decide by.
    pub fn kind(&self) -> PortErrorKind {
        match self {
            Self::NotInstalled => PortErrorKind::NotFound,
            Self::AlreadyRunning
            | Self::NotRunning
            | Self::ModeNotSupported
            | Self::Address(_)
            | Self::Certificates(_)
            | Self::Usage => PortErrorKind::Config,
            Self::Sudo(_) => PortErrorKind::Denied,
            Self::Start(_) | Self::Decommission(_) | Self::Failed(_) | Self::Unlogged(_) => {
                PortErrorKind::CommandFailed
            }
            Self::NumberUntold => PortErrorKind::Unreachable,
            Self::NotJoinedYet(_) | Self::NoMarker { .. } => PortErrorKind::Other,
        }
    }

    /// As the error of a port. What kwbase said inside keeps the kind that it has there.
    pub fn on(self, host: &HostName, command: ScriptCommand) -> PortError {
        if let Self::Decommission(text) = &self {
            let said = CommandOutput {
                end: CommandEnd::Exit(1),
                stdout: String::new(),
                stderr: text.clone(),
                truncated: false,
            };
            let inner = error::classify(host, "node decommission", &said);
            return PortError::new(inner.kind(), format!("{command} on {host}: {inner}"))
                .with_source(Box::new(self));
        }
        PortError::new(self.kind(), format!("{command} on {host}: {self}"))
    }
}

/// What helps where there is no archive. What kwbase says of the certificates names its own reason.
fn put_it_there(why: &str) -> &'static str {
    let absent = why.contains(ARCHIVE) && why.contains("No such file");
    if absent { "; put kaiwudb_certs.tar.gz with ca.crt and ca.key there" } else { "" }
}

/// The script's own words, and what they mean.
fn known(command: ScriptCommand, text: &str) -> DeployError {
    let has = |words: &str| text.contains(words);
    let text = || text.to_owned();
    if has("does not exist. Please install KaiwuDB first") {
        DeployError::NotInstalled
    } else if has("already running") {
        DeployError::AlreadyRunning
    } else if has("is not running") {
        DeployError::NotRunning
    } else if has("mode is not supported") {
        DeployError::ModeNotSupported
    } else if has("Invalid parameter") || has("Miss option --addr") {
        DeployError::Address(text())
    } else if has("Incorrect password") || has("Can not use command: 'sudo bash'") {
        DeployError::Sudo(text())
    } else if has("Start KaiwuDB failed") {
        DeployError::Start(text())
    } else if has("Join to cluster failed") {
        DeployError::NotJoinedYet(text())
    } else if let Some((_, why)) =
        text().split_once("Join failed:").filter(|_| command == ScriptCommand::Join)
    {
        DeployError::Certificates(why.trim().to_owned())
    } else if let Some((_, why)) = text().split_once("Decommission from cluster failed:") {
        // It gives kwbase no other words than numbers.
        if why.contains("unable to parse") && why.contains("strconv.ParseInt") {
            DeployError::NumberUntold
        } else {
            DeployError::Decommission(why.trim().to_owned())
        }
    } else {
        DeployError::Failed(text())
    }
}

/// Judges a run: its words after the marker, or why it does not count.
pub fn judge(command: ScriptCommand, end: CommandEnd, text: &str) -> Result<String, DeployError> {
    let output = read(command, text);
    if let Some(error) = output.errors.last() {
        return Err(known(command, error));
    }
    match (output.completed, unlogged(text)) {
        (Some(words), _) if end.success() => Ok(words),
        _ if output.usage => Err(DeployError::Usage),
        (None, Some(file)) => Err(DeployError::Unlogged(file)),
        _ => Err(DeployError::NoMarker { end, last: output.last }),
    }
}

/// The day's log, of which the shell says that it could not be opened. The script prints an error only after it has
/// written it there.
fn unlogged(text: &str) -> Option<String> {
    let clean = clean(text);
    let of_a_day = |part: &&str| {
        let date = part.rsplit_once("/log/").map(|(_, name)| name);
        date.is_some_and(|d| d.len() == 10 && d.chars().all(|c| c.is_ascii_digit() || c == '-'))
    };
    clean.lines().flat_map(|line| line.split(": ")).find(of_a_day).map(str::to_owned)
}

/// The content of `decommission_progress`: a number of replicas, for display. The script writes `0` on any failure
/// too, and leaves the file of an earlier run lying, so it is never believed.
pub fn progress(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLANKS: &str =
        "                                                                                  \r";
    const OK: CommandEnd = CommandEnd::Exit(0);

    fn red(text: &str) -> String {
        format!("{BLANKS}\u{1b}[31m [ERROR] 2026-11-23 12:57:07 {text} \u{1b}[0m\n")
    }

    fn error(command: ScriptCommand, text: &str) -> DeployError {
        judge(command, CommandEnd::Exit(1), &red(text)).unwrap_err()
    }

    #[test]
    fn a_marker_in_colour_and_exit_code_zero() {
        let text =
            "\u{1b}[1;32m[JOIN COMPLETED]:\u{1b}[0mNode has been joined to the cluster successfully.\n";
        let words = "Node has been joined to the cluster successfully.";
        assert_eq!(judge(ScriptCommand::Join, OK, text), Ok(words.to_owned()));
        // Neither half is enough.
        assert!(matches!(
            judge(ScriptCommand::Join, CommandEnd::Exit(1), text),
            Err(DeployError::NoMarker { .. })
        ));
        assert!(matches!(judge(ScriptCommand::Join, OK, "all is well\n"), Err(DeployError::NoMarker { .. })));
        // The marker of another command is none.
        assert!(judge(ScriptCommand::Decommission, OK, text).is_err());
    }

    #[test]
    fn status_is_told_in_words() {
        for text in ["KaiwuDB is runnning now.", "KaiwuDB is not runnning."] {
            let line = format!("\u{1b}[1;32m[STATUS COMPLETED]:\u{1b}[0m{text}\n");
            assert_eq!(judge(ScriptCommand::Status, OK, &line), Ok(text.to_owned()));
        }
    }

    #[test]
    fn usage_with_exit_code_zero_is_a_failure() {
        let usage = "Usage:\n  deploy.sh Commands [Options]\n\nCommands:\n  install                  Install KaiwuDB\n";
        assert_eq!(judge(ScriptCommand::Join, OK, usage), Err(DeployError::Usage));
    }

    #[test]
    fn errors_on_standard_output_are_typed() {
        use ScriptCommand::{Decommission, Join};
        let e = error(Join, "KaiwuDB does not exist. Please install KaiwuDB first.");
        assert_eq!(e, DeployError::NotInstalled);
        assert_eq!(error(Join, "KaiwuDB already running."), DeployError::AlreadyRunning);
        let e = error(Decommission, "KaiwuDB is not running, please start KaiwuDB first.");
        assert_eq!(e, DeployError::NotRunning);
        let e = error(Join, "The current mode is not supported join a cluster.");
        assert_eq!(e, DeployError::ModeNotSupported);
        let e = error(Join, "Join failed: /opt/x/kaiwudb_certs.tar.gz: No such file.");
        assert_eq!(e, DeployError::Certificates("/opt/x/kaiwudb_certs.tar.gz: No such file.".into()));
        assert!(e.to_string().ends_with("there"), "{e}");
        let e = error(Join, "Join failed: ERROR: open /etc/kaiwudb/certs/node.crt: permission denied");
        assert!(e.to_string().ends_with("permission denied"), "{e}");
        let e = error(Join, "Start KaiwuDB failed. For more information, check kwbase's log.");
        assert!(matches!(e, DeployError::Start(_)));
        let e = error(Join, "Join to cluster failed. For more information, check kwbase's log.");
        assert_eq!(e.kind(), PortErrorKind::Other);
        let e = judge(Join, CommandEnd::Exit(1), "Invalid parameter\n").unwrap_err();
        assert_eq!(e, DeployError::Address("Invalid parameter".into()));
        let wrong = "\n\u{1b}[31m[ERROR]\u{1b}[0m Incorrect password.\n";
        let e = judge(Join, CommandEnd::Exit(1), wrong).unwrap_err();
        assert_eq!(e.kind(), PortErrorKind::Denied);
    }

    #[test]
    fn an_error_that_could_not_be_logged_is_not_printed() {
        for why in ["Permission denied", "No such file or directory"] {
            let text =
                format!("{BLANKS}/opt/k/utils/kaiwudb_log.sh: line 77: /opt/k/log/2026-11-27: {why}\n");
            let e = judge(ScriptCommand::Join, CommandEnd::Exit(1), &text).unwrap_err();
            assert_eq!(e, DeployError::Unlogged("/opt/k/log/2026-11-27".into()));
        }
        let text = "kwbase: /var/log/kaiwudb.log: Permission denied\n";
        let e = judge(ScriptCommand::Join, CommandEnd::Exit(1), text).unwrap_err();
        assert!(matches!(e, DeployError::NoMarker { .. }), "{e}");
    }

    #[test]
    fn what_kwbase_said_inside_keeps_its_kind() {
        let e = error(
            ScriptCommand::Decommission,
            "Decommission from cluster failed: ERROR: rpc error: code = Unknown desc = node cannot be decommissioned \
             in mpp mode Failed running \"node decommission\"",
        );
        let e = e.on(&HostName::new("n4"), ScriptCommand::Decommission);
        assert_eq!(e.kind(), PortErrorKind::SingleReplica, "{}", e.chain());
        let e = error(
            ScriptCommand::Decommission,
            "Decommission from cluster failed: ERROR: requires at least 1 arg(s), only received 0 Failed running \
             \"node decommission\"",
        );
        let e = e.on(&HostName::new("n4"), ScriptCommand::Decommission);
        assert_eq!(e.kind(), PortErrorKind::Config, "{}", e.chain());
    }

    #[test]
    fn an_error_that_the_script_took_for_a_number() {
        let text = "Decommission from cluster failed: ERROR: unable to parse ERROR:: strconv.ParseInt: parsing \"ERROR:\": \
                    invalid syntax Failed running \"node decommission\" bash: line 2: Is: command not found bash: line 6: \
                    Failed: command not found";
        let e = error(ScriptCommand::Decommission, text);
        assert_eq!(e, DeployError::NumberUntold);
        let e = e.on(&HostName::new("n4"), ScriptCommand::Decommission);
        assert!(!e.kind().may_have_been_done() && e.kind().is_transient(), "{e}");
    }

    #[test]
    fn progress_is_a_number_or_nothing() {
        assert_eq!(progress("17\n"), Some(17));
        assert_eq!(progress("NULL\n"), None);
        assert_eq!(progress(""), None);
    }
}
