//! Checks on what makes the certificates of hosts that join, when the request asks for any.

use std::collections::BTreeSet;

use super::Problem;
use crate::assess::{Context, Retry};
use crate::certs::{EXPIRES_SOON, brief};
use crate::fact::Fact;
use crate::host_facts::KeyMatch;
use crate::ports::AuthorityFacts;
use crate::request::Certificates;

const RETRY: &str = "the authority that issues certificates";

/// Whether certificates are to be made for a host.
pub(super) fn wanted(cx: &Context<'_>) -> bool {
    !cx.request.options.certificates.is_present() && !cx.change.add.is_empty()
}

pub(super) fn authority(cx: &Context<'_>) -> Vec<Problem> {
    if !wanted(cx) {
        return Vec::new();
    }
    let method = cx.request.options.certificates;
    let insecure: Vec<String> = cx
        .change
        .add
        .iter()
        .filter(|host| cx.obs.hosts.get(*host).and_then(Fact::known).is_some_and(|f| !f.secure))
        .map(ToString::to_string)
        .collect();
    if !insecure.is_empty() {
        let message = format!(
            "certificates are asked for ({method}), and {} is configured for an insecure cluster",
            insecure.join(", ")
        );
        return vec![Problem::new(message).cure("ask for no certificates, or configure the hosts as secure")];
    }
    let own = match &cx.obs.authority {
        Some(Fact::Known(facts)) if method == Certificates::Issue => &facts.archive_only,
        _ => &BTreeSet::new(),
    };
    let own: Vec<String> =
        cx.change.add.iter().filter(|h| own.contains(*h)).map(ToString::to_string).collect();
    if !own.is_empty() {
        let message = format!(
            "certificates cannot be issued for {}: deploy.sh join makes them itself, of the authority's private key",
            own.join(", ")
        );
        let cure = "ask for certificates of the method archive, or let the host join by the method kwbase";
        return vec![Problem::new(message).cure(cure)];
    }
    let cure = "configure who issues certificates and where the authority's key lies, or put the certificates on the \
                host yourself and ask for none (in a program: Ports::certificates, and ObserveOptions::certificates)";
    match &cx.obs.authority {
        None => {
            let message =
                format!("certificates are asked for ({method}), and nothing is configured that issues them");
            vec![Problem::new(message).cure(cure)]
        }
        Some(Fact::Unknown(why)) => {
            let message = format!("certificates are asked for ({method}), and they cannot be made: {why}");
            vec![Problem::new(message).cure(cure).retry(retry())]
        }
        Some(Fact::Known(facts)) => of_authority(cx, facts),
    }
}

/// What surely is wrong with its key.
fn key_damage(facts: &AuthorityFacts) -> Option<&'static str> {
    match facts.key {
        Some(Fact::Known(KeyMatch::Differs)) => Some("its key is not that of its certificate"),
        Some(Fact::Known(KeyMatch::NoKey)) => {
            Some("its key is no private key in PEM form, or it is cut off or has a passphrase")
        }
        Some(Fact::Known(KeyMatch::Fits) | Fact::Unknown(_)) | None => None,
    }
}

/// Why the authority is not the cluster's with a private key that can be used, or may not be.
fn doubts(facts: &AuthorityFacts) -> Vec<Problem> {
    let mut found = Vec::new();
    let place = &facts.place;
    let (mut others, mut unknown, mut same) = (Vec::new(), Vec::new(), false);
    for (who, trusts) in &facts.trusted {
        match trusts {
            Fact::Known(fingerprint) if *fingerprint == facts.fingerprint => same = true,
            Fact::Known(fingerprint) => others.push(format!("{who} trusts {}", brief(fingerprint))),
            Fact::Unknown(why) => unknown.push(format!("{who}: {why}")),
        }
    }
    if !others.is_empty() {
        let message = format!(
            "the authority on {place} ({}) is not the one that the cluster trusts",
            brief(&facts.fingerprint)
        );
        found.push(
            Problem::new(message)
                .evidence(others)
                .cure("name the place where the key of the cluster's own authority lies")
                .retry(retry()),
        );
    } else if !same {
        let message = format!("whether the authority on {place} is the cluster's is unknown");
        found.push(
            Problem::new(message)
                .evidence(unknown)
                .cure("describe the host of a member, or name the operator's ca.crt, so that the two can be compared")
                .retry(retry()),
        );
    }
    if let Some(damage) = key_damage(facts) {
        found.push(
            Problem::new(format!("the authority on {place} cannot sign certificates: {damage}"))
                .cure("name the file that holds the private key of the cluster's ca.crt")
                .retry(retry()),
        );
    }
    match &facts.can_sign {
        Fact::Known(true) => {}
        Fact::Known(false) => found.push(
            Problem::new(format!("the authority's private key cannot be read on {place}"))
                .cure("name the file that holds ca.key, and reach the host as a user that may read it")
                .retry(retry()),
        ),
        Fact::Unknown(why) => {
            found.push(Problem::unknown(&format!("whether {place} can sign certificates is"), why));
        }
    }
    found
}

fn retry() -> Retry {
    Retry::WhenFactChanges(RETRY.to_owned())
}

/// Why the authority that was looked at is not proven to be the cluster's with its private key, one a line; empty when it is.
pub(super) fn unproven(facts: &AuthorityFacts) -> Vec<String> {
    let place = &facts.place;
    let mut lines: Vec<String> = doubts(facts)
        .into_iter()
        .flat_map(|doubt| [doubt.message].into_iter().chain(doubt.evidence))
        .collect();
    if let (Some(Fact::Unknown(why)), Fact::Known(true)) = (&facts.key, &facts.can_sign) {
        lines.push(format!("whether the key on {place} is that of the authority's certificate: {why}"));
    }
    lines
}

fn of_authority(cx: &Context<'_>, facts: &AuthorityFacts) -> Vec<Problem> {
    let mut found = doubts(facts);
    let place = &facts.place;
    if let (Some(Fact::Unknown(why)), Certificates::Issue) = (&facts.build, cx.request.options.certificates) {
        found.push(
            Problem::new(format!("certificates cannot be made on {place}: {why}"))
                .cure("name the kwbase that is there (kwscale: program in [certificates]), or ask for certificates of the method archive, which are made on the new host")
                .retry(retry()),
        );
    }
    if let Fact::Known(now) = &cx.obs.server_time
        && facts.not_after.duration_since(*now) < EXPIRES_SOON
    {
        found.push(
            Problem::new(format!("the authority's certificate on {place} ends at {}", facts.not_after))
                .cure("renew the authority on the whole cluster before hosts join"),
        );
    }
    found
}

pub(super) fn key_travels(cx: &Context<'_>) -> Vec<Problem> {
    if !wanted(cx) || cx.request.options.certificates != Certificates::Archive {
        return Vec::new();
    }
    let (place, only) = match &cx.obs.authority {
        Some(Fact::Known(facts)) => {
            (facts.place.clone(), cx.change.add.iter().all(|h| facts.archive_only.contains(h)))
        }
        _ => ("its holder".to_owned(), false),
    };
    let cure = if only {
        "let them join by the method kwbase with certificates of the method issue, with which the key stays where it is"
    } else {
        "ask for certificates of the method issue, with which the key stays where it is"
    };
    let hosts: Vec<String> = cx.change.add.iter().map(|h| format!("host {h}")).collect();
    let message =
        format!("the private key of the cluster's authority leaves {place} for {}", hosts.join(", "));
    vec![
        Problem::new(message)
            .evidence(["who holds it can pass for any node and any user of the cluster".to_owned()])
            .cure(cure),
    ]
}
