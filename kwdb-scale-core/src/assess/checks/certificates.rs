//! Checks on certificates: those with which a new node would start, and who may read the keys of certificate authorities.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::machine::{Joining, joining};
use super::{Problem, authority, script};
use crate::assess::{Context, Retry};
use crate::certificate::Certificate;
use crate::certs::{brief, purpose_fault};
use crate::fact::Fact;
use crate::host_facts::{CertificateDirectory, HostFacts, Leftover};
use crate::topology::HostName;

/// A certificate that ends sooner is a warning.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The certificates without which a node does not start. kwbase passes over a damaged one of a client (seen on V3.2.1).
const OF_NODE: [&str; 2] = ["ca", "node"];
/// The same with root's, without which no command can log in.
const ALL: [&str; 3] = ["ca", "node", "client.root"];

const CA: &str = "ca.crt";
const CLIENT_CA: &str = "ca-client.crt";
const ROOT_CRT: &str = "client.root.crt";
const NODE: &str = "node.crt";

/// Secure hosts that shall join with the certificates that are there.
fn secure<'a>(cx: &Context<'a>) -> Vec<Joining<'a>> {
    // Where the plan itself puts certificates onto a new host, those that are there now do not matter.
    if authority::wanted(cx) {
        return Vec::new();
    }
    let stay = |new: &Joining<'a>| new.facts.secure && !script::makes_certificates(cx, new.host);
    joining(cx).into_iter().filter(stay).collect()
}

pub(super) fn directory(facts: &HostFacts) -> Option<&CertificateDirectory> {
    facts.machine.as_deref()?.certificates.known()?.as_ref()
}

/// Fingerprints of `ca.crt` on the hosts that do not join.
fn authorities<'a>(cx: &Context<'a>) -> Vec<(&'a HostName, &'a str)> {
    let others = cx.obs.hosts.iter().filter(|(host, _)| !cx.change.add.contains(host));
    others
        .filter_map(|(host, facts)| match directory(facts.known()?)?.certificate(CA) {
            Fact::Known(ca) => Some((host, ca.fingerprint.as_str())),
            Fact::Unknown(_) => None,
        })
        .collect()
}

/// A host that does not join whose authority is another one, with that one's fingerprint; `None` when one has the same, or none
/// is known.
pub(super) fn foreign<'a>(cx: &Context<'a>, fingerprint: &str) -> Option<(&'a HostName, &'a str)> {
    let known = authorities(cx);
    let same = known.iter().any(|(_, other)| *other == fingerprint);
    known.into_iter().next().filter(|_| !same)
}

/// Hosts onto which the plan cannot put certificates, because something else is where their directory is to be.
fn in_the_way(cx: &Context<'_>) -> Vec<Problem> {
    let wanted = if authority::wanted(cx) { joining(cx) } else { Vec::new() };
    let blocked = wanted.into_iter().filter_map(|new| {
        let dir = directory(new.facts).filter(|_| new.facts.secure)?;
        let why = dir.fault.as_ref()?;
        Some(
            Problem::new(format!("certificates cannot be put onto host {}: {}: {why}", new.host, dir.path))
                .cure("move it away: the directory is made where nothing is")
                .retry(Retry::WhenFactChanges(format!("certificates of host {}", new.host))),
        )
    });
    blocked.collect()
}

pub(super) fn usable(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = in_the_way(cx);
    for new in secure(cx) {
        let retry = || Retry::WhenFactChanges(format!("certificates of host {}", new.host));
        let cure = if new.facts.archive_only {
            "ask for certificates of the method archive (kwscale: --certificates archive): deploy.sh join makes them itself, of the archive with the authority's private key"
        } else {
            "ask for certificates of the method issue (kwscale: --certificates issue); or make a node certificate for the host where the key of the cluster's CA lies (kwbase cert create-node), and put ca.crt, node.crt and node.key there"
        };
        let lines = match &new.machine.certificates {
            Fact::Unknown(_) => continue,
            Fact::Known(None) => vec!["the certificate directory does not exist".to_owned()],
            Fact::Known(Some(dir)) if dir.fault.is_some() => dir.damage(&[]),
            Fact::Known(Some(dir)) => faults(cx, new, dir),
        };
        if !lines.is_empty() {
            let message = format!("a node cannot start or join with the certificates of host {}", new.host);
            found.push(Problem::new(message).evidence(lines).cure(cure).retry(retry()));
        }
    }
    found
}

