//! Whatever order the steps are put in, and whatever is left out or doubled, what passes is safe.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use kwdb_scale_core::plan::{Plan, Step, check};
use kwdb_scale_core::topology::NodeId;
use proptest::prelude::*;

use crate::fixture::{World, all, scale_in};

static WORLDS: LazyLock<Vec<(&str, World)>> = LazyLock::new(all);

/// What must never happen, told by walking through the steps: an oracle that shares nothing with the rules.
fn danger(plan: &Plan) -> Option<String> {
    let leaving: BTreeSet<NodeId> = plan.change.remove.iter().copied().collect();
    let (mut marked, mut empty, mut stopped) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut set = BTreeSet::new();
    let mut proven = false;
    for (i, step) in plan.steps.iter().enumerate() {
        let wrong = proven
            || match step {
                Step::Join { join, .. } => !marked.is_empty() || join.is_empty(),
                Step::Mark { nodes } => {
                    // Two decommissions at once wedge.
                    let overlap = !marked.is_subset(&empty);
                    let again = !nodes.iter().all(|n| marked.insert(*n));
                    overlap || again || nodes.is_empty()
                }
                Step::AwaitEmpty { nodes } => {
                    empty.extend(nodes.iter().copied());
                    !empty.is_subset(&marked)
                }
                Step::Drain { node } => !empty.contains(node) || !leaving.contains(node),
                Step::Stop { node } => {
                    !empty.contains(node) || !leaving.contains(node) || !stopped.insert(*node)
                }
                Step::SetSetting { name, .. } => !set.insert(name.clone()),
                Step::RestoreSetting { name } => !set.remove(name),
                Step::Verify { .. } => {
                    proven = true;
                    false
                }
                _ => false,
            };
        if wrong {
            return Some(format!("step {i}, {}", step.name()));
        }
    }
    if marked != leaving || empty != leaving || (!plan.steps.is_empty() && !proven) {
        return Some("not all was done".into());
    }
    None
}

#[derive(Clone, Debug)]
enum Edit {
    Swap(usize, usize),
    Remove(usize),
    Double(usize, usize),
    Move(usize, usize),
    Retarget(usize, u32),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (0..8_usize, 0..8_usize).prop_map(|(a, b)| Edit::Swap(a, b)),
        (0..8_usize).prop_map(Edit::Remove),
        (0..8_usize, 0..8_usize).prop_map(|(a, b)| Edit::Double(a, b)),
        (0..8_usize, 0..8_usize).prop_map(|(a, b)| Edit::Move(a, b)),
        (0..8_usize, 1..7_u32).prop_map(|(a, n)| Edit::Retarget(a, n)),
    ]
}

fn apply(steps: &mut Vec<Step>, edit: &Edit) {
    let len = steps.len();
    if len == 0 {
        return;
    }
    match edit {
        Edit::Swap(a, b) => steps.swap(a % len, b % len),
        Edit::Remove(a) => {
            steps.remove(a % len);
        }
        Edit::Double(a, b) => {
            let step = steps[a % len].clone();
            steps.insert(b % (len + 1), step);
        }
        Edit::Move(a, b) => {
            let step = steps.remove(a % len);
            steps.insert(b % len, step);
        }
        Edit::Retarget(a, n) => match &mut steps[a % len] {
            Step::Stop { node } | Step::Drain { node } => *node = NodeId(*n),
            Step::Mark { nodes } | Step::AwaitEmpty { nodes } => {
                nodes.pop();
                nodes.push(NodeId(*n));
            }
            _ => {}
        },
    }
}

proptest! {
    #[test]
    fn what_passes_is_safe(which in 0..7_usize, edits in prop::collection::vec(edit(), 1..5)) {
        let (name, mut world) = WORLDS[which].clone();
        for edit in &edits {
            apply(&mut world.plan.steps, edit);
        }
        world.seal();
        if check(&world.plan, None).is_empty() {
            prop_assert_eq!(danger(&world.plan), None, "{} after {:?}: {:?}", name, edits, world.plan.steps);
        }
    }
}

#[test]
fn a_stop_before_emptiness_never_passes() {
    for node in [5, 6] {
        for at in 0..2 {
            let mut world = scale_in();
            let stop = world.plan.steps.iter().position(|s| *s == Step::Stop { node: NodeId(node) }).unwrap();
            let stop = world.plan.steps.remove(stop);
            world.plan.steps.insert(at, stop);
            world.seal();
            let rules: Vec<&str> = check(&world.plan, None).iter().map(|v| v.rule).collect();
            assert!(rules.contains(&"stop-after-empty"), "{rules:?}");
        }
    }
}

#[test]
fn the_oracle_tells_valid_plans_from_each_broken_order() {
    for (name, world) in WORLDS.iter() {
        assert_eq!(danger(&world.plan), None, "{name}");
        for a in 0..world.plan.steps.len() {
            let mut shorter = world.plan.clone();
            let gone = shorter.steps.remove(a);
            if matches!(gone, Step::Mark { .. } | Step::AwaitEmpty { .. } | Step::Verify { .. }) {
                assert!(danger(&shorter).is_some(), "{name} without {gone:?}");
            }
        }
    }
}
