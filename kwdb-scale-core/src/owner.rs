//! Who owns a node's process, and stopping and starting it through its owner.
//!
//! A process that a service manager started is stopped by that manager: otherwise it is started again at once, or at
//! the next boot. Stopping is one command on the leaving host, so that nothing comes between the questions and the
//! act: it first asks a survivor, through kwbase, whether the node's bit is set and whether it holds no replica, and
//! looks whether the process is that node's; only then it stops the unit or container, disables it, and looks whether
//! the process is gone. The answer is read line by line; an answer without its end counts for nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::host_facts::{flag_values, same_path, store_path};
use crate::kwbase::{CommandLine, KwbaseHost, Security, advertised, quote, with_port};
use crate::ports::{PortError, PortErrorKind};
use crate::topology::{Address, HostName, Locality, NodeId, StartMode};

/// What starts and stops the process of a node.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// Nobody: started with `kwbase start --background`, stopped with `kwbase quit`.
    #[default]
    Quit,
    /// A unit of systemd.
    Systemd {
        /// Its name, such as `kaiwudb`.
        unit: String,
    },
    /// A container that a person made.
    Container {
        /// `docker` or `podman`.
        engine: String,
        /// The container's name.
        name: String,
    },
}

impl Owner {
    /// Whether it is nobody.
    pub fn is_quit(&self) -> bool {
        *self == Self::Quit
    }

    /// Checks that the names can stand on a command line. The error is field, reason and cure.
    pub fn check(&self) -> Result<(), [String; 3]> {
        let names: &[(&str, &String)] = match self {
            Self::Quit => &[],
            Self::Systemd { unit } => &[("owner.systemd.unit", unit)],
            Self::Container { engine, name } => {
                &[("owner.container.engine", engine), ("owner.container.name", name)]
            }
        };
        for (field, text) in names {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-@:/".contains(c);
            if text.is_empty() || text.starts_with('-') || !text.chars().all(plain) {
                let reason = format!("'{}' is no name of one", text.escape_debug());
                return Err([(*field).to_owned(), reason, "write its name".to_owned()]);
            }
        }
        Ok(())
    }

    /// Whether paths on its command line are those of the host's description: those of a container are where a prefix
    /// leads into it.
    pub(crate) fn has_paths_of_host(&self, prefix: bool) -> bool {
        prefix || !matches!(self, Self::Container { .. })
    }

    /// The name of the unit or container.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Quit => None,
            Self::Systemd { unit } => Some(unit),
            Self::Container { name, .. } => Some(name),
        }
    }

    /// The first three arguments of the scripts.
    fn arguments(&self) -> [String; 3] {
        let text = str::to_owned;
        match self {
            Self::Quit => [text("quit"), String::new(), String::new()],
            Self::Systemd { unit } => [text("systemd"), unit.clone(), String::new()],
            Self::Container { engine, name } => [text("container"), name.clone(), engine.clone()],
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quit => f.write_str("nobody"),
            Self::Systemd { unit } => write!(f, "unit {unit}"),
            Self::Container { name, .. } => write!(f, "container {name}"),
        }
    }
}

/// What both scripts begin with.
const COMMON: &str = include_str!("owner/common.sh");
/// What would start a container again; the look at a host asks it, too.
pub(crate) const RETURNS: &str = include_str!("owner/returns.sh");
/// Looks, asks, stops, disables, looks again.
const STOP: &str = include_str!("owner/stop.sh");
/// Tells of the unit or container without changing it, or starts it.
const START: &str = include_str!("owner/start.sh");

/// What is asked of a survivor before a stop, and of whom.
#[derive(Clone, Debug)]
pub(crate) struct Guard<'a> {
    pub(crate) node: NodeId,
    pub(crate) address: &'a Address,
    /// `node status ID --decommission --format=csv` of the node, through a survivor.
    pub(crate) status: &'a CommandLine,
    /// `node decommission ID --wait=none --format=csv` of it, through the same.
    pub(crate) count: &'a CommandLine,
    /// What a container gets to end by itself, in seconds.
    pub(crate) grace: u64,
}

fn script(parts: &[&str], arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let fixed = ["sh".to_owned(), "-c".to_owned(), parts.concat(), "kwdb-scale".to_owned()];
    fixed.into_iter().chain(arguments).collect()
}

