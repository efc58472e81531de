//! Random clusters and requests.
#![allow(unreachable_pub, reason = "a module of a test")]

use jiff::SignedDuration;
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::ports::StoreContent;
use kwdb_scale_core::request::Operation;
use kwdb_scale_core::topology::StartMode;
use proptest::prelude::*;

use crate::support::*;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    Live,
    Dead,
    Marked,
    Drained,
    Removed,
    Draining,
    Upgrading,
    Unheard,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Host {
    Fine,
    Missing,
    InUse,
    OtherRelease,
    Listening,
    Secure,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Want {
    Without(u32),
    Only(u32),
    OneAt(u32),
}

#[derive(Clone, Debug)]
pub struct Spec {
    pub states: Vec<State>,
    pub stores_per_node: u32,
    pub default_factor: u32,
    pub mode: StartMode,
    pub lost_replicas: Option<(usize, usize)>,
    pub want: Option<Want>,
    pub job: Option<&'static str>,
    pub admin: bool,
    pub views: Vec<u32>,
    pub stale: Option<u32>,
    pub gauge: Option<u32>,
    pub full: Option<u32>,
    pub host: Host,
    pub marking: bool,
    pub operation: Operation,
}

fn rarely<T: std::fmt::Debug + Clone + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Option<T>> {
    prop_oneof![12 => Just(None), 1 => value.prop_map(Some)]
}

fn state() -> impl Strategy<Value = State> {
    use State::*;
    let bad = prop::sample::select(vec![Dead, Marked, Drained, Draining, Upgrading, Unheard]);
    prop_oneof![40 => Just(Live), 3 => Just(Removed), 1 => bad]
}

fn operation() -> impl Strategy<Value = Operation> {
    let some = |most: usize| prop::collection::vec(1..10_u32, 0..=most);
    prop_oneof![
        some(3).prop_map(|h| scale_out(&h)),
        some(3).prop_map(|n| scale_in(&n)),
        (some(2), some(2)).prop_map(|(n, h)| replace(&n, &h)),
        prop::sample::subsequence((1..10_u32).collect::<Vec<_>>(), 2..9).prop_map(|m| reach(&m)),
    ]
}

pub fn spec() -> impl Strategy<Value = Spec> {
    let cluster = (
        prop::collection::vec(state(), 1..9),
        1..3_u32,
        prop_oneof![6 => Just(3_u32), 1 => Just(5), 1 => Just(7)],
        prop_oneof![
            14 => Just(StartMode::MultiReplica),
            1 => Just(StartMode::SingleReplica),
            1 => Just(StartMode::SingleNode)
        ],
        rarely((0..9_usize, 1..4_usize)),
        rarely(prop_oneof![
            (1..9_u32).prop_map(Want::Without),
            (1..9_u32).prop_map(Want::Only),
            (1..9_u32).prop_map(Want::OneAt)
        ]),
        rarely(prop::sample::select(vec![
            "SCHEMA CHANGE",
            "IMPORT",
            "SCHEMA CHANGE GC",
            "AUTO CREATE STATS",
        ])),
        prop_oneof![20 => Just(true), 1 => Just(false)],
    );
    let rest = (
        prop_oneof![6 => Just(vec![2, 3, 4, 5]), 1 => prop::collection::vec(1..9_u32, 0..2)],
        rarely(1..9_u32),
        rarely(1..9_u32),
        rarely(1..9_u32),
        prop_oneof![
            8 => Just(Host::Fine),
            1 => prop::sample::select(vec![
                Host::Missing, Host::InUse, Host::OtherRelease, Host::Listening, Host::Secure
            ])
        ],
        prop_oneof![12 => Just(true), 1 => Just(false)],
        operation(),
    );
    (cluster, rest).prop_map(|(cluster, rest)| {
        let (mut states, stores_per_node, default_factor, mode, lost_replicas, want, job, admin) = cluster;
        let (views, stale, gauge, full, host, marking, operation) = rest;
        // The gateway answers, so it lives.
        if matches!(states[0], State::Dead | State::Removed) {
            states[0] = State::Live;
        }
        Spec {
            states,
            stores_per_node,
            default_factor,
            mode,
            lost_replicas,
            want,
            job,
            admin,
            views,
            stale,
            gauge,
            full,
            host,
            marking,
            operation,
        }
    })
}

impl Spec {
    pub fn nodes(&self) -> u32 {
        u32::try_from(self.states.len()).unwrap()
    }

    pub fn cluster(&self) -> Cluster {
        let n = self.nodes();
        let mut c = Cluster::with_stores(n, self.stores_per_node);
        c.all_nodes(|node| node.start_mode = Some(self.mode.clone()));
        c.spread_with(self.default_factor);
        let with = |state| (1..=n).filter(move |i| self.states[(*i - 1) as usize] == state);
        with(State::Removed).for_each(|i| c.remove(i));
        with(State::Drained).for_each(|i| {
            c.mark(i);
            c.empty(i);
        });
        with(State::Marked).for_each(|i| c.mark(i));
        with(State::Dead).for_each(|i| c.kill(i));
        with(State::Draining).for_each(|i| c.live_row(i).draining = Some(true));
        with(State::Upgrading).for_each(|i| c.live_row(i).upgrading = Some(true));
        with(State::Unheard).for_each(|i| c.node_row(i).is_live = Some(false));
        if let Some((range, lost)) = self.lost_replicas {
            let replicas = &mut c.ranges[range].replicas;
            replicas.truncate(replicas.len().saturating_sub(lost).max(1));
        }
        match self.want {
            Some(Want::Without(i)) => {
                c.zones.push(partition(
                    1,
                    "a",
                    self.default_factor,
                    &format!("constraints = '[-region=NODE{i}]'"),
                ));
            }
            Some(Want::Only(i)) => {
                c.zones.push(partition(
                    1,
                    "a",
                    self.default_factor,
                    &format!("constraints = '[+region=NODE{i}]'"),
                ));
            }
            Some(Want::OneAt(i)) => {
                let fields = format!("constraints = '{{+region=NODE{i}: 1}}'");
                c.zones.push(partition(1, "a", self.default_factor, &fields));
            }
            None => {}
        }
        c.jobs.extend(self.job.map(|j| job(j, "running")));
        c.is_admin = Some(self.admin);
        c.views = self.views.iter().copied().filter(|v| *v <= n && *v != 1).collect();
        let old = c.now - SignedDuration::from_secs(45);
        for store in &mut c.stores {
            if Some(store.node_id.0) == self.stale {
                store.updated_at = Some(old);
            }
            if Some(store.node_id.0) == self.gauge {
                store.ranges_unavailable = Some(1);
            }
            if Some(store.node_id.0) == self.full {
                store.available = Some(0);
            }
        }
        for i in 1..=HOSTS {
            if i <= n && !matches!(self.states[(i - 1) as usize], State::Removed) {
                c.host_mut(i).can_authenticate = Fact::Known(self.marking);
                continue;
            }
            *c.host_mut(i) = host_facts(i, false);
            match self.host {
                Host::Fine => {}
                Host::Missing => drop(c.hosts.insert(host(i), Fact::unknown("no route"))),
                Host::InUse => {
                    c.host_mut(i).stores[0].content = Fact::Known(StoreContent::InUse(vec!["x".into()]))
                }
                Host::OtherRelease => c.host_mut(i).build = Fact::Known("V3.2.0".into()),
                Host::Listening => c.host_mut(i).listening = Fact::Known(vec![address(i)]),
                Host::Secure => c.host_mut(i).secure = true,
            }
        }
        c
    }
}
