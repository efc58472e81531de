//! [`Kwbase`] against a mocked transport: exactly which command lines run where, and what becomes of the answers.

// Helpers of tests may panic like the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::kwbase::{Kwbase, KwbaseHost, Security};
use kwdb_scale_core::owner::{Described, Owner};
use kwdb_scale_core::ports::{
    Command, CommandEnd, CommandOutput, DecommissionControl, DecommissionStatus, Gateway, HostTransport,
    MockHostTransport, NodeLifecycle, PortError, PortErrorKind, PortState, ProcessState, Spawned, StartNode,
    StartOutcome, StopNode, StoreContent,
};
use kwdb_scale_core::topology::{Address, HostName, NodeId, StartMode};

const DEADLINE: Duration = Duration::from_secs(60);
const HEAD: &str = "id,is_live,replicas,is_decommissioning,is_draining\n";
const VERSION: &str = "KaiwuDB Version:  V3.2.1\nBuild Time:       2026/11/23 12:00:00\n";

fn host(name: &str) -> KwbaseHost {
    let mut host = KwbaseHost::new(name, Security::Insecure);
    host.program = "kwbase".into();
    host.listen_addr = Some(Address::new(format!("{name}:26257")));
    host
}

fn kwbase(transport: MockHostTransport) -> Kwbase<MockHostTransport> {
    Kwbase::new(Arc::new(transport), ["n1", "n4"].map(host)).unwrap()
}

fn gateway(host: Option<&str>) -> Gateway {
    Gateway {
        node: NodeId(1),
        address: "n1:26257".into(),
        sql_address: "n1:26257".into(),
        host: host.map(HostName::from),
    }
}

fn stop_node() -> StopNode {
    StopNode {
        node: NodeId(4),
        address: "n4:26257".into(),
        host: Some("n4".into()),
        via: gateway(Some("n1")),
        deadline: DEADLINE,
    }
}

fn start_node() -> StartNode {
    StartNode {
        host: "n4".into(),
        mode: StartMode::MultiReplica,
        join: ["n1:26257", "n2:26257", "n4:26257"].map(Address::from).to_vec(),
        deadline: DEADLINE,
    }
}

fn ended(code: i32, stdout: &str, stderr: &str) -> CommandOutput {
    CommandOutput {
        end: CommandEnd::Exit(code),
        stdout: stdout.into(),
        stderr: stderr.into(),
        truncated: false,
    }
}

fn observed(name: &str) -> CommandOutput {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/observed").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("--- stdout\n").unwrap();
    let (stdout, rest) = rest.rsplit_once("--- stderr\n").unwrap();
    let (stderr, code) = rest.rsplit_once("--- exit code: ").unwrap();
    ended(code.trim().parse().unwrap(), stdout, stderr)
}

/// Expects one command on a host, and answers it.
fn expect_run(mock: &mut MockHostTransport, on: &'static str, line: &'static str, answer: CommandOutput) {
    mock.expect_run()
        .withf(move |host: &HostName, command: &Command| {
            host.as_str() == on && command.argv.join(" ") == line && command.stdin.is_none()
        })
        .times(1)
        .return_once(move |_, _| Ok(answer));
}

fn status(node: u32, replicas: u64, decommissioning: bool) -> DecommissionStatus {
    DecommissionStatus { node: NodeId(node), is_live: true, replicas, decommissioning, draining: false }
}

#[tokio::test]
async fn mark_through_the_gateway_s_host() {
    let mut mock = MockHostTransport::new();
    mock.expect_run()
        .withf(|host, command| {
            let line = "kwbase node decommission 4 5 --wait=none --format=csv --host=n1:26257 --insecure";
            host.as_str() == "n1" && command.argv.join(" ") == line && command.deadline == DEADLINE
        })
        .times(1)
        .return_once(|_, _| {
            Ok(ended(0, &format!("{HEAD}4,true,54,true,false\n5,true,3,true,false\n"), "\n"))
        });
    let marked = kwbase(mock).mark(&gateway(Some("n1")), &[5, 4, 5].map(NodeId), DEADLINE).await.unwrap();
    assert_eq!(marked, [status(4, 54, true), status(5, 3, true)]);
}