/// The command line that stops a node through its owner, and the environment of it.
pub(crate) fn stop(owner: &Owner, guard: &Guard<'_>) -> (Vec<String>, BTreeMap<String, String>) {
    let more = [
        guard.node.0.to_string(),
        guard.address.to_string(),
        // The script gives these to `eval`: what the one quoting function made means exactly the argv.
        quote::line(guard.status.argv()),
        quote::line(guard.count.argv()),
        guard.grace.to_string(),
    ];
    let argv = script(&[COMMON, RETURNS, STOP], owner.arguments().into_iter().chain(more));
    (argv, guard.status.env().clone())
}

/// The command line that tells of a unit or container, and starts it when `act`.
pub(crate) fn start(owner: &Owner, act: bool, settle: u64) -> Vec<String> {
    let more = [if act { "start" } else { "look" }.to_owned(), settle.to_string()];
    script(&[COMMON, START], owner.arguments().into_iter().chain(more))
}

/// One line of an answer.
fn lines(stdout: &str) -> Vec<(&str, &str)> {
    let line = |l: &str| -> Option<(usize, usize)> {
        let rest = l.strip_prefix("kwdb-scale ")?;
        let word = rest.split(' ').next().unwrap_or_default();
        Some(("kwdb-scale ".len(), word.len()))
    };
    stdout
        .lines()
        .filter_map(|l| {
            let (from, length) = line(l)?;
            Some((l.get(from..from + length)?, l.get(from + length..)?.trim()))
        })
        .collect()
}

/// What a stop through the owner came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct StopReport {
    /// Whether it was down before.
    pub(crate) was_down: bool,
    /// The restart policy that a container keeps, because its engine cannot change it. Nothing goes by it at a boot.
    pub(crate) kept: Option<String>,
}

/// Reads the answer of the stop script.
pub(crate) fn read_stop(host: &HostName, owner: &Owner, stdout: &str) -> Result<StopReport, PortError> {
    let said = lines(stdout);
    let fail = |kind, what: String| Err(PortError::new(kind, format!("{owner} on {host}: {what}")));
    let mut report = StopReport { was_down: false, kept: None };
    let mut ended = false;
    for (word, rest) in said {
        match word {
            "down" => report.was_down = true,
            "kept" => report.kept = Some(rest.to_owned()),
            // Nothing was done.
            "absent" => {
                return fail(PortErrorKind::NotFound, format!("there is none ({rest}); check its name"));
            }
            "unclear" => return fail(PortErrorKind::CommandFailed, format!("nothing was stopped: {rest}")),
            "passing" => {
                return fail(PortErrorKind::ShuttingDown, format!("nothing was stopped: it is {rest}"));
            }
            "unasked" => return fail(PortErrorKind::Unreachable, format!("nothing was stopped: {rest}")),
            "refused" => return fail(PortErrorKind::Denied, format!("nothing was stopped: {rest}")),
            // It was stopped, or an attempt was made.
            "failed" => return fail(PortErrorKind::CommandFailed, rest.to_owned()),
            "end" => ended = true,
            _ => {}
        }
    }
    if ended {
        return Ok(report);
    }
    fail(
        PortErrorKind::Other,
        "the answer of the stop was cut off, so whether it was stopped is open".to_owned(),
    )
}

/// What there is to know of a unit or container before it is started.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Found {
    /// Its process, 0 when there is none.
    pub(crate) pid: Option<u32>,
    /// The command line that it would run.
    pub(crate) command: String,
}

/// Reads the answer of the start script: what was found, or, after a start, the process that runs.
pub(crate) fn read_start(host: &HostName, owner: &Owner, stdout: &str) -> Result<Found, PortError> {
    let mut found = Found::default();
    let mut ended = false;
    let fail = |kind, what: String| Err(PortError::new(kind, format!("{owner} on {host}: {what}")));
    for (word, rest) in lines(stdout) {
        match word {
            "pid" => found.pid = rest.parse().ok(),
            "command" => rest.clone_into(&mut found.command),
            "absent" => {
                return fail(PortErrorKind::NotFound, format!("there is none ({rest}); check its name"));
            }
            "failed" => return fail(PortErrorKind::CommandFailed, rest.to_owned()),
            "end" => ended = true,
            _ => {}
        }
    }
    if ended { Ok(found) } else { fail(PortErrorKind::Other, "its answer was cut off".to_owned()) }
}

/// The command line with which a unit or container starts its node, as far as a change depends on it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct StartLine {
    /// The sub-command of kwbase; `None` where none stands there, as in a unit that runs a script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_mode: Option<StartMode>,
    /// The addresses of `--join`, as they are written.
    pub join: Vec<Address>,
    /// Paths of `--store`.
    pub stores: Vec<String>,
    /// `--insecure`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// `--certs-dir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certs_dir: Option<String>,
    /// What `--advertise-addr` and `--listen-addr` amount to; `None` where neither names a host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// `--locality`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// Whether a word of it is a variable, such as `$KAIWUDB_START_ARG` in the unit of KWDB's installer: it may stand for more
    /// flags.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_variables: bool,
}

