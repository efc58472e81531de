//! Scaling with `kwscale` on hosts of the script's.

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Output};

use crate::bench::{Bench, bench};
use crate::cases::nothing_left;

/// Waits that fit a lab; on the twin twenty times as fast as life.
const POLICY: &str = "[policy]\npoll = \"200ms\"\nsample_spacing = \"2s\"\nstall_after = \"2m\"\njoin_deadline = \"3m\"\n\
                      removed_deadline = \"1m\"\nsettled_after = \"3s\"\nstays_down = \"1s\"\nmax_clock_skew = \"8s\"\n";

/// The file of a bench: its members by the kwbase method, each further host with `keys`.
fn file(bench: &Bench, keys: impl Fn(&str) -> String) -> String {
    let info = bench.lab.info();
    let seeds: Vec<String> = info.seeds().iter().map(|s| format!("\"{s}\"")).collect();
    let mut text = format!("[cluster]\nsecure = false\nseeds = [{}]\n{POLICY}", seeds.join(", "));
    for host in &info.hosts[..3] {
        let _ = write!(
            text,
            "[[host]]\nname = \"{}\"\nprogram = \"{}\"\nlisten_addr = \"{}\"\nstores = [\"{}\"]\nhttp_addr = \"{}\"\n\
             brpc_addr = \"{}\"\n",
            host.name,
            info.kwbase.display(),
            host.address,
            host.stores[0].display(),
            host.http_address,
            host.brpc_address
        );
    }
    for (name, standin) in &bench.standins {
        let _ = write!(
            text,
            "[[host]]\nname = \"{name}\"\nprogram = \"{}\"\nlisten_addr = \"{}\"\nhttp_addr = \"{}:{}\"\n\
             brpc_addr = \"127.0.0.1:{}\"\nstores = [\"{}\"]\nenv = {{ PATH = \"{}:/usr/sbin:/usr/bin:/sbin:/bin\" }}\n{}",
            standin.at("/usr/local/kaiwudb/bin/kwbase").display(),
            bench.address(name),
            standin.address,
            standin.http_port,
            standin.brpc_port,
            standin.data_root().display(),
            standin.at("/usr/bin").display(),
            keys(name)
        );
    }
    let path = bench.tmp.path().join("cluster.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn scripted(bench: &Bench, name: &str) -> String {
    let standin = &bench.standins[name];
    format!(
        "method = \"deploy.sh\"\ninstall_dir = \"{}\"\nroot = \"{}\"\n",
        standin.install_dir.display(),
        standin.root.display()
    )
}

fn kwscale(file: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kwscale"));
    command.env_remove("KWSCALE_CLUSTER").args(["--cluster", file]).args(args);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&all).into_owned()
}

#[track_caller]
fn change(bench: &Bench, file: &str, args: &[&str]) -> Output {
    let plan = bench.tmp.path().join("plan.json");
    let plan = plan.to_str().unwrap();
    let _ = fs::remove_file(plan);
    let planned = kwscale(file, &[&["plan", "-o", plan, "--wait-healthy", "90s"], args].concat());
    assert!(planned.status.success(), "{}", said(&planned));
    kwscale(file, &["apply", plan, "--yes"])
}

pub(crate) async fn out_and_in() {
    let bench = bench(2, |_, _, _| {});
    let file = file(&bench, |name| scripted(&bench, name));
    // What the script would stumble over is told before anything is done.
    let mode = bench.file("d2", "/etc/kaiwudb/info/MODE");
    let text = fs::read_to_string(&mode).unwrap();
    fs::write(&mode, text.replace("127.0.0.1", "127.0.0.9")).unwrap();
    let refused = kwscale(&file, &["check", "scale-out", "d1", "d2"]);
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    let words = said(&refused);
    assert!(words.contains("deploy.sh join cannot add a node on host d2"), "{words}");
    assert!(words.contains("it is installed for the address 127.0.0.92:"), "{words}");
    fs::write(&mode, text).unwrap();
    // So is a unit that was edited, and the file of its flags.
    for (path, from, to, told) in [
        (
            "/etc/systemd/system/kaiwudb.service",
            "/var/lib/kaiwudb",
            "/var/lib/other",
            "lib/other, and the host",
        ),
        ("/etc/systemd/system/kaiwudb.service", "--insecure", "", "runs kwbase without --insecure"),
        ("/etc/systemd/system/kaiwudb.service", "ExecStart=", "ExecStart=/bin/sh ", "through a shell"),
        ("/etc/systemd/system/kaiwudb.service", "ExecStart=", "# ", "no line that begins with ExecStart="),
        ("/etc/kaiwudb/script/kaiwudb_env", "--cache", "--store=/other --cache", "has --store=/other, and"),
    ] {
        let path = bench.file("d2", path);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replace(from, to)).unwrap();
        let refused = kwscale(&file, &["check", "scale-out", "d2"]);
        let words = said(&refused);
        assert_eq!(refused.status.code(), Some(3), "{words}");
        assert!(words.contains("script-join") && words.contains(told), "{told}: {words}");
        fs::write(&path, text).unwrap();
    }
    let applied = change(&bench, &file, &["scale-out", "d1", "d2"]);
    assert!(applied.status.success(), "{}", said(&applied));
    let unit = fs::read_to_string(bench.file("d1", "/etc/systemd/system/kaiwudb.service")).unwrap();
    assert!(unit.contains("--join 127.0.0.1:"), "{unit}");

    let applied = change(&bench, &file, &["scale-in", "4", "5"]);
    assert!(applied.status.success(), "{}", said(&applied));
    let status = kwscale(&file, &["status", "--format", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert!(status.to_string().contains("removed"), "{status}");
    for name in ["d1", "d2"] {
        nothing_left(&bench, name);
    }
    let left = bench.processes("/d1/").into_iter().chain(bench.processes("/d2/")).collect::<Vec<_>>();
    assert_eq!(left, Vec::<String>::new(), "no process is left on the hosts");
}

/// The unit of d1 starts its process again, and nobody told kwscale of the unit.
pub(crate) async fn a_unit_that_is_started_again() {
    let bench = bench(1, |_, standin, _| standin.service = vec!["Restart=always".to_owned()]);
    bench.join("d1").await;
    let nobody = file(&bench, |_| String::new());
    let applied = change(&bench, &nobody, &["scale-in", "4"]);
    assert!(!applied.status.success(), "{}", said(&applied));
    let words = said(&applied);
    assert!(words.contains("was started again by something else"), "{words}");

    // Told of the owner, the operation goes on.
    let owned = file(&bench, |_| "owner = \"systemd\"\n".to_owned());
    let resumed = kwscale(&owned, &["resume", "--yes"]);
    assert!(resumed.status.success(), "{}", said(&resumed));
    assert_eq!(bench.processes("/d1/"), Vec::<String>::new(), "no process is left on the host");
}
