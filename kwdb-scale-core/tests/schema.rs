//! The published JSON Schemas say what the types write: real values fit, also when nothing more is allowed than what
//! the schemas name; every variant of the types is in the schemas and the reverse; readers' rules hold.

// Helpers of tests may panic like the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

// The hand-made plans of the plan checker's tests.
#[allow(dead_code)]
#[path = "plan_check/fixture.rs"]
mod fixture;
#[path = "support/machine.rs"]
mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use jiff::SignedDuration;
use jsonschema::{Registry, Validator};
use kwdb_scale_core::assess::{Finding, Retry, Severity};
use kwdb_scale_core::execute::{
    Act, ActResult, Cancel, Certification, End, JournalRecord, Progress, Record, StopReason, Stopped, journal,
};
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::host_facts::{KeyMatch, ScriptFacts};
use kwdb_scale_core::observation::{Observation, Reach, Service};
use kwdb_scale_core::owner::{Described, Owner, StartLine};
use kwdb_scale_core::plan::{OldDirectory, OldEntry, Plan, PlanError, Step};
use kwdb_scale_core::ports::{
    AuthorityFacts, AuthorityKeyFile, HostFacts, Means, PortErrorKind, PortState, StoreContent,
};
use kwdb_scale_core::request::{Certificates, Finish, NodeRef, OldData, Operation, Pace, Redistribution};
use kwdb_scale_core::rows::{JobRow, RangeKind};
use kwdb_scale_core::schema::ReadError;
use kwdb_scale_core::topology::{NodeClass, NodeId, StartMode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::fixture::{address, host, nodes, now};

const NAMES: [&str; 4] = ["plan", "observation", "journal", "event"];

fn schema(name: &str) -> Value {
    let path = format!("{}/../docs/schema/{name}-v1.schema.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn uri(name: &str) -> String {
    format!("file:///schema/{name}-v1.schema.json")
}

/// Allows nothing but what is named, everywhere.
fn close(value: &mut Value, root: bool) {
    match value {
        Value::Object(map) => {
            if map.contains_key("properties") && !map.contains_key("additionalProperties") {
                let word =
                    if map.contains_key("oneOf") { "unevaluatedProperties" } else { "additionalProperties" };
                // A variant of the root does not name what the root names.
                if !root || word == "unevaluatedProperties" || !map.contains_key("event") {
                    map.insert(word.into(), Value::Bool(false));
                }
            }
            for (key, child) in map.iter_mut() {
                if !(root && key == "oneOf") {
                    close(child, false);
                } else if let Value::Array(branches) = child {
                    for branch in branches {
                        close(&mut branch["properties"], false);
                    }
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|i| close(i, false)),
        _ => {}
    }
}

/// Validators by name of the schema and strictness; a strict one allows nothing that is not named.
static VALIDATORS: LazyLock<BTreeMap<(&str, bool), Validator>> = LazyLock::new(|| {
    let mut validators = BTreeMap::new();
    for strict in [false, true] {
        let mut builder = Registry::new();
        for name in NAMES {
            let mut schema = schema(name);
            if strict {
                close(&mut schema, true);
            }
            builder = builder.add(uri(name), schema).unwrap();
        }
        let registry = builder.prepare().unwrap();
        for name in NAMES {
            let entry = json!({ "$ref": uri(name) });
            let validator = jsonschema::options().with_registry(&registry).build(&entry).unwrap();
            validators.insert((name, strict), validator);
        }
    }
    validators
});

/// What is wrong with `value` by a schema.
fn faults(name: &str, value: &Value, strict: bool) -> Vec<String> {
    let errors = VALIDATORS[&(name, strict)].iter_errors(value);
    errors.map(|e| format!("{}: {e}", e.instance_path())).collect()
}

#[track_caller]
fn fits(name: &str, value: &Value) {
    for strict in [false, true] {
        let faults = faults(name, value, strict);
        assert!(faults.is_empty(), "strict {strict}: {faults:#?}\n{value:#}");
    }
}

#[track_caller]
fn misfits(name: &str, value: &Value) {
    assert!(!faults(name, value, false).is_empty(), "fits {name}: {value:#}");
}

/// Plans that between them show every step, operation and kind of finding.
fn plans() -> Vec<Plan> {
    let mut plans: Vec<Plan> = fixture::all().into_iter().map(|(_, world)| world.plan).collect();
    let retries = [
        Some(Retry::After(SignedDuration::from_secs(90))),
        Some(Retry::WhenFactChanges("members".into())),
        Some(Retry::NeedsPerson),
        Some(Retry::Never),
        None,
    ];
    for (i, retry) in retries.into_iter().enumerate() {
        let severity = [Severity::Info, Severity::Warn, Severity::Refuse][i % 3];
        let finding = Finding::new("a-check", severity, "something").evidence("a fact").cure("a cure");
        plans[i].findings.push(Finding { retry, ..finding });
        plans[i].findings.push(Finding::new("another", severity, "bare"));
    }
    let odd = &mut plans[2];
    odd.gateways[0].host = None;
    odd.leaving[0].host = None;
    odd.request.inventory.hosts.get_mut(&host(1)).unwrap().sql_address = Some(address(501));
    odd.request.inventory.hosts.get_mut(&host(1)).unwrap().brpc_address = Some(address(502));
    odd.request.inventory.authority_elsewhere = true;
    odd.policy.min_disk_percent = 80;
    for (i, class) in
        [NodeClass::Leaving, NodeClass::Removed, NodeClass::Dead, NodeClass::Unknown].into_iter().enumerate()
    {
        let print = odd.fingerprint.nodes.get_mut(&NodeId(i as u32 + 1)).unwrap();
        print.class = class;
        print.address = Fact::unknown("no descriptor");
    }
    odd.fingerprint.refused.insert("a-check".into());
    odd.fingerprint.zones.get_mut("RANGE meta").unwrap().num_replicas = Fact::unknown("NULL");
    for plan in &mut plans {
        plan.id = plan.content_id().unwrap();
    }
    plans
}

fn observations() -> Vec<Observation> {
    let mut all: Vec<Observation> = fixture::all().into_iter().map(|(_, world)| world.observation).collect();
    let mut cluster = fixture::Cluster::new(4, &StartMode::from("start-something-new"));
    cluster.jobs.push(JobRow {
        job_id: 7,
        job_type: "BACKUP".into(),
        status: "running".into(),
        description: None,
    });
    cluster.zones.push(fixture::partition_row("'[+region=NODE1]'"));
    cluster.ranges[0].kind = RangeKind::TimeSeries;
    cluster.ranges[1].kind = RangeKind::Unknown;
    cluster.ranges[2].table_id = Some(53);
    cluster.ranges[2].learners.push(fixture::store(4));
    cluster.liveness[1].expiration = None;
    cluster.liveness[2].draining = None;
    cluster.stores[0].capacity = None;
    cluster.stores[1].updated_at = None;
    cluster.nodes.remove(3);
    let mut hosts = BTreeMap::from([(host(5), fixture::free_host(5)), (host(6), Fact::unknown("no route"))]);
    for (n, content) in [
        (7, Fact::Known(StoreContent::Absent)),
        (8, Fact::Known(StoreContent::InUse(vec!["CURRENT".into()]))),
        (9, Fact::unknown("permission denied")),
    ] {
        if let Fact::Known(mut facts) = fixture::free_host(n) {
            facts.stores[0].content = content;
            if n > 7 {
                facts.stores[0].unmovable = n == 8;
                facts.stores[0].asides = vec!["/data/kwdb.node-3".into()];
                facts.stores[0].leads_to = (n == 8).then(|| "/big/kwdb".into());
                let place = Fact::Known(vec!["/data/kwdb/tsdb".into()]);
                facts.stores[0].mounts = if n == 8 { place } else { Fact::unknown("it did not say") };
            }
            hosts.insert(host(n), Fact::Known(facts));
        }
    }
    if let (Fact::Known(mut full), Fact::Known(mut empty)) = (fixture::free_host(6), fixture::free_host(7)) {
        use kwdb_scale_core::host_facts as facts;
        let mut told = machine::machine("/data/n6");
        told.certificates = Fact::Known(Some(machine::certificates(now(), &["n6"])));
        told.processes = Fact::Known(vec![machine::process("/data/n6")]);
        told.leftovers = Fact::Known(vec![facts::Leftover {
            path: "/tmp/kaiwudb_certs".into(),
            mode: 0o755,
            owner: "root".into(),
        }]);
        told.peers =
            Fact::Known(Some(facts::Peers { addresses: vec!["n1".into()], ssh_port: None, ssh_user: None }));
        told.container = Fact::Known(Some(facts::Container {
            engine: "docker".into(),
            state: "running".into(),
            image: "kwdb".into(),
            returns: Some("unit kw.service owns it".into()),
            starts: Some(StartLine {
                start_mode: Some(StartMode::MultiReplica),
                join: vec!["n1".into()],
                stores: vec!["/data".into()],
                insecure: true,
                certs_dir: Some("/certs".into()),
                address: Some("n7:26257".into()),
                locality: Some("region=a".into()),
                has_variables: true,
            }),
        }));
        told.writable[0].rights =
            Some(facts::Rights { mode: 0o755, owner: "root".into(), group: "root".into() });
        told.owner = Owner::Container { engine: "docker".into(), name: "kwdb6".into() };
        told.described = Some(Described {
            stores: vec!["/data".into()],
            certs_dir: Some("/certs".into()),
            address: Some("n7:26257".into()),
            listen_addr: Some("0.0.0.0:26257".into()),
            locality: Some("region=a".into()),
        });
        told.authority_key = Some(facts::AuthorityKey {
            path: "/srv/ca/ca.key".into(),
            sha256: Fact::Known(None),
            mode: Some(0o644),
        });
        told.binds = vec!["10.0.0.7:26257".into()];
        let mut bare = machine::machine("/data/n7");
        bare.addresses = Fact::unknown("the host has no /proc/net/fib_trie");
        bare.installed = Fact::Known(None);
        bare.unit = Fact::Known(None);
        bare.certificates = Fact::unknown("it may not be read");
        bare.clock = Fact::unknown("no clock");
        bare.file_systems[0].space = Fact::unknown("df did not answer");
        (full.machine, empty.machine) = (Some(Box::new(told)), Some(Box::new(bare)));
        hosts.extend([(host(10), Fact::Known(full)), (host(11), Fact::Known(empty))]);
    }
    let mut observed = cluster.observe(hosts);
    let ways = [
        (Service::Rpc, Fact::Known(PortState::Open)),
        (Service::Sql, Fact::Known(PortState::Closed)),
        (Service::Brpc, Fact::Known(PortState::NoAnswer)),
        (Service::Brpc, Fact::unknown("no route")),
    ];
    let way = |(service, state)| Reach { from: host(5), to: address(1), service, state };
    observed.reach = ways.into_iter().map(way).collect();
    let authorities = [
        Fact::Known(fixture::authority()),
        Fact::Known(AuthorityFacts {
            can_sign: Fact::unknown("denied"),
            key: Some(Fact::Known(KeyMatch::Fits)),
            build: Some(Fact::Known("V3.2.1".into())),
            key_file: Some(AuthorityKeyFile {
                host: host(1),
                path: "/etc/kaiwudb/certs/ca.key".into(),
                mode: Some(0o600),
            }),
            ..fixture::authority()
        }),
        Fact::unknown("no route"),
    ];
    all.extend(authorities.map(|authority| Observation { authority: Some(authority), ..observed.clone() }));
    let means = [
        Means::AdminRpc { why: "node 1 takes it".into(), marks_on_hosts: false },
        Means::AdminRpc { why: "node 1 takes it".into(), marks_on_hosts: true },
        Means::CommandLine { why: "as asked".into(), refused: None },
        Means::CommandLine { why: "refused".into(), refused: Some("0f".repeat(32)) },
    ];
    all.extend(means.map(|means| Observation { means: Some(means), ..observed.clone() }));
    let scripts = [
        Fact::Known(ScriptFacts {
            unusable: vec![],
            unfit: vec![],
            archive: None,
            archive_fault: None,
            archive_authority: None,
            address: None,
        }),
        Fact::Known(ScriptFacts {
            unusable: vec![],
            unfit: vec![],
            archive: Some(true),
            archive_fault: None,
            archive_authority: Some(Fact::Known("0f".repeat(32))),
            address: None,
        }),
        Fact::Known(ScriptFacts {
            unusable: vec!["no script".into()],
            unfit: vec!["another address".into()],
            archive: Some(true),
            archive_fault: Some("it is damaged".into()),
            archive_authority: Some(Fact::unknown("it may not be read")),
            address: Some("10.0.0.4".into()),
        }),
        Fact::unknown("no route"),
    ];
    let some = observed.hosts.values().find_map(Fact::known).unwrap().clone();
    for script in scripts {
        let facts = HostFacts { script: Some(script), ..some.clone() };
        let mut scripted = Observation { owned: [host(5)].into(), ..observed.clone() };
        scripted.hosts.insert(host(5), Fact::Known(facts));
        all.push(scripted);
    }
    all.push(observed);
    // Nobody answers.
    all.push(Observation::build(&address(1), &[], BTreeMap::new()));
    all
}

fn certification() -> Certification {
    Certification {
        host: host(5),
        method: Certificates::Issue,
        authority: fixture::authority().fingerprint,
        tag: "20260101T000000Z-1a2b3c4d-1".into(),
        fresh: true,
        made: Some("/etc/kwdb".into()),
    }
}

fn acts() -> Vec<Act> {
    vec![
        Act::SetSetting { name: "a".into(), value: "false".into(), old: Some("true".into()) },
        Act::SetSetting { name: "a".into(), value: "false".into(), old: None },
        Act::RestoreSetting { name: "a".into(), value: "true".into() },
        Act::ClearData {
            host: host(5),
            directories: vec![
                OldDirectory {
                    path: "/data/a".into(),
                    aside: Some("/data/a.node-9".into()),
                    entries: vec![
                        OldEntry { name: "CURRENT".into(), foreign: false },
                        OldEntry { name: "notes.txt".into(), foreign: true },
                    ],
                },
                OldDirectory { path: "/data/b".into(), aside: None, entries: Vec::new() },
            ],
        },
        Act::Certify { job: certification() },
        Act::RestoreCertificates { job: certification() },
        Act::CleanCertificates { job: certification() },
        Act::Start {
            host: host(5),
            address: address(5),
            mode: StartMode::MultiReplica,
            join: vec![address(1), address(2)],
        },
        Act::Mark { nodes: nodes(&[4, 5]) },
        Act::Confirm { nodes: nodes(&[4]) },
        Act::Recommission { nodes: nodes(&[4]) },
        Act::Drain { node: NodeId(4) },
        Act::Stop { node: NodeId(4) },
    ]
}

fn ends() -> Vec<End> {
    let reasons = variants::<StopReason>();
    let mut ends = vec![End::Done(vec!["proven".into()]), End::Undone(Vec::new())];
    ends.extend(reasons.iter().map(|reason| {
        End::Stopped(Stopped {
            reason: serde_json::from_value(json!(reason)).unwrap(),
            message: "m".into(),
            evidence: vec!["e".into()],
            next: Vec::new(),
        })
    }));
    ends
}

fn records() -> Vec<Record> {
    let mut results =
        vec![ActResult::Done("ok".into()), ActResult::Counted(BTreeMap::from([(NodeId(4), 0)]))];
    results.extend(variants::<PortErrorKind>().iter().map(|kind| ActResult::Failed {
        kind: serde_json::from_value(json!(kind)).unwrap(),
        message: "m".into(),
    }));
    let mut records: Vec<Record> =
        plans().into_iter().map(|plan| Record::Begun { plan: Box::new(plan) }).collect();
    records.extend([Record::Admitted, Record::Resumed]);
    records.extend(acts().into_iter().map(|act| Record::Intent { step: 0, act }));
    records.extend(results.into_iter().map(|result| Record::Outcome { step: 1, result }));
    records.push(Record::Joined { host: host(5), node: NodeId(10) });
    records.push(Record::StepDone { step: 2, note: "proven".into() });
    records.extend([Cancel::Leave, Cancel::Undo].map(|how| Record::CancelAsked { how }));
    records.extend(ends().into_iter().map(|end| Record::Ended { end }));
    records
}

fn events() -> Vec<Progress> {
    let mut events = vec![
        Progress::StepStarted { step: 1, of: 4, what: "w".into() },
        Progress::Replicas { left: 40, of: 55, per_minute: 12.5, eta: Some(SignedDuration::from_secs(192)) },
        Progress::Replicas { left: 55, of: 55, per_minute: 0.0, eta: None },
        Progress::Waiting { waiting_for: "w".into(), until: now() },
        Progress::Note { text: "t".into() },
        Progress::StepDone { step: 1, note: "n".into() },
    ];
    events.extend(acts().into_iter().map(|act| Progress::Acting { act }));
    events.extend(ends().into_iter().map(|end| Progress::Ended { end }));
    events
}

fn journal_lines() -> Vec<Value> {
    let line = |(i, record): (usize, Record)| {
        let record = JournalRecord { seq: i as u64 + 1, at: now(), record };
        serde_json::from_str(&journal::encode(&record).unwrap()).unwrap()
    };
    records().into_iter().enumerate().map(line).collect()
}

fn values<T: serde::Serialize>(items: &[T]) -> Vec<Value> {
    items.iter().map(|i| serde_json::to_value(i).unwrap()).collect()
}

fn event_lines() -> Vec<Value> {
    events().iter().map(|e| serde_json::from_str(&e.to_json().unwrap()).unwrap()).collect()
}

/// Names of an enum's variants, as serde tells them when it meets one that it does not know.
fn variants<T: DeserializeOwned + std::fmt::Debug>() -> BTreeSet<String> {
    let unknown = "no such variant";
    let said = [json!(unknown), json!({ unknown: {} }), json!({ "event": unknown })]
        .into_iter()
        .filter_map(|v| serde_json::from_value::<T>(v).err().map(|e| e.to_string()))
        .find(|e| e.contains("unknown variant"))
        .expect("an enum");
    let (_, list) = said.split_once(", expected").unwrap();
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Names of the variants in the schema at `pointer`: an `enum`, or a `oneOf` of words and tagged objects.
fn branches(name: &str, pointer: &str) -> BTreeSet<String> {
    let schema = schema(name);
    let place = schema.pointer(pointer).unwrap_or_else(|| panic!("{name} has no {pointer}"));
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    if let Some(words) = place["enum"].as_array() {
        return words.iter().map(text).collect();
    }
    let of_branch = |b: &Value| match (&b["const"], &b["properties"]["event"]["const"]) {
        (Value::String(word), _) | (_, Value::String(word)) => word.clone(),
        _ => text(&b["required"][0]),
    };
    ["oneOf", "anyOf"]
        .iter()
        .filter_map(|k| place[*k].as_array())
        .flatten()
        .filter(|b| b["type"] != "null")
        .map(of_branch)
        .collect()
}

#[test]
fn schemas_are_valid_and_described() {
    for name in NAMES {
        let schema = schema(name);
        assert_eq!(jsonschema::meta::validate(&schema).map_err(|e| e.to_string()), Ok(()), "{name}");
        assert!(schema["description"].is_string());
        let mut undescribed = Vec::new();
        undescribed_properties(&schema, name, &mut undescribed);
        assert!(undescribed.is_empty(), "{undescribed:#?}");
    }
}

/// Properties without a description, but for the tags of variants.
fn undescribed_properties(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let (Some(Value::Object(properties)), None) = (map.get("properties"), map.get("maxProperties"))
            {
                for (key, property) in properties {
                    if property["description"].as_str().is_none_or(str::is_empty)
                        && property["const"].is_null()
                    {
                        found.push(format!("{at}/{key}"));
                    }
                }
            }
            map.iter().for_each(|(k, v)| undescribed_properties(v, &format!("{at}/{k}"), found));
        }
        Value::Array(items) => items.iter().for_each(|v| undescribed_properties(v, at, found)),
        _ => {}
    }
}

#[test]
fn plans_fit() {
    for plan in plans() {
        let text = plan.to_json().unwrap();
        fits("plan", &serde_json::from_str(&text).unwrap());
        assert_eq!(Plan::from_json(&text).unwrap(), plan);
    }
}

#[test]
fn observations_fit() {
    values(&observations()).iter().for_each(|v| fits("observation", v));
}

#[test]
fn journal_lines_fit() {
    journal_lines().iter().for_each(|v| fits("journal", v));
}

#[test]
fn events_fit() {
    event_lines().iter().for_each(|v| fits("event", v));
    for event in events() {
        assert_eq!(Progress::from_json(&event.to_json().unwrap()).unwrap(), event);
    }
}

#[test]
fn variants_of_types_and_schemas_agree() {
    let agree = |types: BTreeSet<String>, name: &str, pointer: &str| {
        assert_eq!(types, branches(name, pointer), "{name}{pointer}");
    };
    agree(variants::<Step>(), "plan", "/$defs/step");
    agree(variants::<Operation>(), "plan", "/$defs/request/properties/operation");
    agree(
        variants::<Redistribution>(),
        "plan",
        "/$defs/request/properties/options/properties/redistribution",
    );
    agree(variants::<OldData>(), "plan", "/$defs/request/properties/options/properties/old_data");
    agree(variants::<Finish>(), "plan", "/$defs/finish");
    agree(variants::<Certificates>(), "plan", "/$defs/request/properties/options/properties/certificates");
    agree(variants::<Pace>(), "plan", "/$defs/request/properties/options/properties/pace");
    agree(variants::<NodeRef>(), "plan", "/$defs/node_ref");
    agree(variants::<Severity>(), "plan", "/$defs/finding/properties/severity");
    agree(variants::<Retry>(), "plan", "/$defs/finding/properties/retry");
    agree(variants::<kwdb_scale_core::assess::OperationKind>(), "plan", "/properties/change/properties/kind");
    agree(variants::<NodeClass>(), "plan", "/$defs/node_class");
    agree(variants::<NodeClass>(), "observation", "/$defs/node_class");
    agree(variants::<Service>(), "observation", "/$defs/reach/properties/service");
    agree(variants::<RangeKind>(), "observation", "/$defs/range/properties/kind");
    agree(variants::<Act>(), "journal", "/$defs/act");
    agree(variants::<ActResult>(), "journal", "/$defs/act_result");
    agree(variants::<Record>(), "journal", "/$defs/record");
    agree(variants::<End>(), "journal", "/$defs/end");
    agree(variants::<Progress>(), "event", "");
    let failed = branches("journal", "/$defs/act_result/oneOf/2/properties/failed/properties/kind");
    assert_eq!(variants::<PortErrorKind>(), failed);
    let reason = branches("journal", "/$defs/end/oneOf/2/properties/stopped/properties/reason");
    assert_eq!(variants::<StopReason>(), reason);
    let how = branches("journal", "/$defs/record/oneOf/7/properties/cancel_asked/properties/how");
    assert_eq!(variants::<Cancel>(), how);
}

/// So that a variant cannot be added to a type and its schema without a value that tries it.
#[test]
fn the_values_show_every_variant() {
    let tags = |values: Vec<Value>| -> BTreeSet<String> {
        let tag = |v: &Value| match v {
            Value::String(word) => word.clone(),
            Value::Object(map) => match map.get("event") {
                Some(event) => event.as_str().unwrap().to_owned(),
                None => map.keys().next().unwrap().clone(),
            },
            other => panic!("{other}"),
        };
        values.iter().map(tag).collect()
    };
    let steps: Vec<Step> = plans().into_iter().flat_map(|p| p.steps).collect();
    let operations: Vec<Operation> = plans().into_iter().map(|p| p.request.operation).collect();
    assert_eq!(tags(values(&steps)), variants::<Step>());
    assert_eq!(tags(values(&operations)), variants::<Operation>());
    assert_eq!(tags(values(&acts())), variants::<Act>());
    assert_eq!(tags(values(&ends())), variants::<End>());
    assert_eq!(tags(values(&records())), variants::<Record>());
    assert_eq!(tags(values(&events())), variants::<Progress>());
}

#[test]
fn unknown_fields_are_allowed() {
    let new = || json!({"a newer": ["library", "wrote", "this"]});
    let mut plan = serde_json::to_value(&plans()[2]).unwrap();
    for place in [
        "",
        "/policy",
        "/request",
        "/request/options",
        "/change",
        "/leaving/0",
        "/gateways/0",
        "/findings/0",
        "/fingerprint",
    ] {
        plan.pointer_mut(place).unwrap()["future"] = new();
    }
    plan["steps"][0]["mark"]["future"] = new();
    assert_eq!(faults("plan", &plan, false), Vec::<String>::new());
    assert!(!faults("plan", &plan, true).is_empty(), "the strict form would let anything pass");
    assert_eq!(serde_json::from_value::<Plan>(plan).unwrap(), plans()[2]);

    let first = &observations()[0];
    let mut observation = serde_json::to_value(first).unwrap();
    for place in [
        "",
        "/nodes/1",
        "/nodes/1/stores/11",
        "/nodes/1/stores/11/status",
        "/ranges/known/0",
        "/other_views/0",
    ] {
        observation.pointer_mut(place).unwrap()["future"] = new();
    }
    assert_eq!(faults("observation", &observation, false), Vec::<String>::new());
    assert!(!faults("observation", &observation, true).is_empty());
    assert_eq!(Observation::from_json(&observation.to_string()).unwrap(), *first);

    let mut line = journal_lines().pop().unwrap();
    line["future"] = new();
    assert_eq!(faults("journal", &line, false), Vec::<String>::new());
    assert!(!faults("journal", &line, true).is_empty());

    let mut event = event_lines().remove(0);
    event["future"] = new();
    assert_eq!(faults("event", &event, false), Vec::<String>::new());
    assert!(!faults("event", &event, true).is_empty());
    assert_eq!(Progress::from_json(&event.to_string()).unwrap(), events()[0]);
}

#[test]
fn another_major_version_is_refused() {
    let mut samples = BTreeMap::from([
        ("plan", serde_json::to_value(&plans()[0]).unwrap()),
        ("observation", serde_json::to_value(&observations()[0]).unwrap()),
        ("journal", journal_lines().remove(0)),
        ("event", event_lines().remove(0)),
    ]);
    for (name, value) in &mut samples {
        fits(name, value);
        value["schema"] = json!(format!("kwdb-scale.{name}/v2"));
        misfits(name, value);
    }
    assert!(matches!(Plan::from_json(&samples["plan"].to_string()), Err(PlanError::Schema(_))));
    let newer = |e| matches!(e, ReadError::Schema { .. });
    assert!(newer(Observation::from_json(&samples["observation"].to_string()).unwrap_err()));
    assert!(newer(Progress::from_json(&samples["event"].to_string()).unwrap_err()));
    assert!(matches!(Observation::from_json("{}").unwrap_err(), ReadError::Shape { .. }));
    let line = format!("{}\n", samples["journal"]);
    assert!(matches!(journal::decode(&line), Err(journal::CodecError::Schema { .. })));
}

#[test]
fn what_is_wrong_does_not_fit() {
    let good = serde_json::to_value(&plans()[2]).unwrap();
    type Edit = fn(&mut Value);
    let wrong: [(&str, Edit); 8] = [
        ("no known ids", |v| drop(v.as_object_mut().unwrap().remove("known_ids"))),
        ("an id that is no id", |v| v["id"] = json!("xyz")),
        ("a negative node", |v| v["leaving"][0]["node"] = json!(-4)),
        ("a node by name", |v| v["known_ids"][0] = json!("n1")),
        ("a step of no kind", |v| v["steps"][0] = json!({"wipe": {"node": 4}})),
        ("a step of two kinds", |v| v["steps"][0]["stop"] = json!({"node": 4})),
        ("a mark of nobody", |v| v["steps"][0]["mark"]["nodes"] = json!([])),
        ("a fact both known and not", |v| v["fingerprint"]["cluster_id"]["unknown"] = json!("why")),
    ];
    fits("plan", &good);
    for (what, how) in wrong {
        let mut value = good.clone();
        how(&mut value);
        assert!(!faults("plan", &value, false).is_empty(), "{what} fits");
    }
    let mut observation = serde_json::to_value(&observations()[0]).unwrap();
    observation["nodes"]["1"]["draining"] = json!(false);
    misfits("observation", &observation);
    let mut line = journal_lines().remove(0);
    line["sum"] = json!("");
    misfits("journal", &line);
    misfits("event", &json!({"event": "step_started", "step": 1}));
}
