//! How one host runs `deploy.sh`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::CERTS_DIR;
use crate::kwbase::HostError;
use crate::topology::HostName;

/// How one host runs `deploy.sh`. The host is described to [`Kwbase`](crate::kwbase::Kwbase) as well.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DeployHost {
    /// The host.
    pub name: HostName,
    /// Absolute path of the directory that holds `deploy.sh`.
    pub install_dir: String,
    /// Absolute path of the directory in which `kaiwudb_certs.tar.gz` lies when a node joins a secure cluster; the
    /// installation directory when `None`, as on the manual's page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_dir: Option<String>,
    /// Whether the archive, and the CA's private key that it brings, stay on the host after the join.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_ca_key: bool,
    /// Whether all members that are known as seeds are written into the unit after the join. The script writes one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_seeds: bool,
    /// Put before every absolute path of the installation (`/etc/kaiwudb`, the unit file): for a host whose tree lies
    /// in a directory, as in tests. Empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub root: String,
}

impl DeployHost {
    /// A host with every default.
    pub fn new(name: impl Into<HostName>, install_dir: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            install_dir: install_dir.into(),
            ca_dir: None,
            keep_ca_key: false,
            all_seeds: false,
            root: String::new(),
        }
    }

    /// Where the archive of certificates is to lie.
    pub fn ca_dir(&self) -> &str {
        self.ca_dir.as_deref().unwrap_or(&self.install_dir)
    }

    /// Checks the description. The first thing that is wrong is the error.
    ///
    /// The script uses its own directory and that of the archive unquoted in shell texts, so only harmless characters are
    /// taken.
    pub fn validate(&self) -> Result<(), HostError> {
        let check = |field: &str, path: &str| {
            let fail = |reason: &str, cure: &str| {
                Err(HostError {
                    host: self.name.clone(),
                    field: field.to_owned(),
                    reason: format!("'{}' {reason}", path.escape_debug()),
                    cure: cure.to_owned(),
                })
            };
            let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
            if !path.starts_with('/') {
                return fail("is not an absolute path", "start it with /");
            }
            if path.split('/').any(|part| part == ".." || part.starts_with('-')) {
                return fail("holds .. or a name that begins with -", "write the path that is meant");
            }
            if !path.chars().all(plain) {
                return fail(
                    "holds a character that deploy.sh pastes unquoted into shell texts",
                    "use a directory of letters, digits and /._-+",
                );
            }
            Ok(())
        };
        check("install_dir", &self.install_dir)?;
        if let Some(dir) = &self.ca_dir {
            check("ca_dir", dir)?;
            // The script deletes everything there before it opens the archive.
            if Path::new(dir).starts_with(format!("{}{CERTS_DIR}", self.root)) {
                return Err(HostError {
                    host: self.name.clone(),
                    field: "ca_dir".to_owned(),
                    reason: format!(
                        "{dir} lies in {CERTS_DIR}, which deploy.sh join empties before it opens the archive"
                    ),
                    cure: "name another directory, such as install_dir, which is used where none is named"
                        .to_owned(),
                });
            }
        }
        if !self.root.is_empty() {
            check("root", &self.root)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_the_script_would_take_for_something_else() {
        assert_eq!(DeployHost::new("n4", "/opt/kwdb_install").validate(), Ok(()));
        for bad in
            ["", "kwdb_install", "/opt/a b", "/opt/$(id)", "/opt/a;b", "/opt/../etc", "/opt/-x", "/a\nb"]
        {
            let error = DeployHost::new("n4", bad).validate().unwrap_err();
            assert_eq!(error.field, "install_dir", "{bad}");
            let host = DeployHost { ca_dir: Some(bad.into()), ..DeployHost::new("n4", "/opt/k") };
            assert_eq!(host.validate().unwrap_err().field, "ca_dir", "{bad}");
        }
        let at = |root: &str, dir: &str| {
            let ca_dir = Some(dir.to_owned());
            DeployHost { ca_dir, root: root.to_owned(), ..DeployHost::new("n4", "/opt/k") }.validate()
        };
        for (root, bad) in
            [("", "/etc/kaiwudb/certs"), ("", "/etc//kaiwudb/./certs/of"), ("/r", "/r/etc/kaiwudb/certs/")]
        {
            assert!(at(root, bad).unwrap_err().reason.contains("empties"), "{bad}");
        }
        for (root, good) in [("", "/etc/kaiwudb"), ("", "/etc/kaiwudb/certs2"), ("/r", "/etc/kaiwudb/certs")]
        {
            assert_eq!(at(root, good), Ok(()), "{good}");
        }
    }
}
