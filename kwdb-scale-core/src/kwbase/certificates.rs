//! [`CertificateControl`] over a [`HostTransport`]: certificates are made by the configured issuer and installed with a
//! shell on the new host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;

use super::adapter::{Kwbase, LOOK};
use super::host::{KwbaseHost, Security};
use crate::certs::{CertificateIssuer, Installation, IssueOrder, faults, node_names};
use crate::fact::Fact;
use crate::ports::{
    AuthorityFacts, AuthorityKeyFile, CertificateControl, CertificateFacts, CertificateState, CertifyHost,
    HostTransport, PortError, PortErrorKind,
};
use crate::request::Certificates;
use crate::topology::{Address, HostName};

/// Who issues certificates for hosts that join, and what is chosen for all of them.
#[derive(Clone, Debug)]
pub struct Authority {
    /// Who issues.
    pub issuer: Arc<dyn CertificateIssuer>,
    /// More names and addresses for the certificate of every node, such as a load balancer's.
    pub extra_names: Vec<String>,
    /// Owner of the installed files as `user:group`; that of the certificate directory when `None`.
    pub owner: Option<String>,
    /// With [`Certificates::Archive`]: whether `ca.key` stays on the new host, as it does by the page.
    pub keep_ca_key: bool,
    /// What others trust, by a name for people: PEM texts of `ca.crt`, such as the operator's own.
    pub trusted: BTreeMap<String, String>,
}

impl Authority {
    /// An authority without extra names; the files get the owner of their directory; `ca.key` does not stay.
    pub fn new(issuer: Arc<dyn CertificateIssuer>) -> Self {
        Self { issuer, extra_names: Vec::new(), owner: None, keep_ca_key: false, trusted: BTreeMap::new() }
    }
}

impl<H: HostTransport + ?Sized> Kwbase<H> {
    pub(crate) fn issuing(&self) -> Result<&Authority, PortError> {
        self.authority.as_ref().ok_or_else(|| {
            let text = "nobody is configured who issues certificates; configure an authority, or put the certificates \
                        on the host yourself";
            PortError::new(PortErrorKind::Config, text)
        })
    }

    fn installation<'a>(
        &'a self,
        job: &'a CertifyHost,
        deadline: Duration,
    ) -> Result<Installation<'a, H>, PortError> {
        let host = self.known(&job.host)?;
        let Security::Certs { certs_dir } = &host.security else {
            let text = format!("host {} is configured insecure: it needs no certificates", host.name);
            return Err(PortError::new(PortErrorKind::Config, text));
        };
        Ok(Installation { transport: &self.transport, host, dir: certs_dir, tag: &job.tag, deadline })
    }

    pub(crate) fn order(&self, job: &CertifyHost, deadline: Duration) -> Result<IssueOrder, PortError> {
        let host = self.known(&job.host)?;
        let names =
            node_names(job.names.iter().cloned().chain(own_names(host)), &self.issuing()?.extra_names);
        Ok(IssueOrder {
            names,
            authority: job.authority.clone(),
            tag: job.tag.clone(),
            now: job.now,
            deadline,
        })
    }

    /// The issuer's certificates, staged and proven to fit the order.
    async fn stage(
        &self,
        there: &Installation<'_, H>,
        job: &CertifyHost,
        order: &IssueOrder,
    ) -> Result<(), PortError> {
        let authority = self.issuing()?;
        let owner = authority.owner.as_deref().unwrap_or_default();
        let refuse = |faults: Vec<String>| {
            let text = format!(
                "the certificates that {} made for host {} cannot be used: {}; they were not put in place",
                authority.issuer.place(),
                job.host,
                faults.join("; ")
            );
            Err(PortError::new(PortErrorKind::Malformed, text))
        };
        let [ca, node, root] = match job.method {
            Certificates::Archive => {
                let archive = authority.issuer.archive(order).await?;
                if archive.authority().fingerprint != order.authority {
                    return refuse(vec!["the archive holds another authority".to_owned()]);
                }
                there.stage_archive(&archive, order, owner, authority.keep_ca_key).await?
            }
            _ => {
                let set = authority.issuer.issue(order).await?;
                let faults = set.faults(order);
                if !faults.is_empty() {
                    return refuse(faults);
                }
                there.stage(&set, owner).await?
            }
        };
        let found =
            faults(Some(&ca), Some(&node), Some(&root), &order.authority, &order.names, Some(order.now));
        if found.is_empty() { Ok(()) } else { refuse(found) }
    }
}

/// Neither put in place nor taken back: what lies there is not known.
fn half_done(installing: &PortError, back: &PortError) -> PortError {
    let kind = match back.kind().is_transient() {
        true => PortErrorKind::ConnectionLost,
        false => PortErrorKind::Other,
    };
    PortError::new(kind, format!("{}; and it could not be taken back: {}", installing.chain(), back.chain()))
}

/// What a node of the host is called by its own description.
fn own_names(host: &KwbaseHost) -> Vec<String> {
    let addresses =
        [&host.advertise_addr, &host.listen_addr, &host.advertise_sql_addr, &host.sql_addr].into_iter();
    let named = addresses.flatten().map(|a: &Address| a.host().to_owned());
    named.filter(|n| !n.is_empty()).collect()
}

