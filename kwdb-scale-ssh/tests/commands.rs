//! What the SSH transport promises beyond the contract, on a real sshd: one connection, what survives its loss,
//! terminals, privilege.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod sshd;

use std::time::Duration;

use kwdb_scale_core::ports::{
    Command, CommandEnd, Detached, HostTransport, PortErrorKind, PortState, Spawned,
};
use kwdb_scale_core::secret::Secret;
use kwdb_scale_ssh::{Answer, HostKeyPolicy, KeyFile, Privilege, SshHost, SshLimits, SshTransport};
use sshd::{PATIENCE, Sshd, installed, n1, sh, transport, until, user};

fn command(text: &str) -> Command {
    Command::new(["sh", "-c", text])
}

fn is_alive(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
        && !std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default().contains(") Z ")
}

fn read(path: &std::path::Path) -> Option<String> {
    std::fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commands_share_one_connection() {
    let Some(program) = installed() else { return };
    // Fewer than we open at once: the server's limit is waited for, too.
    let sshd = Sshd::start(&program, "MaxSessions 5");
    let ssh = sshd.transport();
    let runs: Vec<_> = (0..40)
        .map(|i| {
            let ssh = ssh.clone();
            tokio::spawn(async move { sh(&ssh, &format!("echo {i}")).await })
        })
        .collect();
    for (i, run) in runs.into_iter().enumerate() {
        assert_eq!(run.await.unwrap(), format!("{i}\n"));
    }
    let same = SshTransport::new([(n1(), sshd.host()), ("n2".into(), sshd.host())]).unwrap();
    sh(&same, "true").await;
    same.run(&"n2".into(), &command("true")).await.unwrap();
    assert_eq!(sshd.logins(), 2, "one of each transport: {}", sshd.log());
}

#[tokio::test]
async fn a_lost_connection_is_no_failed_command() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let ssh = sshd.transport();
    let file = sshd.path("pid");
    let text = format!("echo $$ >'{}'; exec sleep 300", file.display());
    let running = command(&text).deadline(Duration::from_secs(3));
    let cut = async {
        let pid = until("it runs", async || read(&file)).await;
        sshd.cut();
        pid.trim().parse::<u32>().unwrap()
    };
    let n1 = n1();
    let (result, pid) = tokio::join!(ssh.run(&n1, &running), cut);
    let error = result.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::ConnectionLost, "{}", error.chain());
    assert!(error.to_string().contains("'sh'"), "{error}");
    // Nobody can end it from here; its watcher does, at the deadline.
    until("the watcher ends it", async || (!is_alive(pid)).then_some(())).await;
    // The next call connects anew, without an error.
    assert_eq!(ssh.run(&n1, &command("echo back")).await.unwrap().stdout, "back\n");
    sshd.cut();
    assert_eq!(ssh.run(&n1, &command("echo again")).await.unwrap().stdout, "again\n");
}

#[tokio::test]
async fn a_host_that_went_away() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let ssh = sshd.transport();
    sh(&ssh, "true").await;
    sshd.cut();
    drop(sshd);
    let error = ssh.run(&n1(), &command("true")).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Unreachable, "nothing was done: {}", error.chain());
}

#[tokio::test]
async fn the_polite_signal_comes_first() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let bye = sshd.path("bye");
    let text = format!("trap 'echo bye >\"{}\"; exit 0' TERM; while :; do sleep 0.05; done", bye.display());
    let error =
        sshd.transport().run(&n1(), &command(&text).deadline(Duration::from_secs(2))).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Deadline, "{}", error.chain());
    assert!(error.to_string().contains("it was ended"), "{error}");
    assert!(bye.exists());
}

#[tokio::test]
async fn nothing_stays_behind_a_command() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let group = sh(&sshd.transport(), "echo $$").await;
    until("its watcher is gone", async || {
        let output = std::process::Command::new("ps").args(["-eo", "pgid="]).output().unwrap();
        let groups = String::from_utf8(output.stdout).unwrap();
        (!groups.lines().any(|line| line.trim() == group.trim())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_login_script_says_is_not_the_output() {
    let Some(program) = installed() else { return };
    // What sshd runs instead of the line, as a login script that talks would.
    let sshd =
        Sshd::start(&program, "ForceCommand echo hello; echo hello >&2; eval \"$SSH_ORIGINAL_COMMAND\"");
    let output = sshd.transport().run(&n1(), &command("echo out; echo err >&2")).await.unwrap();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    assert!(!output.truncated);
}

#[tokio::test]
async fn a_host_that_runs_nothing() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "ForceCommand echo 'This account is not available.'; exit 1");
    let error = sshd.transport().run(&n1(), &command("true; : hunter2")).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Denied, "{}", error.chain());
    assert!(error.to_string().contains("exit code 1"), "{error}");
    assert!(error.to_string().ends_with("it said 'This account is not available.'"), "{error}");
    assert!(!error.chain().contains("hunter2"), "{}", error.chain());
}

