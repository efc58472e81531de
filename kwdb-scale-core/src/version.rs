//! What each KWDB release can do: its number, and the row of the release table that applies to it.
//!
//! Source: the tags V2.0.4 to V3.2.1 of KWDB. Releases before 2.2.1 refuse to decommission (and 2.2.0 to join)
//! when built from the open source, so they are not supported.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A release number such as `V3.2.1`, ordered by its numbers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// Major number.
    pub major: u16,
    /// Minor number.
    pub minor: u16,
    /// Patch number.
    pub patch: u16,
}

/// A text that is no release number.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("'{0}' is not a KWDB release number (such as V3.2.1)")]
pub struct NotAVersion(pub String);

impl Version {
    /// The oldest release whose open-source build can both join and decommission.
    pub const OLDEST: Self = Self::new(2, 2, 1);
    /// The newest release that the release table knows.
    pub const NEWEST: Self = Self::new(3, 2, 1);

    /// `V{major}.{minor}.{patch}`.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// Parses a build tag: `V3.2.1`, `3.2.1`, `V3.2.1-rc1`. A tag such as `unknown` (a plain `go build`) fails.
    pub fn parse(tag: &str) -> Result<Self, NotAVersion> {
        let fail = || NotAVersion(tag.to_owned());
        let bare = tag.trim().trim_start_matches(['v', 'V']);
        let numbers: String = bare.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let mut parts = numbers.trim_end_matches('.').split('.');
        let mut next = || parts.next().and_then(|p| p.parse::<u16>().ok());
        let (major, minor) = (next().ok_or_else(fail)?, next().ok_or_else(fail)?);
        Ok(Self::new(major, minor, next().unwrap_or(0)))
    }
}

impl TryFrom<String> for Version {
    type Error = NotAVersion;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "V{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What a release can do, as far as scaling needs to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Capabilities {
    /// `start` and `start-single-replica` know and demand `--brpc-addr` (from V3.0.0).
    pub brpc_addr: bool,
    /// `kv.allocator.ts_store_dead_rebalance.enabled` exists (from V3.0.0).
    pub ts_store_dead_rebalance: bool,
    /// The manual warns that queries may be incomplete during scaling (up to V3.1).
    pub queries_may_be_incomplete: bool,
    /// Seconds until the liveness record of a silent node expires (9 before V3.2.1, then 15).
    pub liveness_expiry_secs: u32,
    /// Default of `kv.snapshot_recovery.max_rate` in MiB/s.
    pub snapshot_mib_per_s: u32,
    /// `deploy.sh join` knows `--tls` (from V2.1.0; `join` and `decommission` themselves are in every tag from V2.0.4).
    pub deploy_join_tls: bool,
    /// `deploy.sh join` waits until the node answers (from V3.1.0). Before, it looks once, three seconds after the start,
    /// and may say that the join failed although the node joins a moment later: the cluster decides, not the marker.
    pub deploy_join_waits: bool,
    /// `kw-status` is installed (from V3.1.0).
    pub kw_status: bool,
}

impl Capabilities {
    /// The row of the release table for `version`; for a newer or unknown one the newest row.
    pub fn of(version: Option<Version>) -> Self {
        let v = version.unwrap_or(Version::NEWEST);
        Self {
            brpc_addr: v >= Version::new(3, 0, 0),
            ts_store_dead_rebalance: v >= Version::new(3, 0, 0),
            queries_may_be_incomplete: v < Version::new(3, 2, 0),
            liveness_expiry_secs: if v >= Version::new(3, 2, 1) { 15 } else { 9 },
            snapshot_mib_per_s: if v >= Version::new(3, 2, 0) { 16 } else { 8 },
            deploy_join_tls: v >= Version::new(2, 1, 0),
            deploy_join_waits: v >= Version::new(3, 1, 0),
            kw_status: v >= Version::new(3, 1, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_tags_and_orders_them() {
        assert_eq!(Version::parse("V3.2.1"), Ok(Version::new(3, 2, 1)));
        assert_eq!(Version::parse("3.1").unwrap(), Version::new(3, 1, 0));
        assert_eq!(Version::parse("V3.2.1-rc1").unwrap(), Version::new(3, 2, 1));
        assert!(Version::parse("unknown").is_err());
        assert!(Version::new(2, 2, 0) < Version::OLDEST);
    }

    #[test]
    fn newest_row_for_the_unknown() {
        assert_eq!(Capabilities::of(None), Capabilities::of(Some(Version::NEWEST)));
        assert_eq!(Capabilities::of(Some(Version::new(3, 1, 0))).liveness_expiry_secs, 9);
    }
}
