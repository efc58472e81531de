//! Certificates for a host that joins a secure cluster: who issues them, how they travel, how they are installed.
//!
//! Two ways. **Issue**, the safer one: the node's and root's certificates are made where the key of the certificate
//! authority lies, and only `ca.crt` and the two pairs travel. **Archive**, the one that the KWDB page "Cluster Scaling"
//! documents: `kaiwudb_certs.tar.gz` with `ca.crt` and the authority's private key is made on the node that holds
//! them, carried to the new host, extracted there, and the certificates are made there (which the page forgets to
//! say for the `kwbase` method).
//!
//! | item | what |
//! |---|---|
//! | [`CertificateIssuer`] | who issues: implemented by [`IssueOnHost`], or by an embedder for an authority of its own |
//! | [`IssueOnHost`] | `kwbase cert` on the host where the authority's key lies |
//! | [`CertificateSet`], [`Pair`] | what is issued; private keys print as `[redacted]` |
//! | [`Archive`] | the documented archive, opened safely |
//! | [`put_archive`], [`remove_archive`] | the archive as a file on a host, for `deploy.sh join` |
//! | [`node_names`] | the names and addresses that a node's certificate is made for |
//!
//! What is done on the new host is the port [`CertificateControl`](crate::ports::CertificateControl), which
//! [`Kwbase`](crate::kwbase::Kwbase) implements.

pub mod archive;
pub(crate) mod found;
mod install;
mod on_host;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

pub use archive::{Archive, ArchiveError};
pub(crate) use install::{Installation, find_archive, remove_half};
pub use install::{put_archive, remove_archive};
pub use on_host::IssueOnHost;

use crate::certificate::Certificate;
use crate::fact::Fact;
use crate::host_facts::KeyMatch;
use crate::ports::{PortError, PortErrorKind};
use crate::secret::Secret;
use crate::topology::HostName;

/// The user whose client certificate `kwbase node decommission` and `quit` need.
pub const ROOT: &str = "root";
/// A certificate that ends sooner is made anew, and an authority that does issues none.
pub const EXPIRES_SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A certificate with its private key, both in PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key; PKCS#1 (`RSA PRIVATE KEY`) as `kwbase` writes it, or any other form that it reads.
    pub key: Secret,
}

/// Everything that a host needs of certificates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateSet {
    /// `ca.crt`: the authority's certificate in PEM; more of them may follow the first.
    pub ca: String,
    /// `node.crt` and `node.key`.
    pub node: Pair,
    /// `client.root.crt` and `client.root.key`.
    pub root: Pair,
}

/// The authority as it can be seen without issuing anything.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IssuingAuthority {
    /// The certificate with which it signs.
    pub certificate: Certificate,
    /// Whether its private key can be read where the certificates are made.
    pub can_sign: Fact<bool>,
    /// Whether that key is the certificate's; `None` where nobody compares them.
    pub key: Option<Fact<KeyMatch>>,
    /// Release of the `kwbase` with which it issues, unknown with a reason where that cannot run; `None` where it issues by
    /// other means.
    pub build: Option<Fact<String>>,
    /// Permission bits of the file of its private key, such as `0o600`; `None` where it is no file, there is none, or they
    /// could not be had.
    pub key_mode: Option<u32>,
}

/// An order for certificates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IssueOrder {
    /// Names and IP addresses that the node's certificate must be valid for; at least one.
    pub names: Vec<String>,
    /// Fingerprint of the authority's certificate ([`Certificate::fingerprint`]): another one issues nothing.
    pub authority: String,
    /// Names everything temporary that is made for the order, so that it is found again after an interruption.
    /// Letters, digits and dashes.
    pub tag: String,
    /// The present: kwbase refuses a lifetime that outlasts its authority's, so it is shortened by this.
    pub now: Timestamp,
    /// How long it may take.
    pub deadline: Duration,
}

/// Issues certificates of the cluster's authority.
#[async_trait]
pub trait CertificateIssuer: Debug + Send + Sync {
    /// Where the certificates are made, for people: such as `host n1`.
    fn place(&self) -> String;