/// What the node that a unit or container starts must be, by the description of its host. A plan and the start both hold
/// the command line against it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Described {
    /// Paths of `--store`. None where the paths of the command line are not those of the description, as of a container
    /// that no prefix leads into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<String>,
    /// `--certs-dir`; none on an insecure host, and where there are no stores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certs_dir: Option<String>,
    /// The address at which others reach the node; `None` where its machine's name is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// `--listen-addr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_addr: Option<Address>,
    /// `--locality`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
}

impl Described {
    /// What a unit or container of `host` must start.
    pub(crate) fn of(host: &KwbaseHost) -> Self {
        let has_paths = host.owner.has_paths_of_host(!host.exec_prefix.is_empty());
        let stores = host.stores.iter().filter(|_| has_paths);
        Self {
            stores: stores.map(|s| s.path.clone()).collect(),
            certs_dir: match &host.security {
                Security::Certs { certs_dir } if has_paths => Some(certs_dir.clone()),
                _ => None,
            },
            address: host.rpc_address(),
            listen_addr: host.listen_addr.clone(),
            locality: host.locality.clone().filter(|l| !l.tiers().is_empty()),
        }
    }

    /// Whether nobody else can be met at an address: it is the node's own, or none that can be dialled.
    fn is_own(&self, address: &Address) -> bool {
        let wanted = with_port(address);
        let own = [&self.address, &self.listen_addr];
        matches!(wanted.0.as_str(), "" | "0.0.0.0" | "::")
            || own.into_iter().flatten().any(|own| with_port(own) == wanted)
    }
}

impl StartLine {
    /// Reads what systemd tells of `ExecStart`, or an engine of a container's path and arguments as JSON. `None`
    /// where that is nothing.
    pub(crate) fn read(command: &str) -> Option<Self> {
        let words: Vec<&str> = command
            .split(|c: char| c.is_whitespace() || "{}\";'\\".contains(c))
            // What is left of a JSON list between its words. An address may begin with a bracket.
            .filter(|word| !word.chars().all(|c| "[],".contains(c)))
            .collect();
        let modes = [StartMode::MultiReplica, StartMode::SingleReplica, StartMode::SingleNode];
        let values = |flags: &[&str]| flag_values(&words, flags);
        let one = |flag: &str| values(&[flag]).pop();
        let join = values(&["--join", "-j"]);
        let at = |flag: &str| one(flag).map(Address::new);
        let address = advertised(at("--advertise-addr").as_ref(), at("--listen-addr").as_ref());
        (!words.is_empty()).then(|| Self {
            stores: values(&["--store", "-s"]).iter().map(|spec| store_path(spec)).collect(),
            insecure: words.iter().any(|w| matches!(*w, "--insecure" | "--insecure=true")),
            certs_dir: one("--certs-dir"),
            address,
            locality: one("--locality").map(Locality::from),
            has_variables: words.iter().any(|w| w.starts_with('$')),
            start_mode: words.iter().find_map(|w| modes.iter().find(|m| m.as_str() == *w)).cloned(),
            join: join
                .iter()
                .flat_map(|v| v.split(','))
                .filter(|v| !v.is_empty())
                .map(Address::new)
                .collect(),
        })
    }

    /// Why the node that a unit or container starts by its command line, where that is told, would not be the one that
    /// is described, or none of the cluster, and the cure. `mode` is `None` where it is not known; `nobody` tells of an
    /// address whether it is known that no member lives there.
    pub(crate) fn fault(
        line: Option<&Self>,
        described: &Described,
        secure: bool,
        mode: Option<&StartMode>,
        nobody: impl Fn(&Address) -> bool,
    ) -> Option<(String, &'static str)> {
        match line {
            Some(line) => {
                line.differs(described, secure, mode).or_else(|| line.joins_nobody(described, nobody))
            }
            None => {
                Some(("does not tell its command line".to_owned(), "name the unit or container of the node"))
            }
        }
    }

