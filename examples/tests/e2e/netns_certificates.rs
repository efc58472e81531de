//! Certificates over SSH, with sudo, on hosts that are machines of their own; and the operator killed in every phase.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::netns::{PLACES, down, files, on, only_sshd_and, possible};
use crate::support::{Case, Out, Running, TestLab};

const SPEED: u32 = 40;
const CERTS: &str = "/etc/kaiwudb/certs";
const MADE: [&str; 5] = ["ca.crt", "client.root.crt", "client.root.key", "node.crt", "node.key"];
/// A kwbase that takes its time with the last of the certificates when it is told to.
const SLOW: &str = r#"#!/bin/sh
bin=/usr/local/kaiwudb/bin
[ "$2" != create-client ] || [ ! -e $bin/be-slow ] || { touch $bin/seen; sleep 3; }
exec $bin/kwbase-itself "$@"
"#;

/// A secure lab of such hosts, and what was on each of them before.
struct Scene<'a> {
    case: &'a Case,
    lab: TestLab<'a>,
    /// For everything temporary of `kwscale`.
    temp: PathBuf,
    before: Vec<(String, BTreeSet<String>)>,
}

impl<'a> Scene<'a> {
    fn new(case: &'a Case) -> Self {
        let lab =
            case.lab(4, SPEED, &["--hosts", "netns", "--secure", "--login", "kaiwudb", "--ranges", "4"]);
        let temp = PathBuf::from(lab.path("temp"));
        fs::create_dir(&temp).unwrap();
        let mut scene = Self { case, lab, temp, before: Vec::new() };
        for number in 1..=4 {
            scene.look(&format!("n{number}"));
        }
        scene
    }

    /// A machine with KWDB installed and no certificates.
    fn add(&mut self, name: &str) {
        assert_eq!(self.lab.lab("add", &["--without-certs"]).stdout.trim(), name);
        self.look(name);
    }

    fn look(&mut self, host: &str) {
        let now = self.all(host);
        self.before.push((host.to_owned(), now));
    }

    /// Files that came to a host since it was made, and all its directories.
    fn all(&self, host: &str) -> BTreeSet<String> {
        let wanted = ["-path", "/var/lib/kaiwudb/*", "-prune", "-o", "-type", "d", "-print"];
        let directories = on(&self.lab, host, &[&["find"], PLACES, &wanted].concat());
        let all = files(&self.lab, host).into_iter().chain(directories);
        // The lab's, not the host's.
        all.filter(|path| !path.starts_with("/run/kwdb-lab/")).collect()
    }

    /// What came to a host and did not go again.
    fn came(&self, host: &str) -> Vec<String> {
        let (_, before) = self.before.iter().find(|(name, _)| name == host).unwrap();
        self.all(host).difference(before).cloned().collect()
    }

    /// Nothing is on any host but what is named, no process but sshd and nodes, and on n1 alone the authority's key.
    #[track_caller]
    fn is_left(&self, expected: &[(&str, &[String])], without_node: &[&str]) {
        assert_eq!(fs::read_dir(&self.temp).unwrap().count(), 0, "in kwscale's temporary directory");
        for (host, _) in &self.before {
            only_sshd_and(self.case, &self.lab, host, !without_node.contains(&host.as_str()));
            let named = expected.iter().find(|(name, _)| name == host).map_or(&[][..], |(_, files)| files);
            assert_eq!(self.came(host), named, "left on {host}");
            let wanted = ["-name", "ca.key*", "-o", "-name", "*kaiwudb_certs*"];
            let keys = on(&self.lab, host, &[&["find"], PLACES, &wanted].concat());
            let own = format!("{CERTS}/ca.key");
            assert_eq!(keys, if host == "n1" { vec![own] } else { Vec::new() }, "keys on {host}");
        }
    }

    fn start(&self, args: &[&str]) -> Running {
        let file = self.lab.cluster_file();
        let all: Vec<&str> = ["--cluster", &file].into_iter().chain(args.iter().copied()).collect();
        self.case.start(&all, &[("TMPDIR", self.temp.to_str().unwrap())])
    }

