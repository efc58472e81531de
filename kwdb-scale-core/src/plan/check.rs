//! The plan checker: judges any plan, whoever made it, and trusts no planner.
//!
//! It shares no line with the planner or the checks of [`assess`](crate::assess): each rule is derived anew from the
//! KWDB page and the sources named beside it, the few constants are written here a second time, and what a rule needs
//! is computed from the plan and the observation. So a slip in the planner is not repeated here.

mod certify;
mod document;
mod facts;
mod steps;

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::{Fingerprint, OldDirectory, Plan, Step};
use crate::observation::Observation;
use crate::request::Inventory;
use crate::topology::{Address, HostName, NodeClass, NodeId, StartMode};

/// Fewest members that may remain when one leaves (KWDB page, "Scale-In Operations").
const FEWEST_MEMBERS: usize = 3;

/// The KWDB page, "Scale-In Operations".
const PAGE_IN: &str = "KWDB page, \"Scale-In Operations\"";
/// The KWDB page, "Scale-Out Operations".
const PAGE_OUT: &str = "KWDB page, \"Scale-Out Operations\"";
/// The KWDB page, "Data Redistribution".
const PAGE_REDISTRIBUTION: &str = "KWDB page, \"Data Redistribution\"";
/// The doc comments of [`Plan`] and its parts.
const FORMAT: &str = "plan format v1";
/// The doc comments of [`crate::request`].
const REQUEST: &str = "the request's options";
/// What a leaving node does to its cluster: it must be told apart from every other, by more than its address.
const IDENTITY: &str = "KWDB V3.2.1: ids are never reused, addresses are";
/// Why a count of replicas is wanted before a stop.
const EMPTY_FIRST: &str = "KWDB page, \"Scale-In Operations\": stop after the replicas are 0";
/// `GetNeededReplicas` of the allocator.
const ALLOCATOR: &str = "KWDB V3.2.1, allocator.go, GetNeededReplicas";

/// A rule that a plan breaks.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Violation {
    /// Stable name of the rule; see [`rules`].
    pub rule: &'static str,
    /// Index of the step at fault, from 0, where one step is at fault.
    pub step: Option<usize>,
    /// What is wrong, in one sentence that names the values.
    pub message: String,
    /// Where the rule comes from.
    pub source: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rule)?;
        if let Some(step) = self.step {
            write!(f, ", step {}", step.saturating_add(1))?;
        }
        write!(f, ": {} ({})", self.message, self.source)
    }
}

/// A rule of the checker.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Rule {
    /// Stable name, such as `stop-after-empty`.
    pub name: &'static str,
    /// What must hold.
    pub says: &'static str,
    /// Where it comes from: the KWDB page, a release, an invariant of this library.
    pub source: &'static str,
    judge: Judge,
}

/// How a rule judges.
#[derive(Clone, Copy, Debug)]
enum Judge {
    /// By the plan alone.
    Plan(fn(&Case<'_>, &mut Report)),
    /// By comparing the plan with an observation.
    Facts(fn(&Case<'_>, &Observation, &mut Report)),
}

impl Rule {
    /// Whether it compares the plan with an observation.
    pub fn needs_observation(&self) -> bool {
        matches!(self.judge, Judge::Facts(_))
    }
}

/// All rules, in the order in which they are judged.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    document::RULES.iter().chain(steps::RULES).chain(certify::RULES).chain(facts::RULES)
}

/// Judges a plan by every rule; without an observation only by those that need none. Empty when all hold.
///
/// Pure: the same input gives the same violations in the same order.
///
/// ```
/// # use kwdb_scale_core::plan::{Plan, check};
/// fn complain(plan: &Plan) -> bool {
///     let violations = check(plan, None);
///     for violation in &violations {
///         eprintln!("{violation}");
///     }
///     !violations.is_empty()
/// }
/// ```
pub fn check(plan: &Plan, observation: Option<&Observation>) -> Vec<Violation> {
    let case = Case { plan };
    let mut violations = Vec::new();
    for rule in rules() {
        let mut report = Report::default();
        match (rule.judge, observation) {
            (Judge::Plan(judge), _) => judge(&case, &mut report),
            (Judge::Facts(judge), Some(observation)) => judge(&case, observation, &mut report),
            (Judge::Facts(_), None) => {}
        }
        violations.extend(report.found.into_iter().map(|(step, message)| Violation {
            rule: rule.name,
            step,
            message,
            source: rule.source,
        }));
    }
    violations
}

/// What a rule has to say.
#[derive(Default)]
struct Report {
    found: Vec<(Option<usize>, String)>,
}

impl Report {
    /// The plan as a whole is at fault.
    fn whole(&mut self, message: impl Into<String>) {
        self.found.push((None, message.into()));
    }

    /// One step is at fault.
    fn at(&mut self, step: usize, message: impl Into<String>) {
        self.found.push((Some(step), message.into()));
    }
}

/// What is judged, with the look-ups that rules share.
struct Case<'a> {
    plan: &'a Plan,
}

/// A join step.
struct Joining<'a> {
    index: usize,
    host: &'a HostName,
    address: &'a Address,
    mode: &'a StartMode,
    join: &'a [Address],
}

impl<'a> Case<'a> {
    fn steps(&self) -> impl Iterator<Item = (usize, &'a Step)> {
        self.plan.steps.iter().enumerate()
    }

