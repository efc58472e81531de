//! The cases.

use std::fs;
use std::time::{Duration, Instant};

use kwdb_scale_core::kwbase::{Kwbase, StoreSpec};
use kwdb_scale_core::owner::Owner;
use kwdb_scale_core::ports::{
    DecommissionControl, FactSource, NodeLifecycle, PortErrorKind, ProcessState, StartNode, StartOutcome,
    StopNode,
};
use kwdb_scale_core::rows::{Query, Rows};
use kwdb_scale_core::topology::{Address, NodeId};
use kwdb_scale_core::version::Version;
use kwdb_scale_local::LocalTransport;
use kwdb_scale_sim::contract::{self, ControlFixture, LifecycleFixture};
use kwdb_scale_sim::process::free_addresses;

use crate::bench::{Bench, DEADLINE, bench, deploy_host, kwbase_host};

/// For a node to be emptied; a real one is slow on a busy machine.
const EMPTY: Duration = Duration::from_secs(400);
/// Ids that no host of a test has.
const NOBODY: u32 = 999;

pub(crate) async fn contract_of_lifecycle_and_control() {
    // The port of d4 is taken by the first node of the lab, so that a start there fails.
    let bench = bench(4, |index, standin, info| {
        if index == 4 {
            standin.port = info.hosts[0].address.port().unwrap();
        }
    });
    bench.join("d1").await;
    bench.join("d2").await;
    contract::decommission_control(&ControlFixture {
        control: &bench.deploy,
        facts: &bench.source,
        clock: &bench.clock,
        via: bench.via(),
        leaving: [NodeId(4), NodeId(5)],
        nobody: free_addresses(1).unwrap().remove(0),
    })
    .await;
    // The node of this one stays marked.
    contract::node_lifecycle(&LifecycleFixture {
        lifecycle: &bench.deploy,
        facts: &bench.source,
        clock: &bench.clock,
        via: bench.via(),
        join: bench.lab.info().join(),
        fresh: ("d3".into(), bench.address("d3")),
        broken: Some("d4".into()),
        control: Some(&bench.deploy),
    })
    .await;
    assert_eq!(bench.processes("decommission"), Vec::<String>::new(), "no loop of the script is left");
    for name in ["d1", "d2", "d3", "d4"] {
        nothing_left(&bench, name);
    }
}

/// No output, no copy that was kept aside, no backup of `sed -iq`.
pub(crate) fn nothing_left(bench: &Bench, name: &str) {
    let mut files: Vec<String> = fs::read_dir(&bench.standins[name].install_dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| !["deploy.sh", "log", "decommission_progress"].contains(&n.as_str()))
        .collect();
    for path in ["/etc/kaiwudb/before-join", "/etc/systemd/system/kaiwudb.serviceq"] {
        files.extend(bench.file(name, path).exists().then(|| path.to_owned()));
    }
    assert_eq!(files, Vec::<String>::new(), "left on {name}");
}

async fn bits(bench: &Bench) -> Vec<u32> {
    let answer = bench.source.fetch(&bench.via().sql_address, &Query::Liveness).await.unwrap();
    let Rows::Liveness(rows) = answer.rows else { panic!("liveness") };
    rows.iter().filter(|r| r.decommissioning == Some(true)).map(|r| r.node_id.0).collect()
}

