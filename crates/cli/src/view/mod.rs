//! What the command shows: one type for each result, with a JSON form and a text form.
//!
//! The JSON forms are documented in `docs/json.md` beside this crate and held still by golden files. They are types of
//! their own, so that the library's types may grow without changing what scripts read.
//!
//! ```text
//!   model types ──of()──▶ view ──serde──▶ {"schema": "stillpoint.<command>/<version>", "exit": n, …}
//!                              └─text()─▶ lines for people
//! ```

mod check;
mod debris;
mod doctor;
mod document;
mod ese;
mod failure;
mod history;
mod hold;
mod hook;
mod inventory;
mod job;
mod lint;
mod locks;
mod notify;
mod parked;
mod plan;
mod protect;
mod prune;
mod reconcile;
mod restore;
mod rules;
mod run;
mod schedule;
mod topology;
mod windows;

#[cfg(test)]
mod tests;

pub(crate) use check::{CheckView, FitView, MeasuredView, Side};
pub(crate) use debris::DebrisView;
pub(crate) use doctor::{DoctorView, Level};
pub(crate) use document::{Became, ExportView, ImportView};
pub(crate) use ese::{EseCheckView, EseHeaderView};
pub(crate) use failure::{FailureView, ReasonView, WarningView, write_failure};
pub(crate) use history::ForgottenView;
pub(crate) use hold::HoldsView;
pub(crate) use inventory::{DiscoverView, refused};
pub(crate) use job::{JobView, JobsView, VerifyView};
pub(crate) use lint::LintView;
pub(crate) use locks::LocksView;
pub(crate) use notify::NotifyView;
pub(crate) use parked::ParkedView;
pub(crate) use plan::BackupView;
pub(crate) use protect::{ComparisonView, ProtectView};
pub(crate) use prune::PruneView;
pub(crate) use reconcile::{BackedUpView, RebuildView, ReconcileView};
pub(crate) use restore::RestoreView;
pub(crate) use rules::{GroupsView, PoliciesView};
pub(crate) use run::RunView;
pub(crate) use schedule::{LapsesView, PreviewView, SchedulesView};
pub(crate) use topology::{PointView, TopologyView};
pub(crate) use windows::WindowsView;

use serde::Serialize;

/// The result of a command.
pub(crate) trait Report: Serialize {
    /// The name and version of its JSON form.
    const SCHEMA: &'static str;

    /// Writes it for people.
    fn text(&self, text: &mut String);
}