    fn joins(&self) -> impl Iterator<Item = Joining<'a>> {
        self.steps().filter_map(|(index, step)| match step {
            Step::Join { host, address, mode, join } => Some(Joining { index, host, address, mode, join }),
            _ => None,
        })
    }

    /// Index and nodes of every mark step.
    fn marks(&self) -> impl Iterator<Item = (usize, &'a [NodeId])> {
        self.steps().filter_map(|(i, step)| match step {
            Step::Mark { nodes } => Some((i, nodes.as_slice())),
            _ => None,
        })
    }

    /// Index, host and directories of every clearing of old data.
    fn clears(&self) -> impl Iterator<Item = (usize, &'a HostName, &'a [OldDirectory])> {
        self.steps().filter_map(|(i, step)| match step {
            Step::ClearData { host, directories, .. } => Some((i, host, directories.as_slice())),
            _ => None,
        })
    }

    /// Index and nodes of every wait for emptiness.
    fn waits(&self) -> impl Iterator<Item = (usize, &'a [NodeId])> {
        self.steps().filter_map(|(i, step)| match step {
            Step::AwaitEmpty { nodes } => Some((i, nodes.as_slice())),
            _ => None,
        })
    }

    fn stops(&self) -> impl Iterator<Item = (usize, NodeId)> {
        self.steps().filter_map(|(i, step)| match step {
            Step::Stop { node } => Some((i, *node)),
            _ => None,
        })
    }

    fn drains(&self) -> impl Iterator<Item = (usize, NodeId)> {
        self.steps().filter_map(|(i, step)| match step {
            Step::Drain { node } => Some((i, *node)),
            _ => None,
        })
    }

    fn inventory(&self) -> &'a Inventory {
        &self.plan.request.inventory
    }

    fn fingerprint(&self) -> &'a Fingerprint {
        &self.plan.fingerprint
    }

    fn leaving_ids(&self) -> BTreeSet<NodeId> {
        self.plan.leaving.iter().map(|l| l.node).collect()
    }

    /// Whether anything in the plan makes a node leave; broken plans may say so in one place only.
    fn something_leaves(&self) -> bool {
        !self.plan.leaving.is_empty()
            || self.marks().next().is_some()
            || self.waits().next().is_some()
            || self.drains().chain(self.stops()).next().is_some()
    }

    /// Live members by the fingerprint that do not leave.
    fn survivors(&self) -> BTreeSet<NodeId> {
        let leaving = self.leaving_ids();
        let nodes = self.fingerprint().nodes.iter();
        nodes
            .filter(|(id, n)| n.class == NodeClass::Member && !leaving.contains(id))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Live members by the fingerprint that advertise `address`.
    fn members_at(&self, address: &Address) -> impl Iterator<Item = NodeId> {
        self.fingerprint()
            .nodes
            .iter()
            .filter(move |(_, n)| {
                n.class == NodeClass::Member
                    && n.address.known().map(String::as_str) == Some(address.as_str())
            })
            .map(|(id, _)| *id)
    }
}

/// Replicas that the allocator wants of a range whose zone asks for `factor`, with `members` nodes whose
/// decommissioning bit is not set: the factor while there are as many; else the largest odd number that there are,
/// but at least 3 and at most the factor.
fn needed_replicas(factor: u32, members: usize) -> usize {
    let factor = usize::try_from(factor).unwrap_or(usize::MAX);
    if members >= factor {
        return factor;
    }
    let odd = if members.is_multiple_of(2) { members.saturating_sub(1) } else { members };
    odd.max(3).min(factor)
}

/// The values that occur more than once.
fn repeated<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for item in items {
        if seen.contains(&item) {
            twice.insert(item);
        } else {
            seen.insert(item);
        }
    }
    twice
}

/// Values joined by commas, or `none`.
fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = items.into_iter().map(|i| i.to_string()).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needed_replicas_of_the_allocator() {
        // (factor, members, wanted), from the table of the rule: 5 on 4 needs 3, 7 on 6 needs 5, 3 on 2 still 3.
        for (factor, members, wanted) in [
            (3, 3, 3),
            (3, 7, 3),
            (3, 2, 3),
            (5, 5, 5),
            (5, 4, 3),
            (5, 3, 3),
            (5, 2, 3),
            (7, 6, 5),
            (7, 7, 7),
        ] {
            assert_eq!(needed_replicas(factor, members), wanted, "factor {factor}, members {members}");
        }
        assert_eq!(needed_replicas(1, 0), 1);
        assert_eq!(needed_replicas(4, 3), 3);
    }

    #[test]
    fn names_are_unique_and_kebab_case() {
        let names: Vec<&str> = rules().map(|r| r.name).collect();
        assert_eq!(repeated(names.iter()), BTreeSet::new());
        assert!(names.iter().all(|n| n.chars().all(|c| c.is_ascii_lowercase() || c == '-')), "{names:?}");
    }

    #[test]
    fn a_violation_is_one_line() {
        let v = Violation { rule: "stop-once", step: Some(4), message: "m".into(), source: "s" };
        assert_eq!(v.to_string(), "stop-once, step 5: m (s)");
        let v = Violation { step: None, ..v };
        assert_eq!(v.to_string(), "stop-once: m (s)");
    }
}
