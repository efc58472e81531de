//! Answers statements from the model.

use kwdb_scale_core::rows::{Query, Rows};
use kwdb_scale_core::statement;
use tokio::sync::watch;

use super::hub::Front;
use super::statement::{Statement, Value};
use crate::model::{Cluster, QueryError, SqlRefusal, TableSpec};
use crate::pgwire::wire::{Reply, SqlError};
use crate::pgwire::{Handler, Phase, VERSION};

impl Handler for Front {
    fn phase(&self) -> watch::Receiver<Phase> {
        self.subscribe()
    }

    async fn admitted(&self) {
        // Looking a user up needs what every query needs; the node's own row is the cheapest.
        while matches!(self.rows(&Query::Cluster), Err(QueryError::Hang)) {
            self.hub().tick().await;
        }
    }

    fn authenticate(&self, user: &str, password: Option<&str>) -> bool {
        self.hub().authenticate(user, password)
    }

    fn is_admin(&self, user: &str) -> bool {
        self.hub().is_admin(user)
    }

    fn transaction(&self, open: bool) {
        self.count_transaction(open);
    }

    async fn query(&self, user: &str, sql: &str) -> Result<Reply, SqlError> {
        loop {
            match self.answer(user, sql) {
                Answered::Now(answer) => return answer,
                Answered::Hang => self.hub().tick().await,
            }
        }
    }
}

/// The setting `version`, which `cluster_settings` hides.
const CLUSTER_VERSION: &str = "20.1-3";

enum Answered {
    Now(Result<Reply, SqlError>),
    /// No answer is to be had at this time.
    Hang,
}

impl From<SqlRefusal> for SqlError {
    fn from(refusal: SqlRefusal) -> Self {
        Self::new(refusal.code, refusal.message)
    }
}

impl Front {
    fn rows(&self, query: &Query) -> Result<kwdb_scale_core::rows::Answer, QueryError> {
        self.hub().cluster().rows(self.sql_address(), query)
    }

    fn answer(&self, user: &str, sql: &str) -> Answered {
        if let Some(query) = statement::query_of(sql) {
            return self.closed_set(user, &query);
        }
        let Some(statement) = Statement::parse(sql) else {
            let message = format!("the twin does not know this statement: {sql}");
            return Answered::Now(Err(SqlError::new("42601", message)));
        };
        // Everything needs the quorum that the node's own row needs.
        match self.rows(&Query::Cluster) {
            Err(QueryError::Hang) => Answered::Hang,
            // A session that was there before the drain, in a transaction.
            Ok(_) | Err(QueryError::NotAccepting) => Answered::Now(self.statement(user, statement)),
            Err(error) => Answered::Now(Err(refused(error))),
        }
    }

    fn closed_set(&self, user: &str, query: &Query) -> Answered {
        let admin = self.hub().is_admin(user);
        if let (false, Some(table)) = (admin, admin_table(query)) {
            let message = format!("only users with the admin role are allowed to read kwdb_internal.{table}");
            return Answered::Now(Err(SqlError::new("42501", message)));
        }
        let mut answer = match self.rows(query) {
            Ok(answer) => answer,
            Err(QueryError::Hang) => return Answered::Hang,
            Err(error) => return Answered::Now(Err(refused(error))),
        };
        match &mut answer.rows {
            Rows::Cluster(row) => row.is_admin = Some(admin),
            // Without the role these tables leave out what others own.
            Rows::Zones(rows) if !admin => rows.clear(),
            Rows::Jobs(rows) if !admin => rows.clear(),
            _ => {}
        }
        let (columns, mut rows) = statement::encode(query, &answer.rows, answer.server_time);
        if matches!(query, Query::Zones | Query::Jobs)
            && let Some(at) = columns.iter().position(|c| *c == "is_admin")
        {
            for cell in rows.iter_mut().filter_map(|row| row.get_mut(at)) {
                *cell = Some(admin.to_string());
            }
        }
        Answered::Now(Ok(Reply::Rows { columns: columns.iter().map(|c| (*c).to_owned()).collect(), rows }))
    }

