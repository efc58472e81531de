//! Parsers of the tables that kwbase prints with `--format=csv` (and tsv, its default without a terminal).
//!
//! Columns are found by name; more, fewer or moved columns do no harm, except that a column which a result cannot
//! do without is an error. `NULL` and empty fields are unknown. A row that does not fit its header is an error: a
//! row silently lost would be a node silently lost.

use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::ports::{DecommissionStatus, PortError, PortErrorKind};
use crate::rows::{LivenessRow, NodeRow};
use crate::topology::{Address, Locality, NodeId, StartMode};

/// Why a table could not be understood.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// There is no header line with a column `id`.
    #[error("no csv or tsv header with a column 'id', the output begins with '{start}'")]
    NoHeader {
        /// The first characters of the text.
        start: String,
    },
    /// A row has another number of fields than its header.
    #[error("line {line} has {fields} fields where the header has {columns}")]
    Fields {
        /// Line number from 1.
        line: u64,
        /// Fields found.
        fields: usize,
        /// Columns of the header.
        columns: usize,
    },
    /// A value is not of the kind that its column holds.
    #[error("line {line}, column '{column}': '{value}' is no {expected}")]
    Value {
        /// Line number from 1.
        line: u64,
        /// Column.
        column: &'static str,
        /// Value found.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A column that the result cannot do without is absent, or its value is NULL.
    #[error("line {line}: no value for '{column}'")]
    Missing {
        /// Line number from 1.
        line: u64,
        /// Column.
        column: &'static str,
    },
    /// The quoting is broken.
    #[error("not csv: {0}")]
    Csv(String),
    /// A value that stands alone in an output is not there.
    #[error("no '{0}' in the output")]
    Absent(&'static str),
}

impl From<ParseError> for PortError {
    fn from(e: ParseError) -> Self {
        Self::new(PortErrorKind::Malformed, "the output of kwbase could not be understood").with_source(e)
    }
}

/// A row of `node status`. Groups that were not asked for, NULL and absent columns are `None`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StatusRow {
    /// `id`.
    pub node_id: NodeId,
    /// `address`; NULL while the gateway has not heard of the node by gossip, as the next six.
    pub address: Option<Address>,
    /// `sql_address`.
    pub sql_address: Option<Address>,
    /// `build`.
    pub build: Option<String>,
    /// `started_at`.
    pub started_at: Option<Timestamp>,
    /// `updated_at`: the last change of the gossiped liveness record.
    pub updated_at: Option<Timestamp>,
    /// `locality`.
    pub locality: Option<Locality>,
    /// `start_mode` (releases before 2.1 do not have it).
    pub start_mode: Option<StartMode>,
    /// `is_available`: the liveness record has not expired by the gateway's clock.
    pub is_available: Option<bool>,
    /// `is_live`: the gateway hears the node by gossip.
    pub is_live: Option<bool>,
    /// `replicas_leaders`, of `--ranges` (as the next four; some 10 s old, and kept for dead nodes).
    pub replicas_leaders: Option<u64>,
    /// `replicas_leaseholders`.
    pub replicas_leaseholders: Option<u64>,
    /// `ranges`.
    pub ranges: Option<u64>,
    /// `ranges_unavailable`.
    pub ranges_unavailable: Option<u64>,
    /// `ranges_underreplicated`.
    pub ranges_underreplicated: Option<u64>,
    /// `live_bytes`, of `--stats` (as the next four). Estimates, so that they may fall below zero.
    pub live_bytes: Option<i64>,
    /// `key_bytes`.
    pub key_bytes: Option<i64>,
    /// `value_bytes`.
    pub value_bytes: Option<i64>,
    /// `intent_bytes`.
    pub intent_bytes: Option<i64>,
    /// `system_bytes`.
    pub system_bytes: Option<i64>,
    /// `gossiped_replicas`, of `--decommission`: zero also when the node is down. Shown, never believed.
    pub gossiped_replicas: Option<u64>,
    /// `is_decommissioning`.
    pub is_decommissioning: Option<bool>,
    /// `is_draining`.
    pub is_draining: Option<bool>,
}

impl From<&StatusRow> for NodeRow {
    fn from(row: &StatusRow) -> Self {
        Self {
            node_id: row.node_id,
            address: row.address.clone(),
            sql_address: row.sql_address.clone(),
            locality: row.locality.clone(),
            start_mode: row.start_mode.clone(),
            build: row.build.clone(),
            started_at: row.started_at,
            is_live: row.is_live,
            ranges: row.gossiped_replicas,
            leases: None,
        }
    }
}

