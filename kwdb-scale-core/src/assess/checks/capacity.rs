//! Checks on disks.
//!
//! `used` is what the node's own files take; what else is on the disk counts as not there, as the allocator sees
//! it (`FractionUsed`, roachpb/metadata.go).

use super::Problem;
use crate::assess::{Context, Retry};
use crate::fact::Fact;
use crate::observation::Node;
use crate::rows::StoreRow;
use crate::topology::StoreId;

/// At and above this fraction a store gets no replica (`maxFractionUsedThreshold`).
const FULL: f64 = 0.95;
/// At and above this fraction a store gets no replica for balance (`rebalanceToMaxFractionUsedThreshold`).
const PROJECTED: f64 = 0.925;

/// Bytes of KWDB's own files, and bytes that they may take in all.
#[derive(Clone, Copy)]
struct Disk {
    used: u64,
    room: u64,
}

impl Disk {
    /// `None` when unknown. `used` is 0 in the first minute of a process; then all that is not available counts.
    fn of(row: &StoreRow) -> Option<Self> {
        let (capacity, available) = (row.capacity?, row.available?);
        let disk = match row.used? {
            0 => Self { used: capacity.saturating_sub(available), room: capacity },
            used => Self { used, room: available.saturating_add(used) },
        };
        (disk.room > 0).then_some(disk)
    }

    fn fraction(self) -> f64 {
        self.used as f64 / self.room as f64
    }

    fn with(self, more: u64) -> Self {
        Self { used: self.used.saturating_add(more), ..self }
    }
}

fn disks<'a>(nodes: &'a [&'a Node]) -> impl Iterator<Item = (&'a Node, StoreId, Option<Disk>)> {
    nodes.iter().flat_map(|n| n.stores.values().map(|s| (*n, s.id, Disk::of(&s.status))))
}

fn percent(fraction: f64) -> String {
    format!("{:.1} %", fraction * 100.0)
}

pub(super) fn full(cx: &Context<'_>) -> Vec<Problem> {
    disks(&cx.staying)
        .filter_map(|(node, store, disk)| Some((node, store, disk?.fraction())))
        .filter(|(_, _, fraction)| *fraction >= FULL)
        .map(|(node, store, fraction)| {
            Problem::new(format!(
                "{store} of {} is {} full, and a store that is {} full takes no replica",
                node.id,
                percent(fraction),
                percent(FULL)
            ))
            .cure("free or add disk space, or scale out first")
            .retry(Retry::WhenFactChanges(format!("disk of {}", node.id)))
        })
        .collect()
}

/// Bytes that move when a node leaves. `used` is 0 in the first minute of a process: then unknown, unless it holds
/// no replica.
fn moving(row: &StoreRow, replicas: &Fact<u64>) -> Option<u64> {
    match (row.used?, replicas) {
        (0, Fact::Known(0)) => Some(0),
        (0, _) => None,
        (used, _) => Some(used),
    }
}

fn leaving<'a>(cx: &'a Context<'_>) -> impl Iterator<Item = (&'a Node, StoreId, Option<u64>)> {
    cx.leaving.iter().flat_map(|n| n.stores.values().map(|s| (*n, s.id, moving(&s.status, &s.replicas))))
}

pub(super) fn projected(cx: &Context<'_>) -> Vec<Problem> {
    let bytes: Option<Vec<u64>> = leaving(cx).map(|(_, _, bytes)| bytes).collect();
    let staying: Vec<_> = disks(&cx.staying).collect();
    let (Some(bytes), Ok(stores)) = (bytes, u64::try_from(staying.len())) else { return Vec::new() };
    if stores == 0 {
        return Vec::new();
    }
    let share = bytes.into_iter().fold(0, u64::saturating_add) / stores;
    staying
        .into_iter()
        .filter_map(|(node, store, disk)| Some((node, store, disk?)))
        .filter(|(_, _, now)| now.fraction() < FULL && now.with(share).fraction() > PROJECTED)
        .map(|(node, store, now)| {
            Problem::new(format!(
                "{store} of {} is {} full and would be about {} full with its share of what leaves",
                node.id,
                percent(now.fraction()),
                percent(now.with(share).fraction())
            ))
            .cure("free or add disk space, or replace instead")
        })
        .collect()
}

pub(super) fn unknown(cx: &Context<'_>) -> Vec<Problem> {
    let staying = disks(&cx.staying).filter(|(_, _, disk)| disk.is_none()).map(|(n, s, _)| (n, s));
    let leaving = leaving(cx).filter(|(_, _, bytes)| bytes.is_none()).map(|(n, s, _)| (n, s));
    let missing: Vec<String> =
        staying.chain(leaving).map(|(node, store)| format!("{store} of {}", node.id)).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    vec![
        Problem::new(format!("how much of the disk is used is unknown: {}", missing.join(", ")))
            .cure("ask again a minute after the node's start, when it has measured its disk"),
    ]
}