#[tokio::test]
async fn real_answers_of_mark_and_recommission() {
    let mut mock = MockHostTransport::new();
    let marked = "kwbase node decommission 4 --wait=none --format=csv --host=n1:26257 --insecure";
    expect_run(&mut mock, "n1", marked, observed("43-decommission-finish/06-decommission-4-again-none.txt"));
    let back = "kwbase node recommission 4 --format=csv --host=n1:26257 --insecure";
    expect_run(&mut mock, "n1", back, observed("40-decommission-none/05-recommission-4-again.txt"));
    let kwbase = kwbase(mock);
    let via = gateway(Some("n1"));
    assert_eq!(kwbase.mark(&via, &[NodeId(4)], DEADLINE).await.unwrap(), [status(4, 0, true)]);
    assert_eq!(kwbase.recommission(&via, &[NodeId(4)], DEADLINE).await.unwrap(), [status(4, 48, false)]);
    assert_eq!(kwbase.status(&via, &[NodeId(4)], DEADLINE).await.unwrap(), None);
}

#[tokio::test]
async fn no_id_runs_nothing() {
    let kwbase = kwbase(MockHostTransport::new());
    let via = gateway(Some("n1"));
    assert_eq!(kwbase.mark(&via, &[], DEADLINE).await.unwrap_err().kind(), PortErrorKind::Config);
    assert_eq!(kwbase.recommission(&via, &[], DEADLINE).await.unwrap_err().kind(), PortErrorKind::Config);
}

#[tokio::test]
async fn an_answer_without_an_asked_node_is_malformed() {
    for stdout in [format!("{HEAD}4,true,54,true,false\n"), HEAD.to_owned(), String::new()] {
        let mut mock = MockHostTransport::new();
        mock.expect_run().times(1).return_once(move |_, _| Ok(ended(0, &stdout, "")));
        let error = kwbase(mock).mark(&gateway(Some("n1")), &[4, 5].map(NodeId), DEADLINE).await.unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::Malformed, "{}", error.chain());
    }
}

#[tokio::test]
async fn failures_are_classified() {
    for (file, kind) in [
        ("62-five-nodes/01-decommission-4-and-99-wait-none.txt", PortErrorKind::UnknownNode),
        ("80-single-replica/08-decommission-2-none.txt", PortErrorKind::SingleReplica),
        ("70-secure/27-quit-insecure.txt", PortErrorKind::Tls),
    ] {
        let mut mock = MockHostTransport::new();
        mock.expect_run().times(1).return_once(move |_, _| Ok(observed(file)));
        let error = kwbase(mock).mark(&gateway(Some("n1")), &[NodeId(4)], DEADLINE).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{}", error.chain());
    }
}

