//! How a lab comes up.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kwdb_scale_core::policy::MIN_MEMBERS;
use kwdb_scale_core::topology::StartMode;

use super::hosts::must_be_fit;
use super::proc::{self, Output};
use super::{
    Hosts, Lab, LabError, LabHost, LabInfo, LabOptions, append, failed, host_flag, io_error, lab_marker,
    listen_flag, ports, security_flags,
};
use crate::certs;
use crate::model::uuid;
use crate::process::lab::{CONFIG, LabAddress, LabConfig};
use crate::process::wire::{Control, ControlReply};
use crate::process::{LAB, ROLE, ROLE_DETACH, ROLE_KWBASE, ROLE_LAB, random, write_private};

const POLL: Duration = Duration::from_millis(50);
/// A start command comes back two seconds after the start at the latest, on an idle machine.
pub(super) const START: Duration = Duration::from_secs(60);

/// A program that comes back and does nothing would be waited for.
fn must_be_kwbase(program: &Path) -> Result<(), LabError> {
    let output = proc::run(Command::new(program).arg("version"), START);
    let said = output.map_err(io_error(format!("{} version", program.display())))?;
    match kwdb_scale_core::kwbase::output::version(&said.stdout) {
        Ok(_) => Ok(()),
        Err(_) => Err(LabError::Unfit {
            what: format!("{} is no kwbase: it does not tell its version", program.display()),
            cure: "name the kwbase program of an installation or a build",
        }),
    }
}