    fn kwscale(&self, args: &[&str]) -> Out {
        self.start(args).end(self.case)
    }

    /// Makes a plan and carries it out.
    #[track_caller]
    fn change(&self, args: &[&str]) -> Out {
        let plan = self.lab.plan(args);
        self.kwscale(&["apply", &plan, "--yes"]).exit(0)
    }

    /// Ends a command with SIGKILL as soon as it holds.
    #[track_caller]
    fn killed_when(&self, args: &[&str], moment: &str, mut holds: impl FnMut(&Running) -> bool) {
        let mut running = self.start(args);
        let end = Instant::now() + Duration::from_secs(60);
        // Some moments are short.
        while !holds(&running) {
            if !running.runs() {
                let out = running.end(self.case);
                panic!("it ended with {:?} before '{moment}'", out.code);
            }
            assert!(Instant::now() < end, "not within a minute: {moment}");
            sleep(Duration::from_millis(5));
        }
        running.signal(Signal::KILL);
        assert_eq!(running.end(self.case).code, None, "killed at '{moment}'");
    }

    /// The same as soon as it has written that to a journal.
    #[track_caller]
    fn killed(&self, args: &[&str], moment: &str) {
        let known = self.journal().len();
        self.killed_when(args, moment, |_| {
            self.journal().iter().skip(known).any(|line| line.contains(moment))
        });
    }

    /// Where a host's kwbase is.
    fn bin(&self, host: &str) -> PathBuf {
        self.lab.inside(&format!("hosts/{host}/root/usr/local/kaiwudb/bin"))
    }

    /// Has a host's kwbase make certificates slowly when told so.
    fn take_time(&self, host: &str) {
        let own = self.bin(host).join("kwbase");
        fs::rename(&own, self.bin(host).join("kwbase-itself")).unwrap();
        fs::write(&own, SLOW).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The lines of all journals but those that hold plans.
    fn journal(&self) -> Vec<String> {
        let entries = fs::read_dir(self.lab.inside("kwscale-journal")).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> =
            entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "jsonl")).collect();
        // Their names begin with the time.
        paths.sort();
        let texts = paths.iter().map(|path| fs::read_to_string(path).unwrap());
        let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.filter(|line| !line.contains("\"begun\"")).collect()
    }

    /// Resumes, and it comes to its end.
    #[track_caller]
    fn finished(&self, more: &[&str]) {
        let known = self.journal().len();
        self.kwscale(&[&["resume", "--yes"], more].concat()).exit(0);
        assert!(self.journal().iter().skip(known).any(|line| line.contains("\"ended\"")), "it did not end");
    }
}

/// Paths that installed certificates add.
fn installed(more: &[&str]) -> Vec<String> {
    let made = MADE.iter().map(|name| format!("{CERTS}/{name}"));
    let more = more.iter().map(|&path| path.to_owned());
    let all: BTreeSet<String> = made.chain(more).chain([CERTS.to_owned()]).collect();
    all.into_iter().collect()
}

/// What the start command printed is kept: it says why a node did not come up.
const START_LOG: &str = "/var/lib/kaiwudb.start.log";

