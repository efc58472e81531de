//! Clusters of real processes on this machine, with the `cluster.toml` that describes them to `kwscale`.
//!
//! The processes are [`kwdb_scale_sim::lab`]'s: the twin's, or those of a real kwbase.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use jiff::SignedDuration;
use kwdb_scale_core::policy::Policy;
use kwdb_scale_sim::lab::{INSTALL_DIR, Lab, LabError, LabHost, LabInfo, LabOptions, Login};

/// Name of the file in a lab's directory.
pub const CLUSTER_FILE: &str = "cluster.toml";
/// Directory of journals in a lab's directory.
pub const JOURNAL_DIR: &str = "kwscale-journal";

/// Makes a lab and writes its [`CLUSTER_FILE`].
///
/// Blocks until nothing is under-replicated. The executable must call [`kwdb_scale_sim::process::hook`] first.
///
/// # Errors
/// [`LabError`]; what was started is ended again.
pub fn up(options: LabOptions) -> Result<Lab, LabError> {
    let lab = Lab::up(options)?;
    let written = write_file(&lab);
    match written {
        Ok(()) => Ok(lab),
        Err(error) => {
            lab.down()?;
            Err(error)
        }
    }
}

/// Prepares one more host and appends it to the [`CLUSTER_FILE`] as the last table. Starts nothing.
///
/// # Errors
/// [`LabError`].
pub fn add(lab: &mut Lab) -> Result<LabHost, LabError> {
    let host = lab.add()?;
    describe(lab, host)
}

/// The same for a machine of its own on which there are no certificates.
///
/// # Errors
/// [`LabError`].
pub fn add_without_certs(lab: &mut Lab) -> Result<LabHost, LabError> {
    let host = lab.add_without_certs()?;
    describe(lab, host)
}

fn describe(lab: &Lab, host: LabHost) -> Result<LabHost, LabError> {
    let path = cluster_file(lab.info());
    let append = || {
        let mut file = fs::OpenOptions::new().append(true).open(&path)?;
        file.write_all(host_table(lab.info(), &host).as_bytes())
    };
    append()
        .map_err(|source| LabError::Io { what: format!("{} cannot be written", path.display()), source })?;
    Ok(host)
}

/// Ends every process of the lab and deletes what [`up`] made, the journals of the lab included.
///
/// # Errors
/// [`LabError`].
pub fn down(lab: Lab) -> Result<(), LabError> {
    let dir = lab.info().dir.clone();
    lab.down()?;
    let _ = fs::remove_file(dir.join(CLUSTER_FILE));
    let _ = fs::remove_dir_all(dir.join(JOURNAL_DIR));
    // Something else may lie there, which is not the lab's.
    let _ = fs::remove_dir(&dir);
    Ok(())
}

/// Where the file of a lab is.
pub fn cluster_file(info: &LabInfo) -> PathBuf {
    info.dir.join(CLUSTER_FILE)
}

/// Waits that fit a lab: the twin's time goes `speed` times as fast as ours, and a lab's ranges are small.
pub fn policy(speed: f64, real: bool) -> Policy {
    let base = Policy::default();
    let scaled = |secs: f64, least: f64| {
        let secs = if real { secs } else { (secs / speed.max(0.001)).max(least) };
        // Whole milliseconds are easier to read.
        SignedDuration::from_millis((secs * 1000.0).round() as i64)
    };
    Policy {
        join_deadline: scaled(600.0, 30.0),
        stop_deadline: scaled(180.0, 60.0),
        empty_deadline: scaled(3600.0, 300.0),
        stall_after: scaled(600.0, 30.0),
        removed_deadline: scaled(180.0, 30.0),
        stays_down: scaled(2.0, 0.5),
        balance_deadline: scaled(900.0, 120.0),
        settled_after: scaled(30.0, 3.0),
        poll: scaled(1.0, 0.1),
        // On the server's clock, which in the twin goes as fast as everything else.
        sample_spacing: SignedDuration::from_secs(2),
        // Two gateways are asked one after the other, between which a fast clock goes on.
        max_clock_skew: scaled_up(base.max_clock_skew, if real { 1.0 } else { speed }),
        ..base
    }
}

fn scaled_up(duration: SignedDuration, factor: f64) -> SignedDuration {
    SignedDuration::from_millis((duration.as_secs_f64() * factor.max(1.0) * 1000.0).round() as i64)
}

fn write_file(lab: &Lab) -> Result<(), LabError> {
    let path = cluster_file(lab.info());
    fs::write(&path, text(lab.info()))
        .map_err(|source| LabError::Io { what: format!("{} cannot be written", path.display()), source })
}

