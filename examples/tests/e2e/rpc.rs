//! Over the admin RPC: without a kwbase anywhere, with certificates that are not taken, and when something happens in the
//! middle.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;

use crate::support::{Case, Running, TestLab};

const SPEED: u32 = 10;
const RANGES: &[&str] = &["--ranges", "40"];
const SECURE: &[&str] = &["--ranges", "40", "--secure"];

/// Node 5 left, and nothing else changed.
fn scaled_in(lab: &TestLab<'_>) {
    let status = lab.status();
    assert_eq!((status.members(), status.class(5)), (vec![1, 2, 3, 4], "removed"));
    assert!(status.good());
}

/// Begins to scale node 5 in at the servers' own pace, and comes back when replicas move.
fn begin(case: &Case, lab: &TestLab<'_>) -> Running {
    let plan = lab.plan(&["--pace", "server", "scale-in", "5"]);
    let mut running = lab.start(&["apply", &plan, "--yes"]);
    case.until("replicas move", 60, || {
        assert!(running.runs(), "it ended too early:\n{}", running.stderr());
        running.stderr().contains("replicas left")
    });
    assert!(running.stderr().contains("by the admin RPC"), "{}", running.stderr());
    running
}

/// Everything that a scale-in has, where no host has a kwbase that can be run: the nodes are asked, and nobody else. At
/// the servers' own pace with stops on the way, and at full speed on a secure cluster: the same end.
pub(crate) fn scale_in_without_kwbase(case: &Case) {
    let ends = std::thread::scope(|scope| {
        let labs = [false, true].map(|quick| {
            scope.spawn(move || {
                let lab = case.lab(5, SPEED, if quick { SECURE } else { RANGES });
                without_kwbase(&lab);
                if quick {
                    at_full_speed(&lab)
                } else {
                    stopped_on_the_way(case, &lab)
                }
                scaled_in(&lab);
                let status = lab.status();
                let replicas = |id| status.node(id).unwrap()["replicas"].as_u64().unwrap();
                (
                    status.members(),
                    (1..=5).map(replicas).sum::<u64>(),
                    replicas(5),
                    status.0["ranges"].clone(),
                )
            })
        });
        labs.map(|lab| lab.join().unwrap_or_else(|why| std::panic::resume_unwind(why)))
    });
    assert_eq!(ends[0], ends[1]);
}

