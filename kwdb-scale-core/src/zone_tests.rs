use super::*;
use crate::rows::RangeKind;
use crate::topology::{RangeId, StoreId};

/// Rows of `kwdb_internal.zones` as KWDB V3.2.1 printed them (partitions with list, map and joint constraints, quoted
/// names, inherited factors).
fn observed_zones() -> Vec<ZoneRow> {
    let text = include_str!("../tests/data/observed/zones.csv");
    csv::Reader::from_reader(text.as_bytes())
        .records()
        .map(|record| {
            let record = record.unwrap();
            let text = |i: usize| Some(record[i].to_owned()).filter(|t| t != "NULL");
            ZoneRow {
                zone_id: record[0].parse().unwrap(),
                subzone_id: record[1].parse().unwrap(),
                target: text(2),
                range_name: text(3),
                database: text(4),
                table: text(5),
                index: text(6),
                partition: text(7),
                raw_config_sql: text(8),
                full_config_sql: text(9),
            }
        })
        .collect()
}

fn observed_ranges() -> Vec<RangeRow> {
    let text = include_str!("../tests/data/observed/ranges.csv");
    csv::Reader::from_reader(text.as_bytes())
        .records()
        .map(|record| {
            let record = record.unwrap();
            let stores = |i: usize| -> Vec<StoreId> {
                let inner = record[i].trim_matches(['{', '}']);
                inner.split(',').filter(|t| !t.is_empty()).map(|t| StoreId(t.parse().unwrap())).collect()
            };
            RangeRow {
                range_id: RangeId(record[0].parse().unwrap()),
                kind: RangeKind::Relational,
                start_key: record[2].to_owned(),
                table_id: record[3].parse().ok(),
                database: Some(record[4].to_owned()),
                table: Some(record[5].to_owned()),
                index: Some(record[6].to_owned()),
                replicas: stores(7),
                learners: stores(8),
            }
        })
        .collect()
}

fn zone<'a>(set: &'a ZoneSet, target: &str) -> &'a Zone {
    set.iter().find(|z| z.target == target).unwrap()
}

#[test]
fn every_observed_zone_is_understood() {
    let set = ZoneSet::build(&observed_zones());
    assert_eq!(set.iter().count(), 13);
    for z in set.iter() {
        assert!(z.num_replicas.known().is_some(), "{z:?}");
        assert!(z.constraints.known().is_some(), "{z:?}");
        assert!(z.lease_preferences.known().is_some(), "{z:?}");
        assert_ne!(z.object, ZoneObject::Unknown);
    }
    // Inherited from DATABASE system although the table's own configuration does not say.
    assert_eq!(zone(&set, "TABLE system.public.replication_stats").num_replicas, Fact::Known(5));
    assert_eq!(zone(&set, "TABLE \"My DB\".public.\"T 1\"").num_replicas, Fact::Known(5));
}

#[test]
fn observed_constraints() {
    let set = ZoneSet::build(&observed_zones());
    let joint = zone(&set, "PARTITION a OF INDEX app.public.pt@primary");
    let groups = joint.constraints.known().unwrap();
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].count, Some(1));
    assert_eq!(join(&groups[0].constraints, ","), "+region=NODE1,+zone=x");
    assert_eq!(groups[0].allows(&"region=NODE1,zone=x".into()), Some(true));
    assert_eq!(groups[0].allows(&"region=NODE1".into()), Some(false));

    let attribute = zone(&set, "PARTITION b OF INDEX app.public.pt@primary");
    let groups = attribute.constraints.known().unwrap();
    assert_eq!(groups[0].count, None);
    assert_eq!(groups[0].allows(&"region=NODE1".into()), None);
    assert_eq!(join(&attribute.lease_preferences.known().unwrap()[0].constraints, ","), "+region=NODE1");

    let prohibited = zone(&set, "PARTITION \"Pa rt\" OF INDEX \"My DB\".public.pt2@primary");
    let groups = prohibited.constraints.known().unwrap();
    assert_eq!(join(&groups[0].constraints, ","), "-zone=x,-region=NODE3");
    assert_eq!(groups[0].allows(&"region=NODE3".into()), Some(false));
    assert_eq!(groups[0].allows(&"region=NODE2".into()), Some(true));
}

