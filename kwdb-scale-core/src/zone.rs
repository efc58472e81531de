//! Zone configurations: how many replicas a range wants and where they may be.
//!
//! A zone is read from the SQL text that KWDB prints in `kwdb_internal.zones`. Which zone a range belongs to
//! follows the server (`config.DecodeKeyIntoZoneIDAndSuffix`, `sql.getZoneConfig` of V3.2.1): by the start key,
//! then table, database, `RANGE default`. The `table_id` column is no help: it is 0 for relational ranges.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fact::Fact;
use crate::rows::{RangeRow, ZoneRow};
use crate::topology::Locality;

/// Highest table id whose zone cannot be set on its own (`keys.MaxSystemConfigDescID`).
const MAX_SYSTEM_CONFIG_ID: u64 = 10;
/// Ids that are no tables; their key space belongs to database `system` (`keys.PseudoTableIDs`).
const PSEUDO_TABLES: [u64; 5] = [16, 17, 18, 22, 29];
/// Id of the zone `RANGE default`.
const DEFAULT_ZONE: u64 = 0;
/// Id of database `system`.
const SYSTEM_DATABASE: u64 = 1;

/// What a zone configuration belongs to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneObject {
    /// `RANGE default`, `meta`, `liveness`, `system` or `timeseries`.
    Range(String),
    /// A database.
    Database(String),
    /// A table.
    Table(String),
    /// An index of a table.
    Index(String),
    /// A partition of a table's index.
    Partition(String),
    /// The row names no object.
    Unknown,
}

/// Whether a constraint wants or forbids.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConstraintKind {
    /// `+key=value`
    Required,
    /// `-key=value`
    Prohibited,
}

/// `+key=value`, `-key=value`, or `+attribute` of a store.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Constraint {
    /// Wants or forbids.
    pub kind: ConstraintKind,
    /// Locality key; empty for a node's or store's attribute.
    pub key: String,
    /// Locality value, or the attribute.
    pub value: String,
}

impl Constraint {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (kind, rest) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(rest), _) => (ConstraintKind::Required, rest),
            (_, Some(rest)) => (ConstraintKind::Prohibited, rest),
            _ => return None,
        };
        let (key, value) = rest.split_once('=').unwrap_or(("", rest));
        (!value.is_empty()).then(|| Self { kind, key: key.to_owned(), value: value.to_owned() })
    }

    /// Whether the tier that it names is one of `locality`'s.
    pub fn names(&self, locality: &Locality) -> bool {
        locality.has(&self.key, &self.value)
    }

    /// Whether a node with `locality` satisfies it. An attribute cannot be judged by locality: `None`.
    pub fn allows(&self, locality: &Locality) -> Option<bool> {
        (!self.key.is_empty()).then(|| self.names(locality) == (self.kind == ConstraintKind::Required))
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.kind == ConstraintKind::Required { "+" } else { "-" })?;
        if !self.key.is_empty() {
            write!(f, "{}=", self.key)?;
        }
        f.write_str(&self.value)
    }
}

/// Constraints that hold together.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ConstraintGroup {
    /// All of them must hold.
    pub constraints: Vec<Constraint>,
    /// For so many replicas; `None` for every replica.
    pub count: Option<u32>,
}

impl ConstraintGroup {
    /// Whether a node with `locality` satisfies all of them; `None` when an attribute leaves that open.
    pub fn allows(&self, locality: &Locality) -> Option<bool> {
        let mut open = false;
        for constraint in &self.constraints {
            match constraint.allows(locality) {
                Some(false) => return Some(false),
                Some(true) => {}
                None => open = true,
            }
        }
        (!open).then_some(true)
    }
}

/// A zone configuration.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Zone {
    /// Id of the object; the table's for its indexes and partitions.
    pub id: u64,
    /// Zero for the object itself.
    pub subzone: u64,
    /// The target as SQL writes it, such as `PARTITION a OF INDEX app.public.pt@primary`.
    pub target: String,
    /// What it belongs to.
    pub object: ZoneObject,
    /// Wanted replicas, inherited ones filled in.
    pub num_replicas: Fact<u32>,
    /// Constraints of this very zone, without inherited ones (only partitions can have any).
    pub constraints: Fact<Vec<ConstraintGroup>>,
    /// Lease preferences of this very zone, the first the most wanted.
    pub lease_preferences: Fact<Vec<ConstraintGroup>>,
    constraints_literal: Option<String>,
    lease_literal: Option<String>,
}

