//! What operations that were cut off and not taken up again have left of certificates: looked for, and removed.
//!
//! Private keys lie in it, so whoever begins another operation removes it first. Nothing that a node may run with is
//! touched: what was only made goes, and what was about to be put in place is left to a resume or an undo.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::record::{Certification, Ledger};
use super::steps::certify;
use crate::certs::archive::NAME;
use crate::ports::{CertificateControl, CertificateFacts, CertificateState, CertifyHost};
use crate::topology::HostName;

/// What an operation has left of certificates on a host, and where they are made.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Remains {
    /// Nothing.
    Nothing,
    /// It was removed: paths, each with its place.
    Removed(Vec<String>),
    /// It is there, or may be.
    Left {
        /// Paths, each with its place; none where it could not be looked.
        what: Vec<String>,
        /// Why it is there, or what is not known.
        why: String,
    },
}

/// Removes what an operation has left that is temporary. To be called while the operation lock is held: what an
/// operation that still runs has there is none.
pub async fn clean_certificates(
    ledger: &Ledger,
    control: &dyn CertificateControl,
    now: Timestamp,
) -> BTreeMap<HostName, Remains> {
    let looks = ledger.certified.iter().map(|(host, certification)| async move {
        // Directories that the operation made are an undo's business.
        let job = CertifyHost { made: None, ..certify::job_of(ledger, now, certification) };
        (host.clone(), clean(certification, &job, control).await)
    });
    futures_util::future::join_all(looks).await.into_iter().collect()
}

async fn clean(
    certification: &Certification,
    job: &CertifyHost,
    control: &dyn CertificateControl,
) -> Remains {
    let unseen = |what, e: &crate::ports::PortError| Remains::Left {
        what,
        why: format!("it could not be looked at: {}", e.chain()),
    };
    let before = match control.look(job).await {
        Ok(facts) => facts,
        Err(e) => return unseen(Vec::new(), &e),
    };
    if before.state == CertificateState::Half {
        let why =
            "certificates were being put in place, which only its resume finishes and its undo takes back";
        return Remains::Left { what: before.leftovers, why: why.to_owned() };
    }
    if !before.leftovers.is_empty() {
        if let Err(e) = control.clean(job).await {
            let why = format!("it could not be removed: {}", e.chain());
            return Remains::Left { what: before.leftovers, why };
        }
        match control.look(job).await {
            Ok(after) if after.leftovers.is_empty() => {}
            Ok(after) => {
                let why = "it was removed, and is there all the same".to_owned();
                return Remains::Left { what: after.leftovers, why };
            }
            Err(e) => return unseen(before.leftovers, &e),
        }
    }
    let what = joining(certification, &before);
    if !what.is_empty() {
        let why = "a join by the host's own script wants it, and its resume or undo removes it".to_owned();
        return Remains::Left { what, why };
    }
    match before.leftovers {
        none if none.is_empty() => Remains::Nothing,
        removed => Remains::Removed(removed),
    }
}

/// What a join by the host's own script has, with the authority's private key in it.
fn joining(certification: &Certification, facts: &CertificateFacts) -> Vec<String> {
    let archive = certification.fresh && facts.present.iter().any(|name| name == NAME);
    let archive = archive.then(|| format!("{NAME} on host {}", certification.host));
    archive.into_iter().chain(facts.remains.iter().cloned()).collect()
}
