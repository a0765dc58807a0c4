//! How something is to be protected: versioned, and never changed in place.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stillpoint_context::HostId;

use crate::hook::{Hook, HookError, HookPhase, MOST_HOOKS};
use crate::id::PolicyId;
use crate::kind::BackupKind;
use crate::quiesce::Consistency;

mod rules;

pub use rules::{PolicyError, check_name};

/// The longest name of a policy or a group, in characters (SnapCenter's limit).
pub const LONGEST_NAME: usize = 250;
/// The most restore points that a retention count, or one grid, may keep. An ONTAP volume holds 1023 snapshots.
pub const MOST_KEPT: u32 = 1023;
/// The most days that anything is kept for: days may exceed what a volume holds, but more than a hundred years are a slip of the
/// finger.
pub const MOST_DAYS: u32 = 36_500;

/// A policy at one version, as runs and restore points pin it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyRef {
    /// Which policy.
    pub id: PolicyId,
    /// Which version of it, from 1.
    pub version: NonZeroU32,
    /// What it was called then, for people.
    pub name: String,
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// Which copies of a database are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CopySelection {
    /// The active copy, wherever it is when the plan is made.
    ActiveOnly,
    /// Every copy on these servers.
    OnHosts {
        /// The servers.
        hosts: Vec<HostId>,
    },
    /// One passive copy, least likely to be activated first.
    PreferPassive {
        /// Leave out copies whose replay is delayed.
        exclude_lagged: bool,
        /// Leave out copies that are further behind than this many logs.
        max_replay_queue: Option<u64>,
        /// Take the active copy if no passive one is fit.
        fallback_active: bool,
    },
    /// One copy, on the first of these servers that has a fit one.
    ByPreference {
        /// The servers in order.
        hosts: Vec<HostId>,
    },
}

impl CopySelection {
    /// Passive copies first, without lagged ones, at most 100 logs behind, else the active copy.
    pub const fn prefer_passive() -> Self {
        Self::PreferPassive {
            exclude_lagged: true,
            max_replay_queue: Some(100),
            fallback_active: true,
        }
    }
}

/// What happens when a policy selects several copies of one database for a truncating backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MultipleTruncating {
    /// One stays truncating; the others become copy backups, and the plan says so.
    #[default]
    Downgrade,
    /// The database is refused with `copy.multiple_truncating`.
    Refuse,
}

/// What happens when a freeze is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnMiss {
    /// The run fails.
    Fail,
    /// The job makes a new run after a pause.
    Retry {
        /// How many times.
        times: NonZeroU32,
        /// How long to wait before each.
        #[serde(rename = "pause_ms", with = "crate::millis")]
        pause: Duration,
    },
}

/// How writes are to be held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct QuiescePolicy {
    /// The longest freeze, if it is to be shorter than what plug-in and storage allow.
    #[serde(rename = "limit_ms", with = "crate::millis::option")]
    pub limit: Option<Duration>,
    /// What is kept back of the limit for the thaw itself; never more than a quarter of the limit.
    /// With VSS's limits (20 s application, 10 s I/O hold) and 2 s, snapshots have 8 s.
    #[serde(rename = "thaw_margin_ms", with = "crate::millis")]
    pub thaw_margin: Duration,
    /// What to do when the freeze is missed.
    pub on_miss: OnMiss,
    /// What a restore point must be at least; never undercut in silence.
    pub floor: Consistency,
}

impl Default for QuiescePolicy {
    /// The plug-in's limits less 2 s; a missed freeze is retried once after a minute; anything but
    /// a crash-consistent point will do, so that data at rest can be protected.
    fn default() -> Self {
        Self {
            limit: None,
            thaw_margin: Duration::from_secs(2),
            on_miss: OnMiss::Retry { times: NonZeroU32::MIN, pause: Duration::from_mins(1) },
            floor: Consistency::AtRest,
        }
    }
}

/// Grandfather, father, son: how many of each to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gfs {
    /// Hours.
    pub hourly: u32,
    /// Days.
    pub daily: u32,
    /// Weeks.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// Years.
    pub yearly: u32,
}

