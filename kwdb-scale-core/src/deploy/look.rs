//! What an installation looks like before the script is run. It changes nothing, and is a part of the one look at a host;
//! by itself it is run again right before the script is.

use super::host::DeployHost;
use super::info::{self, InstallSecurity, Mode};
use super::{ARCHIVE, CERTS_DIR, UNIT};
use crate::certs::found::{self, Found};
use crate::fact::Fact;
use crate::host_facts::probe::Also;
use crate::host_facts::{InstallMethod, MODE_FILE, ScriptFacts};
use crate::kwbase::KwbaseHost;
use crate::owner::{Described, StartLine};
use crate::ports::{PortError, PortErrorKind};
use crate::topology::StartMode;

const SCRIPT: &str = include_str!("look.sh");

/// What was found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Installation {
    /// Root, or sudo without a password.
    privileged: bool,
    /// Root without sudo.
    no_sudo: bool,
    deploy_sh: bool,
    unit: bool,
    /// `ExecStart` of the unit's file, which the script changes; `None` where the file cannot be read.
    starts: Option<String>,
    /// What `$KAIWUDB_START_ARG` stands for; `None` where that could not be seen.
    start_arg: Option<String>,
    /// What systemd knows of it.
    shown: Option<String>,
    mode: Option<String>,
    pid: Option<u32>,
    /// Whether the directory of certificates is there.
    certs: bool,
    archive: Found,
    store_key: bool,
    terminal: bool,
    /// Whether the host knows the user who is to run kwbase.
    user: Option<bool>,
}

/// The look, for the probe or alone.
pub(super) fn also(host: &DeployHost, kwbase: &KwbaseHost) -> Also {
    let archive = if kwbase.secure() { host.ca_dir().trim_end_matches('/') } else { "" };
    let paths = [&host.install_dir, archive, &host.root].map(str::to_owned);
    Also { script: format!("{}{SCRIPT}", found::function()), arguments: paths.into() }
}

/// Reads the items of the answer; `None` when it was cut off.
pub(super) fn read<'a>(items: impl Iterator<Item = &'a str> + Clone) -> Option<Installation> {
    if items.clone().last() != Some("E") {
        return None;
    }
    let mut found = Installation { archive: Found::read(items.clone()), ..Installation::default() };
    for item in items {
        let mut rest = item.chars();
        let tag = rest.next();
        let value = rest.as_str();
        match tag {
            Some('S') => (found.privileged, found.no_sudo) = (value != "-", value == "0"),
            Some('D') => found.deploy_sh = value == "+",
            Some('I') => found.unit = value == "+",
            Some('L') => found.starts = Some(value.to_owned()),
            Some('V') => found.start_arg = Some(value.to_owned()),
            Some('N') => found.shown = Some(value.to_owned()),
            Some('W') => found.certs = value == "+",
            Some('M') => found.mode = Some(value.to_owned()),
            Some('P') => found.pid = value.parse().ok(),
            Some('K') => found.store_key = value == "+",
            Some('T') => found.terminal = value == "+",
            Some('H') => found.user = Some(value == "+"),
            _ => {}
        }
    }
    Some(found)
}

/// What is wrong with an installation.
type Fault = (PortErrorKind, String);

impl Installation {
    /// What the checks are told of it.
    pub(super) fn facts(&self, host: &DeployHost, kwbase: &KwbaseHost) -> ScriptFacts {
        let (mode, unusable) = self.faults(host);
        let unfit = mode.as_ref().map_or_else(Vec::new, |mode| self.unfit(mode, kwbase));
        let authority = match &self.archive {
            Found::Absent | Found::Unusable(_) => None,
            Found::Unknown(why) => Some(Fact::Unknown(why.clone())),
            Found::Of(ca) => Some(Fact::Known(ca.fingerprint.clone())),
        };
        ScriptFacts {
            unusable: unusable.into_iter().map(|(_, what)| what).collect(),
            unfit,
            archive: kwbase.secure().then_some(self.archive != Found::Absent),
            archive_fault: self.archive_fault(host),
            archive_authority: authority,
            address: mode.map(|mode| mode.host),
        }
    }

    /// Why the script cannot use the archive that lies there.
    fn archive_fault(&self, host: &DeployHost) -> Option<String> {
        match &self.archive {
            Found::Unusable(why) => Some(format!("{}/{ARCHIVE} {why}", host.ca_dir().trim_end_matches('/'))),
            Found::Absent | Found::Unknown(_) | Found::Of(_) => None,
        }
    }

