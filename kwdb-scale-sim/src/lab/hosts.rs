//! Labs whose hosts are machines of their own: what is made and ended beside the nodes, and what may befall a host.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use kwdb_scale_core::deploy::UNIT;
use kwdb_scale_core::topology::{Address, HostName};

use super::netns::{
    CERTS, HUB, HostFile, LabNet, Machine, NetnsOptions, STORE, Tools, prepare_operator, write_into,
};
use super::start::START;
use super::{Hosts, Lab, LabError, LabHost, LabOptions, append, io_error, last_lines, netns, proc};
use crate::certs;
use crate::process::lab::{Hub, LabAddress, SOCKET};
use crate::process::wire::{Control, ControlReply};
use crate::standin::Standin;

/// The client certificate of root, and what shows whom to trust.
const CLIENT: [(&str, u32); 3] = [("ca.crt", 0o644), ("client.root.crt", 0o644), ("client.root.key", 0o600)];
/// The longest path of a socket that Linux takes.
const LONGEST_SOCKET: usize = 107;

/// What a host that is a machine of its own is made for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// To run a node from the beginning.
    Member,
    /// To join later.
    Spare,
    /// To join later, with no certificates on it yet.
    WithoutCertificates,
}

/// Whether this machine has what [`Hosts::Netns`](super::Hosts::Netns) needs, as far as that shows beforehand.
///
/// # Errors
/// [`LabError::Unfit`] with what is missing and the cure.
pub fn machines_can_be_made() -> Result<(), LabError> {
    Tools::find().map(drop)
}

/// That this machine can make such hosts in a lab's directory, before anything is made.
pub(super) fn must_be_fit(options: &LabOptions, dir: &Path) -> Result<(), LabError> {
    if matches!(options.hosts, Hosts::Processes) {
        return Ok(());
    }
    Tools::find()?;
    if options.ends_with_caller {
        return Err(LabError::Unfit {
            what: "hosts with namespaces of their own do not end with the process that made them".to_owned(),
            cure: "leave ends_with_caller out, and end the lab with down",
        });
    }
    let socket = dir.join("hub").join(SOCKET);
    if socket.as_os_str().len() > LONGEST_SOCKET || dir.to_str().is_none_or(|d| d.contains(['"', '\n'])) {
        return Err(LabError::Unfit {
            what: format!(
                "the path {} is too long or too strange for sockets and an ssh_config",
                dir.display()
            ),
            cure: "choose a shorter and plainer one",
        });
    }
    Ok(())
}

impl Lab {
    pub(super) fn prepare_machines(&mut self, how: &NetnsOptions, nodes: usize) -> Result<(), LabError> {
        let tools = Tools::find()?;
        let dir = self.info.dir.clone();
        for sub in ["hub", "files", "hosts"] {
            fs::create_dir_all(dir.join(sub)).map_err(io_error(sub))?;
        }
        for file in &how.files {
            write_into(&dir.join("files"), file)
                .map_err(io_error(format!("the hosts' {}", file.path().display())))?;
        }
        fs::write(dir.join("hub/hosts"), "127.0.0.1 localhost\n").map_err(io_error("hub/hosts"))?;
        prepare_operator(&tools, &dir, how.login.user())?;
        let net = LabNet::choose(&tools, how)?;
        if how.deploy {
            self.prepare_programs()?;
        }
        // Known before it is made: `down` removes it whatever happens now.
        self.info.net = Some(net.clone());
        self.save()?;
        net.make(&tools)?;
        for _ in 0..nodes {
            self.go_on()?;
            self.add_machine(&net, Role::Member)?;
        }
        Ok(())
    }

    /// Prepares one more host without certificates, as a machine is on which KWDB was only installed.
    ///
    /// # Errors
    /// As [`add`](Self::add); hosts that are directories, which share the certificates.
    pub fn add_without_certs(&mut self) -> Result<LabHost, LabError> {
        let net = self.info.net.clone().ok_or(LabError::NoMachines)?;
        self.add_machine(&net, Role::WithoutCertificates)
    }

