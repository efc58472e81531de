//! The sshd of each host, and the operator's files for it: key, ssh_config, known_hosts.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::super::{LabError, append, io_error, proc};
use super::machine::Machine;
use super::network::Tools;

const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";
const AUTHORIZED: &str = "/etc/ssh/authorized_keys";
const PORT: u16 = 22;
const DEADLINE: Duration = Duration::from_secs(15);

/// The operator's ssh_config in a lab's directory.
pub(in crate::lab) const SSH_CONFIG: &str = "ssh_config";
/// The operator's known_hosts in a lab's directory.
pub(in crate::lab) const KNOWN_HOSTS: &str = "known_hosts";
/// The operator's key in a lab's directory.
pub(in crate::lab) const KEY: &str = "id_ed25519";

/// Makes the operator's key and the beginning of the ssh_config.
pub(in crate::lab) fn prepare(tools: &Tools, dir: &Path, user: &str) -> Result<(), LabError> {
    keygen(tools, &dir.join(KEY), "kwdb-lab operator")?;
    let text = format!(
        "# How `ssh -F` reaches the hosts of this lab.\nHost n*\n  User {user}\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
         UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n",
        value(&dir.join(KEY)),
        value(&dir.join(KNOWN_HOSTS)),
    );
    fs::write(dir.join(SSH_CONFIG), text).map_err(io_error(SSH_CONFIG))
}

/// A path as ssh reads it: in quotes, with `%` doubled.
fn value(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

fn keygen(tools: &Tools, path: &Path, comment: &str) -> Result<(), LabError> {
    let mut command = Command::new(&tools.keygen);
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"]).arg(path);
    let output = proc::run(&mut command, DEADLINE).map_err(io_error("ssh-keygen"))?;
    if output.code == Some(0) {
        return Ok(());
    }
    Err(LabError::Command {
        command: format!("ssh-keygen -f {}", path.display()),
        end: "failed".to_owned(),
        words: output.stderr.trim().to_owned(),
    })
}

fn public(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

impl Machine<'_> {
    /// Gives a host that is not made yet its key and its configuration, and tells the operator of it.
    pub(in crate::lab) fn prepare_sshd(&self, tools: &Tools, address: Ipv4Addr) -> Result<(), LabError> {
        let key = self.own(HOST_KEY);
        keygen(tools, &key, &format!("root@{}", self.name))?;
        let config = format!(
            "# Of a lab: keys only, and no PAM.\nPort {PORT}\nListenAddress 0.0.0.0\nHostKey {HOST_KEY}\n\
             AuthorizedKeysFile {AUTHORIZED}\nPidFile /run/sshd.pid\nUsePAM no\nPermitRootLogin prohibit-password\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUseDNS no\n\
             Subsystem sftp internal-sftp\n"
        );
        let operator = fs::read(public(&self.dir.join(KEY))).map_err(io_error(KEY))?;
        fs::write(self.own("/etc/ssh/sshd_config"), config)
            .and_then(|()| fs::write(self.own(AUTHORIZED), operator))
            .map_err(io_error(format!("sshd of {}", self.name)))?;
        let host_key = fs::read_to_string(public(&key)).map_err(io_error(HOST_KEY))?;
        let mut words = host_key.split_whitespace();
        let (kind, text) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let add = |file: &str, line: String| {
            append(&self.dir.join(file))
                .and_then(|mut open| open.write_all(line.as_bytes()))
                .map_err(io_error(file.to_owned()))
        };
        add(KNOWN_HOSTS, format!("{},{address} {kind} {text}\n", self.name))?;
        add(SSH_CONFIG, format!("Host {}\n  HostName {address}\n", self.name))
    }

    /// Starts its sshd, and comes back when that answers.
    pub(in crate::lab) fn start_sshd(&self, tools: &Tools, address: Ipv4Addr) -> Result<(), LabError> {
        if !self.all("sshd").is_empty() {
            return Err(LabError::Running(format!("sshd of {}", self.name)));
        }
        let mut command = self.enter(tools)?;
        // It has the same path there, and calls itself by it again for every connection.
        command.arg(&tools.sshd).args(["-E", "/var/log/sshd.log"]);
        let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let started = ended.map_err(io_error(format!("sshd of {}", self.name)))?.success();
        let deadline = Instant::now() + DEADLINE;
        let socket = SocketAddr::from((address, PORT));
        while started && Instant::now() < deadline {
            if TcpStream::connect_timeout(&socket, Duration::from_secs(1)).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        let words = fs::read_to_string(self.own("/var/log/sshd.log")).unwrap_or_default();
        Err(LabError::Command {
            command: format!("sshd on {}", self.name),
            end: if started { "does not answer (is the host cut off?)" } else { "did not start" }.to_owned(),
            words: words.lines().rev().take(3).collect::<Vec<_>>().join("; "),
        })
    }

    /// Ends its sshd and every session; what a session started may go on.
    pub(in crate::lab) fn stop_sshd(&self) -> Result<(), LabError> {
        let all = self.all("sshd");
        if all.is_empty() {
            return Err(LabError::NotRunning(format!("sshd of {}", self.name)));
        }
        all.iter().for_each(|process| process.signal(Signal::KILL));
        if all.iter().all(|process| process.ends_within(DEADLINE)) {
            Ok(())
        } else {
            Err(LabError::Deadline(format!("sshd of {} did not end", self.name)))
        }
    }

    /// Gives it another key, of which the operator is not told, and starts its sshd again.
    pub(in crate::lab) fn rekey(&self, tools: &Tools, address: Ipv4Addr) -> Result<(), LabError> {
        let key = self.own(HOST_KEY);
        for file in [&key, &public(&key)] {
            fs::remove_file(file).map_err(io_error(HOST_KEY))?;
        }
        keygen(tools, &key, &format!("root@{}", self.name))?;
        match self.stop_sshd() {
            Ok(()) | Err(LabError::NotRunning(_)) => {}
            Err(error) => return Err(error),
        }
        self.start_sshd(tools, address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_the_ssh_config() {
        assert_eq!(value(Path::new("/a b/50%/id")), "\"/a b/50%%/id\"");
        assert_eq!(public(Path::new("/a/b.c/id")), Path::new("/a/b.c/id.pub"));
    }
}
