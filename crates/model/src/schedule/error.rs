//! How a schedule can be wrong.

use std::borrow::Cow;

use stillpoint_context::{Effect, ErrorClass, ErrorCode, ErrorFacts, Subject};

/// A schedule breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// There is no such zone.
    #[error("there is no time zone {zone:?}")]
    ZoneUnknown {
        /// What it says.
        zone: String,
    },
    /// It is never due.
    #[error("the schedule is never due: {why}")]
    NeverFires {
        /// Why.
        why: &'static str,
    },
    /// Its rule says what cannot be.
    #[error("the rule of the schedule cannot be: {what}")]
    Rule {
        /// What.
        what: &'static str,
    },
    /// Its cron pattern is none.
    #[error("{pattern:?} is no cron pattern: {why}")]
    Cron {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// Its name is none.
    #[error("{name:?} is no name for a schedule: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It may be late by so much that it cannot keep its order.
    #[error("the jitter is longer than a day")]
    Jitter,
    /// A blackout has no length.
    #[error("the blackout {name:?} ends when it begins or before")]
    Blackout {
        /// Which.
        name: String,
    },
}

impl ErrorFacts for ScheduleError {
    fn code(&self) -> ErrorCode {
        ErrorCode::new(match self {
            Self::ZoneUnknown { .. } => "schedule.zone_unknown",
            Self::NeverFires { .. } => "schedule.never_fires",
            Self::Rule { .. } => "schedule.rule_invalid",
            Self::Cron { .. } => "schedule.cron_invalid",
            Self::Name { .. } => "schedule.name_invalid",
            Self::Jitter => "schedule.jitter_too_long",
            Self::Blackout { .. } => "schedule.blackout_empty",
        })
    }

    fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    fn subjects(&self) -> Vec<Subject> {
        Vec::new()
    }

    fn remedy(&self) -> Cow<'static, str> {
        match self {
            Self::ZoneUnknown { .. } => {
                "Name a zone of the IANA database, such as Europe/Berlin or UTC."
            }
            Self::NeverFires { .. } => "Choose days that exist, and an end after the start.",
            Self::Rule { .. } => "Choose numbers in the ranges that the rule allows.",
            Self::Cron { .. } => "Write five fields, as in 30 2 * * MON-FRI.",
            Self::Name { .. } => "Choose a name of 1 to 250 printable characters.",
            Self::Jitter => "Choose a jitter of a day at most.",
            Self::Blackout { .. } => "Let the blackout end after it begins.",
        }
        .into()
    }
}