fn text(info: &LabInfo) -> String {
    let secure = info.certs_dir.is_some();
    let kind = if info.real { "a real kwbase" } else { "the twin" };
    let mut text = format!(
        "# A lab of {kind}, written by `kwscale lab up`. docs/cluster-toml.md tells of every key.\n\
         [cluster]\nlabel = {}\nsecure = {secure}\n",
        string("lab")
    );
    let seeds: Vec<String> = info.hosts.iter().map(|h| string(h.sql_address.as_str())).collect();
    let _ = writeln!(text, "seeds = [{}]", seeds.join(", "));
    if secure {
        let _ = writeln!(text, "certs = \"certs\"");
    }
    let _ = writeln!(text, "journal = {}", string(JOURNAL_DIR));
    if info.net.is_some() {
        let _ = writeln!(text, "\n[ssh]\nconfig = \"ssh_config\"");
    }
    // Before the tables of hosts, of which more are appended.
    if let (Some(_), Some(host), Some(dir)) = (&info.net, info.hosts.first(), info.host_certs_dir()) {
        let key = dir.join("ca.key").display().to_string();
        let (host, key) = (string(host.name.as_str()), string(&key));
        let _ = writeln!(text, "\n[certificates]\nca_host = {host}\nca_key = {key}");
    }
    let _ = writeln!(text, "\n[sql]\nuser = \"root\"\n\n[policy]");
    let (policy, default) = (policy(info.speed, info.real), Policy::default());
    for (name, value, default) in [
        ("join_deadline", policy.join_deadline, default.join_deadline),
        ("stop_deadline", policy.stop_deadline, default.stop_deadline),
        ("empty_deadline", policy.empty_deadline, default.empty_deadline),
        ("stall_after", policy.stall_after, default.stall_after),
        ("removed_deadline", policy.removed_deadline, default.removed_deadline),
        ("stays_down", policy.stays_down, default.stays_down),
        ("balance_deadline", policy.balance_deadline, default.balance_deadline),
        ("settled_after", policy.settled_after, default.settled_after),
        ("poll", policy.poll, default.poll),
        ("sample_spacing", policy.sample_spacing, default.sample_spacing),
        ("max_clock_skew", policy.max_clock_skew, default.max_clock_skew),
    ] {
        if value != default {
            let _ = writeln!(text, "{name} = {}", string(&format!("{value:#}")));
        }
    }
    for host in &info.hosts {
        text.push_str(&host_table(info, host));
    }
    text
}

fn host_table(info: &LabInfo, host: &LabHost) -> String {
    let mut text = String::from("\n[[host]]\n");
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "{key} = {}", string(value));
    };
    line("name", host.name.as_str());
    if let Some(net) = &info.net {
        // The rest is where KWDB's packages put it, which is the default.
        line("transport", "ssh");
        line("listen_addr", host.address.as_str());
        line("http_addr", host.http_address.as_str());
        line("brpc_addr", host.brpc_address.as_str());
        line("cache", "256MiB");
        line("max_sql_memory", "256MiB");
        if let Some(dir) = info.host_certs_dir() {
            line("certs_dir", &dir.display().to_string());
        }
        if net.deploy {
            line("method", "deploy.sh");
            line("install_dir", INSTALL_DIR);
        }
        if host.stores.len() > 1 {
            stores(&mut text, host);
        }
        if net.login != Login::Root {
            text.push_str("sudo = true\n");
        }
        return text;
    }
    line("transport", "local");
    line("program", &info.kwbase.display().to_string());
    line("listen_addr", host.address.as_str());
    line("http_addr", host.http_address.as_str());
    line("brpc_addr", host.brpc_address.as_str());
    line("cache", "256MiB");
    line("max_sql_memory", "256MiB");
    line("pid_file", &host.pid_file.display().to_string());
    line("output_file", &host.output_file.display().to_string());
    stores(&mut text, host);
    text
}

fn stores(text: &mut String, host: &LabHost) {
    let stores: Vec<String> = host.stores.iter().map(|s| string(&s.display().to_string())).collect();
    let _ = writeln!(text, "stores = [{}]", stores.join(", "));
}

fn string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_shrink_with_speed_and_never_to_nothing() {
        let slow = policy(1.0, false);
        let fast = policy(20.0, false);
        assert!(fast.poll < slow.poll && fast.settled_after < slow.settled_after);
        assert!(policy(1e9, false).poll.is_positive());
        assert_eq!(policy(20.0, true).poll, SignedDuration::from_secs(1));
    }
}
