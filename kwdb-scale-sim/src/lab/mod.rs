//! Local clusters of real processes: of the twin, or of a real `kwbase`.
//!
//! ```no_run
//! use kwdb_scale_sim::lab::{Lab, LabOptions};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Nodes of the twin are this executable started again.
//!     kwdb_scale_sim::process::hook();
//!     let dir = std::env::temp_dir().join("my-lab");
//!     let lab = Lab::up(LabOptions { nodes: 4, speed: 20.0, ..LabOptions::new(&dir) })?.scoped();
//!     for host in &lab.info().hosts {
//!         println!("{} answers SQL at {}", host.name, host.sql_address);
//!     }
//!     lab.kill("n4")?;
//!     lab.restart("n4")?;
//!     Ok(())
//! }
//! ```
//!
//! Everything of a lab lies in its directory: `lab.json` (its own state), `bin/kwbase` (the twin's command line),
//! `certs/`, and `nodes/NAME/` with the stores, the output and the pid file of each node. Processes are ended by
//! pid, after a look at their arguments, so that a number that was given to another program does no harm.
//! The calls block; they need Linux.
//!
//! # Hosts
//!
//! With [`Hosts::Netns`] every host is a small machine of its own, which is what a program that works over SSH is
//! tested on: a network namespace with an IP address, in which nodes have KWDB's usual ports; this machine's files with
//! a private layer above them, so that `/usr/local/kaiwudb/bin/kwbase`, `/etc/kaiwudb` and `/var/lib/kaiwudb` are each
//! host's own; processes and a host name; an sshd with its own key. What a host writes into `/etc/kaiwudb`, `/etc/ssh`,
//! `/etc/systemd/system`, `/home`, `/opt/kwdb_install`, `/root`, `/run`, `/tmp`, `/usr/local/kaiwudb`,
//! `/var/lib` and `/var/log` is seen in `hosts/NAME/root` of the lab's directory. The operator is this machine: the
//! lab's directory holds its key, `ssh_config` and `known_hosts`, and `certs/` its client certificate.
//!
//! With [`NetnsOptions::deploy`] they are as KWDB's `deploy.sh` installs them, by [stand-ins](crate::standin) at the real
//! places, and nodes run from the unit `kaiwudb`.
//!
//! ```no_run
//! use kwdb_scale_sim::lab::{HostFile, Hosts, Lab, LabOptions, NetnsOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! kwdb_scale_sim::process::hook();
//! let script = "#!/bin/sh\necho \"systemctl $*\" >> /var/log/calls\n";
//! let files = vec![HostFile::new("/usr/bin/systemctl", script, 0o755)?];
//! let hosts = Hosts::Netns(NetnsOptions { files, ..NetnsOptions::default() });
//! let lab = Lab::up(LabOptions { hosts, secure: true, ..LabOptions::new("/tmp/lab") })?.scoped();
//! // `ssh -F /tmp/lab/ssh_config n2` reaches the second host; without SSH this does:
//! lab.command_on("n2")?.args(["systemctl", "status"]).status()?;
//! println!("{}", std::fs::read_to_string(lab.info().seen_here("n2", "/var/log/calls"))?);
//! lab.cut("n3")?;
//! # Ok(()) }
//! ```

mod hosts;
mod info;
mod netns;
mod ports;
mod proc;
mod start;

use std::fs;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kwdb_scale_core::topology::{Address, HostName};
use rustix::process::Signal;

use crate::process::lab::{CONFIG, LabAddress};
use crate::process::wire::Control;
use crate::process::write_private;
use hosts::Role;
use netns::Machine;
use proc::{Output, Process};

pub use hosts::machines_can_be_made;
pub use info::{LabError, LabHost, LabInfo, LabOptions};
pub use netns::{CERTS, HostFile, Hosts, INSTALL_DIR, LabNet, Login, NetnsOptions, ORDINARY_USER, PROGRAM};

const STATE: &str = "lab.json";

/// A local cluster of processes. Dropped, it stays as it is: see [`scoped`](Self::scoped).
#[derive(Debug)]
pub struct Lab {
    info: LabInfo,
    /// Set while it is made, to give that up.
    cancel: Arc<AtomicBool>,
}

impl Lab {
    /// Makes a lab, and comes back when every range has the replicas that it needs. What was started of a lab that
    /// fails to come up is ended again.
    ///
    /// # Errors
    /// The directory is not empty; a node does not come up; the deadline.
    pub fn up(options: LabOptions) -> Result<Self, LabError> {
        let end = Instant::now() + options.deadline;
        let (mut lab, _ports) = Self::prepare(&options)?;
        match lab.start_all(&options, end) {
            Ok(()) => Ok(lab),
            Err(error) => {
                lab.give_up();
                Err(error)
            }
        }
    }

