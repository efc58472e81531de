//! What only the transport of this machine promises, and what takes a second process to see: this executable, started
//! again with a variable that tells the test to play the other part.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod wait;

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::time::Duration;

use kwdb_scale_core::ports::{
    Command, CommandEnd, Detached, HostTransport, OperationLock, PortErrorKind, PortState, Spawned,
};
use kwdb_scale_core::topology::HostName;
use kwdb_scale_local::{FileLock, LocalTransport};
use rustix::process::{Pid, Signal, getpgid, getsid, kill_process, kill_process_group, test_kill_process};
use wait::until;

const PART: &str = "KWDB_SCALE_TEST_DIR";

fn n1() -> HostName {
    "n1".into()
}

fn sh(script: &str) -> Command {
    Command::new(["sh", "-c", script])
}

/// This executable once more, to run the test `name` with its files in `dir`.
fn again(name: &str, dir: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--test-threads=1"]).env(PART, dir);
    command
}

async fn file(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'))
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.try_into().unwrap()).unwrap()
}

#[tokio::test]
async fn unknown_host_is_named() {
    let local = LocalTransport::new([n1(), "n2".into()]);
    let error = local.run(&"n3".into(), &sh("true")).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Config);
    assert!(error.to_string().contains("'n3'") && error.to_string().contains("n1, n2"), "{error}");
    let detached = Detached { command: sh("true"), output_file: "/dev/null".into(), wait: Duration::ZERO };
    assert_eq!(local.spawn(&"n3".into(), &detached).await.unwrap_err().kind(), PortErrorKind::Config);
    assert_eq!(local.get(&"n3".into(), "/dev/null", 1).await.unwrap_err().kind(), PortErrorKind::Config);
    let any = LocalTransport::any_host();
    assert_eq!(any.run(&"n3".into(), &sh("true")).await.unwrap().end, CommandEnd::Exit(0));
}

#[tokio::test]
async fn unusable_programs() {
    let dir = tempfile::tempdir().unwrap();
    let local = LocalTransport::any_host();
    let path = dir.path().join("text").to_str().unwrap().to_owned();
    local.put(&n1(), &path, b"#!/bin/sh\n", 0o644).await.unwrap();
    let error = local.run(&n1(), &Command::new([path.clone()])).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::NotFound, "not executable: {}", error.chain());
    local.put(&n1(), &path, b"\x7fELF, or rather not", 0o755).await.unwrap();
    let error = local.run(&n1(), &Command::new([path.clone()])).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::NotFound, "not a program: {}", error.chain());
    let error = local.run(&n1(), &Command::new(["echo", "a\0hunter2"])).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Config, "{}", error.chain());
    assert!(!error.chain().contains("hunter2"));
}

#[tokio::test]
async fn the_polite_signal_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let bye = dir.path().join("bye");
    let script = format!("trap 'echo >\"{}\"; exit 0' TERM; while :; do sleep 0.05; done", bye.display());
    let error = LocalTransport::any_host()
        .run(&n1(), &sh(&script).deadline(Duration::from_secs(2)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Deadline);
    assert!(bye.exists());
}

#[tokio::test]
async fn endless_deadline_and_wait() {
    let local = LocalTransport::any_host();
    let output = local.run(&n1(), &sh("echo x").deadline(Duration::MAX)).await.unwrap();
    assert_eq!(output.stdout, "x\n");
    let detached = Detached { command: sh("exit 1"), output_file: "/dev/null".into(), wait: Duration::MAX };
    assert_eq!(local.spawn(&n1(), &detached).await.unwrap(), Spawned::Ended(CommandEnd::Exit(1)));
}

#[test]
fn a_command_ends_with_its_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pid");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let script = format!("echo $$ >'{}'; exec sleep 300", path.display());
    runtime.spawn(async move { LocalTransport::any_host().run(&n1(), &sh(&script)).await.map(drop) });
    let id = runtime.block_on(until("it runs", || file(&path))).trim().parse().unwrap();
    runtime.shutdown_background();
    // A second runtime reaps what the first left.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        until("it is gone", || async {
            // Children started meanwhile make the runtime look at what there is to reap.
            LocalTransport::any_host().run(&n1(), &sh("true")).await.unwrap();
            test_kill_process(pid(id)).is_err().then_some(())
        })
        .await;
    });
}

#[tokio::test]
async fn a_dead_detached_command_is_reaped() {
    let dir = tempfile::tempdir().unwrap();
    let output_file = dir.path().join("log").to_str().unwrap().to_owned();
    let detached = Detached { command: sh("sleep 300"), output_file, wait: Duration::from_millis(50) };
    let spawned = LocalTransport::any_host().spawn(&n1(), &detached).await.unwrap();
    let Spawned::Running(id) = spawned else { panic!("{spawned:?}") };
    assert_eq!(getsid(Some(pid(id))).unwrap(), pid(id), "it leads a session of its own");
    kill_process_group(pid(id), Signal::KILL).unwrap();
    // A zombie could still be signalled.
    until("it is reaped", || async { test_kill_process(pid(id)).is_err().then_some(()) }).await;
}

/// Exit code of a caller that was interrupted.
const INTERRUPTED: i32 = 130;