fn faults(cx: &Context<'_>, new: Joining<'_>, dir: &CertificateDirectory) -> Vec<String> {
    let mut lines = Vec::new();
    for name in [CA, NODE, "node.key"] {
        if dir.file(name).is_none() {
            lines.push(format!("there is no {}/{name}", dir.path));
        }
    }
    lines.extend(dir.damage(&OF_NODE));
    if let (Some(key), Some(user)) = (dir.file("node.key"), new.machine.service_user())
        && new.facts.by_service
        && user != "root"
        && key.owner != user
        && key.mode & 0o044 == 0
    {
        lines.push(format!(
            "node.key may be read by {} alone ({:o}), and {} runs as {user}",
            key.owner,
            key.mode,
            new.machine.unit_name()
        ));
    }
    let (ca, node) = (dir.certificate(CA), dir.certificate(NODE));
    if let Fact::Known(ca) = &ca
        && let Some((host, other)) = foreign(cx, &ca.fingerprint)
    {
        lines.push(format!(
            "{CA} is of another authority ({}) than on host {host} ({})",
            brief(&ca.fingerprint),
            brief(other)
        ));
    }
    if let (Fact::Known(ca), Fact::Known(node)) = (&ca, &node)
        && !node.names_as_issuer(ca)
    {
        lines.push(format!("{NODE} was not issued by the authority of {CA} there, but by {}", node.issuer));
    }
    if let (Fact::Known(node), Some(entry)) = (&node, cx.request.inventory.hosts.get(new.host)) {
        for address in [Some(&entry.address), entry.sql_address.as_ref()].into_iter().flatten() {
            if !node.is_for(address.host()) {
                let names = node.names.join(", ");
                lines.push(format!("{NODE} is not for {}, but for {names}", address.host()));
            }
        }
        if node.common_name.as_deref() != Some("node") {
            let name = node.common_name.as_deref().unwrap_or("nobody");
            lines.push(format!("{NODE} is that of '{name}', and kwbase wants 'node'"));
        }
    }
    if let Fact::Known(node) = &node {
        lines.extend(purpose_fault(NODE, node));
    }
    lines.extend(
        [(CA, &ca), (NODE, &node)].into_iter().filter_map(|(name, c)| out_of_date(cx, name, c.known()?)),
    );
    // kwbase looks at the key of each certificate but the authorities'.
    let too_open = dir.files.iter().filter(|f| {
        let pair = f.name.strip_suffix(".key").filter(|stem| !stem.starts_with("ca"));
        pair.is_some_and(|stem| dir.file(&format!("{stem}.crt")).is_some()) && f.mode & 0o077 != 0
    });
    lines.extend(too_open.map(|f| format!("{} has mode {:03o}; kwbase wants 0700 or less", f.name, f.mode)));
    lines
}

/// That a certificate is not valid now.
fn out_of_date(cx: &Context<'_>, name: &str, certificate: &Certificate) -> Option<String> {
    let now = cx.obs.server_time.known()?;
    if certificate.not_after <= *now {
        return Some(format!("{name} ended at {}", certificate.not_after));
    }
    (certificate.not_before > *now).then(|| format!("{name} is not valid before {}", certificate.not_before))
}

/// Why nobody can log in with root's certificate in the directory of a new host, as far as it was read, one a line.
pub(super) fn root_faults(cx: &Context<'_>, dir: &CertificateDirectory) -> Vec<String> {
    if dir.fault.is_some() {
        // That is a finding of its own.
        return Vec::new();
    }
    let mut lines = dir.damage(&["client.root"]);
    let Fact::Known(root) = dir.certificate(ROOT_CRT) else { return lines };
    // kwbase may have an authority of its own for clients.
    let signer = [CLIENT_CA, CA].into_iter().find(|name| dir.file(name).is_some());
    if let Some((name, Fact::Known(ca))) = signer.map(|name| (name, dir.certificate(name)))
        && !root.names_as_issuer(ca)
    {
        lines.push(format!(
            "{ROOT_CRT} was not issued by the authority of {name} there, but by {}",
            root.issuer
        ));
    }
    lines.extend(purpose_fault(ROOT_CRT, root));
    lines.extend(out_of_date(cx, ROOT_CRT, root));
    lines
}

pub(super) fn ending(cx: &Context<'_>) -> Vec<Problem> {
    let Fact::Known(now) = &cx.obs.server_time else { return Vec::new() };
    let mut found = Vec::new();
    for new in secure(cx) {
        let files = directory(new.facts).map_or(&[][..], |dir| dir.files.as_slice());
        let lines: Vec<String> = files
            .iter()
            .filter_map(|f| Some((f, f.certificate.as_ref()?.known()?.not_after)))
            // One that has ended is a finding of its own.
            .filter(|(_, end)| *end > *now && end.duration_since(*now) < SOON)
            .map(|(f, end)| format!("{}: ends at {end}", f.name))
            .collect();
        if !lines.is_empty() {
            found.push(
                Problem::new(format!(
                    "certificates of host {} end within {} days",
                    new.host,
                    SOON.as_hours() / 24
                ))
                .evidence(lines)
                .cure("issue new ones before they end: a node does not start with one that has ended, and nobody logs in with one"),
            );
        }
    }
    found
}