    /// Whether a shell takes the command as a text: what is appended to the line then is not kwbase's.
    pub(crate) fn in_shell(command: &str) -> bool {
        const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "ksh", "zsh"];
        let mut words = command.split_whitespace().take_while(|word| !word.ends_with("kwbase"));
        words.any(|word| word.rsplit('/').next().is_some_and(|name| SHELLS.contains(&name)))
    }

    /// Why its node would not be the one that is described, whatever it joins, and the cure. `mode` is `None` where it is
    /// not known.
    pub(crate) fn differs(
        &self,
        described: &Described,
        secure: bool,
        mode: Option<&StartMode>,
    ) -> Option<(String, &'static str)> {
        const SAME: &str = "correct its command line, or the description of the host";
        if let Some(mode) = mode
            && self.start_mode.as_ref() != Some(mode)
        {
            let what = format!("does not run kwbase {mode}, as the cluster does");
            return Some((what, "correct its command line"));
        }
        if self.insecure == secure {
            let (runs, is) = if self.insecure { ("with", "secure") } else { ("without", "insecure") };
            return Some((format!("runs kwbase {runs} --insecure, and the host is described as {is}"), SAME));
        }
        let known = &described.stores;
        if !known.is_empty() {
            // What lies in another store was not looked at.
            let other = self.stores.iter().find(|store| !known.iter().any(|k| same_path(k, store)));
            let told = match other {
                Some(other) => Some(format!("has --store={other}")),
                None => self.stores.is_empty().then(|| "has no --store".to_owned()),
            };
            if let Some(told) = told {
                return Some((format!("{told}, and the host is described with {}", known.join(", ")), SAME));
            }
        }
        if let (Some(own), Some(known)) = (&self.certs_dir, &described.certs_dir)
            && !same_path(own, known)
        {
            return Some((format!("has --certs-dir={own}, and the host is described with {known}"), SAME));
        }
        if let (Some(own), Some(known)) = (&self.address, &described.address)
            && differ(own, known)
        {
            return Some((format!("advertises {own}, and the host is described at {known}"), SAME));
        }
        if let Some(known) = &described.locality
            && self.locality.as_ref() != Some(known)
            && (self.locality.is_some() || !self.has_variables)
        {
            let told = self
                .locality
                .as_ref()
                .map_or_else(|| "no --locality".to_owned(), |l| format!("--locality={l}"));
            return Some((format!("has {told}, and the host is described with {known}"), SAME));
        }
        None
    }

    /// Why its node would join nobody, and the cure.
    fn joins_nobody(
        &self,
        described: &Described,
        nobody: impl Fn(&Address) -> bool,
    ) -> Option<(String, &'static str)> {
        const JOIN: &str = "add --join with live members to its command line";
        if self.join.is_empty() {
            return Some((
                "has no --join, so that its node would found a cluster of its own".to_owned(),
                JOIN,
            ));
        }
        let all = self.join.iter().map(Address::as_str).collect::<Vec<_>>().join(",");
        let alone = |address: &Address| described.is_own(address) || nobody(address);
        self.join.iter().all(alone).then(|| {
            (format!("has --join={all}, where no member lives: its node would wait for one for ever"), JOIN)
        })
    }
}

/// Whether two addresses are surely not one: a name may stand for any number.
fn differ(a: &Address, b: &Address) -> bool {
    let ((a, a_port), (b, b_port)) = (with_port(a), with_port(b));
    let number = |host: &str| host.parse::<IpAddr>().ok().filter(|ip| !ip.is_unspecified());
    a_port != b_port || number(&a).zip(number(&b)).is_some_and(|(a, b)| a != b)
}

