//! Wrong usage, and files that are missing or malformed: exit code 2, one clear message.

use std::fs;

use crate::support::Case;

pub(crate) fn usage(case: &Case) {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    case.kwscale(&["--help"]).exit(0).says(&["scale", "exit codes", "resume"]);
    case.kwscale(&[]).exit(2);
    case.kwscale(&["plan"]).exit(2);
    case.kwscale(&["frobnicate"]).exit(2);
    case.kwscale(&["--cluster", &path("none.toml"), "status"]).exit(2).says(&["none.toml", "--cluster"]);
    fs::write(path("bad.toml"), "[cluster]\nsecure = false\nseeds = [\"127.0.0.1:1\"]\nsedes = 1\n").unwrap();
    case.kwscale(&["--cluster", &path("bad.toml"), "status"]).exit(2).says(&["line 4", "sedes"]);

    // Plans that are none.
    fs::write(path("c.toml"), "[cluster]\nsecure = false\nseeds = [\"127.0.0.1:1\"]\n").unwrap();
    let cluster = path("c.toml");
    case.kwscale(&["show", &path("none.json")]).exit(2).says(&["none.json"]);
    fs::write(path("x.json"), "{}").unwrap();
    case.kwscale(&["--cluster", &cluster, "apply", &path("x.json"), "--yes"])
        .exit(2)
        .says(&["x.json", "not a plan"]);
    fs::write(path("y.json"), "{\"schema\": \"kwdb-scale.plan/v9\"}").unwrap();
    case.kwscale(&["--cluster", &cluster, "show", &path("y.json")]).exit(2).says(&["v9"]);

    // Options that would do nothing: told before anybody is asked.
    for command in ["plan", "check"] {
        case.kwscale(&["--cluster", &cluster, command, "scale-in", "n4", "--certificates", "issue"])
            .exit(2)
            .says(&["--certificates means nothing for a scale-in", "no host joins"]);
    }
    case.kwscale(&["--cluster", &cluster, "plan", "scale-in", "n4", "--wipe-old-data"])
        .exit(2)
        .says(&["--wipe-old-data means nothing for a scale-in"]);
    case.kwscale(&["--cluster", &cluster, "plan", "scale-out", "n4", "--drain", "--batch", "1"])
        .exit(2)
        .says(&["--drain and --batch mean nothing for a scale-out", "no node leaves"]);
    case.kwscale(&["plan", "scale-in", "n4", "--batch", "0"]).exit(2).says(&["--batch", "a number of nodes"]);

    // Nothing to resume.
    case.kwscale(&["--cluster", &cluster, "resume", "--yes"]).exit(2).says(&["no operation to resume"]);

    let (none, dir) = (path("no-kwbase"), path("bench"));
    case.kwscale(&["bench", "scale-in", "--kwbase", &none, "--dir", &dir])
        .exit(2)
        .says(&["no-kwbase", "no such program"]);

    // Labs.
    case.kwscale(&["lab", "down", "--dir", &path("no-lab")]).exit(2).says(&["no lab"]);
    case.kwscale(&["lab", "up", "--dir", &home.path().display().to_string(), "--nodes", "3"])
        .exit(2)
        .says(&["not empty"]);
    case.kwscale(&["lab", "up", "--dir", &path("l"), "--nodes", "3", "--kwbase", &path("no-kwbase")])
        .exit(2)
        .says(&["no-kwbase"]);

    // At once, not after a wait for what cannot come.
    let begun = std::time::Instant::now();
    let other = case.kwscale(&["lab", "up", "--dir", &path("l"), "--nodes", "3", "--kwbase", "/bin/true"]);
    other.exit(2).says(&["/true is no kwbase"]);
    case.kwscale(&["lab", "up", "--dir", &path("l"), "--nodes", "2"]).exit(2).says(&["2 nodes", "3 or more"]);
    assert!(begun.elapsed().as_secs() < 30 && !std::path::Path::new(&path("l")).exists());

    // A file that was made by a lab, and what a lab refuses.
    let lab = case.lab(3, 40, &[]);
    case.kwscale(&["lab", "kill", "--dir", &lab.inside("").display().to_string(), "n9"])
        .exit(2)
        .says(&["n9"]);
    case.kwscale(&["lab", "restart", "--dir", &lab.inside("").display().to_string(), "n1"])
        .exit(2)
        .says(&["runs"]);
    lab.lab("add", &[]);
    let plan = lab.plan(&["scale-out", "n4"]);
    // Nobody is there to ask.
    lab.kwscale(&["apply", &plan]).exit(2).says(&["--yes"]);
    // A plan that was edited by hand.
    let text =
        fs::read_to_string(&plan).unwrap().replace("\"await_balance\":true", "\"await_balance\":false");
    fs::write(path("edited.json"), text).unwrap();
    lab.kwscale(&["apply", &path("edited.json"), "--yes"]).exit(2).says(&["changed"]);
    // One that was edited with care, so that it stops nothing but proves nothing either.
    let mut careful: kwdb_scale_core::plan::Plan =
        serde_json::from_str(&fs::read_to_string(&plan).unwrap()).unwrap();
    careful.steps.pop();
    careful.id = careful.content_id().unwrap();
    fs::write(path("careful.json"), careful.to_json().unwrap()).unwrap();
    lab.kwscale(&["apply", &path("careful.json"), "--yes"]).exit(3).says(&["breaks rules", "verify"]);
    lab.kwscale(&["observe", "-o", &path("obs.json")]).exit(0);
    let observation: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path("obs.json")).unwrap()).unwrap();
    assert_eq!(observation["schema"], "kwdb-scale.observation/v1");
    lab.kwscale(&["observe", "-o", "/nonexistent/obs.json"]).exit(2).says(&["/nonexistent/obs.json"]);
    assert_eq!(lab.status().members(), [1, 2, 3]);
}