#[tokio::test]
async fn texts_that_were_not_recorded() {
    for (stderr, kind) in [
        ("ERROR: can not run node decommission when cluster has node UPGRADING", PortErrorKind::Upgrading),
        (
            "ERROR: node decommissioning feature needs an enterprise license to enable.",
            PortErrorKind::Licence,
        ),
        (
            "ERROR: rpc error: code = Unavailable desc = node waiting for init; Drain not available",
            PortErrorKind::NotInitialised,
        ),
        ("ERROR: node cannot be drained before it has been initialized", PortErrorKind::NotInitialised),
        (
            "ERROR: cannot load certificates.\n\nproblem with client cert for user root: not found",
            PortErrorKind::Authentication,
        ),
        ("ERROR: SSL authentication error while connecting.\n\nx509: unknown authority", PortErrorKind::Tls),
        (
            "ERROR: cannot establish secure connection to insecure server.\nMaybe use --insecure?",
            PortErrorKind::Tls,
        ),
        ("ERROR: operation timed out.\n\ncontext deadline exceeded", PortErrorKind::Deadline),
        ("ERROR: cannot dial server.\n\nread tcp 1.1.1.1:2->1.1.1.1:1: i/o timeout", PortErrorKind::Deadline),
        (
            "ERROR: server closed the connection.\nIs this a KwDB node?\n\nIf the node is configured to require secure connections,\nremove --insecure\n\ndial tcp 1.1.1.1:1: connect: no route to host",
            PortErrorKind::Unreachable,
        ),
        ("ERROR: server closed the connection.\nIs this a KwDB node?\n\nEOF", PortErrorKind::ConnectionLost),
        ("ERROR: unknown flag: --wait", PortErrorKind::Config),
        ("ERROR: rpc error: code = Unknown desc = something new", PortErrorKind::Other),
        ("ERROR: something new", PortErrorKind::CommandFailed),
        ("Error response from daemon: No such container: kw", PortErrorKind::NotFound),
        ("", PortErrorKind::CommandFailed),
    ] {
        let mut mock = MockHostTransport::new();
        mock.expect_run().times(1).return_once(move |_, _| Ok(ended(1, "", stderr)));
        let error =
            kwbase(mock).recommission(&gateway(Some("n1")), &[NodeId(4)], DEADLINE).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{stderr}: {}", error.chain());
    }
    for (end, kind) in [
        (CommandEnd::Exit(127), PortErrorKind::NotFound),
        (CommandEnd::Exit(126), PortErrorKind::NotFound),
        (CommandEnd::Signal(9), PortErrorKind::Other),
    ] {
        let mut mock = MockHostTransport::new();
        mock.expect_run().return_once(move |_, _| Ok(CommandOutput { end, ..ended(1, "", "") }));
        let error =
            kwbase(mock).recommission(&gateway(Some("n1")), &[NodeId(4)], DEADLINE).await.unwrap_err();
        assert_eq!(error.kind(), kind);
    }
}

#[tokio::test]
async fn the_control_host_stands_in() {
    let line = "kwbase node recommission 4 --format=csv --host=n1:26257 --insecure";
    for named in [None, Some("not-described")] {
        let nowhere = kwbase(MockHostTransport::new());
        let error = nowhere.recommission(&gateway(named), &[NodeId(4)], DEADLINE).await.unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::Config);

        let mut mock = MockHostTransport::new();
        expect_run(&mut mock, "n4", line, ended(0, &format!("{HEAD}4,true,1,false,false\n"), ""));
        let with_control = kwbase(mock).with_control_host("n4".into()).unwrap();
        with_control.recommission(&gateway(named), &[NodeId(4)], DEADLINE).await.unwrap();
    }
    assert!(kwbase(MockHostTransport::new()).with_control_host("n9".into()).is_err());
}

#[tokio::test]
async fn a_transport_s_error_is_passed_on() {
    let mut mock = MockHostTransport::new();
    mock.expect_run().return_once(|_, _| Err(PortError::new(PortErrorKind::ConnectionLost, "gone")));
    let error = kwbase(mock).mark(&gateway(Some("n1")), &[NodeId(4)], DEADLINE).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::ConnectionLost);
}

/// Expects the start's preparation, and lets the start itself end as given.
fn expect_start(mock: &mut MockHostTransport, spawned: Spawned) {
    expect_run(mock, "n4", "kwbase version", ended(0, VERSION, ""));
    mock.expect_put()
        .withf(|host, path, content, mode| {
            host.as_str() == "n4"
                && path == "/var/lib/kaiwudb.start.log"
                && content.is_empty()
                && *mode == 0o600
        })
        .times(1)
        .return_once(|_, _, _, _| Ok(()));
    mock.expect_spawn()
        .withf(|host, detached| {
            let line = "kwbase start --insecure --store=/var/lib/kaiwudb --brpc-addr=:27257 --listen-addr=n4:26257 \
                        --join=n1:26257,n2:26257 --background";
            host.as_str() == "n4"
                && detached.command.argv.join(" ") == line
                && detached.output_file == "/var/lib/kaiwudb.start.log"
                && detached.wait == DEADLINE
        })
        .times(1)
        .return_once(move |_, _| Ok(spawned));
}