    /// The host and the path of the file in which the authority's private key lies, where it is one that a look at the
    /// host can find. By default nothing is told.
    fn key_file(&self) -> Option<(&HostName, &str)> {
        None
    }

    /// Looks at the authority. Only reads.
    async fn authority(&self, deadline: Duration) -> Result<IssuingAuthority, PortError>;

    /// Makes the pair of a node and one of root. May be repeated: each call makes new ones. Leaves nothing behind,
    /// neither on success nor on failure; what a lost connection leaves is found by the order's tag.
    async fn issue(&self, order: &IssueOrder) -> Result<CertificateSet, PortError>;

    /// Makes the documented archive of the authority's certificate and **private key**, checks it, and leaves nothing
    /// behind where it was made. Fails with [`Unsupported`](PortErrorKind::Unsupported) where the key must not leave.
    async fn archive(&self, order: &IssueOrder) -> Result<Archive, PortError> {
        let _ = order;
        let text = format!("{} does not give its private key away: use the method issue", self.place());
        Err(PortError::new(PortErrorKind::Unsupported, text))
    }

    /// What interrupted orders with this tag have left: paths, each with its place. Only reads.
    async fn leftovers(&self, tag: &str, deadline: Duration) -> Result<Vec<String>, PortError> {
        let (_, _) = (tag, deadline);
        Ok(Vec::new())
    }

    /// Removes what interrupted orders with this tag have left. May be repeated.
    async fn clean(&self, tag: &str, deadline: Duration) -> Result<(), PortError> {
        let (_, _) = (tag, deadline);
        Ok(())
    }
}

/// What is wrong with certificates for a host, each in one line that names the file; empty when they fit.
///
/// `ca`, `node` and `root` are PEM texts, `None` when the file is not there. Whether a signature is right is proven
/// by TLS when it is used.
pub fn faults(
    ca: Option<&str>,
    node: Option<&str>,
    root: Option<&str>,
    authority: &str,
    names: &[String],
    now: Option<Timestamp>,
) -> Vec<String> {
    let mut faults = Vec::new();
    let mut read = |file: &str, text: Option<&str>| match text.map(Certificate::from_pem) {
        None => {
            faults.push(format!("{file} is not there"));
            None
        }
        Some(Err(e)) => {
            faults.push(format!("{file}: {e}"));
            None
        }
        Some(Ok(certificate)) => Some(certificate),
    };
    let (ca, node, root) = (read("ca.crt", ca), read("node.crt", node), read("client.root.crt", root));
    if let Some(ca) = &ca
        && ca.fingerprint != authority
    {
        faults.push(format!(
            "ca.crt is of another authority ({}) than the cluster's ({})",
            brief(&ca.fingerprint),
            brief(authority)
        ));
    }
    for (file, certificate, user) in [("node.crt", &node, "node"), ("client.root.crt", &root, ROOT)] {
        let Some(certificate) = certificate else { continue };
        if let Some(ca) = &ca
            && !certificate.names_as_issuer(ca)
        {
            faults.push(format!("{file} was signed by another authority than ca.crt"));
        }
        if certificate.common_name.as_deref() != Some(user) {
            let found = certificate.common_name.as_deref().unwrap_or("nobody");
            faults.push(format!("{file} is of '{}', not of '{user}'", found.escape_debug()));
        }
        faults.extend(purpose_fault(file, certificate));
        if now.is_some_and(|now| certificate.not_after.duration_since(now) < EXPIRES_SOON) {
            faults.push(format!("{file} ends at {}", certificate.not_after));
        }
    }
    if let Some(node) = &node {
        let missing: Vec<&str> = names.iter().map(String::as_str).filter(|n| !node.is_for(n)).collect();
        if !missing.is_empty() {
            faults.push(format!("node.crt is not valid for {}", missing.join(", ")));
        }
    }
    faults
}

