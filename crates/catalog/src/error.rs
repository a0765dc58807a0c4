//! What can go wrong with a catalogue.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;

use chrono::{DateTime, Utc};
use stillpoint_context::{
    Effect, ErrorClass, ErrorCode, ErrorFacts, IdempotencyKey, JobId, ProcessId, Subject,
};
use stillpoint_model::id::{GroupId, PointId, PolicyId, ScheduleId};
use stillpoint_model::point::FactError;
use stillpoint_model::schedule::AttachmentId;

/// What has a unique name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Named {
    /// A policy.
    Policy,
    /// A group.
    Group,
    /// A schedule.
    Schedule,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Policy => "policy",
            Self::Group => "group",
            Self::Schedule => "schedule",
        })
    }
}

/// A call of a catalogue failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// A fact does not fit what is known.
    #[error("a fact about a restore point does not fit")]
    Fact(#[source] FactError),
    /// The key of a request was used for another one.
    #[error("the key {key} was used for another request")]
    KeyReused {
        /// The key.
        key: IdempotencyKey,
        /// The job that has it.
        job: JobId,
    },
    /// The name belongs to another.
    #[error("another {what} is called {name:?}")]
    NameTaken {
        /// What it is the name of.
        what: Named,
        /// The name.
        name: String,
    },
    /// A policy's version does not follow its newest, or differs from what is stored.
    #[error("version {found} of policy {id} cannot be stored: the newest is {newest}")]
    Version {
        /// The policy.
        id: PolicyId,
        /// The version that was to be stored.
        found: NonZeroU32,
        /// The newest one, 0 if there is none.
        newest: u32,
    },
    /// A policy belongs to groups.
    #[error("policy {id} is used by {} groups", groups.len())]
    PolicyInUse {
        /// The policy.
        id: PolicyId,
        /// The groups.
        groups: Vec<GroupId>,
    },
    /// A restore point is being deleted, so that nothing can keep it any more.
    #[error("restore point {point} is being deleted")]
    Expiring {
        /// The point.
        point: PointId,
    },
    /// A group's version does not follow the stored one, or differs from it.
    #[error("version {found} of group {id} cannot be stored: the newest is {newest}")]
    GroupVersion {
        /// The group.
        id: GroupId,
        /// The version that was to be stored.
        found: NonZeroU32,
        /// The one that is stored, 0 if there is none.
        newest: u32,
    },
    /// A schedule's version does not follow its newest, or differs from what is stored.
    #[error("version {found} of schedule {id} cannot be stored: the newest is {newest}")]
    ScheduleVersion {
        /// The schedule.
        id: ScheduleId,
        /// The version that was to be stored.
        found: NonZeroU32,
        /// The newest one, 0 if there is none.
        newest: u32,
    },
    /// A schedule is attached to groups.
    #[error("schedule {id} is attached to {} groups", groups.len())]
    ScheduleInUse {
        /// The schedule.
        id: ScheduleId,
        /// The groups.
        groups: Vec<GroupId>,
    },
    /// A due time is not open any more: it has its job, or its reason.
    #[error("what was due at {due} of {attachment} is settled")]
    DueSettled {
        /// Of what.
        attachment: AttachmentId,
        /// When it was due.
        due: DateTime<Utc>,
    },
    /// Something that is referred to does not exist.
    #[error("{kind} {id} does not exist")]
    NotFound {
        /// What kind of thing, e.g. `job`.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// The process that writes has been taken over by another one.
    #[error("process {owner} does not hold epoch {epoch} any more")]
    Fenced {
        /// The process.
        owner: ProcessId,
        /// Its epoch.
        epoch: u64,
    },
    /// The store is damaged, or something else wrote into it.
    #[error("the catalogue is damaged: {message}")]
    Corrupt {
        /// What was found, in one sentence.
        message: String,
        /// The error below.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The store could not do it now.
    #[error("the catalogue cannot be used: {message}")]
    Unavailable {
        /// What happened, in one sentence.
        message: String,
        /// Whether the change may have been made.
        effect: Effect,
        /// The error below.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}

impl From<FactError> for CatalogError {
    fn from(error: FactError) -> Self {
        Self::Fact(error)
    }
}

impl ErrorFacts for CatalogError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Fact(error) => error.code(),
            Self::KeyReused { .. } => "run.key_reused".into(),
            Self::NameTaken { what: Named::Policy, .. } => "policy.name_taken".into(),
            Self::NameTaken { what: Named::Group, .. } => "group.name_taken".into(),
            Self::NameTaken { what: Named::Schedule, .. } => "schedule.name_taken".into(),
            Self::Version { .. } => "policy.version_conflict".into(),
            Self::PolicyInUse { .. } => "policy.in_use".into(),
            Self::Expiring { .. } => "hold.too_late".into(),
            Self::GroupVersion { .. } => "group.version_conflict".into(),
            Self::ScheduleVersion { .. } => "schedule.version_conflict".into(),
            Self::ScheduleInUse { .. } => "schedule.in_use".into(),
            Self::DueSettled { .. } => "schedule.due_settled".into(),
            Self::NotFound { .. } => "catalog.not_found".into(),
            Self::Fenced { .. } => "catalog.fenced".into(),
            Self::Corrupt { .. } => "state.corrupt".into(),
            Self::Unavailable { .. } => "state.unavailable".into(),
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Fact(error) => error.class(),
            Self::KeyReused { .. }
            | Self::NameTaken { .. }
            | Self::Version { .. }
            | Self::PolicyInUse { .. }
            | Self::Expiring { .. }
            | Self::GroupVersion { .. }
            | Self::ScheduleVersion { .. }
            | Self::ScheduleInUse { .. }
            | Self::DueSettled { .. }
            | Self::Fenced { .. } => ErrorClass::Conflict,
            Self::NotFound { .. } => ErrorClass::Invalid,
            Self::Corrupt { .. } => ErrorClass::Integrity,
            Self::Unavailable { .. } => ErrorClass::Unavailable,
        }
    }

    fn effect(&self) -> Effect {
        match self {
            Self::Unavailable { effect, .. } => *effect,
            Self::Corrupt { .. } => Effect::Unknown,
            _ => Effect::None,
        }
    }

    fn subjects(&self) -> Vec<Subject> {
        match self {
            Self::Fact(error) => error.subjects(),
            Self::KeyReused { job, .. } => vec![Subject::new("job", job)],
            Self::Version { id, .. } => vec![Subject::new("policy", id)],
            Self::PolicyInUse { id, groups } => {
                let groups = groups.iter().map(|group| Subject::new("group", group));
                std::iter::once(Subject::new("policy", id)).chain(groups).collect()
            }
            Self::Expiring { point } => vec![Subject::new("restore point", point)],
            Self::GroupVersion { id, .. } => vec![Subject::new("group", id)],
            Self::ScheduleVersion { id, .. } => vec![Subject::new("schedule", id)],
            Self::ScheduleInUse { id, groups } => {
                let groups = groups.iter().map(|group| Subject::new("group", group));
                std::iter::once(Subject::new("schedule", id)).chain(groups).collect()
            }
            Self::DueSettled { attachment, .. } => vec![Subject::new("attachment", attachment)],
            Self::NotFound { kind, id } => vec![Subject::new(kind, id)],
            Self::Fenced { owner, .. } => vec![Subject::new("process", owner)],
            Self::NameTaken { .. } | Self::Corrupt { .. } | Self::Unavailable { .. } => Vec::new(),
        }
    }

    fn remedy(&self) -> Cow<'static, str> {
        match self {
            Self::Fact(error) => return error.remedy(),
            Self::KeyReused { .. } => "Use a new key for a new request.",
            Self::NameTaken { .. } => "Choose another name.",
            Self::Version { .. } => "Read the policy again and edit its newest version.",
            Self::PolicyInUse { .. } => "Take the policy out of these groups first.",
            Self::Expiring { .. } => "Hold another point: some of this one may be gone.",
            Self::GroupVersion { .. } => "Read the group again and edit its newest version.",
            Self::ScheduleVersion { .. } => "Read the schedule again and edit its newest version.",
            Self::ScheduleInUse { .. } => "Detach the schedule from these groups first.",
            Self::DueSettled { .. } => "Look at the jobs and the lapses of the schedule.",
            Self::NotFound { .. } => "List what exists and choose from that.",
            Self::Fenced { .. } => "Stop this process; its jobs are carried on by another.",
            Self::Corrupt { .. } => {
                "Keep the file, and rebuild the catalogue from the manifests beside the data."
            }
            Self::Unavailable { .. } => "Look at the disk of the state file, and try again.",
        }
        .into()
    }
}