#[tokio::test]
async fn start_comes_back_or_goes_on() {
    for (spawned, outcome) in [
        (Spawned::Ended(CommandEnd::Exit(0)), StartOutcome::Started),
        (Spawned::Running(4711), StartOutcome::StillStarting(4711)),
    ] {
        let mut mock = MockHostTransport::new();
        expect_start(&mut mock, spawned);
        assert_eq!(kwbase(mock).start(&start_node()).await.unwrap(), outcome);
    }
}

/// kwbase makes the parents of its store; the file that takes its output lies there, too.
#[tokio::test]
async fn the_parents_of_a_store_are_made() {
    let absent = |mock: &mut MockHostTransport| {
        expect_run(mock, "n4", "kwbase version", ended(0, VERSION, ""));
        let gone = |_: &_, _: &_, _: &_, _: _| {
            Err(PortError::new(PortErrorKind::NotFound, "its directory does not exist"))
        };
        mock.expect_put().times(1).return_once(gone);
    };
    let mut mock = MockHostTransport::new();
    absent(&mut mock);
    expect_run(&mut mock, "n4", "mkdir -p -- /var/lib", ended(0, "", ""));
    mock.expect_put().times(1).return_once(|_, _, _, _| Ok(()));
    mock.expect_spawn().times(1).return_once(|_, _| Ok(Spawned::Ended(CommandEnd::Exit(0))));
    assert_eq!(kwbase(mock).start(&start_node()).await.unwrap(), StartOutcome::Started);

    let mut mock = MockHostTransport::new();
    absent(&mut mock);
    expect_run(&mut mock, "n4", "mkdir -p -- /var/lib", ended(1, "", "mkdir: Permission denied\n"));
    let error = kwbase(mock).start(&start_node()).await.unwrap_err().to_string();
    assert_eq!(error, "/var/lib cannot be made on host n4: mkdir: Permission denied; nothing was started");
}

#[tokio::test]
async fn a_failed_start_says_why() {
    let printed = "*\n* WARNING: RUNNING IN INSECURE MODE!\n* \n* - Any user, even root, can log in\n*\n\u{1b}[31mERROR: Check start mode \
                   failed! Node start mode is start, should be start-single-replica\u{1b}[0m\n";
    let mut mock = MockHostTransport::new();
    expect_start(&mut mock, Spawned::Ended(CommandEnd::Exit(1)));
    mock.expect_get()
        .withf(|host, path, _| host.as_str() == "n4" && path == "/var/lib/kaiwudb.start.log")
        .return_once(|_, _, _| Ok(printed.as_bytes().to_vec()));
    let StartOutcome::Failed(text) = kwbase(mock).start(&start_node()).await.unwrap() else {
        panic!("no failure")
    };
    assert!(
        text.starts_with("the node was started with start but the cluster runs with start-single-replica"),
        "{text}"
    );
    assert!(text.ends_with("should be start-single-replica"), "{text:?}");
    assert!(!text.contains("INSECURE") && !text.contains('\u{1b}'), "{text:?}");

    let mut unread = MockHostTransport::new();
    expect_start(&mut unread, Spawned::Ended(CommandEnd::Signal(9)));
    unread.expect_get().return_once(|_, _, _| Err(PortError::new(PortErrorKind::NotFound, "no such file")));
    let StartOutcome::Failed(text) = kwbase(unread).start(&start_node()).await.unwrap() else {
        panic!("no failure")
    };
    assert!(text.starts_with("signal 9") && text.contains("no such file"), "{text}");
}

#[tokio::test]
async fn start_without_anything_to_join_runs_nothing() {
    let alone = StartNode { join: vec!["n4:26257".into()], ..start_node() };
    let error = kwbase(MockHostTransport::new()).start(&alone).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Config);
    assert!(error.to_string().contains("a cluster of its own"), "{error}");
    let elsewhere = StartNode { host: "n9".into(), ..start_node() };
    let error = kwbase(MockHostTransport::new()).start(&elsewhere).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Config);
}

