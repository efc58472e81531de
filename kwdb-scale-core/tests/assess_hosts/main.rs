//! The checks on what a look at the machines of hosts told, one finding each.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod certs;
#[path = "../support/machine.rs"]
mod machine;
mod owners;
#[path = "../support/mod.rs"]
mod support;

use jiff::SignedDuration;
use kwdb_scale_core::assess::{Assessment, Finding, Severity, assess};
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::host_facts::*;
use kwdb_scale_core::observation::{Reach, Service};
use kwdb_scale_core::owner::{Described, Owner, StartLine};
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::ports::{AuthorityFacts, AuthorityKeyFile, PortState};
use kwdb_scale_core::request::{Certificates, OldData, Operation, Request};
use kwdb_scale_core::topology::{Address, StartMode};
use machine::*;
use support::*;

const NEW: u32 = 6;
const STORE: &str = "/data/n6";

/// Five members and a host that shall join, each on a machine of its own; every way between them is open.
struct Scene {
    cluster: Cluster,
    reach: Vec<Reach>,
}

impl Scene {
    fn new() -> Self {
        let mut cluster = Cluster::new(5);
        for node in 1..=NEW {
            let mut machine = machine(&format!("/data/n{node}"));
            if node != NEW {
                machine.processes = Fact::Known(vec![process(&format!("/data/n{node}"))]);
            }
            cluster.host_mut(node).machine = Some(Box::new(machine));
            let entry = cluster.inventory.hosts.get_mut(&host(node)).unwrap();
            entry.brpc_address = Some(Address::new(format!("{}:27257", entry.address.host())));
        }
        let mut reach = Vec::new();
        for node in 1..NEW {
            for service in [Service::Rpc, Service::Brpc] {
                let to = |node: u32| match service {
                    Service::Brpc => cluster.inventory.hosts[&host(node)].brpc_address.clone().unwrap(),
                    _ => address(node),
                };
                let open = Fact::Known(PortState::Open);
                reach.push(Reach { from: host(NEW), to: to(node), service, state: open });
                // Nothing listens there yet, and that is known because somebody said so.
                let refused = Fact::Known(PortState::Closed);
                reach.push(Reach { from: host(node), to: to(NEW), service, state: refused });
            }
        }
        Self { cluster, reach }
    }

    fn secure() -> Self {
        let mut scene = Self::new();
        for node in 1..=NEW {
            let now = scene.cluster.now;
            let names = [address(node).host().to_owned()];
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            scene.machine(node).certificates = Fact::Known(Some(certificates(now, &names)));
            if let Fact::Known(Some(installed)) = &mut scene.machine(node).installed {
                installed.security = "tls".into();
            }
            scene.cluster.host_mut(node).secure = true;
        }
        scene
    }

    fn machine(&mut self, node: u32) -> &mut Machine {
        self.cluster.host_mut(node).machine.as_deref_mut().unwrap()
    }

    fn directory(&mut self, node: u32) -> &mut CertificateDirectory {
        match &mut self.machine(node).certificates {
            Fact::Known(Some(dir)) => dir,
            other => panic!("{other:?}"),
        }
    }

    fn assess(&self, operation: Operation) -> Assessment {
        let mut observation = self.cluster.observe();
        observation.reach = self.reach.clone();
        assess(&observation, &self.cluster.request(operation), &Policy::default())
    }

    /// The one finding that there is beside the notes, of that weight, which says each of `words`.
    #[track_caller]
    fn finds(&self, operation: Operation, severity: Severity, check: &str, words: &[&str]) {
        let assessment = self.assess(operation);
        let all: Vec<String> = assessment
            .findings
            .iter()
            .filter(|f| !f.check.starts_with("note-"))
            .map(ToString::to_string)
            .collect();
        let graver =
            assessment.findings.iter().filter(|f| f.severity > Severity::Info || f.check == "host-untold");
        let graver: Vec<_> = graver.collect();
        assert_eq!(graver.len(), 1, "{all:#?}");
        assert_eq!((graver[0].check.as_str(), graver[0].severity), (check, severity), "{all:#?}");
        let text = graver[0].to_string();
        assert!(graver[0].severity == Severity::Info || graver[0].cure.is_some(), "{text}");
        for word in words {
            assert!(text.contains(word), "'{word}' is not in: {text}");
        }
    }

