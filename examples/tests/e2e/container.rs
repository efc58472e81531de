//! A node in a container of a real engine: added, looked at, stopped and taken out through podman, and through docker.
//!
//! The engine keeps everything in a directory of the case, and its images are made here of nothing but links into the
//! machine's `/usr`, so that nothing is fetched.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};
use serde_json::Value;

use crate::support::{Case, TestLab};

const SPEED: u32 = 40;
const IMAGE: &str = "kwdb-twin:1";
/// Where KWDB's own images have the store and the program.
const STORE: &str = "/kaiwudb/deploy/kaiwudb-container";
const PROGRAM: &str = "/kaiwudb/bin/kwbase";
/// What the node's container is called.
const NAME: &str = "kwdb5";

/// An engine of the case's own. Its containers end with it.
struct Engine {
    dir: PathBuf,
    /// The program as `kwscale` is told it.
    program: PathBuf,
    /// What `create` and `run` need on this machine.
    flags: Vec<String>,
    /// The program that the daemon is started by, and the daemon.
    daemon: Option<(PathBuf, Child)>,
}

fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/sbin", "/sbin"]);
    places.map(|dir| Path::new(dir).join(program)).find(|file| file.is_file())
}

fn program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A tree with nothing in it but places to mount at, and links such as every merged `/usr` has.
fn image(dir: &Path) -> PathBuf {
    let tree = dir.join("tree");
    for name in ["usr", "proc", "sys", "dev", "tmp", "run", "etc", "var", "root", "kaiwudb"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        if Path::new("/").join(name).is_symlink() {
            symlink(Path::new("usr").join(name), tree.join(name)).unwrap();
        }
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    let tar = dir.join("image.tar");
    let made = Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(&tar).arg(".").status().unwrap();
    assert!(made.success());
    tar
}

impl Engine {
    fn new(dir: PathBuf, real: &Path) -> Self {
        fs::create_dir_all(dir.join("bin")).unwrap();
        let file = dir.join("bin").join(real.file_name().unwrap());
        Self { dir, program: file, flags: ["--network", "host"].map(str::to_owned).to_vec(), daemon: None }
    }

    /// Podman with storage of the case's own. It does not take a machine with both kinds of cgroups, so it is given one
    /// with the newer kind, which it then leaves alone; nor may a container have higher limits than we have.
    fn podman(dir: PathBuf) -> Result<Self, String> {
        let real = found("podman").ok_or("podman is not installed")?;
        found("unshare").ok_or("unshare (util-linux) is not installed")?;
        let mut engine = Self::new(dir, &real);
        let (dir, real) = (engine.dir.display(), real.display());
        let text = format!(
            "#!/bin/sh\nexec unshare -m sh -c '\numount -R /sys/fs/cgroup 2>/dev/null\n\
             mount -t cgroup2 none /sys/fs/cgroup || exit 125\nexec \"$@\"' sh {real} --storage-driver vfs \
             --root {dir}/root --runroot {dir}/run --tmpdir {dir}/tmp \"$@\"\n"
        );
        program(&engine.program, &text);
        // Podman wants more processes than it may have; a node needs few.
        let limit = |of, most: u64| {
            let most = getrlimit(of).current.map_or(most, |own| own.min(most));
            format!("{most}:{most}")
        };
        let more = ["--cgroups".to_owned(), "disabled".to_owned()];
        engine.flags.extend(more);
        engine.flags.push(format!("--ulimit=nofile={}", limit(Resource::Nofile, 8192)));
        engine.flags.push(format!("--ulimit=nproc={}", limit(Resource::Nproc, 4096)));
        engine.ready()
    }

    /// Docker with a daemon of the case's own, without a network of its own.
    fn docker(dir: PathBuf) -> Result<Self, String> {
        let real = found("docker").ok_or("docker is not installed")?;
        let daemon = found("dockerd").ok_or("dockerd is not installed")?;
        let mut engine = Self::new(dir, &real);
        let text = format!(
            "#!/bin/sh\nexec {} --host unix://{}/socket \"$@\"\n",
            real.display(),
            engine.dir.display()
        );
        program(&engine.program, &text);
        engine.start_daemon(&daemon)?;
        engine.ready()
    }

    fn start_daemon(&mut self, daemon: &Path) -> Result<(), String> {
        let at = |name: &str| self.dir.join(name).display().to_string();
        let log = fs::File::create(at("dockerd.log")).unwrap();
        let child = Command::new("unshare")
            .args(["-m", "--"])
            .arg(daemon)
            .args(["--bridge=none", "--iptables=false", "--ip-forward=false", "--storage-driver=vfs"])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("dockerd.pid")])
            .args(["--host", &format!("unix://{}", at("socket"))])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .map_err(|e| format!("unshare: {e}"))?;
        self.daemon = Some((daemon.to_owned(), child));
        for _ in 0..200 {
            if self.call(&["version"]).is_ok() {
                return Ok(());
            }
            let ended = self.daemon.as_mut().is_some_and(|(_, child)| child.try_wait().unwrap().is_some());
            if ended {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(at("dockerd.log")).unwrap_or_default();
        Err(format!("dockerd does not come up: {}", log.lines().last().unwrap_or_default()))
    }

    fn end_daemon(&mut self) -> Option<PathBuf> {
        let (program, mut child) = self.daemon.take()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let _ = kill_process(pid, Signal::TERM);
        let _ = child.wait();
        Some(program)
    }

    /// What a reboot does of an engine: its daemon ends with all containers, and those that shall run start again.
    fn reboot(&mut self) {
        if let Some(program) = self.end_daemon() {
            self.start_daemon(&program).unwrap();
        }
    }

    /// Its image, and whether a container can run at all.
    fn ready(self) -> Result<Self, String> {
        let tar = image(&self.dir);
        self.call(&["import", tar.to_str().unwrap(), IMAGE])?;
        self.make("run", &["--rm"], &["true"])?;
        Ok(self)
    }

    /// Runs the engine.
    fn call(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new(&self.program).args(args).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let error = text(&output.stderr);
        Err(format!("{args:?}: {}", error.lines().last().unwrap_or_default()))
    }

    /// `create` or `run`, of the image.
    fn make(&self, verb: &str, more: &[&str], command: &[&str]) -> Result<String, String> {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        self.call(&[&[verb], flags.as_slice(), &["--volume=/usr:/usr:ro"], more, &[IMAGE], command].concat())
    }

    /// A field of a container.
    fn field(&self, name: &str, format: &str) -> String {
        self.call(&["inspect", "--type", "container", "-f", format, name]).unwrap()
    }

    fn state(&self, name: &str) -> String {
        self.field(name, "{{.State.Status}}")
    }

    /// Its first process as the machine counts it.
    fn pid(&self, name: &str) -> u32 {
        self.field(name, "{{.State.Pid}}").parse().unwrap()
    }

    /// A command line that enters a running container.
    fn exec(&self) -> String {
        format!("[{:?}, \"exec\", \"-i\", {NAME:?}]", self.program)
    }

    /// One that makes another of the same volumes each time.
    fn beside(&self) -> String {
        let flags = self.flags.iter().map(|flag| format!("{flag:?}, ")).collect::<String>();
        format!(
            "[{:?}, \"run\", \"--rm\", \"-i\", {flags}\"--volumes-from\", {NAME:?}, {IMAGE:?}]",
            self.program
        )
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Ok(all) = self.call(&["ps", "-aq"]) {
            let ids: Vec<&str> = all.lines().collect();
            if !ids.is_empty() {
                let _ = self.call(&[&["rm", "-f"], ids.as_slice()].concat());
            }
        }
        if self.end_daemon().is_some() {
            // Empty ones of ours; another daemon's containers keep theirs.
            for entry in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
                let _ = fs::remove_dir(entry.path().join("docker"));
            }
            let _ = fs::remove_dir("/sys/fs/cgroup/docker");
        }
    }
}

