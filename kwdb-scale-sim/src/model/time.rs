//! Virtual time, chance and the queue of what is to happen.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Nanoseconds since the start of the virtual clock.
pub(crate) type Nanos = u64;

/// The length of `d` in nanoseconds.
pub(crate) fn nanos(d: Duration) -> Nanos {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// `at` nanoseconds after `base`.
pub(crate) fn to_timestamp(base: Timestamp, at: Nanos) -> Timestamp {
    let d = SignedDuration::from_nanos(i64::try_from(at).unwrap_or(i64::MAX));
    base.checked_add(d).unwrap_or(Timestamp::MAX)
}

/// Nanoseconds from `base` to `t`; zero when `t` is earlier.
pub(crate) fn from_timestamp(base: Timestamp, t: Timestamp) -> Nanos {
    u64::try_from(t.duration_since(base).as_nanos()).unwrap_or(0)
}

/// A small generator (splitmix64). Seeded, so that a run can be repeated.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Even between both ends.
    pub(crate) fn between(&mut self, (low, high): (Duration, Duration)) -> Nanos {
        spread(self.next(), low, high)
    }

    /// Puts `items` into another order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }
}

/// A number that depends on nothing but its arguments: for what must not depend on who asks how often.
pub(crate) fn hash(seed: u64, a: u64, b: u64) -> u64 {
    mix(mix(mix(seed).wrapping_add(a)).wrapping_add(b.rotate_left(32)))
}

/// The point between both ends that `number` stands for.
pub(crate) fn spread(number: u64, low: Duration, high: Duration) -> Nanos {
    let (low, high) = (nanos(low), nanos(high));
    low + number % (high.saturating_sub(low) + 1)
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Item<E> {
    at: Nanos,
    order: u64,
    event: E,
}

impl<E: Eq> Ord for Item<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl<E: Eq> PartialOrd for Item<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Events in the order of their time; among equals in the order in which they were put in.
#[derive(Clone, Debug)]
pub(crate) struct Queue<E: Eq> {
    heap: BinaryHeap<Reverse<Item<E>>>,
    order: u64,
}

impl<E: Eq> Queue<E> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), order: 0 }
    }

    pub(crate) fn push(&mut self, at: Nanos, event: E) {
        self.order += 1;
        self.heap.push(Reverse(Item { at, order: self.order, event }));
    }

    /// The next event, if it is due by `until`.
    pub(crate) fn pop_due(&mut self, until: Nanos) -> Option<(Nanos, E)> {
        if self.heap.peek().is_none_or(|Reverse(i)| i.at > until) {
            return None;
        }
        self.heap.pop().map(|Reverse(i)| (i.at, i.event))
    }
}
