//! Hosts that get their certificates by the operation: crashes, cancels, failures and interruptions of that.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use kwdb_scale_core::execute::{
    Act, Cancel, Certification, End, Ledger, Record, Remains, StopReason, Stopped, clean_certificates,
};
use kwdb_scale_core::ports::{
    AuthorityFacts, CertificateControl, CertificateFacts, CertificateState, CertifyHost, PortError,
    PortErrorKind, async_trait,
};
use kwdb_scale_core::request::Certificates;
use kwdb_scale_core::topology::HostName;
use kwdb_scale_sim::memory::{Call, Fault, Which};

use crate::calls::{faults, suffer};
use crate::cancels::give_up_everywhere;
use crate::crashes::crash_everywhere;
use crate::scene::{Book, CERTIFICATE_CALLS, Moment, Scene};

#[tokio::test]
async fn crashes() {
    crash_everywhere(Scene::out_with_certificates(false).await).await;
}

#[tokio::test]
async fn cancels() {
    give_up_everywhere(Scene::out_with_certificates(false).await).await;
    give_up_everywhere(Scene::out_with_certificates(true).await).await;
}

#[tokio::test]
async fn each_call_fails() {
    let scene = Scene::out_with_certificates(true).await;
    let mut clean = scene.stage();
    let end = clean.run(&Book::default(), &[]).await.unwrap();
    clean.prove_done(&end, "without faults");
    for call in CERTIFICATE_CALLS {
        let count = clean.calls[&call];
        assert!(count > 0, "{call:?} was never called");
        for n in 1..=count {
            for fault in faults() {
                suffer(&scene, call, Which::Nth(n), fault).await;
            }
        }
    }
}

/// An installation that was interrupted is finished by the same run, and by an undo is put back.
#[tokio::test]
async fn an_interrupted_installation() {
    for old in [false, true] {
        let scene = Scene::out_with_certificates(old).await;
        let mut stage = scene.stage();
        stage.world.cut_certificates(&HostName::new("n5"));
        let book = Book::default();
        let end = stage.run(&book, &[]).await.unwrap();
        let end = if matches!(end, End::Stopped(_)) { stage.go_on(&book).await } else { end };
        stage.prove_done(&end, "cut");

        let mut stage = scene.stage();
        stage.world.cut_certificates(&HostName::new("n5"));
        // The records: begun, admitted, the intent, its outcome.
        let book = Book::cancelling(&[(Moment::Record(4), Cancel::Undo)]);
        let end = stage.run(&book, &[]).await.unwrap();
        stage.prove_undone(&end, "cut, then undone");
        let put_back = |r: &Record| matches!(r, Record::Intent { act: Act::RestoreCertificates { .. }, .. });
        assert!(book.all().await.iter().any(put_back));
    }
}

/// Whether certificates may have been replaced is said where that is not known, and only there.
#[tokio::test]
async fn one_truth_about_certificates_at_a_stop() {
    const OLD: &str = "the certificates of host n5 are those that it had before";
    const DOUBT: &str = "certificates of host n5 may have been replaced; an undo puts back what was there";
    let fail = |kind| (Call::InstallCertificates, Which::All, Fault::Fail(kind));
    for old in [false, true] {
        let scene = Scene::out_with_certificates(old).await;
        let cut = (Call::InstallCertificates, Which::From(2), Fault::Fail(PortErrorKind::Malformed));
        for (rule, is_cut, said, unsaid) in [
            (fail(PortErrorKind::Malformed), false, OLD, DOUBT),
            (fail(PortErrorKind::Unreachable), false, OLD, DOUBT),
            (fail(PortErrorKind::ConnectionLost), false, DOUBT, OLD),
            (cut, true, DOUBT, OLD),
        ] {
            let mut stage = scene.stage();
            if is_cut {
                stage.world.cut_certificates(&HostName::new("n5"));
            }
            let what = format!("{rule:?}");
            let end = stage.run(&Book::default(), &[rule]).await.unwrap();
            let End::Stopped(stopped) = end else { panic!("{what}: {end:?}") };
            let has = |line: &str| stopped.evidence.iter().any(|l| l == line);
            assert!(has(said) && !has(unsaid), "{what}: {stopped:?}");
            assert_eq!(names_what_is_left(&stopped), is_cut, "{what}: {stopped:?}");
        }
    }
}

