//! Zone configurations: which number of replicas and which constraints hold for a range.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kwdb_scale_core::rows::ZoneRow;
use kwdb_scale_core::topology::Locality;

use super::cluster::{Cluster, Event};
use super::types::{SqlRefusal, ZoneTarget};

/// One zone configuration; what is `None` is inherited.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct ZoneConfig {
    pub(crate) sized: bool,
    pub(crate) gc_seconds: Option<u64>,
    pub(crate) num_replicas: Option<u32>,
    pub(crate) ts_merge: bool,
    pub(crate) constraints: Option<String>,
}

/// What holds for a range: number of replicas and constraints.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Policy {
    pub(crate) num_replicas: u32,
    pub(crate) constraints: Vec<Constraint>,
    /// Constraints that no available store meets are dropped (partitions by hash points).
    pub(crate) lenient: bool,
}

/// `+key=value` or `-key=value`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Constraint {
    pub(crate) prohibited: bool,
    pub(crate) key: String,
    pub(crate) value: String,
    /// For how many replicas it holds; `None` is for all.
    pub(crate) replicas: Option<u32>,
}

impl Constraint {
    /// Whether a replica may be at this locality, as far as this constraint goes for all replicas.
    pub(crate) fn allows(&self, locality: &Locality) -> bool {
        locality.has(&self.key, &self.value) != self.prohibited
    }
}

pub(crate) fn defaults() -> BTreeMap<ZoneTarget, ZoneConfig> {
    let whole = |gc, n| ZoneConfig {
        sized: true,
        gc_seconds: Some(gc),
        num_replicas: Some(n),
        ts_merge: false,
        constraints: Some("[]".to_owned()),
    };
    let gc_only =
        || ZoneConfig { gc_seconds: Some(600), constraints: Some("[]".to_owned()), ..ZoneConfig::default() };
    let table = |name: &str| ZoneTarget::Table { database: "system".to_owned(), table: name.to_owned() };
    BTreeMap::from([
        (ZoneTarget::Range("default".to_owned()), ZoneConfig { ts_merge: true, ..whole(90_000, 3) }),
        (ZoneTarget::Database("system".to_owned()), whole(90_000, 5)),
        (ZoneTarget::Range("meta".to_owned()), whole(3_600, 5)),
        (ZoneTarget::Range("system".to_owned()), whole(90_000, 5)),
        (ZoneTarget::Range("liveness".to_owned()), whole(600, 5)),
        (table("replication_constraint_stats"), gc_only()),
        (table("replication_stats"), gc_only()),
    ])
}

impl Cluster {
    /// `ALTER … CONFIGURE ZONE USING num_replicas = n, constraints = 'text'`.
    ///
    /// # Errors
    /// Constraints anywhere but on a partition (0A000); two replicas; a target that does not exist.
    pub fn configure_zone(
        &mut self,
        target: ZoneTarget,
        num_replicas: Option<u32>,
        constraints: Option<&str>,
    ) -> Result<(), SqlRefusal> {
        let refuse = |code, message: &str| Err(SqlRefusal { code, message: message.to_owned() });
        let partition = matches!(target, ZoneTarget::Partition { .. });
        if constraints.is_some() && !partition {
            return refuse("0A000", "set zone config constraints and lease_preferences is not supported");
        }
        if num_replicas == Some(2) {
            return refuse("XXUUU", "at least 3 replicas are required for multi-replica configurations");
        }
        if num_replicas == Some(0) {
            return refuse("XXUUU", "at least one replica is required");
        }
        let Some(known) = self.target_exists(&target) else {
            return refuse("42P01", &format!("relation \"{}\" does not exist", target_name(&target)));
        };
        if constraints.is_some_and(|c| parse_constraints(c).is_none()) {
            return refuse("22023", "could not parse constraints");
        }
        let own = self.zones.entry(known).or_default();
        if num_replicas.is_some() {
            own.num_replicas = num_replicas;
        }
        if let Some(text) = constraints {
            own.constraints = Some(text.to_owned());
        }
        self.refresh_policies();
        Ok(())
    }

    /// `ALTER … CONFIGURE ZONE DISCARD`. Whether there was one.
    pub fn discard_zone(&mut self, target: &ZoneTarget) -> bool {
        let was = !matches!(target, ZoneTarget::Range(_)) && self.zones.remove(target).is_some();
        self.refresh_policies();
        was
    }

