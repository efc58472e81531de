//! Checks on zones: factors that the members can meet, constraints that let replicas leave.

use std::collections::BTreeMap;

use super::members::name;
use super::{Problem, known_or};
use crate::assess::{Context, Retry};
use crate::fact::Fact;
use crate::health::{needed, tolerates};
use crate::observation::Node;
use crate::topology::Locality;
use crate::zone::{ConstraintGroup, Cure, Zone, ZoneSet};

pub(super) fn need(cx: &Context<'_>) -> Vec<Problem> {
    if cx.single_replica() {
        return Vec::new();
    }
    let (live, counted) = (cx.live_after(), cx.counted_after());
    known_or(&cx.zones, "the zones are", |zones| {
        let mut found = Vec::new();
        let mut short = Vec::new();
        for zone in zones.iter() {
            match &zone.num_replicas {
                Fact::Unknown(why) => {
                    found.push(Problem::unknown(&format!("the factor of {} is", zone.target), why));
                }
                Fact::Known(factor) => {
                    let need = needed(*factor, counted);
                    if usize::try_from(need).unwrap_or(usize::MAX) > live {
                        short.push(format!("{}: num_replicas = {factor}, needs {need}", zone.target));
                    }
                }
            }
        }
        if !short.is_empty() {
            let message =
                format!("zones that need more replicas than {live} live members can hold: {}", short.len());
            found.push(
                Problem::new(message)
                    .evidence(short)
                    .evidence([format!("the allocator would count {counted} members")])
                    .cure("scale out first, or replace instead")
                    .retry(Retry::WhenFactChanges("number of live members".to_owned())),
            );
        }
        found
    })
}

/// Zones whose need differs, as `RANGE meta: 5 → 3 replicas, tolerates 2 → 1 failures`.
fn changes(cx: &Context<'_>, differs: fn(u32, u32) -> bool) -> Vec<String> {
    let Fact::Known(zones) = &cx.zones else { return Vec::new() };
    if cx.single_replica() {
        return Vec::new();
    }
    let (before, after) = (cx.obs.counted_members(), cx.counted_after());
    zones
        .iter()
        .filter_map(|zone| {
            let factor = *zone.num_replicas.known()?;
            let (was, will) = (needed(factor, before), needed(factor, after));
            differs(was, will).then(|| {
                format!(
                    "{}: {was} → {will} replicas, tolerates {} → {} failures",
                    zone.target,
                    tolerates(was),
                    tolerates(will)
                )
            })
        })
        .collect()
}

pub(super) fn shrinks(cx: &Context<'_>) -> Vec<Problem> {
    let lines = changes(cx, |was, will| will < was);
    if lines.is_empty() {
        return Vec::new();
    }
    let message = format!(
        "zones whose ranges will keep fewer replicas on {} members: {}",
        cx.counted_after(),
        lines.len()
    );
    vec![Problem::new(message).evidence(lines)]
}

pub(super) fn grows(cx: &Context<'_>) -> Vec<Problem> {
    let lines = changes(cx, |was, will| will > was);
    if lines.is_empty() {
        return Vec::new();
    }
    let message = format!(
        "zones whose ranges will get more replicas on {} members: {}",
        cx.counted_after(),
        lines.len()
    );
    vec![Problem::new(message).evidence(lines)]
}

/// Whether a node may hold a replica under these constraints: it satisfies one of the groups, or fewer replicas
/// are constrained than wanted (`allocateConstraintsCheck`, allocator_scorer.go). An attribute is not known of a
/// node, so a group with one is taken for unsatisfied.
fn eligible(groups: &[ConstraintGroup], factor: u32, locality: &Locality) -> bool {
    let counted = groups.iter().map(|g| g.count).sum::<Option<u32>>();
    groups.is_empty()
        || counted.is_some_and(|sum| sum < factor)
        || groups.iter().any(|g| g.allows(locality) == Some(true))
}

fn hindrance(cx: &Context<'_>, groups: &[ConstraintGroup], factor: u32) -> Option<(String, Vec<String>)> {
    let need = needed(factor, cx.counted_after());
    let names = |nodes: &[&&Node]| {
        if nodes.is_empty() {
            "none".to_owned()
        } else {
            nodes.iter().map(|n| n.id.to_string()).collect::<Vec<_>>().join(", ")
        }
    };
    let may = |n: &&&Node| n.locality.known().is_some_and(|l| eligible(groups, factor, l));
    let able: Vec<_> = cx.staying.iter().filter(may).collect();
    if able.len() < usize::try_from(need).unwrap_or(usize::MAX) {
        let why = format!("allows {} of the members that stay and needs {need} of them", able.len());
        return Some((why, vec![format!("may hold its replicas: {}", names(&able))]));
    }
    for group in groups {
        let Some(count) = group.count else { continue };
        let fits = |n: &&&Node| n.locality.known().is_some_and(|l| group.allows(l) == Some(true));
        let left: Vec<_> = cx.staying.iter().filter(fits).collect();
        let gone = cx.leaving.iter().any(|n| fits(&n));
        if gone && left.len() < usize::try_from(count).unwrap_or(usize::MAX) {
            let text: Vec<String> = group.constraints.iter().map(ToString::to_string).collect();
            let why = format!(
                "wants {count} of its replicas at {}, and too few members stay there",
                text.join(",")
            );
            return Some((why, vec![format!("stay there: {}", names(&left))]));
        }
    }
    None
}

