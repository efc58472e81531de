//! What a KWDB cluster is made of: identities, addresses, localities, start modes and the class of a member.
//!
//! Everything here is plain data. Identity of a node is cluster id, node id and store ids together, never its
//! address: after a machine is re-added with a fresh store two liveness rows share one address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

id!(
    /// Number of a node as `kwbase node status` shows it. Given in order of arrival and never given again.
    NodeId(u32),
    "node "
);
id!(
    /// Number of a store. A node has one or more; the `replicas` column of
    /// `kwdb_internal.ranges_no_leases` holds *store* ids, which need not equal node ids.
    StoreId(u32),
    "s"
);
id!(
    /// Number of a range.
    RangeId(u64),
    "r"
);

impl FromStr for NodeId {
    type Err = std::num::ParseIntError;

    /// Accepts `4` and `n4`.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.strip_prefix('n').unwrap_or(s).parse().map(Self)
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps the text as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }
    };
}

text!(
    /// The UUID that a cluster was given at `init` (`kwdb_internal.cluster_id()`).
    ClusterId
);
text!(
    /// The name by which a caller's inventory knows a machine (or a container); not necessarily a DNS name.
    HostName
);
text!(
    /// `host:port` as nodes advertise it and as `--host`, `--join` take it.
    Address
);

impl Address {
    /// The part before the last colon, without brackets around an IPv6 address.
    pub fn host(&self) -> &str {
        let host = self.0.rsplit_once(':').map_or(self.0.as_str(), |(h, _)| h);
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
    }

    /// The part after the last colon as a port number; `None` when it is absent or not a number.
    pub fn port(&self) -> Option<u16> {
        self.0.rsplit_once(':').and_then(|(_, p)| p.parse().ok())
    }

    /// The part before the port as a number; `None` when it is a name, or absent.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        let whole = self.0.trim_start_matches('[').trim_end_matches(']');
        self.host().parse().or_else(|_| whole.parse()).ok()
    }
}

/// The ordered `key=value` tiers of a node's `--locality`.
///
/// Never empty on KWDB: a node started without the flag gets `region=NODE<id>`, so two nodes seldom share one.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(from = "String", into = "String")]
pub struct Locality {
    tiers: Vec<(String, String)>,
}

impl Locality {
    /// The tiers from the widest to the narrowest.
    pub fn tiers(&self) -> &[(String, String)] {
        &self.tiers
    }

    /// Whether the tier `key=value` is one of this locality's.
    pub fn has(&self, key: &str, value: &str) -> bool {
        self.tiers.iter().any(|(k, v)| k == key && v == value)
    }
}

impl From<String> for Locality {
    /// Parses `region=NODE1,zone=a`; a piece without `=` is kept as a key with an empty value.
    fn from(text: String) -> Self {
        let tiers = text
            .split(',')
            .map(str::trim)
            .filter(|piece| !piece.is_empty())
            .map(|piece| match piece.split_once('=') {
                Some((k, v)) => (k.trim().to_owned(), v.trim().to_owned()),
                None => (piece.to_owned(), String::new()),
            })
            .collect();
        Self { tiers }
    }
}

impl From<&str> for Locality {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl From<Locality> for String {
    fn from(locality: Locality) -> Self {
        locality.to_string()
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (k, v)) in self.tiers.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            if v.is_empty() { f.write_str(k)? } else { write!(f, "{k}={v}")? }
        }
        Ok(())
    }
}

/// The sub-command with which a node runs; all nodes of a cluster must run with the same one.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(from = "String", into = "String")]
pub enum StartMode {
    /// `kwbase start`: several replicas of each range; may be scaled out and in.
    MultiReplica,
    /// `kwbase start-single-replica`: one replica of each user range; may be scaled out, never in.
    SingleReplica,
    /// `kwbase start-single-node`: a cluster of one that never grows.
    SingleNode,
    /// A word that this library does not know. Never treated as one of the others.
    Unknown(String),
}

impl StartMode {
    /// The sub-command of `kwbase`, which is also what `start_mode` shows.
    pub fn as_str(&self) -> &str {
        match self {
            Self::MultiReplica => "start",
            Self::SingleReplica => "start-single-replica",
            Self::SingleNode => "start-single-node",
            Self::Unknown(other) => other,
        }
    }
}

impl From<String> for StartMode {
    fn from(text: String) -> Self {
        match text.as_str() {
            "start" => Self::MultiReplica,
            "start-single-replica" => Self::SingleReplica,
            "start-single-node" => Self::SingleNode,
            _ => Self::Unknown(text),
        }
    }
}

impl From<&str> for StartMode {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl From<StartMode> for String {
    fn from(mode: StartMode) -> Self {
        mode.as_str().to_owned()
    }
}

impl fmt::Display for StartMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a liveness row stands for. KWDB keeps only a `decommissioning` bit, so the class is derived.
///
/// Removed rows stay for ever; they take part in no check, count, sum or address look-up.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeClass {
    /// The bit is not set and the record has not expired.
    Member,
    /// The bit is set, and the node is live or still holds replicas by range descriptors.
    Leaving,
    /// The bit is set, the record has expired and no range descriptor names one of its stores.
    Removed,
    /// The bit is not set and the record has expired: a member that is down.
    Dead,
    /// The facts do not allow a class, for example a set bit on an expired row while the ranges could not be
    /// read.
    Unknown,
}

impl fmt::Display for NodeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Member => "member",
            Self::Leaving => "leaving",
            Self::Removed => "removed",
            Self::Dead => "dead",
            Self::Unknown => "unknown",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locality_round_trips() {
        let l = Locality::from("region=NODE1,zone=a");
        assert!(l.has("region", "NODE1") && !l.has("region", "NODE2"));
        assert_eq!(l.to_string(), "region=NODE1,zone=a");
    }

    #[test]
    fn address_parts() {
        assert_eq!(Address::new("[::1]:26257").host(), "::1");
        assert_eq!(Address::new("[::1]:26257").port(), Some(26257));
        assert_eq!(Address::new("h").port(), None);
    }

    #[test]
    fn unknown_start_mode_is_kept() {
        let mode: StartMode = serde_json::from_str("\"start-other\"").unwrap();
        assert_eq!(mode, StartMode::Unknown("start-other".into()));
    }
}
