//! `[policy]`: thresholds and waits.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use kwdb_scale_core::policy::Policy;
use toml::Spanned;

/// Longer waits are mistakes, and no sum of a few of them overflows.
pub const LONGEST: SignedDuration = SignedDuration::from_hours(366 * 24);

/// The defaults with what the table says; an error comes with the place of its key.
pub(super) fn policy_of(table: &BTreeMap<Spanned<String>, toml::Value>) -> Result<Policy, (usize, String)> {
    // Its JSON form leaves out what came later and is at its default.
    let every_key =
        Policy { min_disk_percent: 0, stays_down: SignedDuration::from_secs(1), ..Policy::default() };
    let defaults = serde_json::to_value(every_key).unwrap_or_default();
    let known: Vec<&str> =
        defaults.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    for (name, value) in table {
        let fail =
            |what: String| Err((name.span().start, format!("[policy]: {} = {value} {what}", name.get_ref())));
        if !known.contains(&name.get_ref().as_str()) {
            return fail(format!("is not a key of this table; it has {}", known.join(", ")));
        }
        let alone = toml::Table::from_iter([(name.get_ref().clone(), value.clone())]);
        match alone.try_into::<Policy>() {
            Err(e) => {
                let why = e.message().split_whitespace().collect::<Vec<_>>().join(" ");
                return fail(format!("cannot be used: {why}; write such as {}", example(name.get_ref())));
            }
            Ok(policy) if !(2..=1000).contains(&policy.samples) => {
                return fail("proves nothing, or never comes to an end; write 2 to 1000".to_owned());
            }
            Ok(policy) => {
                let duration = serde_json::to_value(&policy).ok();
                let duration = duration.as_ref().and_then(|p| p.get(name.get_ref())?.as_str()?.parse().ok());
                if duration.is_some_and(|d: SignedDuration| d > LONGEST) {
                    return fail("is longer than a year; write such as \"30s\"".to_owned());
                }
                if duration.is_some_and(|d: SignedDuration| !d.is_positive()) {
                    return fail(format!("is not positive; write such as {}", example(name.get_ref())));
                }
            }
        }
    }
    let places: BTreeMap<String, usize> =
        table.keys().map(|name| (name.get_ref().clone(), name.span().start)).collect();
    let table: toml::Table =
        table.iter().map(|(name, value)| (name.get_ref().clone(), value.clone())).collect();
    let place = |key: &str| places.get(key).copied().unwrap_or(0);
    let policy: Policy = table.try_into().map_err(|e| (0, format!("[policy]: {}", e.message())))?;
    if policy.poll > policy.stall_after {
        let (poll, stall) = (policy.poll, policy.stall_after);
        return Err((
            place("poll").max(place("stall_after")),
            format!(
                "[policy]: poll = {poll:#} is longer than stall_after = {stall:#}, within which something has to be seen to move; \
             change one of them"
            ),
        ));
    }
    Ok(policy)
}

fn example(key: &str) -> &'static str {
    match key {
        "samples" | "list_ranges" => "3",
        "min_disk_percent" => "50",
        _ => "\"30s\"",
    }
}
