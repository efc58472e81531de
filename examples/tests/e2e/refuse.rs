//! Everything that is refused, each with its reason and cure.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::Case;

const SPEED: u32 = 40;

pub(crate) fn three_nodes_and_wrong_names(case: &Case) {
    let lab = case.lab(3, SPEED, &[]);
    lab.kwscale(&["plan", "scale-in", "3"]).exit(3).says(&["3", "cure"]);
    let refused = lab.kwscale(&["check", "scale-in", "3", "--format", "json"]).exit(3).json();
    let findings = refused["findings"].as_array().unwrap();
    for finding in findings.iter().filter(|f| f["severity"] == "refuse") {
        assert!(finding["message"].is_string() && finding["cure"].is_string(), "{finding}");
    }
    lab.kwscale(&["plan", "scale-in", "99"]).exit(3).says(&["99", "cure"]);
    lab.kwscale(&["plan", "scale-in", "n9"]).exit(3).says(&["n9", "cure"]);
    lab.kwscale(&["plan", "scale-out", "n9"]).exit(3).says(&["n9", "cure"]);
    lab.kwscale(&["recommission", "99"]).exit(3).says(&["99"]);
    // A host whose node is a member already: the request is true, or it is refused; never a second node.
    let out = lab.kwscale(&["plan", "scale-out", "n3"]);
    assert!(out.code == Some(3) || out.stdout.contains("nothing to do"), "{}", out.stdout);
}

pub(crate) fn a_dead_node_and_drift(case: &Case) {
    let lab = case.lab(5, SPEED, &[]);
    let plan = lab.plan(&["scale-in", "5"]);
    lab.lab("kill", &["n2"]);
    case.until("node 2 is dead", 60, || lab.status().class(2) == "dead");
    lab.kwscale(&["plan", "scale-in", "5"]).exit(3).says(&["node 2 at", "is down", "cure"]);
    lab.kwscale(&["plan", "scale-in", "2"]).exit(3).says(&["2", "cure"]);
    // The plan was made before: what differs is listed, and nothing is done.
    lab.kwscale(&["apply", &plan, "--yes"]).exit(3).says(&["node 2", "was member", "is dead"]);
    assert!(!lab.status().marked(5));
    lab.kwscale(&["resume", "--yes"]).exit(2).says(&["no operation to resume"]);
    lab.lab("restart", &["n2"]);
    // A node that dies just before: whether its silence shows before the preflight or only at the first gate, the
    // plan is refused.
    let plan = lab.plan(&["scale-in", "5"]);
    lab.lab("kill", &["n3"]);
    lab.kwscale(&["apply", &plan, "--yes"]).exit(3).says(&["node 3", "was member", "is dead"]);
    assert!(!lab.status().marked(5));
}

pub(crate) fn two_clusters_are_kept_apart(case: &Case) {
    let (one, other) = (case.lab(4, SPEED, &[]), case.lab(4, SPEED, &[]));
    // Both keep their journals in one place, as files that lie side by side do.
    let shared = one.path("journals");
    let plan = one.plan(&["scale-in", "4"]);
    other
        .kwscale(&["apply", &plan, "--yes", "--journal", &shared])
        .exit(3)
        .says(&["is for cluster", "--cluster"]);
    assert!(!one.status().marked(4) && !other.status().marked(4));
    let mut running = one.start(&["apply", &plan, "--yes", "--journal", &shared]);
    case.until("node 4 is marked", 60, || {
        assert!(running.runs(), "it ended too early:\n{}", running.stderr());
        one.status().marked(4)
    });
    running.signal(rustix::process::Signal::KILL);
    running.end(case);
    other.kwscale(&["resume", "--yes", "--journal", &shared]).exit(2).says(&["no operation to resume"]);
    other.kwscale(&["recommission", "4", "--journal", &shared]).exit(0).says(&["not marked"]);
    assert!(one.status().marked(4), "the other's operation is none of its business");
    one.kwscale(&["resume", "--yes", "--journal", &shared]).exit(0);
    assert_eq!((one.status().class(4), other.status().class(4)), ("removed", "member"));
}