fn detached(text: &str, output_file: &std::path::Path, wait: Duration) -> Detached {
    let output_file = output_file.to_str().unwrap().to_owned();
    Detached { command: command(text), output_file, wait }
}

#[tokio::test]
async fn a_detached_command_outlives_the_connection() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let ssh = sshd.transport();
    let (log, stop) = (sshd.path("log"), sshd.path("stop"));
    // Process, its session, and where its descriptors lead.
    let text = format!(
        "ps -o pid=,sid= -p $$; for i in 0 1 2; do readlink /proc/$$/fd/$i; done; ls /proc/$$/fd | wc -l; echo up
         while [ -d '{0}' ] && [ ! -e '{1}' ]; do sleep 0.05; done; echo finished",
        sshd.dir.path().display(),
        stop.display()
    );
    let spawned = ssh.spawn(&n1(), &detached(&text, &log, Duration::from_millis(100))).await.unwrap();
    let Spawned::Running(pid) = spawned else { panic!("{spawned:?}") };
    let said = until("it is up", async || read(&log).filter(|l| l.contains("up\n"))).await;
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    let ids: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(ids, [pid.to_string(), pid.to_string()], "it leads a session of its own: {said}");
    let log_path = log.to_str().unwrap();
    assert_eq!(lines[1..4], ["/dev/null", log_path, log_path], "{said}");
    sshd.cut();
    drop(ssh);
    assert!(is_alive(pid));
    std::fs::write(&stop, "").unwrap();
    until("it ends by itself", async || read(&log).filter(|l| l.ends_with("finished\n"))).await;
}

#[tokio::test]
async fn detached_commands_do_not_use_the_sessions_up() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "MaxSessions 2");
    let ssh = sshd.transport();
    let text = format!("while [ -d '{}' ]; do sleep 0.1; done", sshd.dir.path().display());
    for i in 0..4 {
        let log = sshd.path(&format!("log{i}"));
        let spawned = ssh.spawn(&n1(), &detached(&text, &log, Duration::from_millis(10))).await.unwrap();
        assert!(matches!(spawned, Spawned::Running(_)), "{spawned:?}");
    }
    sh(&ssh, "true").await;
}

#[tokio::test]
async fn a_terminal_and_its_prompts() {
    let Some(program) = installed() else { return };
    if user() != "root" {
        eprintln!(
            "not run, because an sshd that is not root's gives no terminals: a_terminal_and_its_prompts"
        );
        return;
    }
    let sshd = Sshd::start(&program, "");
    let ssh = sshd.transport();
    let asks = "test -t 0 && test -t 1 && echo on a terminal
        printf 'Password: '; read -r one; printf 'again: '; read -r two
        [ \"$one\" = 'hunter 2' ] && [ \"$two\" = \"it's\" ] && echo right";
    let answers =
        vec![Answer::new("Password:", Secret::new("hunter 2")), Answer::new("again", Secret::new("it's"))];
    let output = ssh.run_on_terminal(&n1(), &command(asks), answers).await.unwrap();
    assert_eq!(output.end, CommandEnd::Exit(0));
    assert_eq!(output.stdout, "on a terminal\nPassword: again: right\n", "no echo, no carriage return");
    // A prompt that never comes is no failure; the command's end is.
    let never = vec![Answer::new("Passphrase", Secret::new("hunter2"))];
    let output = ssh.run_on_terminal(&n1(), &command("exit 3"), never).await.unwrap();
    assert_eq!(output.end, CommandEnd::Exit(3));
    // A question that nobody answers ends at the deadline.
    let asks = command("read -r x").deadline(Duration::from_secs(2));
    let error = ssh.run_on_terminal(&n1(), &asks, vec![]).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Deadline);
    let mut both = command("true");
    both.stdin = Some(vec![]);
    assert_eq!(ssh.run_on_terminal(&n1(), &both, vec![]).await.unwrap_err().kind(), PortErrorKind::Config);
}