pub(super) fn open_keys(cx: &Context<'_>) -> Vec<Problem> {
    let mut lines = BTreeSet::new();
    for (host, facts) in &cx.obs.hosts {
        let Some(facts) = facts.known() else { continue };
        let in_directory = directory(facts).into_iter().flat_map(|dir| {
            let keys = dir.files.iter().filter(|f| is_authority_key(&f.name));
            keys.map(|f| (format!("{}/{}", dir.path, f.name), f.mode))
        });
        // It may well be one of these.
        let configured = facts.machine.as_deref().and_then(|m| m.authority_key.as_ref());
        let configured = configured.and_then(|key| Some((key.path.clone(), key.mode?)));
        for (path, mode) in in_directory.chain(configured).filter(|(_, mode)| mode & 0o007 != 0) {
            lines.insert(format!("host {host}: {path} (mode {mode:03o})"));
        }
        let left = facts.machine.as_deref().and_then(|m| m.leftovers.known());
        let name = |l: &&Leftover| l.path.rsplit('/').next().is_some_and(is_authority_key);
        for key in left.into_iter().flatten().filter(name).filter(|key| key.mode & 0o007 != 0) {
            let within = left.into_iter().flatten().find(|l| {
                key.path.strip_prefix(&l.path).is_some_and(|rest| rest.starts_with('/'))
                    && l.mode & 0o001 == 0
            });
            let shut = within.map_or(String::new(), |l| {
                format!(", behind the mode {:03o} of {} as long as that stays", l.mode, l.path)
            });
            lines.insert(format!("host {host}: {} (mode {:03o}{shut})", key.path, key.mode));
        }
    }
    // It may lie on a machine that is no host of the cluster's: the operator's.
    let authority = cx.obs.authority.as_ref().and_then(Fact::known);
    if let Some(key) = authority.and_then(|facts| facts.key_file.as_ref())
        && let Some(mode) = key.mode.filter(|mode| mode & 0o007 != 0)
    {
        lines.insert(format!("host {}: {} (mode {mode:03o})", key.host, key.path));
    }
    if lines.is_empty() {
        return Vec::new();
    }
    vec![
        Problem::new("by its mode everybody on its host may read the private key of a certificate authority")
            .evidence(super::some(lines, cx.policy.list_ranges))
            .cure("chmod 600 it, better: keep it off the nodes; whoever has it can join the cluster and log in as root"),
    ]
}

fn is_authority_key(name: &str) -> bool {
    matches!(name, "ca.key" | "ca-client.key" | "ca-ui.key" | "tlcp_ca.key")
}

/// Damage on hosts that shall join, where it is replaced.
pub(super) fn replaced(cx: &Context<'_>) -> Vec<Problem> {
    if !authority::wanted(cx) {
        return Vec::new();
    }
    // What is no directory is not replaced.
    let sound =
        joining(cx).into_iter().filter(|new| directory(new.facts).is_none_or(|dir| dir.fault.is_none()));
    damaged(sound.map(|new| (new.host, new.facts)))
        .map(|(host, lines)| {
            Problem::new(format!(
                "what lies in the certificate directory of host {host} is damaged, and is replaced"
            ))
            .evidence(lines)
        })
        .collect()
}

pub(super) fn of_members(cx: &Context<'_>) -> Vec<Problem> {
    let others = cx.obs.hosts.iter().filter(|(host, _)| !cx.change.add.contains(host));
    damaged(others.filter_map(|(host, facts)| Some((host, facts.known()?))))
        .map(|(host, lines)| {
            Problem::new(format!("certificates of host {host} are damaged"))
                .evidence(lines)
                .cure("put the right files there: with these a node does not start again, or commands cannot log in")
        })
        .collect()
}

fn damaged<'a>(
    hosts: impl Iterator<Item = (&'a HostName, &'a HostFacts)>,
) -> impl Iterator<Item = (&'a HostName, Vec<String>)> {
    hosts.filter(|(_, facts)| facts.secure).filter_map(|(host, facts)| {
        let directory = directory(facts)?;
        let mut lines = directory.damage(&ALL);
        lines.extend(directory.key_damage("ca"));
        (!lines.is_empty()).then_some((host, lines))
    })
}

/// What the checks of this file could not tell of a new host.
pub(super) fn untold(cx: &Context<'_>, facts: &HostFacts) -> Vec<String> {
    let Some(dir) = directory(facts).filter(|_| facts.secure) else { return Vec::new() };
    let mut lines = Vec::new();
    for name in [CA, NODE] {
        if let (Some(file), Fact::Unknown(why)) = (dir.file(name), dir.certificate(name))
            && file.fault.is_none()
        {
            lines.push(format!("{name}: {why}"));
        }
    }
    if let Some(Fact::Unknown(why)) = dir.file(NODE).and_then(|f| f.key.as_ref()) {
        lines.push(format!("whether node.key is the key of {NODE}: {why}"));
    }
    if authorities(cx).is_empty() {
        lines.push(
            "the cluster's CA: ca.crt of no member's host could be read, nor of the control host's"
                .to_owned(),
        );
    }
    if let Fact::Unknown(why) = &cx.obs.server_time {
        lines.push(format!("whether certificates have ended: {why}"));
    }
    lines
}
