//! Hosts that are machines of their own: the kwbase method over SSH, with an sshd, files and processes of each host.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use kwdb_scale_sim::lab;
use rustix::process::Signal;

use crate::support::{Case, TestLab};

const SPEED: u32 = 20;
const RANGES: &str = "20";
/// Where something could be left behind: every directory that a host has to itself, and where programs put what they
/// need for a while. The walk would take too long over all of the machine.
pub(crate) const PLACES: &[&str] = &[
    "/etc",
    "/home",
    "/opt/kwdb_install",
    "/root",
    "/run",
    "/tmp",
    "/usr/local/kaiwudb",
    "/var/lib",
    "/var/log",
    "/var/tmp",
];

/// Whether such labs can be made. They must be in CI; elsewhere a case says why it was not run.
pub(crate) fn possible(case: &str) -> bool {
    let fit = lab::machines_can_be_made();
    if let Err(why) = &fit {
        assert!(std::env::var_os("CI").is_none(), "{why}");
        println!("not run: {case}: {why}");
    }
    fit.is_ok()
}

pub(crate) fn up<'a>(case: &'a Case, more: &[&str]) -> TestLab<'a> {
    case.lab(4, SPEED, &[&["--hosts", "netns", "--ranges", RANGES], more].concat())
}

/// The lines that a command prints on a host, which it is run on without SSH.
pub(crate) fn on(lab: &TestLab<'_>, host: &str, command: &[&str]) -> Vec<String> {
    let out = lab.lab("run", &[&[host, "--"], command].concat());
    out.stdout.lines().map(|line| line.trim().to_owned()).collect()
}

/// Every file that came to a host since it was made; those of a store belong to its node.
pub(crate) fn files(lab: &TestLab<'_>, host: &str) -> BTreeSet<String> {
    let wanted = [
        "-path",
        "/var/lib/kaiwudb/*",
        "-prune",
        "-o",
        "!",
        "-type",
        "d",
        // What comes out of an archive has the time of modification that it had elsewhere.
        "-cnewer",
        "/etc/ssh/sshd_config",
        "-print",
    ];
    let made = lab.inside(&format!("hosts/{host}/root/etc/ssh/sshd_config"));
    let made = fs::metadata(made).unwrap().ctime();
    // Where a host has no directory of its own it also sees what came to this machine, such as the key that a container
    // engine makes when it runs for the first time.
    let of_this_machine = |path: &str| fs::symlink_metadata(path).is_ok_and(|file| file.ctime() >= made);
    let found = on(lab, host, &[&["find"], PLACES, &wanted].concat());
    found.into_iter().filter(|path| !of_this_machine(path)).collect()
}

/// Waits until nothing runs on a host but its first process, sshd and, if there is to be one, a node.
#[track_caller]
pub(crate) fn only_sshd_and(case: &Case, lab: &TestLab<'_>, host: &str, node: bool) {
    let mut wanted = vec!["init", "sshd"];
    wanted.extend(node.then_some("kwbase"));
    wanted.sort_unstable();
    // A session ends a moment after its connection.
    case.until(&format!("only {wanted:?} run on {host}"), 20, || {
        let mut all = on(lab, host, &["ps", "-eo", "comm="]);
        let own = all.iter().position(|name| name == "ps").expect("ps sees itself");
        all.remove(own);
        all.sort_unstable();
        all == wanted
    });
}

/// What this machine has of a lab beside its directory: namespaces, interfaces, mounts, processes.
fn traces(id: &str, dir: &Path) -> Vec<String> {
    let dir = dir.display().to_string();
    let names = |of: &str| {
        let all = fs::read_dir(of).into_iter().flatten().flatten();
        all.map(|entry| entry.path().display().to_string())
            .filter(|path| path.contains(id))
            .collect::<Vec<_>>()
    };
    let mut found = [names("/run/netns"), names("/sys/class/net")].concat();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(id) || line.contains(&dir)).map(str::to_owned));
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        // The marker of a host's processes, and of the twin's.
        if command.contains(&format!("kwdb-lab-host={id}")) || command.contains(&format!("lab-in={dir}")) {
            found.push(command);
        }
    }
    found
}

fn id(lab: &TestLab<'_>) -> String {
    let text = fs::read_to_string(lab.inside("lab.json")).unwrap_or_default();
    let info: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    info["net"]["id"].as_str().unwrap_or_default().to_owned()
}

/// Ends the lab and looks that nothing is left of it.
#[track_caller]
pub(crate) fn down(lab: TestLab<'_>) {
    let (id, dir) = (id(&lab), lab.inside(""));
    assert!(id.len() > 8 && !traces(&id, &dir).is_empty(), "the test looks where something is");
    lab.lab("down", &[]);
    assert_eq!(traces(&id, &dir), Vec::<String>::new());
    assert!(!dir.exists(), "{} is left", dir.display());
}