/// The engine, if this machine can run one. In CI it must; elsewhere a line says why the case was not run.
fn possible(case: &str, make: impl FnOnce() -> Result<Engine, String>) -> Option<Engine> {
    let made = if rustix::process::geteuid().is_root() { make() } else { Err("it needs root".to_owned()) };
    match made {
        Ok(engine) => Some(engine),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "{why}");
            println!("not run: {case}: {why}");
            None
        }
    }
}

/// One of the tables of hosts, without the lines of these keys and with others.
fn table(text: &str, host: &str, without: &[&str], with: &str) -> String {
    let begin = text.find(&format!("[[host]]\nname = \"{host}\"")).unwrap();
    let length = text[begin + 1..].find("[[host]]").map_or(text.len() - begin, |end| end + 1);
    let (before, rest) = text.split_at(begin);
    let (table, after) = rest.split_at(length);
    let kept = |line: &&str| !without.iter().any(|key| line.starts_with(&format!("{key} = ")));
    let lines: Vec<&str> = table.trim_end().lines().filter(kept).collect();
    format!("{before}{}\n{with}\n{after}", lines.join("\n"))
}

/// The file of the lab with the new host's node in the container.
fn described(lab: &TestLab<'_>, file: &str, engine: &str, name: &str, prefix: &str) -> String {
    let with = format!(
        "program = {PROGRAM:?}\nstores = [{STORE:?}]\nexec_prefix = {prefix}\nowner = \"container\"\nengine = {engine:?}\n\
         container = {name:?}\n"
    );
    let without = ["program", "stores", "pid_file", "output_file"];
    lab.edited(file, |text| table(&text, "n5", &without, &with))
}

