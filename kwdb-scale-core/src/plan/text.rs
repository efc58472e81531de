//! A plan as text for people.

use std::collections::BTreeMap;
use std::fmt;

use super::{OldDirectory, Plan, Step};
use crate::certs::brief;
use crate::request::{Certificates, Finish, Pace, Redistribution};
use crate::topology::{Address, NodeId};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan {} for cluster {}", self.id, self.cluster_id)?;
        writeln!(f, "  {}, {} cluster", self.kind(), self.start_mode)?;
        writeln!(f, "  members: {} before, {} after", self.members_before, self.members_after)?;
        let redistribution = match self.request.options.redistribution {
            Redistribution::Leave => "left as it is",
            Redistribution::Off => "switched off",
            Redistribution::OffDuring => "switched off until the end",
        };
        writeln!(f, "  time-series redistribution: {redistribution}")?;
        if self.is_empty() {
            writeln!(f, "nothing to do: the request is true already")?;
        } else {
            let via: Vec<String> = self.gateways.iter().map(ToString::to_string).collect();
            writeln!(f, "through {}", via.join(", "))?;
            writeln!(f, "steps")?;
        }
        for (i, step) in self.steps.iter().enumerate() {
            writeln!(f, "  {}. {}", i + 1, Line { plan: self, step })?;
            if let Step::ClearData { directories, .. } = step {
                for directory in directories {
                    listing(f, directory)?;
                }
            }
        }
        if let Some(token) = self.consent() {
            writeln!(f, "old data is cleared only with the consent {token}")?;
        }
        if !self.findings.is_empty() {
            writeln!(f, "findings")?;
            for finding in &self.findings {
                writeln!(f, "  {}", finding.to_string().replace('\n', "\n  "))?;
            }
        }
        Ok(())
    }
}

impl Plan {
    /// One line that says what step `index` (from 0) does; empty when there is no such step.
    pub fn describe(&self, index: usize) -> String {
        self.steps.get(index).map(|step| Line { plan: self, step }.to_string()).unwrap_or_default()
    }
}

struct Line<'a> {
    plan: &'a Plan,
    step: &'a Step,
}

/// Everything that lies in a directory. Numbered files of one kind, of which there may be thousands, are counted.
fn listing(f: &mut fmt::Formatter<'_>, directory: &OldDirectory) -> fmt::Result {
    let numbered = |name: &str| {
        let (number, kind) = name.rsplit_once('.')?;
        number.bytes().all(|b| b.is_ascii_digit()).then(|| kind.to_owned())
    };
    let (mut names, mut foreign) = (Vec::new(), Vec::new());
    let mut kinds: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for entry in &directory.entries {
        match numbered(&entry.name) {
            _ if entry.foreign => foreign.push(entry.name.as_str()),
            Some(kind) => kinds.entry(kind).or_default().push(&entry.name),
            None => names.push(entry.name.clone()),
        }
    }
    for mut files in kinds.into_values() {
        files.sort_unstable();
        match files.as_slice() {
            [first, .., last] if files.len() > 4 => {
                names.push(format!("{first} to {last} ({} files)", files.len()));
            }
            few => names.extend(few.iter().map(|name| (*name).to_owned())),
        }
    }
    writeln!(f, "     {} holds {}", directory.path, names.join(", "))?;
    if !foreign.is_empty() {
        writeln!(f, "     and what no store of KWDB has: {}", foreign.join(", "))?;
    }
    Ok(())
}

/// `node 4`, or `nodes 4, 5`.
pub(crate) fn ids(nodes: &[NodeId]) -> String {
    let list: Vec<String> = nodes.iter().map(|n| n.0.to_string()).collect();
    match list.as_slice() {
        [one] => format!("node {one}"),
        _ => format!("nodes {}", list.join(", ")),
    }
}

fn is_or_are(nodes: &[NodeId]) -> &'static str {
    if nodes.len() == 1 { "is" } else { "are" }
}

fn list(addresses: &[Address]) -> String {
    addresses.iter().map(Address::as_str).collect::<Vec<_>>().join(",")
}

impl Line<'_> {
    fn node(&self, id: NodeId) -> String {
        match self.plan.leaving(id) {
            Some(l) => match &l.host {
                Some(host) => format!("node {} (host {host}, {})", id.0, l.address),
                None => format!("node {} ({})", id.0, l.address),
            },
            None => format!("node {}", id.0),
        }
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Step::SetSetting { name, value } => write!(f, "set {name} = {value}"),
            Step::ClearData { host, nodes, directories, .. } => {
                write!(
                    f,
                    "prove once more that {} {} removed, then on host {host}",
                    ids(nodes),
                    is_or_are(nodes)
                )?;
                for (i, dir) in directories.iter().enumerate() {
                    let and = if i == 0 { "" } else { "," };
                    match &dir.aside {
                        Some(aside) => write!(f, "{and} move {} to {aside}", dir.path)?,
                        None => write!(f, "{and} DELETE what is in {}", dir.path)?,
                    }
                }
                Ok(())
            }
            Step::Certify { host, method, authority } => {
                let how = match method {
                    Certificates::Archive => "carry the authority's key and certificate to",
                    _ => "issue certificates for",
                };
                let there =
                    if *method == Certificates::Archive { " and make certificates there" } else { "" };
                write!(
                    f,
                    "{how} host {host}{there}, authority {}, keeping older ones aside",
                    brief(authority)
                )
            }
            Step::Join { host, address, mode, join } => write!(
                f,
                "{mode} a node on host {host} at {address}, joining {}, and wait until it is proven a live member \
                 with nothing under-replicated",
                list(join)
            ),
            Step::AwaitBalance => {
                write!(f, "wait until ranges and leases are spread evenly, or nothing moves any more")
            }
            Step::Mark { nodes } => write!(f, "mark {} as decommissioning, in one command", ids(nodes)),
            Step::AwaitEmpty { nodes } => {
                let pace = match self.plan.request.options.pace {
                    Pace::Server => ", at the servers' own pace",
                    Pace::Tail => "",
                    Pace::Full => {
                        ", asking servers from the start to look at these ranges, where the admin RPC can be had"
                    }
                };
                write!(f, "wait until no range names a store of {}{pace}", ids(nodes))
            }
            Step::Drain { node } => write!(f, "drain {}", self.node(*node)),
            Step::Stop { node } => write!(
                f,
                "confirm that {} is empty, stop it, and wait until the others hold it for removed",
                self.node(*node)
            ),
            Step::RestoreSetting { name } => write!(f, "restore {name}, if it still has our value"),
            Step::Verify { members, joined, left, finish } => {
                write!(f, "verify from nodes that stay: {} live", ids(members))?;
                for host in joined {
                    write!(f, ", the new node of {host} live")?;
                }
                if !left.is_empty() {
                    let end = match finish {
                        Finish::Stop => "removed",
                        Finish::LeaveDrained => "empty and still marked",
                    };
                    write!(f, ", {} {end}", ids(left))?;
                }
                write!(f, ", no range unavailable or under-replicated")
            }
        }
    }
}
