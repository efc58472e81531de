//! A host as a machine of its own: how it is made, what runs on it, and how it goes.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::super::proc::{Process, arguments};
use super::super::{LabError, append, io_error};
use super::HostFile;
use super::network::{self, LabNet, Tools};
use crate::process::{ROLE, ROLE_INIT};

/// Directories that every host has to itself, at the same path below `hosts/NAME/root` of the lab's directory. What a
/// host writes elsewhere is kept in memory, and gone with it.
const OWN: &[&str] = &[
    "etc/kaiwudb",
    "etc/ssh",
    "etc/sudoers.d",
    "etc/systemd/system",
    "home",
    "opt/kwdb_install",
    "root",
    "run",
    "tmp",
    "usr/local/kaiwudb",
    // Not the store itself, which could not be moved aside as a mount point.
    "var/lib",
    "var/log",
];

/// Where a host sees the lab's `hub` directory.
pub(in crate::lab) const HUB: &str = "/run/kwdb-lab";

/// Makes a host's files of its own and becomes its first process. Runs in fresh mount, process, UTS and network
/// namespaces, in which it hides this machine's files behind an overlay whose upper layer is in memory.
const SETUP: &str = r#"
set -eu
marker=$1 name=$2 home=$3 hub=$4 files=$5 executable=$6 kwbase=$7 role=$8 user=$9
shift 9
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

# The machine's files, with a layer of our own above them.
mount -t tmpfs -o mode=755 kwdb-lab "$home/machine"
cd "$home/machine"
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work kwdb-lab root
for dir in usr etc var opt; do
  # An overlay does not look into what is mounted below it.
  mountpoint -q "/$dir" || continue
  mkdir "upper-$dir" "work-$dir"
  mount -t overlay -o "lowerdir=/$dir,upperdir=upper-$dir,workdir=work-$dir" kwdb-lab "root/$dir"
done
cd root
mkdir .kwdb-lab-machine
pivot_root . .kwdb-lab-machine
cd /
old=/.kwdb-lab-machine

# From here every path is the host's own.
mount -t proc proc /proc
mount -t sysfs -o ro sysfs /sys
mount --rbind "$old/dev" /dev
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
for dir do
  mkdir -p "/$dir"
  mount --bind "$old$home/root/$dir" "/$dir"
done
mkdir -p /run/kwdb-lab /run/sshd /run/lock
mount --bind "$old$hub" /run/kwdb-lab
# A link would lead to the machine's.
rm -f /etc/hosts
ln -s /run/kwdb-lab/hosts /etc/hosts
: > /run/init
mount --bind "$old$executable" /run/init
if [ -n "$kwbase" ]; then
  : > /usr/local/kaiwudb/bin/kwbase
  mount --bind "$old$kwbase" /usr/local/kaiwudb/bin/kwbase
else
  : > /usr/local/kaiwudb/lib/kwbase
  mount --bind "$old$executable" /usr/local/kaiwudb/lib/kwbase
fi
echo "$name" > /proc/sys/kernel/hostname

# Nobody logs in with a password, and a locked account would not be let in with a key either.
sed -i "s/^root:[^:]*:/root:*:/; /^$user:/d" /etc/shadow
grep -q "^$user:" /etc/passwd || {
  id=990
  while grep -q "^[^:]*:[^:]*:$id:" /etc/passwd /etc/group; do id=$((id - 1)); done
  echo "$user:x:$id:$id::/home/$user:/bin/sh" >> /etc/passwd
  grep -q "^$user:" /etc/group || echo "$user:x:$id:" >> /etc/group
}
echo "$user:*:19000:0:99999:7:::" >> /etc/shadow
mkdir -p "/home/$user"
chown "$user:" "/home/$user"
# What the installer gives to the user of its unit.
[ ! -e /etc/kaiwudb/info/MODE ] || chown -R "$user:" /etc/kaiwudb /var/lib/kaiwudb
tar -C "$old$files" -cf - . | tar -C / --no-overwrite-dir --keep-directory-symlink -xf -

umount -l "$old"
rmdir "$old"
echo ready
exec env -i "PATH=$PATH" "$role" /run/init "$marker" > /dev/null 2>&1
"#;

/// Puts a file there all at once.
const PUT: &str = r#"
set -eu
mkdir -p "$(dirname "$1")"
cat > "$1.kwdb-lab"
chmod "$2" "$1.kwdb-lab"
mv -fT "$1.kwdb-lab" "$1"
"#;

const PATIENCE: Duration = Duration::from_secs(30);

