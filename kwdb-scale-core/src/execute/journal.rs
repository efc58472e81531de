//! Records of an operation and their codec: JSON lines, each with a checksum.
//!
//! Intent is recorded before an act and its outcome after it, so that a reader always knows what may have been
//! done. The first record holds the whole plan: a journal is all that `resume` needs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Record;
use crate::canonical;

/// Schema id of a journal line.
pub const SCHEMA: &str = "kwdb-scale.journal/v1";

/// One record, numbered from 1.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct JournalRecord {
    /// Position in the journal, from 1 without gaps.
    pub seq: u64,
    /// When it was made, by the executor's clock.
    pub at: Timestamp,
    /// What happened.
    pub record: Record,
}

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// A line before the last is damaged; nothing after it can be trusted.
    #[error(
        "journal line {line} is damaged ({reason}); restore the file from a copy or look at the cluster by hand"
    )]
    Damaged {
        /// Line number from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A newer library wrote it.
    #[error(
        "journal line {line} has schema '{schema}', this library reads '{SCHEMA}': use a newer kwdb-scale"
    )]
    Schema {
        /// Line number from 1.
        line: usize,
        /// Schema id found.
        schema: String,
    },
    /// A record that cannot be written as JSON.
    #[error("a journal record cannot be written")]
    Encode(#[source] serde_json::Error),
}

/// First eight hex digits of the SHA-256 of the record's canonical text.
fn checksum(canonical_record: &str) -> String {
    canonical::sha256_hex(canonical_record).chars().take(8).collect()
}

/// One line, ending in a newline.
pub fn encode(record: &JournalRecord) -> Result<String, CodecError> {
    let text = canonical::to_string(record).map_err(CodecError::Encode)?;
    let sum = checksum(&text);
    let mut value = serde_json::to_value(record).map_err(CodecError::Encode)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("schema".into(), SCHEMA.into());
        object.insert("sum".into(), sum.into());
    }
    let mut line = canonical::to_string(&value).map_err(CodecError::Encode)?;
    line.push('\n');
    Ok(line)
}

fn decode_line(line: usize, text: &str) -> Result<JournalRecord, CodecError> {
    let damaged = |reason: String| CodecError::Damaged { line, reason };
    let mut value: serde_json::Value = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
    let object = value.as_object_mut().ok_or_else(|| damaged("not an object".into()))?;
    let mut take = |key: &str| {
        object
            .remove(key)
            .and_then(|v| v.as_str().map(str::to_owned))
            .ok_or_else(|| damaged(format!("no {key}")))
    };
    let schema = take("schema")?;
    let sum = take("sum")?;
    if schema != SCHEMA {
        return Err(CodecError::Schema { line, schema });
    }
    let text = canonical::to_string(&value).map_err(|e| damaged(e.to_string()))?;
    if checksum(&text) != sum {
        return Err(damaged("checksum differs".into()));
    }
    serde_json::from_value(value).map_err(|e| damaged(e.to_string()))
}

/// Reads a whole journal. A last line that was torn by a crash is dropped; damage before it is an error.
pub fn decode(text: &str) -> Result<Vec<JournalRecord>, CodecError> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut records: Vec<JournalRecord> = Vec::with_capacity(lines.len());
    for (i, line) in lines.iter().enumerate() {
        let number = i + 1;
        let last = number == lines.len();
        match decode_line(number, line.trim_end()) {
            Ok(_) if last && !line.ends_with('\n') => break,
            Ok(record) => {
                let expected = number as u64;
                if record.seq != expected {
                    return Err(CodecError::Damaged {
                        line: number,
                        reason: format!("record {} where {expected} is due", record.seq),
                    });
                }
                records.push(record);
            }
            Err(CodecError::Damaged { .. }) if last && !line.ends_with('\n') => break,
            Err(e) => return Err(e),
        }
    }
    Ok(records)
}
