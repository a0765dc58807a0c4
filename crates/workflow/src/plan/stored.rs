//! What the stored form of a plan leaves out.
//!
//! Most steps of most plans say nothing of most things, and a plan of a hundred thousand steps is written and read as a
//! whole. So a field that has the value below is not written, and one that is not there has that value. These values belong
//! to the format: when a default of the builder changes, they stay as they are.

use std::time::Duration;

use super::{Feed, Role};
use crate::payload::Payload;
use crate::retry::Retry;

/// How often an undo, or an exit, is tried.
const UNDO_RETRY: Retry =
    Retry { attempts: 4, base: Duration::from_millis(500), cap: Duration::from_secs(30) };

/// How long one attempt of an undo may take.
const UNDO_TIMEOUT: Option<Duration> = Some(Duration::from_mins(30));

/// How often a step is tried.
const RETRY: Retry = Retry { attempts: 1, base: Duration::ZERO, cap: Duration::ZERO };

pub(super) fn retry() -> Retry {
    RETRY
}

pub(super) fn is_retry(retry: &Retry) -> bool {
    *retry == RETRY
}

pub(super) fn undo_retry() -> Retry {
    UNDO_RETRY
}

pub(super) fn is_undo_retry(retry: &Retry) -> bool {
    *retry == UNDO_RETRY
}

#[allow(clippy::unnecessary_wraps, reason = "it is the value of a field that may be empty")]
pub(super) fn undo_timeout() -> Option<Duration> {
    UNDO_TIMEOUT
}

#[allow(clippy::ref_option, reason = "serde passes fields by reference")]
pub(super) fn is_undo_timeout(timeout: &Option<Duration>) -> bool {
    *timeout == UNDO_TIMEOUT
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
pub(super) fn is_false(said: &bool) -> bool {
    !said
}

pub(super) fn is_unit(params: &Payload) -> bool {
    *params == Payload::UNIT
}

pub(super) fn no_feed() -> Feed {
    Feed::Nothing
}

pub(super) fn is_no_feed(feed: &Feed) -> bool {
    *feed == Feed::Nothing
}

pub(super) fn plain() -> Role {
    Role::Plain
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
pub(super) fn is_plain(role: &Role) -> bool {
    *role == Role::Plain
}
