//! The addresses that a machine has.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A network of which every address is the machine's own; mostly one address (`10.0.0.7`), sometimes more (`127.0.0.0/8`).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct LocalNetwork {
    /// Its first address.
    pub ip: IpAddr,
    /// How many bits the addresses have in common.
    pub prefix: u8,
}

impl LocalNetwork {
    /// Whether an address is in it.
    pub fn holds(self, ip: IpAddr) -> bool {
        let host_bits = |width: u32| width.saturating_sub(u32::from(self.prefix));
        match (self.ip.to_canonical(), ip.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                (own.to_bits() ^ ip.to_bits()).checked_shr(host_bits(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                (own.to_bits() ^ ip.to_bits()).checked_shr(host_bits(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// Whether it is one address.
    fn is_one(self) -> bool {
        self.prefix == if self.ip.is_ipv4() { 32 } else { 128 }
    }
}

impl fmt::Display for LocalNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_one() { write!(f, "{}", self.ip) } else { write!(f, "{}/{}", self.ip, self.prefix) }
    }
}
