//! `hosts`: what each host is and has, by one look at each. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::host_facts::{
    CertificateDirectory, Container, Installed, Limit, Machine, NodeProcess, Unit, first_names,
};
use kwdb_scale_core::ports::{HostFacts, NodeLifecycle, StoreContent};
use kwdb_scale_core::topology::{Address, HostName};
use serde::Serialize;

use crate::cli::Global;
use crate::connect::Cluster;
use crate::failure::{Exit, Failure};
use crate::ui::Ui;

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    hosts: &'a BTreeMap<HostName, Fact<HostFacts>>,
}

pub(crate) async fn hosts(ui: &Ui, global: &Global, names: &[String]) -> Result<Exit, Failure> {
    let cluster = Cluster::open(&global.cluster).await?;
    let known: Vec<&HostName> = cluster.config.hosts.iter().map(|h| &h.name).collect();
    let mut wanted: Vec<HostName> = names.iter().map(|n| HostName::new(n.clone())).collect();
    if let Some(stranger) = wanted.iter().find(|name| !known.contains(name)) {
        let list: Vec<&str> = known.iter().map(|h| h.as_str()).collect();
        let (file, stranger) = (cluster.config.path.display(), stranger.as_str().escape_debug());
        return Err(Failure::usage(format!("{file} has no host '{stranger}'; it has {}", list.join(", "))));
    }
    let mut seen = BTreeSet::new();
    wanted.retain(|name| seen.insert(name.clone()));
    if wanted.is_empty() {
        wanted = known.into_iter().cloned().collect();
    }
    let looks = wanted.iter().map(|name| async {
        let facts = cluster.commands.inspect(name).await;
        (name.clone(), facts.map_or_else(|e| Fact::Unknown(e.chain()), Fact::Known))
    });
    let found: BTreeMap<HostName, Fact<HostFacts>> = join_all(looks).await.into_iter().collect();
    if ui.json() {
        ui.print_json(&Report { schema: "kwscale.hosts/v1", hosts: &found })?;
    } else {
        let sections: Vec<String> = wanted.iter().filter_map(|n| Some(section(n, found.get(n)?))).collect();
        ui.print(sections.join("\n"));
    }
    let missing: Vec<&str> =
        found.iter().filter(|(_, f)| f.known().is_none()).map(|(name, _)| name.as_str()).collect();
    if missing.is_empty() {
        return Ok(Exit::Done);
    }
    ui.say(format_args!("kwscale: not every host could be looked at: {}", missing.join(", ")));
    Ok(Exit::Refused)
}

/// Lines of a name and a text each, the texts below one another.
struct Section(String);

impl Section {
    fn line(&mut self, name: &str, text: impl AsRef<str>) {
        for (i, line) in text.as_ref().lines().enumerate() {
            self.0.push_str(&format!("  {:<10} {line}\n", if i == 0 { name } else { "" }));
        }
    }
}

fn section(name: &HostName, facts: &Fact<HostFacts>) -> String {
    let mut out = Section(format!("{name}\n"));
    match facts {
        Fact::Unknown(why) => out.line("unknown", why),
        Fact::Known(facts) => {
            let program = facts.machine.as_ref().map_or("", |m| m.program.as_str());
            let build = facts.build.known().map(|build| format!("{build} ({program})"));
            out.line("kwbase", build.unwrap_or_else(|| facts.build.to_string()));
            match &facts.machine {
                Some(machine) => of_machine(&mut out, facts, machine),
                None => out.line("machine", "it was not looked at"),
            }
        }
    }
    out.0
}

/// What is known, shown; what is not is left to the last line.
fn shown<T>(out: &mut Section, name: &str, fact: &Fact<T>, show: impl FnOnce(&T) -> String) {
    if let Fact::Known(value) = fact {
        out.line(name, show(value));
    }
}

