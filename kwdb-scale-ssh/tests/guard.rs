//! The process on a real sshd's host that watches the commands of a connection from the second on: that it ends what a
//! watcher of its own would have ended, that it is not missed when it is gone, and that it goes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod sshd;

use std::path::Path;
use std::time::Duration;

use kwdb_scale_core::ports::{Command, HostTransport, PortErrorKind};
use kwdb_scale_ssh::SshTransport;
use sshd::{Sshd, installed, n1, sh, until};

/// Processes that this sshd's connections started, and what they call themselves.
fn processes(sshd: &Sshd) -> Vec<(u32, String)> {
    let ours = format!(" 127.0.0.1 {}\0", sshd.port);
    let of = |entry: std::fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let environ = std::fs::read(entry.path().join("environ")).ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let name = stat.split_once('(')?.1.rsplit_once(')')?.0.to_owned();
        String::from_utf8_lossy(&environ).contains(&ours).then_some((pid, name))
    };
    std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter_map(of).collect()
}

fn guards(sshd: &Sshd) -> Vec<u32> {
    processes(sshd).into_iter().filter(|(_, name)| name.starts_with("kwdb")).map(|(pid, _)| pid).collect()
}

async fn one_guard(sshd: &Sshd) -> u32 {
    until("there is a guard", async || match guards(sshd)[..] {
        [guard] => Some(guard),
        _ => None,
    })
    .await
}

fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// How many processes there are in the group.
fn group(leader: u32) -> usize {
    let output = std::process::Command::new("ps").args(["-eo", "pgid="]).output().unwrap();
    let groups = String::from_utf8(output.stdout).unwrap();
    groups.lines().filter(|line| line.trim() == leader.to_string()).count()
}

fn kill(pid: u32) {
    std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
}

/// Says its process in `file` and then is another program, whose arguments tell nothing.
fn sleeper(file: &Path, deadline: Duration) -> Command {
    let text = format!("echo $$ >'{0}.new'; mv '{0}.new' '{0}'; exec sleep 300", file.display());
    Command::new(["sh", "-c", &text]).deadline(deadline)
}

async fn pid_in(file: &Path) -> u32 {
    let text = until("it runs", async || std::fs::read_to_string(file).ok()).await;
    text.trim().parse().unwrap()
}

/// Runs a sleeper until `during` is over; gives what became of the call.
async fn with_sleeper(
    ssh: &SshTransport,
    file: &Path,
    deadline: Duration,
    during: impl AsyncFnOnce(u32),
) -> (PortErrorKind, u32) {
    let (host, command) = (n1(), sleeper(file, deadline));
    let during = async {
        let pid = pid_in(file).await;
        during(pid).await;
        pid
    };
    let (result, pid) = tokio::join!(ssh.run(&host, &command), during);
    (result.unwrap_err().kind(), pid)
}

#[tokio::test]
async fn it_ends_a_command_at_its_deadline_when_the_connection_is_cut() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let ssh = sshd.transport();
    sh(&ssh, "true").await;
    assert!(guards(&sshd).is_empty(), "a single command starts none");
    sh(&ssh, "true").await;
    let guard = one_guard(&sshd).await;
    let cut = async |pid: u32| {
        assert_eq!(group(pid), 1, "it has no watcher of its own");
        sshd.cut();
    };
    let begun = std::time::Instant::now();
    let (kind, pid) = with_sleeper(&ssh, &sshd.path("pid"), Duration::from_secs(3), cut).await;
    assert_eq!(kind, PortErrorKind::ConnectionLost);
    assert!(is_alive(pid), "not before its deadline");
    until("the guard ends it", async || (!is_alive(pid)).then_some(())).await;
    assert!(begun.elapsed() > Duration::from_secs(3));
    until("the guard goes", async || (!is_alive(guard)).then_some(())).await;
    assert!(processes(&sshd).is_empty(), "{:?}", processes(&sshd));
}

#[tokio::test]
async fn it_outlives_the_end_of_the_command_that_started_it() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let ssh = sshd.transport();
    sh(&ssh, "true").await;
    let nothing = async |_| {};
    let (kind, pid) = with_sleeper(&ssh, &sshd.path("one"), Duration::from_secs(2), nothing).await;
    assert_eq!(kind, PortErrorKind::Deadline);
    assert!(!is_alive(pid), "ended from here, with its group");
    let guard = one_guard(&sshd).await;
    let alone = async |pid| assert_eq!(group(pid), 1);
    let (kind, pid) = with_sleeper(&ssh, &sshd.path("two"), Duration::from_secs(2), alone).await;
    assert_eq!((kind, is_alive(pid)), (PortErrorKind::Deadline, false));
    assert_eq!(guards(&sshd), [guard]);
    // Nor do the polite signals end it, or that of a terminal that went away.
    for signal in ["-TERM", "-HUP", "-INT"] {
        std::process::Command::new("kill").args([signal, &guard.to_string()]).status().unwrap();
    }
    sh(&ssh, "sleep 0.2").await;
    assert!(is_alive(guard));
}

#[tokio::test]
async fn without_it_every_command_has_a_watcher() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let ssh = sshd.transport();
    sh(&ssh, "true").await;
    sh(&ssh, "true").await;
    let first = one_guard(&sshd).await;
    kill(first);
    until("it is gone", async || (!is_alive(first)).then_some(())).await;
    let cut = async |pid: u32| {
        assert_eq!(group(pid), 2, "itself and its watcher");
        sshd.cut();
    };
    let (kind, pid) = with_sleeper(&ssh, &sshd.path("pid"), Duration::from_secs(2), cut).await;
    assert_eq!(kind, PortErrorKind::ConnectionLost);
    until("the watcher ends it", async || (!is_alive(pid)).then_some(())).await;
    // The next connection begins anew, and so does one that goes on.
    for _ in 0..2 {
        sh(&ssh, "true").await;
    }
    let second = one_guard(&sshd).await;
    kill(second);
    until("it is gone", async || (!is_alive(second)).then_some(())).await;
    for _ in 0..2 {
        sh(&ssh, "true").await;
    }
    assert_ne!(one_guard(&sshd).await, second);
}