/// How long restore points are kept. A point is kept if any rule keeps it; no rule keeps all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Retention {
    /// The newest so many.
    pub count: Option<u32>,
    /// Those of the last so many days.
    pub within_days: Option<u32>,
    /// One for each of the last hours, days, weeks, months and years.
    pub gfs: Option<Gfs>,
    /// The newest so many good ones stay whatever the rules say, so that there are never fewer.
    pub min_keep: NonZeroU32,
}

impl Default for Retention {
    /// Keeps all.
    fn default() -> Self {
        Self { count: None, within_days: None, gfs: None, min_keep: NonZeroU32::MIN }
    }
}

impl Retention {
    /// Whether no rule would ever let anything go. Grids without a place are no rule.
    pub fn keeps_all(&self) -> bool {
        let has_grids = self.gfs.is_some_and(|gfs| gfs != Gfs::default());
        self.count.is_none() && self.within_days.is_none() && !has_grids
    }

    /// Keeps the newest `count`.
    pub fn count(count: u32) -> Self {
        Self { count: Some(count), ..Self::default() }
    }
}

/// How long logs are kept, over all policies of a database: the union of what each wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogRetention {
    /// As long as any restore point is kept that they can roll forward.
    #[default]
    AsFulls,
    /// Those since the last so many fulls of the policy; of any, for a policy of log backups.
    FollowFulls(u32),
    /// Those of the last so many days.
    Days(u32),
    /// None beyond what a point itself needs.
    None,
}

/// When a backup is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verification {
    /// Not by the backup.
    None,
    /// Before Exchange is told that the backup succeeded, so that damage keeps the logs. Holds
    /// Exchange's backup-in-progress flag for as long as it takes.
    BeforeCompletion {
        /// After this long the verification is given up; the copies are then unverified.
        #[serde(rename = "cap_ms", with = "crate::millis::option")]
        cap: Option<Duration>,
        /// Unverified copies are completed as failed, so that nothing is truncated for them.
        required: bool,
    },
    /// By a job of its own, later.
    AfterCompletion,
}

impl Default for Verification {
    /// Before completion, for at most 4 hours, and required.
    fn default() -> Self {
        Self::BeforeCompletion { cap: Some(Duration::from_hours(4)), required: true }
    }
}

/// A label of restore points; the schedule itself belongs to the group.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FrequencyClass {
    /// When somebody asks.
    #[default]
    OnDemand,
    /// Every hour or so.
    Hourly,
    /// Every day.
    Daily,
    /// Every week.
    Weekly,
    /// Every month.
    Monthly,
    /// Something else.
    Custom(String),
}

impl fmt::Display for FrequencyClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::OnDemand => "on demand",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Custom(label) => label,
        })
    }
}

/// What a job is called when some of its databases failed and some did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPartial {
    /// Succeeded with warnings.
    #[default]
    Warn,
    /// Failed.
    Fail,
}

/// How something is to be protected. Immutable at each version: an edit makes the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Policy {
    /// Which policy.
    pub id: PolicyId,
    /// From 1.
    pub version: NonZeroU32,
    /// Its name: unique, case ignored.
    pub name: String,
    /// What is taken.
    pub kind: BackupKind,
    /// Of which copies.
    pub selection: CopySelection,
    /// What happens if these are several and the kind truncates.
    pub multiple_truncating: MultipleTruncating,
    /// A log backup without a full to build on becomes a full and log backup, instead of
    /// being refused.
    pub promote_log: bool,
    /// The label of its restore points.
    pub class: FrequencyClass,
    /// How writes are held.
    pub quiesce: QuiescePolicy,
    /// How long restore points are kept.
    pub retention: Retention,
    /// How long logs are kept.
    pub log_retention: LogRetention,
    /// When they are verified.
    pub verification: Verification,
    /// What a partial success is called.
    pub on_partial: OnPartial,
    /// The programs that run at certain points of its jobs; those of one phase in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
}