    /// What the installer wrote, and why the script cannot be run.
    fn faults(&self, host: &DeployHost) -> (Option<Mode>, Vec<Fault>) {
        let mut faults = Vec::new();
        if !self.deploy_sh {
            let dir = &host.install_dir;
            let what = format!("{dir}/deploy.sh is not there or cannot be executed; correct install_dir");
            faults.push((PortErrorKind::NotFound, what));
        }
        if !self.unit {
            let what =
                "KWDB is not installed by the script there (no kaiwudb.service); run deploy.sh install first";
            faults.push((PortErrorKind::NotFound, what.to_owned()));
        }
        if !self.privileged {
            // The script would ask for the password, and then paste it into command lines.
            let what = "the user may not run sudo without a password, which the script needs; allow it, or run commands \
                        there as root";
            faults.push((PortErrorKind::Denied, what.to_owned()));
        }
        if self.no_sudo {
            let what = "there is no sudo, which the script calls for everything, as root too; install it";
            faults.push((PortErrorKind::NotFound, what.to_owned()));
        }
        let mode = match self.mode.as_deref().map(info::mode) {
            None => {
                faults.push((PortErrorKind::NotFound, format!("{MODE_FILE} cannot be read")));
                None
            }
            Some(Err(e)) => {
                faults.push((PortErrorKind::Malformed, e.to_string()));
                None
            }
            Some(Ok(mode)) => Some(mode),
        };
        if mode.as_ref().is_some_and(|mode| mode.method == InstallMethod::Container) && !self.terminal {
            let what = "it is a container installation, for which the script wants a terminal, and script(1) is not there \
                        to make one; install it (util-linux), or give the host the method kwbase with exec_prefix";
            faults.push((PortErrorKind::Unsupported, what.to_owned()));
        }
        if self.pid.is_none() {
            let what = format!("systemctl does not tell the process of {UNIT}; is it a host with systemd?");
            faults.push((PortErrorKind::NotFound, what));
        }
        (mode, faults)
    }

    /// What the installer wrote, when the script can be run at all.
    pub(super) fn usable(&self, host: &DeployHost) -> Result<Mode, PortError> {
        match self.faults(host) {
            (Some(mode), faults) if faults.is_empty() => Ok(mode),
            (_, faults) => {
                let (kind, what) = faults.into_iter().next().unwrap_or((PortErrorKind::Other, String::new()));
                Err(PortError::new(kind, format!("deploy.sh on {}: {what}", host.name)))
            }
        }
    }

    /// Whether the unit has a process.
    pub(super) fn runs(&self) -> bool {
        self.pid.is_some_and(|pid| pid != 0)
    }

    /// What keeps `join` from adding the node that is described, whatever runs there and lies there as yet.
    fn unfit(&self, mode: &Mode, kwbase: &KwbaseHost) -> Vec<String> {
        let mut faults = Vec::new();
        match (mode.security, kwbase.secure()) {
            (InstallSecurity::Insecure, false) | (InstallSecurity::Tls, true) => {}
            (InstallSecurity::Tlcp, _) => {
                faults.push("it is installed with tlcp, which this library does not know".to_owned());
            }
            // The script's start would wait for more than an hour.
            (_, secure) => {
                let (is, should) = if secure { ("insecure", "secure") } else { ("secure", "insecure") };
                faults.push(format!(
                    "it is installed {is} and the cluster is {should}, which join does not change: install it again"
                ));
            }
        }
        if kwbase.secure() && (self.store_key || mode.encrypted_store == Some(true)) {
            faults.push(
                "its store is encrypted, and the script would delete the key (sm4.key) with the certificates: give the host \
                 the method kwbase"
                    .to_owned(),
            );
        }
        // The look whether the store is empty must have been at this directory.
        if mode.method == InstallMethod::Bare && !kwbase.data_directories().contains(&mode.data_root.as_str())
        {
            faults.push(format!(
                "it is installed with its data in {} and the host is described with stores {}: correct one of them",
                mode.data_root,
                kwbase.data_directories().join(", ")
            ));
        }
        let planned = kwbase.rpc_address();
        if planned.as_ref() != Some(&mode.address()) {
            faults.push(format!(
                "it is installed for the address {} and the host is described with {}: correct one of them",
                mode.address(),
                planned.map_or("none".to_owned(), |a| a.to_string())
            ));
        }
        if mode.method == InstallMethod::Bare && self.user == Some(false) {
            faults.push(format!(
                "it is installed for the user '{}', whom the host does not know: install it again, or make the user",
                mode.user.escape_debug()
            ));
        }
        // Both would tell of an installation for something else.
        if faults.is_empty() && mode.method == InstallMethod::Bare {
            faults.extend(self.unit_fault(mode, kwbase));
        }
        if kwbase.secure() && !self.certs {
            let user = mode.user.escape_debug();
            faults.push(format!(
                "{CERTS_DIR} is not there, and the script makes the certificates in it: make it as the installer does \
                 (as root: install -d -o {user} -g {user} {CERTS_DIR})"
            ));
        }
        faults
    }