/// Whether a range that may be in the zone has a replica on a leaving node; yes when that cannot be told.
fn touched(cx: &Context<'_>, zones: &ZoneSet, zone: &Zone) -> bool {
    let Fact::Known(ranges) = &cx.obs.ranges else { return true };
    let stores = cx.leaving_stores();
    if cx.leaving.iter().any(|n| n.stores.is_empty()) {
        return true;
    }
    let here = |z: &&Zone| (z.id, z.subzone) == (zone.id, zone.subzone);
    ranges
        .iter()
        .filter(|r| r.replicas.iter().chain(&r.learners).any(|s| stores.contains(s)))
        .any(|r| zones.candidates(r).known().is_none_or(|c| c.zones.iter().any(here)))
}

struct Blocked<'a> {
    zone: &'a Zone,
    problem: Problem,
}

fn blocked<'a>(cx: &Context<'_>, zones: &'a ZoneSet) -> Vec<Blocked<'a>> {
    let localities = cx.leaving_localities();
    zones
        .iter()
        .filter_map(|zone| {
            let groups = match &zone.constraints {
                Fact::Known(groups) if groups.is_empty() => return None,
                Fact::Known(groups) => groups,
                Fact::Unknown(why) => {
                    let problem = Problem::unknown("the effect of a constraint is", why);
                    return Some(Blocked { zone, problem });
                }
            };
            let factor = match &zone.num_replicas {
                Fact::Known(factor) => *factor,
                Fact::Unknown(why) => {
                    let problem = Problem::unknown("the effect of a constraint is", why);
                    return Some(Blocked { zone, problem });
                }
            };
            let named =
                groups.iter().flat_map(|g| &g.constraints).any(|c| localities.iter().any(|l| c.names(l)));
            let (why, lines) = hindrance(cx, groups, factor)?;
            if !named && !touched(cx, zones, zone) {
                return None;
            }
            let all = hindrance(cx, &zone.kept(&localities), factor).is_some();
            let mut problem = Problem::new(format!("{} {} {why}", zone.target, zone.constraints_text()))
                .evidence(lines)
                .retry(Retry::WhenFactChanges(format!("constraints of {}", zone.target)));
            problem.cure = zone.constraint_cure(&localities, all).map(|c| cure_text(&c));
            Some(Blocked { zone, problem })
        })
        .collect()
}

fn cure_text(cure: &Cure) -> String {
    format!("{} (brings the present one back: {})", cure.exclude, cure.restore)
}

pub(super) fn blocking(cx: &Context<'_>) -> Vec<Problem> {
    known_or(&cx.zones, "the zones are", |zones| blocked(cx, zones).into_iter().map(|b| b.problem).collect())
}

/// `n4 (region=NODE4)`
fn places(cx: &Context<'_>) -> BTreeMap<String, String> {
    cx.leaving.iter().filter_map(|n| Some((name(n), n.locality.known()?.to_string()))).collect()
}

pub(super) fn naming(cx: &Context<'_>) -> Vec<Problem> {
    let Fact::Known(zones) = &cx.zones else { return Vec::new() };
    let localities = cx.leaving_localities();
    let blocked = blocked(cx, zones);
    zones
        .iter()
        .filter(|z| !blocked.iter().any(|b| std::ptr::eq(b.zone, *z)))
        .filter(|z| names(z.constraints.known(), &localities))
        .map(|z| {
            let mut problem = Problem::new(format!(
                "{} {} names a leaving node, which may affect the operation",
                z.target,
                z.constraints_text()
            ))
            .evidence(places(cx).into_iter().map(|(node, at)| format!("{node}: {at}")));
            problem.cure = z.constraint_cure(&localities, false).map(|c| cure_text(&c));
            problem
        })
        .collect()
}

fn names(groups: Option<&Vec<ConstraintGroup>>, localities: &[&Locality]) -> bool {
    groups.into_iter().flatten().flat_map(|g| &g.constraints).any(|c| localities.iter().any(|l| c.names(l)))
}

pub(super) fn leases(cx: &Context<'_>) -> Vec<Problem> {
    let Fact::Known(zones) = &cx.zones else { return Vec::new() };
    let localities = cx.leaving_localities();
    zones
        .iter()
        .filter_map(|z| match &z.lease_preferences {
            Fact::Unknown(why) => Some(Problem::unknown("the effect of a lease preference is", why)),
            known => names(known.known(), &localities).then(|| {
                let mut problem = Problem::new(format!(
                    "a lease preference of {} names a leaving node: its leases will be held elsewhere",
                    z.target
                ));
                problem.cure = z.lease_cure(&localities).map(|c| cure_text(&c));
                problem
            }),
        })
        .collect()
}
