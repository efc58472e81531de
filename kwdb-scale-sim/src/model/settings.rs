//! Cluster settings that scaling reads, with the defaults of V3.2.1.

use std::collections::BTreeMap;
use std::time::Duration;

use kwdb_scale_core::version::{Capabilities, Version};

use super::cluster::Cluster;
use super::types::SqlRefusal;

/// Defaults for the release of that build tag.
pub(crate) fn defaults(build: &str) -> BTreeMap<String, String> {
    let can = Capabilities::of(Version::parse(build).ok());
    let rate = format!("{} MiB", can.snapshot_mib_per_s);
    let mut all: BTreeMap<String, String> = [
        ("cluster.organization", ""),
        ("kv.allocator.load_based_lease_rebalancing.enabled", "true"),
        ("kv.allocator.load_based_rebalancing", "leases and replicas"),
        ("kv.allocator.qps_rebalance_threshold", "0.25"),
        ("kv.allocator.range_rebalance_threshold", "0.05"),
        ("kv.allocator.ts_consider_rebalance.enabled", "true"),
        ("kv.atomic_replication_changes.enabled", "true"),
        ("kv.kvserver.ts_leaseholder_transfer_strict.mode", "0"),
        ("kv.range_merge.queue_enabled", "true"),
        ("kv.range_merge.queue_interval", "1s"),
        ("kv.replication_reports.interval", "1m0s"),
        ("kv.snapshot_rebalance.max_rate", rate.as_str()),
        ("kv.snapshot_recovery.max_rate", rate.as_str()),
        ("server.advanced_distributed_operations.enabled", "false"),
        ("server.declined_reservation_timeout", "1s"),
        ("server.failed_reservation_timeout", "5s"),
        ("server.shutdown.drain_wait", "0s"),
        ("server.shutdown.query_wait", "10s"),
        ("server.time_until_store_dead", "30m0s"),
        ("sql.ts_create.leaseholder_auto_relocated.enabled", "false"),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect();
    if can.ts_store_dead_rebalance {
        all.insert("kv.allocator.ts_store_dead_rebalance.enabled".to_owned(), "true".to_owned());
    }
    all
}

impl Cluster {
    /// A setting's value as the server prints it; `None` when there is no such setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// `SET CLUSTER SETTING name = value`. Durations are printed back as Go does (`75s` becomes `1m15s`).
    ///
    /// # Errors
    /// When the setting is not known, or the value is not of its type.
    pub fn set_setting(&mut self, name: &str, value: &str) -> Result<(), SqlRefusal> {
        let Some(old) = self.settings.get_mut(name) else {
            return Err(SqlRefusal { code: "42704", message: format!("unknown cluster setting '{name}'") });
        };
        let bad = |kind: &str| SqlRefusal {
            code: "42804",
            message: format!("argument of {name} must be type {kind}, not type string"),
        };
        *old = if matches!(old.as_str(), "true" | "false") {
            match value {
                "true" | "on" | "t" => "true".to_owned(),
                "false" | "off" | "f" => "false".to_owned(),
                _ => return Err(bad("bool")),
            }
        } else if let Some(was) = parse_duration(old) {
            let new = parse_duration(value).ok_or_else(|| bad("interval"))?;
            if name == "server.time_until_store_dead" && new < Duration::from_secs(75) {
                return Err(SqlRefusal {
                    code: "22023",
                    message: format!("cannot set {name} to less than 1m15s: {}", print_duration(new)),
                });
            }
            let _ = was;
            print_duration(new)
        } else {
            value.to_owned()
        };
        Ok(())
    }

    pub(crate) fn time_until_store_dead(&self) -> Duration {
        let text = self.setting("server.time_until_store_dead").unwrap_or_default();
        parse_duration(text).unwrap_or(Duration::from_secs(1800))
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.setting(name) != Some("false")
    }

    pub(crate) fn rebalance_threshold(&self) -> f64 {
        self.setting("kv.allocator.range_rebalance_threshold").and_then(|t| t.parse().ok()).unwrap_or(0.05)
    }
}

/// `1h2m3s`, `75s`, `500ms` or `00:01:15`; `None` for anything else. A bare number is no duration.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if let [h, m, s] = text.split(':').collect::<Vec<_>>().as_slice() {
        let (h, m, s): (u64, u64, u64) = (h.parse().ok()?, m.parse().ok()?, s.parse().ok()?);
        return Some(Duration::from_secs(h * 3600 + m * 60 + s));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// As Go prints a duration of whole milliseconds.
fn print_duration(d: Duration) -> String {
    let (s, ms) = (d.as_secs(), d.subsec_millis());
    let fraction = if ms == 0 { String::new() } else { format!(".{ms:03}").trim_end_matches('0').to_owned() };
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, 0) if ms > 0 => format!("{ms}ms"),
        (0, 0, s) => format!("{s}{fraction}s"),
        (0, m, s) => format!("{m}m{s}{fraction}s"),
        (h, m, s) => format!("{h}h{m}m{s}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        for (text, printed) in [("75s", "1m15s"), ("00:30:00", "30m0s"), ("2h", "2h0m0s"), ("1.5s", "1.5s")] {
            assert_eq!(print_duration(parse_duration(text).unwrap()), printed);
        }
        assert_eq!(parse_duration("0.05"), None);
        assert_eq!(parse_duration("true"), None);
    }

    #[test]
    fn settings_keep_their_type() {
        let mut c = Cluster::new(crate::model::Config::default());
        assert!(c.set_setting("no.such", "1").is_err());
        c.set_setting("server.time_until_store_dead", "75s").unwrap();
        assert_eq!(c.setting("server.time_until_store_dead"), Some("1m15s"));
        assert!(c.set_setting("server.time_until_store_dead", "10s").is_err());
        c.set_setting("kv.allocator.ts_consider_rebalance.enabled", "off").unwrap();
        assert!(!c.flag("kv.allocator.ts_consider_rebalance.enabled"));
    }
}