pub(crate) async fn the_script_and_its_traps() {
    // d2 has the address of the lab's nodes, d3 a script that asks for a password.
    let bench = bench(3, |index, standin, _| match index {
        2 => standin.address = "127.0.0.1".to_owned(),
        3 => standin.password = Some("secret".to_owned()),
        _ => {}
    });
    bench.join("d1").await;
    bench.join("d2").await;
    let unit = fs::read_to_string(bench.file("d1", "/etc/systemd/system/kaiwudb.service")).unwrap();
    let first = bench.lab.info().hosts[0].address.to_string();
    assert!(unit.contains(&format!("--join {first}")), "{unit}");
    assert_eq!(unit.matches("--join").count(), 1, "its own address is out, one member is in: {unit}");

    // What the script says is shown.
    let shown = bench.deploy.show(&"d1".into()).await.unwrap();
    assert_eq!(shown.running, Some(true));
    assert_eq!((shown.cluster.len(), shown.kw_status.len(), shown.progress), (5, 5, None), "{shown:?}");

    // Its own errors, with exit codes of all kinds.
    let error = bench.deploy.start(&bench.start("d1")).await.unwrap_err();
    assert!(error.to_string().contains("runs there already"), "{error}");
    let named = StartNode { join: vec![Address::new("localhost:26257")], ..bench.start("d3") };
    let error = bench.deploy.start(&named).await.unwrap_err();
    assert!(error.to_string().contains("IPv4"), "{error}");
    match bench.deploy.start(&bench.start("d3")).await.unwrap() {
        StartOutcome::Failed(words) => assert!(words.contains("Incorrect password"), "{words}"),
        other => panic!("a script without a password started {other:?}"),
    }
    nothing_left(&bench, "d3");

    // Several nodes at one address: all would go.
    let error = bench.deploy.mark(&bench.via(), &[NodeId(5)], DEADLINE).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Config, "{error}");
    assert!(error.to_string().contains("also mark node 1, node 2, node 3"), "{error}");
    assert_eq!(bits(&bench).await, Vec::<u32>::new());

    // A stale zero of an earlier run is not shown, and the loop neither blocks nor dies.
    let progress = bench.standins["d1"].install_dir.join("decommission_progress");
    fs::write(&progress, "0\n").unwrap();
    let begun = Instant::now();
    let marked = bench.deploy.mark(&bench.via(), &[NodeId(4)], DEADLINE).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "the loop kept the caller for {:?}", begun.elapsed());
    assert!(marked[0].decommissioning && marked[0].node == NodeId(4), "{marked:?}");
    assert_eq!(bits(&bench).await, [4], "nobody else");
    bench.deploy.recommission(&bench.via(), &[NodeId(4)], DEADLINE).await.unwrap();
    assert_eq!(bench.processes("decommission"), Vec::<String>::new(), "taken back, the loop is ended");

    guarded(&bench).await;
    nothing_left(&bench, "d1");
    let shown = bench.deploy.show(&"d1".into()).await.unwrap();
    assert_eq!((shown.running, shown.cluster.len()), (Some(false), 0), "{shown:?}");
    let error = bench.deploy.mark(&bench.via(), &[NodeId(NOBODY)], DEADLINE).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::UnknownNode, "{error}");
}