#[tokio::test]
async fn a_detached_command_outlives_ctrl_c_and_the_death_of_its_caller() {
    let command_for = |dir: &Path| {
        let d = dir.display();
        let script = format!(
            "echo $$ >'{d}/started'; while [ -d '{d}' ] && [ ! -e '{d}/stop' ]; do sleep 0.05; done; echo finished"
        );
        let output_file = dir.join("log").to_str().unwrap().to_owned();
        Detached { command: sh(&script), output_file, wait: Duration::from_secs(300) }
    };
    if let Some(dir) = std::env::var_os(PART) {
        // The other part: starts the command and waits for it until it is killed. Its own handler makes Ctrl-C
        // count also where the signal was ignored from the start, as in a background job.
        let mut interrupt =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).unwrap();
        let transport = LocalTransport::any_host();
        let (host, command) = (n1(), command_for(Path::new(&dir)));
        tokio::select! {
            ended = transport.spawn(&host, &command) => panic!("it ended before its caller: {ended:?}"),
            _ = interrupt.recv() => std::process::exit(INTERRUPTED),
        }
    }
    for (signal, to_the_group) in [(Signal::INT, true), (Signal::KILL, false)] {
        let dir = tempfile::tempdir().unwrap();
        let mut caller = again("a_detached_command_outlives_ctrl_c_and_the_death_of_its_caller", dir.path())
            .process_group(0)
            .spawn()
            .unwrap();
        let started = dir.path().join("started");
        let id: u32 = until("it runs", || file(&started)).await.trim().parse().unwrap();
        if to_the_group {
            // As the terminal does with Ctrl-C.
            kill_process_group(pid(caller.id()), signal).unwrap();
        } else {
            kill_process(pid(caller.id()), signal).unwrap();
        }
        let status = caller.wait().unwrap();
        if to_the_group {
            assert_eq!(status.code(), Some(INTERRUPTED));
        } else {
            assert_eq!(status.signal(), Some(signal.as_raw()));
        }
        assert_eq!(getpgid(Some(pid(id))).unwrap(), pid(id), "it is there and leads its own group");
        std::fs::write(dir.path().join("stop"), "").unwrap();
        let log = dir.path().join("log");
        assert_eq!(until("it finishes", || file(&log)).await, "finished\n");
    }
}

#[tokio::test]
async fn kwbase_variables_of_the_caller_are_cleared() {
    if std::env::var_os(PART).is_some() {
        // The other part: has such variables in its environment.
        assert!(std::env::var_os("KWBASE_URL").is_some());
        let output =
            LocalTransport::any_host().run(&n1(), &sh("env; echo \"$KWDB_SCALE_KEPT\"")).await.unwrap();
        assert!(!output.stdout.contains("KWBASE_"), "{}", output.stdout);
        assert!(
            output.stdout.contains("LC_ALL=C\n") && output.stdout.ends_with("kept\n"),
            "{}",
            output.stdout
        );
        return;
    }
    let status = again("kwbase_variables_of_the_caller_are_cleared", Path::new("/"))
        .envs([
            ("KWBASE_URL", "postgres://x"),
            ("KWBASE_CERTS_DIR", "/nowhere"),
            ("KWBASE_", "odd"),
            ("LC_ALL", "de_DE.UTF-8"),
            ("KWDB_SCALE_KEPT", "kept"),
        ])
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn the_lock_of_a_dead_holder_is_free() {
    if let Some(dir) = std::env::var_os(PART) {
        // The other part: holds the lock until it is killed.
        let held = FileLock::in_dir(&dir).acquire("scale-out by n5").await.unwrap();
        std::fs::write(Path::new(&dir).join("held"), "\n").unwrap();
        tokio::time::sleep(Duration::from_secs(300)).await;
        drop(held);
        panic!("it was not killed");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut holder = again("the_lock_of_a_dead_holder_is_free", dir.path()).spawn().unwrap();
    let held = dir.path().join("held");
    until("the lock is held", || file(&held)).await;
    let lock = FileLock::in_dir(dir.path());
    let refused = lock.acquire("scale-in").await.unwrap_err();
    assert_eq!(refused.kind(), PortErrorKind::Denied);
    let holder_shown = format!("held by scale-out by n5 (process {})", holder.id());
    assert!(refused.to_string().contains(&holder_shown), "{refused}");
    kill_process(pid(holder.id()), Signal::KILL).unwrap();
    holder.wait().unwrap();
    lock.acquire("scale-in").await.unwrap();
}

#[tokio::test]
async fn names_are_probed_at_all_their_addresses() {
    let local = LocalTransport::any_host();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    // `localhost` may mean ::1 first, where nobody listens.
    let state = local.probe(&n1(), &address.as_str().into(), Duration::from_secs(30)).await.unwrap();
    assert_eq!(state, PortState::Open);
    // An empty label cannot be asked for, so this needs no name server.
    let unknown = local.probe(&n1(), &"no..host:1".into(), Duration::from_secs(30)).await;
    assert_eq!(unknown.unwrap_err().kind(), PortErrorKind::Unreachable);
    // TCP cannot go to the broadcast address: an error of the network that says nothing of a listener.
    let odd = local.probe(&n1(), &"255.255.255.255:1".into(), Duration::from_secs(30)).await;
    assert_eq!(odd.unwrap(), PortState::NoAnswer);
}
