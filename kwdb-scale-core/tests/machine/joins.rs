//! An undo after the operator was killed while a host's own script joined it: the node has joined, and the script goes on.

use kwdb_scale_core::execute::Certification;
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::plan::Step;
use kwdb_scale_core::ports::CertificateFacts;
use kwdb_scale_core::request::Certificates;

use super::*;

fn facts(joining: Option<Fact<String>>, remains: &[&str]) -> CertificateFacts {
    let remains = remains.iter().map(|r| (*r).to_owned()).collect();
    CertificateFacts { joining, remains, ..CertificateFacts::default() }
}

/// What looks tell before it is over, and then what it left, until that is taken back. How it ended, and how many times and
/// how long after the undo began something was taken back.
fn undo(joining: Fact<String>, looks: usize, left: &[&str]) -> (End, usize, i64) {
    let mut world = World::new(4);
    let mut plan = make_plan(&world, Operation::ScaleOut { hosts: vec![host(8)] });
    let join = plan.steps.iter().position(|s| matches!(s, Step::Join { .. })).unwrap();
    let (method, authority) = (Certificates::Archive, "aa".to_owned());
    plan.steps.insert(join, Step::Certify { host: host(8), method, authority: authority.clone() });
    let Some(Step::Join { host: there, address, mode, join: members }) = plan.steps.get(join + 1).cloned()
    else {
        panic!("{:?}", plan.steps)
    };
    let start = Act::Start { host: there.clone(), address, mode, join: members };
    let job = Certification { host: there, method, authority, tag: "t".into(), fresh: true, made: None };
    let mut run = Run::new(world.clone(), plan);
    run.records.push(Record::Admitted);
    run.records.extend((0..join).map(|step| Record::StepDone { step, note: String::new() }));
    run.records.extend([
        Record::Intent { step: join, act: Act::Certify { job } },
        Record::Outcome { step: join, result: ActResult::Done(String::new()) },
        Record::StepDone { step: join, note: String::new() },
        Record::Intent { step: join + 1, act: start },
    ]);
    run.resume();
    world.nodes.insert(5, world::Node { bit: false, up: true, host: host(8) });
    world.certificates = vec![facts(Some(joining), left); looks];
    world.certificates.extend([facts(None, left), facts(None, &[])]);
    let begun = world.now;
    run.world = world;
    let (world, end, records) = run.run(&[Mishap::CancelUndo]);
    let back = |r: &&Record| matches!(r, Record::Intent { act: Act::RestoreCertificates { .. }, .. });
    let seconds = world.now.duration_since(begun).as_secs();
    (end, records.iter().filter(back).count(), seconds)
}

#[test]
fn undo_waits_for_a_join_that_goes_on_though_its_node_has_joined() {
    let joining = || Fact::Known("deploy.sh join on host h8 (process 17)".to_owned());
    // The world accuses whoever takes something back while it goes on.
    let (end, times, _) = undo(joining(), 8, &["/etc/kaiwudb/before-join on host h8"]);
    assert!(matches!(end, End::Undone(_)), "{end:?}");
    assert_eq!(times, 1);
    // It tidied up by itself.
    let (end, times, seconds) = undo(joining(), 8, &[]);
    assert!(matches!(end, End::Undone(_)) && times == 0 && seconds > 0, "{times} {seconds} {end:?}");
    let (end, times, _) = undo(joining(), 9999, &["/etc/kaiwudb/before-join on host h8"]);
    let End::Stopped(stopped) = end else { panic!("{end:?}") };
    assert_eq!((stopped.reason, times), (StopReason::Deadline, 0), "{stopped:?}");
    assert!(stopped.message.contains("deploy.sh join on host h8 (process 17) to end"), "{stopped:?}");
}

#[test]
fn a_join_that_cannot_be_seen_has_its_time() {
    let (end, times, seconds) = undo(Fact::unknown("its /proc is hidden"), 9999, &["/x on host h8"]);
    // The look says so for ever, so that the end cannot be told: it is taken back once, and that it is left is said.
    assert!(matches!(end, End::Stopped(_)), "{end:?}");
    assert!(times == 1 && seconds >= 20, "{times} after {seconds} s");
}
