//! What the installer wrote about a host: `/etc/kaiwudb/info/MODE` and `/etc/kaiwudb/info/NODE`.
//!
//! Both are lines without names; the meaning of a line is its number. Source: `kaiwudb_install` of V2.0.4 to V3.2.1.

use serde::{Deserialize, Serialize};

use crate::host_facts::{InstallMethod, Installed, MODE_FILE, NODE_FILE, Peers};
use crate::topology::{Address, StartMode};

/// What the installer was told of security.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InstallSecurity {
    /// `insecure`.
    Insecure,
    /// `tls`.
    Tls,
    /// `tlcp`, which the open-source kwbase does not have.
    Tlcp,
}

impl InstallSecurity {
    /// The word in the file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Insecure => "insecure",
            Self::Tls => "tls",
            Self::Tlcp => "tlcp",
        }
    }
}

/// The MODE file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Mode {
    /// Line 1: `bare` or `container`.
    pub method: InstallMethod,
    /// Line 2: `single`, `single-replication` or `multi-replication`, as the sub-command that it stands for.
    pub start_mode: StartMode,
    /// Line 3: `/usr/local/kaiwudb`, or the image's name.
    pub program: String,
    /// Line 4: the data directory on the host.
    pub data_root: String,
    /// Line 5: port for RPC and SQL.
    pub port: u16,
    /// Line 6: port of HTTP.
    pub http_port: u16,
    /// Line 7: the user that runs kwbase.
    pub user: String,
    /// Line 8.
    pub security: InstallSecurity,
    /// Line 9, from V2.2.0: whether the store is encrypted. `None` where the line is not there.
    pub encrypted_store: Option<bool>,
    /// The last line: this node's address, which the script compares with `sql_address` of `node status`.
    pub host: String,
}

impl Mode {
    /// The address at which the node of this installation is known.
    pub fn address(&self) -> Address {
        Address::new(format!("{}:{}", self.host, self.port))
    }
}

impl From<Mode> for Installed {
    fn from(mode: Mode) -> Self {
        Self {
            method: mode.method,
            start_mode: mode.start_mode,
            place: mode.program,
            data_root: mode.data_root,
            port: mode.port,
            http_port: mode.http_port,
            user: mode.user,
            security: mode.security.word().to_owned(),
            address: mode.host,
        }
    }
}

/// A file of the installer that cannot be understood.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line} of {file} is '{}', not {expected}", found.escape_debug())]
pub struct InfoError {
    /// Which file.
    pub file: &'static str,
    /// Line number from 1.
    pub line: usize,
    /// What stands there; empty when there is no such line.
    pub found: String,
    /// What was expected.
    pub expected: &'static str,
}

/// Parses the MODE file.
pub fn mode(text: &str) -> Result<Mode, InfoError> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let at = |number: usize| lines.get(number - 1).copied().unwrap_or_default();
    let fail = |line: usize, expected: &'static str| InfoError {
        file: MODE_FILE,
        line,
        found: at(line).chars().take(80).collect(),
        expected,
    };
    let word = |line: usize, expected: &'static str| match at(line) {
        "" => Err(fail(line, expected)),
        text => Ok(text.to_owned()),
    };
    let port = |line: usize| {
        at(line).parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(|| fail(line, "a port number"))
    };
    let last = lines.iter().rposition(|l| !l.is_empty()).map_or(1, |i| i + 1);
    if last < 9 {
        return Err(fail(last + 1, "there: the file has at least nine lines"));
    }
    Ok(Mode {
        method: match at(1) {
            "bare" => InstallMethod::Bare,
            "container" => InstallMethod::Container,
            _ => return Err(fail(1, "bare or container")),
        },
        start_mode: match at(2) {
            "multi-replication" => StartMode::MultiReplica,
            "single-replication" => StartMode::SingleReplica,
            "single" => StartMode::SingleNode,
            _ => return Err(fail(2, "single, single-replication or multi-replication")),
        },
        program: word(3, "a directory or an image")?,
        data_root: word(4, "a directory")?,
        port: port(5)?,
        http_port: port(6)?,
        user: word(7, "a user")?,
        security: match at(8) {
            "insecure" => InstallSecurity::Insecure,
            "tls" => InstallSecurity::Tls,
            "tlcp" => InstallSecurity::Tlcp,
            _ => return Err(fail(8, "tls, tlcp or insecure")),
        },
        encrypted_store: match at(9) {
            _ if last == 9 => None,
            "true" => Some(true),
            "false" => Some(false),
            _ => return Err(fail(9, "true or false")),
        },
        host: word(last, "an address")?,
    })
}

