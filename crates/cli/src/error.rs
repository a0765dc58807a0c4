//! What went wrong, for the person at the command line: one line, a code, a remedy.

use std::path::Path;

use crate::context::{Effect, ErrorClass, ErrorFacts, Failure, Subject};
use crate::exit::Exit;

/// The command cannot go on.
#[derive(Debug)]
pub(crate) struct CliError {
    /// What is told.
    pub(crate) failure: Box<Failure>,
    /// What the process ends with.
    pub(crate) exit: Exit,
}

/// What most of this crate returns.
pub(crate) type Outcome<T> = Result<T, CliError>;

impl CliError {
    /// The caller's mistake, found before anything was touched.
    pub(crate) fn invalid(
        code: &'static str,
        message: impl Into<String>,
        remedy: &'static str,
    ) -> Self {
        Self::of_class(code, ErrorClass::Invalid, message, remedy)
    }

    /// The same of any class.
    pub(crate) fn of_class(
        code: &'static str,
        class: ErrorClass,
        message: impl Into<String>,
        remedy: &'static str,
    ) -> Self {
        let failure =
            Failure::new(code, class, message).with_effect(Effect::None).with_remedy(remedy);
        Self { failure: Box::new(failure), exit: Exit::Failed }
    }

    /// The file system said no.
    pub(crate) fn io(
        code: &'static str,
        what: &str,
        path: &Path,
        error: &std::io::Error,
        remedy: &'static str,
    ) -> Self {
        let message = format!("{what} {}: {error}", path.display());
        Self::of_class(code, ErrorClass::Unavailable, message, remedy).about("path", path.display())
    }

    /// The command line cannot be understood.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        let error =
            Self::invalid("cli.usage", message, "See `stillpoint --help` for what there is.");
        Self { exit: Exit::Usage, ..error }
    }

    /// The same with one more subject.
    pub(crate) fn about(mut self, kind: &'static str, id: impl std::fmt::Display) -> Self {
        self.failure.subjects.push(Subject::new(kind, id));
        self
    }
}

impl<E: ErrorFacts + std::error::Error> From<E> for CliError {
    fn from(error: E) -> Self {
        Self { failure: Box::new(Failure::of(&error)), exit: Exit::Failed }
    }
}
