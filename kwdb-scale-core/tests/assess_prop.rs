//! Random clusters and requests: a check refuses exactly when the rows, read by a rule of this test's own, say so;
//! and what is accepted is safe.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/random.rs"]
mod random;
mod support;

use std::collections::BTreeSet;

use kwdb_scale_core::assess::{OperationKind, Severity};
use kwdb_scale_core::request::Operation;
use kwdb_scale_core::topology::{NodeId, StartMode, StoreId};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use random::{Host, Spec, Want, spec};
use support::*;

/// The rows, read by plain rules.
struct Truth<'a> {
    spec: &'a Spec,
    c: &'a Cluster,
    all: Vec<u32>,
    add: Vec<u32>,
    remove: Vec<u32>,
    unresolved: bool,
}

impl<'a> Truth<'a> {
    fn of(spec: &'a Spec, c: &'a Cluster) -> Self {
        let mut truth = Self {
            spec,
            c,
            all: (1..=spec.nodes()).collect(),
            add: vec![],
            remove: vec![],
            unresolved: false,
        };
        let number = |h: &kwdb_scale_core::topology::HostName| h.as_str()[1..].parse::<u32>().unwrap();
        let id = |r: &kwdb_scale_core::request::NodeRef| match r {
            kwdb_scale_core::request::NodeRef::Id(id) => id.0,
            kwdb_scale_core::request::NodeRef::Host(h) => number(h),
        };
        let twice = |list: &[u32]| list.iter().collect::<BTreeSet<_>>().len() != list.len();
        let (nodes, hosts, reach) = match &spec.operation {
            Operation::ScaleOut { hosts } => (vec![], hosts.iter().map(number).collect(), false),
            Operation::ScaleIn { nodes } => (nodes.iter().map(id).collect(), vec![], false),
            Operation::Replace { nodes, hosts } => {
                let (nodes, hosts): (Vec<u32>, Vec<u32>) =
                    (nodes.iter().map(id).collect(), hosts.iter().map(number).collect());
                truth.unresolved |= nodes.is_empty() || hosts.is_empty();
                truth.unresolved |= nodes.iter().any(|n| hosts.contains(n) && truth.present(*n));
                (nodes, hosts, false)
            }
            Operation::Reach { members } => {
                let members: Vec<u32> = members.iter().map(number).collect();
                let gone = truth.all.iter().copied().filter(|n| truth.counted(*n) && !members.contains(n));
                (gone.collect(), members, true)
            }
            other => panic!("{other:?}"),
        };
        truth.unresolved |= twice(&nodes) || twice(&hosts) || nodes.iter().any(|n| !truth.all.contains(n));
        truth.unresolved |=
            hosts.iter().any(|h| truth.present(*h) && !(truth.member(*h) || reach && truth.counted(*h)));
        truth.remove = nodes.into_iter().filter(|n| truth.present(*n)).collect();
        truth.add = hosts.into_iter().filter(|h| !truth.present(*h)).collect();
        truth
    }

    fn row(&self, n: u32) -> Option<&kwdb_scale_core::rows::LivenessRow> {
        self.c.liveness.iter().find(|l| l.node_id == NodeId(n))
    }

    fn live(&self, n: u32) -> bool {
        self.row(n).is_some_and(|l| l.expiration.unwrap() > self.c.now)
    }

    fn marked(&self, n: u32) -> bool {
        self.row(n).is_some_and(|l| l.decommissioning.unwrap())
    }

    fn owner(&self, store: StoreId) -> u32 {
        (store.0 - 100) / 10
    }

    fn holds(&self, n: u32) -> bool {
        self.c.ranges.iter().any(|r| r.replicas.iter().any(|s| self.owner(*s) == n))
    }

    fn present(&self, n: u32) -> bool {
        self.row(n).is_some() && !(self.marked(n) && !self.live(n) && !self.holds(n))
    }

    fn member(&self, n: u32) -> bool {
        self.row(n).is_some() && !self.marked(n) && self.live(n)
    }

    fn counted(&self, n: u32) -> bool {
        self.row(n).is_some() && !self.marked(n)
    }

    fn any(&self, f: impl Fn(u32) -> bool) -> bool {
        self.all.iter().any(|n| f(*n))
    }

    fn number(&self, f: impl Fn(u32) -> bool) -> u32 {
        u32::try_from(self.all.iter().filter(|n| f(**n)).count()).unwrap()
    }

    fn leaves(&self, n: u32) -> bool {
        self.remove.contains(&n)
    }

    fn stays(&self, n: u32) -> bool {
        self.member(n) && !self.leaves(n)
    }