#[tokio::test]
async fn drain_and_stop_run_on_a_host_that_stays() {
    let mut mock = MockHostTransport::new();
    let drain = "kwbase node drain --drain-wait=45000ms --format=csv --host=n4:26257 --insecure";
    expect_run(&mut mock, "n1", drain, observed("27-http-drain/02-drain-5.txt"));
    let quit = "kwbase quit --drain-wait=45000ms --host=n4:26257 --insecure";
    expect_run(&mut mock, "n1", quit, observed("27-http-drain/05-quit-drained-decommissioned-5.txt"));
    let kwbase = kwbase(mock);
    kwbase.drain(&stop_node()).await.unwrap();
    kwbase.stop(&stop_node()).await.unwrap();
}

#[tokio::test]
async fn only_a_refused_connection_means_stopped_already() {
    let stop = async |output: CommandOutput| {
        let mut mock = MockHostTransport::new();
        mock.expect_run().return_once(move |_, _| Ok(output));
        kwbase(mock).stop(&stop_node()).await
    };
    stop(observed("27-http-drain/06-quit-again-5-down.txt")).await.unwrap();
    let far = ended(
        1,
        "",
        "ERROR: cannot dial server.\n\ndial tcp 10.0.0.4:26257: i/o timeout\nFailed running \"quit\"\n",
    );
    assert_eq!(stop(far).await.unwrap_err().kind(), PortErrorKind::Unreachable);

    let mut mock = MockHostTransport::new();
    mock.expect_run().return_once(|_, _| Ok(observed("27-http-drain/06-quit-again-5-down.txt")));
    assert_eq!(kwbase(mock).drain(&stop_node()).await.unwrap_err().kind(), PortErrorKind::Unreachable);
}

#[tokio::test]
async fn the_process_is_probed_from_a_host_that_stays() {
    for (answer, state) in [
        (Ok(PortState::Open), ProcessState::Running),
        (Ok(PortState::Closed), ProcessState::Stopped),
        (Ok(PortState::NoAnswer), ProcessState::Unknown),
        (Err(PortError::new(PortErrorKind::Unreachable, "no")), ProcessState::Unknown),
    ] {
        let mut mock = MockHostTransport::new();
        mock.expect_probe()
            .withf(|host, address, _| host.as_str() == "n1" && address.as_str() == "n4:26257")
            .times(1)
            .return_once(move |_, _, _| answer);
        assert_eq!(kwbase(mock).process(&stop_node()).await.unwrap(), state);
    }
    let nowhere = StopNode { host: None, via: gateway(None), ..stop_node() };
    assert_eq!(kwbase(MockHostTransport::new()).process(&nowhere).await.unwrap(), ProcessState::Unknown);
}

/// Expects the look at a host, which is one command, and answers it.
fn expect_look(mock: &mut MockHostTransport, answer: CommandOutput) {
    mock.expect_run()
        .withf(|host, command| {
            let argv: Vec<&str> = command.argv.iter().map(String::as_str).collect();
            let tail = ["sh", "kwbase", "", "", "1", "/var/lib/kaiwudb"];
            host.as_str() == "n4"
                && argv[..2] == ["sh", "-c"]
                && argv[3..9] == ["sh", "docker podman", "kaiwudb-container", "kaiwudb.service", "sh", "-c"]
                && argv[10..] == tail
        })
        .times(1)
        .return_once(move |_, _| Ok(answer));
}

