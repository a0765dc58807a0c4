//! Policies.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::Kind;
use super::value::{duration, log_retention, yes_or_no};
use crate::model::policy::LogRetention;

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Show all.
    List,
    /// Show one.
    Show {
        /// Its name, or the beginning of its id.
        name: String,
    },
    /// Make one.
    Create {
        /// Its name.
        name: String,
        /// Of the policy that it takes the place of: one that is gone, and that restore points were made under, as after a rebuild.
        /// `prune --dry-run` names it.
        #[arg(long, value_name = "ID")]
        id: Option<uuid::Uuid>,
        /// What differs from the defaults.
        #[command(flatten)]
        edit: PolicyEdit,
    },
    /// Make the next version of one.
    Edit {
        /// Its name, or the beginning of its id.
        name: String,
        /// What changes.
        #[command(flatten)]
        edit: PolicyEdit,
        /// Its new name.
        #[arg(long, value_name = "NAME")]
        rename: Option<String>,
    },
    /// Remove one that no group has. Restore points made under it stay.
    Remove {
        /// Its name, or the beginning of its id.
        name: String,
    },
}

/// Settings of a policy.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PolicyEdit {
    /// What is taken.
    #[arg(long)]
    pub(crate) kind: Option<Kind>,
    /// Which copies are taken.
    #[arg(long)]
    pub(crate) copies: Option<Copies>,
    /// Take every copy on these servers.
    #[arg(long, value_name = "SERVER", num_args = 1.., conflicts_with = "copies")]
    pub(crate) on_hosts: Vec<String>,
    /// Take the first fit copy on these servers, in this order.
    #[arg(long, value_name = "SERVER", num_args = 1.., conflicts_with_all = ["copies", "on_hosts"])]
    pub(crate) prefer_hosts: Vec<String>,
    /// When restore points are verified.
    #[arg(long)]
    pub(crate) verify: Option<Verify>,
    /// Give a verification before completion up after this long, such as 4h.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) verify_cap: Option<Duration>,
    /// What restore points are kept.
    #[command(flatten)]
    pub(crate) keep: Keep,
    /// How long logs are kept: `as-fulls` (while a restore point is kept that they roll forward), `3fulls` (since the last three),
    /// `10d` (those of the last days) or `none`.
    #[arg(long, value_name = "HOW", value_parser = log_retention)]
    pub(crate) keep_logs: Option<LogRetention>,
    /// Whether a log backup with nothing to go on from becomes a full one (`yes`) or is refused (`no`).
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub(crate) promote: Option<bool>,
    /// The longest freeze, such as 8s.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) freeze_limit: Option<Duration>,
    /// How often a missed freeze is tried again; 0 fails the run at once.
    #[arg(long, value_name = "N")]
    pub(crate) freeze_retries: Option<u32>,
    /// What a job is called when some of its databases failed.
    #[arg(long)]
    pub(crate) on_partial: Option<Partial>,
    /// The label of its restore points.
    #[arg(long, value_name = "LABEL")]
    pub(crate) class: Option<String>,
}

/// What restore points are kept: each that a rule keeps.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Keep {
    /// Keep the newest N restore points.
    #[arg(long = "keep-count", value_name = "N")]
    pub(crate) count: Option<u32>,
    /// Keep the restore points of the last N days.
    #[arg(long = "keep-days", value_name = "N")]
    pub(crate) days: Option<u32>,
    /// Keep the newest good restore point of each of the last N hours that have one; 0 takes this rule away.
    #[arg(long = "keep-hourly", value_name = "N")]
    pub(crate) hourly: Option<u32>,
    /// The same of days.
    #[arg(long = "keep-daily", value_name = "N")]
    pub(crate) daily: Option<u32>,
    /// The same of weeks, which begin on Mondays.
    #[arg(long = "keep-weekly", value_name = "N")]
    pub(crate) weekly: Option<u32>,
    /// The same of months.
    #[arg(long = "keep-monthly", value_name = "N")]
    pub(crate) monthly: Option<u32>,
    /// The same of years.
    #[arg(long = "keep-yearly", value_name = "N")]
    pub(crate) yearly: Option<u32>,
    /// Keep the newest N good restore points, whatever the rules let go. [default: 1]
    #[arg(long = "keep-least", value_name = "N")]
    pub(crate) least: Option<u32>,
    /// Keep all restore points: takes away what else was said of keeping them.
    #[arg(long = "keep-all", conflicts_with_all = [
        "count", "days", "hourly", "daily", "weekly", "monthly", "yearly", "least",
    ])]
    pub(crate) all: bool,
}

/// Which copies of a database are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Copies {
    /// The active one.
    Active,
    /// A passive one, else the active one.
    PreferPassive,
}

/// When restore points are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verify {
    /// Before Exchange is told that the backup is good.
    Before,
    /// By a job of its own, later.
    After,
    /// Not by the backup.
    Never,
}

/// What a job is called when some of its databases failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Partial {
    /// Succeeded with warnings.
    Warn,
    /// Failed.
    Fail,
}
