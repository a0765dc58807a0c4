//! How long steps may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use stillpoint_workflow::Retry;

/// How long each kind of step may take before it is given up, and how often it is tried again.
///
/// The freeze itself is not among them: its limit comes from the policy and from what the plug-in can hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Timeouts {
    /// Taking the inventory.
    pub inventory: Duration,
    /// Beginning, and aborting, a session.
    pub begin: Duration,
    /// How long a session lives at least when nobody renews it. It is asked to live as long as all that follows its beginning
    /// may take, if that is longer.
    pub lease: Duration,
    /// Getting a provider ready.
    pub prepare: Duration,
    /// One try of the thaw.
    pub thaw: Duration,
    /// Freeze, snapshots and thaw, where the plug-in does them by itself.
    pub snap: Duration,
    /// Making snapshots durable.
    pub settle: Duration,
    /// Reading the evidence.
    pub evidence: Duration,
    /// Making snapshots readable, and ending that.
    pub expose: Duration,
    /// Verifying, where the policy has no cap.
    pub verify: Duration,
    /// Writing manifests and catalogue.
    pub publish: Duration,
    /// Completing a session.
    pub complete: Duration,
    /// How long it is asked again whether Exchange has truncated logs, after a backup; the next backup goes on with it.
    pub truncation: Duration,
    /// Deleting the snapshots of a restore point.
    pub delete: Duration,
    /// Sending a notification.
    pub notify: Duration,
    /// Copying back for a restore.
    pub restore: Duration,
    /// How long the undo of a set waits for a snapshot that may still appear, and a deletion for one that goes later.
    pub late: Duration,
    /// How long a step that is told to stop may take to do so.
    pub grace: Duration,
    /// How often a step is tried.
    pub attempts: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self {
            inventory: minutes(5),
            begin: minutes(5),
            lease: minutes(12 * 60),
            prepare: minutes(30),
            thaw: Duration::from_secs(2),
            snap: minutes(10),
            settle: minutes(60),
            evidence: minutes(2),
            expose: minutes(10),
            verify: minutes(12 * 60),
            publish: minutes(5),
            complete: minutes(10),
            truncation: minutes(10),
            delete: minutes(30),
            notify: minutes(1),
            restore: minutes(24 * 60),
            late: minutes(5),
            grace: Duration::from_secs(5),
            attempts: 3,
        }
    }
}

/// The longest wait between two tries of a step.
const PAUSE: Duration = Duration::from_secs(30);

impl Timeouts {
    pub(crate) fn retry(&self) -> Retry {
        Retry::times(self.attempts).backoff(Duration::from_millis(500), PAUSE)
    }

    /// The longest that one try of a step with this time-out takes.
    pub(crate) fn once(&self, time: Duration) -> Duration {
        time.saturating_add(self.grace)
    }

    /// The longest that all tries of it take.
    pub(crate) fn tried(&self, time: Duration) -> Duration {
        self.once(time).saturating_add(PAUSE).saturating_mul(self.attempts.max(1))
    }

    /// How long one try of discarding a set may take, waiting for late snapshots included.
    pub(crate) fn discard(&self) -> Duration {
        self.late + self.prepare
    }
}
