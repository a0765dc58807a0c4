//! What may happen to a world by itself.

use stillpoint_context::HostId;
use stillpoint_model::id::{CopyId, DatabaseId};
use stillpoint_model::inventory::{CopyStatus, Generation};

use crate::call::Side;

/// Something that happens to the Exchange organisation or its storage, whoever is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The active copy moves to another server. A freeze of the old or the new active copy is broken.
    FailOver {
        /// Which database.
        database: DatabaseId,
        /// To which server.
        to: HostId,
    },
    /// A copy is dismounted: its writer stops after a clean shutdown. A freeze of it is broken.
    Dismount(CopyId),
    /// A copy is mounted again, from the files that are there.
    Mount(CopyId),
    /// Exchange reports this state for a copy from now on.
    Status {
        /// Which copy.
        copy: CopyId,
        /// What it says.
        status: CopyStatus,
    },
    /// The server does not answer any more; its sessions are lost and its freezes over.
    LoseHost(HostId),
    /// The server answers again.
    RestoreHost(HostId),
    /// An operator puts the server into maintenance.
    Maintain(HostId),
    /// The Exchange writer fails; a freeze on the server is over and broken.
    FailWriter {
        /// Where.
        host: HostId,
        /// The writer's word, such as `FailedAtFreeze`.
        state: String,
    },
    /// The Exchange writer is not registered any more.
    RemoveWriter(HostId),
    /// The Exchange writer is stable again.
    RepairWriter(HostId),
    /// Another backup tool begins its work on the server.
    OtherRequester(HostId),
    /// The other backup tool has finished.
    OtherRequesterGone(HostId),
    /// Another product makes a full backup of a database: Exchange notes it, and truncates.
    ForeignBackup(DatabaseId),
    /// Somebody deletes the closed logs of a copy by hand.
    DeleteLogs {
        /// Of which copy.
        copy: CopyId,
        /// Those below this generation.
        below: Generation,
    },
    /// Somebody thaws the server behind our back.
    ThawByOperator(HostId),
    /// From now on completions stay unclear: the writer fails at `BackupComplete`, for this reason.
    CompletionsUnclear(String),
    /// A side dies: it answers no more, and its sessions are lost. A freeze still ends by itself.
    Die(Side),
    /// A side that died comes back.
    Revive(Side),
    /// Power fails at the storage: what was not settled is gone.
    PowerCut,
}
