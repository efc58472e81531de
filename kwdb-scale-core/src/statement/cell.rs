//! One text value of an answer: how KWDB writes each type as text, read and written.

use std::collections::HashMap;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::StatementError;
use crate::topology::StoreId;

/// Text rows with their columns by name.
pub(super) struct Table<'a> {
    query: &'static str,
    index: HashMap<&'a str, usize>,
    rows: &'a [Vec<Option<String>>],
}

impl<'a> Table<'a> {
    /// Checks that every row is as wide as the columns are many.
    pub(super) fn new<C: AsRef<str>>(
        query: &'static str,
        columns: &'a [C],
        rows: &'a [Vec<Option<String>>],
    ) -> Result<Self, StatementError> {
        if let Some(row) = rows.iter().find(|row| row.len() != columns.len()) {
            return Err(StatementError::Width { query, values: row.len(), columns: columns.len() });
        }
        let index = columns.iter().enumerate().map(|(i, c)| (c.as_ref(), i)).collect();
        Ok(Self { query, index, rows })
    }

    /// The first row, which every answer has.
    pub(super) fn first(&self) -> Result<Cells<'_>, StatementError> {
        let row = self.rows.first().ok_or(StatementError::NoRows { query: self.query })?;
        Ok(Cells { table: self, row })
    }

    /// Makes something of every row but the one that stands for no rows (`present` is NULL).
    pub(super) fn each<T>(
        &self,
        make: impl Fn(&Cells<'_>) -> Result<T, StatementError>,
    ) -> Result<Vec<T>, StatementError> {
        self.rows
            .iter()
            .map(|row| Cells { table: self, row })
            .filter(|cells| !self.index.contains_key("present") || cells.text("present").is_some())
            .map(|cells| make(&cells))
            .collect()
    }
}

/// One row.
pub(super) struct Cells<'a> {
    table: &'a Table<'a>,
    row: &'a [Option<String>],
}

impl Cells<'_> {
    /// The text; `None` when NULL or without such a column.
    pub(super) fn text(&self, column: &str) -> Option<&str> {
        let i = *self.table.index.get(column)?;
        self.row.get(i)?.as_deref()
    }

    /// The text, where the empty text stands for absent.
    pub(super) fn filled(&self, column: &str) -> Option<String> {
        self.text(column).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// The text, which must be there.
    pub(super) fn required(&self, column: &str) -> Result<&str, StatementError> {
        self.text(column).ok_or_else(|| self.absent(column))
    }

    /// A whole number that fits `T`.
    pub(super) fn number<T: FromStr>(&self, column: &str) -> Result<Option<T>, StatementError> {
        self.with(column, "a whole number in range", |text| text.parse().ok())
    }

    /// A whole number, which must be there.
    /// A count; one below zero is no count, so it is unknown. KWDB has been seen to print such for a moment after a
    /// node was killed and started again.
    pub(super) fn count(&self, column: &str) -> Result<Option<u64>, StatementError> {
        let number: Option<i128> = self.number(column)?;
        Ok(number.and_then(|n| u64::try_from(n).ok()))
    }

    pub(super) fn required_number<T: FromStr>(&self, column: &str) -> Result<T, StatementError> {
        self.number(column)?.ok_or_else(|| self.absent(column))
    }

    /// `true`, `false`, `t` or `f`.
    pub(super) fn bool(&self, column: &str) -> Result<Option<bool>, StatementError> {
        self.with(column, "a truth value", |text| match text {
            "true" | "t" => Some(true),
            "false" | "f" => Some(false),
            _ => None,
        })
    }

    /// `2026-11-23 13:44:29.27795+00:00`; without a zone (a `TIMESTAMP` in some releases and tools) it is UTC.
    pub(super) fn timestamp(&self, column: &str) -> Result<Option<Timestamp>, StatementError> {
        self.with(column, "a time", |text| {
            text.parse().ok().or_else(|| {
                let civil: DateTime = text.parse().ok()?;
                TimeZone::UTC.to_timestamp(civil).ok()
            })
        })
    }

    /// `1795438488.808905183,0`: seconds and nanoseconds since 1970, then a logical counter that is dropped.
    pub(super) fn expiration(&self, column: &str) -> Result<Option<Timestamp>, StatementError> {
        self.with(column, "a time of the form seconds.nanoseconds,logical", |text| {
            let wall = match text.split_once(',') {
                Some((wall, logical)) => {
                    logical.parse::<i64>().ok()?;
                    wall
                }
                None => text,
            };
            let (seconds, fraction) = wall.split_once('.').unwrap_or((wall, "0"));
            if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
            let since = SignedDuration::new(seconds.parse().ok()?, 0);
            Timestamp::UNIX_EPOCH.checked_add(since.checked_add(SignedDuration::from_nanos(nanos))?).ok()
        })
    }

    /// `{1,2,3}`, which must be there.
    pub(super) fn ids(&self, column: &str) -> Result<Vec<StoreId>, StatementError> {
        let list = self.with(column, "a list of the form {1,2,3}", |text| {
            let inner = text.strip_prefix('{')?.strip_suffix('}')?;
            if inner.is_empty() {
                return Some(Vec::new());
            }
            inner.split(',').map(|id| id.trim().parse().ok().map(StoreId)).collect()
        })?;
        list.ok_or_else(|| self.absent(column))
    }

    fn with<T>(
        &self,
        column: &str,
        expected: &'static str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, StatementError> {
        let Some(text) = self.text(column) else { return Ok(None) };
        read(text).map(Some).ok_or_else(|| StatementError::Malformed {
            query: self.table.query,
            column: column.to_owned(),
            value: text.chars().take(80).collect(),
            expected,
        })
    }

    fn absent(&self, column: &str) -> StatementError {
        let (query, column_name) = (self.table.query, column.to_owned());
        if self.table.index.contains_key(column) {
            StatementError::Null { query, column: column_name }
        } else {
            StatementError::MissingColumn { query, column: column_name }
        }
    }
}

/// A time as `now()::STRING` and `TIMESTAMP::STRING` write it.
pub(super) fn timestamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S%.f+00:00").to_string()
}

/// A time as `gossip_liveness.expiration` is written.
pub(super) fn expiration(time: Timestamp) -> String {
    let nanos = time.as_nanosecond();
    format!("{}.{:09},0", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000))
}

/// A list of stores as an `INT8[]` is written.
pub(super) fn ids(stores: &[StoreId]) -> String {
    let list = stores.iter().map(|s| s.0.to_string()).collect::<Vec<_>>().join(",");
    format!("{{{list}}}")
}
