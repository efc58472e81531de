//! Over the admin RPC, without a kwbase command.

use std::fs;

use crate::support::{Case, TestLab};

const SPEED: u32 = 10;

/// A second file for the same cluster, with another `control`.
fn file(lab: &TestLab<'_>, control: &str) -> String {
    let text = fs::read_to_string(lab.cluster_file()).unwrap();
    let changed = text.replacen("[cluster]\n", &format!("[cluster]\ncontrol = \"{control}\"\n"), 1);
    assert_ne!(text, changed, "{text}");
    let path = lab.inside(&format!("{control}.toml"));
    fs::write(&path, changed).unwrap();
    path.display().to_string()
}

/// In, at full speed and at the servers' own pace.
pub(crate) fn scale_in(case: &Case) {
    for more in [&["--ranges", "40"][..], &["--ranges", "40", "--secure"]] {
        let lab = case.lab(5, SPEED, more);
        let rpc = file(&lab, "rpc");
        let plan = lab.inside("in.json").display().to_string();
        lab.with(&rpc, &["plan", "--pace", "full", "-o", &plan, "scale-in", "5"])
            .exit(0)
            .says(&["asking servers to look at these ranges from the start"]);
        let applied = lab.with(&rpc, &["apply", &plan, "--yes"]).exit(0);
        applied.says(&[
            "by the admin RPC",
            "times a server was asked to look at a range",
            "node 5 is removed",
        ]);
        let status = lab.status();
        assert_eq!((status.members(), status.class(5)), (vec![1, 2, 3, 4], "removed"));
        assert!(status.good());
    }
}