    fn target_exists(&self, target: &ZoneTarget) -> Option<ZoneTarget> {
        let known = match target {
            ZoneTarget::Range(name) => {
                matches!(name.as_str(), "default" | "meta" | "system" | "liveness" | "timeseries")
            }
            ZoneTarget::Database(name) => self.databases.contains(name),
            ZoneTarget::Table { database, table } => self.find_table(database, table).is_some(),
            ZoneTarget::Partition { database, table, partition } => self
                .find_table(database, table)
                .and_then(|t| self.tables.get(t))
                .is_some_and(|t| t.partitions.contains(partition)),
        };
        known.then(|| target.clone())
    }

    /// Configurations from the innermost to the outermost for a range's target.
    fn chain(&self, target: &ZoneTarget) -> Vec<&ZoneConfig> {
        let mut keys = vec![target.clone()];
        if let ZoneTarget::Range(name) = target
            && name == "default"
        {
            keys.clear();
        }
        if let ZoneTarget::Partition { database, table, .. } = target {
            keys.push(ZoneTarget::Table { database: database.clone(), table: table.clone() });
        }
        if let ZoneTarget::Partition { database, .. } | ZoneTarget::Table { database, .. } = target {
            keys.push(ZoneTarget::Database(database.clone()));
        }
        keys.push(ZoneTarget::Range("default".to_owned()));
        keys.iter().filter_map(|k| self.zones.get(k)).collect()
    }

    /// Works out anew which policy holds for which range, after zones or ranges have changed.
    pub(crate) fn refresh_policies(&mut self) {
        let mut seen: BTreeMap<ZoneTarget, usize> = BTreeMap::new();
        let mut policies: Vec<Policy> = Vec::new();
        let mut of_range = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            let table = range.table.and_then(|t| self.tables.get(t));
            let target = match (table, &range.partition) {
                (Some(t), Some(p)) => ZoneTarget::Partition {
                    database: t.database.clone(),
                    table: t.name.clone(),
                    partition: p.clone(),
                },
                (Some(t), None) => ZoneTarget::Table { database: t.database.clone(), table: t.name.clone() },
                (None, _) if range.zone == super::schema::SYSTEM_DATABASE => {
                    ZoneTarget::Database("system".to_owned())
                }
                (None, _) => ZoneTarget::Range(range.zone.to_owned()),
            };
            let index = match seen.get(&target) {
                Some(index) => *index,
                None => {
                    let chain = self.chain(&target);
                    let text = chain.iter().find_map(|z| z.constraints.clone()).unwrap_or_default();
                    policies.push(Policy {
                        num_replicas: chain.iter().find_map(|z| z.num_replicas).unwrap_or(3),
                        constraints: parse_constraints(&text).unwrap_or_default(),
                        lenient: table.is_some_and(|t| t.hash_points) && range.partition.is_some(),
                    });
                    seen.insert(target, policies.len() - 1);
                    policies.len() - 1
                }
            };
            of_range.push(index);
        }
        for (range, policy) in self.ranges.iter_mut().zip(of_range) {
            range.policy = policy;
        }
        self.policies = policies;
        self.gauge_all();
        self.events.push(self.now + 200_000_000, Event::Purgatory);
    }

    /// The rows of `kwdb_internal.zones`.
    pub(crate) fn zone_rows(&self) -> Vec<ZoneRow> {
        let mut rows: Vec<ZoneRow> = self.zones.iter().map(|(t, own)| self.zone_row(t, own)).collect();
        rows.sort_by_key(|r| (r.zone_id, r.subzone_id));
        rows
    }

    fn zone_row(&self, target: &ZoneTarget, own: &ZoneConfig) -> ZoneRow {
        let mut row = ZoneRow { target: Some(target_name(target)), ..ZoneRow::default() };
        let table_id = |database: &str, table: &str| {
            self.find_table(database, table).and_then(|t| self.tables.get(t)).map_or(0, |t| t.id)
        };
        match target {
            ZoneTarget::Range(name) => {
                row.zone_id = match name.as_str() {
                    "default" => 0,
                    "meta" => 16,
                    "system" => 17,
                    "timeseries" => 18,
                    _ => 22,
                };
                row.range_name = Some(name.clone());
            }
            ZoneTarget::Database(name) => {
                let at = self.databases.iter().position(|d| d == name).unwrap_or(0) as u64;
                row.zone_id = if at == 0 { 1 } else { 49 + at };
                row.database = Some(name.clone());
            }
            ZoneTarget::Table { database, table } => {
                row.zone_id = table_id(database, table);
                row.database = Some(database.clone());
                row.table = Some(table.clone());
            }
            ZoneTarget::Partition { database, table, partition } => {
                let found = self.find_table(database, table).and_then(|t| self.tables.get(t));
                row.zone_id = table_id(database, table);
                let at = found.and_then(|t| t.partitions.iter().position(|p| p == partition));
                row.subzone_id = 1 + at.unwrap_or(0) as u64;
                row.database = Some(database.clone());
                row.table = Some(table.clone());
                row.index = Some("primary".to_owned());
                row.partition = Some(partition.clone());
            }
        }
        let name = target_name(target);
        row.raw_config_sql = Some(config_sql(&name, &[own]));
        row.full_config_sql = Some(config_sql(&name, &self.chain(target)));
        row
    }
}