/// Programs that are not there, and some that cannot be run.
fn without_kwbase(lab: &TestLab<'_>) {
    let program = lab.inside("not-executable");
    fs::write(&program, "#!/bin/sh\necho 'KaiwuDB Version:  V3.2.1'\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).unwrap();
    let programs =
        [format!("program = \"{}\"", program.display()), "program = \"/nonexistent/kwbase\"".to_owned()];
    let mut programs = programs.iter().cycle();
    lab.rewrite(|text| {
        let mut program = |line: &str| line.starts_with("program = ").then(|| programs.next().cloned())?;
        let lines: Vec<_> =
            text.lines().map(|line| program(line).unwrap_or_else(|| line.to_owned())).collect();
        lines.join("\n") + "\n"
    });
}

fn stopped_on_the_way(case: &Case, lab: &TestLab<'_>) {
    lab.control("command-line");
    lab.kwscale(&["plan", "scale-in", "5"]).exit(3).says(&["can run kwbase node decommission", "cure"]);
    lab.control("auto");
    let planned = lab.kwscale(&["plan", "--format", "json", "scale-in", "5"]).exit(0).json();
    let findings = planned["findings"].as_array().unwrap();
    let means = findings.iter().find(|f| f["check"] == "means").unwrap()["message"].as_str().unwrap();
    assert!(means.contains("by the admin RPC (node 1 at ") && means.ends_with("takes it)"), "{means}");
    lab.control("rpc");
    let running = begin(case, lab);
    running.signal(Signal::INT);
    running.end(case).exit(4);
    assert!(lab.status().marked(5));
    lab.kwscale(&["recommission", "5"]).exit(0).says(&["recommissioned: 5"]);
    assert!(!lab.status().marked(5));
    let running = begin(case, lab);
    running.signal(Signal::KILL);
    running.end(case);
    lab.kwscale(&["resume", "--yes"]).exit(0).says(&["by the admin RPC", "node 5 is removed"]);
}

fn at_full_speed(lab: &TestLab<'_>) {
    lab.control("rpc");
    // A file that knows of no host at all: nodes have ids.
    lab.rewrite(|text| text[..text.find("[[host]]").unwrap()].to_owned());
    let plan = lab.path("in.json");
    lab.kwscale(&["plan", "--pace", "full", "-o", &plan, "scale-in", "5"]).exit(0).says(&[
        "by the admin RPC (control = \"rpc\" of the cluster's file; node 1 at",
        "asking servers from the start to look at these ranges",
    ]);
    lab.kwscale(&["apply", &plan, "--yes"]).exit(0).says(&[
        "by the admin RPC",
        "times a server was asked to look at a range",
        "node 5 is removed",
    ]);
}

/// The command must be refused with one line that holds the words.
fn refused(lab: &TestLab<'_>, file: &str, command: &[&str], words: &[&str]) {
    let out = lab.with(file, command).exit(3).says(words);
    assert_eq!(out.stderr.lines().count(), 1, "one clear message: {}", out.stderr);
}

/// Certificates with which SQL can be asked and the admin RPC cannot; then what both refuse, at the same port.
pub(crate) fn certificates(case: &Case) {
    let lab = case.lab(4, SPEED, &["--secure"]);
    let (certs, theirs, mixed) = (lab.inside("certs"), lab.inside("theirs"), lab.inside("mixed"));
    kwdb_scale_sim::certs::create(&theirs, &["127.0.0.1"], &["root"]).unwrap();
    kwdb_scale_sim::certs::create_client(&certs, "alice").unwrap();
    lab.sql(&["CREATE USER alice", "GRANT admin TO alice"]);
    lab.control("rpc");
    let plan = lab.plan(&["scale-in", "4"]);
    let commands = [&["plan", "scale-in", "4"][..], &["apply", &plan, "--yes"]];
    // SQL as alice, whose certificate is good.
    fs::create_dir_all(&mixed).unwrap();
    for name in ["ca.crt", "client.alice.crt", "client.alice.key"] {
        fs::copy(certs.join(name), mixed.join(name)).unwrap();
    }
    let as_alice = |control: &str| {
        lab.edited(&format!("{control}.toml"), |text| {
            let text = text.replacen("certs = \"certs\"", "certs = \"mixed\"", 1);
            let text = text.replacen("control = \"rpc\"", &format!("control = \"{control}\""), 1);
            text.replacen("user = \"root\"", "user = \"alice\"", 1)
        })
    };
    for (from, name, words) in [
        (&theirs, "root", "the node refused the client certificate"),
        (&certs, "alice", "give that of root or node"),
    ] {
        for file in ["crt", "key"] {
            let to = mixed.join(format!("client.root.{file}"));
            let _ = fs::remove_file(&to);
            fs::copy(from.join(format!("client.{name}.{file}")), to).unwrap();
        }
        let file = as_alice("rpc");
        for command in commands {
            refused(&lab, &file, command, &["which control = \"rpc\" demands, cannot be had", words]);
        }
        lab.with(&as_alice("auto"), &["plan", "scale-in", "4"]).exit(3).says(&[
            "the admin RPC cannot be had: ",
            words,
            "the very certificate that a member refused",
        ]);
    }
    let edits: [(_, _, &dyn Fn(String) -> String); 3] = [
        ("ca.toml", "not signed by the given CA", &|t| {
            t.replacen("certs = \"certs\"", "certs = \"theirs\"", 1)
        }),
        ("name.toml", "for another name", &|t| {
            t.replacen("[sql]", "[sql]\nserver_name = \"kw9.example\"", 1)
        }),
        ("plaintext.toml", "secure", &|t| {
            t.replacen("secure = true", "secure = false", 1).replacen("certs = \"certs\"\n", "", 1)
        }),
    ];
    for (name, words, edit) in edits {
        let file = lab.edited(name, edit);
        for command in commands {
            refused(&lab, &file, command, &[words]);
        }
    }
    assert!(!lab.status().marked(4));
}

/// Somebody else takes the mark back, which is noticed and told of, and nothing is stopped. Then the member dies through
/// which everything is asked: another one is, and the node is stopped when all are back.
pub(crate) fn in_the_middle(case: &Case) {
    let lab = case.lab(5, SPEED, RANGES);
    lab.control("rpc");
    // TLS to a node without it.
    kwdb_scale_sim::certs::create(&lab.inside("theirs"), &["127.0.0.1"], &["root"]).unwrap();
    let tls =
        lab.edited("tls.toml", |t| t.replacen("secure = false", "secure = true\ncerts = \"theirs\"", 1));
    refused(&lab, &tls, &["plan", "scale-in", "5"], &["TLS"]);

    let running = begin(case, &lab);
    let address = lab.status().node(1).unwrap()["address"].as_str().unwrap().to_owned();
    let host = format!("--host={address}");
    case.run(&lab.kwbase(), &["node", "recommission", "5", "--insecure", &host]).exit(0);
    let out = running.end(case).exit(5).says(&["node 5 was recommissioned by someone else"]);
    assert!(!out.stdout.contains("the stop of node 5 was begun"), "{}", out.stdout);
    let status = lab.status();
    assert_eq!((status.class(5), status.marked(5)), ("member", false));

    let mut running = begin(case, &lab);
    lab.lab("kill", &["n1"]);
    case.until("the gate is closed", 240, || {
        assert!(running.runs(), "it ended too early:\n{}", running.stderr());
        running.stderr().contains("fit for the next act: node 1 is down")
    });
    assert_ne!(lab.status().class(5), "removed");
    lab.lab("restart", &["n1"]);
    running.end(case).exit(0).says(&["node 5 is removed"]);
    scaled_in(&lab);
}