impl Policy {
    /// Version 1: full and log backups of a passive copy (else the active one), verified before
    /// completion, kept for ever.
    pub fn new(id: PolicyId, name: impl Into<String>) -> Self {
        Self {
            id,
            version: NonZeroU32::MIN,
            name: name.into(),
            kind: BackupKind::FullAndLog,
            selection: CopySelection::prefer_passive(),
            multiple_truncating: MultipleTruncating::default(),
            promote_log: false,
            class: FrequencyClass::default(),
            quiesce: QuiescePolicy::default(),
            retention: Retention::default(),
            log_retention: LogRetention::default(),
            verification: Verification::default(),
            on_partial: OnPartial::default(),
            hooks: Vec::new(),
        }
    }

    /// What runs and restore points pin.
    pub fn reference(&self) -> PolicyRef {
        PolicyRef { id: self.id, version: self.version, name: self.name.clone() }
    }

    /// Whether log backups that are made under it are never let go: it has neither a rule for points nor one for logs.
    pub fn keeps_all_logs(&self) -> bool {
        self.retention.keeps_all() && self.log_retention == LogRetention::default()
    }

    /// Its hooks of a phase, in their order.
    pub fn hooks_of(&self, phase: HookPhase) -> impl Iterator<Item = &Hook> {
        self.hooks.iter().filter(move |hook| hook.phase == phase)
    }

    /// Its hooks that are for backups, in the order in which a job comes to them.
    pub fn hooks_of_backups(&self) -> Vec<Hook> {
        let phases = HookPhase::ALLOWED.into_iter().filter(|phase| !phase.is_of_restores());
        phases.flat_map(|phase| self.hooks_of(phase)).cloned().collect()
    }

    /// `edited` as the version after this one.
    ///
    /// # Errors
    /// What [`Policy::check`] finds; `policy.other_id` if it is another policy.
    pub fn edit(&self, edited: Self) -> Result<Self, PolicyError> {
        if edited.id != self.id {
            return Err(PolicyError::OtherId { id: self.id, other: edited.id });
        }
        let next = Self { version: self.version.saturating_add(1), ..edited };
        next.check()?;
        Ok(next)
    }

    /// Whether it makes sense by itself.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), PolicyError> {
        check_name(&self.name).map_err(|why| PolicyError::Name { name: self.name.clone(), why })?;
        if let CopySelection::OnHosts { hosts } | CopySelection::ByPreference { hosts } =
            &self.selection
            && hosts.is_empty()
        {
            return Err(PolicyError::NoHosts);
        }
        let logs = match self.log_retention {
            LogRetention::FollowFulls(count) => Some((count, MOST_KEPT)),
            LogRetention::Days(days) => Some((days, MOST_DAYS)),
            LogRetention::AsFulls | LogRetention::None => None,
        };
        // A grid of no place is none.
        let grids = self.retention.gfs.unwrap_or_default();
        let places = |number: u32| (number > 0).then_some((number, MOST_KEPT));
        let limited = [
            ("the retention count", self.retention.count.map(|count| (count, MOST_KEPT))),
            ("the retention's days", self.retention.within_days.map(|days| (days, MOST_DAYS))),
            ("the hourly grid", places(grids.hourly)),
            ("the daily grid", places(grids.daily)),
            ("the weekly grid", places(grids.weekly)),
            ("the monthly grid", places(grids.monthly)),
            ("the yearly grid", places(grids.yearly)),
            ("the log retention", logs),
        ];
        for (what, limited) in limited {
            if let Some((count, most)) = limited
                && (count == 0 || count > most)
            {
                return Err(PolicyError::Retention { what, most });
            }
        }
        if self.retention.min_keep.get() > MOST_KEPT {
            return Err(PolicyError::Retention { what: "the least to keep", most: MOST_KEPT });
        }
        if self.quiesce.limit.is_some_and(|limit| limit.is_zero()) {
            return Err(PolicyError::FreezeLimit);
        }
        if self.hooks.len() > MOST_HOOKS {
            let count = self.hooks.len();
            return Err(HookError::TooMany { count, most: MOST_HOOKS }.into());
        }
        self.hooks.iter().try_for_each(|hook| Ok(hook.check()?))
    }
}

#[cfg(test)]
mod tests {
    use stillpoint_context::ErrorFacts;

    use super::*;

    fn policy() -> Policy {
        Policy::new(PolicyId(uuid::Uuid::from_u128(1)), "Daily")
    }

