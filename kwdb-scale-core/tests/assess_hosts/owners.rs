//! Units and containers that start and stop nodes.

use super::*;

#[test]
fn a_unit_whose_node_would_be_none_of_the_cluster() {
    let mut scene = Scene::new();
    scene.cluster.host_mut(NEW).by_service = true;
    scene.machine(NEW).owner = Owner::Systemd { unit: "kwbase-6".into() };
    scene.machine(NEW).described = Some(described());
    let own = address(NEW);
    let own = own.as_str();
    let member = address(2);
    for good in [&[member.as_str()][..], &[own, member.as_str()], &["db.example:26257"], &[own, "10.0.0.77"]]
    {
        scene.machine(NEW).unit = Fact::Known(Some(Unit { starts: joins(good), ..unit("inactive", None) }));
        assert!(!scene.assess(scale_out(&[NEW])).refused(), "{good:?}");
    }
    let mut refuses = |starts: Option<StartLine>, words: &[&str]| {
        scene.machine(NEW).unit = Fact::Known(Some(Unit { starts, ..unit("inactive", None) }));
        scene.refuses("process-owner", words);
    };
    refuses(None, &["unit kwbase-6 of host h6 does not tell its command line"]);
    refuses(joins(&[]), &["has no --join", "add --join with live members"]);
    refuses(joins(&[own, "0.0.0.0:26257"]), &["where no member lives", own]);
    let single = StartLine { start_mode: Some(StartMode::SingleReplica), ..joins(&["a:1"]).unwrap() };
    refuses(Some(single), &["does not run kwbase start, as the cluster does"]);
    let good = || joins(&["10.0.0.1:26257"]).unwrap();
    let other =
        |stores: &[&str]| StartLine { stores: stores.iter().map(|s| (*s).into()).collect(), ..good() };
    refuses(Some(other(&[STORE, "/data/old"])), &["has --store=/data/old", STORE]);
    refuses(Some(other(&[])), &["has no --store", STORE]);
    refuses(Some(StartLine { insecure: false, ..good() }), &["without --insecure", "described as insecure"]);
    for wrong in ["10.0.0.99:26257", "0.0.0.0:26999"] {
        let line = StartLine { address: Some(wrong.into()), ..good() };
        refuses(Some(line), &["advertises", wrong, own]);
    }
    scene.machine(NEW).described = Some(Described { locality: Some("region=a".into()), ..described() });
    let mut refuses = |starts: Option<StartLine>, words: &[&str]| {
        scene.machine(NEW).unit = Fact::Known(Some(Unit { starts, ..unit("inactive", None) }));
        scene.refuses("process-owner", words);
    };
    refuses(Some(good()), &["has no --locality", "region=a"]);
    let line = StartLine { locality: Some("region=zzz".into()), ..good() };
    refuses(Some(line), &["has --locality=region=zzz", "described with region=a"]);
    refuses(Some(StartLine { start_mode: None, ..joins(&["a:1"]).unwrap() }), &["does not run kwbase start"]);
    scene.machine(NEW).described = None;
    scene.refuses("process-owner", &["was not held against the description", "look at the host again"]);
}

/// What the start would refuse the plan refuses, by the same description.
#[test]
fn a_unit_that_would_not_be_started_later() {
    let mut scene = Scene::secure();
    scene.cluster.host_mut(NEW).by_service = true;
    scene.machine(NEW).owner = Owner::Systemd { unit: "kwbase-6".into() };
    scene.machine(NEW).described = Some(Described {
        certs_dir: Some("/etc/kaiwudb/certs".into()),
        listen_addr: Some("192.168.0.6:26257".into()),
        ..described()
    });
    // The directory of the time-series data is looked at as a store is, and is none.
    let series = StoreFacts::new("/data/ts", Fact::Known(StoreContent::Empty));
    scene.cluster.host_mut(NEW).stores.push(series);
    let good = || StartLine { insecure: false, ..joins(&["10.0.0.1:26257"]).unwrap() };
    let set = |scene: &mut Scene, line: StartLine| {
        scene.machine(NEW).unit = Fact::Known(Some(Unit { starts: Some(line), ..unit("inactive", None) }));
    };
    let stores = |stores: &[&str]| stores.iter().map(|s| (*s).to_owned()).collect();
    set(&mut scene, StartLine { certs_dir: Some("/etc/kaiwudb/certs/".into()), ..good() });
    assert!(!scene.assess(scale_out(&[NEW])).refused());
    set(&mut scene, StartLine { stores: stores(&[STORE, "/data/ts"]), ..good() });
    scene.refuses("process-owner", &["has --store=/data/ts, and the host is described with /data/n6"]);
    set(&mut scene, StartLine { join: vec!["192.168.0.6".into()], ..good() });
    scene.refuses("process-owner", &["has --join=192.168.0.6, where no member lives"]);
    // Certificates that are still to be made leave the directory as it is described.
    scene.machine(NEW).certificates = Fact::Known(None);
    set(&mut scene, StartLine { certs_dir: Some("/certs".into()), ..good() });
    let found = scene.assess(scale_out(&[NEW])).findings;
    let told: Vec<_> = found.iter().filter(|f| f.check == "process-owner").map(ToString::to_string).collect();
    assert!(told.len() == 1 && told[0].contains("--certs-dir=/certs"), "{told:?}");
}

