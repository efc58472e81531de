//! Running `kwscale` and labs, and looking at what they leave.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio_postgres_rustls::MakeRustlsConnect;

pub(crate) const KWSCALE: &str = env!("CARGO_BIN_EXE_kwscale");
/// The variable that names a `cluster.toml`; whoever runs the tests may have one.
const CLUSTER: &str = "KWSCALE_CLUSTER";
/// The transcript of a command keeps so much of each stream.
const SHOWN: usize = 6000;

/// One case: which KWDB it runs on, and a record of what was run.
pub(crate) struct Case {
    pub(crate) real: Option<PathBuf>,
    /// `control` of every lab's `cluster.toml`; the default where it is `None`.
    control: Option<String>,
    name: &'static str,
    transcript: Mutex<String>,
}

/// What a command left.
pub(crate) struct Out {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    line: String,
}

impl Out {
    /// The same, if it ended with that exit code.
    #[track_caller]
    pub(crate) fn exit(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code of `{}`", self.line);
        self
    }

    /// The same, if each word is in one of the streams.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        let all = format!("{}\n{}", self.stdout, self.stderr).to_lowercase();
        for word in words {
            assert!(all.contains(&word.to_lowercase()), "`{}` does not say '{word}'", self.line);
        }
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("`{}` printed no JSON: {e}", self.line))
    }
}

impl Case {
    pub(crate) fn new(name: &'static str, real: Option<PathBuf>, control: Option<String>) -> Self {
        Self { real, control, name, transcript: Mutex::new(String::new()) }
    }

    pub(crate) fn transcript(&self) -> String {
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn note(&self, text: &str) {
        let mut transcript = self.transcript.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(transcript, "{text}");
    }

    /// Runs `kwscale` to its end.
    pub(crate) fn kwscale(&self, args: &[&str]) -> Out {
        self.start(args, &[]).end(self)
    }

    /// Starts `kwscale`, output into files.
    pub(crate) fn start(&self, args: &[&str], env: &[(&str, &str)]) -> Running {
        self.start_command(
            Command::new(KWSCALE).args(args).env_remove(CLUSTER).envs(env.iter().copied()),
            format!("kwscale {}", args.join(" ")),
        )
    }

    /// Runs another program to its end.
    pub(crate) fn run(&self, program: &Path, args: &[&str]) -> Out {
        let line = format!("{} {}", program.display(), args.join(" "));
        self.start_command(Command::new(program).args(args).env_remove(CLUSTER), line).end(self)
    }

    pub(crate) fn start_command(&self, command: &mut Command, line: String) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| fs::File::create(dir.path().join(name)).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err")).spawn().unwrap();
        Running { child, dir, line, begun: Instant::now() }
    }

    /// Where a lab may come up; it is ended if it does.
    pub(crate) fn place(&self) -> TestLab<'_> {
        let home = tempfile::Builder::new().prefix("kwscale-e2e-").tempdir().unwrap();
        let dir = home.path().join("lab").display().to_string();
        TestLab { case: self, home, dir }
    }

    /// A lab; on the twin at that speed.
    pub(crate) fn lab(&self, nodes: u32, speed: u32, more: &[&str]) -> TestLab<'_> {
        // Before it comes up, so that it is ended whatever happens.
        let lab = self.place();
        let (nodes, speed) = (nodes.to_string(), speed.to_string());
        let mut args = vec!["lab", "up", "--dir", &lab.dir, "--nodes", &nodes];
        args.extend(more);
        let kwbase = self.real.as_ref().map(|p| p.display().to_string());
        match &kwbase {
            Some(path) => args.extend(["--kwbase", path]),
            None => args.extend(["--speed", &speed]),
        }
        self.kwscale(&args).exit(0);
        if let Some(control) = &self.control {
            lab.control(control);
        }
        lab
    }

    /// Waits until that holds.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, secs: u64, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(secs);
        while !holds() {
            assert!(Instant::now() < end, "{}: not within {secs} s: {what}", self.name);
            sleep(Duration::from_millis(150));
        }
    }
}

/// A command under way; ended when it is dropped.
pub(crate) struct Running {
    child: Child,
    dir: tempfile::TempDir,
    line: String,
    begun: Instant,
}

