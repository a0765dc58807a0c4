//! Snapshots: the state of the arbiter as a record, so that its stream need not be read from the start.

use super::state::ArbiterState;
use super::{GrantPolicy, Snapshot};

/// A snapshot is worth its size after this many records at least.
const EVERY: u64 = 1024;

impl ArbiterState {
    /// Whether a snapshot is due: what it costs to write one is shared by as many records as it has runs.
    pub(super) fn is_snapshot_due(&self) -> bool {
        self.since_snapshot() >= EVERY.max(4 * self.runs())
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot { runs: self.claimants().collect() }
    }

    /// The state at a snapshot, which is the record that brought the stream to this length.
    pub(crate) fn restore(head: u64, snapshot: &Snapshot, policy: GrantPolicy) -> Self {
        let mut state = Self::at(head);
        for claimant in &snapshot.runs {
            state.insert(claimant);
        }
        state.watch_all(policy);
        state
    }
}
