//! Certificates of a host that joins a secure cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::PortError;
use crate::fact::Fact;
use crate::host_facts::KeyMatch;
use crate::request::Certificates;
use crate::topology::HostName;

/// The authority that issues, as it can be seen without issuing anything.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AuthorityFacts {
    /// Where the certificates are made, for people: such as `host n1`.
    pub place: String,
    /// SHA-256 of its certificate, as 64 lower-case hex digits.
    pub fingerprint: String,
    /// Its certificate is valid until then.
    pub not_after: Timestamp,
    /// Whether its private key can be read where the certificates are made.
    pub can_sign: Fact<bool>,
    /// Whether that key is the certificate's; `None` where nobody compares them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Fact<KeyMatch>>,
    /// Release of the `kwbase` with which certificates are [issued](Certificates::Issue), unknown with a reason where that
    /// cannot run; `None` where they are issued by other means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Fact<String>>,
    /// The file of its private key, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<AuthorityKeyFile>,
    /// Fingerprint of the authority that each of these trusts, by a name for people: hosts of members, the operator.
    pub trusted: BTreeMap<String, Fact<String>>,
    /// Hosts whose certificates can only be made there, of the [archive](Certificates::Archive): `deploy.sh join` replaces
    /// whatever lies there by what it makes itself.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub archive_only: BTreeSet<HostName>,
}

/// A file with a private key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AuthorityKeyFile {
    /// The host, which need not be one of the caller's inventory: the caller's own machine has a name, too.
    pub host: HostName,
    /// Its path there.
    pub path: String,
    /// Permission bits, such as `0o600`; `None` when there is no such file, or they could not be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// A host for which certificates are wanted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertifyHost {
    /// The host.
    pub host: HostName,
    /// How they are made; never [`Present`](Certificates::Present).
    pub method: Certificates,
    /// Fingerprint of the cluster's authority.
    pub authority: String,
    /// Names and IP addresses that the node's certificate must at least be valid for.
    pub names: Vec<String>,
    /// Names everything temporary, and the directory in which the old certificates are kept.
    pub tag: String,
    /// Whether no certificate of the host's was there before: putting back then means to remove them.
    pub fresh: bool,
    /// The topmost directory on the way to the certificates that was not there before ([`CertificateFacts::missing`]):
    /// putting back then means to remove it, too, and those below it, as far as nothing lies in them.
    pub made: Option<String>,
    /// The present by the caller's clock.
    pub now: Timestamp,
    /// How long the act may take in all.
    pub deadline: Duration,
}

/// How far the installation of certificates got.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateState {
    /// Nothing was replaced.
    #[default]
    Untouched,
    /// It was interrupted; whatever is done next finishes it first.
    Half,
    /// Older certificates were replaced and are kept aside.
    Installed,
}

/// What lies on a host for which certificates are wanted.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CertificateFacts {
    /// How far the installation got.
    pub state: CertificateState,
    /// Files of a node's certificates that are there, such as `node.crt`, or the archive of which they are to be made.
    pub present: Vec<String>,
    /// Why a node of the cluster could not run with them, one a line; empty when it could.
    pub faults: Vec<String>,
    /// Temporary files of this installation that are left, each with its place; of directories that were not there before
    /// ([`CertifyHost::made`]), one that is empty.
    pub leftovers: Vec<String>,
    /// What a join by the host's own script left that was cut off, each with its place: what it kept aside, and the
    /// authority's private key. Left as long as that join goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remains: Vec<String>,
    /// The join by the host's own script that still goes on there, in words, or why that cannot be told; `None` when none
    /// does. It tidies up by itself, and nothing is taken back under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joining: Option<Fact<String>>,
    /// Where the old certificates are kept, or would be.
    pub kept: String,
    /// The directory of the certificates where it is not there, or the topmost of those above it that are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// Certificates of hosts that join a secure cluster: looked at, installed, put back.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait CertificateControl: Debug + Send + Sync {
    /// Whether anything is configured that issues certificates; without it [`authority`](Self::authority) fails.
    fn issues(&self) -> bool {
        true
    }

    /// Looks at the authority, and at what members trust on these of their hosts. Only reads. A member that cannot be
    /// asked is an unknown in the result.
    async fn authority(&self, members: &[HostName]) -> Result<AuthorityFacts, PortError>;

    /// Looks at what lies on the host. Only reads.
    async fn look(&self, job: &CertifyHost) -> Result<CertificateFacts, PortError>;

    /// Makes certificates and installs them, all or none: older ones are kept aside. Durable when `Ok`. May be repeated,
    /// also after an interruption, which it finishes first. After an error the old set is in place, unless the error's
    /// kind [may have been done](super::PortErrorKind::may_have_been_done). Dropping the future may leave it half done.
    async fn install(&self, job: &CertifyHost) -> Result<(), PortError>;

    /// Puts the old set back, or removes the new one where there was none, and removes everything temporary. May be
    /// repeated. Not called for a host on which a node was started, unless [`look`](Self::look) tells of an archive or of
    /// [remains](CertificateFacts::remains) there, which alone are then removed or put back.
    async fn restore(&self, job: &CertifyHost) -> Result<(), PortError>;

    /// Removes everything temporary that interrupted installations left, everywhere. May be repeated.
    async fn clean(&self, job: &CertifyHost) -> Result<(), PortError>;
}