    #[track_caller]
    fn refuses(&self, check: &str, words: &[&str]) {
        self.finds(scale_out(&[NEW]), Severity::Refuse, check, words);
        // The same for one that takes another's place.
        let replaced = self.assess(replace(&[5], &[NEW]));
        assert!(replaced.refusals().any(|f| f.check == check), "{:#?}", replaced.findings);
    }

    #[track_caller]
    fn warns(&self, check: &str, words: &[&str]) {
        self.finds(scale_out(&[NEW]), Severity::Warn, check, words);
    }
}

#[test]
fn fit_machines_are_nothing_to_speak_of() {
    for scene in [Scene::new(), Scene::secure()] {
        for operation in [scale_out(&[NEW]), scale_in(&[5]), replace(&[5], &[NEW])] {
            let assessment = scene.assess(operation);
            let odd: Vec<String> = assessment
                .findings
                .iter()
                .filter(|f| f.severity > Severity::Info || f.check == "host-untold")
                .map(ToString::to_string)
                .collect();
            assert!(odd.is_empty(), "{odd:#?}");
        }
    }
}

#[test]
fn installed_for_something_else() {
    let change = |change: &dyn Fn(&mut Installed)| {
        let mut scene = Scene::new();
        let mut installed = installed(STORE);
        change(&mut installed);
        scene.machine(NEW).installed = Fact::Known(Some(installed));
        scene
    };
    let single = change(&|i| i.start_mode = StartMode::SingleReplica);
    single.refuses("host-mode", &["h6", "start-single-replica", "line 2"]);
    change(&|i| i.security = "tls".into()).refuses("host-mode", &["h6", "installed secure", "line 8: tls"]);
    change(&|i| i.method = InstallMethod::Container).warns("host-installed", &["in a container", "outside"]);
    // The record of another node of the machine says nothing about this one.
    let other = change(&|i| {
        i.start_mode = StartMode::SingleNode;
        i.place = "/opt/other".into();
        i.data_root = "/data/other".into();
    });
    assert!(!other.assess(scale_out(&[NEW])).refused());
    let mut unread = Scene::new();
    unread.machine(NEW).installed = Fact::unknown("it may not be read");
    let found = unread.assess(scale_out(&[NEW]));
    assert_eq!(checks(&found, Severity::Refuse), ["host-mode"]);
}

#[test]
fn a_unit_that_a_reboot_would_not_start() {
    let mut scene = Scene::new();
    let unit = Unit { enabled: "disabled".into(), ..unit("inactive", None) };
    scene.machine(NEW).unit = Fact::Known(Some(unit));
    // Nobody starts the node by it.
    assert!(checks(&scene.assess(scale_out(&[NEW])), Severity::Warn).is_empty());
    scene.cluster.host_mut(NEW).by_service = true;
    scene.warns("host-unit-disabled", &["h6", "reboot"]);
}

#[test]
fn something_runs_there() {
    let mut scene = Scene::new();
    scene.machine(NEW).processes = Fact::Known(vec![process(STORE)]);
    scene.refuses("host-not-running", &["h6", "process 4711", STORE]);
    // A node with another store is another host's, as on a machine of several.
    let other = vec![process("/data/other")];
    scene.machine(NEW).processes = Fact::Known(other.clone());
    assert!(!scene.assess(scale_out(&[NEW])).refused());

    let active = unit("active", Some(9));
    scene.machine(NEW).unit = Fact::Known(Some(active.clone()));
    scene.refuses("host-not-running", &["kaiwudb.service is active"]);
    scene.machine(NEW).unit = Fact::Known(Some(Unit { main_pid: Some(other[0].pid), ..active }));
    assert!(!scene.assess(scale_out(&[NEW])).refused());

    let mut scene = Scene::new();
    let container = Container {
        engine: "docker".into(),
        state: "running".into(),
        image: "kwdb".into(),
        returns: None,
        starts: joins(&["10.0.0.1:26257"]),
    };
    scene.machine(NEW).container = Fact::Known(Some(container.clone()));
    scene.refuses("host-not-running", &["container of kwdb is running"]);
    scene.machine(NEW).container =
        Fact::Known(Some(Container { state: "exited".into(), ..container.clone() }));
    assert!(!scene.assess(scale_out(&[NEW])).refused());

    // A container that owns the node is this host's also where a prefix leads into it, and has to be there.
    scene.cluster.host_mut(NEW).by_service = true;
    scene.machine(NEW).inside = true;
    scene.machine(NEW).described = Some(described());
    scene.machine(NEW).installed = Fact::Known(None);
    let kw7 = Owner::Container { engine: "docker".into(), name: "kw7".into() };
    scene.machine(NEW).owner = kw7.clone();
    assert!(!scene.assess(scale_out(&[NEW])).refused());
    scene.machine(NEW).container = Fact::Known(Some(container));
    scene.refuses("host-not-running", &["container kw7 of kwdb is running"]);
    scene.machine(NEW).container = Fact::Known(None);
    scene.refuses("process-owner", &["has no container kw7"]);
    scene.machine(NEW).owner = Owner::Systemd { unit: "kwbase-2".into() };
    scene.machine(NEW).unit = Fact::Known(None);
    scene.refuses("process-owner", &["has no unit kwbase-2"]);
    scene.machine(NEW).owner = kw7;
    scene.machine(NEW).container = Fact::unknown("there is no program docker on the host");
    let refused = scene.assess(scale_out(&[NEW]));
    assert!(
        refused.refusals().any(|f| f.check == "process-owner" && f.message.contains("there is no program"))
    );
}