impl Zone {
    /// Reads a row.
    pub fn of_row(row: &ZoneRow) -> Self {
        let name = |s: &Option<String>| s.clone().filter(|s| !s.is_empty());
        let object = match (name(&row.range_name), name(&row.database), name(&row.table)) {
            (Some(range), ..) => ZoneObject::Range(range),
            (None, Some(database), None) => ZoneObject::Database(database),
            (None, _, Some(table)) => match (name(&row.partition), name(&row.index)) {
                (Some(partition), _) => ZoneObject::Partition(partition),
                (None, Some(index)) => ZoneObject::Index(index),
                (None, None) => ZoneObject::Table(table),
            },
            (None, None, None) => ZoneObject::Unknown,
        };
        let target = name(&row.target).unwrap_or_else(|| format!("zone {}.{}", row.zone_id, row.subzone_id));
        let raw = row.raw_config_sql.as_deref().map(fields);
        let full = row.full_config_sql.as_deref().map(fields);
        let num_replicas = match full.as_ref().and_then(|f| field(f, "num_replicas")) {
            Some(text) => {
                Fact::from_option(text.parse().ok(), format!("num_replicas of {target} is '{text}'"))
            }
            None => Fact::unknown(format!("num_replicas of {target} is not in its configuration")),
        };
        let own = |what: &str| raw.as_ref().and_then(|f| field(f, what)).map(str::to_owned);
        let (constraints_literal, lease_literal) = (own("constraints"), own("lease_preferences"));
        let read = |literal: &Option<String>, what: &str| match literal {
            _ if raw.is_none() => Fact::unknown(format!("the configuration of {target} is NULL")),
            None => Fact::Known(Vec::new()),
            Some(text) => Fact::from_option(
                unquote(text).and_then(|t| groups(&t)),
                format!("{what} of {target} cannot be understood: {text}"),
            ),
        };
        Self {
            id: row.zone_id,
            subzone: row.subzone_id,
            object,
            num_replicas,
            constraints: read(&constraints_literal, "constraints"),
            lease_preferences: read(&lease_literal, "lease_preferences"),
            target,
            constraints_literal,
            lease_literal,
        }
    }

    /// The constraints without what names one of `localities`.
    pub(crate) fn kept(&self, localities: &[&Locality]) -> Vec<ConstraintGroup> {
        self.constraints.known().map(|groups| without(groups, localities)).unwrap_or_default()
    }

    /// The constraints as text, such as `[-region=NODE3]`.
    pub(crate) fn constraints_text(&self) -> String {
        self.constraints_literal.as_deref().and_then(unquote).unwrap_or_default()
    }

    /// The statement that takes away what names one of `localities`, and the one that brings the present
    /// constraints back. With `all`, every constraint is taken away. `None` when the zone has none of its own.
    ///
    /// Nothing here is ever run by this library.
    pub fn constraint_cure(&self, localities: &[&Locality], all: bool) -> Option<Cure> {
        let old = self.constraints_literal.as_deref()?;
        let kept = if all { Vec::new() } else { without(self.constraints.known()?, localities) };
        Some(self.cure("constraints", &literal(&print_groups(&kept)), old))
    }

    /// The same for lease preferences.
    pub fn lease_cure(&self, localities: &[&Locality]) -> Option<Cure> {
        let old = self.lease_literal.as_deref()?;
        let kept = without(self.lease_preferences.known()?, localities);
        let lists: Vec<String> = kept.iter().map(|g| format!("[{}]", join(&g.constraints, ", "))).collect();
        Some(self.cure("lease_preferences", &literal(&format!("[{}]", lists.join(", "))), old))
    }

    fn cure(&self, what: &str, new: &str, old: &str) -> Cure {
        let statement = |value: &str| format!("ALTER {} CONFIGURE ZONE USING {what} = {value};", self.target);
        Cure { exclude: statement(new), restore: statement(old) }
    }
}

/// Two statements for a person to run.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Cure {
    /// Takes the hindrance away.
    pub exclude: String,
    /// Brings the present configuration back.
    pub restore: String,
}

/// The zones that a range may belong to. More than one where the table has zones for indexes or partitions: a
/// descriptor does not tell which partition its keys are in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidates<'a> {
    /// The zone of the table, the database or the cluster, then those of indexes and partitions.
    pub zones: Vec<&'a Zone>,
    /// Least factor among them.
    pub min: u32,
    /// Greatest factor among them.
    pub max: u32,
}