impl Lab {
    /// The lab, and its ports, which are to be held until something listens there.
    pub(super) fn prepare(options: &LabOptions) -> Result<(Self, ports::Block), LabError> {
        let least = if options.single_replica { 1 } else { MIN_MEMBERS };
        if options.nodes < least {
            return Err(LabError::TooFewNodes(options.nodes));
        }
        if let Some(program) = &options.kwbase {
            must_be_kwbase(program)?;
        }
        let dir = &options.dir;
        let making = io_error(format!("cannot make {}", dir.display()));
        fs::create_dir_all(dir)
            .and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(0o700)))
            .map_err(making)?;
        let dir = dir.canonicalize().map_err(io_error(dir.display().to_string()))?;
        if fs::read_dir(&dir).map_err(io_error(dir.display().to_string()))?.next().is_some() {
            return Err(LabError::NotEmpty(dir));
        }
        must_be_fit(options, &dir)?;
        let ports = if matches!(options.hosts, Hosts::Processes) { options.nodes } else { 0 };
        let executable = own_executable(&dir, options.executable.as_deref());
        let executable = executable.map_err(io_error("the executable of the twin"))?;
        let kwbase = match &options.kwbase {
            Some(path) => path.canonicalize().map_err(io_error(path.display().to_string()))?,
            None => write_wrapper(&dir, &executable).map_err(io_error("bin/kwbase"))?,
        };
        let certs_dir = options.secure.then(|| dir.join("certs"));
        if let (Some(certs_dir), Hosts::Processes) = (&certs_dir, &options.hosts) {
            certs::create(certs_dir, &["127.0.0.1", "localhost"], &["root"])
                .map_err(io_error("certificates"))?;
        }
        let block = ports::find_block(ports).map_err(io_error("ports"))?;
        let mut lab = Self {
            cancel: Arc::clone(&options.cancel),
            info: LabInfo {
                kwbase,
                real: options.kwbase.is_some(),
                certs_dir,
                start_mode: if options.single_replica {
                    StartMode::SingleReplica
                } else {
                    StartMode::MultiReplica
                },
                speed: if options.kwbase.is_some() { 1.0 } else { options.speed },
                hosts: Vec::new(),
                net: None,
                executable,
                block: block.first,
                stores_per_node: options.stores_per_node,
                dir,
            },
        };
        let made = match &options.hosts {
            Hosts::Processes => (0..options.nodes).try_for_each(|_| lab.add().map(drop)),
            Hosts::Netns(how) => lab.prepare_machines(how, options.nodes),
        };
        match made {
            Ok(()) => Ok((lab, block)),
            Err(error) => {
                lab.give_up();
                Err(error)
            }
        }
    }

    pub(super) fn start_all(&mut self, options: &LabOptions, end: Instant) -> Result<(), LabError> {
        if !self.info.real {
            self.start_twin(options)?;
        }
        // One by one, so that node ids are the numbers of the names.
        for (index, host) in self.info.hosts.iter().enumerate() {
            self.go_on()?;
            self.start(host)?;
            if index == 0 {
                self.kwbase(&["init", &host_flag(host)], left(end))?;
            }
            self.until(end, &format!("{} did not join", host.name), || Ok(self.live_nodes()? > index))?;
        }
        if options.ranges > 0 {
            self.make_ranges(options.ranges, end)?;
        }
        if !options.single_replica {
            let joined = Instant::now();
            self.until(end, "not every range had its replicas", || self.is_replicated(joined))?;
        }
        Ok(())
    }

    /// Starts the lab's process.
    fn start_twin(&mut self, options: &LabOptions) -> Result<(), LabError> {
        let dir = &self.info.dir;
        let ca =
            self.info.certs_dir.as_ref().map(|certs| fs::read_to_string(certs.join("ca.crt"))).transpose();
        let config = LabConfig {
            port: self.info.block,
            token: format!("{:016x}{:016x}", random(), random()),
            speed: options.speed,
            seed: options.seed,
            cluster_id: uuid(random()),
            ends_with_owner: options.ends_with_caller,
            ca: ca.map_err(io_error("certificates"))?,
            hub: self.hub(),
        };
        let text = serde_json::to_vec(&config).map_err(|e| io_error("lab")(e.into()))?;
        write_private(&dir.join(CONFIG), &text).map_err(io_error("lab"))?;
        let log = append(&dir.join("twin.log")).map_err(io_error("lab"))?;
        let mut child = Command::new(&self.info.executable)
            .arg(lab_marker(dir))
            .env(ROLE, ROLE_LAB)
            .env(LAB, dir)
            .stdin(if options.ends_with_caller { Stdio::piped() } else { Stdio::null() })
            .stdout(log.try_clone().map_err(io_error("lab"))?)
            .stderr(log)
            .spawn()
            .map_err(io_error(format!("cannot start {}", self.info.executable.display())))?;
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if LabAddress::read(dir).is_ok_and(|address| address.control(&Control::Ping).is_ok()) {
                break;
            }
            let ended = child.try_wait().map_err(io_error("lab"))?;
            if ended.is_some() || Instant::now() > deadline {
                let words = fs::read_to_string(dir.join("twin.log")).unwrap_or_default();
                return Err(LabError::Command {
                    command: format!("{} {}", self.info.executable.display(), lab_marker(dir)),
                    end: ended.map_or("did not answer".to_owned(), |status| format!("ended with {status}")),
                    words: format!("{words} (does its main call kwdb_scale_sim::process::hook() first?)"),
                });
            }
            thread::sleep(Duration::from_millis(5));
        }
        // Nobody else waits for it, and without that it would stay a zombie as long as this process lives.
        let owner = child.stdin.take();
        thread::spawn(move || {
            let ended = child.wait();
            // Held until here: closed, it tells the lab that its owner is gone.
            drop(owner);
            ended
        });
        Ok(())
    }

    pub(super) fn start(&self, host: &LabHost) -> Result<(), LabError> {
        if self.info.net.as_ref().is_some_and(|net| net.deploy) {
            return self.start_unit(host);
        }
        let what = || format!("start of {}", host.name);
        let args = self.start_args(host);
        let output = append(&host.output_file).map_err(io_error(what()))?;
        let mut command = self.detached(host)?;
        command
            .args(&args)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(io_error(what()))?)
            .stderr(output);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"KWBASE_"))
        {
            command.env_remove(name);
        }
        let mut child = command.spawn().map_err(io_error(what()))?;
        let deadline = Instant::now() + START;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(io_error(what()))? {
                break status;
            }
            if Instant::now() > deadline {
                // It is left alone: it may yet come up, and `down` finds it by its pid file.
                return Err(LabError::Deadline(format!("{} did not come back", what())));
            }
            thread::sleep(Duration::from_millis(5));
        };
        if status.success() {
            return Ok(());
        }
        let words = fs::read_to_string(&host.output_file).unwrap_or_default();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Err(failed(&args, &Output { code: status.code(), stdout: String::new(), stderr: words }))
    }

    /// The beginning of a command line that runs a host's kwbase in a session of its own.
    fn detached(&self, host: &LabHost) -> Result<Command, LabError> {
        if self.info.net.is_some() {
            let mut command = self.enter(host)?;
            command.args(["setsid", "--wait"]).arg(self.info.host_program());
            return Ok(command);
        }
        let mut command = Command::new(&self.info.executable);
        command.arg(&self.info.kwbase).env(ROLE, ROLE_DETACH);
        Ok(command)
    }

    fn start_args(&self, host: &LabHost) -> Vec<String> {
        let join: Vec<String> = self.info.join().iter().map(ToString::to_string).collect();
        let mut args = vec![self.info.start_mode.as_str().to_owned()];
        args.extend(security_flags(self.info.host_certs_dir().as_deref()));
        args.extend(host.stores.iter().map(|store| format!("--store={}", store.display())));
        args.extend([
            listen_flag(host),
            format!("--http-addr={}", host.http_address),
            format!("--brpc-addr={}", host.brpc_address),
            format!("--join={}", join.join(",")),
            "--background".to_owned(),
        ]);
        args.extend(host.extra_flags.clone());
        args
    }

    /// Nodes that are live by the word of the first.
    fn live_nodes(&self) -> Result<usize, LabError> {
        let Some(first) = self.info.hosts.first() else { return Ok(0) };
        let args = ["node", "status", "--format=csv", &host_flag(first)];
        let text = match self.kwbase(&args, Duration::from_secs(20)) {
            Ok(text) => text,
            // A node that has just been started may not answer yet.
            Err(LabError::Command { .. }) => return Ok(0),
            Err(error) => return Err(error),
        };
        Ok(text.lines().filter(|line| line.ends_with(",true,true")).count())
    }

    fn make_ranges(&self, ranges: u32, end: Instant) -> Result<(), LabError> {
        if !self.info.real {
            let address = LabAddress::read(&self.info.dir).map_err(io_error("lab"))?;
            return match address.control(&Control::Ranges(ranges)).map_err(io_error("lab"))? {
                ControlReply::Failed(words) => Err(LabError::Command {
                    command: "CREATE TABLE app.kv".to_owned(),
                    end: "failed".to_owned(),
                    words,
                }),
                _ => Ok(()),
            };
        }
        self.sql("CREATE DATABASE app", end)?;
        self.sql("CREATE TABLE app.kv (k INT PRIMARY KEY, v STRING)", end)?;
        if ranges > 1 {
            let last = u64::from(ranges - 1) * 1000;
            self.sql(
                &format!("ALTER TABLE app.kv SPLIT AT SELECT generate_series(1000, {last}, 1000)"),
                end,
            )?;
        }
        Ok(())
    }

    /// `joined` is when the last node was seen live.
    fn is_replicated(&self, joined: Instant) -> Result<bool, LabError> {
        if !self.info.real {
            let address = LabAddress::read(&self.info.dir).map_err(io_error("lab"))?;
            let reply = address.control(&Control::Replicated).map_err(io_error("lab"))?;
            return Ok(matches!(reply, ControlReply::Replicated(true)));
        }
        let end = Instant::now() + Duration::from_secs(30);
        // What the descriptors say is true at once.
        let least = self.info.hosts.len().min(3);
        let thin = self.sql(
            &format!(
                "SELECT count(*) FROM kwdb_internal.ranges_no_leases WHERE array_length(replicas, 1) < {least} OR \
                 array_length(learner_replicas, 1) > 0"
            ),
            end,
        )?;
        if thin.lines().last() != Some("0") {
            return Ok(false);
        }
        // What each zone wants is known to the gauges. They are computed and written every ten seconds: only what
        // was written so long after the last node had joined counts that node.
        let Some(fresh) = joined.elapsed().as_secs().checked_sub(10) else { return Ok(false) };
        let gauges = self.sql(
            &format!(
                "SELECT count(*), sum((s.metrics->>'ranges.underreplicated')::DECIMAL)::INT, \
                 sum((s.metrics->>'ranges.unavailable')::DECIMAL)::INT FROM kwdb_internal.kv_store_status s, \
                 kwdb_internal.kv_node_status n WHERE s.node_id = n.node_id AND \
                 n.updated_at > now()::TIMESTAMP - INTERVAL '{fresh}s'"
            ),
            end,
        )?;
        let stores: usize = self.info.hosts.iter().map(|host| host.stores.len()).sum();
        Ok(gauges.lines().last() == Some(format!("{stores},0,0").as_str()))
    }

    fn sql(&self, statement: &str, end: Instant) -> Result<String, LabError> {
        let Some(first) = self.info.hosts.first() else { return Ok(String::new()) };
        self.kwbase(&["sql", "--format=csv", &host_flag(first), "-e", statement], left(end))
    }

    fn until(
        &self,
        end: Instant,
        what: &str,
        mut done: impl FnMut() -> Result<bool, LabError>,
    ) -> Result<(), LabError> {
        while !done()? {
            self.go_on()?;
            if Instant::now() > end {
                return Err(LabError::Deadline(what.to_owned()));
            }
            thread::sleep(if self.info.real { 10 * POLL } else { POLL });
        }
        Ok(())
    }
}

/// A copy of the executable that is the lab's own, so that the lab goes on when the file is built anew or replaced: what is
/// started later would find the new one, or none. No link: what somebody does to the file would show in the lab's hosts.
fn own_executable(dir: &Path, given: Option<&Path>) -> io::Result<PathBuf> {
    // The one that runs, also where its file is gone by now.
    let content = given.unwrap_or(Path::new("/proc/self/exe"));
    let bin = dir.join("bin");
    fs::create_dir_all(&bin)?;
    let own = bin.join("twin");
    fs::copy(content, &own)?;
    Ok(own)
}

/// The twin's `kwbase`: a script, because the executable is told by its environment what it is to be.
fn write_wrapper(dir: &Path, executable: &Path) -> io::Result<PathBuf> {
    let quote = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    let text = format!(
        "#!/bin/sh\n# The kwbase of the simulated cluster in this directory.\n{ROLE}={ROLE_KWBASE} {LAB}={} exec {} \"$@\"\n",
        quote(dir),
        quote(executable)
    );
    let bin = dir.join("bin");
    fs::create_dir_all(&bin)?;
    let path = bin.join("kwbase");
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now()).max(Duration::from_secs(1))
}