/// Why a certificate cannot be used as what its file's name says: TLS refuses it. In one line that names the file.
pub(crate) fn purpose_fault(file: &str, certificate: &Certificate) -> Option<String> {
    let serves = file != "node.crt" || certificate.may_serve();
    let missing = match (serves, certificate.may_log_in()) {
        (true, true) => return None,
        (false, true) => "of a server",
        (true, false) => "of a client",
        (false, false) => "of a server and of a client",
    };
    Some(format!("{file} may not be used as that {missing} (extended key usage)"))
}

/// The first digits of a fingerprint, for people.
pub fn brief(fingerprint: &str) -> String {
    fingerprint.chars().take(16).collect()
}

impl CertificateSet {
    /// What is wrong with it for an order, each in one line; empty when it fits.
    pub fn faults(&self, order: &IssueOrder) -> Vec<String> {
        let mut faults = faults(
            Some(&self.ca),
            Some(&self.node.certificate),
            Some(&self.root.certificate),
            &order.authority,
            &order.names,
            None,
        );
        for (file, pair) in [("node.key", &self.node), ("client.root.key", &self.root)] {
            if !pair.key.expose().contains("PRIVATE KEY-----") {
                faults.push(format!("{file} is no private key in PEM form"));
            }
        }
        faults
    }
}

/// The names and addresses that a node's certificate is made for: `wanted` first, then `extra`, then what every node
/// is called on its own machine. Addresses that mean "all" are left out unless `extra` names them.
///
/// ```
/// # use kwdb_scale_core::certs::node_names;
/// let names = node_names(["10.0.0.5".to_owned(), "0.0.0.0".to_owned()], &["db5".to_owned()]);
/// assert_eq!(names, ["10.0.0.5", "127.0.0.1", "localhost", "db5"]);
/// ```
pub fn node_names(wanted: impl IntoIterator<Item = String>, extra: &[String]) -> Vec<String> {
    let own = ["127.0.0.1", "localhost"].map(str::to_owned);
    let is_any = |n: &String| n.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    let wanted = wanted.into_iter().chain(own).map(bare).filter(|n| !n.is_empty() && !is_any(n));
    let mut names: Vec<String> = Vec::new();
    for name in wanted.chain(extra.iter().cloned().map(bare)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// An IPv6 address without its brackets.
fn bare(name: String) -> String {
    name.trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// Whether `name` can stand in a certificate; the reason when it cannot.
///
/// # Errors
/// One line that names it.
pub fn check_name(name: &str) -> Result<(), String> {
    let shown = name.escape_debug();
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '*');
    if name.is_empty() || name.len() > 253 {
        return Err(format!("the name '{shown}' is empty or longer than 253 characters"));
    }
    if name.starts_with('-') || !name.chars().all(harmless) {
        return Err(format!(
            "'{shown}' is no host name or IP address; write letters, digits, dots and dashes, or an address"
        ));
    }
    Ok(())
}

/// Names and tag of an order are checked before anything is done.
fn check_order(order: &IssueOrder) -> Result<(), PortError> {
    let config = |why: String| PortError::new(PortErrorKind::Config, why);
    check_tag(&order.tag)?;
    if order.names.is_empty() {
        return Err(config("a certificate for no name at all is of no use; give one".to_owned()));
    }
    order.names.iter().try_for_each(|n| check_name(n)).map_err(config)
}

fn check_tag(tag: &str) -> Result<(), PortError> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if tag.len() < 4 || tag.len() > 64 || !tag.chars().all(good) {
        let text =
            format!("'{}' cannot name temporary files: write letters, digits and dashes", tag.escape_debug());
        return Err(PortError::new(PortErrorKind::Config, text));
    }
    Ok(())
}

/// `--lifetime` for certificates of an authority that ends before kwbase's own default of 43920 hours would: kwbase
/// refuses those. An hour less than what is left.
fn lifetime(authority: &Certificate, now: Timestamp) -> Option<String> {
    const DEFAULT: i64 = 43_920;
    let left = authority.not_after.duration_since(now).as_hours();
    (left <= DEFAULT).then(|| format!("{}h", (left - 1).max(1)))
}
