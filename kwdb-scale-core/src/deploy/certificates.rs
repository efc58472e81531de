//! [`CertificateControl`] for hosts of the script's: it makes the certificates itself, of the archive that is put there.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::DeployHost;
use super::adapter::{DeployScript, LOOK};
use crate::certs::{archive, brief, find_archive, put_archive, remove_archive, remove_half};
use crate::fact::Fact;
use crate::kwbase::{KwbaseHost, Security};
use crate::ports::{
    AuthorityFacts, CertificateControl, CertificateFacts, CertificateState, CertifyHost, HostTransport,
    PortError, PortErrorKind,
};
use crate::request::Certificates;
use crate::topology::HostName;

/// A host of the script's for which the archive is wanted.
struct Archived<'a> {
    deploy: &'a DeployHost,
    /// How its machine is reached: the script, and so the archive, is on the machine, never in a container.
    machine: KwbaseHost,
}

impl<H: HostTransport + ?Sized> DeployScript<H> {
    /// The host when it is the script's; an error when the script cannot have what is wanted.
    fn archived(&self, job: &CertifyHost) -> Result<Option<Archived<'_>>, PortError> {
        let Some(deploy) = self.hosts.get(&job.host) else { return Ok(None) };
        let fail = |why: &str| {
            let text = format!("host {}: {why}; nothing was done", job.host);
            Err(PortError::new(PortErrorKind::Config, text))
        };
        let known = self.kwbase.known(&job.host)?;
        if !matches!(known.security, Security::Certs { .. }) {
            return fail("it is configured insecure and needs no certificates");
        }
        if job.method != Certificates::Archive {
            return fail(
                "deploy.sh join makes the certificates itself, of the authority's private key: ask for certificates of the \
                 method archive, or let the host join by the method kwbase",
            );
        }
        Ok(Some(Archived { deploy, machine: KwbaseHost { exec_prefix: Vec::new(), ..known.clone() } }))
    }

    fn transport(&self) -> &Arc<H> {
        self.kwbase.transport()
    }
}

#[async_trait]
impl<H: HostTransport + ?Sized> CertificateControl for DeployScript<H> {
    fn issues(&self) -> bool {
        self.kwbase.issues()
    }

    async fn authority(&self, members: &[HostName]) -> Result<AuthorityFacts, PortError> {
        let facts = self.kwbase.authority(members).await?;
        Ok(AuthorityFacts { archive_only: self.hosts.keys().cloned().collect(), ..facts })
    }

    async fn look(&self, job: &CertifyHost) -> Result<CertificateFacts, PortError> {
        let Some(Archived { deploy, machine }) = self.archived(job)? else {
            return self.kwbase.look(job).await;
        };
        let of = (job.tag.as_str(), job.authority.as_str());
        // First of all: what is found after its end is left for good.
        let joining = match self.joining(deploy).await {
            Ok(found) => found.map(Fact::Known),
            Err(e) => Some(Fact::Unknown(e.chain())),
        };
        let found = find_archive(self.transport(), &machine, deploy.ca_dir(), of, LOOK).await?;
        let mut leftovers = found.leftovers;
        leftovers.extend(self.kwbase.issuing()?.issuer.leftovers(&job.tag, LOOK).await?);
        Ok(CertificateFacts {
            state: CertificateState::Untouched,
            present: if found.there { vec![archive::NAME.to_owned()] } else { Vec::new() },
            faults: found.faults,
            leftovers,
            remains: self.remains(deploy, false).await?,
            joining,
            missing: None,
            kept: format!("{}/etc/kaiwudb/before-join on host {}", deploy.root, job.host),
        })
    }

    async fn install(&self, job: &CertifyHost) -> Result<(), PortError> {
        let Some(Archived { deploy, machine }) = self.archived(job)? else {
            return self.kwbase.install(job).await;
        };
        let (share, making): (Duration, Duration) = (job.deadline / 8, job.deadline / 4);
        let transport = self.transport();
        // Whoever makes the certificates there has to read the key.
        let user = self.look(deploy, &machine).await?.usable(deploy)?.user;
        let of = (job.tag.as_str(), job.authority.as_str());
        let found = find_archive(transport, &machine, deploy.ca_dir(), of, share).await?;
        if found.there && found.faults.is_empty() {
            return Ok(());
        }
        if found.there && !job.fresh {
            let text =
                format!("host {}: {}; it was left there; move it away", job.host, found.faults.join("; "));
            return Err(PortError::new(PortErrorKind::Config, text));
        }
        let issuer = &self.kwbase.issuing()?.issuer;
        issuer.clean(&job.tag, share).await?;
        let archive = issuer.archive(&self.kwbase.order(job, making)?).await?;
        let made = &archive.authority().fingerprint;
        if *made != job.authority {
            let text = format!(
                "the archive that {} made for host {} is of another authority ({}) than the cluster's ({}); it was \
                 not put there",
                issuer.place(),
                job.host,
                brief(made),
                brief(&job.authority)
            );
            return Err(PortError::new(PortErrorKind::Malformed, text));
        }
        put_archive(transport, &machine, deploy.ca_dir(), (&archive, &user), &job.tag, making).await
    }

    async fn restore(&self, job: &CertifyHost) -> Result<(), PortError> {
        let Some(Archived { deploy, machine }) = self.archived(job)? else {
            return self.kwbase.restore(job).await;
        };
        let share = job.deadline / 2;
        self.remains(deploy, true).await?;
        // One that was there before is not ours.
        if job.fresh {
            remove_archive(self.transport(), &machine, deploy.ca_dir(), &job.tag, share).await?;
        }
        self.kwbase.issuing()?.issuer.clean(&job.tag, share).await
    }

    async fn clean(&self, job: &CertifyHost) -> Result<(), PortError> {
        let Some(Archived { deploy, machine }) = self.archived(job)? else {
            return self.kwbase.clean(job).await;
        };
        let share = job.deadline / 2;
        remove_half(self.transport(), &machine, deploy.ca_dir(), &job.tag, share).await?;
        self.kwbase.issuing()?.issuer.clean(&job.tag, share).await
    }
}