/// Parses the NODE file. Its first line may be empty: no peer was named.
pub fn peers(text: &str) -> Result<Peers, InfoError> {
    let mut lines = text.lines().map(str::trim);
    let addresses = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let ssh_port = match lines.next().unwrap_or_default() {
        "" => None,
        port => Some(port.parse().map_err(|_| InfoError {
            file: NODE_FILE,
            line: 2,
            found: port.chars().take(80).collect(),
            expected: "a port number",
        })?),
    };
    let ssh_user = lines.next().filter(|user| !user.is_empty()).map(str::to_owned);
    Ok(Peers { addresses, ssh_port, ssh_user })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODE: &str = "bare\nmulti-replication\n/usr/local/kaiwudb\n/var/lib/kaiwudb\n26257\n8080\nkaiwudb\n\
                        insecure\nfalse\n10.0.0.4\n";

    #[test]
    fn an_installation() {
        let mode = mode(MODE).unwrap();
        assert_eq!((mode.method, mode.start_mode.clone()), (InstallMethod::Bare, StartMode::MultiReplica));
        assert_eq!((mode.security, mode.encrypted_store), (InstallSecurity::Insecure, Some(false)));
        assert_eq!(mode.address(), Address::new("10.0.0.4:26257"));
        let installed = Installed::from(mode);
        assert_eq!((installed.address.as_str(), installed.secure()), ("10.0.0.4", false));
    }

    #[test]
    fn a_container_and_security() {
        let text = MODE.replace("bare", "container").replace("multi", "single").replace("insecure", "tlcp");
        let installed = Installed::from(mode(&text).unwrap());
        assert_eq!(
            (installed.method, installed.start_mode.clone()),
            (InstallMethod::Container, StartMode::SingleReplica)
        );
        assert!(installed.secure());
    }

    #[test]
    fn before_v2_2_0_there_is_no_line_about_encryption() {
        let mode = mode(&MODE.replace("false\n", "")).unwrap();
        assert_eq!((mode.encrypted_store, mode.host.as_str()), (None, "10.0.0.4"));
    }

    #[test]
    fn what_makes_no_sense_names_its_line() {
        for (from, to, line) in [
            ("bare", "vm", 1),
            ("multi-replication", "multi", 2),
            ("26257", "0", 5),
            ("8080", "many", 6),
            ("insecure", "", 8),
            ("false", "perhaps", 9),
        ] {
            let error = mode(&MODE.replacen(from, to, 1)).unwrap_err();
            assert_eq!(error.line, line, "{error}");
        }
        assert!(mode("").unwrap_err().to_string().contains("nine lines"));
        assert!(mode("bare\nmulti-replication\n").is_err());
    }

    #[test]
    fn peers_of_an_installation() {
        let found = peers("10.0.0.2 10.0.0.3\n22\nroot\n").unwrap();
        assert_eq!(found.addresses, ["10.0.0.2", "10.0.0.3"]);
        assert_eq!((found.ssh_port, found.ssh_user.as_deref()), (Some(22), Some("root")));
        assert_eq!(peers("\n").unwrap().addresses, Vec::<String>::new());
        assert!(peers("a\nport\n").is_err());
    }
}