pub(crate) fn out_and_in_killed_in_every_act(case: &Case) {
    if !possible("out_and_in_killed_in_every_act") {
        return;
    }
    let lab = up(case, &[]);
    lab.lab("add", &[]);
    // A start that was cut off is waited for so long before another is tried.
    let file = lab.cluster_file();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("[policy]\n", "[policy]\nstart_deadline = \"5s\"\n")).unwrap();
    let before: Vec<_> = (1..=5).map(|n| files(&lab, &format!("n{n}"))).collect();

    // A description that leads to another machine than the one whose addresses it has.
    let other =
        lab.edited("other.toml", |text| text.replace("name = \"n5\"\n", "name = \"n5\"\nssh = \"n4\"\n"));
    lab.with(&other, &["check", "scale-out", "n5"]).exit(3).says(&[
        "host-listen-address",
        "the machine on which it would be started has no such address",
        "how the host is reached",
    ]);
    fs::remove_file(other).unwrap();

    // In the middle of every act there is, each of which is a command on a host.
    for (change, moments) in
        [("scale-out", &["start a node on n5"][..]), ("scale-in", &["mark 5", "stop node 5"][..])]
    {
        let plan = lab.plan(&[change, "n5"]);
        let mut next = vec!["apply", &plan, "--yes"];
        for moment in moments {
            let mut running = lab.start(&next);
            case.until(moment, 90, || {
                assert!(running.runs(), "it ended too early:\n{}", running.stderr());
                running.stderr().contains(moment)
            });
            running.signal(Signal::KILL);
            assert_eq!(running.end(case).code, None);
            next = vec!["resume", "--yes"];
        }
        lab.kwscale(&next).exit(0);
        let status = lab.status();
        let expected = if change == "scale-out" {
            (vec![1, 2, 3, 4, 5], "member")
        } else {
            (vec![1, 2, 3, 4], "removed")
        };
        assert_eq!((status.members(), status.class(5)), expected);
        assert!(status.good());
    }

    for number in 1..=5 {
        let host = format!("n{number}");
        only_sshd_and(case, &lab, &host, number != 5);
        let left: Vec<_> = files(&lab, &host).difference(&before[number - 1]).cloned().collect();
        // What the start command printed is kept: it says why a node did not come up.
        let expected: &[&str] = if number == 5 { &["/var/lib/kaiwudb.start.log"] } else { &[] };
        assert_eq!(left, expected, "left on {host}");
    }

    // A node whose cable is pulled is dead to the others, and comes back as itself.
    lab.lab("cut", &["n4"]);
    case.until("node 4 is dead", 30, || lab.status().class(4) == "dead");
    lab.lab("heal", &["n4"]);
    case.until("node 4 is back", 30, || lab.status().class(4) == "member");
    down(lab);
}

pub(crate) fn secure_out_and_in_by_sudo(case: &Case) {
    if !possible("secure_out_and_in_by_sudo") {
        return;
    }
    let lab = up(case, &["--secure", "--login", "kaiwudb"]);
    lab.lab("add", &[]);
    // As an installation leaves it: the CA's key is on the first host alone, each has a certificate of its own.
    for (host, holds) in [("n1", true), ("n2", false), ("n5", false)] {
        let own = lab.inside(&format!("hosts/{host}/root/etc/kaiwudb/certs"));
        assert_eq!((own.join("ca.key").exists(), own.join("node.key").exists()), (holds, true), "{host}");
    }
    assert!(!lab.inside("certs/ca.key").exists());
    assert_eq!(on(&lab, "n2", &["hostname"]), ["n2"]);

    // Without a way in nothing is guessed.
    lab.lab("stop-sshd", &["n5"]);
    lab.kwscale(&["plan", "scale-out", "n5"]).exit(3).says(&["n5", "refused", "cure"]);
    lab.lab("start-sshd", &["n5"]);

    // A key that changed may be another machine: refused, with the place where the old one stands.
    let known = lab.inside("known_hosts");
    let key = || fs::read_to_string(lab.inside("hosts/n5/root/etc/ssh/ssh_host_ed25519_key.pub")).unwrap();
    let word = |key: &str| key.split(' ').nth(1).unwrap().to_owned();
    let old = word(&key());
    lab.lab("rekey", &["n5"]);
    let place = format!("{}:5 ", known.display());
    lab.kwscale(&["plan", "scale-out", "n5"]).exit(3).says(&["n5", &place]);
    let text = fs::read_to_string(&known).unwrap();
    fs::write(&known, text.replace(&old, &word(&key()))).unwrap();

    lab.change(&["scale-out", "n5"]).says(&["node 5 joined"]);
    only_sshd_and(case, &lab, "n5", true);
    lab.change(&["scale-in", "n5"]).says(&["node 5 is removed"]);
    only_sshd_and(case, &lab, "n5", false);
    let status = lab.status();
    assert_eq!((status.members(), status.class(5)), (vec![1, 2, 3, 4], "removed"));
    down(lab);
}

pub(crate) fn a_lab_killed_while_it_is_made(case: &Case) {
    if !possible("a_lab_killed_while_it_is_made") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("lab");
    let at = dir.display().to_string();
    let mut running = case.start(&["lab", "up", "--dir", &at, "--nodes", "4", "--hosts", "netns"], &[]);
    let id = || {
        let text = fs::read_to_string(dir.join("lab.json")).ok()?;
        let info: serde_json::Value = serde_json::from_str(&text).ok()?;
        info["net"]["id"].as_str().map(str::to_owned)
    };
    case.until("the second host is there", 60, || {
        assert!(running.runs(), "it ended too early:\n{}", running.stderr());
        id().is_some_and(|id| Path::new("/run/netns").join(format!("{id}-n2")).exists())
    });
    running.signal(Signal::KILL);
    let id = id().unwrap();
    running.end(case);
    assert!(!traces(&id, &dir).is_empty());
    case.kwscale(&["lab", "down", "--dir", &at]).exit(0);
    assert_eq!(traces(&id, &dir), Vec::<String>::new());
    assert!(!dir.exists());
}