/// A unit that starts nodes as the user kaiwudb.
fn unit(active: &str, main_pid: Option<u32>) -> Unit {
    let user = Some("kaiwudb".into());
    Unit {
        active: active.into(),
        enabled: "enabled".into(),
        main_pid,
        user,
        starts: joins(&["10.0.0.1:26257"]),
    }
}

fn described() -> Described {
    Described { stores: vec![STORE.into()], address: Some(address(NEW)), ..Described::default() }
}

fn joins(addresses: &[&str]) -> Option<StartLine> {
    let join = addresses.iter().copied().map(Address::new).collect();
    Some(StartLine {
        start_mode: Some(StartMode::MultiReplica),
        join,
        stores: vec![STORE.into()],
        insecure: true,
        ..StartLine::default()
    })
}

#[test]
fn an_address_of_another_machine() {
    let mut scene = Scene::new();
    let binds = |scene: &mut Scene, addresses: &[&str]| {
        scene.machine(NEW).binds = addresses.iter().copied().map(Address::new).collect();
    };
    binds(&mut scene, &["127.0.0.6:26257"]);
    assert!(!scene.assess(scale_out(&[NEW])).refused());
    binds(&mut scene, &["127.0.0.6:26257", "10.0.0.6:8080"]);
    scene.refuses(
        "host-listen-address",
        &["h6", "10.0.0.6:8080", "it has 192.0.2.6", "how the host is reached"],
    );
    // That of a member's host is of no weight: it listens already.
    binds(&mut scene, &[]);
    scene.machine(5).binds = vec!["10.0.0.6:8080".into()];
    assert!(!scene.assess(scale_out(&[NEW])).refused());
    binds(&mut scene, &["10.0.0.6:8080"]);
    scene.machine(NEW).addresses = Fact::unknown("the host has no /proc/net/fib_trie");
    scene.finds(scale_out(&[NEW]), Severity::Info, "host-untold", &["addresses: the host has no"]);
    assert!(!scene.assess(scale_out(&[NEW])).refused());
}

#[test]
fn disks_and_rights() {
    let with = |size: u64, free: u64| {
        let mut scene = Scene::new();
        let space = Space { source: "/dev/sdb".into(), mount: "/data".into(), size, free };
        scene.machine(NEW).file_systems[0].space = Fact::Known(space);
        scene
    };
    with(1 << 40, 100 << 20).refuses("host-disk-full", &[STORE, "0.1 GiB free", "/dev/sdb"]);
    let median = Scene::new().cluster.stores[0].capacity.unwrap();
    with(median / 2 - 1, 1 << 36).warns("host-disk-small", &[STORE, "50 %"]);
    assert!(checks(&with(median / 2 + 1, 1 << 36).assess(scale_out(&[NEW])), Severity::Warn).is_empty());
    let mut scene = Scene::new();
    scene.machine(NEW).writable[0].writable = Fact::Known(false);
    scene.refuses("host-writable", &[STORE, "kaiwudb"]);
}