    fn live_after(&self) -> u32 {
        self.number(|n| self.stays(n)) + u32::try_from(self.add.len()).unwrap()
    }

    fn counted_after(&self) -> u32 {
        self.number(|n| self.counted(n) && !self.leaves(n)) + u32::try_from(self.add.len()).unwrap()
    }

    fn factor_of(&self, range: usize) -> u32 {
        if [0, 1, 2, 4, 5].contains(&range) { 5 } else { self.spec.default_factor }
    }

    fn live_voters(&self, range: usize) -> u32 {
        let stores = &self.c.ranges[range].replicas;
        u32::try_from(stores.iter().filter(|s| self.live(self.owner(**s))).count()).unwrap()
    }

    fn constraint_blocks(&self) -> bool {
        let need = need(self.spec.default_factor, self.counted_after());
        let stayers = self.number(|n| self.stays(n));
        // The one range of the partitioned table.
        let touched = self.c.ranges[8].replicas.iter().any(|s| self.leaves(self.owner(*s)));
        match self.spec.want {
            None => false,
            Some(Want::Without(i)) => {
                stayers - u32::from(self.stays(i)) < need && (touched || self.leaves(i))
            }
            Some(Want::Only(i)) => u32::from(self.stays(i)) < need && (touched || self.leaves(i)),
            // One replica at i, the rest anywhere.
            Some(Want::OneAt(i)) => (stayers < need && (touched || self.leaves(i))) || self.leaves(i),
        }
    }

    /// What the named check must refuse, by the rows alone.
    fn fails(&self, check: &str) -> bool {
        let single = self.spec.mode == StartMode::SingleReplica;
        let ranges = 0..self.c.ranges.len();
        let upgrading = |n: u32| self.present(n) && self.row(n).unwrap().upgrading.unwrap();
        let heard = |n: u32| self.c.nodes[(n - 1) as usize].is_live.unwrap();
        let stale = self.spec.stale.is_some_and(|n| self.member(n));
        match check {
            "admin-role" => !self.spec.admin,
            "two-gateways" => {
                let asked: BTreeSet<u32> = self.c.views.iter().copied().chain([1]).collect();
                asked.into_iter().filter(|n| self.stays(*n)).count() < 2
            }
            "members-alive" => self.any(|n| {
                (self.counted(n) && !self.live(n) && !self.leaves(n))
                    || (self.member(n) && !heard(n) && !upgrading(n))
            }),
            "target-alive" => self.any(|n| self.leaves(n) && self.counted(n) && !self.live(n)),
            "none-draining" => self.any(|n| {
                self.live(n) && self.row(n).unwrap().draining.unwrap() && (self.holds(n) || !self.marked(n))
            }),
            "none-upgrading" => self.any(upgrading),
            "none-leaving" => {
                // One that is marked and empty is only to be stopped.
                self.any(|n| self.present(n) && self.marked(n) && self.holds(n))
            }
            "start-mode" => self.spec.mode == StartMode::SingleNode && self.any(|n| self.present(n)),
            "single-replica-scale-in" => single,
            "members-remain" => self.live_after() < 3,
            "zone-need" => {
                !single
                    && [5, self.spec.default_factor]
                        .iter()
                        .any(|f| need(*f, self.counted_after()) > self.live_after())
            }
            "ranges-available" => ranges
                .into_iter()
                .any(|r| self.live_voters(r) * 2 <= u32::try_from(self.c.ranges[r].replicas.len()).unwrap()),
            "ranges-replicated" => {
                let counted = self.number(|n| self.counted(n));
                !single && ranges.into_iter().any(|r| self.live_voters(r) < need(self.factor_of(r), counted))
            }
            "page-query" => !stale && self.spec.gauge.is_some_and(|n| self.member(n)),
            "status-fresh" => stale,
            "constraints-block" => self.constraint_blocks(),
            "jobs" => matches!(self.spec.job, Some("SCHEMA CHANGE" | "IMPORT")),
            "host-facts" => !self.add.is_empty() && self.spec.host == Host::Missing,
            "host-store-empty" => !self.add.is_empty() && self.spec.host == Host::InUse,
            "host-version" => !self.add.is_empty() && self.spec.host == Host::OtherRelease,
            "host-ports-free" => !self.add.is_empty() && self.spec.host == Host::Listening,
            "host-secure" => {
                !self.add.is_empty()
                    && self.spec.host == Host::Secure
                    && self.any(|n| self.member(n) || self.leaves(n))
            }
            "marking-host" => !self.spec.marking || !self.any(|n| self.stays(n)),
            "disk-full" => self.spec.full.is_some_and(|n| self.stays(n)),
            other => panic!("the test has no rule for {other}"),
        }
    }
}

