//! What the undo of an operation would take back of what a newer operation has changed. Whoever undoes an operation that
//! is not the newest asks this first: an [`Operation`](super::Operation) knows its own journal alone.

use std::collections::BTreeSet;
use std::fmt;

use super::record::{End, Ledger};
use crate::topology::{HostName, NodeId};

/// Something that an operation has changed, or may have.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Changed {
    /// A host: its certificates, or a node that was started there.
    Host(HostName),
    /// A node that was marked or told to stop.
    Node(NodeId),
    /// A cluster setting, by name.
    Setting(String),
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "host {host}"),
            Self::Node(node) => write!(f, "node {}", node.0),
            Self::Setting(name) => write!(f, "the setting {name}"),
        }
    }
}

impl Ledger {
    /// What this operation and a newer one have both changed, so that an undo of this one would take back the newer one's
    /// work. Empty when the newer one was undone itself.
    ///
    /// ```
    /// # use kwdb_scale_core::execute::Ledger;
    /// /// The journals of a cluster, the oldest first: whether the one at `index` may be undone.
    /// fn may_be_undone(ledgers: &[Ledger], index: usize) -> bool {
    ///     let (older, newer) = ledgers.split_at(index + 1);
    ///     older.last().is_some_and(|of| newer.iter().all(|n| of.undo_overlap(n).is_empty()))
    /// }
    /// ```
    pub fn undo_overlap(&self, newer: &Ledger) -> BTreeSet<Changed> {
        if matches!(newer.ended, Some(End::Undone(_))) {
            return BTreeSet::new();
        }
        // A setting that was put back already is not put back once more; one that the newer one put back was its all the same.
        let wanted = self.changed(self.restorable().into_keys());
        newer.changed(newer.saved.keys().cloned()).intersection(&wanted).cloned().collect()
    }

    fn changed(&self, settings: impl Iterator<Item = String>) -> BTreeSet<Changed> {
        let hosts = self.certified.keys().chain(&self.started).chain(self.joined.keys());
        let nodes = self.marked.iter().chain(&self.stopped);
        hosts
            .cloned()
            .map(Changed::Host)
            .chain(nodes.copied().map(Changed::Node))
            .chain(settings.map(Changed::Setting))
            .collect()
    }
}