#[test]
fn limits_below_those_of_the_service() {
    let mut scene = Scene::new();
    let files = |hard| Fact::Known(Limit { soft: Some(1024), hard: Some(hard) });
    scene.machine(NEW).limits.open_files = files(1955);
    scene.refuses("host-open-files", &["h6 may open 1955 files", "does not start below 1956"]);
    // A service has limits of its own, and kwbase raises the soft one.
    scene.cluster.host_mut(NEW).by_service = true;
    scene.warns("host-limits", &["1955; kwbase recommends 15000"]);
    scene.cluster.host_mut(NEW).by_service = false;
    scene.machine(NEW).limits.open_files = Fact::Known(Limit { soft: Some(256), hard: Some(1956) });
    scene.warns("host-limits", &["1956; kwbase recommends 15000"]);
    scene.machine(NEW).limits.open_files = files(14_999);
    scene.machine(NEW).limits.max_map_count = Fact::Known(65_530);
    scene.warns("host-limits", &["14999; kwbase recommends 15000", "65530"]);
    // deploy.sh join starts it by KWDB's service.
    scene.cluster.host_mut(NEW).script = Some(Fact::Unknown("not told".into()));
    assert!(!checks(&scene.assess(scale_out(&[NEW])), Severity::Warn).iter().any(|c| *c == "host-limits"));
    scene.cluster.host_mut(NEW).script = None;
    scene.machine(NEW).limits.open_files = files(15_000);
    scene.machine(NEW).limits.max_map_count = Fact::Known(10_000_000);
    assert!(checks(&scene.assess(scale_out(&[NEW])), Severity::Warn).is_empty());
}

#[test]
fn clocks_are_compared_with_the_members_and_their_doubt_is_granted() {
    let offset = |ms: i64, doubt: i64| {
        Fact::Known(ClockOffset {
            offset: SignedDuration::from_millis(ms),
            uncertainty: SignedDuration::from_millis(doubt),
        })
    };
    let mut scene = Scene::new();
    scene.machine(NEW).clock = offset(450, 10);
    scene.refuses("host-clock-far", &["h6", "from 5 of 5 others", "425 ms from host h1"]);
    // Fewer than half are far, or not enough are known: a node would live.
    let mut some = Scene::new();
    some.machine(NEW).clock = offset(450, 10);
    for node in 1..=3 {
        some.machine(node).clock = offset(450, 10);
    }
    some.warns("host-clock", &["h6", "from 2 of 5 others"]);
    for node in 1..=3 {
        some.machine(node).clock = Fact::unknown("no clock");
    }
    some.warns("host-clock", &["h6", "from 2 of 2 others"]);
    scene.machine(NEW).clock = offset(450, 100);
    assert!(checks(&scene.assess(scale_out(&[NEW])), Severity::Warn).is_empty());
    // All are apart from the operator alike: his clock is wrong, and takes no part.
    for node in 1..=NEW {
        scene.machine(node).clock = offset(60_000, 10);
    }
    assert!(checks(&scene.assess(scale_out(&[NEW])), Severity::Warn).is_empty());
    // Where no member's is known, his stands in.
    for node in 1..NEW {
        scene.machine(node).clock = Fact::unknown("no clock");
    }
    scene.warns("host-clock", &["operator"]);
}

/// Those of a fit installation, changed.
fn script(change: impl Fn(&mut ScriptFacts)) -> Option<Fact<ScriptFacts>> {
    let mut facts = ScriptFacts {
        unusable: vec![],
        unfit: vec![],
        archive: Some(true),
        archive_fault: None,
        archive_authority: None,
        address: Some("10.0.0.6".into()),
    };
    change(&mut facts);
    Some(Fact::Known(facts))
}

