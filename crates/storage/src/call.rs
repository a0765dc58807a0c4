//! The calls of a provider as data: what was asked, for whoever stands between.

use std::any::Any;
use std::borrow::Cow;
use std::fmt::{self, Display};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{Cx, HostId, HostPath};
use stillpoint_model::handover::{NativeSnapshot, Prepared};
use stillpoint_model::id::{ExposureKey, SetToken, SnapshotRef, VolumeRef};

use crate::error::{ProviderError, ProviderResult};
use crate::lock::{HoldName, SnapshotLock};
use crate::provider::SnapshotProvider;
use crate::restore::{Consent, RestoreKey, SnapshotRestore, StageSpec};
use crate::snapshot::{DocName, PrepareSpec};

/// One call of a provider or of one of its sides, with its arguments.
///
/// It borrows them where it stands between caller and provider, and owns them when it was read from somewhere. As JSON it is
/// an object with one field, the [name](Self::name) of the call. `Display` is one line for people: name, token, volumes.
///
/// ```
/// use std::borrow::Cow;
/// use stillpoint_storage::{ProviderCall, SetToken};
///
/// let token = SetToken::new("set-1")?;
/// let call = ProviderCall::Find { token: Cow::Borrowed(&token) };
/// assert_eq!((call.name(), call.to_string()), ("find", "find set-1".to_owned()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProviderCall<'a> {
    /// [`resolve`](SnapshotProvider::resolve).
    Resolve {
        /// The files.
        files: Cow<'a, [HostPath]>,
    },
    /// [`volumes`](SnapshotProvider::volumes).
    Volumes {
        /// The volumes.
        volumes: Cow<'a, [VolumeRef]>,
    },
    /// [`prepare`](SnapshotProvider::prepare).
    Prepare {
        /// What is asked for.
        spec: Cow<'a, PrepareSpec>,
    },
    /// [`commit`](SnapshotProvider::commit).
    Commit {
        /// What was prepared.
        prepared: Cow<'a, Prepared>,
    },
    /// [`adopt`](SnapshotProvider::adopt).
    Adopt {
        /// What was prepared.
        prepared: Cow<'a, Prepared>,
        /// What VSS made.
        natives: Cow<'a, [NativeSnapshot]>,
    },
    /// [`settle`](SnapshotProvider::settle).
    Settle {
        /// What was prepared.
        prepared: Cow<'a, Prepared>,
    },
    /// [`discard`](SnapshotProvider::discard).
    Discard {
        /// The set.
        token: Cow<'a, SetToken>,
    },
    /// [`find`](SnapshotProvider::find).
    Find {
        /// The set.
        token: Cow<'a, SetToken>,
    },
    /// [`list`](SnapshotProvider::list).
    List {
        /// The volume.
        volume: Cow<'a, VolumeRef>,
        /// The mark of the page.
        page: Option<String>,
    },
    /// [`delete`](SnapshotProvider::delete).
    Delete {
        /// The snapshot.
        snapshot: Cow<'a, SnapshotRef>,
    },
    /// [`expose`](SnapshotProvider::expose).
    Expose {
        /// The snapshots.
        snapshots: Cow<'a, [SnapshotRef]>,
        /// The host.
        to: Cow<'a, HostId>,
        /// The key.
        key: Cow<'a, ExposureKey>,
    },
    /// [`unexpose`](SnapshotProvider::unexpose).
    Unexpose {
        /// The key.
        key: Cow<'a, ExposureKey>,
    },
    /// [`exposures`](SnapshotProvider::exposures).
    Exposures,
    /// [`put_doc`](SnapshotProvider::put_doc).
    PutDoc {
        /// The name.
        name: Cow<'a, DocName>,
        /// The bytes.
        bytes: Cow<'a, [u8]>,
    },
    /// [`get_doc`](SnapshotProvider::get_doc).
    GetDoc {
        /// The name.
        name: Cow<'a, DocName>,
    },
    /// [`list_docs`](SnapshotProvider::list_docs).
    ListDocs,
    /// [`delete_doc`](SnapshotProvider::delete_doc).
    DeleteDoc {
        /// The name.
        name: Cow<'a, DocName>,
    },
    /// [`stage`](SnapshotRestore::stage).
    #[serde(rename = "restore.stage")]
    Stage {
        /// What is asked for.
        spec: Cow<'a, StageSpec>,
    },
    /// [`unstage`](SnapshotRestore::unstage).
    #[serde(rename = "restore.unstage")]
    Unstage {
        /// The key.
        key: Cow<'a, RestoreKey>,
    },
    /// [`publish`](SnapshotRestore::publish).
    #[serde(rename = "restore.publish")]
    Publish {
        /// The key.
        key: Cow<'a, RestoreKey>,
    },
    /// [`retract`](SnapshotRestore::retract).
    #[serde(rename = "restore.retract")]
    Retract {
        /// The key.
        key: Cow<'a, RestoreKey>,
    },
    /// [`settle`](SnapshotRestore::settle).
    #[serde(rename = "restore.settle")]
    SettleRestore {
        /// The key.
        key: Cow<'a, RestoreKey>,
    },
    /// [`collateral`](SnapshotRestore::collateral).
    #[serde(rename = "restore.collateral")]
    Collateral {
        /// The snapshots.
        snapshots: Cow<'a, [SnapshotRef]>,
    },
    /// [`revert`](SnapshotRestore::revert).
    #[serde(rename = "restore.revert")]
    Revert {
        /// The snapshots.
        snapshots: Cow<'a, [SnapshotRef]>,
        /// What may be lost.
        consent: Cow<'a, Consent>,
    },
    /// [`hold`](SnapshotLock::hold).
    #[serde(rename = "lock.hold")]
    Hold {
        /// The snapshot.
        snapshot: Cow<'a, SnapshotRef>,
        /// The name.
        name: Cow<'a, HoldName>,
    },
    /// [`release`](SnapshotLock::release).
    #[serde(rename = "lock.release")]
    Release {
        /// The snapshot.
        snapshot: Cow<'a, SnapshotRef>,
        /// The name.
        name: Cow<'a, HoldName>,
    },
    /// [`lock`](SnapshotLock::lock).
    #[serde(rename = "lock.lock")]
    Lock {
        /// The snapshot.
        snapshot: Cow<'a, SnapshotRef>,
        /// Until when.
        until: DateTime<Utc>,
    },
    /// [`keeps`](SnapshotLock::keeps).
    #[serde(rename = "lock.keeps")]
    Keeps {
        /// The snapshot.
        snapshot: Cow<'a, SnapshotRef>,
    },
}

