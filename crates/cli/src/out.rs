//! The one place that writes to standard output and standard error.
//!
//! Standard output carries results and nothing else: text for people, or one JSON document. Notes, progress and errors
//! for people go to standard error. A reader that went away (`stillpoint topology | head -1`) is no error: what is left
//! is dropped, and the exit code still tells how the work went.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicU8, Ordering};

use serde::Serialize;

use crate::context::Failure;
use crate::exit::Exit;
use crate::interrupt::{self, Interrupts};
use crate::text::printable;
use crate::view::{FailureView, Report};

/// How far the command has come with telling its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There is none yet.
    Working,
    /// It is being written.
    Telling,
    /// It is written.
    Told,
}

static STAGE: AtomicU8 = AtomicU8::new(0);

/// How far this process has come with telling its result.
pub(crate) fn stage() -> Stage {
    match STAGE.load(Ordering::SeqCst) {
        0 => Stage::Working,
        1 => Stage::Telling,
        _ => Stage::Told,
    }
}

/// Writes the result, unless an interrupt came that nobody has answered: nobody could, while this is stuck in writing.
fn last(write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    STAGE.store(1, Ordering::SeqCst);
    if interrupt::is_owed() {
        std::process::exit(i32::from(Exit::Failed.code()));
    }
    let written = write();
    // What could not be written is followed by an error.
    STAGE.store(if written.is_ok() { 2 } else { 0 }, Ordering::SeqCst);
    written
}

/// How a command speaks and what it listens to.
#[derive(Clone, Debug)]
pub(crate) struct Talk {
    pub(crate) out: Out,
    pub(crate) interrupts: Interrupts,
}

/// How to speak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    json: bool,
    quiet: bool,
}

/// What every JSON document begins with.
#[derive(Serialize)]
struct Envelope<'a, T> {
    schema: &'a str,
    exit: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<FailureView>,
    #[serde(flatten)]
    body: &'a T,
}

/// The body of a document that is all error.
#[derive(Serialize)]
struct Nothing {}

impl Out {
    /// As the operator asked.
    pub(crate) const fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Whether progress can be drawn.
    pub(crate) fn draws(self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// The result of the command, with what went wrong if something did.
    pub(crate) fn report<R: Report>(
        self,
        report: &R,
        exit: Exit,
        failure: Option<&Failure>,
    ) -> io::Result<()> {
        last(|| {
            if self.json {
                return document(R::SCHEMA, exit, failure, report);
            }
            let mut text = String::new();
            report.text(&mut text);
            to(&mut io::stdout().lock(), printable(&text).as_bytes())?;
            failure.map_or(Ok(()), tell)
        })
    }

    /// Something that went wrong before there was a result.
    pub(crate) fn error(self, failure: &Failure, exit: Exit) -> io::Result<()> {
        last(|| {
            if self.json {
                document("stillpoint.error/1", exit, Some(failure), &Nothing {})
            } else {
                tell(failure)
            }
        })
    }

    /// A line for whoever watches; lost without harm.
    pub(crate) fn note(self, line: &str) {
        if !self.quiet {
            Self::alarm(line);
        }
    }

    /// A line that is worth telling whatever was asked for.
    pub(crate) fn alarm(line: &str) {
        let _ = to(&mut io::stderr().lock(), format!("{}\n", printable(line)).as_bytes());
    }
}

fn document<T: Serialize>(
    schema: &str,
    exit: Exit,
    failure: Option<&Failure>,
    body: &T,
) -> io::Result<()> {
    let error = failure.map(FailureView::of);
    let envelope = Envelope { schema, exit: exit.code(), error, body };
    let mut text = serde_json::to_string_pretty(&envelope).map_err(io::Error::other)?;
    text.push('\n');
    to(&mut io::stdout().lock(), text.as_bytes())
}

/// An error for people: a line with its code, what is below it, and what to do.
fn tell(failure: &Failure) -> io::Result<()> {
    let mut text = format!("error: {} [{}]\n", failure.message, failure.code);
    for cause in &failure.causes {
        let _ = writeln!(text, "  because: {cause}");
    }
    if !failure.remedy.is_empty() {
        let _ = writeln!(text, "  remedy: {}", failure.remedy);
    }
    to(&mut io::stderr().lock(), printable(&text).as_bytes())
}

/// Writes all of it, unless nobody reads any more.
fn to(writer: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    match writer.write_all(bytes).and_then(|()| writer.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_left_is_no_error_but_a_full_disk_is() {
        assert!(to(&mut Broken(io::ErrorKind::BrokenPipe), b"x").is_ok());
        assert!(to(&mut Broken(io::ErrorKind::StorageFull), b"x").is_err());
    }
}