    pub(super) fn add_machine(&mut self, net: &LabNet, role: Role) -> Result<LabHost, LabError> {
        let tools = Tools::find()?;
        let index = self.info.hosts.len();
        let address = net.host(index).ok_or_else(|| LabError::Unfit {
            what: format!("a lab has at most {} hosts", netns::MOST),
            cure: "make another lab",
        })?;
        let name = format!("n{}", index + 1);
        let at = |port: u16| Address::new(format!("{address}:{port}"));
        let host = LabHost {
            name: HostName::new(&name),
            address: at(26257),
            sql_address: at(26257),
            http_address: at(8080),
            brpc_address: at(27257),
            stores: match self.info.stores_per_node {
                0 | 1 => vec![STORE.into()],
                n => (1..=n).map(|i| Path::new(STORE).join(format!("store{i}"))).collect(),
            },
            pid_file: "/run/kwbase.pid".into(),
            output_file: self.info.dir.join("hosts").join(&name).join("output"),
            extra_flags: ["--cache=256MiB", "--max-sql-memory=256MiB", "--pid-file=/run/kwbase.pid"]
                .map(str::to_owned)
                .to_vec(),
        };
        self.info.hosts.push(host.clone());
        self.save()?;
        let dir = self.info.dir.clone();
        let machine = Machine::new(&dir, net, &name);
        let made = || {
            machine.prepare(self.info.real)?;
            machine.prepare_sshd(&tools, address)?;
            if role != Role::WithoutCertificates && self.info.certs_dir.is_some() {
                self.prepare_certs(&machine, index, &[&address.to_string(), &name])?;
            }
            if net.deploy {
                self.prepare_installation(&machine, address, role)?;
            }
            append(&dir.join("hub/hosts"))
                .and_then(|mut file| writeln!(file, "{address} {name}"))
                .map_err(io_error("hub/hosts"))?;
            let kwbase = self.info.real.then_some(self.info.kwbase.as_path());
            machine.boot(&tools, address, &self.info.executable, kwbase)?;
            machine.start_sshd(&tools, address)
        };
        if let Err(error) = made() {
            // Another attempt finds nothing of this one. What cannot be removed now is removed with the lab.
            if machine.remove(&tools).is_ok() && fs::remove_dir_all(machine.home()).is_ok() {
                self.info.hosts.pop();
                self.save()?;
            }
            return Err(error);
        }
        Ok(host)
    }

    /// Programs that are the same on all hosts and lie beside the machine's own ones.
    fn prepare_programs(&self) -> Result<(), LabError> {
        let files = self.info.dir.join("files");
        let standin = self.standin(std::net::Ipv4Addr::UNSPECIFIED, Role::Spare);
        let make = || {
            for (path, text, mode) in
                standin.files().into_iter().filter(|(path, ..)| path.starts_with("/usr/bin"))
            {
                write_into(&files, &HostFile::new(path, text, mode)?)?;
            }
            let Some((target, link)) = standin.link() else { return Ok(()) };
            let link = files.join(link.strip_prefix("/").map_err(std::io::Error::other)?);
            // One that the lab was given comes first.
            if link.symlink_metadata().is_ok() { Ok(()) } else { std::os::unix::fs::symlink(target, link) }
        };
        make().map_err(io_error("the hosts' programs"))
    }

    /// What the installer leaves on a host.
    fn prepare_installation(
        &self,
        machine: &Machine<'_>,
        address: std::net::Ipv4Addr,
        role: Role,
    ) -> Result<(), LabError> {
        let write = || {
            let files = self.standin(address, role).files();
            for (path, text, mode) in files.into_iter().filter(|(path, ..)| !path.starts_with("/usr/bin")) {
                write_into(&machine.own("/"), &HostFile::new(path, text, mode)?)?;
            }
            // The unit's user has to pass, and the directory is as the installer makes it.
            fs::create_dir_all(machine.own(CERTS))
        };
        write().map_err(io_error(format!("installation of {}", machine.name())))
    }

