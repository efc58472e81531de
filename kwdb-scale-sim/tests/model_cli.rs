//! The command line where nothing was recorded: other releases, timeouts, waiting nodes, wrong certificates.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod model_support;

use std::collections::BTreeMap;

use kwdb_scale_core::topology::StartMode;
use kwdb_scale_sim::cli::{Certs, CliReply, ClientEnv, run};
use kwdb_scale_sim::model::{Cluster, Config, NodeStart, Phase, Security};
use model_support::*;

fn kwbase_as(c: &mut Cluster, env: &ClientEnv, line: &str) -> CliReply {
    let argv: Vec<String> = format!("kwbase {line}").split(' ').map(str::to_owned).collect();
    run(c, &argv, env, seconds(120))
}

fn kwbase(c: &mut Cluster, line: &str) -> CliReply {
    kwbase_as(c, &ClientEnv::default(), line)
}

#[test]
fn older_releases_print_zones_and_know_no_brpc() {
    let mut c = cluster_with(Config::release("V3.1.0"), StartMode::MultiReplica, 3);
    let status = kwbase(&mut c, "node status --insecure --host=127.0.0.1:26257 --format=csv");
    let row = status.stdout.lines().nth(1).unwrap();
    assert_eq!(row.matches("+00:00").count(), 2, "{row}");
    assert_eq!(row.split(',').nth(3), Some("V3.1.0"));
    let old = ClientEnv { build: Some("V2.2.2".to_owned()), ..ClientEnv::default() };
    let start = kwbase_as(&mut c, &old, "start --insecure --brpc-addr=:1 --join=127.0.0.1:26257");
    assert!(start.stderr.contains("unknown flag: --brpc-addr") && start.exit == Some(1), "{start:?}");
    let older = ClientEnv { build: Some("V2.2.0".to_owned()), ..ClientEnv::default() };
    let refused = kwbase_as(&mut c, &older, "node decommission 3 --insecure --host=127.0.0.1:26257");
    assert!(refused.stderr.contains("enterprise license"), "{refused:?}");
    c.kill_node(&address(3));
    c.advance(seconds(10));
    assert!(liveness(&c, 1)[2].expiration.unwrap() < c.now(), "nine seconds before V3.2.1");
}

#[test]
fn without_a_quorum_status_gives_up_and_decommission_does_not() {
    let mut c = cluster(3);
    c.kill_node(&address(2));
    c.kill_node(&address(3));
    let began = c.now();
    let status = kwbase(&mut c, "node status --insecure --host=127.0.0.1:26257");
    assert_eq!(status.exit, Some(1));
    assert!(status.stderr.starts_with("ERROR: cannot dial server."), "{}", status.stderr);
    assert!(status.stderr.contains("i/o timeout"), "{}", status.stderr);
    assert_eq!(c.now().duration_since(began).as_secs(), 15);
    let mark = kwbase(&mut c, "node decommission 3 --insecure --host=127.0.0.1:26257 --wait=none");
    assert_eq!((mark.exit, mark.stdout.as_str()), (None, ""));
}

#[test]
fn a_node_that_waits_says_so_to_the_admin_service() {
    let mut c = Cluster::new(Config::default());
    c.start_node(start(1, &[1, 2])).unwrap();
    c.advance(seconds(3));
    let quit = kwbase(&mut c, "quit --insecure --host=127.0.0.1:26257");
    assert!(quit.stderr.contains("cannot be drained before it has been initialized"), "{quit:?}");
    let init = kwbase(&mut c, "init --insecure --host=127.0.0.1:26257");
    assert_eq!((init.exit, init.stdout.as_str()), (Some(0), "Cluster successfully initialized\n"));
}

#[test]
fn init_waits_for_the_node_to_listen() {
    let mut c = Cluster::new(Config::default());
    let argv: Vec<String> =
        ["kwbase", "init", "--insecure", "--host=127.0.0.1:26257"].map(str::to_owned).to_vec();
    let none = run(&mut c, &argv, &ClientEnv::default(), seconds(5));
    assert_eq!(none.exit, None);
    assert!(none.stderr.lines().count() >= 4, "{}", none.stderr);
    assert!(
        none.stderr.lines().all(|l| l.starts_with("warning: node not ready") && l.ends_with("(retrying)"))
    );
}

#[test]
fn certificates_that_do_not_fit() {
    let lab = Config { security: Security::Ca("lab".to_owned()), ..Config::default() };
    let mut c = Cluster::new(lab);
    c.start_node(NodeStart { security: Security::Ca("lab".to_owned()), ..start(1, &[1]) }).unwrap();
    c.advance(seconds(3));
    let certs = |ca: &str, root: bool| Certs {
        ca: Some(ca.to_owned()),
        clients: if root { vec!["root".to_owned()] } else { Vec::new() },
    };
    let env = ClientEnv {
        certs: BTreeMap::from([
            ("/right".to_owned(), certs("lab", true)),
            ("/other".to_owned(), certs("other", true)),
            ("/ca".to_owned(), certs("lab", false)),
        ]),
        ..ClientEnv::default()
    };
    let ok = kwbase_as(&mut c, &env, "init --certs-dir=/right --host=127.0.0.1:26257");
    assert_eq!(ok.exit, Some(0), "{ok:?}");
    c.advance(seconds(3));
    for (flags, words) in [
        ("--certs-dir=/other", "SSL authentication error while connecting."),
        ("--certs-dir=/none", "cannot load certificates."),
    ] {
        for command in ["node status", "node decommission 1 --wait=none", "quit"] {
            let bad = kwbase_as(&mut c, &env, &format!("{command} {flags} --host=127.0.0.1:26257"));
            assert!(bad.stderr.contains(words) && bad.exit == Some(1), "{command}: {bad:?}");
        }
    }
    let bare = kwbase_as(&mut c, &env, "node recommission 1 --certs-dir=/ca --host=127.0.0.1:26257");
    assert!(bare.stderr.contains("problem with client cert for user root"), "{bare:?}");
    let mut insecure = cluster(3);
    let bad = kwbase_as(&mut insecure, &env, "node status --certs-dir=/right --host=127.0.0.1:26257");
    assert!(bad.stderr.contains("cannot establish secure connection to insecure server."), "{bad:?}");
}

#[test]
fn a_start_of_another_mode_prints_on_stdout_and_fails() {
    let mut c = cluster(3);
    let line = "start-single-replica --insecure --store=/data/n4 --listen-addr=127.0.0.1:26260 --brpc-addr=:27260 --http-addr=:8083 --join=127.0.0.1:26257 --background";
    let reply = kwbase(&mut c, line);
    assert_eq!(reply.exit, Some(1));
    assert_eq!(
        reply.stdout,
        "ERROR: Check start mode failed! Node start mode is start-single-replica, should be start\n"
    );
    assert!(matches!(c.process(&address(4)).unwrap().phase, Phase::Exited { code: 1, .. }));
    // The port is taken: a real one says which flag to change.
    let again = kwbase(&mut c, &line.replace("26260", "26257").replace("-single-replica", ""));
    assert!(again.stderr.contains("--listen-addr") && again.exit == Some(1), "{again:?}");
}
