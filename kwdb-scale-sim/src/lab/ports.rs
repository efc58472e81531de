//! Free loopback ports for a lab.
//!
//! A lab takes a block of ports below those that the system gives to outgoing connections, so that the port of a
//! node that is down is still free when it is started again. The first port of the block is the lab's own: while its
//! process lives no other lab takes the block.

use std::fs;
use std::io;
use std::net::TcpListener;

use crate::process::random;

/// Ports in a block: the lab's own and three for each of twenty-one nodes.
const BLOCK: u16 = 64;
const PER_NODE: u16 = 3;
const LOWEST: u16 = 10_240;

/// The first port of a block in which everything that `nodes` nodes need is free.
pub(super) fn find_block(nodes: usize) -> io::Result<u16> {
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
        .find(|block| (*block..=block + needed).all(is_free))
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
        let block = find_block(6).unwrap();
        assert!(block >= LOWEST && (block - LOWEST).is_multiple_of(BLOCK));
        assert_eq!(of_node(block, 0).unwrap(), [block + 1, block + 2, block + 3]);
        assert_eq!(of_node(block, 20).unwrap().last(), Some(&(block + 63)));
        assert_eq!(of_node(block, 21), None);
        assert!(find_block(22).is_err());
    }
}