/// Every zone of a cluster.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ZoneSet {
    zones: Vec<Zone>,
    /// Places in `zones` by object id, the object itself before its subzones.
    by_id: BTreeMap<u64, Vec<usize>>,
    by_range: BTreeMap<String, usize>,
    by_database: BTreeMap<String, usize>,
}

impl ZoneSet {
    /// Reads all rows.
    pub fn build(rows: &[ZoneRow]) -> Self {
        let mut zones: Vec<Zone> = rows.iter().map(Zone::of_row).collect();
        zones.sort_by_key(|z| (z.id, z.subzone));
        let mut set = Self::default();
        for (at, zone) in zones.iter().enumerate() {
            set.by_id.entry(zone.id).or_default().push(at);
            match &zone.object {
                ZoneObject::Range(name) => drop(set.by_range.insert(name.clone(), at)),
                ZoneObject::Database(name) => drop(set.by_database.insert(name.clone(), at)),
                _ => {}
            }
        }
        Self { zones, ..set }
    }

    /// All zones by id.
    pub fn iter(&self) -> impl Iterator<Item = &Zone> {
        self.zones.iter()
    }

    /// The zones that `range` may belong to, or why they cannot be told.
    pub fn candidates(&self, range: &RangeRow) -> Fact<Candidates<'_>> {
        let (base, table) = match place(range) {
            Some(Place::Named(name)) => (self.named(name).or_else(|| self.default_zone()), None),
            Some(Place::SystemDatabase) => {
                (self.by_id(SYSTEM_DATABASE).or_else(|| self.default_zone()), None)
            }
            Some(Place::Table(id)) => {
                let database = range.database.as_deref().filter(|d| !d.is_empty());
                let base = self
                    .by_id(id)
                    .or_else(|| database.and_then(|d| self.database(d)))
                    .or_else(|| self.default_zone());
                (base, Some(id))
            }
            None => {
                return Fact::unknown(format!(
                    "the zone of {} cannot be told from its start key {}",
                    range.range_id, range.start_key
                ));
            }
        };
        let Some(base) = base else {
            return Fact::unknown("kwdb_internal.zones has no RANGE default");
        };
        let mut zones = vec![base];
        zones.extend(table.into_iter().flat_map(|id| self.of_id(id)).filter(|z| z.subzone != 0));
        let mut factors = Vec::with_capacity(zones.len());
        for zone in &zones {
            match &zone.num_replicas {
                Fact::Known(n) => factors.push(*n),
                Fact::Unknown(why) => return Fact::Unknown(why.clone()),
            }
        }
        let min = factors.iter().min().copied().unwrap_or_default();
        let max = factors.iter().max().copied().unwrap_or_default();
        Fact::Known(Candidates { zones, min, max })
    }

    fn of_id(&self, id: u64) -> impl Iterator<Item = &Zone> {
        self.by_id.get(&id).into_iter().flatten().filter_map(|at| self.zones.get(*at))
    }

    fn by_id(&self, id: u64) -> Option<&Zone> {
        self.of_id(id).find(|z| z.subzone == 0)
    }

    fn default_zone(&self) -> Option<&Zone> {
        self.by_id(DEFAULT_ZONE)
    }

    fn named(&self, name: &str) -> Option<&Zone> {
        self.by_range.get(name).and_then(|at| self.zones.get(*at))
    }

    fn database(&self, name: &str) -> Option<&Zone> {
        self.by_database.get(name).and_then(|at| self.zones.get(*at))
    }
}

/// The table whose keys a range starts with; `None` for the system key space.
pub fn table_of(range: &RangeRow) -> Option<u64> {
    match place(range) {
        Some(Place::Table(id)) => Some(id),
        _ => None,
    }
}

