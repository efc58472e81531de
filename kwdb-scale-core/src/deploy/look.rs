//! What an installation looks like before the script is run: one round trip that changes nothing.

use super::host::DeployHost;
use super::info::{self, InstallSecurity, Mode};
use super::{ARCHIVE, UNIT};
use crate::host_facts::{InstallMethod, MODE_FILE};
use crate::kwbase::KwbaseHost;
use crate::ports::{PortError, PortErrorKind};
use crate::topology::StartMode;

const SCRIPT: &str = include_str!("look.sh");

/// What was found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Installation {
    /// Root, or sudo without a password.
    privileged: bool,
    deploy_sh: bool,
    unit: bool,
    mode: Option<String>,
    pid: Option<u32>,
    archive: bool,
    store_key: bool,
    terminal: bool,
}

/// The command line of the look.
pub(super) fn argv(host: &DeployHost) -> Vec<String> {
    let fixed = ["sh", "-c", SCRIPT, "kwdb-scale"].map(str::to_owned);
    let paths = [&host.install_dir, host.ca_dir(), &host.root].map(str::to_owned);
    fixed.into_iter().chain(paths).collect()
}

/// Reads the answer; `None` when it was cut off.
pub(super) fn read(stdout: &str) -> Option<Installation> {
    let items: Vec<&str> = stdout.split_terminator('\0').collect();
    if items.last() != Some(&"E") {
        return None;
    }
    let mut found = Installation::default();
    for item in items {
        let mut rest = item.chars();
        let tag = rest.next();
        let value = rest.as_str();
        match tag {
            Some('S') => found.privileged = value == "+",
            Some('D') => found.deploy_sh = value == "+",
            Some('I') => found.unit = value == "+",
            Some('M') => found.mode = Some(value.to_owned()),
            Some('P') => found.pid = value.parse().ok(),
            Some('A') => found.archive = value == "+",
            Some('K') => found.store_key = value == "+",
            Some('T') => found.terminal = value == "+",
            _ => {}
        }
    }
    Some(found)
}

impl Installation {
    /// What the installer wrote, when the script can be run at all.
    pub(super) fn usable(&self, host: &DeployHost) -> Result<Mode, PortError> {
        let fail =
            |kind, what: String| Err(PortError::new(kind, format!("deploy.sh on {}: {what}", host.name)));
        if !self.deploy_sh {
            let dir = &host.install_dir;
            return fail(
                PortErrorKind::NotFound,
                format!("{dir}/deploy.sh is not there or cannot be executed; correct install_dir"),
            );
        }
        if !self.unit {
            return fail(
                PortErrorKind::NotFound,
                "KWDB is not installed by the script there (no kaiwudb.service); run deploy.sh install first"
                    .to_owned(),
            );
        }
        if !self.privileged {
            // The script would ask for the password, and then paste it into command lines.
            return fail(
                PortErrorKind::Denied,
                "the user may not run sudo without a password, which the script needs; allow it, or run commands there as \
                 root"
                    .to_owned(),
            );
        }
        let Some(text) = &self.mode else {
            return fail(PortErrorKind::NotFound, format!("{} cannot be read", MODE_FILE));
        };
        let mode = match info::mode(text) {
            Ok(mode) => mode,
            Err(e) => return fail(PortErrorKind::Malformed, e.to_string()),
        };
        if mode.method == InstallMethod::Container && !self.terminal {
            return fail(
                PortErrorKind::Unsupported,
                "it is a container installation, for which the script wants a terminal, and script(1) is not there to make \
                 one; install it (util-linux), or give the host the method kwbase with exec_prefix"
                    .to_owned(),
            );
        }
        if self.pid.is_none() {
            return fail(
                PortErrorKind::NotFound,
                format!("systemctl does not tell the process of {UNIT}; is it a host with systemd?"),
            );
        }
        Ok(mode)
    }

    /// Whether the unit has a process.
    pub(super) fn runs(&self) -> bool {
        self.pid.is_some_and(|pid| pid != 0)
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
        match (mode.security, kwbase.secure()) {
            (InstallSecurity::Insecure, false) | (InstallSecurity::Tls, true) => {}
            (InstallSecurity::Tlcp, _) => {
                return fail("it is installed with tlcp, which this library does not know".to_owned());
            }
            // The script's start would wait for more than an hour.
            (installed, secure) => {
                let (is, should) = if secure { ("insecure", "secure") } else { ("secure", "insecure") };
                tracing::debug!(?installed, secure, "security differs");
                return fail(format!(
                    "it is installed {is} and the cluster is {should}, which join does not change: install it again"
                ));
            }
        }
        if kwbase.secure() && !self.archive {
            let dir = host.ca_dir();
            return fail(format!(
                "{dir}/{ARCHIVE} is not there: make the archive of ca.crt and ca.key on the node that holds the CA, and \
                 put it there under exactly this name"
            ));
        }
        if kwbase.secure() && (self.store_key || mode.encrypted_store == Some(true)) {
            return fail(
                "its store is encrypted, and the script would delete the key (sm4.key) with the certificates: give the host \
                 the method kwbase"
                    .to_owned(),
            );
        }
        // The look whether the store is empty must have been at this directory.
        if mode.method == InstallMethod::Bare && !kwbase.data_directories().contains(&mode.data_root.as_str())
        {
            return fail(format!(
                "it is installed with its data in {} and the host is described with stores {}: correct one of them",
                mode.data_root,
                kwbase.data_directories().join(", ")
            ));
        }
        let planned = kwbase.rpc_address();
        if planned.as_ref() != Some(&mode.address()) {
            return fail(format!(
                "it is installed for the address {} and the host is described with {}: correct one of them",
                mode.address(),
                planned.map_or("none".to_owned(), |a| a.to_string())
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

    fn answer(change: impl Fn(String) -> String) -> Installation {
        let text =
            ["U0", "S+", "D+", "I+", &format!("M{MODE}"), "P0", "A-", "K-", "T+", "E"].join("\0") + "\0";
        read(&change(text)).unwrap()
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
        let tls = |t: String| t.replace("\ninsecure", "\ntls");
        assert!(answer(|t| tls(t).replace("A-", "A+")).fit_to_join(&host, &secure, &multi).is_ok());
        type Case<'a> = (&'a dyn Fn(String) -> String, &'a KwbaseHost, &'a str);
        let cases: [Case<'_>; 13] = [
            (&|t| t.replace("/var/lib/kaiwudb", "/data"), &insecure, "data in /data"),
            (&|t| t.replace("D+", "D-"), &insecure, "install_dir"),
            (&|t| t.replace("I+", "I-"), &insecure, "deploy.sh install"),
            (&|t| t.replace("S+", "S-"), &insecure, "sudo"),
            (&|t| t.replace("P0", "P"), &insecure, "systemd"),
            (&|t| t.replace("P0", "P17"), &insecure, "runs there already"),
            (&|t| t.replace("multi-", "single-"), &insecure, "start-single-replica"),
            (&|t| t.replace("Mbare", "Mvm"), &insecure, "line 1"),
            (&|t| t.replace("10.0.0.4", "10.0.0.9"), &insecure, "10.0.0.9:26257"),
            (&tls, &insecure, "installed secure"),
            (&|t| t, &secure, "installed insecure"),
            (&tls, &secure, "exactly this name"),
            (&|t| tls(t).replace("A-", "A+").replace("K-", "K+"), &secure, "sm4.key"),
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
    fn a_cut_answer_is_none() {
        for text in ["", "U0\0S+\0", "noise"] {
            assert_eq!(read(text), None);
        }
    }
}