/// What lies where `deploy.sh join` opens it, whoever put it there.
fn archives_on_hosts_of_the_script() {
    let of = |fingerprint: &str| Some(Fact::Known(fingerprint.to_owned()));
    let mut scene = Scene::secure();
    let own = certificate_of(scene.directory(NEW), "ca.crt").fingerprint.clone();
    let archives = [
        (script(|s| s.archive_authority = of(&own)), "", ""),
        (
            script(|s| s.archive_fault = Some("/opt/k/kaiwudb_certs.tar.gz is damaged".into())),
            "is damaged",
            "is damaged",
        ),
        (
            script(|s| s.archive_authority = of(&"ee".repeat(32))),
            "of another authority (eeeeeeeeeeeeeeee) than on host h",
            "of another authority (eeeeeeeeeeeeeeee) than the cluster's",
        ),
        // What cannot be seen is used when it is asked for, and never replaced.
        (
            script(|s| s.archive_authority = Some(Fact::unknown("no tar"))),
            "",
            "is the cluster's is unknown: no tar",
        ),
    ];
    // Of a good one the script makes the certificates, whatever is there now.
    let mut bare = Scene::secure();
    bare.cluster.host_mut(NEW).can_authenticate = Fact::Known(false);
    bare.machine(NEW).certificates = Fact::Known(None);
    bare.cluster.host_mut(NEW).script = archives[0].0.clone();
    assert!(bare.assess(scale_out(&[NEW])).refusals().next().is_none());
    for other in &archives[1..] {
        bare.cluster.host_mut(NEW).script = other.0.clone();
        let refused = bare.assess(scale_out(&[NEW]));
        assert!(refused.refusals().any(|f| f.check == "host-certificates"), "{other:?}");
    }
    for (script, present, asked) in archives {
        scene.cluster.host_mut(NEW).script = script.clone();
        match present {
            "" => assert!(scene.assess(scale_out(&[NEW])).refusals().next().is_none(), "{script:?}"),
            words => scene.refuses("script-join", &["h6", words, "--certificates archive"]),
        }
        let mut observed = scene.cluster.observe();
        observed.reach.clone_from(&scene.reach);
        observed.authority = Some(Fact::Known(AuthorityFacts {
            place: "host h1".into(),
            fingerprint: own.clone(),
            not_after: jiff::Timestamp::MAX,
            can_sign: Fact::Known(true),
            key: None,
            build: None,
            key_file: None,
            trusted: [("host h1".to_owned(), Fact::Known(own.clone()))].into(),
            archive_only: [host(NEW)].into(),
        }));
        let mut request = scene.cluster.request(scale_out(&[NEW]));
        request.options.certificates = Certificates::Archive;
        let found = assess(&observed, &request, &Policy::default());
        let refusals: Vec<String> = found.refusals().map(ToString::to_string).collect();
        match asked {
            "" => assert_eq!(refusals, [""; 0]),
            words => {
                let told =
                    [words, "script-join", "move it away"].iter().all(|word| refusals[0].contains(word));
                assert!(refusals.len() == 1 && told, "{words}: {refusals:?}");
            }
        }
    }
    scene.finds(scale_out(&[NEW]), Severity::Info, "host-untold", &["archive of certificates holds: no tar"]);
}

#[test]
fn hosts_of_members_that_cannot_be_looked_at() {
    let mut scene = Scene::new();
    let why = "'h4' presented the ssh-ed25519 key SHA256:x, but /root/.ssh/known_hosts line 7 has another: \
               if the key was changed on purpose, correct that line";
    scene.cluster.hosts.insert(host(4), Fact::unknown(why));
    let words = ["host h4", "known_hosts line 7", "correct that line", "hosts h4"];
    scene.warns("hosts-of-members", &words);
    scene.finds(scale_in(&[5]), Severity::Warn, "hosts-of-members", &words);
}