/// A stop asks a survivor first, on the leaving host itself.
async fn guarded(bench: &Bench) {
    let wants = bench.file("d1", "/etc/systemd/system/multi-user.target.wants/kaiwudb.service");
    let systemctl = bench.file("d1", "/usr/bin/systemctl");
    let ctl = |args: &[&str]| std::process::Command::new(&systemctl).args(args).output().unwrap().status;
    assert!(ctl(&["enable", "kaiwudb"]).success() && wants.symlink_metadata().is_ok());

    let stop = bench.stop(4, "d1");
    let refused = async |stop: &StopNode, words: &str| {
        let error = bench.deploy.stop(stop).await.unwrap_err();
        assert!(error.to_string().contains("nothing was stopped"), "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert!(!error.kind().may_have_been_done(), "{error}");
        assert_eq!(bench.deploy.process(&bench.stop(4, "d1")).await.unwrap(), ProcessState::Running);
    };
    refused(&stop, "not marked").await;
    let elsewhere = StopNode { address: bench.address("d2"), ..stop.clone() };
    refused(&elsewhere, "does not look like the node").await;
    let other = StopNode { node: NodeId(5), ..stop.clone() };
    refused(&other, "a survivor knows node 5 at").await;
    let mut silent = stop.clone();
    silent.via.address = free_addresses(1).unwrap().remove(0);
    refused(&silent, "did not tell").await;

    let end = Instant::now() + EMPTY;
    let marked = bench.deploy.mark(&bench.via(), &[NodeId(4)], DEADLINE).await.unwrap();
    if marked[0].replicas > 0 {
        refused(&stop, "replicas on node 4").await;
    }
    while bench.deploy.mark(&bench.via(), &[NodeId(4)], DEADLINE).await.unwrap()[0].replicas > 0 {
        assert!(Instant::now() < end, "node 4 is not emptied");
    }
    bench.deploy.stop(&stop).await.unwrap();
    assert_eq!(bench.deploy.process(&stop).await.unwrap(), ProcessState::Stopped);
    assert!(wants.symlink_metadata().is_err(), "a reboot does not bring it back");
    assert_eq!(ctl(&["is-active", "kaiwudb"]).code(), Some(3));
    bench.deploy.stop(&stop).await.unwrap();
}

pub(crate) async fn a_join_that_fails() {
    let bench = bench(1, |_, standin, info| standin.port = info.hosts[0].address.port().unwrap());
    let read = |path: &str| fs::read_to_string(bench.file("d1", path)).unwrap();
    let (unit, mode) = ("/etc/systemd/system/kaiwudb.service", "/etc/kaiwudb/info/MODE");
    fs::write(bench.file("d1", "/etc/kaiwudb/certs/ca.crt"), "old").unwrap();
    let before = (read(unit), read(mode));
    for _ in 0..2 {
        match bench.deploy.start(&bench.start("d1")).await.unwrap() {
            StartOutcome::Failed(words) => assert!(words.contains("its process ended"), "{words}"),
            other => panic!("nothing can be started at a port that is taken: {other:?}"),
        }
        assert_eq!((read(unit), read(mode)), before, "the unit and MODE are as they were");
        assert_eq!(read("/etc/kaiwudb/certs/ca.crt"), "old");
        nothing_left(&bench, "d1");
        assert_eq!(bench.processes("deploy.sh"), Vec::<String>::new(), "the script does not go on");
    }

    // What a join that was cut off kept aside is put back by the next one.
    let kept = bench.file("d1", "/etc/kaiwudb/before-join");
    fs::create_dir_all(kept.join("certs")).unwrap();
    fs::write(kept.join("certs/ca.crt"), "older").unwrap();
    fs::write(kept.join("service"), &before.0).unwrap();
    fs::write(kept.join("MODE"), &before.1).unwrap();
    fs::write(kept.join("complete"), "").unwrap();
    fs::write(bench.file("d1", unit), format!("{} --join 1.2.3.4:5", before.0)).unwrap();
    assert!(matches!(bench.deploy.start(&bench.start("d1")).await.unwrap(), StartOutcome::Failed(_)));
    assert_eq!((read(unit), read("/etc/kaiwudb/certs/ca.crt")), (before.0.clone(), "older".to_owned()));
    nothing_left(&bench, "d1");

    // A unit that does not even begin; and an error that the script cannot log, which it does not print then.
    let log = bench.standins["d1"].install_dir.join("log");
    fs::write(bench.file("d1", unit), before.0.replace("[Service]\n", "[Service]\nExecStartPre=false\n"))
        .unwrap();
    for told in ["the node did not start", "could not write to its log"] {
        match bench.deploy.start(&bench.start("d1")).await.unwrap() {
            StartOutcome::Failed(words) => {
                assert!(words.contains(told) && !words.contains("its process ended"), "{told}: {words}");
            }
            other => panic!("a unit that cannot begin was started: {other:?}"),
        }
        nothing_left(&bench, "d1");
        // Root may write into every file.
        for day in fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path()).filter(|day| day.is_file())
        {
            fs::remove_file(&day).unwrap();
            fs::create_dir(&day).unwrap();
        }
    }
    fs::write(bench.file("d1", unit), &before.0).unwrap();

    // Installed for something else: refused before anything runs.
    for (from, to, words) in [
        ("multi-replication", "single-replication", "start-single-replica"),
        ("insecure", "tls", "installed secure"),
        ("127.0.0.11", "127.0.0.99", "127.0.0.99"),
    ] {
        fs::write(bench.file("d1", mode), before.1.replace(from, to)).unwrap();
        let error = bench.deploy.start(&bench.start("d1")).await.unwrap_err();
        assert!(
            error.to_string().contains(words) && error.to_string().contains("nothing was started"),
            "{error}"
        );
    }
}