    /// Why the unit would not start the node that is described once the script has added its `--join`.
    fn unit_fault(&self, mode: &Mode, kwbase: &KwbaseHost) -> Option<String> {
        let fault = |what: &str, cure: &str| Some(format!("its unit {UNIT} {what}: {cure}"));
        let Some(text) = &self.starts else {
            return fault("cannot be read", "let the user read its file (chmod 644)");
        };
        let Some(line) = StartLine::read(text) else {
            return fault("has no line that begins with ExecStart=", "write it, or install again");
        };
        // A file that was not read again, a drop-in, a line that goes on: the script's change would not be what starts.
        if self.shown.as_deref().and_then(StartLine::read).as_ref() != Some(&line) {
            return fault(
                "has another command line in its file than systemd knows",
                "run systemctl daemon-reload; ExecStart is to stand in the file only, on one line",
            );
        }
        if StartLine::in_shell(text) {
            return fault(
                "starts kwbase through a shell, to which the script's --join would go",
                "call kwbase itself",
            );
        }
        let replaced = self.start_arg.as_ref().map(|arg| {
            ["$KAIWUDB_START_ARG", "${KAIWUDB_START_ARG}"].iter().fold(text.clone(), |t, v| t.replace(v, arg))
        });
        let line = replaced.and_then(|text| StartLine::read(&text)).unwrap_or(line);
        if line.start_mode.as_ref() != Some(&mode.start_mode) {
            return fault(
                &format!("does not run kwbase {}, as {MODE_FILE} says", mode.start_mode),
                "correct its ExecStart, or install again",
            );
        }
        let (what, cure) = line.differs(&Described::of(kwbase), kwbase.secure(), None)?;
        fault(&what, cure)
    }