pub(crate) fn what_was_left_is_not_forgotten(case: &Case) {
    const SETTING: &str = "kv.allocator.ts_consider_rebalance.enabled";
    let lab = case.lab(5, SPEED, &["--ranges", "10"]);
    let off = |lab: &crate::support::TestLab<'_>| lab.status().0["settings"][SETTING] == "false";
    let begin = |node: &str| {
        let plan = lab.plan(&["scale-in", node, "--redistribution", "off-during"]);
        let mut running = lab.start(&["apply", &plan, "--yes"]);
        case.until("the setting is off", 60, || {
            assert!(running.runs(), "it ended too early:\n{}", running.stderr());
            off(&lab)
        });
        running.signal(rustix::process::Signal::KILL);
        running.end(case);
    };
    begin("5");
    if lab.status().marked(5) {
        lab.kwscale(&["recommission", "5"]).exit(0);
        assert!(!off(&lab), "the undo puts the setting back");
        begin("5");
    }
    let other = lab.path("other.json");
    if lab.kwscale(&["plan", "scale-in", "4", "-o", &other]).code == Some(0) {
        lab.kwscale(&["apply", &other, "--yes"]).exit(3).says(&[SETTING, "resume --undo"]);
    }
    lab.kwscale(&["resume", "--undo", "--yes"]).exit(0).says(&["undone"]);
    assert!(!off(&lab) && lab.status().members() == [1, 2, 3, 4, 5]);

    // A journal that is damaged does not bar the way back.
    begin("5");
    let dir = lab.inside("kwscale-journal");
    let newest = fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "jsonl"))
        .max()
        .unwrap();
    let text = fs::read_to_string(&newest).unwrap();
    fs::write(&newest, text.replacen('{', "?", 1)).unwrap();
    lab.kwscale(&["resume", "--yes"]).exit(2).says(&["damaged", &newest.display().to_string()]);
    let out = lab.kwscale(&["recommission", "5"]).exit(0);
    assert!(out.stderr.contains("warning"), "{}", out.stderr);
    assert!(!lab.status().marked(5));
}

pub(crate) fn a_constraint_names_the_leaving_node(case: &Case) {
    let lab = case.lab(4, SPEED, &[]);
    lab.sql(&[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT, city STRING, PRIMARY KEY (city, id)) PARTITION BY LIST (city) \
         (PARTITION north VALUES IN ('a'), PARTITION south VALUES IN ('b'))",
        "ALTER PARTITION north OF TABLE shop.orders CONFIGURE ZONE USING num_replicas = 3, constraints = '[+region=NODE4]'",
    ]);
    let out = lab.kwscale(&["plan", "scale-in", "4"]).exit(3);
    out.says(&["NODE4", "north", "ALTER PARTITION", "cure"]);
    // Another node may leave.
    lab.sql(&["ALTER PARTITION north OF TABLE shop.orders CONFIGURE ZONE DISCARD"]);
    lab.kwscale(&["plan", "scale-in", "4", "--wait-healthy", "60s"]).exit(0);
}

