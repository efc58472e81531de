//! Free loopback ports for a lab.
//!
//! A lab takes a block of ports below those that the system gives to outgoing connections, so that the port of a
//! node that is down is still free when it is started again. The first port of the block is the lab's own: while its
//! process lives no other lab takes the block. Until that process is there, a lock on a file does the same.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;

use crate::process::random;

/// Ports in a block: the lab's own and three for each of twenty-one nodes.
const BLOCK: u16 = 64;
const PER_NODE: u16 = 3;
const LOWEST: u16 = 10_240;

/// A block that nobody else takes as long as this lives.
pub(super) struct Block {
    /// Its first port.
    pub(super) first: u16,
    /// `None` where the file of the lock belongs to another user.
    _lock: Option<File>,
}

impl Block {
    /// `None` when another lab that is being made has it, or something listens there.
    fn take(first: u16, needed: u16) -> Option<Self> {
        let dir = std::env::temp_dir().join("kwdb-scale-lab-ports");
        let _ = fs::create_dir(&dir);
        // Everybody may write there: nothing is truncated.
        let open = File::options().write(true).create(true).truncate(false).open(dir.join(first.to_string()));
        let lock = open.ok();
        if lock.as_ref().is_some_and(|file| file.try_lock().is_err()) {
            return None;
        }
        (first..=first + needed).all(is_free).then_some(Self { first, _lock: lock })
    }
}

/// A block in which everything that `nodes` nodes need is free.
pub(super) fn find_block(nodes: usize) -> io::Result<Block> {
    let end = first_ephemeral().unwrap_or(32_768).max(LOWEST + 8 * BLOCK);
    let blocks = (end - LOWEST) / BLOCK;
    let start = u16::try_from(random() % u64::from(blocks)).unwrap_or(0);
    let needed = u16::try_from(nodes).ok().and_then(|n| n.checked_mul(PER_NODE)).filter(|n| *n < BLOCK);
    let Some(needed) = needed else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a lab has at most {} nodes", BLOCK / PER_NODE),
        ));
    };
    (0..blocks)
        .map(|i| LOWEST + (start + i) % blocks * BLOCK)
        .find_map(|block| Block::take(block, needed))
        .ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, "no block of loopback ports is free"))
}

/// The three ports of the `index`-th node, counted from zero.
pub(super) fn of_node(block: u16, index: usize) -> Option<[u16; 3]> {
    let first = u16::try_from(index).ok()?.checked_mul(PER_NODE)?.checked_add(1)?;
    (first + PER_NODE <= BLOCK).then_some([block + first, block + first + 1, block + first + 2])
}

/// Whether nothing listens at the port.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn first_ephemeral() -> Option<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_room_for_its_nodes_and_no_more() {
        let held = find_block(6).unwrap();
        let block = held.first;
        assert!(block >= LOWEST && (block - LOWEST).is_multiple_of(BLOCK));
        assert_eq!(of_node(block, 0).unwrap(), [block + 1, block + 2, block + 3]);
        assert_eq!(of_node(block, 20).unwrap().last(), Some(&(block + 63)));
        assert_eq!(of_node(block, 21), None);
        assert!(find_block(22).is_err());
        // Nothing listens there yet.
        assert!(Block::take(block, 1).is_none());
        drop(held);
        assert!(Block::take(block, 1).is_some());
    }
}
