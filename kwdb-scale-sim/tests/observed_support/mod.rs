//! Reading recordings, replaying them on the twin at the times at which they were made, and comparing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;
use std::time::Duration;

use jiff::Timestamp;
use kwdb_scale_core::rows::{Query, Rows};
use kwdb_scale_core::topology::{Address, StartMode};
use kwdb_scale_sim::cli::{Certs, ClientEnv, Next, Session};
use kwdb_scale_sim::memory::World;
use kwdb_scale_sim::model::{Cluster, Config, NodeStart, Security};

pub(crate) fn lines_of(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|l| !l.trim().is_empty()).map(str::to_owned).collect()
}

pub(crate) fn files_under(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        for entry in fs::read_dir(dir.join(&relative)).unwrap() {
            let entry = entry.unwrap();
            let path = relative.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                open.push(path);
            } else {
                all.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    all.sort();
    all
}

/// A recording: when it ended, how long it took, the command, and what it left.
struct Recording {
    began: Timestamp,
    took: Duration,
    limit: Duration,
    argv: Vec<String>,
    stdout: String,
    stderr: String,
    /// `None`: it was still running when the observer ended it.
    exit: Option<i32>,
}

fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/observed").join(name);
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let rest = text.split_once(from).unwrap().1;
    rest.split_once(to).unwrap_or((rest, "")).0
}

fn read(name: &str) -> Recording {
    let text = data(name);
    let ended: Timestamp = between(&text, "### date: ", "   ").trim().parse().unwrap();
    let took: f64 = between(&text, "elapsed_s: ", "   ").trim().parse().unwrap();
    let limit: u64 = between(&text, "observer: ", "s;").parse().unwrap();
    let exit: i32 = between(&text, "--- exit code: ", "\n").trim().parse().unwrap();
    Recording {
        began: ended - Duration::from_secs_f64(took),
        took: Duration::from_secs_f64(took),
        limit: Duration::from_secs(limit),
        argv: argv(between(&text, "\n$ ", "\n--- stdout")),
        stdout: between(&text, "--- stdout\n", "--- stderr\n").to_owned(),
        stderr: between(&text, "--- stderr\n", "--- exit code").to_owned(),
        exit: (exit != 124).then_some(exit),
    }
}

fn argv(line: &str) -> Vec<String> {
    line.split_whitespace().map(|w| w.replace('\\', "")).collect()
}

pub(crate) struct Replay {
    world: World,
    env: ClientEnv,
    security: Security,
    /// How much later than the recording the twin is by now.
    late: Duration,
    answered: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Replay {
    pub(crate) fn new(base: &str, security: Security) -> Self {
        let config =
            Config { base_time: base.parse().unwrap(), security: security.clone(), ..Config::default() };
        let ca = || Some("lab".to_owned());
        let certs = BTreeMap::from([
            ("/data/sec/certs".to_owned(), Certs { ca: ca(), clients: vec!["root".to_owned()] }),
            ("/data/sec/emptycerts".to_owned(), Certs { ca: ca(), clients: Vec::new() }),
        ]);
        Self {
            world: World::new(config),
            env: ClientEnv { certs, ..ClientEnv::default() },
            security,
            late: Duration::ZERO,
            answered: BTreeSet::new(),
            wrong: Vec::new(),
        }
    }

    pub(crate) fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.world.cluster()
    }

    /// Goes to a time of the recordings.
    pub(crate) fn at(&mut self, time: &str) {
        self.advance_to(time.parse::<Timestamp>().unwrap() + self.late);
    }

    /// What follows was recorded up to a second later than it says: recordings have whole seconds.
    pub(crate) fn slip(&mut self, by: Duration) {
        self.late += by;
    }

    /// Waits until the last heartbeat of a node is as long ago as it was at `time`, when it had been at `heartbeat`.
    pub(crate) fn align(&mut self, gateway: &str, node: u32, time: &str, heartbeat: &str) {
        let parse = |t: &str| t.parse::<Timestamp>().unwrap();
        self.advance_to(parse(time) + self.late);
        let wanted = parse(time).duration_since(parse(heartbeat)).as_millis();
        let Rows::Liveness(rows) = self.cluster().rows(&gateway.into(), &Query::Liveness).unwrap().rows
        else {
            panic!("no liveness rows");
        };
        let row = rows.iter().find(|r| r.node_id.0 == node).unwrap();
        let is = self.world.now().duration_since(row.updated_at.unwrap()).as_millis();
        let period = self.cluster().config().timings.heartbeat.as_millis() as i128;
        self.slip(Duration::from_millis((wanted - is).rem_euclid(period) as u64));
    }