impl Running {
    /// Sends a signal to it, and to nothing else.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has said on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.dir.path().join("err")).unwrap_or_default()
    }

    /// Waits for its end, at most five minutes; on a real KWDB, whose scans of a busy machine take their time, fifteen.
    #[track_caller]
    pub(crate) fn end(mut self, case: &Case) -> Out {
        let limit = Duration::from_secs(if case.real.is_some() { 900 } else { 300 });
        let deadline = self.begun + limit;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break None,
                None => sleep(Duration::from_millis(20)),
            }
        };
        let read =
            |name: &str| String::from_utf8_lossy(&fs::read(self.dir.path().join(name)).unwrap()).into_owned();
        let out = Out {
            code: status.and_then(|s| s.code()),
            stdout: read("out"),
            stderr: read("err"),
            line: self.line.clone(),
        };
        let cut = |text: &str| match text.char_indices().nth(SHOWN) {
            Some((at, _)) => format!("{}…\n", &text[..at]),
            None => text.to_owned(),
        };
        case.note(&format!(
            "$ {}   ({:.1} s)\n{}{}[exit {:?}]",
            self.line,
            self.begun.elapsed().as_secs_f32(),
            cut(&out.stdout),
            cut(&out.stderr),
            out.code
        ));
        assert!(status.is_some(), "`{}` did not end within {limit:?}", self.line);
        out
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A lab that is ended when it is dropped, also when its case fails.
pub(crate) struct TestLab<'a> {
    case: &'a Case,
    home: tempfile::TempDir,
    dir: String,
}

impl Drop for TestLab<'_> {
    fn drop(&mut self) {
        if Path::new(&self.dir).exists() {
            let out = self.case.kwscale(&["lab", "down", "--dir", &self.dir]);
            if out.code != Some(0) {
                println!("{}: the lab in {} was not ended: {}", self.case.name, self.dir, out.stderr);
            }
        }
    }
}