/// What sudo does, for hosts without one and without touching anybody's configuration: checks its arguments, asks
/// for the password `hunter2` up to three times, says as whom.
const SUDO: &str = r#"#!/bin/sh
user=root ask=no
while [ $# -gt 0 ]; do
case $1 in
-n) ask=never ;; -S) ask=yes ;; -p) prompt=$2; shift ;; -u) user=$2; shift ;; --) shift; break ;;
*) echo "sudo: what is $1?" >&2; exit 1 ;;
esac
shift
done
[ "$user" != forbidden ] || { echo "sudo: not allowed to run $*" >&2; exit 1; }
if [ "$ask" = yes ] && [ "$user" != trusted ]; then
for try in 1 2 3; do
printf %s "$prompt" >&2
read -r given || exit 1
[ ! -t 0 ] || echo
[ "$given" = hunter2 ] && break
[ $try = 3 ] && { echo 'sudo: 3 incorrect password attempts' >&2; exit 1; }
echo 'Sorry, try again.' >&2
done
fi
SUDO_AS=$user; export SUDO_AS
exec "$@"
"#;

fn with_sudo(program: &std::path::Path) -> Sshd {
    let dir = tempfile::tempdir().unwrap();
    let sudo = dir.path().join("sudo");
    std::fs::write(&sudo, SUDO).unwrap();
    std::fs::set_permissions(&sudo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    sshd::key(dir.path(), "host", "ed25519", "");
    let id = sshd::key(dir.path(), "id", "ed25519", "");
    std::fs::write(dir.path().join("authorized_keys"), sshd::public(&id)).unwrap();
    // Before anything that a login script may put in front.
    let line = format!("ForceCommand PATH='{}':$PATH; eval \"$SSH_ORIGINAL_COMMAND\"", dir.path().display());
    Sshd::start_in(dir, program, &line)
}

fn sudo(user: Option<&str>, password: Option<&str>) -> Privilege {
    let user = user.map(str::to_owned);
    match password {
        Some(password) => Privilege::SudoPassword { user, password: Secret::new(password) },
        None => Privilege::Sudo { user },
    }
}

#[tokio::test]
async fn privilege() {
    let Some(program) = installed() else { return };
    let sshd = with_sudo(&program);
    let with = |privilege| transport(sshd.host().privilege(privilege));
    let cases = [
        (sudo(None, None), "root"),
        (sudo(Some("kaiwudb"), None), "kaiwudb"),
        (sudo(None, Some("hunter2")), "root"),
        (sudo(Some("kaiwudb"), Some("hunter2")), "kaiwudb"),
        // It does not ask: the password must not become the command's input.
        (sudo(Some("trusted"), Some("hunter2")), "trusted"),
    ];
    for (privilege, expected) in cases {
        let ssh = with(privilege.clone());
        let mut cat = command("echo \"$SUDO_AS\"; cat");
        cat.stdin = Some(b"the input".to_vec());
        let output = ssh.run(&n1(), &cat).await.unwrap();
        assert_eq!(output.stdout, format!("{expected}\nthe input"), "{privilege:?}");
        assert_eq!(output.stderr, "", "the prompt is not part of it: {privilege:?}");
        let path = sshd.path("file");
        let path = path.to_str().unwrap();
        ssh.put(&n1(), path, b"content", 0o600).await.unwrap();
        assert_eq!(ssh.get(&n1(), path, 100).await.unwrap(), b"content");
        let log = sshd.path("log");
        let spawned = ssh.spawn(&n1(), &detached("exit 4", &log, PATIENCE)).await.unwrap();
        assert_eq!(spawned, Spawned::Ended(CommandEnd::Exit(4)));
        let asks = command("echo \"$SUDO_AS\"; printf 'More: '; read -r more; echo \"got $more\"");
        let answers = vec![Answer::new("More: ", Secret::new("of it"))];
        let output = ssh.run_on_terminal(&n1(), &asks, answers).await.unwrap();
        let expected = format!("{expected}\nMore: got of it\n");
        assert_eq!(output.stdout, expected, "on a terminal: {privilege:?}");
        // Ended through sudo as well.
        let error = ssh.run(&n1(), &command("sleep 300").deadline(Duration::from_secs(1))).await.unwrap_err();
        assert!(error.to_string().contains("it was ended"), "{error}");
    }
    // A directory in which no file can be made.
    let error =
        with(sudo(None, None)).put(&n1(), "/proc/kwdb-scale-file", b"content", 0o600).await.unwrap_err();
    assert!(error.to_string().contains("/proc/"), "{error}");
    assert!(!error.to_string().contains("the script ended"), "{error}");
    let ssh = with(sudo(None, Some("wrong hunter2")));
    let error = ssh.run(&n1(), &command("true")).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Authentication, "{}", error.chain());
    assert!(!error.chain().contains("hunter2"), "{}", error.chain());
    let error = ssh.run_on_terminal(&n1(), &command("true"), vec![]).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Authentication, "{}", error.chain());
    let ssh = with(sudo(Some("forbidden"), None));
    let error = ssh.run(&n1(), &command(": hunter2")).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Denied, "{}", error.chain());
    assert!(!error.chain().contains("hunter2"), "{}", error.chain());
    assert!(error.chain().ends_with("(exit code 1): sudo: not allowed to run"), "{}", error.chain());
    let spawned = ssh.spawn(&n1(), &detached("true", &sshd.path("log"), PATIENCE)).await.unwrap_err();
    assert_eq!(spawned.kind(), PortErrorKind::Denied);
}