    #[test]
    fn an_edit_makes_the_next_version() {
        let first = policy();
        let mut edited = first.clone();
        edited.kind = BackupKind::Copy;
        let second = first.edit(edited).unwrap();
        assert_eq!((second.version.get(), second.reference().to_string()), (2, "Daily@2".into()));
        let mut foreign = first.clone();
        foreign.id = PolicyId(uuid::Uuid::from_u128(2));
        assert_eq!(first.edit(foreign).unwrap_err().code(), "policy.other_id");
    }

    #[test]
    fn each_rule_has_its_code() {
        let broken = |change: fn(&mut Policy)| {
            let mut policy = policy();
            change(&mut policy);
            policy.check().unwrap_err().code()
        };
        assert_eq!(policy().check(), Ok(()));
        assert_eq!(broken(|p| p.name = " x".into()), "policy.name_invalid");
        assert_eq!(broken(|p| p.name = "x".repeat(251)), "policy.name_invalid");
        assert_eq!(broken(|p| p.retention.count = Some(0)), "retention.out_of_range");
        assert_eq!(broken(|p| p.retention.count = Some(1024)), "retention.out_of_range");
        for grid in [
            Gfs { hourly: 1024, ..Gfs::default() },
            Gfs { daily: 1024, ..Gfs::default() },
            Gfs { weekly: 1024, ..Gfs::default() },
            Gfs { monthly: 1024, ..Gfs::default() },
            Gfs { yearly: 1024, ..Gfs::default() },
        ] {
            let mut wide = policy();
            wide.retention.gfs = Some(grid);
            assert_eq!(wide.check().unwrap_err().code(), "retention.out_of_range", "{grid:?}");
        }
        let mut placed = policy();
        placed.retention.gfs = Some(Gfs { hourly: 1023, ..Gfs::default() });
        assert_eq!(placed.check(), Ok(()), "no place in the others is no mistake");
        assert_eq!(
            broken(|p| p.log_retention = LogRetention::FollowFulls(0)),
            "retention.out_of_range"
        );
        assert_eq!(
            broken(|p| p.log_retention = LogRetention::Days(36_501)),
            "retention.out_of_range"
        );
        let mut years = policy();
        years.log_retention = LogRetention::Days(10 * 365);
        assert_eq!(years.check(), Ok(()), "days are no snapshots");
        assert_eq!(
            broken(|p| p.selection = CopySelection::OnHosts { hosts: vec![] }),
            "policy.no_hosts"
        );
        assert_eq!(broken(|p| p.quiesce.limit = Some(Duration::ZERO)), "quiesce.limit_zero");
        assert_eq!(
            broken(|p| p.hooks = vec![Hook::new(HookPhase::Always, "/bin/sh")]),
            "hook.path_escape"
        );
        assert_eq!(
            broken(|p| p.hooks = vec![Hook::new(HookPhase::InFreeze, "a")]),
            "hook.phase_forbidden"
        );
        assert_eq!(
            broken(|p| p.hooks = vec![Hook::new(HookPhase::Always, "a"); MOST_HOOKS + 1]),
            "hook.too_many"
        );
    }

    #[test]
    fn hooks_come_in_the_order_of_the_job_and_then_of_the_policy() {
        let mut policy = policy();
        let hook = |phase, program: &str| Hook::new(phase, program);
        policy.hooks = vec![
            hook(HookPhase::Always, "last"),
            hook(HookPhase::BeforeRestore, "not of backups"),
            hook(HookPhase::BeforeQuiesce, "second"),
            hook(HookPhase::BeforeJob, "first"),
            hook(HookPhase::BeforeQuiesce, "third"),
        ];
        let order: Vec<_> =
            policy.hooks_of_backups().into_iter().map(|hook| hook.program).collect();
        assert_eq!(order, ["first", "second", "third", "last"]);
    }

    #[test]
    fn a_policy_without_hooks_is_stored_as_before_there_were_hooks() {
        let stored = serde_json::to_value(policy()).unwrap();
        assert!(!stored.as_object().unwrap().contains_key("hooks"), "{stored}");
        assert_eq!(serde_json::from_value::<Policy>(stored).unwrap(), policy());
    }

    #[test]
    fn a_policy_survives_storage() {
        let policy = policy();
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy);
    }
}
