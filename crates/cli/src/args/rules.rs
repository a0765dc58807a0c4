//! Policies, groups and schedules as one document.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The file to write. [default: standard output]
    pub(crate) file: Option<PathBuf>,
}

/// Arguments of `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file to read; - for standard input.
    pub(crate) file: PathBuf,
    /// Show what would become of it and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}