#[tokio::test]
async fn the_real_sudo() {
    let Some(program) = installed() else { return };
    let may =
        std::process::Command::new("sudo").args(["-n", "true"]).output().is_ok_and(|o| o.status.success());
    if !may {
        assert!(std::env::var_os("CI").is_none(), "'sudo -n' does not work here");
        eprintln!("not run, because 'sudo -n' does not work here: the_real_sudo");
        return;
    }
    let sshd = Sshd::start(&program, "");
    // Its own words.
    for privilege in [sudo(Some("no-such-user"), None), sudo(Some("no-such-user"), Some("hunter2"))] {
        let ssh = transport(sshd.host().privilege(privilege));
        let error = ssh.run(&n1(), &command("true")).await.unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::Denied, "{}", error.chain());
        let on_terminal = ssh.run_on_terminal(&n1(), &command("true"), vec![]).await.unwrap_err();
        // With a colon or without it, by release.
        for said in [error.chain(), on_terminal.chain()] {
            assert!(
                said.contains("(exit code 1): sudo: unknown user") && said.contains("no-such-user"),
                "{said}"
            );
        }
    }
    let ssh = transport(sshd.host().privilege(sudo(None, None)));
    assert_eq!(sh(&ssh, "id -u; echo $LC_ALL; env | grep -c ^KWBASE_LEFT || true").await, "0\nC\n0\n");
    let output = ssh.run(&n1(), &command("kill -9 $$")).await.unwrap();
    assert_eq!(output.end, CommandEnd::Signal(9));
    let file = sshd.path("pid");
    let text = format!("echo $$ >'{}'; exec sleep 300", file.display());
    let error = ssh.run(&n1(), &command(&text).deadline(Duration::from_secs(2))).await.unwrap_err();
    assert!(error.to_string().contains("it was ended"), "{error}");
    let pid = read(&file).unwrap().trim().parse().unwrap();
    until("it is gone", async || (!is_alive(pid)).then_some(())).await;
}

#[tokio::test]
async fn owners() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let ssh = sshd.transport();
    let path = sshd.path("file");
    let path = path.to_str().unwrap();
    let group = sh(&ssh, "id -gn").await;
    let owner = format!("{}:{}", user(), group.trim());
    ssh.put_owned(&n1(), path, b"x", 0o640, &owner).await.unwrap();
    assert_eq!(sh(&ssh, &format!("ls -l '{path}' | cut -c1-10")).await, "-rw-r-----\n");
    let error = ssh.put_owned(&n1(), path, b"y", 0o640, "no-such-user-here").await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Denied, "{}", error.chain());
    assert_eq!(ssh.get(&n1(), path, 10).await.unwrap(), b"x", "the old file stays");
    let left = sh(&ssh, &format!("ls -A '{}' | grep -c kwdb-scale || true", sshd.dir.path().display())).await;
    assert_eq!(left, "0\n", "nothing is left behind");
}

#[tokio::test]
async fn an_upload_that_is_cut_off_leaves_nothing() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let ssh = sshd.transport();
    let dir = sshd.path("uploads");
    std::fs::create_dir(&dir).unwrap();
    let names = || std::fs::read_dir(&dir).unwrap().count();
    let (path, content) = (dir.join("file"), vec![7; 64 << 20]);
    let cut = async {
        until("it has begun", async || (names() > 0).then_some(())).await;
        sshd.cut();
    };
    let (host, path) = (n1(), path.to_str().unwrap());
    let (result, ()) = tokio::join!(ssh.put(&host, path, &content, 0o600), cut);
    let error = result.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::ConnectionLost, "{}", error.chain());
    until("the host has tidied up", async || (names() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_host_that_does_not_forward() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "AllowTcpForwarding no");
    let ssh = sshd.transport();
    let probe = async |address: String| ssh.probe(&n1(), &address.into(), PATIENCE).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // Its bash is asked instead.
    assert_eq!(probe(address.clone()).await.unwrap(), PortState::Open);
    drop(listener);
    assert_eq!(probe(address).await.unwrap(), PortState::Closed);
    let bare = Sshd::start(
        &program,
        "AllowTcpForwarding no\nForceCommand PATH=/nonexistent; eval \"$SSH_ORIGINAL_COMMAND\"",
    );
    let error = bare.transport().probe(&n1(), &"127.0.0.1:1".into(), PATIENCE).await.unwrap_err();
    assert!(!error.to_string().is_empty(), "an error, never a closed port");
    let error =
        transport(sshd.host().port(1).via(bare.host())).run(&n1(), &command("true")).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Unsupported, "{}", error.chain());
    assert!(error.to_string().contains("AllowTcpForwarding"), "{error}");
}

