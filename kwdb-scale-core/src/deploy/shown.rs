//! What the script and its helpers say of a host, for a person.

use std::collections::BTreeMap;

use super::output::{self, ScriptCommand};
use crate::kwbase::output::clean;
use crate::kwbase::parse::{self, StatusRow};
use crate::ports::CommandEnd;

/// What the script and its helpers say of a host, for a person. Nothing is decided by it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Shown {
    /// `deploy.sh status`: whether KWDB runs there; `None` when the script did not say.
    pub running: Option<bool>,
    /// `deploy.sh cluster --status`, whose exit code is always 0: its rows, empty when it printed none.
    pub cluster: Vec<StatusRow>,
    /// `kw-status` (from V3.1.0): its rows, empty where it is not there or failed.
    pub kw_status: Vec<StatusRow>,
    /// `decommission_progress`: replicas left by the node's own gauge. Zero may mean a failure, or an earlier run.
    pub progress: Option<u64>,
}

/// Takes the output of `show.sh` apart.
pub(super) fn shown(stdout: &str) -> Shown {
    let mut parts: BTreeMap<&str, String> = BTreeMap::new();
    let mut part = "";
    for line in stdout.lines() {
        match line.strip_prefix("kwdb-scale ") {
            Some(name) => part = name,
            None => {
                let text = parts.entry(part).or_default();
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    let text = |name: &str| parts.get(name).cloned().unwrap_or_default();
    // A warning, or a line of the script, may stand before the table.
    let rows = |name: &str| {
        let clean = plain_table(&clean(&text(name)));
        let from = clean.find("id\t").or_else(|| clean.find("id,"));
        from.and_then(|at| parse::node_status(clean.get(at..)?.trim_end()).ok()).unwrap_or_default()
    };
    let exit = parts.keys().find_map(|k| k.strip_prefix("exit ")).and_then(|c| c.parse().ok());
    let said = output::judge(ScriptCommand::Status, CommandEnd::Exit(exit.unwrap_or(0)), &text("status"));
    Shown {
        running: said.ok().map(|words| !words.contains(" not ")),
        cluster: rows("cluster"),
        kw_status: rows("kw-status"),
        progress: output::progress(&text("progress")),
    }
}

/// With a terminal, as the script has it in containers, kwbase draws its table: as without one.
fn plain_table(text: &str) -> String {
    if !text.lines().any(|line| line.trim_start().starts_with("id ") && line.contains(" | ")) {
        return text.to_owned();
    }
    let drawn = text.lines().filter(|line| line.contains(" | "));
    let lines: Vec<String> =
        drawn.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>().join("\t")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  id |     address    |   sql_address  | build  |         started_at         | is_available | is_live
-----+----------------+----------------+--------+----------------------------+--------------+----------
   1 | 10.0.0.1:26257 | 10.0.0.1:26257 | V3.2.1 | 2026-11-23 12:54:11.279418 | true         | true
   2 | 10.0.0.2:26257 | NULL           | V3.2.1 | 2026-11-23 12:54:12.865747 | true         | false
(2 rows)
";
    const TSV: &str = "id\taddress\tis_live\n1\t10.0.0.1:26257\ttrue\n";

    fn answer(cluster: &str) -> Shown {
        shown(&format!(
            "\nkwdb-scale status\n\u{1b}[1;32m[STATUS COMPLETED]:\u{1b}[0mKaiwuDB is runnning now.\n\nkwdb-scale exit 0\n\n\
             kwdb-scale cluster\n{cluster}\nkwdb-scale kw-status\n{TSV}\nkwdb-scale progress\n17\n\nkwdb-scale end\n"
        ))
    }

    #[test]
    fn a_table_is_read_as_it_comes_with_a_terminal_and_without() {
        let drawn = answer(&TABLE.replace('\n', "\r\n"));
        assert_eq!((drawn.running, drawn.kw_status.len(), drawn.progress), (Some(true), 1, Some(17)));
        let told: Vec<_> =
            drawn.cluster.iter().map(|r| (r.node_id.0, r.is_live, r.sql_address.is_some())).collect();
        assert_eq!(told, [(1, Some(true), true), (2, Some(false), false)]);
        assert!(drawn.cluster[0].started_at.is_some());
        assert_eq!(answer(&format!("warning: x\n{TSV}")).cluster.len(), 1);
        assert_eq!(answer("ERROR: cannot dial server.\n").cluster, []);
    }
}
