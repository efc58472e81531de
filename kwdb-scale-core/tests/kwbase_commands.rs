//! Every command line of the KWDB page, as argv and text, and what cannot be built.

// Helpers of tests may panic like the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use kwdb_scale_core::kwbase::{
    CommandError, CommandLine, KwbaseHost, Security, StatusOptions, StoreSpec, Wait,
};
use kwdb_scale_core::topology::{Address, HostName, NodeId, StartMode};
use kwdb_scale_core::version::Version;
use std::time::Duration;

fn secure() -> KwbaseHost {
    let mut host = KwbaseHost::new("n4", Security::Certs { certs_dir: "/etc/kaiwudb/certs".into() });
    host.listen_addr = Some("10.0.0.4:26257".into());
    host.http_addr = Some("10.0.0.4:8080".into());
    host
}

fn insecure() -> KwbaseHost {
    KwbaseHost { security: Security::Insecure, ..secure() }
}

fn seeds() -> Vec<Address> {
    ["10.0.0.1:26257", "10.0.0.2:26257", "10.0.0.4:26257", "10.0.0.2:26257"].map(Address::from).to_vec()
}

fn snapshot(lines: &[CommandLine]) -> String {
    let one = |l: &CommandLine| format!("{}\n  {}\n  {:?}\n", l.name(), l.text(), l.argv());
    lines.iter().map(one).collect()
}

#[test]
fn commands_of_the_page() {
    let gateway = Address::new("10.0.0.1:26257");
    let leaving = Address::new("10.0.0.4:26257");
    let mut lines = Vec::new();
    for host in [secure(), insecure()] {
        for mode in [StartMode::MultiReplica, StartMode::SingleReplica] {
            lines.push(host.start(&mode, &seeds(), None).unwrap());
        }
        lines.push(host.node_status(&gateway, StatusOptions::default()).unwrap());
        lines.push(host.node_decommission(&gateway, &[NodeId(4)], Wait::None).unwrap());
        let with_bits = StatusOptions { decommission: true, ..StatusOptions::default() };
        lines.push(host.node_status(&gateway, with_bits).unwrap());
        lines.push(host.quit(&leaving, None).unwrap());
    }
    insta::assert_snapshot!(snapshot(&lines));
}

#[test]
fn commands_beside_the_page() {
    let host = insecure();
    let gateway = Address::new("10.0.0.1:26257");
    let all =
        StatusOptions { ranges: true, stats: true, decommission: true, all: true, node: Some(NodeId(2)) };
    let lines = [
        host.version(),
        host.node_status(&gateway, all).unwrap(),
        host.node_ls(&gateway).unwrap(),
        host.node_decommission(&gateway, &[5, 4, 5].map(NodeId), Wait::All).unwrap(),
        host.node_recommission(&gateway, &[NodeId(4)]).unwrap(),
        host.node_drain(&gateway, Some(Duration::from_secs(45))).unwrap(),
        host.quit(&gateway, Some(Duration::ZERO)).unwrap(),
        host.init(&gateway).unwrap(),
    ];
    insta::assert_snapshot!(snapshot(&lines));
}

#[test]
fn a_start_with_everything() {
    let text = r#"{
        "name": "box", "program": "/kaiwudb/bin/kwbase", "exec_prefix": ["docker", "exec", "-i", "kw"],
        "security": {"certs": {"certs_dir": "/kaiwudb/certs"}},
        "stores": ["/data/a", {"path": "/data/b c", "attrs": ["ssd", "fast"], "size": "20%"}, "/data/d=e"],
        "listen_addr": ":26257", "advertise_addr": "kw4.example:26257", "sql_addr": ":26300",
        "advertise_sql_addr": "kw4.example", "http_addr": ":8080", "brpc_addr": ":27300",
        "locality": "region=east,zone=a", "attrs": ["x16c", "gpu"], "cache": "25%", "max_sql_memory": "1GiB",
        "max_offset": "500ms", "ts_store": ["/ts"], "use_raft_store": true, "pid_file": "/run/kw.pid",
        "extra_flags": ["--cluster-name=c", "--buffer-pool-size=4096"], "env": {"GODEBUG": "madvdontneed=1"},
        "output_file": "/var/log/kw.start.log"
    }"#;
    let host: KwbaseHost = serde_json::from_str(text).unwrap();
    host.validate().unwrap();
    assert_eq!(host.rpc_address(), Some(Address::new("kw4.example:26257")));
    assert_eq!(host.sql_address(), Some(Address::new("kw4.example:26300")));
    assert_eq!(host.data_directories(), ["/data/a", "/data/b c", "/data/d=e", "/ts"]);
    let line = host.start(&StartMode::MultiReplica, &seeds(), None).unwrap();
    insta::assert_snapshot!(snapshot(&[line]));
    let again: KwbaseHost = serde_json::from_str(&serde_json::to_string(&host).unwrap()).unwrap();
    assert_eq!(again, host);
}