/// Refuses a unit or container whose own command line, as [`StartLine::read`] takes it, would not make a node join.
pub(crate) fn fits(host: &KwbaseHost, mode: &StartMode, command: &str) -> Result<(), PortError> {
    let line = StartLine::read(command);
    // Who lives now only a plan knows.
    let fault = StartLine::fault(line.as_ref(), &Described::of(host), host.secure(), Some(mode), |_| false);
    match fault {
        None => Ok(()),
        Some((what, cure)) => Err(PortError::new(
            PortErrorKind::Config,
            format!("{} on {} {what}; nothing was started; {cure}", host.owner, host.name),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kwbase::StoreSpec;

    fn host() -> HostName {
        HostName::new("n4")
    }

    fn unit() -> Owner {
        Owner::Systemd { unit: "kaiwudb".into() }
    }

    #[test]
    fn names_that_cannot_stand_on_a_command_line() {
        assert_eq!(unit().check(), Ok(()));
        for bad in ["", "-x", "a b", "a;b", "$(id)", "a\nb"] {
            let error = Owner::Systemd { unit: bad.to_owned() }.check().unwrap_err();
            assert_eq!(error[0], "owner.systemd.unit");
            assert!(Owner::Container { engine: "docker".into(), name: bad.to_owned() }.check().is_err());
        }
    }

    #[test]
    fn an_answer_without_its_end_counts_for_nothing() {
        for text in ["", "kwdb-scale stopped", "noise\n"] {
            let error = read_stop(&host(), &unit(), text).unwrap_err();
            assert!(error.kind().may_have_been_done(), "{text:?}");
        }
        assert!(!read_stop(&host(), &unit(), "kwdb-scale stopped\nkwdb-scale end\n").unwrap().was_down);
        let text = "kwdb-scale kept always\nkwdb-scale down\nkwdb-scale end\n";
        let report = read_stop(&host(), &unit(), text).unwrap();
        assert_eq!((report.was_down, report.kept.as_deref()), (true, Some("always")));
    }

    #[test]
    fn a_refusal_is_an_error_by_which_nothing_was_done() {
        let text = "kwdb-scale refused node 4 holds 7 replicas\nkwdb-scale end\n";
        let error = read_stop(&host(), &unit(), text).unwrap_err();
        assert!(!error.kind().may_have_been_done());
        assert!(error.to_string().contains("nothing was stopped: node 4 holds 7 replicas"), "{error}");
    }

    #[test]
    fn a_unit_that_would_not_join_is_refused() {
        let mut host = KwbaseHost::new("n4", Security::Insecure);
        host.listen_addr = Some("0.0.0.0:26257".into());
        host.advertise_addr = Some("10.0.0.4".into());
        host.owner = unit();
        host.stores = vec![StoreSpec::new("/d/")];
        host.ts_store = vec!["/ts".into()];
        let check = |command: &str| fits(&host, &StartMode::MultiReplica, command);
        for exec in [
            "{ path=/k ; argv[]=/k/kwbase start --insecure --store=/d --join 10.0.0.1:26257 ; ignore_errors=no }",
            "{ path=/k ; argv[]=/k/kwbase start --insecure --listen-addr=0.0.0.0 --advertise-addr=10.0.0.4 -s /d --join=10.0.0.4,[::1]:26258 ; ignore_errors=no }",
            r#""/k/kwbase" ["start","--insecure","--store=path=/d,attrs=ssd","--join=10.0.0.4:26257,10.0.0.1"]"#,
            r#""/bin/sh" ["-c","exec /k/kwbase start --insecure --store /d --join \"10.0.0.1\""]"#,
            "kwbase start --insecure --store=/d/ -j a:1",
        ] {
            check(exec).unwrap_or_else(|e| panic!("{exec}: {e}"));
        }
        let mut placed = host.clone();
        placed.locality = Some("region=a,zone=b".into());
        let check_placed = |flags: &str| {
            let command = format!("kwbase start --insecure --store=/d -j a:1 {flags}");
            fits(&placed, &StartMode::MultiReplica, &command)
        };
        // A variable may have it in it.
        for flags in ["--locality=region=a,zone=b", "--locality region=a,zone=b", "$MORE", "${MORE}"] {
            check_placed(flags).unwrap_or_else(|e| panic!("{flags}: {e}"));
        }
        for (flags, words) in [
            ("", "has no --locality, and the host is described with region=a,zone=b"),
            (
                "--locality=region=zzz",
                "has --locality=region=zzz, and the host is described with region=a,zone=b",
            ),
            ("$MORE --locality=region=a", "has --locality=region=a,"),
        ] {
            let error = check_placed(flags).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
        check("kwbase start --insecure --store=/d -j a:1 --locality=region=zzz").unwrap();
        for (command, words) in [
            ("", "does not tell"),
            ("kwbase start-single-replica --join a:1", "does not run kwbase start"),
            ("kwbase start --insecure --store=/d", "no --join"),
            ("kwbase start --store=/d -j a:1", "without --insecure"),
            ("kwbase start --insecure -j a:1", "has no --store"),
            ("kwbase start --insecure -s /e -j a:1", "has --store=/e"),
            ("kwbase start --insecure -s /d -s /ts -j a:1", "has --store=/ts"),
            ("kwbase start --insecure -s /d -j [::]:26257", "--join=[::]:26257, where no member lives"),
            (
                "kwbase start --insecure -s /d --listen-addr=10.0.0.9:26257 -j a:1",
                "advertises 10.0.0.9:26257",
            ),
            (
                "{ argv[]=/k/kwbase start --insecure -s /d --join 10.0.0.4:26257 --join=0.0.0.0:26257 ; }",
                "--join=10.0.0.4:26257,0.0.0.0:26257",
            ),
        ] {
            let error = check(command).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