/// The allocator's rule once more, by trying.
fn need(factor: u32, members: u32) -> u32 {
    if members >= factor {
        return factor;
    }
    let odd = (1..=members).filter(|k| k % 2 == 1).max().unwrap_or(0);
    factor.min(odd.max(3))
}

/// Checks whose findings the generated clusters cannot bring about, or that the request alone decides.
const OTHERS: [&str; 27] = [
    "targets-known",
    "hosts-known",
    "cluster-readable",
    "gateways-agree",
    "members-known",
    "members-described",
    "version-supported",
    "version-uniform",
    "ranges-mapped",
    "already-so",
    "host-credentials",
    "host-address",
    "certificates-authority",
    // The generated hosts are not looked at any further; `assess_hosts` has their cases.
    "host-listen-address",
    "host-mode",
    "host-not-running",
    "host-disk-full",
    "host-certificates",
    "host-open-files",
    "host-writable",
    "host-reach",
    "ca-key-last",
    "stopping-host",
    "host-clock-far",
    "script-join",
    "script-mark",
    "process-owner",
];

fn judge(spec: &Spec) -> Result<Option<bool>, TestCaseError> {
    let c = spec.cluster();
    let truth = Truth::of(spec, &c);
    let assessment = c.assess(spec.operation.clone());
    let refused: BTreeSet<String> = assessment.refusals().map(|f| f.check.clone()).collect();
    let unresolved = refused.contains("targets-known") || refused.contains("hosts-known");
    prop_assert_eq!(unresolved, truth.unresolved, "{:?}", refused);
    if unresolved {
        return Ok(None);
    }
    let kind = assessment.change.kind;
    let removed: Vec<u32> = assessment.change.remove.iter().map(|n| n.0).collect();
    let mut expected = truth.remove.clone();
    expected.sort_unstable();
    prop_assert_eq!(removed, expected);
    prop_assert_eq!(assessment.change.add.len(), truth.add.len());
    for check in kwdb_scale_core::assess::catalogue() {
        if check.severity(kind) != Some(Severity::Refuse) || OTHERS.contains(&check.name) {
            continue;
        }
        let found = refused.contains(check.name);
        prop_assert_eq!(
            found,
            truth.fails(check.name),
            "{} of {}: {:#?}",
            check.name,
            kind,
            assessment.findings
        );
    }
    for name in &refused {
        let check = kwdb_scale_core::assess::catalogue().iter().find(|c| c.name == name).unwrap();
        prop_assert_eq!(check.severity(kind), Some(Severity::Refuse));
    }
    if assessment.refused() || kind == OperationKind::Nothing {
        return Ok(Some(!assessment.refused()));
    }
    // What is accepted is safe, whatever the checks are called.
    for range in 0..c.ranges.len() {
        prop_assert!(truth.live_voters(range) * 2 > u32::try_from(c.ranges[range].replicas.len()).unwrap());
    }
    if matches!(kind, OperationKind::In | OperationKind::Replace) {
        prop_assert!(truth.live_after() >= 3);
        prop_assert!(spec.mode == StartMode::MultiReplica);
        prop_assert!(truth.all.iter().all(|n| !truth.counted(*n) || truth.live(*n)));
        for factor in [5, spec.default_factor] {
            prop_assert!(need(factor, truth.counted_after()) <= truth.live_after());
        }
    }
    Ok(Some(true))
}

#[test]
fn refusals_are_justified_and_acceptances_safe() {
    let mut runner =
        TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) });
    let (accepted, refused) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let outcome = runner.run(&spec(), |spec| {
        match judge(&spec)? {
            Some(true) => accepted.set(accepted.get() + 1),
            _ => refused.set(refused.get() + 1),
        }
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
    assert!(accepted.get() > 30 && refused.get() > 30, "{accepted:?} accepted, {refused:?} refused");
}

#[test]
fn every_refusal_of_the_generated_clusters_occurs() {
    let mut runner = TestRunner::deterministic();
    let strategy = spec();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for _ in 0..2000 {
        let spec = strategy.new_tree(&mut runner).unwrap().current();
        let assessment = spec.cluster().assess(spec.operation.clone());
        seen.extend(assessment.refusals().map(|f| f.check.clone()));
    }
    let missing: Vec<&str> = kwdb_scale_core::assess::catalogue()
        .iter()
        .filter(|c| c.severity(OperationKind::Replace) == Some(Severity::Refuse))
        .map(|c| c.name)
        .filter(|name| !OTHERS.contains(name) && !seen.contains(*name))
        .collect();
    assert!(missing.is_empty(), "never refused by: {missing:?}");
}