#[test]
fn cures_restore_what_was_printed() {
    let set = ZoneSet::build(&observed_zones());
    let (n1, n3) = (Locality::from("region=NODE1"), Locality::from("region=NODE3"));
    let z = zone(&set, "PARTITION \"Pa rt\" OF INDEX \"My DB\".public.pt2@primary");
    let cure = z.constraint_cure(&[&n3], false).unwrap();
    let alter =
        "ALTER PARTITION \"Pa rt\" OF INDEX \"My DB\".public.pt2@primary CONFIGURE ZONE USING constraints = ";
    assert_eq!(cure.exclude, format!("{alter}'[-zone=x]';"));
    assert_eq!(cure.restore, format!("{alter}'[-zone=x, -region=NODE3]';"));
    assert_eq!(z.constraint_cure(&[&n3], true).unwrap().exclude, format!("{alter}'[]';"));

    let z = zone(&set, "PARTITION a OF INDEX app.public.pt@primary");
    let cure = z.constraint_cure(&[&n1], false).unwrap();
    let alter = "ALTER PARTITION a OF INDEX app.public.pt@primary CONFIGURE ZONE USING constraints = ";
    assert_eq!(cure.exclude, format!("{alter}'[]';"));
    assert_eq!(cure.restore, format!("{alter}e'{{\\'+region=NODE1,+zone=x\\': 1}}';"));

    let z = zone(&set, "PARTITION b OF INDEX app.public.pt@primary");
    let cure = z.lease_cure(&[&n1]).unwrap();
    assert!(cure.exclude.ends_with("lease_preferences = '[]';"), "{cure:?}");
    assert!(cure.restore.ends_with("lease_preferences = '[[+region=NODE1]]';"), "{cure:?}");
    assert_eq!(zone(&set, "DATABASE app").constraint_cure(&[&n1], true), None);
}

#[test]
fn map_form_keeps_what_stays() {
    let row = ZoneRow {
        zone_id: 79,
        subzone_id: 1,
        target: Some("PARTITION a OF TABLE app.public.pt".into()),
        partition: Some("a".into()),
        table: Some("pt".into()),
        raw_config_sql: Some(
            "ALTER PARTITION a OF TABLE app.public.pt CONFIGURE ZONE USING\n\tnum_replicas = 3,\n\tconstraints = '{+region=NODE1: 1, +region=NODE2: 1}'"
                .into(),
        ),
        ..ZoneRow::default()
    };
    let z = Zone::of_row(&row);
    let cure = z.constraint_cure(&[&"region=NODE2".into()], false).unwrap();
    assert!(cure.exclude.ends_with("constraints = '{\"+region=NODE1\": 1}';"), "{cure:?}");
    assert!(z.num_replicas.why_unknown().is_some(), "no full configuration, no factor");
}

#[test]
fn observed_ranges_find_their_zones() {
    let zones = observed_zones();
    let set = ZoneSet::build(&zones);
    let mut by_target: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for range in observed_ranges() {
        let found = set.candidates(&range);
        let candidates = found.known().unwrap();
        *by_target.entry(candidates.zones[0].target.clone()).or_default() += 1;
    }
    // The server's own report (system.replication_stats) of such a cluster: 35 + 2 ranges of database system (the two
    // tables with a configuration of their own inherit its factor), 1 meta, 2 system, 1 liveness, 18 of the default.
    assert_eq!(by_target["DATABASE system"], 33);
    assert_eq!(by_target["TABLE system.public.replication_stats"], 1);
    assert_eq!(by_target["TABLE system.public.replication_constraint_stats"], 1);
    assert_eq!(by_target["RANGE meta"], 1);
    assert_eq!(by_target["RANGE system"], 2);
    assert_eq!(by_target["RANGE liveness"], 1);
    assert_eq!(by_target["TABLE app.public.kv"], 1);
    assert_eq!(by_target["TABLE \"My DB\".public.\"T 1\""], 1);
}

#[test]
fn a_partitioned_table_has_several_candidates() {
    let set = ZoneSet::build(&observed_zones());
    let range = RangeRow {
        range_id: RangeId(60),
        kind: RangeKind::Relational,
        start_key: "/Table/79/1/\"a\"".into(),
        table_id: Some(0),
        database: Some("app".into()),
        table: Some("pt".into()),
        index: Some(String::new()),
        replicas: vec![],
        learners: vec![],
    };
    let found = set.candidates(&range);
    let targets: Vec<_> = found.known().unwrap().zones.iter().map(|z| z.target.as_str()).collect();
    assert_eq!(
        targets,
        [
            "DATABASE app",
            "PARTITION a OF INDEX app.public.pt@primary",
            "PARTITION b OF INDEX app.public.pt@primary"
        ]
    );
    assert_eq!(table_of(&range), Some(79));
    let nowhere = RangeRow { start_key: "?".into(), ..range };
    assert!(set.candidates(&nowhere).why_unknown().is_some());
}