enum Place {
    Named(&'static str),
    SystemDatabase,
    Table(u64),
}

fn place(range: &RangeRow) -> Option<Place> {
    let key = range.start_key.as_str();
    if key == "/Min" || key.starts_with("/Meta") {
        return Some(Place::Named("meta"));
    }
    if let Some(rest) = key.strip_prefix("/System") {
        return Some(Place::Named(match rest {
            r if r.starts_with("/NodeLivenessMax") => "system",
            r if r.starts_with("/NodeLiveness") => "liveness",
            r if r.starts_with("/tsd") => "timeseries",
            _ => "system",
        }));
    }
    if key.starts_with("/Table/SystemConfigSpan") || key.starts_with("/NamespaceTable") {
        return Some(Place::SystemDatabase);
    }
    let by_key = key.strip_prefix("/Table/").and_then(|rest| rest.split('/').next()?.parse().ok());
    match by_key.or(range.table_id.filter(|id| *id != 0))? {
        id if id <= MAX_SYSTEM_CONFIG_ID || PSEUDO_TABLES.contains(&id) => Some(Place::SystemDatabase),
        id => Some(Place::Table(id)),
    }
}

/// `name`, value text of each field behind `CONFIGURE ZONE USING`.
fn fields(sql: &str) -> Vec<(String, String)> {
    let Some((_, list)) = sql.rsplit_once("CONFIGURE ZONE USING") else { return Vec::new() };
    split_outside_quotes(list)
        .into_iter()
        .filter_map(|piece| piece.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

/// Splits at commas that are not inside quotes or brackets.
fn split_outside_quotes(text: &str) -> Vec<&str> {
    let (mut pieces, mut start, mut quote, mut escaped, mut depth) = (Vec::new(), 0, None, false, 0_i32);
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == '[' || c == '{' => depth += 1,
            None if c == ']' || c == '}' => depth -= 1,
            None if c == ',' && depth == 0 => {
                pieces.extend(text.get(start..at));
                start = at + 1;
            }
            None => {}
        }
    }
    pieces.extend(text.get(start..));
    pieces.into_iter().map(str::trim).filter(|p| !p.is_empty()).collect()
}

/// The text of `'…'` or `e'…'` as KWDB prints strings.
fn unquote(literal: &str) -> Option<String> {
    let (body, escapes) = match literal.strip_prefix(['e', 'E']) {
        Some(rest) => (rest, true),
        None => (literal, false),
    };
    let body = body.strip_prefix('\'')?.strip_suffix('\'')?;
    let mut text = String::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if escapes => text.extend(chars.next()),
            '\'' => text.extend(chars.next()),
            c => text.push(c),
        }
    }
    Some(text)
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `[+a=b, -c=d]`, `{+a=b: 1, '+a=b,+c=d': 2}` or, for lease preferences, `[[+a=b], [+c=d]]`.
fn groups(text: &str) -> Option<Vec<ConstraintGroup>> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        return split_outside_quotes(inner)
            .into_iter()
            .map(|piece| {
                let (names, count) = piece.rsplit_once(':')?;
                let names = names.trim().trim_matches(['\'', '"']);
                Some(ConstraintGroup {
                    constraints: names.split(',').map(Constraint::parse).collect::<Option<_>>()?,
                    count: Some(count.trim().parse().ok()?),
                })
            })
            .collect();
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?.trim();
    if inner.starts_with('[') {
        return split_outside_quotes(inner).into_iter().map(|list| groups(list)?.pop()).collect();
    }
    let constraints: Vec<Constraint> = split_outside_quotes(inner)
        .into_iter()
        .map(|p| Constraint::parse(p.trim_matches(['\'', '"'])))
        .collect::<Option<_>>()?;
    Some(if constraints.is_empty() { Vec::new() } else { vec![ConstraintGroup { constraints, count: None }] })
}

/// The groups without what names one of `localities`. A counted group that names one goes as a whole.
fn without(groups: &[ConstraintGroup], localities: &[&Locality]) -> Vec<ConstraintGroup> {
    let named = |c: &Constraint| localities.iter().any(|l| c.names(l));
    groups
        .iter()
        .filter(|g| g.count.is_none() || !g.constraints.iter().any(named))
        .map(|g| ConstraintGroup {
            constraints: g.constraints.iter().filter(|c| !named(c)).cloned().collect(),
            count: g.count,
        })
        .filter(|g| !g.constraints.is_empty())
        .collect()
}

fn print_groups(groups: &[ConstraintGroup]) -> String {
    if groups.iter().all(|g| g.count.is_none()) {
        let all: Vec<_> = groups.iter().flat_map(|g| &g.constraints).collect();
        return format!("[{}]", join(all, ", "));
    }
    let pieces: Vec<String> = groups
        .iter()
        .map(|g| format!("\"{}\": {}", join(&g.constraints, ","), g.count.unwrap_or_default()))
        .collect();
    format!("{{{}}}", pieces.join(", "))
}

fn join<'a>(constraints: impl IntoIterator<Item = &'a Constraint>, with: &str) -> String {
    constraints.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(with)
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