#[async_trait]
impl<H: HostTransport + ?Sized> CertificateControl for Kwbase<H> {
    fn issues(&self) -> bool {
        self.authority.is_some()
    }

    async fn authority(&self, members: &[HostName]) -> Result<AuthorityFacts, PortError> {
        let authority = self.issuing()?;
        let found = authority.issuer.authority(LOOK).await?;
        let looks = members.iter().filter_map(|name| self.host(name)).map(|host| async move {
            let Security::Certs { certs_dir } = &host.security else {
                return (format!("host {}", host.name), Fact::unknown("it is configured insecure"));
            };
            let there = Installation {
                transport: &self.transport,
                host,
                dir: certs_dir,
                tag: "none",
                deadline: LOOK,
            };
            let trusts = match there.look(None).await {
                Ok(look) => match look.authority() {
                    Some(certificate) => Fact::Known(certificate.fingerprint),
                    None => Fact::unknown(format!("{certs_dir}/ca.crt cannot be read")),
                },
                Err(e) => Fact::Unknown(e.chain()),
            };
            (format!("host {}", host.name), trusts)
        });
        let mut trusted: BTreeMap<String, Fact<String>> = join_all(looks).await.into_iter().collect();
        for (who, pem) in &authority.trusted {
            let trusts = match crate::certificate::Certificate::from_pem(pem) {
                Ok(certificate) => Fact::Known(certificate.fingerprint),
                Err(e) => Fact::Unknown(e.to_string()),
            };
            trusted.insert(who.clone(), trusts);
        }
        Ok(AuthorityFacts {
            place: authority.issuer.place(),
            fingerprint: found.certificate.fingerprint,
            not_after: found.certificate.not_after,
            can_sign: found.can_sign,
            key: found.key,
            build: found.build,
            key_file: authority.issuer.key_file().map(|(host, path)| AuthorityKeyFile {
                host: host.clone(),
                path: path.to_owned(),
                mode: found.key_mode,
            }),
            archive_only: BTreeSet::new(),
            trusted,
        })
    }

    async fn look(&self, job: &CertifyHost) -> Result<CertificateFacts, PortError> {
        let there = self.installation(job, LOOK)?;
        let order = self.order(job, LOOK)?;
        let look = there.look(job.made.as_deref()).await?;
        let mut wrong = faults(
            look.ca.as_deref(),
            look.node.as_deref(),
            look.root.as_deref(),
            &order.authority,
            &order.names,
            Some(job.now),
        );
        wrong.extend(look.key_faults());
        let mut leftovers = look.leftovers.clone();
        leftovers.extend(self.issuing()?.issuer.leftovers(&job.tag, LOOK).await?);
        Ok(CertificateFacts {
            remains: Vec::new(),
            joining: None,
            missing: look.missing.clone(),
            state: look.state,
            present: look.files.iter().map(|(name, _)| name.clone()).collect(),
            faults: wrong,
            leftovers,
            kept: format!("{}.old-{} on host {}", there.dir.trim_end_matches('/'), job.tag, job.host),
        })
    }

    async fn install(&self, job: &CertifyHost) -> Result<(), PortError> {
        // Finding primes takes its time on a busy machine; everything else is quick.
        let (share, making) = (job.deadline / 12, job.deadline / 4);
        let there = self.installation(job, share)?;
        let order = self.order(job, making)?;
        self.issuing()?.issuer.clean(&job.tag, share).await?;
        let before = there.look(job.made.as_deref()).await?;
        if before.state == CertificateState::Half {
            there.clean().await?;
        }
        if let Err(e) = self.stage(&self.installation(job, making)?, job, &order).await {
            // What was staged is of no use. Where the host cannot be reached, the next look finds it.
            if !e.kind().is_transient() {
                there.clean().await?;
            }
            return Err(e);
        }
        let other = before.authority().is_none_or(|ca| ca.fingerprint != job.authority);
        match there.commit(before.has("ca.key") && other && !job.fresh, job.fresh).await {
            Ok(()) => Ok(()),
            // The command failed, and its connection is there: what it changed is taken back at once.
            Err(e) if !e.kind().is_transient() => {
                let keep = self.issuing()?.keep_ca_key;
                match there.restore(job.fresh, keep, job.made.as_deref()).await {
                    Ok(()) => Err(e),
                    Err(back) => Err(half_done(&e, &back)),
                }
            }
            Err(e) => Err(e),
        }
    }

    async fn restore(&self, job: &CertifyHost) -> Result<(), PortError> {
        let share = job.deadline / 2;
        let authority = self.issuing()?;
        let there = self.installation(job, share)?;
        there.restore(job.fresh, authority.keep_ca_key, job.made.as_deref()).await?;
        authority.issuer.clean(&job.tag, share).await
    }

    async fn clean(&self, job: &CertifyHost) -> Result<(), PortError> {
        let share = job.deadline / 2;
        self.installation(job, share)?.clean().await?;
        self.issuing()?.issuer.clean(&job.tag, share).await
    }
}
