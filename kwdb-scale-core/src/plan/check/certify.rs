//! Rules on the steps that make certificates.

use super::{Case, FORMAT, Judge, REQUEST, Report, Rule};
use crate::fact::Fact;
use crate::observation::Observation;
use crate::plan::Step;
use crate::request::Certificates;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "certify-as-asked",
        says: "certificates are made exactly if asked for, by the method asked for, just before each host's join",
        source: REQUEST,
        judge: Judge::Plan(as_asked),
    },
    Rule {
        name: "certify-authority",
        says: "the authority is named by the SHA-256 of its certificate, and it is one",
        source: FORMAT,
        judge: Judge::Plan(authority),
    },
    Rule {
        name: "observed-authority",
        says: "the authority is the one observed, and all that could be asked trust it",
        source: "KWDB page, \"Scale-Out Operations\": certificates of the cluster's own authority",
        judge: Judge::Facts(observed),
    },
];

fn as_asked(case: &Case<'_>, report: &mut Report) {
    let asked = case.plan.request.options.certificates;
    for (index, step) in case.steps() {
        let Step::Certify { host, method, .. } = step else { continue };
        if asked == Certificates::Present {
            report.at(index, format!("certificates are made for host {host} unasked"));
        } else if *method != asked {
            report.at(
                index,
                format!("certificates of host {host} are made by '{method}', asked was '{asked}'"),
            );
        }
        match case.plan.steps.get(index.saturating_add(1)) {
            Some(Step::Join { host: joins, .. }) if joins == host => {}
            _ => report.at(index, format!("certificates are made for host {host}, which does not join next")),
        }
    }
    if asked == Certificates::Present {
        return;
    }
    for join in case.joins() {
        let before = join.index.checked_sub(1).and_then(|i| case.plan.steps.get(i));
        if !matches!(before, Some(Step::Certify { host, .. }) if host == join.host) {
            report.at(
                join.index,
                format!("host {} joins without the certificates that were asked for", join.host),
            );
        }
    }
}

fn authorities<'a>(case: &Case<'a>) -> impl Iterator<Item = (usize, &'a str)> {
    case.steps().filter_map(|(i, step)| match step {
        Step::Certify { authority, .. } => Some((i, authority.as_str())),
        _ => None,
    })
}

fn authority(case: &Case<'_>, report: &mut Report) {
    let mut first: Option<&str> = None;
    for (index, authority) in authorities(case) {
        let digits = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if authority.len() != 64 || !authority.chars().all(digits) {
            report.at(index, format!("'{authority}' is no SHA-256 of a certificate"));
        }
        if *first.get_or_insert(authority) != authority {
            report.at(index, "certificates of two authorities");
        }
    }
}

fn observed(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    for (index, authority) in authorities(case) {
        match &observation.authority {
            Some(Fact::Known(facts)) => {
                if facts.fingerprint != authority {
                    report.at(
                        index,
                        format!("the authority is {authority}, observed was {}", facts.fingerprint),
                    );
                }
                for (who, trusts) in &facts.trusted {
                    if trusts.known().is_some_and(|t| t != authority) {
                        report.at(index, format!("{who} trusts another authority than {authority}"));
                    }
                }
            }
            Some(Fact::Unknown(why)) => report.at(index, format!("the authority is not known: {why}")),
            None => report.at(index, "the authority was not looked at"),
        }
    }
}