pub(crate) fn issued_and_carried(case: &Case) {
    if !possible("issued_and_carried") {
        return;
    }
    let mut scene = Scene::new(case);
    scene.add("n5");

    // Refused as it is, with the way out; nothing is done by itself.
    let cure = ["host-certificates", "n5", "cure", "--certificates issue"];
    scene.kwscale(&["plan", "scale-out", "n5"]).exit(3).says(&cure);
    scene.is_left(&[], &["n5"]);

    scene
        .change(&["scale-out", "n5", "--certificates", "issue", "--no-await-balance"])
        .says(&["host n5 has certificates", "node 5 joined"]);
    assert_eq!(scene.lab.status().members(), [1, 2, 3, 4, 5]);
    let address = scene.lab.status().node(5).unwrap()["address"].as_str().unwrap().to_owned();
    let ip = address.split(':').next().unwrap();
    let flag = format!("--certs-dir={CERTS}");
    let kwbase = "/usr/local/kaiwudb/bin/kwbase";
    let listed = on(&scene.lab, "n5", &[kwbase, "cert", "list", &flag]).join("\n");
    for word in [ip, "127.0.0.1", "localhost", "user: root"] {
        assert!(listed.contains(word), "'{word}' is not in:\n{listed}");
    }
    let stats =
        on(&scene.lab, "n5", &["sh", "-c", "stat -c '%a %U %n' /etc/kaiwudb/certs /etc/kaiwudb/certs/*"]);
    assert_eq!(stats.len(), 1 + MADE.len());
    for line in stats {
        let open = line.ends_with(".crt");
        let mode = if open {
            "644"
        } else if line.ends_with(".key") {
            "600"
        } else {
            "700"
        };
        assert!(line.starts_with(&format!("{mode} root ")), "{line}");
    }
    scene.is_left(&[("n5", &installed(&[START_LOG]))], &[]);

    scene.change(&["scale-in", "n5"]).says(&["node 5 is removed"]);
    assert_eq!((scene.lab.status().members(), scene.lab.status().class(5)), (vec![1, 2, 3, 4], "removed"));

    // It does not come back with its old data, and that is moved only by the consent that the plan names.
    scene.kwscale(&["plan", "scale-out", "n5"]).exit(3).says(&["host-store-empty", "--wipe-old-data"]);
    // What is mounted below is never cleared, and is named before anything is done.
    let series = "/var/lib/kaiwudb/tsdb";
    let mount = format!("mkdir -p {series} && mount -t tmpfs none {series} && echo done");
    assert_eq!(on(&scene.lab, "n5", &["sh", "-c", &mount]), ["done"]);
    for wipe in ["--wipe-old-data", "--wipe-old-data=delete"] {
        let refused =
            scene.kwscale(&["plan", "scale-out", "n5", wipe]).exit(3).says(&["below it", series, "unmount"]);
        assert!(!refused.stdout.contains("old-data "), "{}", refused.stdout);
    }
    scene.kwscale(&["hosts", "n5"]).exit(0).says(&["mounted there: /var/lib/kaiwudb/tsdb"]);
    assert_eq!(on(&scene.lab, "n5", &["sh", "-c", &format!("umount {series} && echo done")]), ["done"]);
    let plan = scene.lab.plan(&["scale-out", "n5", "--wipe-old-data", "--no-await-balance"]);
    let shown =
        scene.kwscale(&["show", &plan]).exit(0).says(&["move /var/lib/kaiwudb to /var/lib/kaiwudb.node-5"]);
    let token = shown.stdout.split_whitespace().find(|word| word.starts_with("clear-")).unwrap();
    scene.kwscale(&["apply", &plan, "--yes"]).exit(3).says(&["nothing was done", token]);
    // What came there since is known before anything is done.
    on(&scene.lab, "n5", &["touch", "/var/lib/kaiwudb/precious"]);
    scene.kwscale(&["apply", &plan, "--yes", "--consent", token]).exit(3).says(&[
        "nothing was done",
        "host n5: /var/lib/kaiwudb holds what was not there when the consent was given: precious",
    ]);
    on(&scene.lab, "n5", &["rm", "/var/lib/kaiwudb/precious"]);
    let old = ["/var/lib/kaiwudb.node-5".to_owned(), START_LOG.to_owned()];
    assert!(!scene.came("n5").contains(&old[0]));
    scene.kwscale(&["apply", &plan, "--yes", "--consent", token]).exit(0).says(&["node 6 joined"]);
    let status = scene.lab.status();
    assert_eq!((status.members(), status.class(5)), (vec![1, 2, 3, 4, 6], "removed"));
    let store = |dir: &str| on(&scene.lab, "n5", &["ls", dir]);
    assert!(store(&old[0]).contains(&"CURRENT".to_owned()) && store("/var/lib/kaiwudb").len() > 3);

    // The page's way. What it costs is said before; the key does not stay.
    scene.add("n6");
    let plan = scene.lab.plan(&["scale-out", "n6", "--certificates", "archive", "--no-await-balance"]);
    scene.kwscale(&["show", &plan]).exit(0).says(&["warning", "certificates-key-travels", "leaves host n1"]);
    scene.kwscale(&["apply", &plan, "--yes"]).exit(0).says(&["node 7 joined"]);
    assert_eq!(scene.lab.status().members(), [1, 2, 3, 4, 6, 7]);
    let early = ["find", CERTS, "-not", "-newer", "/etc/ssh/sshd_config"];
    assert_eq!(on(&scene.lab, "n6", &early), Vec::<String>::new(), "older than the host itself");
    // The old store is no more than was asked for, and its files are the test's to leave out.
    let kept: Vec<String> = scene.came("n5").into_iter().filter(|path| path.starts_with(&old[0])).collect();
    let kept: Vec<&str> = kept.iter().map(String::as_str).chain([START_LOG]).collect();
    scene.is_left(&[("n5", &installed(&kept)), ("n6", &installed(&[START_LOG]))], &[]);

    // Who holds the only key may not leave; once it lies elsewhere too, it may.
    scene.kwscale(&["plan", "scale-in", "n1"]).exit(3).says(&["ca-key-last", "n1", "ca.key", "cure"]);
    let key = |host: &str| scene.lab.inside(&format!("hosts/{host}/root{CERTS}/ca.key"));
    fs::copy(key("n1"), key("n2")).unwrap();
    let said = scene.kwscale(&["plan", "scale-in", "n1"]).exit(0);
    assert!(!format!("{}{}", said.stdout, said.stderr).contains("ca-key-last"));

    // One that nobody can look at may hold it, where nobody says where the key lies and no host that stays is seen to have it.
    let text = fs::read_to_string(scene.lab.cluster_file()).unwrap();
    let silent: String = text
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("ca_") && *line != "[certificates]\n")
        .collect();
    let file = scene.lab.inside("silent.toml").display().to_string();
    fs::write(&file, &silent).unwrap();
    let holder = fs::read(key("n1")).unwrap();
    scene.lab.lab("stop-sshd", &["n1"]);
    let said = scene.lab.with(&file, &["plan", "scale-in", "n1"]).exit(0);
    assert!(!format!("{}{}", said.stdout, said.stderr).contains("ca-key-last"));
    fs::remove_file(key("n2")).unwrap();
    let words = ["ca-key-last", "whether it holds the only private key", "[certificates]"];
    scene.lab.with(&file, &["plan", "scale-in", "n1"]).exit(3).says(&words);

    // That it lies on the operator's machine is looked at, not believed.
    let safe = scene.lab.inside("safe");
    let named = format!("{silent}\n[certificates]\nca_key = \"{}/ca.key\"\n", safe.display());
    fs::write(&file, named).unwrap();
    scene
        .lab
        .with(&file, &["plan", "scale-in", "n1"])
        .exit(3)
        .says(&["ca-key-last", "there is no such file"]);
    fs::create_dir(&safe).unwrap();
    let (dir, other) =
        (format!("--certs-dir={}", safe.display()), format!("--ca-key={}/ca.key", safe.display()));
    case.run(&scene.lab.kwbase(), &["cert", "create-ca", &dir, &other]).exit(0);
    scene.lab.with(&file, &["plan", "scale-in", "n1"]).exit(3).says(&["ca-key-last", "trusts"]);
    fs::copy(scene.lab.inside(&format!("hosts/n2/root{CERTS}/ca.crt")), safe.join("ca.crt")).unwrap();
    let words = ["ca-key-last", "its key is not that of its certificate"];
    scene.lab.with(&file, &["plan", "scale-in", "n1"]).exit(3).says(&words);
    fs::write(safe.join("ca.key"), holder).unwrap();
    let said = scene.lab.with(&file, &["plan", "scale-in", "n1"]).exit(0);
    assert!(!format!("{}{}", said.stdout, said.stderr).contains("ca-key-last"));
    fs::remove_dir_all(&safe).unwrap();
    fs::remove_file(&file).unwrap();
    down(scene.lab);
}

