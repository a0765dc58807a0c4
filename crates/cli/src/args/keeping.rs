//! What is kept: prune, holds, and whether the catalogue tells the truth of it.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};

use super::value::{duration, instant};

/// Arguments of `prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Only of these databases, by name or id.
    #[arg(long, short, value_name = "NAME", num_args = 1..)]
    pub(crate) database: Vec<String>,
    /// Only restore points that were made under this policy, by name or id.
    #[arg(long, short, value_name = "NAME")]
    pub(crate) policy: Option<String>,
    /// One restore point, whatever its policy says: the beginning of its id. Refused where it is held or locked, or the newest
    /// good one of its database.
    #[arg(long, value_name = "POINT", conflicts_with_all = ["database", "policy"])]
    pub(crate) point: Option<String>,
    /// Show what would be deleted, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What to do with the state file.
#[derive(Debug, Subcommand)]
pub(crate) enum CatalogueCommand {
    /// Write a copy of it as it is at one instant, also while it is in use.
    Backup {
        /// The copy. It must not be there.
        file: PathBuf,
    },
    /// Forget jobs that were over long ago, with the records of their runs. Restore points stay.
    ///
    /// The room that they had in the file is used again; the file does not become smaller. Jobs that left something behind stay.
    Forget(ForgetArgs),
}

/// Arguments of `catalogue forget`.
#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// How long ago they were over.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) older_than: Duration,
    /// So many of the newest jobs stay in any case, at most 1000.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) newest: u32,
    /// Show how many would go, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Arguments of `reconcile`.
#[derive(Debug, Args)]
pub(crate) struct ReconcileArgs {
    /// Do what is to be done: restore points whose snapshots are gone are told to be missing (and back, if they are), those that
    /// the catalogue lacks are adopted from their manifests, other snapshots of nobody are noted as debris.
    #[arg(long)]
    pub(crate) apply: bool,
    /// Delete snapshots of nobody, and what came back of deleted restore points, that were noted so long ago. Not where another state
    /// file shares the store: its restore points look like nobody's.
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "apply")]
    pub(crate) delete_orphans_after: Option<Duration>,
}

/// What to do with holds.
#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// Put a hold on restore points: none of them is deleted until it is removed, or over. One of the same name is replaced.
    Add(HoldArgs),
    /// Take a hold off.
    Remove {
        /// Its name.
        name: String,
    },
    /// Show all, also those that are over.
    List,
}

/// Arguments of `hold add`.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// What it is to be known by, such as the number of a case: letters, digits, `.`, `_` and `-`.
    pub(crate) name: String,
    /// Restore points: the beginning of an id, or latest:NAME.
    #[arg(value_name = "POINT", required_unless_present = "fits", conflicts_with = "fits")]
    pub(crate) points: Vec<String>,
    #[command(flatten)]
    pub(crate) fits: FitArgs,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Who puts it on. [default: the operator]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    /// When the hold is over, such as 2027-01-31 or 2027-01-31T12:00:00Z. [default: never by itself]
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(crate) until: Option<DateTime<Utc>>,
    /// Show what would be held, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What restore points are of: those that there are now and of which all of this holds.
#[derive(Debug, Args)]
#[group(id = "fits", multiple = true)]
pub(crate) struct FitArgs {
    /// Instead of POINT: all of these databases, by name or id.
    #[arg(long, short, value_name = "NAME", num_args = 1..)]
    pub(crate) database: Vec<String>,
    /// All that were made for this group, by name or id.
    #[arg(long, short, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// All that were made under this policy, by name or id.
    #[arg(long, short, value_name = "NAME")]
    pub(crate) policy: Option<String>,
    /// All that were taken then or later, such as 2027-01-25 or 2027-01-25T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(crate) taken_since: Option<DateTime<Utc>>,
    /// All that were taken then or earlier. A day means its beginning.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(crate) taken_until: Option<DateTime<Utc>>,
}