    /// The lab in a directory.
    ///
    /// # Errors
    /// There is none.
    pub fn open(dir: &Path) -> Result<Self, LabError> {
        let text = fs::read(dir.join(STATE)).map_err(|_| LabError::NoLab(dir.to_owned()))?;
        let info = serde_json::from_slice(&text).map_err(|_| LabError::NoLab(dir.to_owned()))?;
        Ok(Self { info, cancel: Arc::default() })
    }

    /// What there is to know of it.
    pub fn info(&self) -> &LabInfo {
        &self.info
    }

    /// The same, ended when it is dropped.
    pub fn scoped(self) -> ScopedLab {
        ScopedLab(self)
    }

    /// Prepares one more host, with free ports and a store path, and starts no node. One that is a machine of its own
    /// runs its sshd, and in a secure lab holds certificates for a node.
    ///
    /// # Errors
    /// The block of ports is used up; what a machine of its own needs.
    pub fn add(&mut self) -> Result<LabHost, LabError> {
        match self.info.net.clone() {
            Some(net) => self.add_machine(&net, Role::Spare),
            None => self.add_directory(),
        }
    }

    fn add_directory(&mut self) -> Result<LabHost, LabError> {
        let index = self.info.hosts.len();
        let ports = ports::of_node(self.info.block, index).ok_or_else(|| LabError::Io {
            what: "ports of one more host".to_owned(),
            source: io::ErrorKind::AddrInUse.into(),
        })?;
        let name = format!("n{}", index + 1);
        let home = self.info.dir.join("nodes").join(&name);
        fs::create_dir_all(&home).map_err(io_error(home.display().to_string()))?;
        let address = |port: u16| Address::new(format!("127.0.0.1:{port}"));
        let [rpc, http, brpc] = ports.map(address);
        let stores = match self.info.stores_per_node {
            0 | 1 => vec![home.join("store")],
            n => (1..=n).map(|i| home.join(format!("store{i}"))).collect(),
        };
        let pid_file = home.join("pid");
        let host = LabHost {
            name: HostName::new(name),
            sql_address: rpc.clone(),
            address: rpc,
            http_address: http,
            brpc_address: brpc,
            stores,
            output_file: home.join("output"),
            extra_flags: vec![
                "--cache=256MiB".to_owned(),
                "--max-sql-memory=256MiB".to_owned(),
                format!("--pid-file={}", pid_file.display()),
            ],
            pid_file,
        };
        self.info.hosts.push(host.clone());
        self.save()?;
        Ok(host)
    }

    /// Ends a node as `kill -9` does.
    ///
    /// # Errors
    /// No such host; it does not run.
    pub fn kill(&self, name: &str) -> Result<(), LabError> {
        let process = self.running(name)?;
        process.signal(Signal::KILL);
        if process.ends_within(Duration::from_secs(10)) {
            Ok(())
        } else {
            Err(LabError::Deadline(format!("{name} did not end")))
        }
    }

    /// Starts a node that does not run, on its old store when it has one.
    ///
    /// # Errors
    /// No such host; it runs; the start command fails.
    pub fn restart(&self, name: &str) -> Result<(), LabError> {
        if self.running(name).is_ok() {
            return Err(LabError::Running(name.to_owned()));
        }
        self.start(self.host(name)?)
    }