pub(crate) async fn joins_that_return_early() {
    let bench = bench(1, |_, standin, _| {
        standin.release = Version::new(3, 0, 1);
        standin.waits = (0.0, 0.0);
    });
    // The script looks once, right after the start, and mostly says that the join failed. The cluster decides.
    bench.join("d1").await;
    let answer = bench.source.fetch(&bench.via().sql_address, &Query::Nodes).await.unwrap();
    let Rows::Nodes(rows) = answer.rows else { panic!("nodes") };
    assert!(rows.iter().any(|r| r.address == Some(bench.address("d1"))), "{rows:?}");
    let shown = bench.deploy.show(&"d1".into()).await.unwrap();
    assert_eq!((shown.cluster.len(), shown.kw_status.len()), (4, 0), "kw-status came with V3.1.0");
    nothing_left(&bench, "d1");
}

/// The kwbase method on hosts whose nodes a unit owns.
pub(crate) async fn units_of_the_kwbase_method() {
    let bench = bench(1, |_, _, _| {});
    let standin = &bench.standins["d1"];
    let mut host = kwbase_host("d1", standin);
    host.owner = Owner::Systemd { unit: "kaiwudb".to_owned() };
    host.stores = vec![StoreSpec::new(standin.data_root().to_str().unwrap())];
    let first = bench.lab.info().hosts[0].name.clone();
    let member = bench.deploy.kwbase().host(&first).unwrap().clone();
    let transport = std::sync::Arc::new(LocalTransport::new(["d1".into(), first]));
    let kwbase = Kwbase::new(transport, [host, member]).unwrap();

    // The installer's unit joins only itself; a unit without any --join would found a cluster.
    let unit = bench.file("d1", "/etc/systemd/system/kaiwudb.service");
    let text = fs::read_to_string(&unit).unwrap();
    let own = format!("--join {}", bench.address("d1"));
    let error = kwbase.start(&bench.start("d1")).await.unwrap_err();
    assert!(error.to_string().contains("where no member lives"), "{error}");
    fs::write(&unit, text.replace(&own, "")).unwrap();
    let error = kwbase.start(&bench.start("d1")).await.unwrap_err();
    assert!(error.to_string().contains("has no --join"), "{error}");
    fs::write(&unit, text.replace(&own, &format!("--join {}", bench.lab.info().hosts[0].address))).unwrap();
    assert_eq!(kwbase.start(&bench.start("d1")).await.unwrap(), StartOutcome::Started);
    let error = kwbase.start(&bench.start("d1")).await.unwrap_err();
    assert!(error.to_string().contains("runs already"), "{error}");

    let stop = bench.stop(4, "d1");
    let end = Instant::now() + EMPTY;
    while !matches!(kwbase.mark(&bench.via(), &[NodeId(4)], DEADLINE).await, Ok(s) if s[0].replicas == 0) {
        assert!(Instant::now() < end, "node 4 is not emptied");
    }
    kwbase.stop(&stop).await.unwrap();
    assert_eq!(kwbase.process(&stop).await.unwrap(), ProcessState::Stopped);
    let error = kwbase.stop(&StopNode { host: Some("d1".into()), ..stop.clone() }).await;
    assert!(error.is_ok(), "a unit that is down is stopped: {error:?}");

    // A host of the script's cannot be owned by another unit.
    let mut other = kwbase_host("d1", standin);
    other.owner = Owner::Systemd { unit: "other".to_owned() };
    let transport = std::sync::Arc::new(LocalTransport::any_host());
    let kwbase = Kwbase::new(transport, [other]).unwrap();
    let error = kwdb_scale_core::deploy::DeployScript::new(kwbase, [deploy_host("d1", standin)]).unwrap_err();
    assert_eq!(error.field, "owner");
}
