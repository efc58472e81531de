//! One look at a host is one command on a real sshd, and tells what is there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod sshd;

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::host_facts::ClockOffset;
use kwdb_scale_core::kwbase::{Kwbase, KwbaseHost, Security, StoreSpec};
use kwdb_scale_core::ports::{Clock, NodeLifecycle, PortErrorKind, PortState, StoreContent, async_trait};
use kwdb_scale_core::topology::Address;
use sshd::{Sshd, installed, n1, until, user};

/// The operator's clock, that much behind the machine's.
#[derive(Debug)]
struct Behind(SignedDuration);

#[async_trait]
impl Clock for Behind {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now() - self.0
    }

    async fn sleep_until(&self, _: jiff::Timestamp) {}
}

#[tokio::test]
async fn a_look_is_one_command() {
    let Some(program) = installed() else { return };
    // At this level sshd tells of every session.
    let sshd = Sshd::start(&program, "LogLevel VERBOSE");
    // Would be seen by a program that inherits it from the login.
    let script = "#!/bin/sh\necho \"KaiwuDB Version:  V3.2.1${KWBASE_LEFT_OVER}\"\n";
    let kwbase = sshd.path("bin/kwbase");
    std::fs::create_dir_all(kwbase.parent().unwrap()).unwrap();
    std::fs::write(&kwbase, script).unwrap();
    std::fs::set_permissions(&kwbase, std::fs::Permissions::from_mode(0o755)).unwrap();
    let certs = sshd.path("certs");
    kwdb_scale_sim::certs::create(&certs, &["127.0.0.1"], &["root"]).unwrap();
    let mut host = KwbaseHost::new(n1(), Security::Certs { certs_dir: certs.to_str().unwrap().into() });
    host.program = kwbase.to_str().unwrap().into();
    host.listen_addr = Some(Address::new(format!("127.0.0.1:{}", sshd.port)));
    host.stores = vec![StoreSpec::new(sshd.path("it's a $(store)").to_str().unwrap())];
    let hosts = Kwbase::new(Arc::new(sshd.transport()), [host])
        .unwrap()
        .with_clock(Arc::new(Behind(SignedDuration::ZERO)));

    let facts = hosts.inspect(&n1()).await.unwrap();
    let sessions = || sshd.log().matches("Starting session: ").count();
    until("sshd told of the session", async || (sessions() > 0).then_some(())).await;
    assert_eq!(sessions(), 1, "{}", sshd.log());
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 1, "{}", sshd.log());

    assert_eq!(facts.build, Fact::Known("V3.2.1".into()));
    assert_eq!(facts.stores[0].content, Fact::Known(StoreContent::Absent));
    assert_eq!(facts.can_authenticate, Fact::Known(true));
    // The sshd itself.
    assert_eq!(facts.listening.known().unwrap().len(), 1);
    let machine = facts.machine.unwrap();
    assert_eq!(machine.user, Fact::Known(user()));
    let dir = machine.certificates.known().unwrap().as_ref().unwrap();
    let (ca, node) = (dir.certificate("ca.crt"), dir.certificate("node.crt"));
    assert!(node.known().unwrap().names_as_issuer(ca.known().unwrap()));
    assert!(node.known().unwrap().is_for("127.0.0.1"));
    assert_eq!(dir.file("node.key").map(|f| (f.mode, f.certificate.is_some())), Some((0o600, false)));
    // The clocks are the same; how far apart they may be is bounded by the round trip.
    let clock = machine.clock.known().unwrap();
    assert!(clock.offset.abs() <= clock.uncertainty, "{clock:?}");

    // What is asked next is one more session each.
    hosts.inspect(&n1()).await.unwrap();
    until("the second session", async || (sessions() == 2).then_some(())).await;
    let to = [Address::new(format!("127.0.0.1:{}", sshd.port)), Address::new("127.0.0.1:1")];
    let reached = hosts.reach(&n1(), &to, Duration::from_secs(10)).await.unwrap();
    assert_eq!(reached, [Fact::Known(PortState::Open), Fact::Known(PortState::Closed)]);
    let left: Vec<_> = std::fs::read_dir(sshd.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_str().unwrap().starts_with(".kwdb-scale")), "{left:?}");
}

/// Everything that is asked of it waits for the same attempt to connect.
#[tokio::test]
async fn a_host_that_hangs_is_waited_for_once() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let host = KwbaseHost::new(n1(), Security::Insecure);
    let ssh = sshd::transport(sshd.host().connect_timeout(Duration::from_secs(2)));
    let hosts =
        Kwbase::new(Arc::new(ssh), [host]).unwrap().with_clock(Arc::new(Behind(SignedDuration::ZERO)));
    sshd.hang(true);
    let to = [sshd.port, 1, 2, 3, 4, 5, 6, 7].map(|port| Address::new(format!("127.0.0.1:{port}")));
    let (begun, name) = (Instant::now(), n1());
    let (facts, ways) = tokio::join!(hosts.inspect(&name), hosts.reach(&name, &to, Duration::from_secs(1)));
    let took = begun.elapsed();
    sshd.hang(false);
    assert!(took < Duration::from_secs(6), "{took:?}");
    let error = facts.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Unreachable);
    assert!(error.chain().contains("did not answer"), "{}", error.chain());
    assert_eq!(ways.unwrap(), vec![Fact::Unknown(error.chain()); to.len()]);
    // Whoever asks later finds out anew.
    let ways = hosts.reach(&n1(), &to[..1], Duration::from_secs(10)).await.unwrap();
    assert_eq!(ways, [Fact::Known(PortState::Open)]);
}

/// What a connection takes to be made is no part of what a clock may be off by. A busy machine may take long all the same:
/// of several looks one is enough, each over a connection of its own.
#[tokio::test]
async fn a_clock_that_is_off_by_50_ms_is_noticed() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    for ahead in [50, -50].map(SignedDuration::from_millis) {
        let mut told = Vec::new();
        for _ in 0..8 {
            let host = KwbaseHost::new(n1(), Security::Insecure);
            let hosts = Kwbase::new(Arc::new(sshd.transport()), [host]).unwrap();
            let hosts = hosts.with_clock(Arc::new(Behind(ahead)));
            let clock = *hosts.inspect(&n1()).await.unwrap().machine.unwrap().clock.known().unwrap();
            assert!((clock.offset - ahead).abs() <= clock.uncertainty, "{clock:?} for {ahead:?}");
            told.push(clock);
            if clock.surely_from(ClockOffset::OPERATOR) > SignedDuration::ZERO {
                break;
            }
        }
        let noticed = told.last().unwrap().surely_from(ClockOffset::OPERATOR) > SignedDuration::ZERO;
        assert!(noticed, "{told:?} for {ahead:?}");
    }
}