#[test]
fn defaults_are_the_page_s() {
    let host: KwbaseHost = serde_json::from_str(r#"{"name": "n1", "security": "insecure"}"#).unwrap();
    assert_eq!(host, KwbaseHost::new("n1", Security::Insecure));
    host.validate().unwrap();
    assert_eq!(host.program, "/usr/local/kaiwudb/bin/kwbase");
    assert_eq!(host.stores, [StoreSpec::new("/var/lib/kaiwudb")]);
    assert_eq!(host.start_output(), "/var/lib/kaiwudb.start.log");
    assert!(host.background && !host.secure());
    let listening = host.listening_addresses();
    assert_eq!(listening, ["127.0.0.1:26257", "127.0.0.1:8080", "127.0.0.1:27257"].map(Address::from));
    assert_eq!((host.rpc_address(), host.sql_address()), (None, None));
}

#[test]
fn brpc_addr_by_release() {
    let flag = |version: Option<Version>| {
        let line = insecure().start(&StartMode::MultiReplica, &seeds(), version).unwrap();
        line.argv().iter().find(|a| a.starts_with("--brpc-addr")).cloned()
    };
    assert_eq!(flag(Some(Version::new(2, 2, 2))), None);
    assert_eq!(flag(Some(Version::new(3, 0, 0))).as_deref(), Some("--brpc-addr=:27257"));
    assert_eq!(flag(None).as_deref(), Some("--brpc-addr=:27257"));
}

#[test]
fn what_would_mean_something_else_cannot_be_built() {
    let host = insecure();
    let gateway = Address::new("10.0.0.1:26257");
    let start = |mode: StartMode, join: &[&str]| {
        let join: Vec<Address> = join.iter().copied().map(Address::from).collect();
        host.start(&mode, &join, None).unwrap_err()
    };
    let no_join = CommandError::NoJoin { host: HostName::new("n4") };
    assert_eq!(start(StartMode::MultiReplica, &[]), no_join);
    // Its own address, with and without the default port.
    assert_eq!(start(StartMode::MultiReplica, &["10.0.0.4:26257", "10.0.0.4"]), no_join);
    assert!(matches!(
        start(StartMode::MultiReplica, &["a:1,b:2"]),
        CommandError::Address { what: "--join", .. }
    ));
    assert_eq!(start(StartMode::SingleNode, &["a:1"]), CommandError::StartMode(StartMode::SingleNode));
    let odd = StartMode::Unknown("start-x".into());
    assert_eq!(start(odd.clone(), &["a:1"]), CommandError::StartMode(odd));

    assert_eq!(host.node_decommission(&gateway, &[], Wait::None), Err(CommandError::NoNodes("decommission")));
    assert_eq!(host.node_recommission(&gateway, &[]), Err(CommandError::NoNodes("recommission")));
    for address in ["", ":26257", "a b:1", "a:x", "-a:1", "::1"] {
        let error = host.quit(&Address::new(address), None).unwrap_err();
        assert!(matches!(error, CommandError::Address { what: "--host", .. }), "{address}: {error}");
    }
    assert!(host.quit(&Address::new("[::1]:26257"), None).is_ok());
}

#[test]
fn descriptions_that_make_no_sense_name_field_reason_and_cure() {
    type Spoil = fn(&mut KwbaseHost);
    let cases: [(&str, Spoil); 24] = [
        ("name: is empty", |h| h.name = "".into()),
        ("program: is empty", |h| h.program.clear()),
        ("program: starts with '-'", |h| h.program = "--x".into()),
        ("exec_prefix: is empty", |h| h.exec_prefix = vec!["docker".into(), String::new()]),
        ("exec_prefix: asks for a terminal", |h| {
            h.exec_prefix = ["docker", "exec", "-it", "kw"].map(String::from).to_vec();
        }),
        ("output_file: has no default with exec_prefix", |h| h.exec_prefix = vec!["sudo".into()]),
        ("security.certs.certs_dir: 'certs' is not an absolute path", |h| {
            h.security = Security::Certs { certs_dir: "certs".into() };
        }),
        ("stores: is empty", |h| h.stores.clear()),
        ("stores.path: 'data' is not an absolute path", |h| h.stores = vec![StoreSpec::new("data")]),
        ("stores.path: '/a,b' holds a comma", |h| h.stores = vec![StoreSpec::new("/a,b")]),
        ("stores.path: is the root directory", |h| h.stores = vec![StoreSpec::new("//")]),
        ("stores.path: '/a/../b' holds ..", |h| h.stores = vec![StoreSpec::new("/a/../b")]),
        ("stores: '/var/lib/kaiwudb' is named twice", |h| h.ts_store = vec!["/var/lib/kaiwudb".into()]),
        ("stores.attrs: 'a:b' holds", |h| h.stores[0].attrs = vec!["a:b".into()]),
        ("listen_addr: 'h:port' has no port number", |h| h.listen_addr = Some("h:port".into())),
        ("http_addr: '::1' has several colons", |h| h.http_addr = Some("::1".into())),
        ("brpc_addr: has no port", |h| h.brpc_addr = Some("10.0.0.4".into())),
        ("cache: is empty", |h| h.cache = Some(String::new())),
        ("pid_file: holds a control character", |h| h.pid_file = Some("/run/\u{1b}[2J".into())),
        ("extra_flags 'verbose': does not start with --", |h| h.extra_flags = vec!["verbose".into()]),
        ("extra_flags '--join': is set by this library", |h| h.extra_flags = vec!["--join=a:1".into()]),
        ("extra_flags '--import-password': would show a secret", |h| {
            h.extra_flags = vec!["--import-password=x".into()];
        }),
        ("env 'KWBASE_HOST': is set by this library", |h| {
            h.env.insert("KWBASE_HOST".into(), "x".into());
        }),
        ("output_file: lies in a store", |h| h.output_file = Some("/var/lib/kaiwudb/start.log".into())),
    ];
    for (expected, spoil) in cases {
        let mut host = insecure();
        spoil(&mut host);
        let error = host.validate().unwrap_err().to_string();
        assert!(error.contains(expected), "{error} lacks {expected}");
        assert!(error.starts_with("host ") && error.contains("; "), "{error}");
    }
}

#[test]
fn forbidden_flags_are_those_that_have_a_field() {
    for flag in ["host", "insecure", "certs-dir", "store", "join", "background", "brpc-addr", "url", "format"]
    {
        let mut host = insecure();
        host.extra_flags = vec![format!("--{flag}")];
        assert!(host.validate().is_err(), "{flag}");
    }
}

#[test]
fn environment_goes_with_the_command() {
    let mut host = insecure();
    host.env.insert("KWBASE_SCAN_INTERVAL".into(), "5m".into());
    let plain = host.version().command(Duration::from_secs(1));
    assert_eq!(plain.env.get("KWBASE_SCAN_INTERVAL").map(String::as_str), Some("5m"));
    assert_eq!((plain.deadline, plain.stdin), (Duration::from_secs(1), None));
    host.exec_prefix = ["docker", "exec", "-i", "kw"].map(String::from).to_vec();
    let inside = host.version().command(Duration::from_secs(1));
    assert!(inside.env.is_empty());
    assert_eq!(inside.argv[..6], ["docker", "exec", "-i", "kw", "env", "KWBASE_SCAN_INTERVAL=5m"]);
}