    /// Whether `deploy.sh join` can be run to start the node that is meant.
    pub(super) fn fit_to_join(
        &self,
        host: &DeployHost,
        kwbase: &KwbaseHost,
        start: &StartMode,
    ) -> Result<Mode, PortError> {
        let mode = self.usable(host)?;
        let fail = |what: String| {
            let message = format!("deploy.sh join on {}: {what}; nothing was started", host.name);
            Err(PortError::new(PortErrorKind::Config, message))
        };
        if self.runs() {
            return fail("KWDB runs there already: stop it first, or take another host".to_owned());
        }
        if mode.start_mode != *start {
            let (is, should) = (&mode.start_mode, start);
            return fail(format!(
                "the installation is for kwbase {is} and the cluster runs kwbase {should}: install it again with the \
                 cluster's mode"
            ));
        }
        let unfit = self.unfit(&mode, kwbase);
        if !unfit.is_empty() {
            return fail(unfit.join("; "));
        }
        if let Some(fault) = self.archive_fault(host) {
            return fail(format!("{fault}: make it again on the node that holds the CA"));
        }
        if kwbase.secure() && self.archive == Found::Absent {
            let dir = host.ca_dir();
            return fail(format!(
                "{dir}/{ARCHIVE} is not there: make the archive of ca.crt and ca.key on the node that holds the CA, and \
                 put it there under exactly this name"
            ));
        }
        Ok(mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kwbase::Security;
    use crate::topology::Address;

    const MODE: &str = "bare\nmulti-replication\n/usr/local/kaiwudb\n/var/lib/kaiwudb\n26257\n8080\nkaiwudb\n\
                        insecure\nfalse\n10.0.0.4";

    /// As the installer writes it.
    const EXEC: &str = "/k/kwbase start $KAIWUDB_START_ARG --insecure --listen-addr=0.0.0.0:26257 \
                        --advertise-addr=10.0.0.4:26257 --http-addr=0.0.0.0:8080 --store=/var/lib/kaiwudb  \
                        --join 10.0.0.4:26257";

    fn answer(change: impl Fn(String) -> String) -> Installation {
        let unit =
            format!("L{EXEC}\0V\"\"\0N{{ path=/k/kwbase ; argv[]={EXEC} ; ignore_errors=no ; pid=0 }}");
        let text =
            ["S+", "D+", "I+", &unit, &format!("M{MODE}"), "P0", "W+", "Aabsent", "K-", "T+", "H+", "E"];
        read(change(text.join("\0")).split('\0')).unwrap()
    }

    /// With an archive of the authority of the tests.
    fn archived(text: String) -> String {
        let pem = std::fs::read_to_string(format!("{}/tests/data/certs/ca.crt", env!("CARGO_MANIFEST_DIR")));
        text.replace("Aabsent", &format!("A- ca.key\n- ca.crt\n0\0C{}", pem.unwrap()))
    }

    fn kwbase(security: Security) -> KwbaseHost {
        KwbaseHost { advertise_addr: Some(Address::new("10.0.0.4:26257")), ..KwbaseHost::new("n4", security) }
    }

    #[test]
    fn what_is_not_fit_names_its_cure() {
        let host = DeployHost::new("n4", "/opt/k");
        let multi = StartMode::MultiReplica;
        let insecure = kwbase(Security::Insecure);
        let secure = kwbase(Security::Certs { certs_dir: "/etc/kaiwudb/certs".into() });
        assert!(answer(|t| t).fit_to_join(&host, &insecure, &multi).is_ok());
        let tls = |t: String| {
            t.replace("\ninsecure", "\ntls").replace("--insecure", "--certs-dir=/etc/kaiwudb/certs")
        };
        assert!(answer(|t| archived(tls(t))).fit_to_join(&host, &secure, &multi).is_ok());
        type Case<'a> = (&'a dyn Fn(String) -> String, &'a KwbaseHost, &'a str);
        let cases: [Case<'_>; 17] = [
            (&|t| t.replace("/var/lib/kaiwudb", "/data"), &insecure, "data in /data"),
            (&|t| t.replace("D+", "D-"), &insecure, "install_dir"),
            (&|t| t.replace("H+", "H-"), &insecure, "user 'kaiwudb', whom the host does not know"),
            (&|t| t.replace("I+", "I-"), &insecure, "deploy.sh install"),
            (&|t| t.replace("S+", "S-"), &insecure, "without a password"),
            (&|t| t.replace("S+", "S0"), &insecure, "there is no sudo"),
            (&|t| t.replace("P0", "P"), &insecure, "systemd"),
            (&|t| t.replace("P0", "P17"), &insecure, "runs there already"),
            (&|t| t.replace("multi-", "single-"), &insecure, "start-single-replica"),
            (&|t| t.replace("Mbare", "Mvm"), &insecure, "line 1"),
            (&|t| t.replace("10.0.0.4", "10.0.0.9"), &insecure, "10.0.0.9:26257"),
            (&tls, &insecure, "installed secure"),
            (&|t| t, &secure, "installed insecure"),
            (&tls, &secure, "exactly this name"),
            (
                &|t| archived(tls(t)).replace("W+", "W-"),
                &secure,
                "install -d -o kaiwudb -g kaiwudb /etc/kaiwudb/certs",
            ),
            (&|t| archived(tls(t)).replace("K-", "K+"), &secure, "sm4.key"),
            (&|t| tls(t).replace("Aabsent", "A2"), &secure, "/opt/k/kaiwudb_certs.tar.gz is no archive"),
        ];
        for (change, kwbase, words) in cases {
            let error = answer(change).fit_to_join(&host, kwbase, &multi).unwrap_err();
            assert!(error.to_string().contains(words), "{words}: {error}");
        }
        let container = |t: String| t.replace("Mbare", "Mcontainer").replace("T+", "T-");
        let error = answer(container).fit_to_join(&host, &insecure, &multi).unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::Unsupported, "{error}");
    }

