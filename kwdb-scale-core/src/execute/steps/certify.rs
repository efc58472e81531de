//! Certificates on a host before its node starts, and the old ones back when the operation is undone.
//!
//! Proven by looking: the authority's certificate is the cluster's, the node's covers its addresses, the keys are there and
//! private, and nothing temporary is left anywhere.

use jiff::{SignedDuration, Timestamp};

use super::super::event::Look;
use super::super::machine::{Ctx, State, Verdict};
use super::super::record::{Act, ActResult, Certification, Ledger, StopReason};
use crate::certs::archive::NAME;
use crate::fact::Fact;
use crate::ports::{CertificateState, CertifyHost};
use crate::request::Certificates;
use crate::topology::HostName;

/// For a join whose node has joined to remove what it needed for that, where its end cannot be seen.
const TIDIES: SignedDuration = SignedDuration::from_secs(20);

/// How long making and installing may take.
pub(in super::super) fn deadline(ledger: &Ledger) -> SignedDuration {
    let policy = &ledger.plan.policy;
    policy.start_deadline.saturating_add(policy.act_deadline.saturating_mul(4))
}

/// With all that the port needs.
pub(in super::super) fn job(state: &State, at: Timestamp, certification: &Certification) -> CertifyHost {
    job_of(&state.ledger, at, certification)
}

