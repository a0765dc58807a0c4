//! What `notify` shows.

use std::fmt::Write as _;

use serde::Serialize;

use super::{FailureView, Report, write_failure};
use crate::context::Failure;

/// Somebody who was told.
#[derive(Debug, Serialize)]
struct NotifierView {
    name: String,
    sent: bool,
    failure: Option<FailureView>,
}

/// What became of a test notification.
#[derive(Debug, Serialize)]
pub(crate) struct NotifyView {
    notifiers: Vec<NotifierView>,
}

impl NotifyView {
    pub(crate) fn of(sent: &[(String, Option<Failure>)]) -> Self {
        let view = |(name, failure): &(String, Option<Failure>)| NotifierView {
            name: name.clone(),
            sent: failure.is_none(),
            failure: failure.as_ref().map(FailureView::of),
        };
        Self { notifiers: sent.iter().map(view).collect() }
    }
}

impl Report for NotifyView {
    const SCHEMA: &'static str = "stillpoint.notify/1";

    fn text(&self, text: &mut String) {
        for notifier in &self.notifiers {
            let word = if notifier.sent { "sent" } else { "not sent" };
            let _ = writeln!(text, "{}: {word}", notifier.name);
            if let Some(failure) = &notifier.failure {
                write_failure(text, "  ", failure);
            }
        }
    }
}