/// Makes the container that the new node is to run in.
fn create(lab: &TestLab<'_>, engine: &Engine) {
    let text = fs::read_to_string(lab.cluster_file()).unwrap();
    let parsed: toml::Value = toml::from_str(&text).unwrap();
    let hosts = parsed["host"].as_array().unwrap();
    let of = |host: usize, key: &str| hosts[host][key].as_str().unwrap().to_owned();
    let lab_dir = lab.inside("").display().to_string();
    let lab_dir = lab_dir.trim_end_matches('/');
    fs::create_dir_all(lab.inside("nodes/n5/volume")).unwrap();
    let kwscale = Path::new(env!("CARGO_BIN_EXE_kwscale")).canonicalize().unwrap();
    let kwscale = kwscale.display();
    let volumes = [
        // The twin's program and what it asks the lab by.
        format!("--volume={lab_dir}:{lab_dir}"),
        format!("--volume={kwscale}:{kwscale}:ro"),
        format!("--volume={lab_dir}/bin:/kaiwudb/bin:ro"),
        format!("--volume={lab_dir}/nodes/n5/volume:/kaiwudb/deploy"),
    ];
    let mut more = vec!["--name", NAME, "--restart", "always"];
    more.extend(volumes.iter().map(String::as_str));
    let (store, join) =
        (format!("--store={STORE}"), format!("--join={},{}", of(0, "listen_addr"), of(1, "listen_addr")));
    let flags = [
        format!("--listen-addr={}", of(4, "listen_addr")),
        format!("--http-addr={}", of(4, "http_addr")),
        format!("--brpc-addr={}", of(4, "brpc_addr")),
    ];
    let mut command = vec![PROGRAM, "start", "--insecure", &store, &join];
    command.extend(flags.iter().map(String::as_str));
    engine.make("create", &more, &command).unwrap();
}

fn machine(out: &Value) -> &Value {
    &out["hosts"]["n5"]["known"]["machine"]
}