/// The same by the ledger alone.
pub(in super::super) fn job_of(ledger: &Ledger, at: Timestamp, certification: &Certification) -> CertifyHost {
    let entry = ledger.plan.request.inventory.hosts.get(&certification.host);
    let mut names: Vec<String> = Vec::new();
    for address in entry.into_iter().flat_map(|e| [Some(&e.address), e.sql_address.as_ref()]).flatten() {
        let name = address.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    CertifyHost {
        host: certification.host.clone(),
        method: certification.method,
        authority: certification.authority.clone(),
        names,
        tag: certification.tag.clone(),
        fresh: certification.fresh,
        made: certification.made.clone(),
        now: at,
        deadline: deadline(ledger).unsigned_abs(),
    }
}

/// The one that was begun, or a new one.
fn certification(
    state: &State,
    at: Timestamp,
    host: &HostName,
    method: Certificates,
    authority: &str,
) -> Certification {
    let begun = state.ledger.certified.get(host).cloned();
    begun.unwrap_or_else(|| {
        let plan: String = state.ledger.plan.id.chars().take(8).collect();
        let tag = format!("{}-{plan}-{}", at.strftime("%Y%m%dT%H%M%SZ"), state.ledger.cursor + 1);
        let (host, authority) = (host.clone(), authority.to_owned());
        Certification { host, method, authority, tag, fresh: false, made: None }
    })
}

pub(super) fn look(
    state: &State,
    at: Timestamp,
    host: &HostName,
    method: Certificates,
    authority: &str,
) -> Look {
    let certification = certification(state, at, host, method, authority);
    let mut look = Look { certificates: vec![job(state, at, &certification)], ..Look::default() };
    if state.scratch.want_host {
        look.hosts.push(host.clone());
    }
    look
}

pub(super) fn judge(ctx: &mut Ctx<'_>, host: &HostName, method: Certificates, authority: &str) -> Verdict {
    let facts = match ctx.looked.certificates.get(host) {
        Some(Fact::Known(facts)) => facts.clone(),
        Some(Fact::Unknown(why)) => {
            return super::patience(ctx, format!("a look at the certificates of host {host} ({why})"));
        }
        None => return Verdict::Again,
    };
    let mut certification = certification(ctx.state, ctx.at, host, method, authority);
    // What an act does whose answer was lost may only come.
    let in_doubt = matches!(&ctx.state.ledger.last, Some((_, ActResult::Failed { kind, .. })) if kind.may_have_been_done());
    let ours = certification.fresh && !facts.present.is_empty();
    if facts.state == CertificateState::Untouched && !ours && !in_doubt {
        ctx.state.scratch.as_before.insert(host.clone());
    }
    if facts.faults.is_empty() && facts.state != CertificateState::Half {
        if !facts.leftovers.is_empty() {
            let act = Act::CleanCertificates { job: certification };
            return super::attempt(ctx, act, &format!("removing temporary files of {host}'s certificates"));
        }
        let kept = match facts.state {
            CertificateState::Installed => format!("; the old ones are kept in {}", facts.kept),
            _ => String::new(),
        };
        let short = crate::certs::brief(authority);
        if facts.present.iter().any(|name| name == NAME) {
            return Verdict::Done(format!(
                "host {host} was given the archive of the cluster's authority ({short}), of which deploy.sh join makes certificates"
            ));
        }
        return Verdict::Done(format!(
            "host {host} has certificates of the cluster's authority ({short}) for its addresses{kept}"
        ));
    }
    if matches!(&ctx.state.ledger.last, Some((Act::Certify { .. }, ActResult::Done(_)))) {
        return Verdict::stop_with(
            StopReason::ActFailed,
            format!("certificates were installed on host {host}, and a node could not run with them"),
            facts.faults,
            super::next_moves(ctx.state),
        );
    }
    // Certificates must not change under a node that runs.
    if !ctx.state.scratch.want_host {
        ctx.state.scratch.want_host = true;
        return Verdict::Again;
    }
    match ctx.looked.hosts.get(host) {
        Some(Fact::Known(found)) => match &found.listening {
            Fact::Known(list) if list.is_empty() => {}
            Fact::Known(list) => {
                let list: Vec<String> = list.iter().map(|a| format!("something listens at {a}")).collect();
                let message = format!("host {host} is not fresh any more; its certificates were not touched");
                return Verdict::stop_with(
                    StopReason::GateClosed,
                    message,
                    list,
                    super::next_moves(ctx.state),
                );
            }
            Fact::Unknown(why) => {
                return super::gate(ctx, vec![format!("ports of host {host} are unknown: {why}")]);
            }
        },
        Some(Fact::Unknown(why)) => return super::gate(ctx, vec![format!("host {host} is unknown: {why}")]),
        None => return Verdict::Again,
    }
    if !ctx.state.ledger.certified.contains_key(host) {
        certification.fresh = facts.present.is_empty();
        certification.made = facts.missing;
    }
    let act = Act::Certify { job: certification };
    with_leftovers(
        super::attempt(ctx, act, &format!("making certificates for host {host}")),
        &facts.leftovers,
    )
}

/// A stop also tells what temporary is left: private keys may be in it.
fn with_leftovers(mut verdict: Verdict, leftovers: &[String]) -> Verdict {
    if let Verdict::Stop(stopped) = &mut verdict {
        let told = leftovers.iter().map(|path| format!("left behind: {path}"));
        stopped.evidence.extend(told);
    }
    verdict
}

/// What the end of an operation has to look at: hosts whose join had the archive.
pub(super) fn look_end(state: &State, at: Timestamp) -> Vec<CertifyHost> {
    state.ledger.joined_by_archive().map(|c| job(state, at, c)).collect()
}

/// Takes back what a join left that was cut off although its node joined. `None` when nothing is left.
pub(super) fn judge_end(ctx: &mut Ctx<'_>) -> Option<Verdict> {
    let joined: Vec<Certification> = ctx.state.ledger.joined_by_archive().cloned().collect();
    for certification in joined {
        let host = &certification.host;
        let (joining, remains) = match ctx.looked.certificates.get(host) {
            Some(Fact::Known(facts)) => (facts.joining.clone(), facts.remains.clone()),
            Some(Fact::Unknown(why)) => {
                let what = format!("a look at what the join left on host {host} ({why})");
                return Some(super::patience(ctx, what));
            }
            None => return Some(Verdict::Again),
        };
        if remains.is_empty() {
            continue;
        }
        if let Some(waiting) = tidies(ctx, host, joining.as_ref()) {
            return Some(waiting);
        }
        let act = Act::RestoreCertificates { job: certification.clone() };
        if matches!(&ctx.state.ledger.last, Some((last, ActResult::Done(_))) if *last == act) {
            return Some(Verdict::stop_with(
                StopReason::ActFailed,
                format!("what the join left on host {host} is there all the same"),
                remains,
                super::next_moves(ctx.state),
            ));
        }
        return Some(super::attempt(ctx, act, &format!("tidying up after the join on host {host}")));
    }
    None
}

/// A join that goes on tidies up by itself, though its node has joined, and is waited for. Where that cannot be told, it
/// has its time.
fn tidies(ctx: &Ctx<'_>, host: &HostName, joining: Option<&Fact<String>>) -> Option<Verdict> {
    match joining? {
        Fact::Known(what) => Some(Verdict::Wait(format!("{what} to end"))),
        Fact::Unknown(why) => (ctx.at.duration_since(ctx.entered()) < TIDIES)
            .then(|| Verdict::Wait(format!("the join on host {host} to tidy up ({why})"))),
    }
}

/// What an undo has to look at.
pub(super) fn look_undo(state: &State, at: Timestamp) -> Vec<CertifyHost> {
    state
        .ledger
        .restorable_certificates()
        .chain(state.ledger.left_archives())
        .chain(state.ledger.joined_by_archive().filter(|c| state.ledger.started.contains(&c.host)))
        .map(|c| job(state, at, c))
        .collect()
}

/// Puts the old certificates back where no node was started. `None` when there is nothing left to do.
pub(super) fn judge_undo(ctx: &mut Ctx<'_>) -> Option<Verdict> {
    let ledger = &ctx.state.ledger;
    let joined = ledger.joined_by_archive().filter(|c| ledger.started.contains(&c.host));
    let begun: Vec<Certification> =
        ledger.restorable_certificates().chain(ledger.left_archives()).chain(joined).cloned().collect();
    for certification in begun {
        let host = &certification.host;
        let started = ctx.state.ledger.started.contains(host);
        let has_joined = ctx.state.ledger.joined.contains_key(host);
        match ctx.looked.certificates.get(host) {
            // Where a node was started nothing changes but that the archive goes, and what a join left that was cut off.
            Some(Fact::Known(facts)) if started => {
                if let Some(waiting) = tidies(ctx, host, facts.joining.as_ref()) {
                    return Some(waiting);
                }
                let archive = !has_joined && facts.present.iter().any(|name| name == NAME);
                if !archive && facts.remains.is_empty() {
                    continue;
                }
            }
            Some(Fact::Known(facts)) => {
                let ours = certification.fresh && !facts.present.is_empty();
                if facts.state == CertificateState::Untouched && facts.leftovers.is_empty() && !ours {
                    continue;
                }
            }
            Some(Fact::Unknown(why)) => {
                return Some(Verdict::Wait(format!("a look at the certificates of host {host} ({why})")));
            }
            None => return Some(Verdict::Again),
        }
        let act = Act::RestoreCertificates { job: certification.clone() };
        if let (Some((last, ActResult::Done(_))), Some(Fact::Known(facts))) =
            (&ctx.state.ledger.last, ctx.looked.certificates.get(host))
            && *last == act
        {
            let left = facts.remains.iter().chain(&facts.leftovers).chain(&facts.present);
            return Some(Verdict::stop_with(
                StopReason::ActFailed,
                format!("certificates of host {host} were put back, and this is there all the same"),
                left.cloned().collect(),
                super::next_moves(ctx.state),
            ));
        }
        let what = format!("putting back the certificates of host {host}");
        let leftovers = match ctx.looked.certificates.get(host) {
            Some(Fact::Known(facts)) => facts.leftovers.as_slice(),
            _ => &[],
        };
        return Some(with_leftovers(super::attempt(ctx, act, &what), leftovers));
    }
    None
}