#[test]
fn a_store_that_the_user_of_the_unit_may_not_write() {
    let rights = |mode, owner: &str, group: &str| {
        let rights = Some(Rights { mode, owner: owner.into(), group: group.into() });
        Writable { directory: STORE.into(), writable: Fact::Known(true), rights }
    };
    let mut scene = Scene::new();
    scene.cluster.host_mut(NEW).by_service = true;
    for good in [rights(0o700, "kaiwudb", "x"), rights(0o770, "root", "data"), rights(0o777, "root", "root")]
    {
        scene.machine(NEW).writable = vec![good];
        assert!(!scene.assess(scale_out(&[NEW])).refused());
    }
    for bad in
        [rights(0o700, "nobody", "nogroup"), rights(0o755, "root", "root"), rights(0o500, "kaiwudb", "x")]
    {
        scene.machine(NEW).writable = vec![bad.clone()];
        let owner = bad.rights.unwrap().owner;
        scene.refuses("host-writable", &["by kaiwudb, as whom kaiwudb.service runs", STORE, &owner]);
    }
    // A number may be anybody's name.
    scene.machine(NEW).unit = Fact::Known(Some(Unit { user: Some("1001".into()), ..unit("inactive", None) }));
    assert!(!scene.assess(scale_out(&[NEW])).refused());
    // Nobody starts the node by the unit.
    scene.machine(NEW).unit = Fact::Known(Some(unit("inactive", None)));
    scene.cluster.host_mut(NEW).by_service = false;
    assert!(!scene.assess(scale_out(&[NEW])).refused());
}

#[test]
fn what_owns_a_leaving_node() {
    const LEAVING: u32 = 5;
    let refusal = |scene: &mut Scene| -> Option<String> {
        let found = scene.assess(scale_in(&[LEAVING]));
        let refusals: Vec<_> = found.refusals().map(|f| (f.check.clone(), f.message.clone())).collect();
        assert!(refusals.iter().all(|(check, _)| check == "process-owner"), "{refusals:?}");
        refusals.into_iter().next().map(|(_, message)| message)
    };
    let mut scene = Scene::new();
    scene.cluster.host_mut(LEAVING).by_service = true;
    let machine = scene.machine(LEAVING);
    machine.owner = Owner::Systemd { unit: "kwbase-5".into() };
    let own = process("/data/n5");
    let unit = unit("active", Some(own.pid));
    machine.unit = Fact::Known(Some(unit.clone()));
    machine.processes = Fact::Known(vec![own.clone()]);
    assert_eq!(refusal(&mut scene), None);
    scene.machine(LEAVING).unit =
        Fact::Known(Some(Unit { active: "inactive".into(), main_pid: None, ..unit.clone() }));
    let inactive = "unit kwbase-5 of host h5 is inactive";
    assert!(refusal(&mut scene).unwrap().contains(inactive));
    // Whatever marks the node there.
    scene.cluster.host_mut(LEAVING).script = script(|_| {});
    assert!(refusal(&mut scene).unwrap().contains(inactive));
    scene.cluster.host_mut(LEAVING).script = None;

    // The unit of another node of the machine.
    let other = NodeProcess { pid: 99, ..process("/data/other") };
    let by_other = Fact::Known(Some(Unit { main_pid: Some(other.pid), ..unit }));
    scene.machine(LEAVING).unit = by_other;
    scene.machine(LEAVING).processes = Fact::Known(vec![own, other.clone()]);
    assert!(refusal(&mut scene).unwrap().contains("runs another node, that of --store=/data/other"));
    // Where no process has the store of the description, that may be written in another way.
    scene.machine(LEAVING).processes = Fact::Known(vec![other]);
    assert_eq!(refusal(&mut scene), None);

    let machine = scene.machine(LEAVING);
    machine.owner = Owner::Container { engine: "docker".into(), name: "kw5".into() };
    let returns = Some("unit kw5.service owns it; name that unit".into());
    let container = Container {
        engine: "docker".into(),
        state: "running".into(),
        image: "kwdb".into(),
        returns,
        starts: None,
    };
    machine.container = Fact::Known(Some(container));
    assert!(refusal(&mut scene).unwrap().ends_with("again after its stop: unit kw5.service owns it"));
}