pub(crate) fn a_host_that_is_not_fit(case: &Case) {
    let lab = case.lab(3, SPEED, &[]);
    lab.lab("add", &[]);
    // A store that was used before.
    let store = lab.inside("nodes/n4/store");
    fs::create_dir_all(&store).unwrap();
    fs::write(store.join("kwbase.start_mode"), "start").unwrap();
    lab.kwscale(&["plan", "scale-out", "n4"]).exit(3).says(&["n4", "kwbase.start_mode", "cure"]);
    fs::remove_dir_all(&store).unwrap();
    // Another release: a program that says so and is otherwise the same.
    let (kwbase, other) = (lab.kwbase(), lab.inside("other-kwbase"));
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = version ]; then '{}' \"$@\" | sed 's/V3.2.1/V3.1.0/'; else exec '{}' \"$@\"; fi\n",
        kwbase.display(),
        kwbase.display()
    );
    fs::write(&other, script).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    let with_program = |program: String| {
        lab.edited("edited.toml", |text| {
            let at = text.rfind("program = ").unwrap();
            let end = at + text[at..].find('\n').unwrap();
            format!("{}program = \"{program}\"{}", &text[..at], &text[end..])
        })
    };
    let file = with_program(other.display().to_string());
    lab.with(&file, &["plan", "scale-out", "n4"]).exit(3).says(&["n4", "V3.1.0", "cure"]);
    // No program at all.
    let file = with_program("/nonexistent/kwbase".to_owned());
    lab.with(&file, &["plan", "scale-out", "n4"]).exit(3).says(&["n4", "/nonexistent/kwbase"]);
    // Somebody else at the address.
    let address = fs::read_to_string(lab.cluster_file()).unwrap();
    let address = address.rsplit_once("listen_addr = \"").unwrap().1.split('"').next().unwrap().to_owned();
    let listener = TcpListener::bind(&address).unwrap();
    lab.kwscale(&["plan", "scale-out", "n4"]).exit(3).says(&["n4", &address]);
    drop(listener);
    // A node that has its store, though it does not listen yet: a shell under that name, which reads the file `start`.
    fs::write(lab.inside("start"), "read -r line\n").unwrap();
    let mut node = Command::new("sh")
        .arg0("kwbase")
        .args(["start".to_owned(), format!("--store={}", store.display())])
        .current_dir(lab.inside(""))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let process = node.id().to_string();
    lab.kwscale(&["plan", "scale-out", "n4"]).exit(3).says(&["n4", "runs", &process, "cure"]);
    lab.kwscale(&["hosts", "n4"]).exit(0).says(&["n4", &process, "absent"]);
    drop(node.stdin.take());
    node.wait().unwrap();
    lab.kwscale(&["plan", "scale-out", "n4"]).exit(0);

    // What each host is.
    lab.kwscale(&["hosts"]).exit(0).says(&["n1", "n4", "V3.2.1", "GiB free"]);
    let hosts = lab.kwscale(&["hosts", "n1", "n4", "--format", "json"]).exit(0).json();
    let machine = |name: &str| hosts["hosts"][name]["known"]["machine"].clone();
    assert_eq!(hosts["schema"], "kwscale.hosts/v1");
    let own = machine("n1")["processes"]["known"].as_array().unwrap().clone();
    let member = lab.inside("nodes/n1/store").display().to_string();
    assert!(own.iter().any(|p| p["stores"][0] == member.as_str()), "{own:#?}");
    assert!(machine("n4")["clock"]["known"]["uncertainty"].is_string(), "{hosts:#}");
    lab.kwscale(&["hosts", "n4", "n9"]).exit(2).says(&["n9", "n1"]);
}

pub(crate) fn who_may_not_read(case: &Case) {
    let lab = case.lab(3, SPEED, &[]);
    lab.sql(&["CREATE USER alice"]);
    let file = lab.edited("alice.toml", |t| t.replace("user = \"root\"", "user = \"alice\""));
    for command in [&["status"][..], &["plan", "scale-out", "n4"], &["observe"]] {
        let out = lab.with(&file, command).exit(3).says(&["alice", "admin"]);
        assert_eq!(out.stderr.lines().count(), 1, "one clear message: {}", out.stderr);
    }
    // Nobody listens.
    let dead = |t: String| {
        let at = t.find("seeds = ").unwrap();
        let end = at + t[at..].find('\n').unwrap();
        (t[..at].to_owned(), t[end..].to_owned())
    };
    let file = lab.edited("dead.toml", |t| {
        let (head, tail) = dead(t);
        format!("{head}seeds = [\"127.0.0.1:1\", \"127.0.0.1:2\"]{tail}")
    });
    let out = lab.with(&file, &["status"]).exit(3).says(&["127.0.0.1:1", "127.0.0.1:2", "cannot be read"]);
    assert_eq!(out.stderr.lines().count(), 1, "one clear message: {}", out.stderr);
    let error = lab.with(&file, &["status", "--format", "json"]).exit(3).json();
    assert_eq!((error["exit"].as_u64(), error["kind"].as_str()), (Some(3), Some("refused")));
    // Somebody listens and never says a word.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap();
    let file = lab.edited("mute.toml", |t| {
        let (head, tail) = dead(t);
        let tail = tail.replace(
            "[sql]",
            "[sql]\nconnect_timeout = \"1s\"\nstatement_timeout = \"2s\"\ndeadline = \"3s\"",
        );
        format!("{head}seeds = [\"{address}\"]{tail}")
    });
    let begun = Instant::now();
    lab.with(&file, &["status"]).exit(3).says(&[&address.to_string()]);
    assert!(begun.elapsed().as_secs() < 15, "it took {:?}", begun.elapsed());
}