/// A host of a lab in namespaces of its own, whether it is there or not.
#[derive(Debug)]
pub(in crate::lab) struct Machine<'a> {
    pub(super) dir: &'a Path,
    pub(super) net: &'a LabNet,
    pub(super) name: &'a str,
}

impl<'a> Machine<'a> {
    pub(in crate::lab) fn new(dir: &'a Path, net: &'a LabNet, name: &'a str) -> Self {
        Self { dir, net, name }
    }

    pub(in crate::lab) fn name(&self) -> &str {
        self.name
    }

    /// Its directory in the lab's.
    pub(in crate::lab) fn home(&self) -> PathBuf {
        self.dir.join("hosts").join(self.name)
    }

    /// A file in one of the directories of [`OWN`], as this machine sees it.
    pub(in crate::lab) fn own(&self, path: &str) -> PathBuf {
        self.home().join("root").join(path.trim_start_matches('/'))
    }

    /// Makes its directories, which are empty but for the twin's `kwbase` and an empty store.
    pub(in crate::lab) fn prepare(&self, real: bool) -> Result<(), LabError> {
        let home = self.home();
        let making = |path: &Path| io_error(format!("cannot make {}", path.display()));
        for dir in OWN.iter().map(|own| self.own(own)).chain([home.join("machine")]) {
            fs::create_dir_all(&dir).map_err(making(&dir))?;
        }
        for (dir, mode) in [("tmp", 0o1777), ("root", 0o700), ("etc/sudoers.d", 0o755), ("run", 0o755)] {
            let dir = self.own(dir);
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).map_err(making(&dir))?;
        }
        let sudo = format!("{} ALL=(ALL:ALL) NOPASSWD: ALL\n", super::ORDINARY_USER);
        let mut files = vec![(HostFile::new("/etc/sudoers.d/kwdb-lab", sudo, 0o440), "sudoers")];
        for dir in ["usr/local/kaiwudb/bin", "usr/local/kaiwudb/lib", super::STORE] {
            fs::create_dir_all(self.own(dir)).map_err(making(&home))?;
        }
        if !real {
            let wrapper = format!(
                "#!/bin/sh\n# The kwbase of a simulated cluster.\n{ROLE}={} {}={HUB} exec /usr/local/kaiwudb/lib/kwbase \"$@\"\n",
                crate::process::ROLE_KWBASE,
                crate::process::LAB,
            );
            files.push((HostFile::new(super::PROGRAM, wrapper, 0o755), "kwbase"));
        }
        for (file, what) in files {
            file.and_then(|file| write_into(&home.join("root"), &file)).map_err(io_error(what))?;
        }
        Ok(())
    }

    /// Makes its namespaces, and comes back when its first process runs.
    pub(in crate::lab) fn boot(
        &self,
        tools: &Tools,
        address: std::net::Ipv4Addr,
        executable: &Path,
        kwbase: Option<&Path>,
    ) -> Result<(), LabError> {
        self.net.make_host(tools, self.name, address)?;
        let log_file = self.home().join("log");
        let log = append(&log_file).map_err(io_error("log"))?;
        // No Ctrl-C of the terminal in which the lab is made reaches it.
        let mut command = Command::new(&tools.setsid);
        command.arg(&tools.nsenter).arg(format!("--net={}", network::file(&self.namespace()).display()));
        command.arg(&tools.unshare).args([
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "--",
            "sh",
            "-c",
            SETUP,
            "sh",
        ]);
        command.arg(self.marker()).arg(self.name).arg(self.home());
        command.arg(self.dir.join("hub")).arg(self.dir.join("files")).arg(executable);
        command
            .arg(kwbase.unwrap_or(Path::new("")))
            .args([&format!("{ROLE}={ROLE_INIT}"), super::ORDINARY_USER])
            .args(OWN);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(io_error(format!("cannot start {}", self.name)))?;
        let (said, hears) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                let mut line = String::new();
                let _ = BufReader::new(stdout).read_line(&mut line);
                let _ = said.send(line);
            });
        }
        let answer = hears.recv_timeout(PATIENCE);
        // Nobody else waits for it, and without that it would stay a zombie as long as this process lives.
        thread::spawn(move || child.wait());
        if answer.is_ok_and(|line| line == "ready\n") {
            return Ok(());
        }
        let words = fs::read_to_string(&log_file).unwrap_or_default();
        Err(LabError::Command {
            command: format!("making the host {}", self.name),
            end: "failed (overlay file systems and mount namespaces are needed)".to_owned(),
            words: words.trim().to_owned(),
        })
    }

    fn namespace(&self) -> String {
        self.net.namespace(self.name)
    }

    /// By this argument the parent of its first process is known.
    fn marker(&self) -> String {
        format!("kwdb-lab-host={}", self.namespace())
    }

    /// Runs a command on it as root.
    pub(in crate::lab) fn enter(&self, tools: &Tools) -> Result<Command, LabError> {
        let marker = self.marker();
        let parent = processes(&self.namespace())
            .find(|found| found.program() == "unshare" && found.arguments.contains(&marker))
            .ok_or_else(|| LabError::NotRunning(format!("the host {}", self.name)))?;
        let of = |what: &str| format!("/proc/{}/ns/{what}", parent.pid);
        let mut command = Command::new(&tools.nsenter);
        command
            .arg(format!("--mount={}", of("mnt")))
            .arg(format!("--uts={}", of("uts")))
            .arg(format!("--net={}", of("net")))
            .arg(format!("--pid={}", of("pid_for_children")))
            // Where this process was itself put under another root, that of the namespace is not the host's.
            .arg(format!("--root=/proc/{}/root", parent.pid))
            .arg("--")
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root");
        Ok(command)
    }

    /// Puts a file on it while it runs.
    pub(in crate::lab) fn put(&self, tools: &Tools, file: &HostFile) -> Result<(), LabError> {
        let what = || format!("{} on {}", file.path.display(), self.name);
        let mut child = self
            .enter(tools)?
            .args(["sh", "-c", PUT, "sh"])
            .arg(&file.path)
            .arg(format!("{:o}", file.mode))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(io_error(what()))?;
        let written = child.stdin.take().map(|mut input| input.write_all(&file.content));
        let output = child.wait_with_output().map_err(io_error(what()))?;
        if output.status.success() {
            return written.unwrap_or(Ok(())).map_err(io_error(what()));
        }
        Err(LabError::Command {
            command: format!("writing {}", what()),
            end: format!("ended with {}", output.status),
            words: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// The process of its node.
    pub(in crate::lab) fn node(&self) -> Option<Process> {
        let node = processes(&self.namespace()).find(|found| {
            found.program() == "kwbase"
                && found.arguments.get(1).is_some_and(|command| command.starts_with("start"))
        });
        node.map(|found| found.process)
    }

    /// Every process of a host whose program has that name.
    pub(super) fn all(&self, program: &str) -> Vec<Process> {
        let all = processes(&self.namespace()).filter(|found| found.program() == program);
        all.map(|found| found.process).collect()
    }

    /// Ends every process on it and removes its network.
    pub(in crate::lab) fn remove(&self, tools: &Tools) -> Result<(), LabError> {
        end_all(&self.namespace(), self.name)?;
        self.net.remove_host(tools, self.name)
    }
}

/// A process in a network namespace.
struct Found {
    pid: u32,
    process: Process,
    arguments: Vec<String>,
}

impl Found {
    /// The name of its program, as it calls itself.
    fn program(&self) -> &str {
        let first = self.arguments.first().map(String::as_str).unwrap_or_default();
        let first = first.split([' ', ':']).next().unwrap_or_default();
        first.rsplit('/').next().unwrap_or_default()
    }
}

/// Every process in that network namespace.
fn processes(namespace: &str) -> impl Iterator<Item = Found> + use<> {
    let wanted = fs::metadata(network::file(namespace)).map(|file| (file.dev(), file.ino())).ok();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(move |entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let process = Process::open(pid)?;
        // Looked at after the handle was had, so that both are of one process.
        let own = fs::metadata(entry.path().join("ns/net")).ok()?;
        ((own.dev(), own.ino()) == wanted?).then(|| Found { pid, process, arguments: arguments(pid) })
    })
}

/// Ends every process in that network namespace.
fn end_all(namespace: &str, what: &str) -> Result<(), LabError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let all: Vec<Found> = processes(namespace).collect();
        if all.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(LabError::Deadline(format!("the processes of {what} did not end")));
        }
        for found in &all {
            found.process.signal(Signal::KILL);
        }
        for found in &all {
            found.process.ends_within(Duration::from_secs(2));
        }
    }
}

/// Writes a file below a directory that stands for a host's root.
pub(in crate::lab) fn write_into(root: &Path, file: &HostFile) -> io::Result<()> {
    let relative = file.path.strip_prefix("/").map_err(io::Error::other)?;
    let path = root.join(relative);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut open: File =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    open.write_all(&file.content)?;
    // Whatever the mask of this process.
    open.set_permissions(fs::Permissions::from_mode(file.mode))
}