fn out_and_in(case: &Case, name: &str, make: fn(PathBuf) -> Result<Engine, String>) {
    let lab = case.lab(4, SPEED, &["--ranges", "6"]);
    let Some(mut engine) = possible(name, || make(PathBuf::from(lab.path("engine")))) else { return };
    lab.lab("add", &[]);
    let path = engine.program.display().to_string();
    let file = |file: &str, prefix: &str| described(&lab, file, &path, NAME, prefix);
    let entering = file("entering.toml", &engine.exec());
    let beside = file("beside.toml", &engine.beside());
    let plan = lab.path("plan.json");
    let plan_args = |change: [&'static str; 2]| {
        ["plan", "-o", plan.as_str(), "--wait-healthy", "90s"].into_iter().chain(change).collect::<Vec<_>>()
    };

    // What is not there is refused before anything begins.
    let refused = ["plan", "scale-out", "n5"];
    lab.with(&beside, &refused).exit(3).says(&["host n5 has no container kwdb5", "create"]);
    let nothing = described(&lab, "nothing.toml", "/nonexistent/podman", NAME, &engine.beside());
    lab.with(&nothing, &refused).exit(3).says(&[
        "there is no program /nonexistent/podman",
        "host n5",
        "check the owner",
    ]);
    // A container that does not run cannot be entered; what leads beside it can.
    create(&lab, &engine);
    lab.with(&entering, &refused).exit(3).says(&["host n5", "needs no running container", "--volumes-from"]);
    lab.with(&entering, &["hosts", "n5"]).exit(0).says(&["created, ", IMAGE]);

    lab.with(&beside, &plan_args(["scale-out", "n5"])).exit(0);
    lab.with(&beside, &["apply", &plan, "--yes"]).exit(0).says(&["node 5 joined"]);
    assert_eq!((lab.status().members(), engine.state(NAME)), (vec![1, 2, 3, 4, 5], "running".to_owned()));
    let pid = engine.pid(NAME);

    // Inside it is another process of another machine's paths.
    let out = lab.with(&entering, &["hosts", "n5", "--format", "json"]).exit(0).json();
    case.note(&format!("process {pid} outside; {}", machine(&out)["processes"]));
    let facts = &out["hosts"]["n5"]["known"];
    assert_eq!(facts["stores"][0]["path"], STORE);
    assert!(facts["stores"][0]["content"]["known"]["in_use"].is_array(), "{facts}");
    assert_eq!(facts["listening"]["known"].as_array().map(Vec::len), Some(3), "{}", facts["listening"]);
    assert_eq!(machine(&out)["container"]["known"]["state"], "running");
    assert_eq!(machine(&out)["processes"]["known"][0]["pid"], 1);

    // A name or a state by which the node cannot be in there.
    let other = described(&lab, "other.toml", &path, "kwdb6", &engine.exec());
    let leaves = ["plan", "scale-in", "n5"];
    lab.with(&other, &leaves).exit(3).says(&["host n5 has no container kwdb6"]);

    // An engine that cannot take the restart policy away, and a service that goes by it: Debian's package enables that,
    // and here it is as the case wants it.
    let old = !engine.call(&["update", "--help"]).unwrap().contains("--restart");
    let systemctl = tempfile::tempdir().unwrap();
    let path = format!("{}:{}", systemctl.path().display(), std::env::var("PATH").unwrap());
    let with_service = |word: &str, args: &[&str]| {
        let answer = format!("#!/bin/sh\n[ \"$*\" = 'is-enabled podman-restart.service' ] && echo {word}\n");
        program(&systemctl.path().join("systemctl"), &answer);
        let args = [&["--cluster", &entering], args].concat();
        case.start(&args, &[("PATH", &path)]).end(case)
    };
    if old {
        let out = with_service("enabled", &leaves).exit(3);
        out.says(&["again after its stop", "restart policy is always", "podman-restart.service", "5.1"]);
    }
    with_service("disabled", &plan_args(["scale-in", "n5"])).exit(0);
    assert_eq!((engine.state(NAME), engine.pid(NAME)), ("running".to_owned(), pid));
    with_service("disabled", &["apply", &plan, "--yes"]).exit(0).says(&["node 5 is removed"]);
    let status = lab.status();
    assert_eq!((status.members(), status.class(5)), (vec![1, 2, 3, 4], "removed"));
    assert_eq!(engine.state(NAME), "exited");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
    let policy = engine.field(NAME, "{{.HostConfig.RestartPolicy.Name}}");
    assert_eq!(policy, if old { "always" } else { "no" });
    // The installer's container is found by its name, with whatever engine is on the PATH. It shows what a reboot does.
    engine
        .make("run", &["-d", "--name", "kaiwudb-container", "--restart", "always"], &["sleep", "600"])
        .unwrap();
    if !old {
        engine.reboot();
        case.until("a container with a restart policy starts again", 20, || {
            engine.state("kaiwudb-container") == "running"
        });
        assert_eq!(engine.state(NAME), "exited");
    }
    let search = format!("{}:{}", engine.dir.join("bin").display(), std::env::var("PATH").unwrap());
    let args = ["--cluster", &lab.cluster_file(), "hosts", "n1"];
    case.start(&args, &[("PATH", &search)]).end(case).exit(0).says(&["running, ", IMAGE]);

    if old {
        return;
    }
    // The same container takes a new node, once the old one's data is out of the way.
    lab.with(&beside, &refused).exit(3).says(&["n5 holds a node's files"]);
    let again = ["plan", "-o", &plan, "--wait-healthy", "90s", "scale-out", "n5", "--wipe-old-data"];
    lab.with(&beside, &again).exit(0);
    let made: Value = serde_json::from_slice(&fs::read(&plan).unwrap()).unwrap();
    let consent = format!("clear-{}", made["id"].as_str().unwrap());
    lab.with(&beside, &["apply", &plan, "--yes", "--consent", &consent]).exit(0).says(&["node 6 joined"]);
    assert_eq!(lab.status().members(), [1, 2, 3, 4, 6]);
}

pub(crate) fn in_podman(case: &Case) {
    out_and_in(case, "container_in_podman", Engine::podman);
}

pub(crate) fn in_docker(case: &Case) {
    out_and_in(case, "container_in_docker", Engine::docker);
}