/// Whoever has its number now, and its descriptor, is told nothing.
#[tokio::test]
async fn a_process_that_only_has_its_number_is_let_be() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let ssh = sshd.transport();
    sh(&ssh, "true").await;
    sh(&ssh, "true").await;
    let guard = one_guard(&sshd).await;
    std::fs::write(format!("/proc/{guard}/comm"), "somebody").unwrap_or_else(|_| kill(guard));
    let alone = async |pid| assert_eq!(group(pid), 2);
    let (kind, _) = with_sleeper(&ssh, &sshd.path("pid"), Duration::from_secs(2), alone).await;
    assert_eq!(kind, PortErrorKind::Deadline);
}

#[tokio::test]
async fn nothing_stays_when_the_connection_is_closed() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let ssh = sshd.transport();
    for _ in 0..3 {
        sh(&ssh, "true").await;
    }
    let guard = one_guard(&sshd).await;
    let holds = std::fs::read_dir(format!("/proc/{guard}/fd")).unwrap().flatten();
    let holds: Vec<_> = holds.map(|fd| std::fs::read_link(fd.path()).unwrap_or_default()).collect();
    let pipes = holds.iter().filter(|to| to.to_string_lossy().starts_with("pipe:")).collect::<Vec<_>>();
    assert!(pipes.iter().all(|pipe| *pipe == pipes[0]), "one pipe, which is its own: {holds:?}");
    assert!(holds.iter().all(|to| pipes.contains(&to) || to == Path::new("/dev/null")), "{holds:?}");
    drop(ssh);
    let gone = std::time::Instant::now();
    until("all are gone", async || processes(&sshd).is_empty().then_some(())).await;
    assert!(gone.elapsed() < Duration::from_secs(4), "{:?}", gone.elapsed());
}

#[tokio::test]
async fn it_does_not_stay_with_an_idle_connection() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let ssh = sshd.transport();
    sh(&ssh, "true").await;
    sh(&ssh, "true").await;
    let guard = one_guard(&sshd).await;
    until("it goes", async || (!is_alive(guard)).then_some(())).await;
    let alone = async |pid| assert_eq!(group(pid), 2, "itself and its watcher");
    let (kind, _) = with_sleeper(&ssh, &sshd.path("pid"), Duration::from_secs(2), alone).await;
    assert_eq!(kind, PortErrorKind::Deadline);
    assert_eq!(sshd.logins(), 1);
}

/// Many commands at once on one connection, more than a pipe's page holds in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_takes_many() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let ssh = sshd.transport();
    for _ in 0..2 {
        sh(&ssh, "true").await;
    }
    let mut at_once = tokio::task::JoinSet::new();
    for n in 0..300 {
        let ssh = ssh.clone();
        at_once.spawn(async move { (n, sh(&ssh, &format!("echo {n}")).await) });
    }
    for (n, output) in at_once.join_all().await {
        assert_eq!(output, format!("{n}\n"));
    }
}

/// What is taken out of the environment is taken out for every command, and looked for again on another connection.
#[tokio::test]
async fn the_environment_of_later_commands() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let ssh = sshd.transport();
    let left = "env | grep -c ^KWBASE_ || true; echo $LC_ALL";
    for _ in 0..4 {
        assert_eq!(sh(&ssh, left).await, "0\nC\n");
    }

    // The tests' sshd gives every session one; this one gives those that the key's line names.
    let sshd = Sshd::start(&program, "SetEnv A=b\nPermitUserEnvironment yes");
    let ssh = sshd.transport();
    for _ in 0..4 {
        assert_eq!(sh(&ssh, left).await, "0\nC\n");
        let mut with = Command::new(["sh", "-c", "env | grep ^KWBASE_"]);
        with.env.insert("KWBASE_OURS".to_owned(), "x".to_owned());
        assert_eq!(ssh.run(&n1(), &with).await.unwrap().stdout, "KWBASE_OURS=x\n");
    }
    let keys = sshd.path("authorized_keys");
    let key = std::fs::read_to_string(&keys).unwrap();
    std::fs::write(&keys, format!("environment=\"KWBASE_NEW=1\" {key}")).unwrap();
    sshd.cut();
    for _ in 0..3 {
        assert_eq!(sh(&ssh, left).await, "0\nC\n", "asked again");
    }
    assert_eq!(sshd.logins(), 2);
}

/// What a script of a later command finds is what the first finds.
#[tokio::test]
async fn later_commands_find_what_the_first_finds() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let ssh = sshd.transport();
    let text = "wait; echo \"$0 $# $1\"; set | sed -n 's/^\\([a-z][a-z]*\\)=.*/\\1/p'; echo \"$(cat)\"
        cd /proc/$$/fd && echo *";
    let command = Command::new(["sh", "-c", text, "name", "a b"]);
    let mut all = Vec::new();
    for _ in 0..4 {
        let output = ssh.run(&n1(), &command).await.unwrap();
        assert!(output.stdout.starts_with("name 1 a b\n") && output.stderr.is_empty(), "{output:?}");
        all.push(output);
    }
    assert!(all.iter().all(|output| *output == all[0]), "{all:?}");
}