    fn advance_to(&mut self, until: Timestamp) {
        self.world.advance_to(until);
    }

    pub(crate) fn start(&mut self, address: &str, join: &[&str], mode: StartMode) {
        let join = join.iter().map(|a| Address::new(*a)).collect();
        // The paths of the recorded start commands, so that a node finds its old store.
        let stores = vec![format!(":/data/n{}", Address::new(address).port().unwrap() % 1000 - 256)];
        let security = self.security.clone();
        let start = NodeStart { mode, security, stores, ..NodeStart::new(address, join) };
        self.world.cluster().start_node(start).unwrap();
    }

    pub(crate) fn hold_transaction(&mut self, address: &str, until: &str) {
        let until = until.parse::<Timestamp>().unwrap() + self.late;
        self.world.cluster().hold_transaction(&address.into(), until);
    }

    fn run(&mut self, argv: &[String], env: &ClientEnv, limit: Duration) -> (String, String, Option<i32>) {
        let end = self.world.now() + limit;
        let mut session = Session::new(&mut self.world.cluster(), argv, env);
        let (mut stdout, mut stderr) = (String::new(), String::new());
        loop {
            let poll = session.poll(&mut self.world.cluster());
            stdout += &poll.stdout;
            stderr += &poll.stderr;
            let at = match poll.next {
                Next::Done(code) => return (stdout, stderr, Some(code)),
                Next::At(at) => at,
                Next::Hanging => self.world.now() + Duration::from_secs(1),
            };
            if at > end {
                self.advance_to(end);
                return (stdout, stderr, None);
            }
            self.advance_to(at);
        }
    }

    /// Runs a command that was not recorded.
    pub(crate) fn quietly(&mut self, line: &str) {
        let env = self.env.clone();
        let (_, stderr, exit) = self.run(&argv(line), &env, Duration::from_secs(60));
        assert_eq!(exit, Some(0), "{line}: {stderr}");
    }

    pub(crate) fn check_dir(&mut self, dir: &str, but: &[&str]) {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/observed").join(dir);
        let mut names = files_under(&here);
        names.retain(|n| !but.iter().any(|b| n.starts_with(b)));
        // In the order in which they were made; names break ties.
        let mut timed: Vec<(Timestamp, String)> =
            names.into_iter().map(|n| format!("{dir}/{n}")).map(|n| (read(&n).began, n)).collect();
        timed.sort();
        for (_, name) in timed {
            self.check(&name);
        }
    }

    /// The files of a directory that begin with these, in this order.
    pub(crate) fn check_list(&mut self, dir: &str, starts: &[&str]) {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/observed").join(dir);
        let names = files_under(&here);
        for start in starts {
            let found: Vec<&String> = names.iter().filter(|n| n.starts_with(start)).collect();
            assert_eq!(found.len(), 1, "{dir}/{start}");
            self.check(&format!("{dir}/{}", found[0]));
        }
    }

    /// Runs a recorded command at its time and compares.
    pub(crate) fn check(&mut self, name: &str) {
        let rec = read(name);
        self.advance_to(rec.began + self.late);
        let (argv, env) = self.without_env(&rec.argv);
        let (stdout, stderr, exit) = self.run(&argv, &env, rec.limit);
        self.compare(name, &rec, &stdout, &stderr, exit);
        let ended = rec.began + rec.took;
        if self.world.now() > ended + self.late {
            self.late = Duration::try_from(self.world.now().duration_since(ended)).unwrap();
        }
    }

    /// `env HOME=/nonexistent kwbase …`: without that, and without a home directory.
    fn without_env(&self, argv: &[String]) -> (Vec<String>, ClientEnv) {
        let at = argv.iter().position(|w| w == "kwbase").unwrap();
        (argv[at..].to_vec(), self.env.clone())
    }