#[tokio::test]
async fn a_fresh_host() {
    let mut mock = MockHostTransport::new();
    let answer = format!(
        "Kclock 5.1\0Kuser ops\0Sabsent\0Kversion-state 0\0Kversion {VERSION}\0T\0L00000000:6699\0E\0Kclock 5.2\0Z0\0"
    );
    expect_look(&mut mock, ended(0, &answer, ""));
    let facts = kwbase(mock).inspect(&"n4".into()).await.unwrap();
    assert_eq!(facts.build, Fact::Known("V3.2.1".into()));
    assert_eq!(facts.stores.len(), 1);
    assert_eq!(facts.stores[0].path, "/var/lib/kaiwudb");
    assert_eq!(facts.stores[0].content, Fact::Known(StoreContent::Absent));
    assert_eq!(facts.listening, Fact::Known(vec![]));
    assert_eq!((facts.can_authenticate, facts.secure), (Fact::Known(true), false));
    let machine = facts.machine.unwrap();
    assert_eq!((machine.user, machine.inside), (Fact::Known("ops".into()), false));
    assert!(machine.clock.why_unknown().unwrap().contains("no clock"));
}

#[tokio::test]
async fn a_host_in_use() {
    let mut mock = MockHostTransport::new();
    let answer = "Sdir\0Nkwbase.start_mode\0NCURRENT\0Nkwbase.start_mode\0Kversion-state absent\0T\0L00000000:1F90\0E\0Z0\0";
    expect_look(&mut mock, ended(0, answer, ""));
    let facts = kwbase(mock).inspect(&"n4".into()).await.unwrap();
    let names = ["kwbase.start_mode", "CURRENT"].map(String::from).to_vec();
    assert_eq!(facts.stores[0].content, Fact::Known(StoreContent::InUse(names)));
    assert_eq!(facts.listening, Fact::Known(vec!["n4:8080".into()]));
    assert!(facts.build.why_unknown().unwrap().contains("the program is not there"));
}

#[tokio::test]
async fn what_cannot_be_had_is_unknown() {
    for answer in [ended(1, "", "boom"), ended(0, "Sabsent\0E\0", ""), ended(0, "something else\n", "")] {
        let mut mock = MockHostTransport::new();
        expect_look(&mut mock, answer);
        // A machine without Linux's table of sockets is probed.
        mock.expect_probe().times(3).returning(|_, _, _| Ok(PortState::NoAnswer));
        let facts = kwbase(mock).inspect(&"n4".into()).await.unwrap();
        assert!(facts.stores[0].content.known().is_none());
        assert!(facts.build.known().is_none() && facts.listening.known().is_none());
        assert!(facts.machine.unwrap().unknowns().len() > 15);
    }
}

