//! What somebody asks for.

use std::fmt;
use std::num::NonZeroU32;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{IdempotencyKey, JobId};

use crate::group::Selector;
use crate::id::{GroupId, PolicyId};
use crate::job::Elsewhere;
use crate::kind::BackupKind;
use crate::policy::CopySelection;

/// Why a job exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trigger {
    /// A person asked.
    Manual {
        /// Who, if that is known.
        user: Option<String>,
    },
    /// A schedule came due.
    Schedule {
        /// Its name.
        schedule: String,
        /// Which version of it, if it is a stored one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<NonZeroU32>,
        /// When it was due.
        due: DateTime<Utc>,
    },
    /// A program asked.
    Api,
    /// Another job asked, e.g. a restore that wants a new full backup.
    FollowUp {
        /// Which.
        of: JobId,
    },
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Target {
    /// A resource group.
    Group(GroupId),
    /// These, without a group.
    Selected(Vec<Selector>),
}

/// A request for a backup. Two requests of one key are one: the same job if they are equal, else
/// `run.key_reused`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BackupRequest {
    /// What tells it from another.
    pub key: IdempotencyKey,
    /// Why.
    pub trigger: Trigger,
    /// Of what.
    pub target: Target,
    /// How: the version is the newest one when the job begins.
    pub policy: PolicyId,
    /// Another kind than the policy's, this once.
    pub kind: Option<BackupKind>,
    /// Another selection than the policy's, this once.
    pub selection: Option<CopySelection>,
    /// Afterwards, if every database came out well, what the policy lets go of them is deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prune: bool,
    /// Afterwards Exchange is asked what became of the logs, until it tells or the patience for it ends.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub confirm_truncation: bool,
    /// Databases that are left to other jobs, which still wait for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coalesced: Vec<Elsewhere>,
}

const fn yes() -> bool {
    true
}

impl BackupRequest {
    /// Asks for everything that there is, under a policy.
    pub fn everything(key: IdempotencyKey, policy: PolicyId) -> Self {
        Self::new(key, Target::Selected(vec![Selector::Everything]), policy)
    }

    /// A manual request without overrides.
    pub fn new(key: IdempotencyKey, target: Target, policy: PolicyId) -> Self {
        Self {
            key,
            trigger: Trigger::Manual { user: None },
            target,
            policy,
            kind: None,
            selection: None,
            prune: false,
            confirm_truncation: true,
            coalesced: Vec::new(),
        }
    }

    /// What a schedule asks for of a group: pruned afterwards, as nobody else would.
    pub fn scheduled(
        key: IdempotencyKey,
        group: GroupId,
        policy: PolicyId,
        trigger: Trigger,
        coalesced: Vec<Elsewhere>,
    ) -> Self {
        let prune = true;
        Self { trigger, prune, coalesced, ..Self::new(key, Target::Group(group), policy) }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manual { user: Some(user) } => write!(f, "asked for by {user}"),
            Self::Manual { user: None } => f.write_str("asked for"),
            Self::Schedule { schedule, due, .. } => write!(f, "schedule {schedule}, due {due}"),
            Self::Api => f.write_str("asked for by a program"),
            Self::FollowUp { of } => write!(f, "follow-up of job {of}"),
        }
    }
}
