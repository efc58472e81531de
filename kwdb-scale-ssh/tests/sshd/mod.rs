//! A real sshd of OpenSSH for one test: on a loopback port, with keys and configuration of its own in a temporary
//! directory, ended when dropped.
#![allow(dead_code, reason = "every test takes what it needs")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use kwdb_scale_core::ports::HostTransport;
use kwdb_scale_core::topology::HostName;
use kwdb_scale_ssh::{HostKeyPolicy, KeyFile, SshHost, SshTransport};
use tempfile::TempDir;

/// Longer than anything takes on a busy machine; only a failure waits for so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Where sshd is. Without it tests fail in CI, and elsewhere say so and do nothing.
pub(crate) fn installed() -> Option<PathBuf> {
    let places = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd"];
    let found = places.iter().map(PathBuf::from).find(|p| p.exists());
    assert!(found.is_some() || std::env::var_os("CI").is_none(), "sshd is not installed");
    if found.is_none() {
        let thread = std::thread::current();
        eprintln!("not run, because sshd is not installed: {}", thread.name().unwrap_or("a test"));
    }
    found
}

/// The name of the user who runs the tests, and so the only one whom an sshd of theirs lets in.
pub(crate) fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub(crate) fn keygen(args: &[&str]) {
    let output = Command::new("ssh-keygen").arg("-q").args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "ssh-keygen {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes a key pair and gives its path.
pub(crate) fn key(dir: &Path, name: &str, kind: &str, passphrase: &str) -> PathBuf {
    let path = dir.join(name);
    keygen(&["-t", kind, "-N", passphrase, "-C", name, "-f", path.to_str().unwrap()]);
    path
}

pub(crate) fn public(key: &Path) -> String {
    std::fs::read_to_string(key.with_extension("pub")).unwrap()
}

pub(crate) struct Sshd {
    pub(crate) dir: TempDir,
    pub(crate) port: u16,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Sshd {
    /// With an Ed25519 host key, in which the key `id` may log in; `extra` lines of configuration come first.
    pub(crate) fn start(sshd: &Path, extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        key(dir.path(), "host", "ed25519", "");
        let id = key(dir.path(), "id", "ed25519", "");
        std::fs::write(dir.path().join("authorized_keys"), public(&id)).unwrap();
        Self::start_in(dir, sshd, extra)
    }

    /// The same with the keys that are in `dir`.
    pub(crate) fn start_in(dir: TempDir, sshd: &Path, extra: &str) -> Self {
        // sshd wants its directory when it runs as root; packages make it when the service starts.
        if user() == "root" {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let at = |name: &str| dir.path().join(name).display().to_string();
            let config = format!(
                "{extra}\nPort {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
                 UsePAM no\nPermitRootLogin yes\nStrictModes no\nPasswordAuthentication no\n\
                 KbdInteractiveAuthentication no\nSetEnv KWBASE_LEFT_OVER=x HOME={}\n",
                at("host"),
                at("authorized_keys"),
                // Not the login scripts of whoever runs the tests.
                dir.path().display(),
            );
            std::fs::write(dir.path().join("sshd_config"), config).unwrap();
            let mut child = Command::new(sshd)
                .args(["-D", "-e", "-f", &at("sshd_config")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let (ready, is_ready) = mpsc::channel();
            let log = Arc::new(Mutex::new(String::new()));
            let (stderr, kept) = (child.stderr.take().unwrap(), Arc::clone(&log));
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    kept.lock().unwrap().push_str(&format!("{line}\n"));
                    if line.contains("Server listening on") {
                        let _ = ready.send(());
                    }
                }
            });
            if is_ready.recv_timeout(PATIENCE).is_ok() {
                return Self { dir, port, child, log };
            }
            // Somebody took the port meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            eprintln!("sshd did not start: {}", log.lock().unwrap());
        }
        panic!("sshd does not start");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A known_hosts file with its key.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        let file = self.path("known_hosts");
        std::fs::write(&file, format!("[127.0.0.1]:{} {}", self.port, public(&self.path("host")))).unwrap();
        file
    }

    pub(crate) fn strict(&self) -> HostKeyPolicy {
        HostKeyPolicy::Strict { files: vec![self.known_hosts()] }
    }

    /// How to reach it, without a way to log in.
    pub(crate) fn bare_host(&self) -> SshHost {
        SshHost::new("127.0.0.1", user(), self.strict()).port(self.port)
    }

    pub(crate) fn host(&self) -> SshHost {
        self.bare_host().login(KeyFile::new(self.path("id")))
    }

    pub(crate) fn transport(&self) -> SshTransport {
        transport(self.host())
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// How many connections were let in.
    pub(crate) fn logins(&self) -> usize {
        self.log().matches("Accepted ").count()
    }

    /// Stops the server, which then takes connections and says nothing, or lets it go on.
    pub(crate) fn hang(&self, hangs: bool) {
        let signal = if hangs { "-STOP" } else { "-CONT" };
        assert!(
            Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success()
        );
    }

    /// Ends every connection, and leaves the server and whatever was started.
    pub(crate) fn cut(&self) {
        // A connection is a process of sshd, or two: one for what needs privilege and one that speaks.
        let (mut parents, mut found) = (vec![self.child.id().to_string()], Vec::new());
        while let Some(parent) = parents.pop() {
            let output = Command::new("ps").args(["-o", "pid=,comm=", "--ppid", &parent]).output().unwrap();
            for line in String::from_utf8(output.stdout).unwrap().lines() {
                if let Some((pid, name)) = line.trim().split_once(' ')
                    && name.trim().starts_with("sshd")
                {
                    parents.push(pid.to_owned());
                    found.push(pid.to_owned());
                }
            }
        }
        for pid in found {
            let _ = Command::new("kill").args(["-KILL", &pid]).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- sshd said:\n{}---", self.log());
        }
    }
}

/// An agent of OpenSSH for one test.
pub(crate) struct SshAgent {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl SshAgent {
    pub(crate) fn start(dir: &Path) -> Self {
        let socket = dir.join("agent");
        let child =
            Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        let start = std::time::Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(start.elapsed() < PATIENCE, "the agent does not start");
            std::thread::yield_now();
        }
        Self { child, socket }
    }

    pub(crate) fn add(&self, key: &Path) {
        let output = Command::new("ssh-add").arg(key).env("SSH_AUTH_SOCK", &self.socket).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn n1() -> HostName {
    "n1".into()
}

pub(crate) fn transport(host: SshHost) -> SshTransport {
    SshTransport::new([(n1(), host)]).unwrap()
}

/// Asks again until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs a shell text that must succeed.
pub(crate) async fn sh(transport: &SshTransport, text: &str) -> String {
    let command = kwdb_scale_core::ports::Command::new(["sh", "-c", text]);
    let output = transport.run(&n1(), &command).await.unwrap_or_else(|e| panic!("{text}: {}", e.chain()));
    assert!(output.end.success(), "{text}: {output:?}");
    output.stdout
}
