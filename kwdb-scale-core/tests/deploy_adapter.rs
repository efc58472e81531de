//! [`DeployScript`] against a mocked transport: a host of the script's is looked at by one command, and what that tells of the
//! installation is handed on.

// Helpers of tests may panic like the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::Arc;

use kwdb_scale_core::deploy::{DeployHost, DeployScript};
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::kwbase::{Kwbase, KwbaseHost, Security};
use kwdb_scale_core::ports::{
    CommandEnd, CommandOutput, HostFacts, MockHostTransport, NodeLifecycle, PortError, PortErrorKind,
    PortState, StoreContent,
};
use kwdb_scale_core::topology::Address;

const PROBE: &str = "Kuser ops|Sabsent|Kversion-state 0|Kversion KaiwuDB Version:  V3.2.1|T|E|Kclock 5.2|Z0|";
const LOOK: &str = "XS+|XD-|XI+|XL/k/kwbase start --certs-dir=/etc/kaiwudb/certs --store=/var/lib/kaiwudb|\
                    XN{ argv[]=/k/kwbase start --certs-dir=/etc/kaiwudb/certs --store=/var/lib/kaiwudb ; }|XW+|XMbare\nmulti-replication\n/usr/local/kaiwudb\n/var/lib/kaiwudb\n26257\n8080\nkaiwudb\ntls\nfalse\n\
                    10.0.0.4|XP0|XA- ca.crt\n2|XC|XK-|XT+|XH+|XE|";

/// What one look at the host tells. The mock takes one command, and nothing else.
async fn inspect(security: Security, answer: Result<String, PortError>) -> Result<HostFacts, PortError> {
    let mut mock = MockHostTransport::new();
    let archive = if security == Security::Insecure { "" } else { "/opt/k" };
    mock.expect_run()
        .withf(move |host, command| {
            let argv: Vec<&str> = command.argv.iter().map(String::as_str).collect();
            // Its script holds both; the arguments of the look come first.
            host.as_str() == "n4"
                && argv[..2] == ["sh", "-c"]
                && ["deploy.sh", "Kclock", "archive()"].iter().all(|word| argv[2].contains(word))
                && argv[3..12]
                    == [
                        "sh",
                        "/opt/k",
                        archive,
                        "",
                        "docker podman",
                        "kaiwudb-container",
                        "kaiwudb",
                        "sh",
                        "-c",
                    ]
                && argv.last() == Some(&"/var/lib/kaiwudb")
        })
        .times(1)
        .return_once(move |_, _| {
            let stdout = answer?.replace('|', "\0");
            Ok(CommandOutput { end: CommandEnd::Exit(0), stdout, stderr: String::new(), truncated: false })
        });
    // Only where the table of sockets was not told.
    mock.expect_probe().returning(|_, _, _| Ok(PortState::NoAnswer));
    let host =
        KwbaseHost { listen_addr: Some(Address::new("10.0.0.4:26257")), ..KwbaseHost::new("n4", security) };
    let kwbase = Kwbase::new(Arc::new(mock), [host]).unwrap();
    DeployScript::new(kwbase, [DeployHost::new("n4", "/opt/k")]).unwrap().inspect(&"n4".into()).await
}

fn certs() -> Security {
    Security::Certs { certs_dir: "/etc/kaiwudb/certs".into() }
}

#[tokio::test]
async fn a_host_of_the_script_is_looked_at_by_one_command() {
    let facts = inspect(certs(), Ok(format!("Kclock 5.1|{LOOK}{PROBE}"))).await.unwrap();
    // What the probe tells of every host,
    assert_eq!(facts.build, Fact::Known("V3.2.1".into()));
    assert_eq!(facts.stores[0].content, Fact::Known(StoreContent::Absent));
    assert_eq!(facts.machine.unwrap().user, Fact::Known("ops".into()));
    assert!(facts.archive_only && facts.by_service);
    // and what the script needs.
    let script = facts.script.unwrap().known().unwrap().clone();
    assert_eq!(script.address.as_deref(), Some("10.0.0.4"));
    assert!(script.unusable.len() == 1 && script.unusable[0].contains("/opt/k/deploy.sh"), "{script:?}");
    assert_eq!((script.unfit, script.archive), (vec![], Some(true)));
    assert!(script.archive_fault.unwrap().contains("/opt/k/kaiwudb_certs.tar.gz is no archive"));

    // There the script needs none, and it is not looked for.
    let look = LOOK.replace("XA- ca.crt\n2|XC|", "");
    let facts = inspect(Security::Insecure, Ok(format!("Kclock 5.1|{look}{PROBE}"))).await.unwrap();
    let script = facts.script.unwrap().known().unwrap().clone();
    assert!(script.unfit[0].contains("installed secure"), "{script:?}");
    assert_eq!((script.archive, script.archive_fault, script.archive_authority), (None, None, None));
}

#[tokio::test]
async fn an_installation_that_was_not_told_is_unknown() {
    for (answer, words) in [
        (Ok(format!("Kclock 5.1|XS+|XD+|{PROBE}")), "look at the installation was cut off"),
        (Ok(format!("Kclock 5.1|{LOOK}Kuser ops|")), "the answer of the host was cut off"),
        (Err(PortError::new(PortErrorKind::CommandFailed, "no sh")), "no sh"),
    ] {
        let script = inspect(certs(), answer).await.unwrap().script.unwrap();
        assert!(script.why_unknown().unwrap().contains(words), "{words}: {script:?}");
    }
    let gone = inspect(certs(), Err(PortError::new(PortErrorKind::Unreachable, "no route"))).await;
    assert_eq!(gone.unwrap_err().kind(), PortErrorKind::Unreachable);
}
