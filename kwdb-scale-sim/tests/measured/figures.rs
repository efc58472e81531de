//! What real clusters were seen to do: KWDB V3.2.1 with its time-series engine left out, insecure, all nodes on one machine
//! of two cores, the data a table of small rows beside the 57 ranges of the system. Each run began on copies of one
//! settled cluster, whose nodes had just been started. Taken by hand from the recordings of those runs; `moves` are
//! the pairs of rows `add/range under-replicated` in `system.rangelog`.

/// A documented removal: the command `kwbase node decommission` once per step, one step after the other.
pub(crate) struct Removal {
    pub(crate) nodes: u32,
    /// Ranges of the table.
    pub(crate) table: u32,
    /// The nodes of each step.
    pub(crate) steps: &'static [&'static [u32]],
    pub(crate) moves: u64,
    /// From the first mark to the last node's stop.
    pub(crate) seconds: f64,
}

/// Six nodes with 326 to 346 replicas each, at the scanner's own pace; both runs at the same time.
pub(crate) const TWO_IN_TURN: Removal =
    Removal { nodes: 6, table: 600, steps: &[&[5], &[6]], moves: 717, seconds: 1535.9 };
pub(crate) const TWO_TOGETHER: Removal =
    Removal { nodes: 6, table: 600, steps: &[&[5, 6]], moves: 616, seconds: 786.8 };

/// The same cluster with `KWBASE_SCAN_MAX_IDLE_TIME=50ms`; both runs at the same time, which took all of the machine.
pub(crate) const THREE_TOGETHER: Removal =
    Removal { nodes: 6, table: 600, steps: &[&[4, 5, 6]], moves: 957, seconds: 441.2 };
pub(crate) const THREE_IN_TURN: Removal =
    Removal { nodes: 6, table: 600, steps: &[&[4], &[5], &[6]], moves: 1205, seconds: 483.8 };
/// Moves in a second of the two runs together, while both went on (957 and 711 in 432 s) as after one had ended (494 in
/// 119 s).
pub(crate) const MACHINE_MOVES_PER_SECOND: f64 = 4.0;

/// Four nodes to three, 353 replicas on the one that leaves, on a machine with nothing else to do.
pub(crate) const ONE_OF_FOUR: Removal =
    Removal { nodes: 4, table: 400, steps: &[&[3]], moves: 355, seconds: 773.5 };
/// Of that run: seconds since the mark, replicas left.
pub(crate) const ONE_OF_FOUR_LEFT: [(u64, u64); 5] = [(0, 353), (61, 207), (121, 104), (301, 41), (480, 29)];
/// The same data again, all ranges of the node sent to their leaseholders' replicate queues, three at a time, in two
/// rounds: seconds from the mark until the node was empty.
pub(crate) const ONE_OF_FOUR_SENT: f64 = 34.5;
/// And until the first range was sent: six seconds were waited, and the view `ranges`, which asks for every lease, was
/// read. (By 14.6 s 20 replicas had left.)
pub(crate) const ONE_OF_FOUR_LISTED: f64 = 13.4;

/// How long the nodes had run when the first was marked. Fitted, for nobody wrote it down: it decides how many ranges are
/// left after five minutes of [`ONE_OF_FOUR`].
pub(crate) const UP_SECONDS: u64 = 24;

/// A further node beside four with 492 to 494 replicas each: seconds since its start, and how far the fullest or the
/// emptiest store was from the mean at most. It went on to 0.05 at 581.7 s, when other measurements took the machine.
pub(crate) const FURTHER_NODE: [(f64, f64); 3] = [(209.2, 0.5), (300.8, 0.2), (347.4, 0.1)];
