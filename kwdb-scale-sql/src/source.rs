//! The ports over one connection a node.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kwdb_scale_core::ports::{FactSource, PortError, PortErrorKind, SettingsControl};
use kwdb_scale_core::rows::{Answer, Query, Rows};
use kwdb_scale_core::statement;
use kwdb_scale_core::topology::Address;
use tokio::time::timeout;

use crate::config::Builder;
use crate::connection::{Connection, Connector, Text};
use crate::error::is_serialization_failure;

/// Facts and settings of a KWDB cluster over SQL.
///
/// Cheap to clone; clones share their connections: one a node, kept and used again, made anew when it is lost,
/// and given up when an answer does not come in time. Questions through one node follow one another.
///
/// A question that was dropped is given up at once here; at the server it ends by the statement timeout.
#[derive(Clone)]
pub struct SqlSource {
    inner: Arc<Inner>,
}

struct Inner {
    seeds: Vec<Address>,
    connector: Connector,
    deadline: Duration,
    nodes: Mutex<HashMap<Address, Arc<Slot>>>,
}

type Slot = tokio::sync::Mutex<Option<Connection>>;

impl SqlSource {
    /// Begins with the SQL addresses of some nodes, in order of preference.
    pub fn builder(seeds: impl IntoIterator<Item = impl Into<Address>>) -> Builder {
        Builder::new(seeds.into_iter().map(Into::into).collect())
    }

    pub(crate) fn new(builder: Builder) -> Result<Self, PortError> {
        let connector = Connector::new(&builder)?;
        let (seeds, deadline) = (builder.seeds, builder.deadline);
        Ok(Self { inner: Arc::new(Inner { seeds, connector, deadline, nodes: Mutex::default() }) })
    }