    /// Whether a node's process is there.
    ///
    /// # Errors
    /// No such host.
    pub fn runs(&self, name: &str) -> Result<bool, LabError> {
        match self.running(name) {
            Ok(_) => Ok(true),
            Err(LabError::NotRunning(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Runs a `kwbase` command with the lab's security flags added; standard output of one that succeeds.
    ///
    /// # Errors
    /// It ends with another code than zero, or not within the deadline.
    pub fn kwbase(&self, args: &[&str], deadline: Duration) -> Result<String, LabError> {
        let mut command = Command::new(&self.info.kwbase);
        command.args(args).args(security_flags(self.info.certs_dir.as_deref()));
        let output =
            proc::run(&mut command, deadline).map_err(io_error(format!("kwbase {}", args.join(" "))))?;
        if output.code == Some(0) { Ok(output.stdout) } else { Err(failed(args, &output)) }
    }

    /// Ends every process of the lab, with or without a quorum, and deletes what the lab made.
    ///
    /// # Errors
    /// A process that cannot be ended; files that cannot be deleted.
    pub fn down(self) -> Result<(), LabError> {
        self.end()
    }

    /// Ends what was made of a lab that does not come up; its files say why.
    fn give_up(&self) {
        self.end_processes();
        // What is left then is removed by `down`.
        let _ = self.remove_machines();
    }

    fn end(&self) -> Result<(), LabError> {
        self.end_processes();
        if let Some(host) = self.info.hosts.iter().find(|host| self.process(host).is_some()) {
            return Err(LabError::Deadline(format!("{} did not end", host.name)));
        }
        self.remove_machines()?;
        for directory in ["nodes", "bin", "certs", "hosts", "hub", "files"] {
            remove(fs::remove_dir_all(self.info.dir.join(directory)))?;
        }
        for file in netns::OPERATOR_FILES {
            remove(fs::remove_file(self.info.dir.join(file)))?;
        }
        for file in [CONFIG, "twin.addr", "twin.log", STATE] {
            remove(fs::remove_file(self.info.dir.join(file)))?;
        }
        // Something else may lie there, which is not the lab's.
        let _ = fs::remove_dir(&self.info.dir);
        Ok(())
    }

    fn end_processes(&self) {
        if let Ok(address) = LabAddress::read(&self.info.dir) {
            let process = Process::find(address.pid, &lab_marker(&self.info.dir));
            // The nodes of the twin end with their connection to the lab.
            let asked = address.control(&Control::Down).is_ok();
            if let Some(process) = process
                && !(asked && process.ends_within(Duration::from_secs(2)))
            {
                process.signal(Signal::KILL);
                process.ends_within(Duration::from_secs(2));
            }
        }
        let processes: Vec<Process> = self.info.hosts.iter().filter_map(|host| self.process(host)).collect();
        // Real nodes that stop one after another drain in vain once there is no quorum: they are not waited for
        // long, and a lab has no data that anyone wants.
        let grace =
            Instant::now() + if self.info.real { Duration::from_secs(5) } else { Duration::from_secs(1) };
        for process in &processes {
            process.signal(Signal::TERM);
        }
        for process in &processes {
            if !process.ends_within(grace.saturating_duration_since(Instant::now())) {
                process.signal(Signal::KILL);
            }
        }
        for process in &processes {
            process.ends_within(Duration::from_secs(10));
        }
    }

    /// Between any two things that making a lab takes.
    fn go_on(&self) -> Result<(), LabError> {
        if self.cancel.load(Ordering::Relaxed) { Err(LabError::Cancelled) } else { Ok(()) }
    }

    fn host(&self, name: &str) -> Result<&LabHost, LabError> {
        let host = self.info.hosts.iter().find(|host| host.name.as_str() == name);
        host.ok_or_else(|| LabError::NoHost(name.to_owned()))
    }

    fn running(&self, name: &str) -> Result<Process, LabError> {
        self.process(self.host(name)?).ok_or_else(|| LabError::NotRunning(name.to_owned()))
    }

    fn process(&self, host: &LabHost) -> Option<Process> {
        if let Some(net) = &self.info.net {
            return Machine::new(&self.info.dir, net, host.name.as_str()).node();
        }
        Process::of_pid_file(&host.pid_file, &listen_flag(host))
    }

    fn save(&self) -> Result<(), LabError> {
        let text = serde_json::to_vec_pretty(&self.info).map_err(|e| io_error(STATE)(e.into()))?;
        write_private(&self.info.dir.join(STATE), &text).map_err(io_error(STATE))
    }
}

/// A lab that is ended when it is dropped: for tests and examples.
#[derive(Debug)]
pub struct ScopedLab(Lab);

impl ScopedLab {
    /// [`Lab::add`].
    ///
    /// # Errors
    /// As there.
    pub fn add(&mut self) -> Result<LabHost, LabError> {
        self.0.add()
    }
}

impl Deref for ScopedLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl Drop for ScopedLab {
    fn drop(&mut self) {
        if let Err(error) = self.0.end() {
            tracing::warn!(%error, "the lab was not ended");
        }
    }
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
    let what = what.into();
    move |source| LabError::Io { what, source }
}

fn security_flags(certs_dir: Option<&Path>) -> Vec<String> {
    vec![match certs_dir {
        Some(dir) => format!("--certs-dir={}", dir.display()),
        None => "--insecure".to_owned(),
    }]
}

fn append(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// By this argument the lab's process is known.
fn lab_marker(dir: &Path) -> String {
    format!("lab-in={}", dir.display())
}

fn listen_flag(host: &LabHost) -> String {
    format!("--listen-addr={}", host.address)
}

fn host_flag(host: &LabHost) -> String {
    format!("--host={}", host.address)
}

fn remove(removed: io::Result<()>) -> Result<(), LabError> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("what the lab made")(error)),
        _ => Ok(()),
    }
}

fn failed(args: &[&str], output: &Output) -> LabError {
    LabError::Command {
        command: format!("kwbase {}", args.join(" ")),
        end: output.code.map_or("was killed".to_owned(), |code| format!("ended with exit code {code}")),
        words: last_lines(&output.stderr),
    }
}

/// The last lines say what happened; before them there may be a page of usage.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n")
}