#[tokio::test]
async fn what_a_host_reaches_is_probed_from_there_all_at_once() {
    let mut mock = MockHostTransport::new();
    mock.expect_probe().times(2).withf(|host, _, _| host.as_str() == "n4").returning(|_, to, _| {
        match to.as_str() {
            "n1:26257" => Ok(PortState::Open),
            _ => Err(PortError::new(PortErrorKind::Unreachable, "no such name")),
        }
    });
    let to = ["n1:26257", "n2:26257"].map(Address::from);
    let found = kwbase(mock).reach(&"n4".into(), &to, DEADLINE).await.unwrap();
    assert_eq!(found[0], Fact::Known(PortState::Open));
    assert!(found[1].why_unknown().unwrap().contains("no such name"));
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_an_error() {
    let mut mock = MockHostTransport::new();
    mock.expect_run().return_once(|_, _| Err(PortError::new(PortErrorKind::Unreachable, "no route")));
    assert_eq!(kwbase(mock).inspect(&"n4".into()).await.unwrap_err().kind(), PortErrorKind::Unreachable);
    let unknown = kwbase(MockHostTransport::new()).inspect(&"n9".into()).await;
    assert_eq!(unknown.unwrap_err().kind(), PortErrorKind::Config);
}

#[tokio::test]
async fn inside_a_container_everything_goes_through_the_prefix() {
    let mut inside = host("c1");
    inside.exec_prefix = ["docker", "exec", "-i", "kw"].map(String::from).to_vec();
    inside.output_file = Some("/var/log/kw.start.log".into());
    inside.security = Security::Certs { certs_dir: "/kaiwudb/certs".into() };
    inside.env = [("LD_LIBRARY_PATH".to_owned(), "/kaiwudb/lib".to_owned())].into();
    let look = |answer: CommandOutput| {
        let mut mock = MockHostTransport::new();
        mock.expect_run().times(1).return_once(|_, c| {
            // The look begins on the machine, and enters the container from there.
            assert_eq!(c.argv[..2], ["sh", "-c"]);
            let way = ["docker", "exec", "-i", "kw", "env", "LD_LIBRARY_PATH=/kaiwudb/lib", "sh", "-c"];
            // After the engines and the container that are looked for.
            assert_eq!(c.argv[7..15], way);
            assert_eq!(c.argv[16..], ["sh", "kwbase", "/kaiwudb/certs", "", "1", "/var/lib/kaiwudb"]);
            assert!(c.env.is_empty());
            Ok(answer)
        });
        Kwbase::new(Arc::new(mock), [inside.clone()]).unwrap()
    };
    let outer = "Kclock 1.0\0Kuser ops\0Kunit-state absent\0";
    let inner = format!(
        "Sdir\0Kversion-state 0\0Kversion {VERSION}\0C+ca.crt\0C+client.root.crt\0C-client.root.key\0Kcerts absent\0T\0L00000000:6A7B\0L00000000:1F90\0"
    );
    let answer = ended(0, &format!("{outer}{inner}E\0Kclock 1.1\0Z0\0"), "");
    let facts = look(answer).inspect(&"c1".into()).await.unwrap();
    // The ports are those of the container (0x6A7B = 27259, 0x1F90 = 8080).
    assert_eq!(facts.listening, Fact::Known(vec!["c1:8080".into()]));
    assert_eq!((facts.can_authenticate, facts.secure), (Fact::Known(false), true));
    assert!(facts.machine.unwrap().inside);

    // A container that does not run: what the machine tells is known, and nothing of the inside is.
    let answer =
        ended(0, &format!("{outer}Kclock 1.1\0Z1\0"), "Error response from daemon: No such container: kw\n");
    let facts = look(answer).inspect(&"c1".into()).await.unwrap();
    for why in
        [facts.build.why_unknown(), facts.stores[0].content.why_unknown(), facts.listening.why_unknown()]
    {
        assert!(
            why.unwrap().contains("'docker' ended with exit code 1: Error response from daemon"),
            "{why:?}"
        );
    }
    let machine = facts.machine.unwrap();
    assert_eq!((machine.user, machine.unit), (Fact::Known("ops".into()), Fact::Known(None)));
    assert!(machine.processes.known().is_none() && machine.certificates.known().is_none());

    // One that broke off in the middle: half of the inside counts for nothing.
    let answer = ended(0, &format!("{outer}{inner}Kclock 1.1\0Z137\0"), "");
    let facts = look(answer).inspect(&"c1".into()).await.unwrap();
    assert!(facts.build.known().is_none() && facts.stores[0].content.known().is_none());
    assert!(facts.listening.known().is_none());
}

/// A plan judges by what the start judges by: the stores, and not the directories that are looked at as stores are.
#[tokio::test]
async fn what_owns_a_node_is_told_with_the_description() {
    let looks = async |owner: Owner, prefix: &[&str]| {
        let mut mock = MockHostTransport::new();
        let answer = "Kclock 1.0\0Kuser ops\0Kclock 1.1\0Z1\0";
        mock.expect_run().return_once(move |_, _| Ok(ended(0, answer, "no")));
        mock.expect_probe().returning(|_, _, _| Ok(PortState::Closed));
        let mut host = host("n4");
        host.security = Security::Certs { certs_dir: "/certs".into() };
        host.ts_store = vec!["/ts".into()];
        host.advertise_addr = Some("10.0.0.4".into());
        host.locality = Some("region=a".into());
        host.owner = owner;
        host.exec_prefix = prefix.iter().map(ToString::to_string).collect();
        host.output_file = Some("/var/log/kw.start.log".into());
        let kwbase = Kwbase::new(Arc::new(mock), [host]).unwrap();
        kwbase.inspect(&"n4".into()).await.unwrap().machine.unwrap().described
    };
    let unit = Owner::Systemd { unit: "kw".into() };
    let container = || Owner::Container { engine: "docker".into(), name: "kw".into() };
    let whole = Described {
        stores: vec!["/var/lib/kaiwudb".into()],
        certs_dir: Some("/certs".into()),
        address: Some("10.0.0.4:26257".into()),
        listen_addr: Some("n4:26257".into()),
        locality: Some("region=a".into()),
    };
    assert_eq!(looks(Owner::Quit, &[]).await, None);
    assert_eq!(looks(unit, &[]).await, Some(whole.clone()));
    assert_eq!(looks(container(), &["docker", "exec", "-i", "kw"]).await, Some(whole.clone()));
    // Paths on the command line of a container into which nothing leads are its own.
    let without = Described { stores: Vec::new(), certs_dir: None, ..whole };
    assert_eq!(looks(container(), &[]).await, Some(without));
}

/// What is advertised may be translated on the way; what is bound must be the machine's.
#[tokio::test]
async fn the_addresses_that_a_node_binds_are_held_against_those_of_the_machine() {
    let looks = async |owner: Owner, prefix: &[&str]| {
        let mut mock = MockHostTransport::new();
        let answer = "Kclock 1.0\0Sabsent\0Kversion-state absent\0Kaddress 127.0.0.0/8\0Kaddress 10.0.0.8/32\0E\0Kclock 1.1\0Z0\0";
        mock.expect_run().return_once(move |_, _| Ok(ended(0, answer, "")));
        mock.expect_probe().returning(|_, _, _| Ok(PortState::Closed));
        let mut host = host("n7");
        host.listen_addr = Some("10.0.0.7:26257".into());
        host.advertise_addr = Some("192.0.2.1:26257".into());
        host.sql_addr = Some("[::]:26258".into());
        host.http_addr = Some("n7:8080".into());
        host.brpc_addr = Some("10.0.0.8:27257".into());
        host.owner = owner;
        host.exec_prefix = prefix.iter().map(ToString::to_string).collect();
        let kwbase = Kwbase::new(Arc::new(mock), [host]).unwrap();
        let machine = kwbase.inspect(&"n7".into()).await.unwrap().machine.unwrap();
        machine.cannot_bind().into_iter().cloned().collect::<Vec<_>>()
    };
    let container = || Owner::Container { engine: "docker".into(), name: "kw".into() };
    let foreign = [Address::new("10.0.0.7:26257")];
    assert_eq!(looks(Owner::Quit, &[]).await, foreign);
    assert_eq!(looks(Owner::Systemd { unit: "kw".into() }, &[]).await, foreign);
    assert_eq!(looks(container(), &["docker", "exec", "-i", "kw"]).await, foreign);
    // Nothing looked into it.
    assert_eq!(looks(container(), &[]).await, []);
}

#[test]
fn hosts_are_checked_and_the_transport_may_be_dynamic() {
    let twice = Kwbase::new(Arc::new(MockHostTransport::new()), ["n1", "n1"].map(host)).unwrap_err();
    assert_eq!(twice.to_string(), "host n1: name: stands there twice; give each host a name of its own");
    let mut broken = host("n1");
    broken.stores.clear();
    assert!(Kwbase::new(Arc::new(MockHostTransport::new()), [broken]).is_err());

    let dynamic: Arc<dyn HostTransport> = Arc::new(MockHostTransport::new());
    let kwbase = Kwbase::new(dynamic, [host("n1")]).unwrap();
    assert!(kwbase.host(&"n1".into()).is_some());
    let ports: (Arc<dyn DecommissionControl>, Arc<dyn NodeLifecycle>) =
        (Arc::new(kwbase.clone()), Arc::new(kwbase));
    drop(ports);
}