pub(crate) fn killed_in_every_phase(case: &Case) {
    if !possible("killed_in_every_phase") {
        return;
    }
    let mut scene = Scene::new(case);
    let file = scene.lab.cluster_file();
    let text = fs::read_to_string(&file).unwrap();
    // A start that was cut off is waited for so long before another is tried.
    let policy = "[policy]\nstart_deadline = \"5s\"\n";
    let text = text.replace("[policy]\n", policy).replace("stays_down = \"500ms\"", "stays_down = \"3s\"");
    fs::write(&file, text).unwrap();
    scene.take_time("n1");
    assert_eq!(scene.lab.lab("add", &["--without-certs"]).stdout.trim(), "n5");
    scene.take_time("n5");
    scene.before.clear();
    (1..=5).for_each(|number| scene.look(&format!("n{number}")));

    let plan =
        |method: &str| scene.lab.plan(&["scale-out", "n5", "--certificates", method, "--no-await-balance"]);
    // In the middle of the making of certificates, while temporary files are there.
    let killed_making = |args: &[&str], at: &str| {
        let (told, seen) = (scene.bin(at).join("be-slow"), scene.bin(at).join("seen"));
        fs::write(&told, "").unwrap();
        scene.killed_when(args, "certificates are made", |_| seen.exists());
        fs::remove_file(&told).unwrap();
        fs::remove_file(&seen).unwrap();
        assert!(!scene.came(at).is_empty(), "the test looks where something is");
    };

    // Before anything is done, and while certificates are made here or there: taken back.
    scene.killed(&["apply", &plan("issue"), "--yes"], "\"admitted\"");
    scene.finished(&["--undo"]);
    scene.is_left(&[], &["n5"]);
    for (method, at) in [("issue", "n1"), ("archive", "n5")] {
        killed_making(&["apply", &plan(method), "--yes"], at);
        let key = on(&scene.lab, "n5", &["find", "/etc/kaiwudb", "-name", "ca.key"]);
        assert_eq!(key.is_empty(), method == "issue", "{key:?}");
        scene.finished(&["--undo"]);
        scene.is_left(&[], &["n5"]);
    }

    // Gone on with, whenever it ends.
    killed_making(&["apply", &plan("archive"), "--yes"], "n5");
    scene.killed(&["resume", "--yes"], "{\"act\":{\"start\"");
    scene.killed(&["resume", "--yes"], "{\"joined\"");
    scene.finished(&[]);
    assert_eq!(scene.lab.status().members(), [1, 2, 3, 4, 5]);
    scene.is_left(&[("n5", &installed(&[START_LOG]))], &[]);

    let plan = scene.lab.plan(&["scale-in", "n5"]);
    scene.killed(&["apply", &plan, "--yes"], "{\"act\":{\"mark\"");
    // Replicas are waited for.
    scene.killed(&["resume", "--yes"], "marked, seen through");
    scene.killed(&["resume", "--yes"], "{\"act\":{\"stop\"");
    // The proof of the end has to wait for a member that cannot be reached.
    let mut cut = false;
    scene.killed_when(&["resume", "--yes"], "verify waits", |running| {
        let said = running.stderr();
        if !cut && said.contains("to stay down for another") {
            scene.lab.lab("cut", &["n4"]);
            cut = true;
        }
        said.split_once("] verify from nodes").is_some_and(|(_, after)| after.contains("waiting: "))
    });
    assert!(cut);
    scene.lab.lab("heal", &["n4"]);
    scene.finished(&[]);
    let status = scene.lab.status();
    assert_eq!((status.members(), status.class(5)), (vec![1, 2, 3, 4], "removed"));
    assert!(status.good());
    scene.is_left(&[("n5", &installed(&[START_LOG]))], &["n5"]);
    down(scene.lab);
}
