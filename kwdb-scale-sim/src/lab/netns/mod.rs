//! Hosts that are small machines of their own: a network namespace with an IP address, a private view of this
//! machine's files, processes of their own and an sshd. Linux, as root.
//!
//! Nothing of this machine is changed but for namespaces, one network interface, and the lab's directory: a host sees
//! this machine's files through an overlay that keeps what the host writes, and the directories of `OWN` lie in
//! `hosts/NAME/root` of the lab's directory.

mod machine;
mod network;
mod sshd;

use std::io;
use std::path::{Component, Path, PathBuf};

use super::LabError;

pub(super) use machine::{HUB, Machine, write_into};
pub use network::LabNet;
pub(super) use network::Tools;
pub(super) use sshd::prepare as prepare_operator;

/// What the operator of such a lab has in its directory, beside certificates; the last is what `ssh-keygen -R` leaves.
pub(super) const OPERATOR_FILES: [&str; 5] =
    [sshd::SSH_CONFIG, sshd::KNOWN_HOSTS, sshd::KEY, "id_ed25519.pub", "known_hosts.old"];

/// The user beside root whom a host knows; it may do everything through `sudo -n`.
pub const ORDINARY_USER: &str = "kaiwudb";
/// The program on a host: where KWDB's packages install it.
pub const PROGRAM: &str = "/usr/local/kaiwudb/bin/kwbase";
/// The certificates on a host of a secure lab, where KWDB's packages keep them.
pub const CERTS: &str = "/etc/kaiwudb/certs";
/// The directory of `deploy.sh` on a host.
pub const INSTALL_DIR: &str = "/opt/kwdb_install";
/// The store on a host, where KWDB's packages keep it.
pub(super) const STORE: &str = "/var/lib/kaiwudb";
/// The first host's number in the subnet is this plus one.
const FIRST: usize = 10;
/// Hosts of a lab, by their numbers in the subnet.
pub(super) const MOST: usize = 200;

/// What the hosts of a lab are.
#[derive(Clone, Debug, Default)]
pub enum Hosts {
    /// Directories and loopback ports of this machine.
    #[default]
    Processes,
    /// Small machines of their own, each with its own address, files, processes and sshd. Needs Linux, root, `ip`,
    /// `unshare` and `nsenter`, `sshd` and `ssh-keygen`, and overlay file systems.
    Netns(NetnsOptions),
}

/// How hosts in network namespaces are made.
#[derive(Clone, Debug, Default)]
pub struct NetnsOptions {
    /// As whom the lab's ssh_config logs in.
    pub login: Login,
    /// Whether hosts are as `deploy.sh` installs them: with stand-ins of the script, of `systemctl` and of `kw-status`
    /// ([`standin`](crate::standin)), the files MODE and NODE, and the unit `kaiwudb`, from which nodes are run.
    pub deploy: bool,
    /// Put on every host, also on those that are added later.
    pub files: Vec<HostFile>,
}

/// As whom the operator logs in on the hosts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Login {
    /// root.
    #[default]
    Root,
    /// [`ORDINARY_USER`], for whom `sudo -n` does everything.
    Ordinary,
}

impl Login {
    /// The user's name.
    pub fn user(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Ordinary => ORDINARY_USER,
        }
    }
}

/// A file for a host's private tree, which hides the machine's own file of that name there. Its owner is root.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostFile {
    path: PathBuf,
    content: Vec<u8>,
    mode: u32,
}

impl HostFile {
    /// A file with that content and mode, such as `0o755`.
    ///
    /// # Errors
    /// `InvalidInput`: the path is not absolute, or has a `..` in it.
    pub fn new(path: impl Into<PathBuf>, content: impl Into<Vec<u8>>, mode: u32) -> io::Result<Self> {
        let path = path.into();
        let normal = path.components().skip(1).all(|c| matches!(c, Component::Normal(_)));
        if !path.is_absolute() || !normal || path.file_name().is_none() || path.to_str().is_none() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "'{}' is no path of a file on a host: give an absolute one in UTF-8 without '..'",
                    path.display()
                ),
            ));
        }
        Ok(Self { path, content: content.into(), mode: mode & 0o7777 })
    }

    /// The same with the content of a file of this machine.
    ///
    /// # Errors
    /// As [`new`](Self::new); the file cannot be read.
    pub fn copy_of(source: &Path, path: impl Into<PathBuf>, mode: u32) -> io::Result<Self> {
        let content = std::fs::read(source)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", source.display())))?;
        Self::new(path, content, mode)
    }

    /// Where it lies on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What a lab of such hosts lacks on this machine.
fn unfit(what: impl Into<String>, cure: &'static str) -> LabError {
    LabError::Unfit { what: what.into(), cure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_place_on_its_host() {
        for bad in ["etc/x", "/", "/a/../etc/x", ""] {
            let error = HostFile::new(bad, "", 0o644).unwrap_err();
            assert!(error.to_string().contains("absolute"), "{bad}: {error}");
        }
        assert_eq!(HostFile::new("/usr/bin/x", "y", 0o755).unwrap().path(), Path::new("/usr/bin/x"));
    }
}