    fn statement(&self, user: &str, statement: Statement) -> Result<Reply, SqlError> {
        let admin_only = |what: &str| {
            let message = format!("only users with the admin role are allowed to {what}");
            if self.hub().is_admin(user) { Ok(()) } else { Err(SqlError::new("42501", message)) }
        };
        let mut cluster = self.hub().cluster();
        match statement {
            Statement::Constant(column, value) => Ok(Reply::value(
                column,
                match value {
                    Value::Text(text) => text.to_owned(),
                    Value::Version => VERSION.to_owned(),
                    Value::User => user.to_owned(),
                    Value::Now => cluster.now().strftime("%Y-%m-%d %H:%M:%S.%6f+00:00").to_string(),
                },
            )),
            Statement::Set => Ok(Reply::Done("SET")),
            Statement::Show(name) => match variable(&name) {
                Some(value) => Ok(Reply::value(&name, value)),
                None => Err(SqlError::new("42704", format!("unrecognized configuration parameter {name:?}"))),
            },
            Statement::ShowClusterSetting(name) => {
                admin_only("SHOW CLUSTER SETTING")?;
                match cluster.setting(&name).or((name == "version").then_some(CLUSTER_VERSION)) {
                    Some(value) => Ok(Reply::value(&name, value)),
                    None => Err(SqlError::new("XXUUU", format!("unknown setting: {name:?}"))),
                }
            }
            Statement::SetClusterSetting { name, value } => {
                admin_only("SET CLUSTER SETTING")?;
                cluster.set_setting(&name, &value)?;
                Ok(Reply::Done("SET CLUSTER SETTING"))
            }
            Statement::Health => {
                admin_only("read kwdb_internal.kv_store_status")?;
                health(&cluster, self)
            }
            Statement::CreateUser { name, password } => {
                admin_only("create users")?;
                self.hub().set_user(&name, password, false);
                Ok(Reply::Done("CREATE USER"))
            }
            Statement::GrantAdmin { to } => {
                admin_only("grant the admin role")?;
                if !self.hub().grant_admin(&to) {
                    return Err(SqlError::new("42704", format!("user or role {to} does not exist")));
                }
                Ok(Reply::Done("GRANT"))
            }
            Statement::CreateDatabase(name) => {
                cluster.create_database(&name);
                Ok(Reply::Done("CREATE DATABASE"))
            }
            Statement::CreateTable { database, table, partitions } => {
                cluster.create_table(TableSpec { partitions, ..TableSpec::new(&database, &table, 1) })?;
                Ok(Reply::Done("CREATE TABLE"))
            }
            Statement::Split { database, table, points } => {
                if !cluster.split(&database, &table, points) {
                    return Err(SqlError::new(
                        "42P01",
                        format!("relation \"{database}.{table}\" does not exist"),
                    ));
                }
                Ok(Reply::Done("ALTER TABLE"))
            }
            Statement::ConfigureZone { target, num_replicas, constraints } => {
                cluster.configure_zone(target, num_replicas, constraints.as_deref())?;
                Ok(Reply::Done("CONFIGURE ZONE 1"))
            }
            Statement::DiscardZone(target) => {
                let discarded = cluster.discard_zone(&target);
                Ok(Reply::Done(if discarded { "CONFIGURE ZONE 1" } else { "CONFIGURE ZONE 0" }))
            }
        }
    }
}

/// The page's sums: over every node that ever was, as the real one answers.
fn health(cluster: &Cluster, front: &Front) -> Result<Reply, SqlError> {
    let answer = cluster.rows(front.sql_address(), &Query::Stores).map_err(refused)?;
    let Rows::Stores(stores) = answer.rows else { return Err(SqlError::new("XX000", "no stores")) };
    let unavailable: u64 = stores.iter().filter_map(|s| s.ranges_unavailable).sum();
    let under_replicated: u64 = stores.iter().filter_map(|s| s.ranges_underreplicated).sum();
    Ok(Reply::Rows {
        columns: vec!["ranges_unavailable".to_owned(), "ranges_underreplicated".to_owned()],
        rows: vec![vec![Some(unavailable.to_string()), Some(under_replicated.to_string())]],
    })
}

/// The table that a query reads and only an administrator may.
fn admin_table(query: &Query) -> Option<&'static str> {
    match query {
        Query::Liveness => Some("gossip_liveness"),
        Query::Nodes => Some("gossip_nodes"),
        Query::Stores => Some("kv_store_status"),
        Query::Ranges
        | Query::RangesOn { .. }
        | Query::LeasesOn { .. }
        | Query::LeasesOf(_)
        | Query::ReplicaCounts(_) => Some("ranges_no_leases"),
        Query::Settings(_) => Some("cluster_settings"),
        _ => None,
    }
}

fn variable(name: &str) -> Option<&'static str> {
    Some(match name {
        "server_version" => "9.5.0",
        "server_version_num" => "90500",
        "kwdb_version" => VERSION,
        "client_encoding" => "utf8",
        "server_encoding" => "UTF8",
        "standard_conforming_strings" | "integer_datetimes" => "on",
        "timezone" => "UTC",
        "transaction_isolation" | "default_transaction_isolation" => "serializable",
        "transaction_read_only" => "off",
        "search_path" => "public",
        "database" => "defaultdb",
        _ => return None,
    })
}

fn refused(error: QueryError) -> SqlError {
    match error {
        QueryError::NotAccepting => SqlError::new("57P01", "server is not accepting clients"),
        _ => SqlError::new("57P01", "server is shutting down"),
    }
}