    /// A start command whose output was recorded without streams; it begins at that line of the file.
    pub(crate) fn check_start(&mut self, name: &str, at: usize) {
        let text = data(name);
        let mut lines = text.lines().skip(at);
        let line = lines.next().unwrap().trim_start_matches("$ ").to_owned();
        let wanted: Vec<&str> = lines.take_while(|l| !l.starts_with("---")).collect();
        let env = self.env.clone();
        let (stdout, stderr, exit) = self.run(&argv(&line), &env, Duration::from_secs(10));
        let said = stderr + &stdout;
        let said: Vec<&str> = said.lines().collect();
        // The recording goes on at once: `--background` came back before its time was noted.
        self.late += Duration::from_secs(3);
        if said != wanted || exit != Some(0) {
            self.wrong.push(format!(
                "{name}: {exit:?}\n{}\n--- wanted\n{}",
                said.join("\n"),
                wanted.join("\n")
            ));
        }
        self.answered.insert(name.to_owned());
    }

    fn compare(&mut self, name: &str, rec: &Recording, stdout: &str, stderr: &str, exit: Option<i32>) {
        let waits = rec.argv.iter().any(|w| w == "decommission") && rec.stdout.lines().count() > 2;
        let mask = |text: &str| {
            let lines = masked(text);
            if waits { once_each(&lines) } else { lines }
        };
        for (stream, ours, theirs) in [("stdout", stdout, &rec.stdout), ("stderr", stderr, &rec.stderr)] {
            let (ours, theirs) = (mask(ours), mask(theirs));
            if ours != theirs {
                let text =
                    format!("{name}: {stream}\n{}\n--- wanted\n{}", ours.join("\n"), theirs.join("\n"));
                self.wrong.push(text);
            }
        }
        if exit != rec.exit {
            self.wrong.push(format!("{name}: exit {exit:?}, wanted {:?}\n{stdout}{stderr}", rec.exit));
        }
        self.answered.insert(name.to_owned());
    }

    pub(crate) fn done(self) -> BTreeSet<String> {
        assert!(self.wrong.is_empty(), "{} differences:\n\n{}", self.wrong.len(), self.wrong.join("\n\n"));
        self.answered
    }
}

/// Lines with what differs from run to run masked: times, counts (any number but one at the start of a line, which
/// is a node id), the build's own stamps, the padding of tables, and the dots of waiting.
fn masked(text: &str) -> Vec<String> {
    text.lines()
        .filter(|l| !l.ends_with("cannot reuse client connection"))
        .map(|l| if !l.is_empty() && l.bytes().all(|b| b == b'.') { "." } else { l })
        .map(mask_line)
        .collect()
}

fn mask_line(line: &str) -> String {
    for stamp in ["Build Time:", "Build SHA-1:"] {
        if line.starts_with(stamp) {
            return stamp.to_owned();
        }
    }
    let mut out = String::new();
    let mut word = String::new();
    let mut first = true;
    let flush = |word: &mut String, out: &mut String, first: &mut bool| {
        if !word.is_empty() {
            let digits = word.bytes().all(|b| b.is_ascii_digit());
            let date = word.len() == 10 && word.as_bytes()[4] == b'-' && word.starts_with("20");
            let clock = word.len() >= 8 && word.as_bytes()[2] == b':' && word.as_bytes()[5] == b':';
            let logged =
                word.len() == 7 && word.starts_with('E') && word[1..].bytes().all(|b| b.is_ascii_digit());
            *out += match (digits && !*first, date, clock, logged) {
                (true, ..) => "#",
                (_, true, ..) => "<date>",
                (_, _, true, _) => "<time>",
                (.., true) => "E<date>",
                _ => word,
            };
            *first = false;
            word.clear();
        }
    };
    for c in line.chars() {
        if c.is_whitespace() || ",|<>'\"()+".contains(c) {
            flush(&mut word, &mut out, &mut first);
            // One blank stands for any padding; so does one dash, below.
            if !(c == ' ' && out.ends_with(' ')) {
                out.push(c);
            }
        } else if c == '-' && word.chars().all(|c| c == '-') {
            word = "-".to_owned();
        } else {
            word.push(c);
        }
    }
    flush(&mut word, &mut out, &mut first);
    out.trim_end().to_owned()
}

/// Each different line once, in order of first appearance: a table that is printed again at every change.
fn once_each(lines: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    lines.iter().filter(|l| seen.insert(l.as_str())).cloned().collect()
}
