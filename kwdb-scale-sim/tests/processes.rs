//! The twin as real processes, driven with its `kwbase` command line and a real PostgreSQL client.
//!
//! Without the usual test harness, because twin nodes are this executable started again: `hook` comes first.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kwdb_scale_sim::lab::{Lab, LabError, LabHost, LabOptions, ScopedLab};

/// Model seconds in a real one.
const SPEED: f64 = 20.0;

fn main() {
    kwdb_scale_sim::process::hook();
    let tests: &[(&str, fn())] = &[
        ("a_cluster_comes_up_and_every_command_answers", a_cluster_comes_up_and_every_command_answers),
        ("out_and_in", out_and_in),
        ("kill_and_restart", kill_and_restart),
        ("a_secure_cluster", a_secure_cluster),
        ("single_replica", single_replica),
        ("what_start_refuses", what_start_refuses),
        ("a_lab_goes_down_without_a_quorum", a_lab_goes_down_without_a_quorum),
        ("a_lab_that_lost_its_directory_ends", a_lab_that_lost_its_directory_ends),
        ("a_lab_whose_executable_is_replaced_goes_on", a_lab_whose_executable_is_replaced_goes_on),
        ("a_lab_of_a_real_kwbase", a_lab_of_a_real_kwbase),
        ("a_secure_lab_of_a_real_kwbase", a_secure_lab_of_a_real_kwbase),
    ];
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()));
    if std::env::args().any(|a| a == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let mut failed = false;
    for chosen in tests.iter().filter(|(name, _)| wanted(name)).collect::<Vec<_>>().chunks(3) {
        let running: Vec<_> = chosen.iter().map(|(name, test)| (name, thread::spawn(test))).collect();
        for (name, test) in running {
            let ended = if test.join().is_ok() { "ok" } else { "FAILED" };
            failed |= ended != "ok";
            println!("test {name} ... {ended}");
        }
    }
    std::process::exit(i32::from(failed));
}

struct Bench {
    lab: ScopedLab,
    tmp: tempfile::TempDir,
}