fn of_machine(out: &mut Section, facts: &HostFacts, machine: &Machine) {
    shown(out, "system", &machine.system, ToString::to_string);
    if let (Fact::Known(user), Fact::Known(sudo)) = (&machine.user, &machine.sudo) {
        out.line(
            "user",
            format!("{user}, {}", if *sudo { "may become root" } else { "may not become root" }),
        );
    }
    shown(out, "installed", &machine.installed, |i| {
        i.as_ref().map_or_else(|| "not by KWDB's installer".to_owned(), installation)
    });
    shown(out, "deploy.sh", &machine.deploy_scripts, |list| list.join("\n"));
    shown(out, "service", &machine.unit, |u| {
        u.as_ref().map_or_else(|| "no kaiwudb.service".to_owned(), unit)
    });
    shown(out, "container", &machine.container, |c| {
        c.as_ref().map_or_else(|| "no kaiwudb-container".to_owned(), container)
    });
    shown(out, "nodes", &machine.processes, |list| {
        // On a machine of several hosts the others' nodes are only counted.
        let is_own =
            |p: &&NodeProcess| p.stores.iter().any(|s| facts.stores.iter().any(|own| own.path == *s));
        let own: Vec<String> = list.iter().filter(is_own).map(process).collect();
        match (own.is_empty(), list.len().saturating_sub(own.len())) {
            (true, 0) => "none runs".to_owned(),
            (true, others) => format!("none of this host runs, {others} with other stores"),
            (false, 0) => own.join("\n"),
            (false, others) => format!("{}\nand {others} with other stores", own.join("\n")),
        }
    });
    for store in &facts.stores {
        let content = match &store.content {
            Fact::Known(StoreContent::Absent) => "absent".to_owned(),
            Fact::Known(StoreContent::Empty) => "empty".to_owned(),
            Fact::Known(StoreContent::InUse(names)) => format!("in use ({})", first_names(names)),
            Fact::Unknown(why) => format!("unknown ({why})"),
        };
        let leads = store.leads_to.as_ref().map(|real| format!("; it leads to {real}"));
        let mounts = match &store.mounts {
            Fact::Known(places) if places.is_empty() => None,
            Fact::Known(places) => Some(format!("; mounted there: {}", first_names(places))),
            Fact::Unknown(why) => Some(format!("; what is mounted there is unknown: {why}")),
        };
        let asides =
            (!store.asides.is_empty()).then(|| format!("; beside it: {}", first_names(&store.asides)));
        let more = [leads, mounts, asides].into_iter().flatten().collect::<String>();
        out.line("store", format!("{}: {content}{more}", store.path));
    }
    for file_system in &machine.file_systems {
        shown(out, "room", &file_system.space, |space| {
            let (free, size) = (gib(space.free), gib(space.size));
            format!(
                "{}: {free} of {size} GiB free on {} ({})",
                file_system.directory, space.mount, space.source
            )
        });
    }
    let closed: Vec<&str> = machine
        .writable
        .iter()
        .filter(|w| w.writable == Fact::Known(false))
        .map(|w| w.directory.as_str())
        .collect();
    if !closed.is_empty() {
        out.line("read-only", closed.join(", "));
    }
    shown(out, "listening", &facts.listening, |list| {
        let own: Vec<&str> = list.iter().map(Address::as_str).collect();
        if own.is_empty() { "nothing at its addresses".to_owned() } else { own.join(", ") }
    });
    shown(out, "addresses", &machine.addresses, |own| {
        let others = own.iter().filter(|n| !n.ip.is_loopback()).map(ToString::to_string);
        others.collect::<Vec<_>>().join(", ")
    });
    out.line("limits", limits(machine));
    shown(out, "clock", &machine.clock, |clock| {
        let ms = |d: jiff::SignedDuration| d.as_secs_f64() * 1e3;
        format!("{:+.1} ms from here, ± {:.1} ms", ms(clock.offset), ms(clock.uncertainty))
    });
    if facts.secure {
        shown(out, "certs", &machine.certificates, |dir| {
            dir.as_ref().map_or_else(|| "the directory does not exist".to_owned(), certificates)
        });
    }
    shown(out, "left over", &machine.leftovers, |list| {
        lines(list.iter().map(|l| format!("{} (mode {:03o}, of {})", l.path, l.mode, l.owner)))
    });
    out.line("unknown", machine.unknowns().join("\n"));
}

fn lines(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join("\n")
}

fn gib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 30))
}

fn installation(i: &Installed) -> String {
    format!(
        "{}, {}, {}, {}, data in {}, ports {} and {}, user {}, address {}",
        i.method, i.place, i.start_mode, i.security, i.data_root, i.port, i.http_port, i.user, i.address
    )
}

fn unit(unit: &Unit) -> String {
    let pid = unit.main_pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
    format!("{}, {}{pid}", unit.active, unit.enabled)
}

fn container(container: &Container) -> String {
    format!("{}, {} ({})", container.state, container.image, container.engine)
}

fn process(process: &NodeProcess) -> String {
    let at = process.listen_addr.as_ref().map(|a| format!(" at {a}")).unwrap_or_default();
    let stores = process.stores.join(", ");
    format!("process {} of {}: {}{at}, {stores}", process.pid, process.user, process.start_mode)
}

fn limits(machine: &Machine) -> String {
    let one = |n: Option<u64>| n.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    let limit = |fact: &Fact<Limit>| match fact {
        Fact::Known(limit) if limit.soft == limit.hard => one(limit.soft),
        Fact::Known(limit) => format!("{} to {}", one(limit.soft), one(limit.hard)),
        Fact::Unknown(_) => "?".to_owned(),
    };
    let maps = machine.limits.max_map_count.known().map_or_else(|| "?".to_owned(), u64::to_string);
    format!(
        "open files {}, locked memory {}, vm.max_map_count {maps}",
        limit(&machine.limits.open_files),
        limit(&machine.limits.locked_memory)
    )
}

fn certificates(dir: &CertificateDirectory) -> String {
    let mut text = dir.path.clone();
    for file in &dir.files {
        text.push_str(&format!("\n{} (mode {:03o}, of {})", file.name, file.mode, file.owner));
        match &file.certificate {
            Some(Fact::Unknown(_)) if file.fault.is_some() => {}
            Some(Fact::Known(certificate)) => {
                let day = certificate.not_after.strftime("%Y-%m-%d");
                let fingerprint: String = certificate.fingerprint.chars().take(16).collect();
                text.push_str(&format!(": {}, until {day}, {fingerprint}", certificate.subject));
                if !certificate.names.is_empty() {
                    text.push_str(&format!(", for {}", certificate.names.join(", ")));
                }
            }
            Some(Fact::Unknown(why)) => text.push_str(&format!(": unknown ({why})")),
            None => {}
        }
    }
    for line in dir.damage(&["ca", "node", "client.root"]) {
        text.push_str(&format!("\ndamaged: {line}"));
    }
    text
}