fn names_what_is_left(stopped: &Stopped) -> bool {
    stopped
        .evidence
        .iter()
        .any(|l| l.starts_with("left behind: /tmp/kwdb-scale-") && l.ends_with(" on host n1"))
}

/// An undo that cannot put the old set back names what temporary is left, in which private keys may be.
#[tokio::test]
async fn an_undo_that_fails_names_what_is_left() {
    let scene = Scene::out_with_certificates(true).await;
    let mut stage = scene.stage();
    stage.world.cut_certificates(&HostName::new("n5"));
    let book = Book::cancelling(&[(Moment::Record(4), Cancel::Undo)]);
    let rule = (Call::RestoreCertificates, Which::All, Fault::Fail(PortErrorKind::Malformed));
    let end = stage.run(&book, &[rule]).await.unwrap();
    let End::Stopped(stopped) = end else { panic!("{end:?}") };
    assert_eq!(stopped.reason, StopReason::ActFailed, "{stopped:?}");
    assert!(names_what_is_left(&stopped), "{stopped:?}");
}

/// Once a node was started with them, certificates stay: it may run. An undo says so.
#[tokio::test]
async fn an_undo_after_a_start_that_failed_says_what_stays() {
    let scene = Scene::out_with_certificates(false).await;
    let rule = (Call::Start, Which::All, Fault::Fail(PortErrorKind::Other));
    let book = Book::default();
    let end = scene.stage().run(&book, std::slice::from_ref(&rule)).await.unwrap();
    assert!(matches!(end, End::Stopped(_)), "{end:?}");
    let begun = |r: &Record| matches!(r, Record::Intent { act: Act::Start { .. }, .. });
    let at = book.all().await.iter().position(begun).unwrap();

    let book = Book::cancelling(&[(Moment::Record(at + 2), Cancel::Undo)]);
    let mut stage = scene.stage();
    let end = stage.run(&book, &[rule]).await.unwrap();
    stage.prove_undone(&end, "after a start that failed");
    let End::Undone(told) = end else { panic!() };
    assert!(told.iter().any(|l| l.contains("made for host n5 stay there")), "{told:?}");
}

/// What lies there already, and is good, is left alone.
#[tokio::test]
async fn good_certificates_are_left_alone() {
    let scene = Scene::out_with_certificates(true).await;
    let mut stage = scene.stage();
    let mut host = stage.world.host(&HostName::new("n5")).unwrap();
    host.node_certificate = true;
    stage.world.add_host(host);
    let book = Book::default();
    let end = stage.run(&book, &[]).await.unwrap();
    stage.prove_done(&end, "good already");
    let certify = |r: &Record| matches!(r, Record::Intent { act: Act::Certify { .. }, .. });
    assert!(!book.all().await.iter().any(certify));
}

/// Somebody started a node there meanwhile: its certificates are not touched.
#[tokio::test]
async fn a_host_that_is_not_fresh_any_more() {
    let scene = Scene::out_with_certificates(true).await;
    let mut stage = scene.stage();
    let host = stage.world.host(&HostName::new("n5")).unwrap();
    let join = stage.plan.gateways.iter().map(|g| g.address.clone()).collect();
    let start = host.node_start(stage.plan.start_mode.clone(), join);
    let at = stage.world.now() + std::time::Duration::from_millis(200);
    stage.world.at(at, move |cluster| {
        cluster.start_node(start).unwrap();
    });
    let end = stage.run(&Book::default(), &[]).await.unwrap();
    stage.nothing_wrong("somebody else's node");
    let End::Stopped(stopped) = end else { panic!("{end:?}") };
    assert!(matches!(stopped.reason, StopReason::GateClosed | StopReason::Refused), "{stopped:?}");
}

/// A host of an operation that nobody goes on with.
#[derive(Clone, Debug, Default)]
struct Abandoned {
    facts: CertificateFacts,
    look: Option<PortErrorKind>,
    clean: Option<PortErrorKind>,
    /// It is there all the same.
    stays: bool,
    cleaned: Arc<Mutex<Vec<CertifyHost>>>,
}

