//! The logs of a database that are closed, for log backups.

use std::io::{self, ErrorKind};

use chrono::{DateTime, Utc};
use stillpoint_context::Cx;
use stillpoint_exchange::{ClosedLogs, CopyId, PluginError, PluginErrorKind, PluginResult};
use stillpoint_model::inventory::{FileRole, LogState};

use crate::plugin::{Place, copy_file};
use crate::survey::{Found, FoundFile, select, survey};
use crate::walk::{interrupted, open};

/// The closed logs of a copy, written through to the storage. Blocks.
///
/// # Errors
/// `NotFound` and `NotAvailable` as a session's begin; `Io` for a log that cannot be read or written through.
pub(crate) fn closed_logs(cx: &Cx, place: &Place, copy: &CopyId) -> PluginResult<ClosedLogs> {
    let mut found = select(survey(cx, place)?, place, std::slice::from_ref(copy))?;
    let known = found.pop().and_then(|found| Some((found.log_state.clone()?, found)));
    let Some((state, found)) = known else {
        let message = format!("{copy} has no log stream");
        return Err(PluginError::new(PluginErrorKind::NotAvailable, message).without_effect());
    };
    of_stream(cx, state, &found)
}

fn of_stream(cx: &Cx, mut state: LogState, found: &Found) -> PluginResult<ClosedLogs> {
    let is_closed = |file: &&FoundFile| {
        file.role == FileRole::Log && !file.is_open_log && file.generation.is_some()
    };
    let mut files = Vec::new();
    for file in found.files.iter().filter(is_closed) {
        cx.check().map_err(interrupted)?;
        let written = write_through(file).map_err(|error| {
            PluginError::new(
                PluginErrorKind::Io,
                format!("{} cannot be written through: {error}", file.native.display()),
            )
            .with_source(error)
            .without_effect()
        })?;
        // Files come lowest generation first, so that the last one tells.
        state.closed_at = Some(written);
        files.push(copy_file(file));
    }
    Ok(ClosedLogs::new(state, files))
}

/// Makes sure that a file is on the storage; when it was written last.
fn write_through(file: &FoundFile) -> io::Result<DateTime<Utc>> {
    let opened = open(&file.native)?;
    match opened.sync_all() {
        // Where nothing can be written there is nothing to write through.
        Err(error)
            if matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::InvalidInput) => {}
        synced => synced?,
    }
    Ok(opened.metadata()?.modified()?.into())
}