impl TestLab<'_> {
    /// A path in the case's own directory, outside of the lab's.
    pub(crate) fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    /// A path in the lab's directory.
    pub(crate) fn inside(&self, name: &str) -> PathBuf {
        Path::new(&self.dir).join(name)
    }

    pub(crate) fn cluster_file(&self) -> String {
        self.inside("cluster.toml").display().to_string()
    }

    /// `kwscale lab VERB --dir DIR …`, which must succeed.
    #[track_caller]
    pub(crate) fn lab(&self, verb: &str, more: &[&str]) -> Out {
        let mut args = vec!["lab", verb, "--dir", &self.dir];
        args.extend(more);
        self.case.kwscale(&args).exit(0)
    }

    /// `kwscale --cluster FILE …`.
    pub(crate) fn kwscale(&self, args: &[&str]) -> Out {
        self.with(&self.cluster_file(), args)
    }

    /// The same with another file.
    pub(crate) fn with(&self, file: &str, args: &[&str]) -> Out {
        let mut all = vec!["--cluster", file];
        all.extend(args);
        self.case.kwscale(&all)
    }

    /// The same, not waited for.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let file = self.cluster_file();
        let mut all = vec!["--cluster", file.as_str()];
        all.extend(args);
        self.case.start(&all, &[])
    }

    /// Makes a plan, which must not be refused, in a file.
    #[track_caller]
    pub(crate) fn plan(&self, args: &[&str]) -> String {
        let file = self.path("plan.json");
        // A real one whose node was marked and taken back needs its time to replicate again what had shrunk.
        let wait = if self.case.real.is_some() { "5m" } else { "90s" };
        let mut all = vec!["plan", "-o", file.as_str(), "--wait-healthy", wait];
        all.extend(args);
        self.kwscale(&all).exit(0);
        file
    }

    /// Makes a plan and carries it out.
    #[track_caller]
    pub(crate) fn change(&self, args: &[&str]) -> Out {
        let plan = self.plan(args);
        self.kwscale(&["apply", &plan, "--yes"]).exit(0)
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Status {
        Status(self.kwscale(&["status", "--format", "json"]).exit(0).json())
    }

    /// The program that the hosts run as kwbase.
    pub(crate) fn kwbase(&self) -> PathBuf {
        match &self.case.real {
            Some(path) => path.clone(),
            None => self.inside("bin/kwbase"),
        }
    }

    /// The file with something changed, beside the original.
    pub(crate) fn edited(&self, name: &str, edit: impl FnOnce(String) -> String) -> String {
        let path = self.inside(name);
        let text = fs::read_to_string(self.cluster_file()).unwrap();
        let changed = edit(text.clone());
        assert_ne!(text, changed, "nothing was edited");
        fs::write(&path, changed).unwrap();
        path.display().to_string()
    }

    /// Changes the file itself.
    #[track_caller]
    pub(crate) fn rewrite(&self, edit: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.cluster_file()).unwrap();
        let changed = edit(text.clone());
        assert_ne!(text, changed, "nothing was edited");
        fs::write(self.cluster_file(), changed).unwrap();
    }

    /// Says in the file how nodes are marked and stopped, whatever it said.
    pub(crate) fn control(&self, control: &str) {
        let text = fs::read_to_string(self.cluster_file()).unwrap();
        let others: Vec<&str> = text.lines().filter(|line| !line.starts_with("control = ")).collect();
        let said = format!("[cluster]\ncontrol = \"{control}\"");
        let text = others.join("\n").replacen("[cluster]", &said, 1);
        fs::write(self.cluster_file(), text + "\n").unwrap();
    }

    /// Runs statements as root through n1.
    pub(crate) fn sql(&self, statements: &[&str]) {
        let address = self.status().0["gateway"].as_str().unwrap().to_owned();
        let (host, port) = address.rsplit_once(':').unwrap();
        let certs = self.inside("certs");
        let ssl = if certs.exists() { "require" } else { "disable" };
        let config = format!("host={host} port={port} user=root dbname=system sslmode={ssl}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // An insecure one is never asked for TLS.
            let tls = MakeRustlsConnect::new(tls(&certs));
            let (client, connection) = tokio_postgres::connect(&config, tls).await.unwrap();
            let connection = tokio::spawn(connection);
            for statement in statements {
                self.case.note(&format!("sql> {statement}"));
                if let Err(e) = client.simple_query(statement).await {
                    panic!(
                        "{statement}: {}",
                        e.as_db_error().map_or_else(|| e.to_string(), ToString::to_string)
                    );
                }
            }
            drop(client);
            let _ = connection.await;
        });
    }
}

/// Root's side of TLS, as far as there are certificates.
fn tls(certs: &Path) -> rustls::ClientConfig {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut roots = rustls::RootCertStore::empty();
    if !certs.exists() {
        return builder.unwrap().with_root_certificates(roots).with_no_client_auth();
    }
    let read = |name: &str| CertificateDer::from_pem_file(certs.join(name)).unwrap();
    roots.add(read("ca.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(certs.join("client.root.key")).unwrap();
    let builder = builder.unwrap().with_root_certificates(roots);
    builder.with_client_auth_cert(vec![read("client.root.crt")], key).unwrap()
}

/// What `status --format json` said.
pub(crate) struct Status(pub(crate) Value);

impl Status {
    /// The node with that id.
    pub(crate) fn node(&self, id: u64) -> Option<&Value> {
        self.0["nodes"].as_array().unwrap().iter().find(|n| n["id"] == id)
    }

    /// Its class, or `none`.
    pub(crate) fn class(&self, id: u64) -> &str {
        self.node(id).map_or("none", |n| n["class"].as_str().unwrap())
    }

    /// Its decommissioning bit.
    pub(crate) fn marked(&self, id: u64) -> bool {
        self.node(id).is_some_and(|n| n["decommissioning"] == true)
    }

    /// Ids of members.
    pub(crate) fn members(&self) -> Vec<u64> {
        let nodes = self.0["nodes"].as_array().unwrap().iter();
        nodes.filter(|n| n["class"] == "member").map(|n| n["id"].as_u64().unwrap()).collect()
    }

    /// Nothing unavailable or under-replicated, and that is known.
    pub(crate) fn good(&self) -> bool {
        self.0["ranges"]["good"] == true
    }
}