fn failing(kind: Option<PortErrorKind>) -> Result<(), PortError> {
    kind.map_or(Ok(()), |kind| Err(PortError::new(kind, "no answer")))
}

#[async_trait]
impl CertificateControl for Abandoned {
    async fn authority(&self, _members: &[HostName]) -> Result<AuthorityFacts, PortError> {
        unreachable!("nobody asks for the authority")
    }

    async fn look(&self, job: &CertifyHost) -> Result<CertificateFacts, PortError> {
        assert_eq!((job.tag.as_str(), &job.made), ("20260102T030405Z-0a1b2c3d-1", &None));
        failing(self.look)?;
        let gone = !self.stays && !self.cleaned.lock().unwrap().is_empty();
        let leftovers = if gone { Vec::new() } else { self.facts.leftovers.clone() };
        Ok(CertificateFacts { leftovers, ..self.facts.clone() })
    }

    async fn install(&self, _job: &CertifyHost) -> Result<(), PortError> {
        unreachable!("nothing is installed")
    }

    async fn restore(&self, _job: &CertifyHost) -> Result<(), PortError> {
        unreachable!("nothing is put back")
    }

    async fn clean(&self, job: &CertifyHost) -> Result<(), PortError> {
        failing(self.clean)?;
        self.cleaned.lock().unwrap().push(job.clone());
        Ok(())
    }
}

/// What nobody goes on with is removed where it is only temporary, and named otherwise.
#[tokio::test]
async fn what_an_abandoned_operation_left() {
    let scene = Scene::out_with_certificates(true).await;
    let n5 = HostName::new("n5");
    let mut ledger = Ledger::new(scene.stage().plan.clone());
    let now = Timestamp::UNIX_EPOCH;
    assert!(clean_certificates(&ledger, &Abandoned::default(), now).await.is_empty());
    let certification = Certification {
        host: n5.clone(),
        method: Certificates::Archive,
        authority: "ab".repeat(32),
        tag: "20260102T030405Z-0a1b2c3d-1".to_owned(),
        fresh: true,
        made: Some("/etc/kaiwudb".to_owned()),
    };
    ledger.certified.insert(n5.clone(), certification);
    let path = "/etc/kaiwudb/certs.new-20260102T030405Z-0a1b2c3d-1 on host n5".to_owned();
    let temporary = CertificateFacts { leftovers: vec![path.clone()], ..CertificateFacts::default() };
    let half = CertificateFacts { state: CertificateState::Half, ..temporary.clone() };
    let archive =
        CertificateFacts { present: vec!["kaiwudb_certs.tar.gz".to_owned()], ..CertificateFacts::default() };
    let left = |what: &[&str], why: &str| Remains::Left {
        what: what.iter().map(|w| (*w).to_owned()).collect(),
        why: why.to_owned(),
    };
    let (denied, lost) = (Some(PortErrorKind::Denied), Some(PortErrorKind::Unreachable));
    let of = |facts: &CertificateFacts| Abandoned { facts: facts.clone(), ..Abandoned::default() };
    for (control, cleans, want) in [
        (Abandoned::default(), 0, Remains::Nothing),
        (of(&temporary), 1, Remains::Removed(vec![path.clone()])),
        (of(&half), 0, left(&[&path], "being put in place")),
        (of(&archive), 0, left(&["kaiwudb_certs.tar.gz on host n5"], "join")),
        (Abandoned { look: lost, ..of(&temporary) }, 0, left(&[], "could not be looked at: ")),
        (Abandoned { clean: denied, ..of(&temporary) }, 0, left(&[&path], "could not be removed: ")),
        (Abandoned { stays: true, ..of(&temporary) }, 1, left(&[&path], "there all the same")),
    ] {
        let mut found = clean_certificates(&ledger, &control, now).await;
        let got = found.remove(&n5).unwrap();
        assert_eq!(control.cleaned.lock().unwrap().len(), cleans, "{control:?}");
        match (&got, &want) {
            (Remains::Left { what, why }, Remains::Left { what: wanted, why: word }) => {
                assert!(what == wanted && why.contains(word), "{got:?}");
            }
            _ => assert_eq!(got, want),
        }
    }
}
