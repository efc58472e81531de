//! What an undo of an older operation would take back of a newer one's work.

use super::*;

fn begun(operation: Operation) -> Ledger {
    let mut ledger = Ledger::new(make_plan(&World::new(5), operation));
    ledger.apply(&Record::Admitted).unwrap();
    ledger
}

fn leaving(nodes: &[u32]) -> Operation {
    Operation::ScaleIn { nodes: nodes.iter().map(|n| NodeRef::Id(NodeId(*n))).collect() }
}

fn said(older: &Ledger, newer: &Ledger) -> Vec<String> {
    older.undo_overlap(newer).iter().map(ToString::to_string).collect()
}

#[test]
fn an_undo_overlaps_with_what_a_newer_operation_has_changed_too() {
    let mark = |nodes: &[u32]| Act::Mark { nodes: nodes.iter().map(|n| NodeId(*n)).collect() };
    let intent = |act| Record::Intent { step: 0, act };
    let mut older = begun(leaving(&[4]));
    older.apply(&intent(mark(&[4]))).unwrap();
    let mut newer = begun(leaving(&[4]));
    assert_eq!(said(&older, &newer), [""; 0], "it has changed nothing yet");
    newer.apply(&intent(mark(&[3]))).unwrap();
    assert_eq!(said(&older, &newer), [""; 0], "another node");
    newer.apply(&intent(mark(&[4]))).unwrap();
    assert_eq!(said(&older, &newer), ["node 4"]);
    newer.apply(&Record::Ended { end: End::Undone(Vec::new()) }).unwrap();
    assert_eq!(said(&older, &newer), [""; 0], "what was undone is nobody's work");
}

#[test]
fn a_setting_overlaps_as_long_as_the_older_operation_would_put_it_back() {
    const RATE: &str = "kv.snapshot_rebalance.max_rate";
    let set = |value: &str| {
        let (name, value, old) = (RATE.to_owned(), value.to_owned(), Some("8 MiB".to_owned()));
        Record::Intent { step: 0, act: Act::SetSetting { name, value, old } }
    };
    let mut older = begun(leaving(&[4]));
    let back = kwdb_scale_core::plan::Step::RestoreSetting { name: RATE.to_owned() };
    std::sync::Arc::make_mut(&mut older.plan).steps.push(back);
    older.apply(&set("32 MiB")).unwrap();
    let mut newer = begun(leaving(&[5]));
    newer.apply(&set("64 MiB")).unwrap();
    assert_eq!(said(&older, &newer), [format!("the setting {RATE}")]);
    older
        .apply(&Record::Intent {
            step: 0,
            act: Act::RestoreSetting { name: RATE.to_owned(), value: "8 MiB".to_owned() },
        })
        .unwrap();
    older.apply(&Record::Outcome { step: 0, result: ActResult::Done(String::new()) }).unwrap();
    assert_eq!(said(&older, &newer), [""; 0], "it is put back already");
}