fn target_name(target: &ZoneTarget) -> String {
    match target {
        ZoneTarget::Range(name) => format!("RANGE {name}"),
        ZoneTarget::Database(name) => format!("DATABASE {name}"),
        ZoneTarget::Table { database, table } => format!("TABLE {database}.public.{table}"),
        ZoneTarget::Partition { database, table, partition } => {
            format!("PARTITION {partition} OF TABLE {database}.public.{table}")
        }
    }
}

/// The statement as `SHOW ZONE CONFIGURATIONS` prints it; the first configuration that has a field gives it.
fn config_sql(name: &str, chain: &[&ZoneConfig]) -> String {
    let mut text = format!("ALTER {name} CONFIGURE ZONE USING\n");
    let mut fields = Vec::new();
    if chain.iter().any(|z| z.sized) {
        fields.push("range_min_bytes = 134217728".to_owned());
        fields.push("range_max_bytes = 536870912".to_owned());
    }
    if let Some(gc) = chain.iter().find_map(|z| z.gc_seconds) {
        fields.push(format!("gc.ttlseconds = {gc}"));
    }
    if let Some(n) = chain.iter().find_map(|z| z.num_replicas) {
        fields.push(format!("num_replicas = {n}"));
    }
    if chain.first().is_some_and(|z| z.ts_merge) {
        fields.push("ts_merge.days = 240h0m0s".to_owned());
    }
    if let Some(constraints) = chain.iter().find_map(|z| z.constraints.as_ref()) {
        fields.push(format!("constraints = '{constraints}'"));
        fields.push("lease_preferences = '[]'".to_owned());
    }
    for (i, field) in fields.iter().enumerate() {
        let _ = write!(text, "{}\t{field}", if i == 0 { "" } else { ",\n" });
    }
    text
}

/// `[+region=a, -zone=b]` or `{"+region=a": 1, …}`; `None` when it is neither.
pub(crate) fn parse_constraints(text: &str) -> Option<Vec<Constraint>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Vec::new());
    }
    let map = text.starts_with('{');
    let inner = text.strip_prefix(['[', '{'])?.strip_suffix([']', '}'])?;
    let mut all = Vec::new();
    for piece in inner.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (rule, replicas) = if map {
            let (rule, n) = piece.rsplit_once(':')?;
            (rule.trim(), Some(n.trim().parse().ok()?))
        } else {
            (piece, None)
        };
        let rule = rule.trim_matches(['"', '\'']);
        let prohibited = rule.starts_with('-');
        let (key, value) = rule.strip_prefix(['+', '-'])?.split_once('=')?;
        all.push(Constraint { prohibited, key: key.to_owned(), value: value.to_owned(), replicas });
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_read_in_both_forms() {
        let list = parse_constraints("[-region=NODE3]").unwrap();
        assert!(list[0].prohibited && list[0].replicas.is_none());
        assert!(!list[0].allows(&"region=NODE3".into()) && list[0].allows(&"region=NODE1".into()));
        let map = parse_constraints("{\"+region=NODE1\": 1, \"+region=NODE2\": 2}").unwrap();
        assert_eq!(map[1].replicas, Some(2));
        assert_eq!(parse_constraints("region"), None);
        assert_eq!(parse_constraints("[]"), Some(Vec::new()));
    }

    #[test]
    fn statement_text_as_observed() {
        let zones = defaults();
        let text = config_sql("RANGE default", &[&zones[&ZoneTarget::Range("default".into())]]);
        assert_eq!(
            text,
            "ALTER RANGE default CONFIGURE ZONE USING\n\trange_min_bytes = 134217728,\n\trange_max_bytes = 536870912,\n\tgc.ttlseconds = 90000,\n\tnum_replicas = 3,\n\tts_merge.days = 240h0m0s,\n\tconstraints = '[]',\n\tlease_preferences = '[]'"
        );
    }
}
