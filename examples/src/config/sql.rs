//! `[sql]`: how SQL is spoken.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use kwdb_scale_core::secret::Secret;
use serde::Deserialize;

/// How SQL is spoken.
#[derive(Clone, Debug)]
pub struct Sql {
    /// The user; needs the admin role.
    pub user: String,
    /// Its password, when it has one.
    pub password: Option<Secret>,
    /// Whether the user logs in with `client.<user>.crt`.
    pub client_certificate: bool,
    /// Name that the nodes' certificates are for, when it is not the host of their addresses.
    pub server_name: Option<String>,
    /// How long one TCP connection may take.
    pub connect_timeout: Duration,
    /// After how long the server gives up a statement.
    pub statement_timeout: Duration,
    /// How long one question may take in all.
    pub deadline: Duration,
    /// How long one observation of the cluster may take in all.
    pub observe_deadline: Duration,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SqlTable {
    user: Option<String>,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
    client_certificate: Option<bool>,
    server_name: Option<String>,
    connect_timeout: Option<SignedDuration>,
    statement_timeout: Option<SignedDuration>,
    deadline: Option<SignedDuration>,
    observe_deadline: Option<SignedDuration>,
}

impl SqlTable {
    pub(super) fn into_sql(self, base: &Path, certs: Option<&Path>) -> Result<Sql, String> {
        let user = self.user.unwrap_or_else(|| "root".to_owned());
        if user.is_empty() || user.contains(['/', '\0']) {
            return Err(format!("[sql]: user = '{user}' is no user name; write root or another admin"));
        }
        let password = match (self.password_file, self.password_env) {
            (Some(_), Some(_)) => {
                return Err("[sql]: both password_file and password_env; leave one of them out".to_owned());
            }
            (Some(file), None) => {
                let file = base.join(file);
                let text = fs::read_to_string(&file).map_err(|e| {
                    format!("[sql]: password_file '{}' cannot be read: {e}; put the password there", file.display())
                })?;
                Some(text.lines().next().unwrap_or_default().to_owned())
            }
            (None, Some(name)) => Some(std::env::var(&name).map_err(|_| {
                format!("[sql]: the environment variable {name} of password_env is not set; set it to the password")
            })?),
            (None, None) => None,
        };
        if password.as_ref().is_some_and(String::is_empty) {
            return Err("[sql]: the password is empty; give one, or leave it out".to_owned());
        }
        if password.is_some() && certs.is_none() {
            let what = "[sql]: a password on an insecure cluster, which never asks for one; leave it out";
            return Err(what.to_owned());
        }
        let client_certificate = self.client_certificate.unwrap_or(password.is_none());
        if certs.is_some() && !client_certificate && password.is_none() {
            let what =
                "[sql]: client_certificate = false without a password; give password_file or password_env";
            return Err(what.to_owned());
        }
        let time = |name: &str, given: Option<SignedDuration>, default: u64| match given {
            None => Ok(Duration::from_secs(default)),
            Some(d) => Duration::try_from(d)
                .ok()
                .filter(|d| !d.is_zero())
                .ok_or_else(|| format!("[sql]: {name} = {d:#} is no time to wait; write such as \"30s\"")),
        };
        Ok(Sql {
            user,
            password: password.map(Secret::new),
            client_certificate,
            server_name: self.server_name,
            connect_timeout: time("connect_timeout", self.connect_timeout, 5)?,
            statement_timeout: time("statement_timeout", self.statement_timeout, 15)?,
            deadline: time("deadline", self.deadline, 30)?,
            observe_deadline: time("observe_deadline", self.observe_deadline, 120)?,
        })
    }
}