/// Each of many probes at once gets the words that were said of it.
#[tokio::test]
async fn probes_at_once() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let ssh = sshd.transport();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().to_string();
    let addresses = [open.as_str(), "127.0.0.1:1", "no-such-host.invalid:1"];
    let mut at_once = tokio::task::JoinSet::new();
    for n in 0..30 {
        let (ssh, address) = (ssh.clone(), addresses[n % 3].into());
        at_once.spawn(async move {
            (n % 3, ssh.probe(&n1(), &address, PATIENCE).await.map_err(|e| e.to_string()))
        });
    }
    for (kind, state) in at_once.join_all().await {
        match kind {
            0 => assert_eq!(state, Ok(PortState::Open)),
            1 => assert_eq!(state, Ok(PortState::Closed)),
            _ => assert!(state.unwrap_err().contains("no-such-host.invalid")),
        }
    }
    assert_eq!(sshd.logins(), 1);
}

#[tokio::test]
async fn jump_hosts() {
    let Some(program) = installed() else { return };
    let (bastion, first, second) =
        (Sshd::start(&program, ""), Sshd::start(&program, ""), Sshd::start(&program, ""));
    let hosts =
        [("n1".into(), first.host().via(bastion.host())), ("n2".into(), second.host().via(bastion.host()))];
    let ssh = SshTransport::new(hosts).unwrap();
    assert_eq!(sh(&ssh, "echo \"${SSH_CONNECTION##* }\"").await, format!("{}\n", first.port));
    ssh.run(&"n2".into(), &command("true")).await.unwrap();
    assert_eq!((bastion.logins(), first.logins(), second.logins()), (1, 1, 1));
    let closed = ssh.probe(&n1(), &"127.0.0.1:1".into(), PATIENCE).await.unwrap();
    assert_eq!(closed, PortState::Closed);

    // The host keys of both are looked at, and a target that is not there is told from a bastion that is not.
    let known = first.known_hosts();
    let stranger = SshHost::new("127.0.0.1", user(), HostKeyPolicy::Strict { files: vec![known] })
        .port(bastion.port)
        .login(KeyFile::new(bastion.path("id")));
    let error = transport(first.host().via(stranger)).run(&n1(), &command("true")).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Authentication, "{}", error.chain());
    let nowhere = first.host().port(1).via(bastion.host());
    let error = transport(nowhere).run(&n1(), &command("true")).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Unreachable, "{}", error.chain());
    assert!(error.to_string().contains("refused"), "{error}");

    // A bastion that went away takes the connection with it, and both are made anew.
    bastion.cut();
    sh(&ssh, "true").await;
}

#[tokio::test]
async fn limits_are_checked() {
    let host = || SshHost::new("h", "u", HostKeyPolicy::default_files()).login(KeyFile::new("k"));
    let kind = |host| SshTransport::new([(n1(), host)]).unwrap_err().kind();
    assert_eq!(kind(SshHost::new("h", "u", HostKeyPolicy::default_files())), PortErrorKind::Config);
    for address in ["", "-oProxyCommand=x", "a b", "u@h", "*", "a,b", "[::1]"] {
        let host = SshHost::new(address, "u", HostKeyPolicy::default_files()).login(KeyFile::new("k"));
        assert_eq!(kind(host), PortErrorKind::Config, "{address}");
    }
    assert_eq!(kind(host().port(0)), PortErrorKind::Config);
    assert_eq!(kind(host().via(host().port(0))), PortErrorKind::Config);
    assert_eq!(kind(host().privilege(sudo(Some("-i"), None))), PortErrorKind::Config);
    let mut limits = SshLimits::default();
    limits.handshakes = 0;
    assert!(SshTransport::with_limits([(n1(), host())], limits).is_err());
    let debug = format!("{:?}", host().privilege(sudo(None, Some("hunter2"))));
    assert!(!debug.contains("hunter2"), "{debug}");
}
