//! `ese`: files of the Extensible Storage Engine by themselves, without a state file.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use stillpoint::workflow::TokioSeams;
use stillpoint_ese::{
    Background, EseError, FileKind, Health, LogName, Progress, ScanOptions, SetCheck, Stop,
    check_logs, check_set, read_checkpoint, read_database_header, read_flush_map, read_log_header,
};

use super::tell;
use crate::args::EseCommand;
use crate::context::ErrorClass;
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::out::{Out, Talk};
use crate::view::{EseCheckView, EseHeaderView};

/// Carries out what is asked of single files and folders.
pub(super) async fn run(command: EseCommand, talk: &Talk) -> Outcome<Exit> {
    let out = talk.out;
    match command {
        EseCommand::Check { paths } => {
            let check = move |stop: &Stop, bar: &ProgressBar| {
                check_set(&paths, &ScanOptions::default(), &mut watch(stop, bar))
            };
            show(out, &in_background(out, check).await?)
        }
        EseCommand::Logs { dir, base } => {
            if LogName::parse(&format!("{base}.log")).is_none() {
                return Err(CliError::usage(format!(
                    "{base} is no base name: it has three letters or digits, such as E00"
                )));
            }
            let check = move |stop: &Stop, bar: &ProgressBar| {
                check_logs(&dir, &base, &ScanOptions::default(), &mut watch(stop, bar))
            };
            show(out, &in_background(out, check).await?)
        }
        EseCommand::Header { file } => tell(out, &header(&file)?, Exit::Done, None),
    }
}

fn show(out: Out, check: &SetCheck) -> Outcome<Exit> {
    let exit = match check.health() {
        Health::Good => Exit::Done,
        Health::Notable => Exit::Warnings,
        Health::Bad => Exit::Attention,
        _ => Exit::Failed,
    };
    tell(out, &EseCheckView::of(check), exit, None)
}

/// Reads on a thread that may block, so that an interrupt is heard meanwhile.
async fn in_background(
    out: Out,
    check: impl FnOnce(&Stop, &ProgressBar) -> Result<SetCheck, EseError> + Send + 'static,
) -> Outcome<SetCheck> {
    let seams = TokioSeams::current().ok_or_else(|| {
        CliError::of_class("cli.internal", ErrorClass::Internal, "there is no runtime", "")
    })?;
    let bar = if out.draws() {
        let style = ProgressStyle::with_template(
            "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {wide_msg}",
        );
        let bar = ProgressBar::new(0);
        style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
    } else {
        ProgressBar::hidden()
    };
    let drawn = bar.clone();
    let checked = Background::run(
        |task| seams.spawner.blocking("ese check", task),
        move |stop| check(stop, &drawn),
    )
    .await;
    bar.finish_and_clear();
    checked.map_err(|error| {
        let message = chain(&error);
        CliError::of_class(
            error.code(),
            ErrorClass::Unavailable,
            message,
            "Name folders that can be listed.",
        )
    })
}

fn watch(stop: &Stop, bar: &ProgressBar) -> impl FnMut(&Path, Progress) -> ControlFlow<()> {
    let (stop, bar) = (stop.clone(), bar.clone());
    let mut shown = PathBuf::new();
    move |file, progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        if shown != file {
            file.clone_into(&mut shown);
            bar.set_message(crate::text::printable(&file.display().to_string()));
        }
        if stop.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn chain(error: &EseError) -> String {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    message
}

fn header(path: &Path) -> Outcome<EseHeaderView> {
    let refuse = |error: &EseError| {
        let message = format!("{}: {}", path.display(), chain(error));
        let remedy = "Name a database, a log, a checkpoint or a flush map.";
        CliError::of_class(error.code(), ErrorClass::Unavailable, message, remedy)
            .about("path", path.display())
    };
    let file = File::open(path).map_err(|source| refuse(&EseError::Open { source }))?;
    let kind = FileKind::sniff(&file).map_err(|error| refuse(&error))?.kind;
    let view = match kind {
        FileKind::Database | FileKind::TemporaryDatabase => {
            let headers = read_database_header(&file).map_err(|error| refuse(&error))?;
            EseHeaderView::of_database(path, kind, &headers)
        }
        FileKind::Log => {
            let header = read_log_header(&file).map_err(|error| refuse(&error))?;
            EseHeaderView::of(path, kind, &header)
        }
        FileKind::Checkpoint => {
            let header = read_checkpoint(&file).map_err(|error| refuse(&error))?;
            EseHeaderView::of(path, kind, &header)
        }
        FileKind::FlushMap => {
            let header = read_flush_map(&file).map_err(|error| refuse(&error))?;
            EseHeaderView::of(path, kind, &header)
        }
        kind => {
            let message = format!(
                "{}: it is no database, log, checkpoint or flush map ({kind})",
                path.display()
            );
            let remedy = "Name a database, a log, a checkpoint or a flush map.";
            return Err(
                CliError::invalid("ese.other_file", message, remedy).about("path", path.display())
            );
        }
    };
    Ok(view)
}