impl From<&StatusRow> for LivenessRow {
    /// The expiration is not among the columns: `is_available` is its only trace.
    fn from(row: &StatusRow) -> Self {
        Self {
            node_id: row.node_id,
            epoch: None,
            expiration: None,
            draining: row.is_draining,
            decommissioning: row.is_decommissioning,
            upgrading: None,
            updated_at: row.updated_at,
        }
    }
}

/// Parses `node status` in any variant.
pub fn node_status(text: &str) -> Result<Vec<StatusRow>, ParseError> {
    let table = Table::read(text)?;
    table
        .rows()
        .map(|row| {
            Ok(StatusRow {
                node_id: NodeId(row.needed("id", "node id")?),
                address: row.text("address").map(Address::new),
                sql_address: row.text("sql_address").map(Address::new),
                build: row.text("build").map(str::to_owned),
                started_at: row.time("started_at")?,
                updated_at: row.time("updated_at")?,
                locality: row.text("locality").map(Locality::from),
                start_mode: row.text("start_mode").map(StartMode::from),
                is_available: row.flag("is_available")?,
                is_live: row.flag("is_live")?,
                replicas_leaders: row.number("replicas_leaders")?,
                replicas_leaseholders: row.number("replicas_leaseholders")?,
                ranges: row.number("ranges")?,
                ranges_unavailable: row.number("ranges_unavailable")?,
                ranges_underreplicated: row.number("ranges_underreplicated")?,
                live_bytes: row.number("live_bytes")?,
                key_bytes: row.number("key_bytes")?,
                value_bytes: row.number("value_bytes")?,
                intent_bytes: row.number("intent_bytes")?,
                system_bytes: row.number("system_bytes")?,
                gossiped_replicas: row.number("gossiped_replicas")?,
                is_decommissioning: row.flag("is_decommissioning")?,
                is_draining: row.flag("is_draining")?,
            })
        })
        .collect()
}

/// Parses `node ls`.
pub fn node_ls(text: &str) -> Result<Vec<NodeId>, ParseError> {
    Table::read(text)?.rows().map(|row| row.needed("id", "node id").map(NodeId)).collect()
}

/// What `node decommission` or `node recommission` printed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DecommissionOutput {
    /// One table for each change that was seen, in order of time; `--wait=none` and `recommission` print one.
    pub tables: Vec<Vec<DecommissionStatus>>,
    /// Whether the closing sentence `No more data reported on target nodes…` was printed: every target is marked
    /// and holds no replica.
    pub no_more_data: bool,
}

impl DecommissionOutput {
    /// The last table: the state when the command ended. Empty when none was printed.
    pub fn last(&self) -> &[DecommissionStatus] {
        self.tables.last().map_or(&[], Vec::as_slice)
    }
}

/// Parses `node decommission` and `node recommission`. No column of these may be missing: an unknown count is not
/// zero.
pub fn decommission(text: &str) -> Result<DecommissionOutput, ParseError> {
    let table = Table::read(text)?;
    let status = |row: Row<'_>| {
        Ok(DecommissionStatus {
            node: NodeId(row.needed("id", "node id")?),
            is_live: row.needed("is_live", "truth value")?,
            replicas: row.needed("replicas", "number")?,
            decommissioning: row.needed("is_decommissioning", "truth value")?,
            draining: row.needed("is_draining", "truth value")?,
        })
    };
    let tables =
        table.blocks.iter().map(|b| table.rows_of(b).map(status).collect()).collect::<Result<_, _>>()?;
    let no_more_data = table.notes.iter().any(|n| n.starts_with("No more data reported on target nodes"));
    Ok(DecommissionOutput { tables, no_more_data })
}

/// Parses a timestamp as kwbase prints it: `2026-11-23 12:54:11.279418`, in UTC, up to V3.2.0 with `+00:00` behind.
pub fn timestamp(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    // A blank before the zone is not ISO 8601; the one before the time is understood.
    let joined = text.replace(" +", "+").replace(" -", "-").replace(" UTC", "Z");
    Timestamp::from_str(&joined)
        .ok()
        .or_else(|| TimeZone::UTC.to_timestamp(DateTime::from_str(&joined).ok()?).ok())
}