    #[test]
    fn a_unit_that_starts_something_else() {
        let host = DeployHost::new("n4", "/opt/k");
        let mut insecure = kwbase(Security::Insecure);
        let secure = kwbase(Security::Certs { certs_dir: "/etc/kaiwudb/certs".into() });
        let unfit = |change: &dyn Fn(String) -> String, kwbase: &KwbaseHost| {
            answer(change).facts(&host, kwbase).unfit.join("; ")
        };
        let unset = "V\"\"";
        // As it is after a join, and with flags in the file that is made for them.
        for good in [" --join 10.0.0.1:26257 ", ""] {
            let joined = |t: String| t.replace("  --join 10.0.0.4:26257", good);
            assert_eq!(unfit(&joined, &insecure), "");
        }
        assert_eq!(unfit(&|t| t.replace(unset, "V\"--cache=1GiB\""), &insecure), "");
        for (from, to, words) in [
            ("--store=/var/lib/kaiwudb", "--store=/data/other", "has --store=/data/other, and"),
            ("--store=/var/lib/kaiwudb", "", "has no --store"),
            ("--advertise-addr=10.0.0.4", "--advertise-addr=10.0.0.2", "advertises 10.0.0.2:26257, and"),
            ("--insecure", "", "runs kwbase without --insecure"),
            ("kwbase start ", "kwbase start-single-replica ", "does not run kwbase start, as /etc"),
            ("/k/kwbase", "/bin/sh -c exec /k/kwbase", "through a shell"),
            (EXEC, "/opt/node.sh", "does not run kwbase start, as /etc"),
            (EXEC, "", "no line that begins with ExecStart="),
            (&format!("L{EXEC}"), "Y", "cannot be read"),
            // Changed and not read again, in a drop-in, on two lines.
            (&format!("L{EXEC}"), "L/k/kwbase start \\", "run systemctl daemon-reload"),
            (&format!("argv[]={EXEC}"), "argv[]=/k/kwbase start --insecure", "run systemctl daemon-reload"),
            // More flags.
            (unset, "V\"--store=/data/other\"", "has --store=/data/other, and"),
        ] {
            let told = unfit(&|t| t.replace(from, to), &insecure);
            assert!(told.starts_with("its unit kaiwudb ") && told.contains(words), "{words}: {told}");
            // The look right before the join refuses it as well.
            let last =
                answer(|t| t.replace(from, to)).fit_to_join(&host, &insecure, &StartMode::MultiReplica);
            assert!(last.unwrap_err().to_string().contains(words), "{words}");
        }
        let tls = |t: String| t.replace("\ninsecure", "\ntls");
        assert!(unfit(&tls, &secure).contains("with --insecure, and the host is described as secure"));
        insecure.locality = Some("region=a".into());
        assert!(unfit(&|t| t, &insecure).contains("has no --locality"));
        assert_eq!(unfit(&|t| t.replace(unset, "V\"--locality=region=a\""), &insecure), "");
        // What the variable stands for may have it.
        assert_eq!(unfit(&|t| t.replace(unset, "Y"), &insecure), "");
        // The script changes another file of a container's.
        insecure.locality = None;
        let container = |t: String| t.replace("Mbare", "Mcontainer").replace(EXEC, "docker-compose up");
        assert_eq!(unfit(&container, &insecure), "");
    }

    #[test]
    fn all_that_hinders_is_told() {
        let (host, insecure) = (DeployHost::new("n4", "/opt/k"), kwbase(Security::Insecure));
        let good = answer(|t| t).facts(&host, &insecure);
        let address = Some("10.0.0.4".to_owned());
        let none = ScriptFacts {
            unusable: vec![],
            unfit: vec![],
            archive: None,
            archive_fault: None,
            archive_authority: None,
            address,
        };
        assert_eq!(good, none);
        let bad = answer(|t| t.replace("D+", "D-").replace("S+", "S-").replace("10.0.0.4", "10.0.0.9"));
        let bad = bad.facts(&host, &insecure);
        assert_eq!((bad.unusable.len(), bad.unfit.len()), (2, 1), "{bad:?}");
        // What runs there and which mode it has is told by others.
        let single = |t: String| t.replace("multi-", "single-").replace(" start ", " start-single-replica ");
        let others = answer(|t| single(t).replace("P0", "P17"));
        assert_eq!(others.facts(&host, &insecure).unfit, [""; 0]);
        let secure = kwbase(Security::Certs { certs_dir: "/etc/kaiwudb/certs".into() });
        assert_eq!(answer(|t| t).facts(&host, &secure).archive, Some(false));
        let good = answer(archived).facts(&host, &secure);
        assert!(good.archive == Some(true) && good.archive_fault.is_none(), "{good:?}");
        assert_eq!(good.archive_authority.unwrap().known().unwrap().len(), 64);
        let damaged = answer(|t| archived(t).replace("\n0\0C", "\n2\0C")).facts(&host, &secure);
        assert!(damaged.archive_fault.unwrap().contains("it is damaged"));
        assert_eq!((damaged.archive, damaged.archive_authority), (Some(true), None));
        let unseen = answer(|t| t.replace("Aabsent", "Adenied")).facts(&host, &secure);
        assert_eq!((unseen.archive, unseen.archive_fault), (Some(true), None));
        assert_eq!(unseen.archive_authority, Some(Fact::unknown("it may not be read")));
        assert!(answer(|t| t.replace("Mbare", "M")).facts(&host, &secure).address.is_none());
    }

    #[test]
    fn a_cut_answer_is_none() {
        for text in ["", "S+\0D+\0", "noise"] {
            assert_eq!(read(text.split_terminator('\0')), None);
        }
    }
}
