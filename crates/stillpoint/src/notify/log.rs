//! Notifications in the log.

use async_trait::async_trait;
use stillpoint_context::{Cx, Failure};

use super::{Notification, Notifier, Outcome};

/// Tells the log, by `tracing` under the target `stillpoint::notify`: an error for what failed or needs attention, a warning, or
/// information.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogNotifier;

#[async_trait]
impl Notifier for LogNotifier {
    fn name(&self) -> &'static str {
        "log"
    }

    async fn notify(&self, _: &Cx, notification: &Notification) -> Result<(), Failure> {
        const TARGET: &str = "stillpoint::notify";
        let Notification { outcome, subject, report, .. } = notification;
        let job = report.job;
        match outcome {
            Outcome::Failed | Outcome::NeedsAttention => {
                tracing::error!(target: TARGET, %job, %outcome, "{subject}");
            }
            Outcome::Warnings => tracing::warn!(target: TARGET, %job, %outcome, "{subject}"),
            Outcome::Succeeded | Outcome::Cancelled => {
                tracing::info!(target: TARGET, %job, %outcome, "{subject}");
            }
        }
        Ok(())
    }
}
