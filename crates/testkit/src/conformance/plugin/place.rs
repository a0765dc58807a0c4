//! Where plug-ins are tried: an Exchange organisation, and what may be done to it besides.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use stillpoint_context::{HostPath, Seams};
use stillpoint_exchange::{CopyId, ExchangePlugin, RequiredFile};
use stillpoint_model::handover::{Exposure, Prepared};
use stillpoint_model::id::DatabaseId;

use super::super::store::BoxError;

/// What can be done at a place besides calling the plug-in. What is not declared is not tried: a report lists what was
/// skipped for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Can {
    /// [Open](PluginPlace::open) gives a plug-in of another process, which may not know the sessions of the one before.
    Reopen,
    /// The files of the databases can be [read](PluginPlace::read).
    Read,
    /// It can [tell](PluginPlace::is_frozen) whether writes are held.
    SeeFreeze,
    /// It can [break](PluginPlace::disturb) a freeze.
    Disturb,
    /// It can [prepare](PluginPlace::prepare) snapshots for a plug-in that snaps by itself.
    Prepare,
    /// It can [expose](PluginPlace::expose) files as they are now.
    Expose,
    /// It can [rename](PluginPlace::rename) databases.
    Rename,
    /// Sessions may be completed: logs may be truncated for it.
    Complete,
    /// Its clock is virtual, so that waiting costs nothing and times are exact.
    Virtual,
}

fn cannot(what: &str) -> BoxError {
    format!("the place cannot {what}").into()
}

/// An organisation for which a plug-in speaks. What can be done beyond the first is declared by [`PluginFactory::can`]; the
/// rest need not be implemented.
#[async_trait]
pub trait PluginPlace: Send + Sync {
    /// Opens the plug-in. Called again when every handle of the one before has been dropped, as by another process.
    async fn open(&self) -> Result<Arc<dyn ExchangePlugin>, BoxError>;

    /// The bytes of a file of a database now; `None` if there is none.
    async fn read(&self, path: &HostPath) -> Result<Option<Vec<u8>>, BoxError> {
        let _ = path;
        Err(cannot("read"))
    }

    /// Whether the writes of a copy are held.
    async fn is_frozen(&self, copy: &CopyId) -> Result<bool, BoxError> {
        let _ = copy;
        Err(cannot("look for a freeze"))
    }

    /// Does to a frozen copy what breaks its freeze: writes behind its back, dismounts it, fails it over.
    async fn disturb(&self, copy: &CopyId) -> Result<(), BoxError> {
        let _ = copy;
        Err(cannot("break a freeze"))
    }

    /// Prepares snapshots of the volumes on which these files lie.
    async fn prepare(&self, files: &[RequiredFile]) -> Result<Vec<Prepared>, BoxError> {
        let _ = files;
        Err(cannot("prepare snapshots"))
    }

    /// Makes these files readable as they are now; called while they are frozen.
    async fn expose(&self, files: &[RequiredFile]) -> Result<Exposure, BoxError> {
        let _ = files;
        Err(cannot("expose files"))
    }

    /// Gives a database another name.
    async fn rename(&self, database: DatabaseId, name: &str) -> Result<(), BoxError> {
        let (_, _) = (database, name);
        Err(cannot("rename a database"))
    }
}

/// Makes the places at which a suite tries a plug-in, and says what they can.
#[async_trait]
pub trait PluginFactory: Send + Sync {
    /// A new place with at least one copy that can be backed up; with two or more on one server, sets are tried.
    async fn place(&self) -> Result<Box<dyn PluginPlace>, BoxError>;

    /// Time, tasks and ids for the calls.
    fn seams(&self) -> Seams;

    /// What the places can do besides.
    fn can(&self) -> BTreeSet<Can> {
        BTreeSet::new()
    }
}