/// The answer of a call, of the type that its method gives.
pub type AnyAnswer = Box<dyn Any + Send>;

fn boxed<T: Send + 'static>(answer: ProviderResult<T>) -> ProviderResult<AnyAnswer> {
    answer.map(|value| Box::new(value) as AnyAnswer)
}

fn listed(things: impl IntoIterator<Item = impl Display>) -> String {
    things.into_iter().map(|thing| thing.to_string()).collect::<Vec<_>>().join(" ")
}

fn count(things: usize, what: &str) -> String {
    format!("{things} {what}{}", if things == 1 { "" } else { "s" })
}

fn set(prepared: &Prepared) -> String {
    format!("{} {}", prepared.token, listed(prepared.members.iter().map(|member| &member.volume)))
}

/// The side of a provider that brings files back, or that it has none.
pub(crate) fn restore_of(provider: &dyn SnapshotProvider) -> ProviderResult<&dyn SnapshotRestore> {
    provider.restore().ok_or_else(|| ProviderError::unsupported("clone"))
}

/// The side of a provider that keeps snapshots, or that it has none.
pub(crate) fn lock_of(provider: &dyn SnapshotProvider) -> ProviderResult<&dyn SnapshotLock> {
    provider.lock().ok_or_else(|| ProviderError::unsupported("lock"))
}