    fn standin(&self, address: std::net::Ipv4Addr, role: Role) -> Standin {
        let first = self.info.hosts.first().map(|host| host.address.to_string());
        Standin {
            mode: self.info.start_mode.clone(),
            secure: self.info.certs_dir.is_some(),
            user: netns::ORDINARY_USER.to_owned(),
            start_arg: "--cache=256MiB --max-sql-memory=256MiB".to_owned(),
            join: first.filter(|_| role == Role::Member),
            ..Standin::new("", netns::INSTALL_DIR, netns::PROGRAM, address.to_string())
        }
    }

    /// Starts a host's node from its unit, and comes back when something answers at its port.
    pub(super) fn start_unit(&self, host: &LabHost) -> Result<(), LabError> {
        let what = || format!("systemctl start {UNIT} on {}", host.name);
        let output = proc::run(self.enter(host)?.args(["systemctl", "start", UNIT]), START)
            .map_err(io_error(what()))?;
        let deadline = Instant::now() + START;
        // A unit is active before its process is the node: `setpriv` comes first.
        let active = || -> Result<bool, LabError> {
            let mut ask = self.enter(host)?;
            let asked =
                proc::run(ask.args(["systemctl", "is-active", UNIT]), START).map_err(io_error(what()))?;
            Ok(matches!(asked.stdout.trim(), "active" | "activating"))
        };
        while output.code == Some(0)
            && Instant::now() < deadline
            && (self.runs(host.name.as_str())? || active()?)
        {
            let socket = host.address.as_str().parse().map_err(std::io::Error::other);
            let socket = socket.map_err(io_error(what()))?;
            if TcpStream::connect_timeout(&socket, Duration::from_secs(1)).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        let log = self.info.seen_here(host.name.as_str(), "/run/kwdb-scale-standin/kaiwudb.log");
        let log = fs::read_to_string(log).unwrap_or_default();
        Err(LabError::Command {
            command: what(),
            end: format!("ended with {:?}, and its node does not answer", output.code),
            words: format!("{} {}", output.stderr.trim(), last_lines(&log)),
        })
    }

    /// The first host holds the CA's key, as the one from which a cluster was installed does.
    fn prepare_certs(&self, machine: &Machine<'_>, index: usize, names: &[&str]) -> Result<(), LabError> {
        let Some(mine) = &self.info.certs_dir else { return Ok(()) };
        let Some(net) = &self.info.net else { return Ok(()) };
        let holder = Machine::new(&self.info.dir, net, "n1").own(CERTS);
        let own = machine.own(CERTS);
        let make = || {
            fs::create_dir_all(&own)?;
            if index == 0 {
                certs::create_ca(&own)?;
                certs::create_client(&own, "root")?;
                fs::create_dir_all(mine)?;
                for (file, _) in CLIENT {
                    fs::copy(own.join(file), mine.join(file))?;
                }
            }
            fs::set_permissions(&own, fs::Permissions::from_mode(0o700))?;
            certs::create_node(&holder, &own, &[names, &["127.0.0.1", "localhost"]].concat())?;
            for (file, mode) in CLIENT {
                if index > 0 {
                    let text = fs::read(mine.join(file))?;
                    let file = HostFile::new(Path::new(CERTS).join(file), text, mode)?;
                    write_into(&machine.own("/"), &file)?;
                }
            }
            Ok(())
        };
        make().map_err(io_error(format!("certificates of {}", machine.name())))
    }

    /// What the twin's process needs to be reached from hosts.
    pub(super) fn hub(&self) -> Option<Hub> {
        self.info.net.as_ref().map(|_| Hub { dir: self.info.dir.join("hub"), seen_as: HUB.into() })
    }

    /// Ends every process on every host, and removes the hosts and their network.
    pub(super) fn remove_machines(&self) -> Result<(), LabError> {
        let Some(net) = &self.info.net else { return Ok(()) };
        let tools = Tools::find()?;
        for host in &self.info.hosts {
            Machine::new(&self.info.dir, net, host.name.as_str()).remove(&tools)?;
        }
        net.remove(&tools)
    }

    /// A host that is a machine of its own.
    fn machine(&self, name: &str) -> Result<(Machine<'_>, &LabNet, Tools), LabError> {
        let host = self.host(name)?;
        let net = self.info.net.as_ref().ok_or(LabError::NoMachines)?;
        Ok((Machine::new(&self.info.dir, net, host.name.as_str()), net, Tools::find()?))
    }

    pub(super) fn enter(&self, host: &LabHost) -> Result<Command, LabError> {
        let (machine, _, tools) = self.machine(host.name.as_str())?;
        machine.enter(&tools)
    }

    /// The beginning of a command line that runs on a host as root, in all of its namespaces, without SSH: the
    /// program and its arguments are to be added.
    ///
    /// # Errors
    /// No such host; hosts that are directories.
    pub fn command_on(&self, name: &str) -> Result<Command, LabError> {
        let host = self.host(name)?;
        self.enter(host)
    }

    /// Puts a file on a host, in place of one of that name.
    ///
    /// # Errors
    /// No such host; hosts that are directories; the file cannot be written there.
    pub fn put(&self, name: &str, file: &HostFile) -> Result<(), LabError> {
        let (machine, _, tools) = self.machine(name)?;
        machine.put(&tools, file)
    }

    /// Cuts a host off: nothing reaches it and it reaches nobody, while all on it runs on. To be [healed](Self::heal).
    ///
    /// # Errors
    /// No such host; hosts that are directories.
    pub fn cut(&self, name: &str) -> Result<(), LabError> {
        let (_, net, tools) = self.machine(name)?;
        net.connect(&tools, name, false)?;
        self.freeze(name, true)
    }

    /// Connects a host again that was cut off.
    ///
    /// # Errors
    /// No such host; hosts that are directories.
    pub fn heal(&self, name: &str) -> Result<(), LabError> {
        let (_, net, tools) = self.machine(name)?;
        net.connect(&tools, name, true)?;
        self.freeze(name, false)
    }

    /// The twin's nodes meet in the model, where no cable is.
    fn freeze(&self, name: &str, frozen: bool) -> Result<(), LabError> {
        if self.info.real || !self.runs(name)? {
            return Ok(());
        }
        let control = Control::Freeze { address: self.host(name)?.address.to_string(), frozen };
        let reply = LabAddress::read(&self.info.dir)
            .and_then(|lab| lab.control(&control))
            .map_err(io_error("lab"))?;
        match reply {
            ControlReply::Failed(words) => {
                Err(LabError::Command { command: format!("cutting {name}"), end: "failed".to_owned(), words })
            }
            _ => Ok(()),
        }
    }

    /// Ends a host's sshd with every session. What sessions started may go on.
    ///
    /// # Errors
    /// No such host; hosts that are directories; it does not run.
    pub fn stop_sshd(&self, name: &str) -> Result<(), LabError> {
        self.machine(name)?.0.stop_sshd()
    }

    /// Starts a host's sshd.
    ///
    /// # Errors
    /// No such host; hosts that are directories; it runs; it does not come up.
    pub fn start_sshd(&self, name: &str) -> Result<(), LabError> {
        let (machine, net, tools) = self.machine(name)?;
        machine.start_sshd(&tools, self.ip(net, name)?)
    }

    /// Gives a host another key, of which the operator's known_hosts is not told, and starts its sshd again.
    ///
    /// # Errors
    /// No such host; hosts that are directories; its sshd does not come up.
    pub fn rekey(&self, name: &str) -> Result<(), LabError> {
        let (machine, net, tools) = self.machine(name)?;
        machine.rekey(&tools, self.ip(net, name)?)
    }

    fn ip(&self, net: &LabNet, name: &str) -> Result<std::net::Ipv4Addr, LabError> {
        let index = self.info.hosts.iter().position(|host| host.name.as_str() == name);
        index.and_then(|index| net.host(index)).ok_or_else(|| LabError::NoHost(name.to_owned()))
    }
}