fn certificate_of<'a>(
    dir: &'a mut CertificateDirectory,
    name: &str,
) -> &'a mut kwdb_scale_core::certificate::Certificate {
    let file = dir.files.iter_mut().find(|f| f.name == name).unwrap();
    match &mut file.certificate {
        Some(Fact::Known(certificate)) => certificate,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_mount_point_is_not_moved_aside() {
    let mut scene = Scene::new();
    scene.cluster.remove(5);
    scene.machine(5).processes = Fact::Known(Vec::new());
    let said = |scene: &Scene, old_data: OldData| {
        let mut observation = scene.cluster.observe();
        observation.reach = scene.reach.clone();
        let mut request = scene.cluster.request(scale_out(&[5]));
        request.options.old_data = old_data;
        let all = assess(&observation, &request, &Policy::default()).findings;
        let of_store: Vec<_> = all.into_iter().filter(|f| f.check == "host-store-empty").collect();
        of_store.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(said(&scene, OldData::MoveAside), "");
    let Fact::Known(space) = &mut scene.machine(5).file_systems[0].space else { panic!() };
    space.mount = "/data/n5".into();
    let text = said(&scene, OldData::MoveAside);
    for word in ["/data/n5 of host h5 is a mount point", "delete", "by hand"] {
        assert!(text.contains(word), "'{word}' is not in: {text}");
    }
    assert_eq!(said(&scene, OldData::Delete), "");

    // Nor is one that the user may not rename.
    let Fact::Known(space) = &mut scene.machine(5).file_systems[0].space else { panic!() };
    space.mount = "/".into();
    scene.cluster.host_mut(5).stores[0].unmovable = true;
    let text = said(&scene, OldData::MoveAside);
    for words in ["/data/n5 of host h5 cannot be moved aside", "may not write in /data", "sudo", "=delete"] {
        assert!(text.contains(words), "'{words}' is not in: {text}");
    }
    assert_eq!(said(&scene, OldData::Delete), "");
    assert!(
        said(&scene, OldData::Refuse).contains("--wipe-old-data=delete"),
        "what would be refused is not offered"
    );
    scene.cluster.host_mut(5).stores[0].unmovable = false;

    // Nor is one moved to where something is. What was moved there earlier, of another node, is in nobody's way.
    let beside =
        |scene: &mut Scene, path: &str| scene.cluster.host_mut(5).stores[0].asides = vec![path.into()];
    beside(&mut scene, "/data/n5.node-3");
    assert_eq!(said(&scene, OldData::MoveAside), "");
    beside(&mut scene, "/data/n5.node-5");
    let text = said(&scene, OldData::MoveAside);
    for word in ["/data/n5 of host h5", "/data/n5.node-5, which is there already", "by hand", "=delete"] {
        assert!(text.contains(word), "'{word}' is not in: {text}");
    }
    assert_eq!(said(&scene, OldData::Delete), "");
    assert!(
        said(&scene, OldData::Refuse).contains("--wipe-old-data=delete"),
        "what is offered is not refused"
    );
    scene.cluster.host_mut(5).stores[0].asides.clear();

    // One that is mounted over itself is on the file system of the directory above.
    let Fact::Known(space) = &mut scene.machine(5).file_systems[0].space else { panic!() };
    space.mount = "/".into();
    let mut mounted = |mounts: Fact<Vec<String>>, old_data: OldData| {
        scene.cluster.host_mut(5).stores[0].mounts = mounts;
        said(&scene, old_data)
    };
    let at = |places: &[&str]| Fact::Known(places.iter().map(ToString::to_string).collect());
    assert!(mounted(at(&["/data/n5"]), OldData::MoveAside).contains("is a mount point"));
    assert_eq!(mounted(at(&["/data/n5"]), OldData::Delete), "");
    // Below it neither is possible, and neither is offered.
    for old_data in [OldData::MoveAside, OldData::Delete] {
        let text = mounted(at(&["/data/n5/tsdb", "/data/n5/a/b"]), old_data);
        for word in [
            "/data/n5 of host h5 must not be cleared",
            "below it",
            "/data/n5/tsdb, /data/n5/a/b",
            "unmount it",
        ] {
            assert!(text.contains(word), "'{word}' is not in: {text}");
        }
        assert!(!text.contains("wipe"), "{text}");
        let text = mounted(Fact::unknown("the host has no /proc/self/mountinfo"), old_data);
        assert!(
            text.contains("what is mounted below /data/n5 of host h5 is unknown: the host has no"),
            "{text}"
        );
    }
    let text = mounted(at(&["/data/n5/tsdb"]), OldData::Refuse);
    assert!(text.contains("holds a node's files") && !text.contains("wipe"), "{text}");
    assert!(text.contains("mounted below it: /data/n5/tsdb"), "{text}");
    mounted(at(&[]), OldData::Delete);

    // What a link leads to is somebody's to judge.
    scene.cluster.host_mut(5).stores[0].leads_to = Some("/big/n5".into());
    for old_data in [OldData::MoveAside, OldData::Delete] {
        let text = said(&scene, old_data);
        assert!(text.contains("/data/n5 of host h5 leads to /big/n5") && !text.contains("wipe"), "{text}");
    }
    let text = said(&scene, OldData::Refuse);
    assert!(text.contains("holds a node's files") && !text.contains("wipe"), "{text}");
}

#[test]
fn a_store_holds_a_nodes_files_or_somebody_elses() {
    let said = |scene: &Scene, node: u32, old_data: OldData| {
        let mut observation = scene.cluster.observe();
        observation.reach = scene.reach.clone();
        let mut request = scene.cluster.request(scale_out(&[node]));
        request.options.old_data = old_data;
        let all = assess(&observation, &request, &Policy::default()).findings;
        let of_store: Vec<_> = all.into_iter().filter(|f| f.check == "host-store-empty").collect();
        of_store.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let holds = |scene: &mut Scene, node: u32, names: &[&str]| {
        let names = names.iter().map(ToString::to_string).collect();
        scene.cluster.host_mut(node).stores[0].content = Fact::Known(StoreContent::InUse(names));
    };
    let mut scene = Scene::new();
    // Not a node's, so that nothing of kwscale's clears it.
    holds(&mut scene, NEW, &["precious"]);
    for old_data in [OldData::Refuse, OldData::MoveAside, OldData::Delete] {
        let text = said(&scene, NEW, old_data);
        for words in ["store /data/n6 of host h6", "none of KWDB's", "found: precious", "empty directory"] {
            assert!(text.contains(words), "'{words}' is not in: {text}");
        }
        assert!(!text.contains("wipe") && !text.contains("a node's files"), "{text}");
        assert_eq!(text.lines().filter(|l| l.contains("host-store-empty")).count(), 1, "{text}");
    }
    // Whose they are nobody knows: what would be refused is not offered.
    holds(&mut scene, NEW, &["CURRENT", "precious"]);
    let text = said(&scene, NEW, OldData::Refuse);
    for words in
        ["holds a node's files", "found: CURRENT, precious", "none of them a store's: precious", "by hand"]
    {
        assert!(text.contains(words), "'{words}' is not in: {text}");
    }
    assert!(!text.contains("wipe"), "{text}");
    assert!(said(&scene, NEW, OldData::MoveAside).contains("whose they are is unknown"));

    // A removed node's: the way that works is offered.
    let mut scene = Scene::new();
    scene.cluster.remove(5);
    scene.machine(5).processes = Fact::Known(Vec::new());
    holds(&mut scene, 5, &["CURRENT", "precious"]);
    let text = said(&scene, 5, OldData::Refuse);
    assert!(text.contains("(kwscale: --wipe-old-data)"), "{text}");
    assert_eq!(said(&scene, 5, OldData::MoveAside), "");
    let Fact::Known(space) = &mut scene.machine(5).file_systems[0].space else { panic!() };
    space.mount = "/data/n5".into();
    let text = said(&scene, 5, OldData::Refuse);
    assert!(!text.contains("wipe"), "neither may be: {text}");
    holds(&mut scene, 5, &["CURRENT"]);
    let text = said(&scene, 5, OldData::Refuse);
    assert!(text.contains("--wipe-old-data=delete"), "{text}");
    assert_eq!(said(&scene, 5, OldData::Delete), "");
    holds(&mut scene, 5, &["precious"]);
    let text = said(&scene, 5, OldData::Refuse);
    assert!(text.contains("none of KWDB's") && !text.contains("wipe"), "{text}");
}

#[test]
fn what_is_said_of_old_data_is_one_story() {
    let mut scene = Scene::new();
    scene.cluster.remove(5);
    scene.machine(5).processes = Fact::Known(Vec::new());
    let all = |scene: &Scene, old_data: OldData| {
        let mut observation = scene.cluster.observe();
        observation.reach = scene.reach.clone();
        let mut request = scene.cluster.request(scale_out(&[5]));
        request.options.old_data = old_data;
        let all = assess(&observation, &request, &Policy::default()).findings;
        all.into_iter().filter(|f| f.check == "host-store-empty" || f.check == "old-data").collect::<Vec<_>>()
    };
    let checks = |found: &[Finding]| found.iter().map(|f| f.check.clone()).collect::<Vec<_>>();
    let cures =
        |found: &[Finding]| found.iter().filter_map(|f| f.cure.clone()).collect::<Vec<_>>().join("\n");
    let found = all(&scene, OldData::Delete);
    assert_eq!(checks(&found), ["old-data"]);
    assert!(found[0].message.contains("is deleted"), "{}", found[0]);

    // What none of KWDB's stores has hinders the deletion alone: the other way is offered, and nothing is said to be deleted.
    let names = ["CURRENT", "precious"].map(str::to_owned).to_vec();
    scene.cluster.host_mut(5).stores[0].content = Fact::Known(StoreContent::InUse(names));
    let found = all(&scene, OldData::Delete);
    assert_eq!(checks(&found), ["host-store-empty"]);
    assert!(
        cures(&found).ends_with("or have the directory moved aside (kwscale: --wipe-old-data)"),
        "{found:?}"
    );
    assert_eq!(checks(&all(&scene, OldData::MoveAside)), ["old-data"]);

    // Where the other way would be refused as well it is not offered, whatever refuses it.
    let again = || Scene { cluster: scene.cluster.clone(), reach: scene.reach.clone() };
    let (mut by_mount, mut below, mut odd, mut unproven) = (again(), again(), again(), again());
    by_mount.cluster.host_mut(5).stores[0].mounts = Fact::Known(vec!["/data/n5".into()]);
    below.cluster.host_mut(5).stores[0].mounts = Fact::Known(vec!["/data/n5/tsdb".into()]);
    let names = ["CURRENT", "pre\\ncious"].map(str::to_owned).to_vec();
    odd.cluster.host_mut(5).stores[0].content = Fact::Known(StoreContent::InUse(names));
    unproven.cluster.views.clear();
    for scene in [by_mount, below, odd, unproven] {
        for old_data in [OldData::MoveAside, OldData::Delete] {
            let found = all(&scene, old_data);
            assert!(!found.is_empty() && found.iter().all(|f| f.check == "host-store-empty"), "{found:?}");
            assert!(!cures(&found).contains("wipe"), "{found:?}");
        }
    }
}

#[test]
fn what_lies_about() {
    let mut scene = Scene::new();
    let left = Leftover { path: "/tmp/kaiwudb_certs".into(), mode: 0o755, owner: "root".into() };
    scene.machine(3).leftovers = Fact::Known(vec![left]);
    scene.warns("host-leftovers", &["host h3: /tmp/kaiwudb_certs (mode 755, of root)"]);

    // What a killed operation has left, or one that goes on has. A key in there may be open by its own mode.
    let left = |path: &str, mode| Leftover { path: path.into(), mode, owner: "root".into() };
    let dir = "/etc/kaiwudb/certs.new-20260102T030405Z-0a1b2c3d-1";
    let key = format!("{dir}/ca.key");
    scene.machine(3).leftovers = Fact::Known(vec![left(dir, 0o700), left(&key, 0o600)]);
    scene.warns("host-leftovers", &[dir, "(mode 700, of root", "goes on or was cut off", "ca.key (mode 600"]);
    let found = scene.assess(scale_out(&[NEW])).findings;
    assert!(found.iter().all(|f| f.check != "ca-key-open"), "{found:?}");
    for (mode, words) in [(0o700, "(mode 644, behind the mode 700 of "), (0o755, "(mode 644)")] {
        scene.machine(3).leftovers = Fact::Known(vec![left(dir, mode), left(&key, 0o644)]);
        let found = scene.assess(scale_out(&[NEW])).findings;
        let open = found.iter().find(|f| f.check == "ca-key-open").unwrap().to_string();
        assert!(open.contains(&format!("host h3: {key} {words}")), "{open}");
    }
}

#[test]
fn ways_that_are_shut() {
    let shut = |from: u32, service: Service, state: Fact<PortState>| {
        let mut scene = Scene::new();
        let new = from == NEW;
        let way = scene
            .reach
            .iter_mut()
            .find(|w| w.from == host(if new { NEW } else { from }) && w.service == service);
        way.unwrap().state = state;
        scene
    };
    let silent = Fact::Known(PortState::NoAnswer);
    let closed = Fact::Known(PortState::Closed);
    shut(NEW, Service::Rpc, silent.clone()).refuses("host-reach", &["from host h6 to", "no answer"]);
    shut(NEW, Service::Rpc, closed.clone()).refuses("host-reach", &["from host h6 to", "refused"]);
    shut(2, Service::Rpc, silent.clone()).refuses("host-reach", &["from host h2 to", "(RPC): no answer"]);
    shut(NEW, Service::Brpc, closed).warns("host-reach-brpc", &["(brpc): refused"]);
    shut(2, Service::Brpc, silent).warns("host-reach-brpc", &["from host h2"]);
    let unknown = shut(2, Service::Rpc, Fact::unknown("no way to run anything there"));
    unknown.finds(scale_out(&[NEW]), Severity::Info, "host-untold", &["from host h2", "no way to run"]);

    let mut scene = Scene::new();
    scene.reach.clear();
    scene.cluster.inventory.hosts.get_mut(&host(3)).unwrap().brpc_address = None;
    let words =
        ["which members it reaches was not tried", "which members reach it", "brpc address of node 3"];
    scene.finds(scale_out(&[NEW]), Severity::Info, "host-untold", &words);
}

#[test]
fn what_could_not_be_told_is_told_once() {
    let mut scene = Scene::new();
    let machine = scene.machine(NEW);
    machine.limits.max_map_count = Fact::unknown("the host did not say");
    machine.clock = Fact::unknown("no clock to compare with was given");
    let words = ["h6", "vm.max_map_count: the host did not say", "clock: no clock"];
    scene.finds(scale_out(&[NEW]), Severity::Info, "host-untold", &words);
    scene.cluster.host_mut(NEW).machine = None;
    scene.finds(scale_out(&[NEW]), Severity::Info, "host-untold", &["its machine was not looked at"]);
}
