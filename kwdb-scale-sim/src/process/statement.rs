//! The statements that the twin understands, apart from the closed set of `kwdb_scale_core::statement`: what clients
//! send on their own, and what makes the tables, zones, settings and users of a test. No SQL engine.

use crate::model::ZoneTarget;

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Statement {
    /// `SELECT 1`, `SELECT version()` and their like: column and value.
    Constant(&'static str, Value),
    /// The health query of KWDB's page on scaling.
    Health,
    /// `SHOW name`.
    Show(String),
    /// `SET name = …` of the session.
    Set,
    ShowClusterSetting(String),
    SetClusterSetting {
        name: String,
        value: String,
    },
    CreateUser {
        name: String,
        password: Option<String>,
    },
    GrantAdmin {
        to: String,
    },
    CreateDatabase(String),
    CreateTable {
        database: String,
        table: String,
        partitions: Vec<String>,
    },
    /// `SPLIT AT`: so many split points.
    Split {
        database: String,
        table: String,
        points: u32,
    },
    ConfigureZone {
        target: ZoneTarget,
        num_replicas: Option<u32>,
        constraints: Option<String>,
    },
    DiscardZone(ZoneTarget),
}

/// What a constant is, as far as it depends on where it is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Value {
    Text(&'static str),
    Version,
    Now,
    User,
}

impl Statement {
    /// Reads a statement; `None` for one that the twin does not understand.
    pub(super) fn parse(sql: &str) -> Option<Self> {
        let words = words(sql.trim().trim_end_matches(';'));
        let lower: Vec<String> = words.iter().map(|w| w.to_ascii_lowercase()).collect();
        let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
        match lower.as_slice() {
            ["select", "1"] => Some(Self::Constant("?column?", Value::Text("1"))),
            ["select", "version", "(", ")"] => Some(Self::Constant("version", Value::Version)),
            ["select", "now", "(", ")"] => Some(Self::Constant("now", Value::Now)),
            ["select", "current_user"] | ["select", "current_user", "(", ")"] => {
                Some(Self::Constant("current_user", Value::User))
            }
            ["select", ..] => is_health(&lower).then_some(Self::Health),
            ["show", "cluster", "setting", rest @ ..] => Some(Self::ShowClusterSetting(rest.concat())),
            ["show", name] => Some(Self::Show((*name).to_owned())),
            ["set", "cluster", "setting", rest @ ..] => {
                let at = rest.iter().position(|w| matches!(*w, "=" | "to"))?;
                let name = rest.get(..at)?.concat();
                // The value keeps its case.
                let value = words.get(3 + at + 1..)?.concat();
                Some(Self::SetClusterSetting { name, value: unquoted(&value) })
            }
            ["set", ..] => Some(Self::Set),
            ["create", "user", rest @ ..] => {
                let rest = rest.strip_prefix(&["if", "not", "exists"]).unwrap_or(rest);
                let password = rest
                    .iter()
                    .position(|w| *w == "password")
                    .and_then(|at| words.get(words.len() - rest.len() + at + 1).map(|p| unquoted(p)));
                Some(Self::CreateUser { name: unquoted(rest.first()?), password })
            }
            ["grant", "admin", "to", user] => Some(Self::GrantAdmin { to: unquoted(user) }),
            ["create", "database", rest @ ..] => {
                let rest = rest.strip_prefix(&["if", "not", "exists"]).unwrap_or(rest);
                Some(Self::CreateDatabase(unquoted(rest.first()?)))
            }
            ["create", "table", rest @ ..] => {
                let rest = rest.strip_prefix(&["if", "not", "exists"]).unwrap_or(rest);
                let (database, table, rest) = name(rest)?;
                let partitions = rest
                    .windows(3)
                    .filter(|w| matches!(w, ["partition", _, "values"]))
                    .filter_map(|w| w.get(1).map(|p| unquoted(p)))
                    .collect();
                Some(Self::CreateTable { database, table, partitions })
            }
            ["alter", "table", rest @ ..] if rest.windows(2).any(|w| w == ["split", "at"]) => {
                let (database, table, rest) = name(rest)?;
                Some(Self::Split { database, table, points: points(rest.strip_prefix(&["split", "at"])?)? })
            }
            ["alter", rest @ ..] => zone(rest, &words),
            _ => None,
        }
    }
}

fn zone(lower: &[&str], words: &[String]) -> Option<Statement> {
    let (target, rest) = match lower {
        ["range", name, rest @ ..] => (ZoneTarget::Range(unquoted(name)), rest),
        ["database", name, rest @ ..] => (ZoneTarget::Database(unquoted(name)), rest),
        ["table", rest @ ..] => {
            let (database, table, rest) = name(rest)?;
            (ZoneTarget::Table { database, table }, rest)
        }
        ["partition", partition, "of", "table", rest @ ..] => {
            let (database, table, rest) = name(rest)?;
            (ZoneTarget::Partition { database, table, partition: unquoted(partition) }, rest)
        }
        _ => return None,
    };
    match rest.strip_prefix(&["configure", "zone"])? {
        ["discard"] => Some(Statement::DiscardZone(target)),
        ["using", fields @ ..] => {
            let offset = words.len() - fields.len();
            let value = |name: &str| {
                let at = fields.iter().position(|w| *w == name)?;
                (*fields.get(at + 1)? == "=").then_some(())?;
                words.get(offset + at + 2).map(|v| unquoted(v))
            };
            let num_replicas = match value("num_replicas") {
                Some(text) => Some(text.parse().ok()?),
                None => None,
            };
            let constraints = value("constraints");
            // Any other field would be dropped without a word.
            let known = [num_replicas.is_some(), constraints.is_some()].iter().filter(|k| **k).count();
            let given = fields.iter().filter(|w| **w == "=").count();
            (known == given && given > 0).then_some(Statement::ConfigureZone {
                target,
                num_replicas,
                constraints,
            })
        }
        _ => None,
    }
}

/// `db.table` or `db.public.table`, and what follows.
fn name<'a>(words: &'a [&'a str]) -> Option<(String, String, &'a [&'a str])> {
    match words {
        [database, ".", "public", ".", table, rest @ ..] | [database, ".", table, rest @ ..] => {
            Some((unquoted(database), unquoted(table), rest))
        }
        _ => None,
    }
}

/// The number of split points of `VALUES (…), (…)` or `SELECT generate_series(a, b[, step])`.
fn points(words: &[&str]) -> Option<u32> {
    match words {
        ["values", rows @ ..] => u32::try_from(rows.iter().filter(|w| **w == "(").count()).ok(),
        ["select", "generate_series", "(", rest @ ..]
        | ["select", "*", "from", "generate_series", "(", rest @ ..] => {
            let numbers: Vec<i64> =
                rest.iter().take_while(|w| **w != ")").filter_map(|w| w.parse().ok()).collect();
            let (from, to, step) = match numbers.as_slice() {
                [from, to] => (*from, *to, 1),
                [from, to, step] if *step > 0 => (*from, *to, *step),
                _ => return None,
            };
            u32::try_from((to - from).div_euclid(step) + 1).ok()
        }
        _ => None,
    }
}

/// The page's health query, however it is spaced: both sums over `kv_store_status`, without a condition.
fn is_health(lower: &[&str]) -> bool {
    let text = lower.concat();
    text.contains("'ranges.unavailable'")
        && text.contains("'ranges.underreplicated'")
        && text.matches("sum(").count() == 2
        && text.ends_with("fromkwdb_internal.kv_store_status")
}

/// Words, quoted texts and single signs.
fn words(sql: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut chars = sql.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_whitespace() {
            continue;
        }
        let mut word = c.to_string();
        if c == '\'' || c == '"' {
            while let Some(next) = chars.next() {
                word.push(next);
                if next == c {
                    // A doubled quote stands for itself.
                    if chars.peek() != Some(&c) {
                        break;
                    }
                    word.extend(chars.next());
                }
            }
        } else if is_word(c) {
            while let Some(next) = chars.next_if(|n| is_word(*n)) {
                word.push(next);
            }
        }
        words.push(word);
    }
    words
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn unquoted(word: &str) -> String {
    for quote in ["'", "\""] {
        if let Some(inner) = word.strip_prefix(quote).and_then(|w| w.strip_suffix(quote)) {
            return inner.replace(&quote.repeat(2), quote);
        }
    }
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_its_set() {
        use Statement as S;
        let table = || ("app".to_owned(), "kv".to_owned());
        let (database, table) = table();
        for (sql, statement) in [
            ("SELECT 1", S::Constant("?column?", Value::Text("1"))),
            ("select version();", S::Constant("version", Value::Version)),
            ("SHOW server_version", S::Show("server_version".to_owned())),
            ("SET statement_timeout = '5s'", S::Set),
            (
                "SHOW CLUSTER SETTING kv.allocator.ts_consider_rebalance.enabled",
                S::ShowClusterSetting("kv.allocator.ts_consider_rebalance.enabled".to_owned()),
            ),
            (
                "SET CLUSTER SETTING kv.snapshot_recovery.max_rate = '8 MiB'",
                S::SetClusterSetting {
                    name: "kv.snapshot_recovery.max_rate".to_owned(),
                    value: "8 MiB".to_owned(),
                },
            ),
            (
                "create user alice with password 'Alice_1''2'",
                S::CreateUser { name: "alice".to_owned(), password: Some("Alice_1'2".to_owned()) },
            ),
            ("GRANT admin TO alice", S::GrantAdmin { to: "alice".to_owned() }),
            (
                "ALTER TABLE app.kv SPLIT AT SELECT generate_series(1000, 20000, 1000)",
                S::Split { database: database.clone(), table: table.clone(), points: 20 },
            ),
            (
                "ALTER TABLE app.kv CONFIGURE ZONE USING num_replicas=5",
                S::ConfigureZone {
                    target: ZoneTarget::Table { database: database.clone(), table: table.clone() },
                    num_replicas: Some(5),
                    constraints: None,
                },
            ),
            (
                "ALTER PARTITION a OF TABLE app.public.kv CONFIGURE ZONE USING constraints = '[-region=NODE3]'",
                S::ConfigureZone {
                    target: ZoneTarget::Partition {
                        database: database.clone(),
                        table: table.clone(),
                        partition: "a".to_owned(),
                    },
                    num_replicas: None,
                    constraints: Some("[-region=NODE3]".to_owned()),
                },
            ),
            (
                "CREATE TABLE app.kv (id INT, city STRING, PRIMARY KEY (city, id)) PARTITION BY LIST (city) \
                 (PARTITION a VALUES IN ('a'), PARTITION b VALUES IN ('b'))",
                S::CreateTable { database, table, partitions: vec!["a".to_owned(), "b".to_owned()] },
            ),
        ] {
            assert_eq!(Statement::parse(sql), Some(statement), "{sql}");
        }
    }

    #[test]
    fn knows_the_pages_health_query_and_nothing_near_it() {
        let page = "SELECT sum((metrics->>'ranges.unavailable')::DECIMAL)::INT AS ranges_unavailable,\n   \
                    sum((metrics->>'ranges.underreplicated')::DECIMAL)::INT AS ranges_underreplicated\n\
                    FROM kwdb_internal.kv_store_status;";
        assert_eq!(Statement::parse(page), Some(Statement::Health));
        assert_eq!(Statement::parse(&page.replace(';', " WHERE node_id < 4")), None);
        for unknown in
            ["SELECT 2", "DROP TABLE app.kv", "ALTER TABLE app.kv CONFIGURE ZONE USING gc.ttlseconds = 9"]
        {
            assert_eq!(Statement::parse(unknown), None, "{unknown}");
        }
    }
}
