//! The rules that a policy keeps by itself.

use stillpoint_context::{Effect, ErrorClass, ErrorCode, ErrorFacts, Subject};

use super::LONGEST_NAME;
use crate::hook::HookError;
use crate::id::PolicyId;

/// Whether a text can be the name of a policy or a group: 1 to 250 characters, none of them a
/// control character, no white space at its ends.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.trim().is_empty() {
        Err("it is empty")
    } else if name.trim() != name {
        Err("it begins or ends with white space")
    } else if name.chars().count() > LONGEST_NAME {
        Err("it is longer than 250 characters")
    } else if name.chars().any(char::is_control) {
        Err("it has control characters")
    } else {
        Ok(())
    }
}

/// A policy breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Its name is none.
    #[error("{name:?} is no name for a policy: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It selects copies by server and names none.
    #[error("the copy selection names no server")]
    NoHosts,
    /// A number of the retention is out of range.
    #[error("{what} must be between 1 and {most}")]
    Retention {
        /// Which number.
        what: &'static str,
        /// The most it can be.
        most: u32,
    },
    /// A freeze of no length.
    #[error("the freeze limit is zero")]
    FreezeLimit,
    /// A hook breaks a rule.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// An edit belongs to another policy.
    #[error("the edit is of policy {other}, not of {id}")]
    OtherId {
        /// The policy.
        id: PolicyId,
        /// What the edit says.
        other: PolicyId,
    },
}

impl ErrorFacts for PolicyError {
    fn code(&self) -> ErrorCode {
        ErrorCode::new(match self {
            Self::Hook(error) => return error.code(),
            Self::Name { .. } => "policy.name_invalid",
            Self::NoHosts => "policy.no_hosts",
            Self::Retention { .. } => "retention.out_of_range",
            Self::FreezeLimit => "quiesce.limit_zero",
            Self::OtherId { .. } => "policy.other_id",
        })
    }

    fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    fn subjects(&self) -> Vec<Subject> {
        match self {
            Self::OtherId { id, .. } => vec![Subject::new("policy", id)],
            Self::Hook(error) => error.subjects(),
            _ => Vec::new(),
        }
    }

    fn remedy(&self) -> std::borrow::Cow<'static, str> {
        match self {
            Self::Hook(error) => return error.remedy(),
            Self::Name { .. } => "Choose a name of 1 to 250 printable characters.",
            Self::NoHosts => "Name at least one server, or select copies another way.",
            Self::Retention { .. } => "Choose a number in that range, or leave the rule out.",
            Self::FreezeLimit => "Choose a longer limit, or leave it to the plug-in.",
            Self::OtherId { .. } => "Edit the policy that was read.",
        }
        .into()
    }
}
