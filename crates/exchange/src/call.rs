//! The calls of a plug-in as data: what was asked, for whoever stands between.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::Cx;
use stillpoint_model::handover::{Exposure, Prepared};
use stillpoint_model::id::{CopyId, SessionId};
use stillpoint_model::verdict::Verdict;

use crate::error::{PluginError, PluginResult};
use crate::plugin::ExchangePlugin;
use crate::restore::{ExchangeRestore, RestoreSpec};
use crate::session::{Scope, SessionSpec, VerifySpec};

/// One call of a plug-in or of its restore side, with its arguments.
///
/// It borrows them where it stands between caller and plug-in, and owns them when it was read from somewhere. As JSON it is an
/// object with one field, the [name](Self::name) of the call. `Display` is one line for people: name, session, copies.
///
/// ```
/// use stillpoint_exchange::{PluginCall, SessionId};
///
/// let id: SessionId = "6f9619ff-8b86-d011-b42d-00c04fc964ff".parse().unwrap();
/// assert_eq!(PluginCall::Thaw { id }.to_string(), "thaw 6f9619ff-8b86-d011-b42d-00c04fc964ff");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PluginCall<'a> {
    /// [`inventory`](ExchangePlugin::inventory).
    Inventory {
        /// What is to be covered.
        scope: Cow<'a, Scope>,
    },
    /// [`begin`](ExchangePlugin::begin).
    Begin {
        /// What is asked for.
        spec: Cow<'a, SessionSpec>,
    },
    /// [`session`](ExchangePlugin::session).
    Session {
        /// The session.
        id: SessionId,
    },
    /// [`renew`](ExchangePlugin::renew).
    Renew {
        /// The session.
        id: SessionId,
        /// How long it may live.
        lease: Duration,
    },
    /// [`freeze`](ExchangePlugin::freeze).
    Freeze {
        /// The session.
        id: SessionId,
        /// How long the freeze may last.
        limit: Option<Duration>,
    },
    /// [`thaw`](ExchangePlugin::thaw).
    Thaw {
        /// The session.
        id: SessionId,
    },
    /// [`snap`](ExchangePlugin::snap).
    Snap {
        /// The session.
        id: SessionId,
        /// What was prepared.
        prepared: Cow<'a, [Prepared]>,
    },
    /// [`evidence`](ExchangePlugin::evidence).
    Evidence {
        /// The session.
        id: SessionId,
    },
    /// [`verify`](ExchangePlugin::verify).
    Verify {
        /// Where the files are.
        exposure: Cow<'a, Exposure>,
        /// What is asked for.
        spec: Cow<'a, VerifySpec>,
    },
    /// [`complete`](ExchangePlugin::complete).
    Complete {
        /// The session.
        id: SessionId,
        /// The verdicts.
        verdicts: Cow<'a, BTreeMap<CopyId, Verdict>>,
    },
    /// [`abort`](ExchangePlugin::abort).
    Abort {
        /// The session.
        id: SessionId,
    },
    /// [`truncation`](ExchangePlugin::truncation).
    Truncation {
        /// The copy.
        copy: Cow<'a, CopyId>,
        /// Since when.
        since: DateTime<Utc>,
    },
    /// [`closed_logs`](ExchangePlugin::closed_logs).
    ClosedLogs {
        /// The copy.
        copy: Cow<'a, CopyId>,
    },
    /// [`open`](ExchangeRestore::open).
    #[serde(rename = "restore.open")]
    Open {
        /// What is asked for.
        spec: Cow<'a, RestoreSpec>,
    },
    /// [`finish`](ExchangeRestore::finish).
    #[serde(rename = "restore.finish")]
    Finish {
        /// What is asked for.
        spec: Cow<'a, RestoreSpec>,
    },
    /// [`cancel`](ExchangeRestore::cancel).
    #[serde(rename = "restore.cancel")]
    Cancel {
        /// What is asked for.
        spec: Cow<'a, RestoreSpec>,
    },
}

/// The answer of a call, of the type that its method gives.
pub type AnyAnswer = Box<dyn Any + Send>;

fn boxed<T: Send + 'static>(answer: PluginResult<T>) -> PluginResult<AnyAnswer> {
    answer.map(|value| Box::new(value) as AnyAnswer)
}

fn listed(things: impl IntoIterator<Item = impl Display>) -> String {
    things.into_iter().map(|thing| thing.to_string()).collect::<Vec<_>>().join(" ")
}

/// The side of a plug-in that brings databases back, or that it has none.
pub(crate) fn restore_of(plugin: &dyn ExchangePlugin) -> PluginResult<&dyn ExchangeRestore> {
    plugin.restore().ok_or_else(|| PluginError::unsupported("restore"))
}

