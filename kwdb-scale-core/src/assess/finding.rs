//! What a check says.

use std::fmt;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// How much a finding weighs for the operation at hand.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// To know; nothing to do.
    Info,
    /// The operation may go on; somebody should look.
    Warn,
    /// The operation must not go on.
    Refuse,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warn => "warning",
            Self::Refuse => "refused",
        })
    }
}

/// When it makes sense to ask again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// After so long; the condition passes by itself.
    After(SignedDuration),
    /// When the named fact changes.
    WhenFactChanges(String),
    /// When a person has done something.
    NeedsPerson,
    /// Never: the request itself is impossible on this cluster.
    Never,
}

/// One thing that a check found.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// Which check, by its stable name such as `members-alive`.
    pub check: String,
    /// How much it weighs.
    pub severity: Severity,
    /// One sentence that names the input and the reason.
    pub message: String,
    /// The facts it rests on, one a line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// What to do about it, where something can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
    /// When to ask again; `None` for findings that are no refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

impl Finding {
    /// A finding without evidence, cure or retry.
    pub fn new(check: &str, severity: Severity, message: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            severity,
            message: message.into(),
            evidence: Vec::new(),
            cure: None,
            retry: None,
        }
    }

    /// Whether what was found may pass without anybody's asking for something else: it says so itself, or it is about
    /// the cluster's health, which a repair or a restart mends. Worth asking again for a while.
    pub fn may_pass(&self) -> bool {
        match self.retry {
            Some(Retry::After(_)) => true,
            Some(Retry::WhenFactChanges(_)) => super::checks::is_health(&self.check),
            _ => false,
        }
    }

    /// Adds a line of evidence.
    #[must_use]
    pub fn evidence(mut self, line: impl Into<String>) -> Self {
        self.evidence.push(line.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    /// Says when to ask again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}] {}", self.severity, self.check, self.message)?;
        for line in &self.evidence {
            write!(f, "\n    {line}")?;
        }
        if let Some(cure) = &self.cure {
            write!(f, "\n    cure: {cure}")?;
        }
        Ok(())
    }
}