pub(crate) fn secure_keys_and_authorities(case: &Case) {
    let lab = case.lab(3, SPEED, &["--secure"]);
    lab.kwscale(&["status"]).exit(0);
    // A CA of another cluster, with client certificates to match.
    let other = lab.inside("other-certs");
    kwdb_scale_sim::certs::create(&other, &["127.0.0.1"], &["root"]).unwrap();
    let file = lab.edited("other.toml", |t| t.replacen("certs = \"certs\"", "certs = \"other-certs\"", 1));
    let out = lab.with(&file, &["status"]).exit(3).says(&["CA"]);
    assert_eq!(out.stderr.lines().count(), 1, "one clear message: {}", out.stderr);
    // A key that is missing, and one that is none.
    let broken = lab.inside("broken-certs");
    fs::create_dir_all(&broken).unwrap();
    for name in ["ca.crt", "client.root.crt"] {
        fs::copy(lab.inside("certs").join(name), broken.join(name)).unwrap();
    }
    let file = lab.edited("broken.toml", |t| t.replacen("certs = \"certs\"", "certs = \"broken-certs\"", 1));
    for command in [&["status"][..], &["plan", "scale-in", "3"], &["recommission", "3"]] {
        let out = lab.with(&file, command).exit(2).says(&["client.root.key"]);
        assert_eq!(out.stderr.lines().count(), 1, "one clear message: {}", out.stderr);
    }
    fs::write(broken.join("client.root.key"), "no key\n").unwrap();
    lab.with(&file, &["status"]).exit(2).says(&["client.root.key"]);
    // An insecure client at a secure cluster gives no password away and is told what is the matter.
    let file = lab.edited("insecure.toml", |t| {
        t.replacen("secure = true", "secure = false", 1).replacen("certs = \"certs\"\n", "", 1)
    });
    lab.with(&file, &["status"]).exit(3).says(&["secure"]);
}

pub(crate) fn a_running_job(case: &Case) {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use kwdb_scale_sim::model::{Cluster, Config, NodeStart};
    use kwdb_scale_sim::process::{Listeners, Pace, free_addresses};

    // The model itself, with ports but without processes: jobs can be put into it.
    let addresses = free_addresses(4).unwrap();
    let mut cluster = Cluster::new(Config::default());
    for address in &addresses {
        cluster.start_node(NodeStart::new(address.clone(), addresses.clone())).unwrap();
        cluster.advance(Duration::from_secs(3));
        if *address == addresses[0] {
            cluster.init(address).unwrap();
        }
    }
    cluster.advance(Duration::from_secs(120));
    let job = cluster.add_job("SCHEMA CHANGE", "running", "CREATE INDEX ON app.kv (v)");
    let shared = Arc::new(Mutex::new(cluster));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listeners = runtime.block_on(async {
        let mut listeners = Listeners::new(Arc::clone(&shared), Pace::Times(f64::from(SPEED)));
        for address in &addresses {
            listeners.open(address).await.unwrap();
        }
        listeners
    });

    let home = tempfile::tempdir().unwrap();
    let kwbase = home.path().join("kwbase");
    fs::write(&kwbase, "#!/bin/sh\necho 'KaiwuDB Version:  V3.2.1'\n").unwrap();
    fs::set_permissions(&kwbase, fs::Permissions::from_mode(0o755)).unwrap();
    let mut text = "[cluster]\nsecure = false\n".to_owned();
    for (i, address) in addresses.iter().enumerate() {
        text.push_str(&format!(
            "[[host]]\nname = \"n{}\"\nlisten_addr = \"{address}\"\nprogram = \"{}\"\n",
            i + 1,
            kwbase.display()
        ));
    }
    let file = home.path().join("cluster.toml");
    fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let plan = ["--cluster", file.as_str(), "plan", "scale-in", "4"];
    case.kwscale(&plan).exit(3).says(&[&job.to_string(), "SCHEMA CHANGE", "cure"]);
    shared.lock().unwrap().set_job_status(job, "succeeded");
    case.kwscale(&plan).exit(0);
    drop(runtime.enter());
    drop(listeners);
}
