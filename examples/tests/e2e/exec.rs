//! `kwscale exec` over real sshds: outputs, exit codes, rounds, limits of sshd, and everything hostile.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::sshd::{self, Sshd};
use crate::support::{Case, Out, Running};

/// More than a deadline of two seconds and the ends of everything need on a busy machine.
const SOON: Duration = Duration::from_secs(25);

/// An sshd, and files of hosts and of keys for it.
struct Fleet<'a> {
    case: &'a Case,
    server: Sshd,
}

impl<'a> Fleet<'a> {
    /// Listens at these loopback addresses besides 127.0.0.1; `extra` lines of configuration come first.
    fn start(case: &'a Case, sshd: &Path, addresses: &[String], extra: &str) -> Self {
        let listen = addresses.iter().map(|a| format!("ListenAddress {a}\n")).collect::<String>();
        let server = Sshd::start(sshd, &format!("{extra}\n{listen}"));
        let mut known = fs::read_to_string(server.known_hosts()).unwrap();
        for address in addresses {
            let key = sshd::public(&server.path("host"));
            known.push_str(&format!("[{address}]:{} {key}", server.port));
        }
        fs::write(server.path("known"), known).unwrap();
        Self { case, server }
    }

    fn path(&self, name: &str) -> String {
        self.server.path(name).display().to_string()
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.server.path(name), content).unwrap();
        self.path(name)
    }

    fn args(&self, hosts: &str, known: &str, more: &[&str]) -> Vec<String> {
        let (hosts, key, port) = (self.file("hosts", hosts), self.path("id"), self.server.port.to_string());
        let mut args: Vec<String> = vec!["exec".into()];
        let pairs =
            [("--hosts-file", hosts), ("--port", port), ("--key", key), ("--known-hosts", known.to_owned())];
        args.extend(pairs.into_iter().flat_map(|(option, value)| [option.to_owned(), value]));
        args.extend(["--user".to_owned(), sshd::user()]);
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        args
    }

    fn exec(&self, hosts: &str, more: &[&str]) -> Out {
        self.exec_known(hosts, &self.path("known"), more)
    }

    fn exec_known(&self, hosts: &str, known: &str, more: &[&str]) -> Out {
        let args = self.args(hosts, known, more);
        self.case.kwscale(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn start_exec(&self, hosts: &str, more: &[&str]) -> Running {
        let args = self.args(hosts, &self.path("known"), more);
        self.case.start(&args.iter().map(String::as_str).collect::<Vec<_>>(), &[])
    }

    /// A file whose existence would mean that something was executed.
    fn canary(&self) -> PathBuf {
        self.server.path("canary")
    }
}

fn lines(out: &Out) -> Vec<Value> {
    out.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn exec_runs_everywhere(case: &Case) {
    let Some(program) = sshd::installed() else { return };
    // One session at a time is enough for it.
    let fleet = Fleet::start(case, &program, &["127.0.0.2".to_owned()], "MaxSessions 1");
    let hosts = "# both\n127.0.0.1 # the first\n127.0.0.2\n";
    let script = fleet.file("script", "a='from a script'\necho \"out $a\"\necho err >&2\n");
    let out = fleet.exec(hosts, &["--script", &script, "--rounds", "3"]).exit(0);
    for host in ["127.0.0.1", "127.0.0.2"] {
        assert_eq!(out.stdout.matches(&format!("{host}: out from a script\n")).count(), 3);
        assert_eq!(out.stderr.matches(&format!("{host}: err\n")).count(), 3);
    }
    assert_eq!(fleet.server.logins(), 2, "one connection a host");

    let out =
        fleet.exec(hosts, &["--json", "--rounds", "2", "--command", "printf", "%s\\n", "a b", "-x"]).exit(0);
    let lines = lines(&out);
    assert_eq!(lines.len(), 4);
    for host in ["127.0.0.1", "127.0.0.2"] {
        let of_it = lines.iter().filter(|line| line["host"] == host);
        let rounds: Vec<_> = of_it.map(|line| line["round"].as_u64()).collect();
        assert_eq!(rounds, [Some(1), Some(2)], "a round of a host ends before its next begins");
    }
    for line in &lines {
        assert_eq!((&line["schema"], &line["exit"]), (&"kwscale.exec/v1".into(), &0.into()));
        assert_eq!((&line["stdout"], &line["end"]), (&"a b\n-x\n".into(), &"exit code 0".into()));
    }

    // Bytes that are no text, and codes for a terminal.
    let script =
        fleet.file("script", b"printf 'a\\377b\\n\\033[2Jc\\rd\\n'; printf '\xff\\n'; printf last\n");
    let out = fleet.exec("127.0.0.1\n", &["--script", &script]).exit(0);
    let expected = "a\u{fffd}b|\\u{1b}[2Jc\\rd|\u{fffd}|last|".replace('|', "\n");
    let expected: String = expected.lines().map(|line| format!("127.0.0.1: {line}\n")).collect();
    assert_eq!(out.stdout, expected);

    // A file, whole, with its bits, over what was there.
    let content: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let local = fleet.file("local", &content);
    fs::set_permissions(&local, fs::Permissions::from_mode(0o640)).unwrap();
    let there = fleet.file("there '$(touch canary)'", "old");
    fleet.exec(hosts, &["--put", &local, "--to", &there]).exit(0);
    assert_eq!(fs::read(&there).unwrap(), content);
    assert_eq!(fs::metadata(&there).unwrap().permissions().mode() & 0o777, 0o640);
    fleet.exec(hosts, &["--put", &local, "--to", &fleet.path("no/dir")]).exit(1).says(&["no/dir", "cure"]);
    let pipe = fleet.path("pipe");
    case.run(Path::new("mkfifo"), &[&pipe]).exit(0);
    fleet
        .exec("127.0.0.1\n", &["--put", &local, "--to", &pipe])
        .exit(1)
        .says(&["pipe", "not a regular file"]);
    assert!(!fs::metadata(&pipe).unwrap().is_file(), "what is no file stays");

    // A script of the shell's.
    let script = fleet.start_exec("127.0.0.1\n", &["--script", &pipe]);
    // Waits for ever where nobody reads.
    std::thread::spawn(move || fs::write(&pipe, "echo piped\n"));
    assert_eq!(script.end(case).exit(0).stdout, "127.0.0.1: piped\n");
    assert!(!fleet.canary().exists());
}

pub(crate) fn exec_tells_what_failed(case: &Case) {
    let Some(program) = sshd::installed() else { return };
    let fleet = Fleet::start(case, &program, &[], "");
    let good = format!("127.0.0.1:{}", fleet.server.port);
    // Nobody listens at the one, and nobody speaks at the other.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = silent.local_addr().map(|address| (silent, address.to_string())).unwrap();
    let script = fleet.file("script", "echo here\n");

    let begun = Instant::now();
    let hosts = format!("{free}\n{}\n{good}\n", silent.1);
    let out = fleet.exec(&hosts, &["--script", &script, "--deadline", "2s", "--rounds", "2"]).exit(3);
    assert!(begun.elapsed() < SOON);
    assert_eq!(out.stdout, format!("{good}: here\n{good}: here\n"));
    for host in [free.to_string(), silent.1.clone()] {
        let told: Vec<&str> =
            out.stderr.lines().filter(|l| l.starts_with(&format!("kwscale: {host}: "))).collect();
        assert!(told.len() == 1 && told[0].contains("cure: "), "{told:?}");
    }

    // One whose command fails, ends by a signal, is not there, or does not end.
    let fails = |command: &[&str], words: &[&str]| {
        let args: Vec<&str> = ["--deadline", "2s", "--command"].iter().chain(command).copied().collect();
        let begun = Instant::now();
        let out = fleet.exec(&good, &args).exit(1).says(words);
        assert!(begun.elapsed() < SOON && out.stderr.contains("cure: "), "{}", out.stderr);
    };
    fails(&["sh", "-c", "echo why >&2; exit 7"], &["why", "exit code 7", "read what it printed above"]);
    // One that printed nothing has nothing to be read.
    for command in [&["false"][..], &["sh", "-c", "kill -9 $$"]] {
        let args: Vec<&str> = ["--command"].iter().chain(command).copied().collect();
        let out = fleet.exec(&good, &args).exit(1);
        assert!(out.stderr.contains(&good) && !out.stderr.contains("cure"), "{}", out.stderr);
    }
    fails(&["no-such-program"], &["no-such-program"]);
    fails(&["sleep", "300"], &["2s", "ended"]);
    // Not all that it printed is here. Nobody reads what a daemon prints, and it is no failure.
    fails(&["sh", "-c", "yes | head -c 5000000"], &[&good, "cut at 4 MiB"]);
    fails(&["sh", "-c", "yes | head -c 5000000; exit 7"], &["cut at 4 MiB", "exit code 7"]);
    let left = ["--json", "--command", "sh", "-c", "echo ready; sleep 5 &"];
    let line = lines(&fleet.exec(&good, &left).exit(0)).remove(0);
    assert_eq!((&line["stdout"], &line["truncated"]), (&"ready\n".into(), &true.into()));
    // Out of reach weighs more.
    fleet.exec(&format!("{free}\n{good}\n"), &["--command", "false"]).exit(3);
    let out = fleet.exec(&format!("{free}\n{good}\n"), &["--json", "--command", "false"]).exit(3);
    let mut exits: Vec<i64> = lines(&out).iter().map(|l| l["exit"].as_i64().unwrap()).collect();
    exits.sort_unstable();
    assert_eq!(exits, [1, 3]);

    // A login that is refused, and a key that cannot be used.
    sshd::key(fleet.server.dir.path(), "stranger", "ed25519", "");
    let mut args = fleet.args(&good, &fleet.path("known"), &["--command", "true"]);
    let key = args.iter().position(|a| *a == fleet.path("id")).unwrap();
    let mut with_key = |key_file: String| {
        args[key] = key_file;
        fleet.case.kwscale(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    with_key(fleet.path("stranger")).exit(3).says(&["did not let", "stranger", "give a user"]);
    sshd::key(fleet.server.dir.path(), "locked", "ed25519", "secret");
    with_key(fleet.path("locked")).exit(2).says(&["encrypted", "KWSCALE_KEY_PASSPHRASE"]);
    // By what is wrong with it, not by what it is called.
    for name in ["no-key", "passphrase"] {
        let out = with_key(fleet.file(name, "words\n")).exit(2).says(&[name, "name a private key"]);
        assert!(!out.stderr.contains("cure: ") && !out.stderr.contains("known_hosts"), "{}", out.stderr);
    }
    with_key(fleet.path("none")).exit(2).says(&["key file", "none", "name a file"]);
    fleet.exec_known(&good, &fleet.path("none"), &["--command", "true"]).exit(2).says(&[
        "known_hosts",
        "none",
        "name a file",
    ]);
    fleet.exec(&good, &["--script", &fleet.path("none")]).exit(2).says(&["script", "none", "name a file"]);
    let none = fleet.path("none");
    fleet.exec(&good, &["--put", &none, "--to", "/x"]).exit(2).says(&["the file", "none", "name a file"]);
    case.kwscale(&["exec", "--hosts-file", &none, "--script", &script])
        .exit(2)
        .says(&["none", "name a file"]);
    fleet.exec("# nobody\n", &["--script", &script]).exit(2).says(&["names no host"]);
}

pub(crate) fn exec_executes_nothing_else(case: &Case) {
    let Some(program) = sshd::installed() else { return };
    let fleet = Fleet::start(case, &program, &[], "");
    let canary = fleet.canary().display().to_string();
    let touch = format!("touch {canary}");
    let script = fleet.file("script $(touch canary) 'x'", &touch);

    // Host names: refused, and told by line; nobody is asked.
    let names = [
        format!("$({touch})"),
        format!("`{touch}`"),
        format!("a;{touch}"),
        format!("-oProxyCommand={touch}"),
        format!("127.0.0.1|{touch}"),
        "127.0.0.1 127.0.0.2".to_owned(),
        "'127.0.0.1'".to_owned(),
        "a\u{7}b".to_owned(),
        "*".to_owned(),
    ];
    for name in &names {
        let hosts = format!("127.0.0.1\n{name}\n");
        let out = fleet.exec(&hosts, &["--script", &script]).exit(2).says(&["line 2", "cannot be used"]);
        assert!(!out.stderr.contains('\u{7}'));
    }
    let hosts = fleet.file("hosts", b"127.0.0.1\n\xff\n");
    case.kwscale(&["exec", "--hosts-file", &hosts, "--script", &script]).exit(2).says(&["UTF-8"]);
    assert_eq!(fleet.server.logins(), 0);

    // A host whose key is another, or that nobody knows.
    sshd::key(fleet.server.dir.path(), "other", "ed25519", "");
    let other = format!(
        "# a comment\n[127.0.0.1]:{} {}",
        fleet.server.port,
        sshd::public(&fleet.server.path("other"))
    );
    let known = fleet.file("known-other", other);
    let out = fleet.exec_known("127.0.0.1\n", &known, &["--script", &script]).exit(3);
    assert!(out.stderr.contains(&format!("{known}:2")) && out.stdout.is_empty(), "{}", out.stderr);
    // The cure for that is in its own words, and no other is.
    assert!(out.stderr.contains("correct that line") && !out.stderr.contains("cure: "), "{}", out.stderr);
    let known = fleet.file("known-none", "");
    fleet
        .exec_known("127.0.0.1\n", &known, &["--script", &script])
        .exit(3)
        .says(&["fingerprint", "known-none"]);
    assert_eq!(fleet.server.logins(), 0);
    assert!(!fleet.canary().exists());

    // Arguments and script bytes arrive as they are.
    let hostile = [
        format!("$({touch})"),
        format!("`{touch}`"),
        format!("'; {touch}; '"),
        format!("\"; {touch} #"),
        "two\nlines\t".to_owned(),
        "--flag".to_owned(),
        "*".to_owned(),
        "!!".to_owned(),
        "\\n\u{1b}".to_owned(),
        String::new(),
    ];
    let mut args = vec!["--json", "--command", "printf", "%s\\0"];
    args.extend(hostile.iter().map(String::as_str));
    let out = fleet.exec("127.0.0.1\n", &args).exit(0);
    let expected: String = hostile.iter().map(|arg| format!("{arg}\0")).collect();
    assert_eq!(lines(&out)[0]["stdout"], expected);
    let quoted = fleet.file("quoted", format!("printf '%s\\n' '$({touch})' '`{touch}`'; exit 0\n{touch}\n"));
    let out = fleet.exec("127.0.0.1\n", &["--script", &quoted]).exit(0);
    assert_eq!(out.stdout.lines().count(), 2);
    fleet.exec("127.0.0.1\n", &["--command", "--help"]).exit(2).says(&["does not begin with a program"]);
    for path in ["-rf", "", "a/", "a\nb/", "srv/f"] {
        fleet.exec("127.0.0.1\n", &["--put", &script, &format!("--to={path}")]).exit(2).says(&["--to"]);
    }
    assert!(!fleet.canary().exists(), "something was executed");
    // The script whose name and place in a file proved harmless does work.
    fleet.exec("127.0.0.1\n", &["--script", &script]).exit(0);
    assert!(fleet.canary().exists());
}

pub(crate) fn exec_on_many_hosts(case: &Case) {
    let Some(program) = sshd::installed() else { return };
    // As many as one sshd listens at, with the one that it has anyway.
    let addresses: Vec<String> = (2..=16).map(|n| format!("127.0.0.{n}")).collect();
    // Refuses whoever comes while four are logging in, where the default begins to at ten.
    let fleet = Fleet::start(case, &program, &addresses, "MaxStartups 4:100:4");
    let hosts = addresses.join("\n");
    let out = fleet.exec(&hosts, &["--rounds", "2", "--command", "echo", "here"]).exit(0);
    for address in &addresses {
        assert_eq!(out.stdout.matches(&format!("{address}: here\n")).count(), 2, "{address}");
    }
    assert_eq!(fleet.server.logins(), addresses.len());
    let log = fleet.server.log();
    assert!(log.contains("drop connection"), "nobody was turned away: {log}");

    // Ctrl-C ends what runs on the hosts.
    let pids = fleet.path("pids");
    let text = format!("echo $$ >>'{pids}'; exec sleep 300");
    let mut running =
        fleet.start_exec("127.0.0.2\n127.0.0.3\n", &["--deadline", "300s", "--command", "sh", "-c", &text]);
    let started =
        || fs::read_to_string(&pids).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    case.until("both run", 60, || started().len() == 2);
    assert!(running.runs());
    running.signal(Signal::INT);
    running.end(case).exit(1).says(&["interrupted"]);
    case.until("both are ended", 30, || started().iter().all(|pid| !Path::new("/proc").join(pid).exists()));
}

pub(crate) fn exec_on_the_hosts_of_a_cluster(case: &Case) {
    let Some(program) = sshd::installed() else { return };
    let fleet = Fleet::start(case, &program, &[], "");
    let config = format!(
        "Host far\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
         UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n",
        fleet.server.port,
        sshd::user(),
        fleet.path("id"),
        fleet.path("known"),
    );
    fleet.file("ssh_config", config);
    let host =
        |name: &str, port: u16| format!("[[host]]\nname = \"{name}\"\nlisten_addr = \"127.0.0.1:{port}\"\n");
    let text = format!(
        "[ssh]\nconfig = \"ssh_config\"\n[cluster]\nsecure = false\n{}{}transport = \"ssh\"\n",
        host("near", 1),
        host("far", 2)
    );
    let cluster = fleet.file("cluster.toml", text);
    let script = fleet.file("script", "echo \"${SSH_CONNECTION:+over ssh}\"\n");
    let out = case.kwscale(&["--cluster", &cluster, "exec", "--script", &script]).exit(0);
    assert!(out.stdout.contains("far: over ssh\n") && out.stdout.contains("near: \n"), "{}", out.stdout);
    // A host that cannot be reached as its ssh_config says fails by itself, and no other with it.
    let text = fs::read_to_string(fleet.path("ssh_config")).unwrap();
    let more = "Host proxied\n  ProxyCommand nc %h %p\nHost keyless\n  IdentityFile /nonexistent/key\nHost wrong\n  \
                ProxyJump wrong\nHost proxied keyless wrong\n  HostName 127.0.0.1\n  IdentityAgent none\n";
    fleet.file("ssh_config", format!("{text}{more}"));
    let mut text = fs::read_to_string(&cluster).unwrap();
    for (name, port) in [("proxied", 3), ("keyless", 4), ("wrong", 5)] {
        text.push_str(&format!("{}transport = \"ssh\"\n", host(name, port)));
    }
    fleet.file("cluster.toml", text);
    let exec = |more: &[&str]| {
        let mut args = vec!["--cluster", &cluster, "exec", "--script", &script, "--rounds", "2"];
        args.extend(more);
        case.kwscale(&args)
    };
    let out = exec(&[]).exit(3).says(&["failed on 3 of 5 hosts", "no further round on 3 of 5 hosts"]);
    let ran = ["far: over ssh\n", "near: \n"].map(|line| out.stdout.matches(line).count());
    assert_eq!((ran, out.stdout.lines().count()), ([2, 2], 4), "{}", out.stdout);
    for (name, why) in [("proxied", "ProxyJump"), ("keyless", "IdentityFile"), ("wrong", "in a circle")] {
        let told = out.stderr.lines().filter(|l| l.starts_with(&format!("kwscale: {name}: ")));
        let told: Vec<&str> = told.collect();
        assert!(told.len() == 1 && told[0].contains(why) && !told[0].contains("SSH server"), "{told:?}");
    }
    let exits = |out: &Out| {
        let of = |line: Value| (line["host"].as_str().unwrap().to_owned(), line["exit"].as_i64().unwrap());
        lines(out).into_iter().map(of).collect::<std::collections::BTreeMap<_, _>>()
    };
    let expected = [("far", 0), ("keyless", 2), ("near", 0), ("proxied", 3), ("wrong", 2)];
    assert_eq!(
        exits(&exec(&["--json"]).exit(3)),
        expected.map(|(name, exit)| (name.to_owned(), exit)).into()
    );
    // What goes through one of them needs all of them.
    case.kwscale(&["--cluster", &cluster, "hosts"]).exit(2).says(&["keyless", "IdentityFile"]);
    // What is wrong for all of them is told once, and nothing runs.
    fleet.file("ssh_config", format!("Host other\n  NoSuchKeyword x\n{more}"));
    let out = exec(&[]).exit(2).says(&["NoSuchKeyword"]);
    assert!(out.stdout.is_empty() && !out.stderr.contains("hosts"), "{} {}", out.stdout, out.stderr);
    case.kwscale(&["--cluster", &fleet.path("none.toml"), "exec", "--script", &script])
        .exit(2)
        .says(&["none.toml", "--hosts-file"]);
}