fn bench(change: impl FnOnce(&mut LabOptions)) -> Bench {
    let tmp = tempfile::tempdir().unwrap();
    let mut options = LabOptions { speed: SPEED, ranges: 5, ..LabOptions::new(tmp.path().join("lab")) };
    change(&mut options);
    Bench { lab: Lab::up(options).unwrap().scoped(), tmp }
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Bench {
    fn host(&self, index: usize) -> &LabHost {
        &self.lab.info().hosts[index]
    }

    /// Runs the twin's kwbase as a user would, security flags given by the caller.
    fn raw(&self, args: &[&str]) -> Ran {
        let output = Command::new(&self.lab.info().kwbase).args(args).stdin(Stdio::null()).output().unwrap();
        Ran {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn insecure(&self, host: usize, args: &[&str]) -> Ran {
        let host = format!("--host={}", self.host(host).address);
        self.raw(&[args, &["--insecure", &host]].concat())
    }

    /// Rows of `node status --format=csv` by the first node, without the header.
    fn status(&self, flags: &[&str]) -> Vec<Vec<String>> {
        let host = format!("--host={}", self.host(0).address);
        let args = [&["node", "status", "--format=csv", &host], flags].concat();
        let text = self.lab.kwbase(&args, Duration::from_secs(20)).unwrap();
        text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
    }

    fn start_args(&self, host: &LabHost) -> Vec<String> {
        let join: Vec<String> = self.lab.info().join().iter().map(ToString::to_string).collect();
        let mut args = vec![
            "start".to_owned(),
            "--insecure".to_owned(),
            format!("--store={}", host.stores[0].display()),
            format!("--listen-addr={}", host.address),
            format!("--http-addr={}", host.http_address),
            format!("--brpc-addr={}", host.brpc_address),
            format!("--join={}", join.join(",")),
            "--background".to_owned(),
        ];
        args.extend(host.extra_flags.clone());
        args
    }

    /// Starts a node as an operator does, the output to a file.
    fn start(&self, host: &LabHost) -> Option<i32> {
        let output = std::fs::File::create(&host.output_file).unwrap();
        Command::new(&self.lab.info().kwbase)
            .args(self.start_args(host))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .status()
            .unwrap()
            .code()
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

fn column(rows: &[Vec<String>], column: usize) -> Vec<&str> {
    rows.iter().map(|row| row[column].as_str()).collect()
}

fn curl(address: &str, target: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn a_cluster_comes_up_and_every_command_answers() {
    let bench = bench(|_| {});
    let rows = bench.status(&[]);
    assert_eq!(column(&rows, 0), ["1", "2", "3", "4"]);
    assert_eq!(column(&rows, 9), ["true"; 4]);
    for (row, host) in rows.iter().zip(&bench.lab.info().hosts) {
        assert_eq!(row[1], host.address.as_str());
    }
    let again = bench.insecure(0, &["init"]);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("cluster has already been initialized"), "{}", again.err);
    assert!(bench.raw(&["version"]).out.starts_with("KaiwuDB Version:  V3.2.1\n"));
    let bogus = bench.raw(&["bogus"]);
    assert_eq!(bogus.code, Some(1));
    let secure = bench.raw(&["node", "status", "--certs-dir=/nonexistent", "--host=127.0.0.1:1"]);
    assert!(secure.err.starts_with("ERROR: cannot load certificates."), "{}", secure.err);
    let there = bench.insecure(1, &["sql", "--format=csv", "-e", "SELECT 1; CREATE USER alice"]);
    assert_eq!((there.out.as_str(), there.code), ("?column?\n1\nCREATE USER\n", Some(0)));

    let health = bench.host(0).http_address.to_string();
    assert!(curl(&health, "/health?ready=1").starts_with("HTTP/1.1 200 OK"));

    if let Ok(psql) = Command::new("psql")
        .arg(format!("postgresql://root@{}/defaultdb?sslmode=disable", bench.host(2).sql_address))
        .args(["-At", "-c", "select version()"])
        .output()
    {
        assert!(psql.stdout.starts_with(b"KaiwuDB V3.2.1 "), "{}", String::from_utf8_lossy(&psql.stderr));
    }
}

fn out_and_in() {
    let mut bench = bench(|_| {});
    let host = bench.lab.add().unwrap();
    assert_eq!(host.name.as_str(), "n5");
    assert!(!bench.lab.runs("n5").unwrap());
    assert_eq!(bench.start(&host), Some(0), "{}", std::fs::read_to_string(&host.output_file).unwrap());
    until("n5 joined", || bench.status(&[]).len() == 5);
    let files: Vec<_> =
        ["kwbase.start_mode", "CURRENT", "logs"].map(|f| host.stores[0].join(f).exists()).into();
    assert_eq!(files, [true; 3]);
    assert_eq!(std::fs::read_to_string(host.stores[0].join("kwbase.start_mode")).unwrap(), "start");

    let marked = bench.insecure(0, &["node", "decommission", "5", "--wait=none", "--format=csv"]);
    assert_eq!(marked.code, Some(0), "{}", marked.err);
    assert!(marked.out.starts_with("id,is_live,replicas,is_decommissioning,is_draining\n5,true,"));
    let finished = bench.insecure(0, &["node", "decommission", "5", "--wait=all", "--format=csv"]);
    assert_eq!(finished.code, Some(0));
    assert!(finished.out.contains("\n5,true,0,true,false\n"), "{}", finished.out);
    assert!(finished.out.ends_with(
        "\nNo more data reported on target nodes. Please verify cluster health before removing the nodes.\n"
    ));
    // It serves SQL on, until it quits.
    assert_eq!(bench.insecure(4, &["sql", "-e", "SELECT 1"]).code, Some(0));

    let quit = bench.insecure(4, &["quit"]);
    assert_eq!((quit.code, quit.out.as_str()), (Some(0), "ok\n"), "{}", quit.err);
    assert!(quit.err.contains("node is draining... remaining: 0 (complete)\n"), "{}", quit.err);
    until("the process ended", || !bench.lab.runs("n5").unwrap());
    let dead = bench.insecure(4, &["quit"]);
    assert_eq!(dead.code, Some(1));
    assert!(dead.err.contains("connect: connection refused"), "{}", dead.err);
    until("n5 left the status", || bench.status(&[]).len() == 4);
    assert_eq!(bench.status(&["--decommission"]).len(), 5);

    // Started again on its old store it is what it was; on a fresh one it is somebody new.
    assert_eq!(bench.start(&host), Some(0));
    until("n5 is back", || bench.status(&[]).len() == 5);
    assert_eq!(column(&bench.status(&["--decommission"]), 11)[4], "true");
    bench.lab.kill("n5").unwrap();
    std::fs::remove_dir_all(&host.stores[0]).unwrap();
    assert_eq!(bench.start(&host), Some(0));
    until("n6 joined", || column(&bench.status(&[]), 0).contains(&"6"));
}

fn kill_and_restart() {
    let bench = bench(|_| {});
    let pid = std::fs::read_to_string(&bench.host(3).pid_file).unwrap();
    assert!(Path::new(&format!("/proc/{}", pid.trim())).exists());
    bench.lab.kill("n4").unwrap();
    assert!(matches!(bench.lab.kill("n4"), Err(LabError::NotRunning(_))));
    assert!(matches!(bench.lab.kill("n9"), Err(LabError::NoHost(_))));
    let silent = until("n4 is not live", || column(&bench.status(&[]), 9)[3] == "false");
    // About five model seconds; what the polling itself takes comes on top.
    assert!(silent < Duration::from_secs(5), "{silent:?}");
    until("n4 is not available", || column(&bench.status(&[]), 8)[3] == "false");
    assert!(bench.insecure(3, &["node", "status"]).err.contains("cannot dial server"));
    bench.lab.restart("n4").unwrap();
    assert!(matches!(bench.lab.restart("n4"), Err(LabError::Running(_))));
    until("n4 is back", || column(&bench.status(&[]), 9) == ["true"; 4]);

    // SIGTERM drains.
    let pid = std::fs::read_to_string(&bench.host(3).pid_file).unwrap();
    assert!(Command::new("kill").args(["-TERM", pid.trim()]).status().unwrap().success());
    until("n4 ended", || !bench.lab.runs("n4").unwrap());
    let log = std::fs::read_to_string(bench.host(3).stores[0].join("logs/kwbase.log")).unwrap();
    assert!(log.contains("status:              restarted pre-existing node"), "{log}");
    assert!(log.ends_with("server drained and shutdown completed\n"), "{log}");
}

fn a_secure_cluster() {
    let mut bench = bench(|options| {
        options.secure = true;
        options.nodes = 3;
    });
    assert_eq!(bench.status(&[]).len(), 3);
    let certs = bench.lab.info().certs_dir.clone().unwrap();
    let host = format!("--host={}", bench.host(0).address);
    let insecure = bench.raw(&["node", "status", "--insecure", &host]);
    assert_eq!(
        insecure.err,
        "ERROR: password authentication failed for user root\nFailed running \"node status\"\n"
    );
    let insecure = bench.raw(&["quit", "--insecure", &host]);
    assert!(insecure.err.starts_with("ERROR: server closed the connection.\n"), "{}", insecure.err);

    let other = bench.tmp.path().join("other");
    kwdb_scale_sim::certs::create(&other, &["127.0.0.1"], &["root"]).unwrap();
    let certs_flag = format!("--certs-dir={}", other.display());
    let wrong = bench.raw(&["node", "decommission", "3", "--wait=none", &certs_flag, &host]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.err.starts_with("ERROR: SSL authentication error while connecting."), "{}", wrong.err);
    // A node with their certificates comes up, and never joins.
    let host4 = bench.lab.add().unwrap();
    let args: Vec<String> = bench
        .start_args(&host4)
        .into_iter()
        .map(|a| if a == "--insecure" { certs_flag.clone() } else { a })
        .collect();
    let output = std::fs::File::create(&host4.output_file).unwrap();
    let mut command = Command::new(&bench.lab.info().kwbase);
    command.args(args).stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    assert!(command.status().unwrap().success());
    let said = || std::fs::read_to_string(&host4.output_file).unwrap();
    until("the node says that it waits", || said().contains("INFO: initial startup completed."));
    thread::sleep(Duration::from_millis(500));
    assert_eq!(bench.status(&[]).len(), 3);
    // Ours to know the server by, theirs to show: refused as well.
    let mixed = bench.tmp.path().join("mixed");
    std::fs::create_dir(&mixed).unwrap();
    for (from, name) in [(&certs, "ca.crt"), (&other, "client.root.crt"), (&other, "client.root.key")] {
        std::fs::copy(from.join(name), mixed.join(name)).unwrap();
    }
    let certs_flag = format!("--certs-dir={}", mixed.display());
    assert_eq!(bench.raw(&["node", "status", &certs_flag, &host]).code, Some(1));
    assert!(column(&bench.status(&["--decommission"]), 11).iter().all(|bit| *bit == "false"));

    if Command::new("psql").arg("--version").output().is_ok() {
        let url = |user: &str, ca: &Path| {
            format!(
                "postgresql://{user}@{}/defaultdb?sslmode=verify-full&sslrootcert={}/ca.crt&sslcert={}/client.root.crt&sslkey={}/client.root.key",
                bench.host(1).sql_address,
                ca.display(),
                certs.display(),
                certs.display()
            )
        };
        let psql =
            |url: String| Command::new("psql").args([&url, "-w", "-At", "-c", "select 1"]).output().unwrap();
        let ran = psql(url("root", &certs));
        assert_eq!(ran.stdout, b"1\n", "{}", String::from_utf8_lossy(&ran.stderr));
        assert!(!psql(url("alice", &certs)).status.success());
        assert!(!psql(url("root", &other)).status.success());
    }
}

fn single_replica() {
    let bench = bench(|options| {
        options.single_replica = true;
        options.nodes = 3;
    });
    assert_eq!(column(&bench.status(&[]), 7), ["start-single-replica"; 3]);
    let refused = bench.insecure(0, &["node", "decommission", "3"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("node cannot be decommissioned in mpp mode"), "{}", refused.err);
}

fn what_start_refuses() {
    let mut bench = bench(|options| options.nodes = 3);
    let (host, alone) = (bench.lab.add().unwrap(), bench.lab.add().unwrap());
    let args = bench.start_args(&host);
    let with = |change: &dyn Fn(&str) -> Option<String>| {
        let args: Vec<String> = args.iter().filter_map(|a| change(a)).collect();
        bench.raw(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let no_brpc = with(&|a| (!a.starts_with("--brpc-addr")).then(|| a.to_owned()));
    assert_eq!(no_brpc.code, Some(1));
    assert!(no_brpc.err.contains("\nERROR: failed to start server: --brpc-addr's port not specified\n"));
    assert!(no_brpc.err.ends_with("Failed running \"start\"\n"));

    let unknown = with(&|a| Some(a.replace("--http-addr", "--htp-addr")));
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.err.contains("ERROR: unknown flag: --htp-addr\n"), "{}", unknown.err);

    let no_certs =
        with(&|a| Some(if a == "--insecure" { "--certs-dir=/nonexistent".to_owned() } else { a.to_owned() }));
    assert_eq!(no_certs.code, Some(1));
    assert!(
        no_certs
            .err
            .starts_with("*\n* ERROR: ERROR: cannot load certificates.\n* Check your certificate settings"),
        "{}",
        no_certs.err
    );
    assert!(no_certs.err.contains("\nfailed to start server: problem with CA certificate: not found\n"));

    let taken = bench.host(0).address.to_string();
    let in_use = with(&|a| {
        Some(if a.starts_with("--listen-addr") { format!("--listen-addr={taken}") } else { a.to_owned() })
    });
    assert_eq!(in_use.code, Some(1));
    let expected = format!(
        "ERROR: kwbase server exited with error: consider changing the port via --listen-addr: listen tcp {taken}: bind: address already in use\n"
    );
    assert!(in_use.err.contains(&expected), "{}", in_use.err);

    // As a real V3.2.1 says it.
    let foreign = with(&|a| {
        let is_listen = a.starts_with("--listen-addr");
        Some(if is_listen { "--listen-addr=203.0.113.77:26257".to_owned() } else { a.to_owned() })
    });
    let expected = "consider changing the port via --listen-addr: listen tcp 203.0.113.77:26257: bind: cannot assign requested address\n";
    assert!(foreign.err.contains(expected), "{}", foreign.err);

    // A name is resolved, as by the real one.
    let named = |name: &str| {
        let listen = format!("--listen-addr={name}:{}", taken.rsplit_once(':').unwrap().1);
        with(&|a| Some(if a.starts_with("--listen-addr") { listen.clone() } else { a.to_owned() })).err
    };
    let expected =
        "ERROR: failed to start server: invalid --listen-addr: lookup nosuch.invalid: no such host\n";
    assert!(named("nosuch.invalid").contains(expected), "{}", named("nosuch.invalid"));
    assert!(named("LOCALHOST").contains("bind: address already in use"), "{}", named("LOCALHOST"));

    let store = bench.host(0).stores[0].display().to_string();
    let locked =
        with(&|a| Some(if a.starts_with("--store") { format!("--store={store}") } else { a.to_owned() }));
    assert!(locked.err.contains("Resource temporarily unavailable"), "{}", locked.err);

    // Nobody to join.
    let args_alone: Vec<String> = bench
        .start_args(&alone)
        .into_iter()
        .map(|a| if a.starts_with("--join") { format!("--join={}", host.brpc_address) } else { a })
        .collect();
    let output = std::fs::File::create(&alone.output_file).unwrap();
    let mut command = Command::new(&bench.lab.info().kwbase);
    command.args(args_alone).stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    assert!(command.status().unwrap().success());
    until("the node is ready to wait", || {
        curl(alone.http_address.as_str(), "/health?ready=1").starts_with("HTTP/1.1 503 Service Unavailable")
    });
    assert!(curl(alone.http_address.as_str(), "/health").starts_with("HTTP/1.1 200 OK"));
    let quit = bench.raw(&["quit", "--insecure", &format!("--host={}", alone.address)]);
    assert!(quit.err.contains("node cannot be drained before it has been initialized"), "{}", quit.err);

    // The cluster's mode is found out after the ports are taken, in the middle of joining.
    let other = with(&|a| (a != "--background").then(|| a.replace("start", "start-single-replica")));
    assert_eq!(other.code, Some(1));
    let expected =
        "ERROR: Check start mode failed! Node start mode is start-single-replica, should be start\n";
    assert!(other.out.contains(expected), "{}\n{}", other.out, other.err);
    assert_eq!(bench.status(&["--all"]).len(), 3);
}

fn a_lab_goes_down_without_a_quorum() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("lab");
    let options = || LabOptions { speed: SPEED, nodes: 3, ..LabOptions::new(&dir) };
    let lab = Lab::up(options()).unwrap();
    assert!(matches!(Lab::up(options()), Err(LabError::NotEmpty(_))));
    lab.kill("n1").unwrap();
    lab.kill("n2").unwrap();
    let host = format!("--host={}", lab.info().hosts[2].address);
    assert!(lab.kwbase(&["node", "status", &host], Duration::from_secs(20)).is_err());
    let pid = std::fs::read_to_string(&lab.info().hosts[2].pid_file).unwrap();
    // Found by its directory alone, as another process of the operator's finds it.
    Lab::open(&dir).unwrap().down().unwrap();
    until("the last node ended", || !is_running(pid.trim()));
    assert!(!dir.exists());
    assert!(matches!(Lab::open(&dir), Err(LabError::NoLab(_))));
}

fn a_lab_that_lost_its_directory_ends() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("lab");
    let lab = Lab::up(LabOptions { speed: SPEED, nodes: 1, single_replica: true, ..LabOptions::new(&dir) })
        .unwrap();
    let pid = std::fs::read_to_string(&lab.info().hosts[0].pid_file).unwrap();
    let address: PathBuf = dir.join("twin.addr");
    let text = std::fs::read_to_string(&address).unwrap();
    let pids =
        [pid.trim().to_owned(), text.split("\"pid\":").nth(1).unwrap().trim_end_matches('}').to_owned()];
    assert!(pids.iter().all(|pid| is_running(pid)), "{pids:?}");
    std::fs::remove_dir_all(&dir).unwrap();
    until("lab and node ended", || !pids.iter().any(|pid| is_running(pid)));
}

/// As cargo and package managers replace files.
fn a_lab_whose_executable_is_replaced_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let (own, executable) = (std::env::current_exe().unwrap(), place.path().join("twin"));
    if std::fs::hard_link(&own, &executable).is_err() {
        std::fs::copy(&own, &executable).unwrap();
    }
    let mut bench = bench(|options| options.executable = Some(executable.clone()));
    std::fs::remove_file(&executable).unwrap();
    std::fs::write(&executable, "no program").unwrap();
    bench.lab.kill("n2").unwrap();
    bench.lab.restart("n2").unwrap();
    let host = bench.lab.add().unwrap();
    assert_eq!(bench.start(&host), Some(0));
    until("it joined", || column(&bench.status(&["--insecure"]), 0) == ["1", "2", "3", "4", "5"]);
}

/// The real program, when the environment names one.
fn real(what: &str) -> Option<PathBuf> {
    let path = std::env::var_os("KWDB_SCALE_KWBASE").map(PathBuf::from);
    if path.is_none() {
        println!("{what}: left out, because KWDB_SCALE_KWBASE names no kwbase");
    }
    path
}

fn a_lab_of_a_real_kwbase() {
    let Some(kwbase) = real("a lab of a real kwbase") else { return };
    let mut bench = bench(|options| {
        options.kwbase = Some(kwbase);
        options.ranges = 20;
    });
    assert_eq!(bench.lab.info().speed, 1.0);
    let rows = bench.status(&["--ranges", "--decommission"]);
    assert_eq!(column(&rows, 0), ["1", "2", "3", "4"]);
    for (row, host) in rows.iter().zip(&bench.lab.info().hosts) {
        assert_eq!(row[1], host.address.as_str());
    }
    let ranges: usize = column(&rows, 12).iter().map(|n| n.parse::<usize>().unwrap()).sum();
    assert!(ranges >= 3 * 20, "{rows:?}");
    let host = bench.lab.add().unwrap();
    assert_eq!(bench.start(&host), Some(0));
    until("n5 joined", || bench.status(&[]).len() == 5);
    bench.lab.kill("n5").unwrap();
    until("n5 is not live", || column(&bench.status(&[]), 9)[4] == "false");
    bench.lab.restart("n5").unwrap();
    until("n5 is back", || column(&bench.status(&[]), 9) == ["true"; 5]);
}

fn a_secure_lab_of_a_real_kwbase() {
    let Some(kwbase) = real("a secure lab of a real kwbase") else { return };
    let bench = bench(|options| {
        options.kwbase = Some(kwbase);
        options.ranges = 0;
        options.nodes = 3;
        options.secure = true;
        options.stores_per_node = 2;
    });
    assert_eq!(bench.status(&[]).len(), 3);
    let host = format!("--host={}", bench.host(0).address);
    let stores = "SELECT node_id, store_id FROM kwdb_internal.kv_store_status";
    let text =
        bench.lab.kwbase(&["sql", "--format=csv", &host, "-e", stores], Duration::from_secs(20)).unwrap();
    assert_eq!(text.lines().count(), 1 + 6, "{text}");
    // Without a quorum nothing drains, and the lab is ended all the same when this goes out of scope.
    bench.lab.kill("n1").unwrap();
    bench.lab.kill("n2").unwrap();
}

/// A zombie has no command line.
fn is_running(pid: &str) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}
