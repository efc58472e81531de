//! A machine that is fit in every respect.
#![allow(dead_code, reason = "every test takes what it needs")]

use jiff::SignedDuration;
use kwdb_scale_core::certificate::Certificate;
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::host_facts::*;
use kwdb_scale_core::owner::Owner;
use kwdb_scale_core::topology::StartMode;

/// A certificate made by `kwbase cert`, valid for a year around `now` and for `names`.
pub(crate) fn certificate(name: &str, now: jiff::Timestamp, names: &[&str]) -> Certificate {
    let path = format!("{}/tests/data/certs/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut read = Certificate::from_pem(&std::fs::read_to_string(path).unwrap()).unwrap();
    read.not_before = now - SignedDuration::from_hours(24 * 180);
    read.not_after = now + SignedDuration::from_hours(24 * 180);
    read.names = names.iter().map(|n| (*n).to_owned()).collect();
    read
}

pub(crate) fn file(name: &str, mode: u32, certificate: Option<Certificate>) -> CertificateFile {
    CertificateFile {
        name: name.into(),
        mode,
        owner: "kaiwudb".into(),
        size: 1100,
        certificate: certificate.map(Fact::Known),
        fault: None,
        key: None,
        sha256: None,
    }
}

pub(crate) fn certificates(now: jiff::Timestamp, names: &[&str]) -> CertificateDirectory {
    CertificateDirectory {
        path: "/etc/kaiwudb/certs".into(),
        fault: None,
        files: vec![
            file("ca.crt", 0o644, Some(certificate("ca.crt", now, &[]))),
            file("client.root.crt", 0o644, Some(certificate("client.root.crt", now, &[]))),
            file("client.root.key", 0o600, None),
            file("node.crt", 0o644, Some(certificate("node.crt", now, names))),
            file("node.key", 0o700, None),
        ],
    }
}

pub(crate) fn installed(data_root: &str) -> Installed {
    Installed {
        method: InstallMethod::Bare,
        start_mode: StartMode::MultiReplica,
        place: "/usr/local/kaiwudb".into(),
        data_root: data_root.into(),
        port: 26257,
        http_port: 8080,
        user: "kaiwudb".into(),
        security: "insecure".into(),
        address: "10.0.0.4".into(),
    }
}

pub(crate) fn machine(store: &str) -> Machine {
    let unlimited = Fact::Known(Limit { soft: None, hard: None });
    Machine {
        program: "/usr/local/kaiwudb/bin/kwbase".into(),
        inside: false,
        system: Fact::Known(System {
            id: Some("debian".into()),
            version: None,
            kernel: "6.1".into(),
            architecture: "x86_64".into(),
        }),
        user: Fact::Known("kaiwudb".into()),
        sudo: Fact::Known(true),
        installed: Fact::Known(Some(installed(store))),
        peers: Fact::Known(None),
        deploy_scripts: Fact::Known(vec!["/root/kaiwudb_install/deploy.sh".into()]),
        unit: Fact::Known(Some(Unit {
            active: "inactive".into(),
            enabled: "enabled".into(),
            main_pid: None,
            user: Some("kaiwudb".into()),
            starts: None,
        })),
        container: Fact::Known(None),
        owner: Owner::Quit,
        described: None,
        addresses: Fact::Known(vec![
            LocalNetwork { ip: [127, 0, 0, 0].into(), prefix: 8 },
            LocalNetwork { ip: [192, 0, 2, 6].into(), prefix: 32 },
        ]),
        binds: Vec::new(),
        ports: Fact::Known(vec![Listener { ip: [127, 0, 0, 1].into(), port: 22 }]),
        file_systems: vec![FileSystem {
            directory: store.into(),
            purpose: DirectoryUse::Store,
            space: Fact::Known(Space {
                source: "/dev/sda1".into(),
                mount: "/".into(),
                size: 1 << 40,
                free: 1 << 39,
            }),
        }],
        writable: vec![Writable { directory: store.into(), writable: Fact::Known(true), rights: None }],
        limits: Limits {
            open_files: Fact::Known(Limit { soft: Some(1024), hard: Some(1_048_576) }),
            locked_memory: unlimited,
            max_map_count: Fact::Known(10_000_000),
        },
        clock: Fact::Known(ClockOffset {
            offset: SignedDuration::from_millis(5),
            uncertainty: SignedDuration::from_millis(10),
        }),
        certificates: Fact::Known(None),
        authority_key: None,
        leftovers: Fact::Known(Vec::new()),
        processes: Fact::Known(Vec::new()),
    }
}

pub(crate) fn process(store: &str) -> NodeProcess {
    NodeProcess {
        pid: 4711,
        user: "kaiwudb".into(),
        start_mode: StartMode::MultiReplica,
        stores: vec![store.into()],
        listen_addr: Some("10.0.0.6:26257".into()),
        open_files: Fact::unknown("the host did not say"),
        locked_memory: Fact::Known(Limit { soft: None, hard: None }),
    }
}
