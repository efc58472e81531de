//! The commands of every host over SSH, through an sshd of OpenSSH that the case starts.

use std::fs;

use crate::sshd::{self, Sshd};
use crate::support::Case;

const SPEED: u32 = 40;

pub(crate) fn over_ssh(case: &Case) {
    let Some(program) = sshd::installed() else { return };
    let server = Sshd::start(&program, "");
    let lab = case.lab(4, SPEED, &["--ranges", "6"]);
    lab.lab("add", &[]);
    // Every host is this machine, each under its own name, as a person's ssh_config may have it.
    let text = format!(
        "Host n*\n  HostName 127.0.0.1\n  HostKeyAlias lab\n  Port {}\n  User {}\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
         UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n",
        server.port,
        sshd::user(),
        server.path("id").display(),
        lab.inside("known_hosts").display(),
    );
    fs::write(lab.inside("ssh_config"), text).unwrap();
    let file = lab.edited("ssh.toml", |text| {
        let text = text.replace("transport = \"local\"", "transport = \"ssh\"");
        format!("[ssh]\nconfig = \"ssh_config\"\n{text}")
    });
    let plan = lab.path("plan.json");
    let change = |args: &[&str]| {
        let mut all = vec!["plan", "-o", plan.as_str(), "--wait-healthy", "90s"];
        all.extend(args);
        lab.with(&file, &all).exit(0);
        lab.with(&file, &["apply", &plan, "--yes"]).exit(0)
    };

    // A host whose key nobody knows is not trusted, nor is one whose key is another.
    lab.with(&file, &["plan", "scale-out", "n5"]).exit(3).says(&["n5", "fingerprint", "known_hosts"]);
    sshd::key(&lab.inside(""), "other", "ed25519", "");
    let known = |key: &str| fs::write(lab.inside("known_hosts"), format!("lab {key}")).unwrap();
    known(&sshd::public(&lab.inside("other")));
    lab.with(&file, &["plan", "scale-out", "n5"]).exit(3).says(&["n5", "known_hosts"]);
    assert_eq!(lab.status().members(), [1, 2, 3, 4]);

    known(&sshd::public(&server.path("host")));
    change(&["scale-out", "n5"]).says(&["node 5 joined"]);
    assert_eq!(lab.status().members(), [1, 2, 3, 4, 5]);
    change(&["scale-in", "n5"]).says(&["node 5 is removed"]);
    let status = lab.status();
    assert_eq!((status.members(), status.class(5)), (vec![1, 2, 3, 4], "removed"));
    assert!(status.good() && server.logins() > 0);
    // A login that is not let in is told, and is no reason to think that a host is free.
    lab.with(&file, &["hosts", "n5"]).exit(0).says(&["n5", "in use", sshd::user().as_str()]);
    fs::write(server.path("authorized_keys"), "").unwrap();
    lab.with(&file, &["hosts", "n5"]).exit(3).says(&["n5", "could be looked at"]);
    fs::remove_dir_all(lab.inside("nodes/n5/store")).unwrap();
    lab.with(&file, &["plan", "scale-out", "n5"]).exit(3).says(&["n5", "cure"]);
}