impl PluginCall<'_> {
    /// The names of all calls: those of the methods, with the side before them where it is one of a side's.
    pub const NAMES: [&'static str; 16] = [
        "inventory",
        "begin",
        "session",
        "renew",
        "freeze",
        "thaw",
        "snap",
        "evidence",
        "verify",
        "complete",
        "abort",
        "truncation",
        "closed_logs",
        "restore.open",
        "restore.finish",
        "restore.cancel",
    ];

    /// Its name, one of [`NAMES`](Self::NAMES).
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Inventory { .. } => "inventory",
            Self::Begin { .. } => "begin",
            Self::Session { .. } => "session",
            Self::Renew { .. } => "renew",
            Self::Freeze { .. } => "freeze",
            Self::Thaw { .. } => "thaw",
            Self::Snap { .. } => "snap",
            Self::Evidence { .. } => "evidence",
            Self::Verify { .. } => "verify",
            Self::Complete { .. } => "complete",
            Self::Abort { .. } => "abort",
            Self::Truncation { .. } => "truncation",
            Self::ClosedLogs { .. } => "closed_logs",
            Self::Open { .. } => "restore.open",
            Self::Finish { .. } => "restore.finish",
            Self::Cancel { .. } => "restore.cancel",
        }
    }

    /// What it is about, without its name: for people, and to be searched in.
    pub fn about(&self) -> String {
        match self {
            Self::Inventory { scope } => format!("{scope:?}"),
            Self::Begin { spec } => {
                format!("{} {} {}", spec.id, spec.kind.word(), listed(spec.copies.iter()))
            }
            Self::Session { id }
            | Self::Thaw { id }
            | Self::Evidence { id }
            | Self::Abort { id } => id.to_string(),
            Self::Renew { id, lease } => format!("{id} {lease:?}"),
            Self::Freeze { id, limit } => format!("{id} {limit:?}"),
            Self::Snap { id, prepared } => {
                format!("{id} {}", listed(prepared.iter().map(|set| &set.token)))
            }
            Self::Verify { exposure, spec } => {
                format!("{} {}", exposure.key, listed(spec.copies()))
            }
            Self::Complete { id, verdicts } => {
                let said = verdicts.iter().map(|(copy, verdict)| format!("{copy}={verdict}"));
                format!("{id} {}", listed(said))
            }
            Self::Truncation { copy, since } => format!("{copy} since {since}"),
            Self::ClosedLogs { copy } => copy.to_string(),
            Self::Open { spec } | Self::Finish { spec } | Self::Cancel { spec } => {
                format!("{} {}", spec.id, spec.database)
            }
        }
    }

    /// Asks a plug-in the same.
    ///
    /// # Errors
    /// Those of the plug-in; `Unsupported` when it does not have the side that the call is of.
    ///
    /// # Cancel safety
    /// That of the method.
    pub async fn on(&self, side: &dyn ExchangePlugin, cx: &Cx) -> PluginResult<AnyAnswer> {
        let restore = || restore_of(side);
        match self {
            Self::Inventory { scope } => boxed(side.inventory(cx, scope).await),
            Self::Begin { spec } => boxed(side.begin(cx, spec).await),
            Self::Session { id } => boxed(side.session(cx, *id).await),
            Self::Renew { id, lease } => boxed(side.renew(cx, *id, *lease).await),
            Self::Freeze { id, limit } => boxed(side.freeze(cx, *id, *limit).await),
            Self::Thaw { id } => boxed(side.thaw(cx, *id).await),
            Self::Snap { id, prepared } => boxed(side.snap(cx, *id, prepared).await),
            Self::Evidence { id } => boxed(side.evidence(cx, *id).await),
            Self::Verify { exposure, spec } => boxed(side.verify(cx, exposure, spec).await),
            Self::Complete { id, verdicts } => boxed(side.complete(cx, *id, verdicts).await),
            Self::Abort { id } => boxed(side.abort(cx, *id).await),
            Self::Truncation { copy, since } => boxed(side.truncation(cx, copy, *since).await),
            Self::ClosedLogs { copy } => boxed(side.closed_logs(cx, copy).await),
            Self::Open { spec } => boxed(restore()?.open(cx, spec).await),
            Self::Finish { spec } => boxed(restore()?.finish(cx, spec).await),
            Self::Cancel { spec } => boxed(restore()?.cancel(cx, spec).await),
        }
    }
}

impl Display for PluginCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(format!("{} {}", self.name(), self.about()).trim_end())
    }
}