/// A table whose header may stand there again before each further block of rows.
struct Table {
    header: Vec<String>,
    blocks: Vec<Vec<(u64, csv::StringRecord)>>,
    notes: Vec<String>,
}

#[derive(Clone, Copy)]
struct Row<'t> {
    table: &'t Table,
    line: u64,
    record: &'t csv::StringRecord,
}

impl Table {
    fn read(text: &str) -> Result<Self, ParseError> {
        let (skipped, body) = find_header(text)?;
        let delimiter = if body.lines().next().is_some_and(|l| l.contains('\t')) { b'\t' } else { b',' };
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .flexible(true)
            .from_reader(body.as_bytes());
        let mut table = Self { header: Vec::new(), blocks: Vec::new(), notes: Vec::new() };
        for record in reader.records() {
            let record = record.map_err(|e| ParseError::Csv(e.to_string()))?;
            let line = skipped + record.position().map_or(0, csv::Position::line);
            let fields: Vec<&str> = record.iter().map(str::trim).collect();
            if table.header.is_empty() {
                table.header = fields.iter().map(|f| (*f).to_owned()).collect();
                table.blocks.push(Vec::new());
            } else if table.header.iter().eq(&fields) {
                table.blocks.push(Vec::new());
            } else if fields.len() == table.header.len() {
                if let Some(block) = table.blocks.last_mut() {
                    block.push((line, record));
                }
            } else if let [note] = fields.as_slice()
                && note.parse::<u64>().is_err()
            {
                table.notes.push((*note).to_owned());
            } else if fields.first().is_some_and(|f| f.contains(' ')) {
                // A sentence with commas, such as a later release's wording of the closing one.
                table.notes.push(fields.join(", "));
            } else {
                return Err(ParseError::Fields { line, fields: fields.len(), columns: table.header.len() });
            }
        }
        Ok(table)
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.blocks.iter().flat_map(|b| self.rows_of(b))
    }

    fn rows_of<'t>(&'t self, block: &'t [(u64, csv::StringRecord)]) -> impl Iterator<Item = Row<'t>> {
        block.iter().map(|(line, record)| Row { table: self, line: *line, record })
    }
}

/// Skips what stands before the header (a login message of the host, say): its number of lines, and the rest.
fn find_header(text: &str) -> Result<(u64, &str), ParseError> {
    let is_id = |field: &str| field.trim().trim_matches('"') == "id";
    let (mut skipped, mut rest) = (0, text);
    while !rest.is_empty() {
        let line = rest.split_inclusive('\n').next().unwrap_or(rest);
        if line.split(',').any(is_id) || line.split('\t').any(is_id) {
            return Ok((skipped, rest));
        }
        rest = rest.get(line.len()..).unwrap_or_default();
        skipped += 1;
    }
    Err(ParseError::NoHeader { start: text.trim().chars().take(80).collect() })
}

impl<'t> Row<'t> {
    /// The text of a column; `None` when the column is absent, or its value is NULL or empty.
    fn text(&self, column: &str) -> Option<&'t str> {
        let at = self.table.header.iter().position(|h| h == column)?;
        self.record.get(at).map(str::trim).filter(|v| !v.is_empty() && *v != "NULL")
    }

    fn parsed<T: FromStr>(
        &self,
        column: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, ParseError> {
        let Some(value) = self.text(column) else { return Ok(None) };
        let bad = |_| ParseError::Value { line: self.line, column, value: value.to_owned(), expected };
        value.parse().map(Some).map_err(bad)
    }

    fn needed<T: FromStr>(&self, column: &'static str, expected: &'static str) -> Result<T, ParseError> {
        self.parsed(column, expected)?.ok_or(ParseError::Missing { line: self.line, column })
    }

    fn number<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, ParseError> {
        self.parsed(column, "number")
    }

    fn flag(&self, column: &'static str) -> Result<Option<bool>, ParseError> {
        self.parsed(column, "truth value")
    }

    fn time(&self, column: &'static str) -> Result<Option<Timestamp>, ParseError> {
        let Some(value) = self.text(column) else { return Ok(None) };
        let bad =
            || ParseError::Value { line: self.line, column, value: value.to_owned(), expected: "timestamp" };
        timestamp(value).map(Some).ok_or_else(bad)
    }
}