    /// Puts a question through the first of `gateways` that answers.
    ///
    /// Goes on to the next only after an error that is [transient](PortErrorKind::is_transient); any other is the
    /// same through every node and comes back at once. When nobody answers, the error names every gateway and
    /// is of kind [`Unreachable`](PortErrorKind::Unreachable), unless one of them was reached.
    pub async fn fetch_any(&self, gateways: &[Address], query: &Query) -> Result<Answer, PortError> {
        let mut kind = PortErrorKind::Unreachable;
        let mut failures = Vec::new();
        for gateway in gateways {
            match self.fetch(gateway, query).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.kind().is_transient() => {
                    if kind == PortErrorKind::Unreachable {
                        kind = error.kind();
                    }
                    failures.push(error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Err(match failures.len() {
            0 => PortError::new(PortErrorKind::Config, "no gateway is given"),
            n => PortError::new(kind, format!("none of {n} gateways answers: {}", failures.join("; "))),
        })
    }

    fn slot(&self, gateway: &Address) -> Arc<Slot> {
        let mut nodes = self.inner.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(nodes.entry(gateway.clone()).or_default())
    }

    /// Sends a statement within the deadline.
    async fn ask(&self, gateway: &Address, what: &str, sql: &str) -> Result<Text, PortError> {
        let began = Instant::now();
        let deadline = self.inner.deadline;
        // Dropping the future on the way drops the connection that waits, which cuts it.
        let answer = timeout(deadline, self.ask_now(gateway, sql)).await.unwrap_or_else(|_| {
            let text = format!("no answer within {} s ({what})", deadline.as_secs_f32());
            Err(self.inner.connector.peer(gateway).error(PortErrorKind::Deadline, text))
        });
        let ms = began.elapsed().as_millis();
        match &answer {
            Ok(text) => {
                tracing::debug!(%gateway, what, ms, rows = text.rows.len(), bytes = text.bytes(), "answered");
            }
            Err(error) => tracing::debug!(%gateway, what, ms, %error, "failed"),
        }
        answer
    }

    async fn ask_now(&self, gateway: &Address, sql: &str) -> Result<Text, PortError> {
        let connector = &self.inner.connector;
        let slot = self.slot(gateway);
        let mut slot = slot.lock().await;
        let mut again = 2;
        loop {
            // Taken out while in use, so that it is never found again with an answer outstanding.
            let kept = slot.take().filter(Connection::is_usable);
            let was_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => connector.connect(gateway).await?,
            };
            let answer = connection.ask(sql).await;
            if connection.is_usable() {
                *slot = Some(connection);
            }
            let error = match answer {
                Ok(text) => return Ok(text),
                Err(error) => error,
            };
            let retry = is_serialization_failure(&error);
            let error = connector.peer(gateway).of_statement(error);
            let gone = matches!(error.kind(), PortErrorKind::ConnectionLost | PortErrorKind::ShuttingDown);
            if gone {
                *slot = None;
            }
            // A connection that was kept may have died long ago; a new one tells. Everything sent here may be
            // repeated.
            if again == 0 || !(retry || (gone && was_kept)) {
                return Err(error);
            }
            again -= 1;
        }
    }
}

impl fmt::Debug for SqlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlSource")
            .field("seeds", &self.inner.seeds)
            .field("deadline", &self.inner.deadline)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl FactSource for SqlSource {
    fn seeds(&self) -> Vec<Address> {
        self.inner.seeds.clone()
    }

    async fn fetch(&self, gateway: &Address, query: &Query) -> Result<Answer, PortError> {
        let text = self.ask(gateway, statement::name(query), &statement::sql(query)).await?;
        statement::parse(query, gateway, &text.columns, &text.rows).map_err(|error| {
            let source = error.clone();
            let kind = PortError::from(error).kind();
            self.inner.connector.peer(gateway).error(kind, source.to_string()).with_source(source)
        })
    }
}

#[async_trait]
impl SettingsControl for SqlSource {
    async fn get(&self, gateway: &Address, name: &str) -> Result<Option<String>, PortError> {
        let name = setting_name(name)?;
        if name == "version" {
            // The one setting that the table of settings leaves out.
            let text = self.ask(gateway, "version", "SHOW CLUSTER SETTING version").await?;
            return Ok(text.rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten());
        }
        let answer = self.fetch(gateway, &Query::Settings(vec![name.clone()])).await?;
        let Rows::Settings(rows) = answer.rows else { return Ok(None) };
        Ok(rows.into_iter().find(|row| row.name == name).map(|row| row.value))
    }

    /// The value goes as a quoted text, which KWDB reads by the setting's type: `'true'`, `'30m0s'`, `'16 MiB'`,
    /// `'0.05'`. So what [`get`](Self::get) gave can be set again.
    ///
    /// Fails with [`Unsupported`](PortErrorKind::Unsupported) when the release does not have the setting.
    async fn set(&self, gateway: &Address, name: &str, value: &str) -> Result<(), PortError> {
        let name = setting_name(name)?;
        let sql = format!("SET CLUSTER SETTING {name} = {}", statement::literal(value));
        self.ask(gateway, "set", &sql).await.map(drop)
    }
}

/// Checks the name of a setting, which stands bare in a statement; KWDB's are lower case.
fn setting_name(name: &str) -> Result<String, PortError> {
    let name = name.to_ascii_lowercase();
    let parts_are_words = name.split('.').all(|part| {
        part.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    });
    if parts_are_words {
        Ok(name)
    } else {
        let message =
            format!("'{name}' is not the name of a cluster setting (such as server.time_until_store_dead)");
        Err(PortError::new(PortErrorKind::Config, message))
    }
}

#[cfg(test)]
mod tests {
    use super::setting_name;

    #[test]
    fn a_name_cannot_carry_a_statement() {
        assert_eq!(setting_name("Server.Time_Until_2").unwrap(), "server.time_until_2");
        for bad in ["", "a b", "a;b", "a = 1; --", "a.'b'", "a..b", ".a", "a.", "1a", "a\n", "a\"b", "é"] {
            assert!(setting_name(bad).is_err(), "{bad}");
        }
    }
}
