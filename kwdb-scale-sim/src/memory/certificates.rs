//! Certificates of the simulated machines: who has some, and what an installation did to them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use kwdb_scale_core::canonical::hex;
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::ports::{
    AuthorityFacts, CertificateControl, CertificateFacts, CertificateState, CertifyHost, PortError,
    PortErrorKind,
};
use kwdb_scale_core::topology::HostName;

use super::{SimHost, World};
use crate::model::Security;

/// What a call costs.
const CALL: Duration = Duration::from_millis(60);
const FILES: [&str; 5] = ["ca.crt", "node.crt", "node.key", "client.root.crt", "client.root.key"];

/// What installations did on a machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Installed {
    /// Whether the node and root had certificates before.
    before: Option<(bool, bool)>,
    /// Interrupted after it was committed.
    half: bool,
    /// Something temporary is left.
    left: bool,
    /// The next installation is interrupted.
    cut: bool,
    /// It made the directory.
    made: bool,
}

/// Certificates on known hosts, issued by the cluster's authority.
#[derive(Clone, Debug)]
pub struct SimCertificates(World);

impl SimCertificates {
    pub(crate) fn new(world: &World) -> Self {
        Self(world.clone())
    }

    fn finish(&self, host: &HostName) {
        self.0.edit_host(host, |h| (h.node_certificate, h.root_certificate) = (true, true));
        self.0.installed(host, |i| (i.half, i.left) = (false, false));
    }
}

/// A stand-in for the SHA-256 of an authority's certificate.
fn fingerprint(security: &Security) -> Fact<String> {
    let Security::Ca(ca) = security else { return Fact::unknown("it is insecure") };
    let digits = hex(ca.as_bytes());
    Fact::Known(format!("{digits:0<64}").chars().take(64).collect())
}

#[async_trait]
impl CertificateControl for SimCertificates {
    fn issues(&self) -> bool {
        matches!(self.0.cluster().config().security, Security::Ca(_))
    }

    async fn authority(&self, members: &[HostName]) -> Result<AuthorityFacts, PortError> {
        self.0.advance(CALL);
        let security = self.0.cluster().config().security.clone();
        let Fact::Known(fingerprint_) = fingerprint(&security) else {
            return Err(PortError::new(PortErrorKind::Config, "the cluster is insecure"));
        };
        let mut trusted = BTreeMap::from([("the operator".to_owned(), fingerprint(&security))]);
        for host in members {
            trusted.insert(format!("host {host}"), fingerprint(&self.0.host(host)?.security));
        }
        Ok(AuthorityFacts {
            place: "host n1".to_owned(),
            fingerprint: fingerprint_,
            not_after: self.0.now() + Duration::from_secs(10 * 365 * 86_400),
            can_sign: Fact::Known(true),
            key: None,
            build: None,
            key_file: None,
            trusted,
            archive_only: BTreeSet::new(),
        })
    }

    async fn look(&self, job: &CertifyHost) -> Result<CertificateFacts, PortError> {
        self.0.advance(CALL);
        let host = self.0.host(&job.host)?;
        let installed = self.0.installed(&job.host, |i| i.clone());
        let (node, root) = (host.node_certificate, host.root_certificate);
        let empty = installed.made && !node && !root;
        let missing = |there: bool, file: &str| (!there).then(|| format!("{file} is not there"));
        let state = match (installed.half, installed.before) {
            (true, _) => CertificateState::Half,
            (false, Some((false, false)) | None) => CertificateState::Untouched,
            (false, Some(_)) => CertificateState::Installed,
        };
        Ok(CertificateFacts {
            remains: Vec::new(),
            joining: None,
            missing: (!node && !root && !installed.made).then(|| host.certs_dir.clone()),
            state,
            present: if node || root { FILES.map(str::to_owned).to_vec() } else { Vec::new() },
            faults: [missing(node, "node.crt"), missing(root, "client.root.crt")]
                .into_iter()
                .flatten()
                .collect(),
            leftovers: installed
                .left
                .then(|| format!("/tmp/kwdb-scale-{} on host n1", job.tag))
                .into_iter()
                .chain((empty && job.made.is_some()).then(|| host.certs_dir.clone()))
                .collect(),
            kept: format!("{}.old-{}", host.certs_dir, job.tag),
        })
    }

    async fn install(&self, job: &CertifyHost) -> Result<(), PortError> {
        self.0.advance(CALL);
        let host = self.0.host(&job.host)?;
        let cut = self.0.installed(&job.host, |i| {
            i.made |= i.before.is_none() && !host.node_certificate && !host.root_certificate;
            i.before.get_or_insert((host.node_certificate, host.root_certificate));
            let cut = std::mem::take(&mut i.cut);
            if cut {
                (i.half, i.left) = (true, true);
            }
            cut
        });
        if cut {
            return Err(PortError::new(PortErrorKind::ConnectionLost, "the connection was lost"));
        }
        self.finish(&job.host);
        Ok(())
    }

    async fn restore(&self, job: &CertifyHost) -> Result<(), PortError> {
        self.0.advance(CALL);
        let before = self.0.installed(&job.host, |i| {
            let made = i.made && job.made.is_none();
            std::mem::replace(i, Installed { made, ..Installed::default() }).before
        });
        if let Some(before) = before {
            self.0.edit_host(&job.host, |h| (h.node_certificate, h.root_certificate) = before);
        }
        Ok(())
    }

    async fn clean(&self, job: &CertifyHost) -> Result<(), PortError> {
        self.0.advance(CALL);
        if self.0.installed(&job.host, |i| i.half) {
            self.finish(&job.host);
        }
        self.0.installed(&job.host, |i| i.left = false);
        Ok(())
    }
}

impl World {
    /// The next installation of certificates on this host is interrupted, half done and with something temporary left.
    pub fn cut_certificates(&self, host: &HostName) {
        self.installed(host, |i| i.cut = true);
    }

    /// Whether an installation made a directory of certificates there in which none is.
    pub fn certificates_left_empty(&self, host: &SimHost) -> bool {
        self.installed(&host.name, |i| i.made) && !host.node_certificate && !host.root_certificate
    }

    /// Whether something temporary of an installation of certificates is left, or half of one.
    pub fn certificates_unfinished(&self) -> bool {
        self.hosts().iter().any(|h| self.installed(&h.name, |i| i.half || i.left))
    }
}