impl ProviderCall<'_> {
    /// The names of all calls: those of the methods, with the side before them where it is one of a side's.
    pub const NAMES: [&'static str; 28] = [
        "resolve",
        "volumes",
        "prepare",
        "commit",
        "adopt",
        "settle",
        "discard",
        "find",
        "list",
        "delete",
        "expose",
        "unexpose",
        "exposures",
        "put_doc",
        "get_doc",
        "list_docs",
        "delete_doc",
        "restore.stage",
        "restore.unstage",
        "restore.publish",
        "restore.retract",
        "restore.settle",
        "restore.collateral",
        "restore.revert",
        "lock.hold",
        "lock.release",
        "lock.lock",
        "lock.keeps",
    ];

    /// Its name, one of [`NAMES`](Self::NAMES).
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "resolve",
            Self::Volumes { .. } => "volumes",
            Self::Prepare { .. } => "prepare",
            Self::Commit { .. } => "commit",
            Self::Adopt { .. } => "adopt",
            Self::Settle { .. } => "settle",
            Self::Discard { .. } => "discard",
            Self::Find { .. } => "find",
            Self::List { .. } => "list",
            Self::Delete { .. } => "delete",
            Self::Expose { .. } => "expose",
            Self::Unexpose { .. } => "unexpose",
            Self::Exposures => "exposures",
            Self::PutDoc { .. } => "put_doc",
            Self::GetDoc { .. } => "get_doc",
            Self::ListDocs => "list_docs",
            Self::DeleteDoc { .. } => "delete_doc",
            Self::Stage { .. } => "restore.stage",
            Self::Unstage { .. } => "restore.unstage",
            Self::Publish { .. } => "restore.publish",
            Self::Retract { .. } => "restore.retract",
            Self::SettleRestore { .. } => "restore.settle",
            Self::Collateral { .. } => "restore.collateral",
            Self::Revert { .. } => "restore.revert",
            Self::Hold { .. } => "lock.hold",
            Self::Release { .. } => "lock.release",
            Self::Lock { .. } => "lock.lock",
            Self::Keeps { .. } => "lock.keeps",
        }
    }

    /// What it is about, without its name: for people, and to be searched in.
    pub fn about(&self) -> String {
        match self {
            Self::Resolve { files } => count(files.len(), "file"),
            Self::Volumes { volumes } => listed(volumes.iter()),
            Self::Prepare { spec } => format!(
                "{} {}",
                spec.token,
                listed(spec.members.iter().map(|member| &member.volume))
            ),
            Self::Commit { prepared } | Self::Settle { prepared } => set(prepared),
            Self::Adopt { prepared, natives } => format!(
                "{} {}",
                prepared.token,
                listed(natives.iter().map(|native| &native.native_id))
            ),
            Self::Discard { token } | Self::Find { token } => token.to_string(),
            Self::List { volume, .. } => volume.to_string(),
            Self::Delete { snapshot } | Self::Keeps { snapshot } => snapshot.to_string(),
            Self::Expose { snapshots, to, key } => {
                format!("{key} to {to} {}", listed(snapshots.iter()))
            }
            Self::Unexpose { key } => key.to_string(),
            Self::Exposures | Self::ListDocs => String::new(),
            Self::PutDoc { name, .. } | Self::GetDoc { name } | Self::DeleteDoc { name } => {
                name.to_string()
            }
            Self::Stage { spec } => format!("{} {}", spec.key, count(spec.files.len(), "file")),
            Self::Unstage { key }
            | Self::Publish { key }
            | Self::Retract { key }
            | Self::SettleRestore { key } => key.to_string(),
            Self::Collateral { snapshots } | Self::Revert { snapshots, .. } => {
                listed(snapshots.iter())
            }
            Self::Hold { snapshot, name } | Self::Release { snapshot, name } => {
                format!("{snapshot} {name}")
            }
            Self::Lock { snapshot, until } => format!("{snapshot} {until}"),
        }
    }

    /// Asks a provider the same.
    ///
    /// # Errors
    /// Those of the provider; `Unsupported` when it does not have the side that the call is of.
    ///
    /// # Cancel safety
    /// That of the method.
    pub async fn on(&self, side: &dyn SnapshotProvider, cx: &Cx) -> ProviderResult<AnyAnswer> {
        let restore = || restore_of(side);
        let lock = || lock_of(side);
        match self {
            Self::Resolve { files } => boxed(side.resolve(cx, files).await),
            Self::Volumes { volumes } => boxed(side.volumes(cx, volumes).await),
            Self::Prepare { spec } => boxed(side.prepare(cx, spec).await),
            Self::Commit { prepared } => boxed(side.commit(cx, prepared).await),
            Self::Adopt { prepared, natives } => boxed(side.adopt(cx, prepared, natives).await),
            Self::Settle { prepared } => boxed(side.settle(cx, prepared).await),
            Self::Discard { token } => boxed(side.discard(cx, token).await),
            Self::Find { token } => boxed(side.find(cx, token).await),
            Self::List { volume, page } => boxed(side.list(cx, volume, page.clone()).await),
            Self::Delete { snapshot } => boxed(side.delete(cx, snapshot).await),
            Self::Expose { snapshots, to, key } => boxed(side.expose(cx, snapshots, to, key).await),
            Self::Unexpose { key } => boxed(side.unexpose(cx, key).await),
            Self::Exposures => boxed(side.exposures(cx).await),
            Self::PutDoc { name, bytes } => boxed(side.put_doc(cx, name, bytes).await),
            Self::GetDoc { name } => boxed(side.get_doc(cx, name).await),
            Self::ListDocs => boxed(side.list_docs(cx).await),
            Self::DeleteDoc { name } => boxed(side.delete_doc(cx, name).await),
            Self::Stage { spec } => boxed(restore()?.stage(cx, spec).await),
            Self::Unstage { key } => boxed(restore()?.unstage(cx, key).await),
            Self::Publish { key } => boxed(restore()?.publish(cx, key).await),
            Self::Retract { key } => boxed(restore()?.retract(cx, key).await),
            Self::SettleRestore { key } => boxed(restore()?.settle(cx, key).await),
            Self::Collateral { snapshots } => boxed(restore()?.collateral(cx, snapshots).await),
            Self::Revert { snapshots, consent } => {
                boxed(restore()?.revert(cx, snapshots, consent).await)
            }
            Self::Hold { snapshot, name } => boxed(lock()?.hold(cx, snapshot, name).await),
            Self::Release { snapshot, name } => boxed(lock()?.release(cx, snapshot, name).await),
            Self::Lock { snapshot, until } => boxed(lock()?.lock(cx, snapshot, *until).await),
            Self::Keeps { snapshot } => boxed(lock()?.keeps(cx, snapshot).await),
        }
    }
}

impl Display for ProviderCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(format!("{} {}", self.name(), self.about()).trim_end())
    }
}
