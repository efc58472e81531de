//! `[certificates]`: who issues certificates for hosts that join, and for whom.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kwdb_scale_core::certs::{CertificateIssuer, IssueOnHost, check_name};
use kwdb_scale_core::kwbase::{Authority, KwbaseHost, PROGRAM, Security};
use kwdb_scale_core::ports::{PortError, PortErrorKind};
use kwdb_scale_core::topology::HostName;
use kwdb_scale_local::LocalTransport;
use serde::Deserialize;

use crate::transport::Hosts;

/// Who issues certificates.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The host where the authority's key lies; this machine when `None`.
    pub ca_host: Option<HostName>,
    /// The authority's private key there.
    pub ca_key: PathBuf,
    /// The authority's certificate there.
    pub ca_crt: PathBuf,
    /// The kwbase with which certificates are made there; the host's own when `None`.
    pub program: Option<String>,
    /// More names and addresses for every node's certificate.
    pub names: Vec<String>,
    /// Owner of installed files, `user:group`; that of their directory when `None`.
    pub owner: Option<String>,
    /// Whether `ca.key` stays on hosts to which the archive was carried.
    pub keep_ca_key: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CertificatesTable {
    ca_host: Option<HostName>,
    ca_key: PathBuf,
    ca_crt: Option<PathBuf>,
    program: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    owner: Option<String>,
    #[serde(default)]
    keep_ca_key: bool,
}

impl CertificatesTable {
    /// `base` is the directory of the file, `hosts` are its hosts.
    pub(super) fn into_certificates(
        self,
        base: &Path,
        secure: bool,
        hosts: &[KwbaseHost],
    ) -> Result<Certificates, String> {
        if !secure {
            let what = "[certificates] with secure = false; leave the table out, or set secure = true";
            return Err(what.to_owned());
        }
        if let Some(host) = self.ca_host.as_ref().filter(|h| !hosts.iter().any(|k| k.name == **h)) {
            return Err(format!(
                "[certificates]: ca_host '{host}' is not one of the [[host]] tables; add it"
            ));
        }
        let ca_crt = self.ca_crt.unwrap_or_else(|| self.ca_key.with_file_name("ca.crt"));
        // On another host a path is one over there.
        let place = |path: PathBuf| if self.ca_host.is_none() { base.join(path) } else { path };
        let (ca_key, ca_crt) = (place(self.ca_key), place(ca_crt));
        if let Some(path) = [&ca_key, &ca_crt].into_iter().find(|p| !p.is_absolute()) {
            return Err(format!(
                "[certificates]: '{}' is a path on host {}; write it absolute",
                path.display(),
                self.ca_host.as_ref().map_or("", HostName::as_str)
            ));
        }
        for name in &self.names {
            check_name(name).map_err(|why| format!("[certificates]: names: {why}"))?;
        }
        if let Some(owner) = &self.owner {
            let word = |w: &str| {
                !w.is_empty()
                    && !w.starts_with('-')
                    && w.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            };
            if !owner.split_once(':').is_some_and(|(user, group)| word(user) && word(group)) {
                let shown = owner.escape_debug();
                return Err(format!(
                    "[certificates]: owner = '{shown}' is not user:group; write such as kaiwudb:kaiwudb"
                ));
            }
        }
        Ok(Certificates {
            ca_host: self.ca_host,
            ca_key,
            ca_crt,
            program: self.program,
            names: self.names,
            owner: self.owner,
            keep_ca_key: self.keep_ca_key,
        })
    }
}

impl Certificates {
    /// The authority, reached as the hosts are; `trusted` is the operator's own `ca.crt`.
    pub(crate) fn authority(
        &self,
        hosts: &[KwbaseHost],
        transport: &Arc<Hosts>,
        trusted: &Path,
    ) -> Result<Authority, PortError> {
        let (key, crt) = (self.ca_key.display().to_string(), self.ca_crt.display().to_string());
        let known = self.ca_host.as_ref().and_then(|name| hosts.iter().find(|h| h.name == *name));
        let issuer: Arc<dyn CertificateIssuer> = match known {
            Some(host) => {
                let mut host = host.clone();
                host.program = self.program.clone().unwrap_or(host.program);
                Arc::new(IssueOnHost::new(transport.clone(), host, key, crt)?)
            }
            None => {
                let mut host = KwbaseHost::new("of this kwscale", Security::Insecure);
                host.program = self.program.clone().unwrap_or_else(|| PROGRAM.to_owned());
                Arc::new(IssueOnHost::new(Arc::new(LocalTransport::any_host()), host, key, crt)?)
            }
        };
        let pem = std::fs::read_to_string(trusted).map_err(|e| {
            let text = format!("{} cannot be read: {e}; put the cluster's ca.crt there", trusted.display());
            PortError::new(PortErrorKind::Config, text)
        })?;
        let mut authority = Authority::new(issuer);
        authority.extra_names.clone_from(&self.names);
        authority.owner.clone_from(&self.owner);
        authority.keep_ca_key = self.keep_ca_key;
        authority.trusted.insert(format!("kwscale by {}", trusted.display()), pem);
        Ok(authority)
    }
}
