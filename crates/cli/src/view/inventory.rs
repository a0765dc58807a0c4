//! What `discover` shows.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::failure::RangeView;
use super::topology::status;
use super::{ReasonView, Report};
use crate::model::id::{CopyId, DatabaseId};
use crate::model::inventory::{CopyRole, CopyStatus, DatabaseCopy, FileRole, Inventory};
use crate::text::{self, Table};

/// What exists.
#[derive(Debug, Serialize)]
pub(crate) struct DiscoverView {
    source: String,
    observed_at: DateTime<Utc>,
    databases: Vec<DatabaseView>,
}

#[derive(Debug, Serialize)]
struct DatabaseView {
    database: DatabaseId,
    name: String,
    bytes: Option<u64>,
    circular_logging: bool,
    copies: Vec<CopyView>,
}

#[derive(Debug, Serialize)]
struct CopyView {
    copy: CopyId,
    host: String,
    role: CopyRole,
    status: CopyStatus,
    available: bool,
    reasons: Vec<ReasonView>,
    log_required: Option<RangeView>,
    files: Vec<FileView>,
}

#[derive(Debug, Serialize)]
struct FileView {
    path: String,
    role: FileRole,
    bytes: Option<u64>,
    generation: Option<u32>,
}

/// A database that cannot be backed up now, with every reason.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RefusedView {
    pub(crate) database: DatabaseId,
    pub(crate) name: String,
    pub(crate) reasons: Vec<ReasonView>,
}

/// The databases without a single copy that can be backed up, by name.
pub(crate) fn refused(inventory: &Inventory) -> Vec<RefusedView> {
    let mut all: Vec<RefusedView> = inventory
        .databases
        .values()
        .filter_map(|database| {
            let copies: Vec<&DatabaseCopy> = copies(inventory, database.id).collect();
            let none = copies.iter().all(|copy| !copy.availability.is_available());
            none.then(|| RefusedView {
                database: database.id,
                name: database.name.clone(),
                reasons: copies
                    .iter()
                    .flat_map(|copy| ReasonView::all(&copy.availability.reasons))
                    .collect(),
            })
        })
        .collect();
    all.sort_by(|a, b| (&a.name, a.database).cmp(&(&b.name, b.database)));
    all
}

fn copies(inventory: &Inventory, database: DatabaseId) -> impl Iterator<Item = &DatabaseCopy> {
    inventory.copies.values().filter(move |copy| copy.id.database == database)
}

impl DiscoverView {
    pub(crate) fn of(source: &std::path::Path, inventory: &Inventory) -> Self {
        let copy_view = |copy: &DatabaseCopy| CopyView {
            copy: copy.id.clone(),
            host: copy.id.host.to_string(),
            role: copy.role,
            status: copy.status,
            available: copy.availability.is_available(),
            reasons: ReasonView::all(&copy.availability.reasons),
            log_required: copy
                .log_state
                .as_ref()
                .and_then(|state| state.required.as_ref().map(RangeView::of)),
            files: copy
                .files
                .iter()
                .map(|file| FileView {
                    path: file.path.as_str().to_owned(),
                    role: file.role,
                    bytes: file.bytes,
                    generation: file.generation.map(|generation| generation.0),
                })
                .collect(),
        };
        let mut databases: Vec<DatabaseView> = inventory
            .databases
            .values()
            .map(|database| DatabaseView {
                database: database.id,
                name: database.name.clone(),
                bytes: database.bytes,
                circular_logging: database.circular_logging,
                copies: copies(inventory, database.id).map(copy_view).collect(),
            })
            .collect();
        databases.sort_by(|a, b| (&a.name, a.database).cmp(&(&b.name, b.database)));
        Self { source: source.display().to_string(), observed_at: inventory.observed_at, databases }
    }
}

impl Report for DiscoverView {
    const SCHEMA: &'static str = "stillpoint.discover/1";

    fn text(&self, text: &mut String) {
        let found = text::count(self.databases.len(), "database");
        let _ = writeln!(text, "{found} under {}", self.source);
        let mut table = Table::default();
        for database in &self.databases {
            for copy in &database.copies {
                let logs = copy.files.iter().filter(|file| file.role == FileRole::Log).count();
                table.row([
                    database.name.clone(),
                    database.bytes.map(text::bytes).unwrap_or_default(),
                    text::count(logs, "log"),
                    format!("{} copy, {}", copy.role, status(copy.status)),
                    if copy.available { "can be backed up" } else { "refused" }.to_owned(),
                ]);
            }
        }
        table.write(text, "  ");
        for database in &self.databases {
            for reason in database.copies.iter().flat_map(|copy| &copy.reasons) {
                let _ = writeln!(text, "{}: {} [{}]", database.name, reason.message, reason.code);
                let _ = writeln!(text, "  remedy: {}", reason.remedy);
            }
        }
    }
}
