//! A whole set in a folder: a database, its logs, its checkpoint.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{CheckpointSpec, DatabaseSpec, LogStreamSpec};
use crate::{Generation, GenerationRange, Lgpos, PageSize};

/// An Exchange-shaped set to write: `DB01.edb`, `E0000000003.log` to `E0000000007.log`, `E00.log`
/// and `E00.chk`, the database dirty as in a VSS snapshot: it needs generations 6 and 7, and 8 is
/// committed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ExchangeSet {
    seed: u64,
    name: String,
    base: String,
    page_size: PageSize,
    pages: u32,
    is_clean: bool,
    has_current: bool,
    old_format: bool,
    log_segments: u16,
    first: Generation,
    required: GenerationRange,
    committed: Generation,
}

/// The files of a written set.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrittenSet {
    /// The database.
    pub database: PathBuf,
    /// Its logs, lowest generation first.
    pub logs: Vec<PathBuf>,
    /// The checkpoint.
    pub checkpoint: PathBuf,
}

impl ExchangeSet {
    /// The set of a seed.
    pub fn new(seed: u64) -> Self {
        let generation = Generation::new;
        Self {
            seed,
            name: "DB01".to_owned(),
            base: "E00".to_owned(),
            page_size: PageSize::KIB_32,
            pages: 62,
            is_clean: false,
            has_current: true,
            old_format: false,
            log_segments: 256,
            first: generation(3),
            required: GenerationRange::one(generation(6)).through(generation(7)),
            committed: generation(8),
        }
    }

    /// Name of the database file, without `.edb`.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Base name of the log stream, three characters.
    pub fn with_base(mut self, base: impl Into<String>) -> Self {
        self.base = base.into();
        self
    }

    /// Page size.
    pub fn with_page_size(mut self, page_size: PageSize) -> Self {
        self.page_size = page_size;
        self
    }

    /// Number of pages, headers not counted; a quarter of them is left unwritten.
    pub fn with_pages(mut self, pages: u32) -> Self {
        self.pages = pages;
        self
    }

    /// Whether the database was shut down cleanly.
    pub fn with_clean(mut self, is_clean: bool) -> Self {
        self.is_clean = is_clean;
        self
    }

    /// Whether the last generation is the current log `E00.log`; otherwise it is closed.
    pub fn with_current(mut self, has_current: bool) -> Self {
        self.has_current = has_current;
        self
    }

    /// Whether logs have version 7 and small pages the checksums of Exchange 2003.
    pub fn with_old_format(mut self, old_format: bool) -> Self {
        self.old_format = old_format;
        self
    }

    /// Segments of a log, at least 4; 256 (1 MiB) in Exchange.
    pub fn with_log_segments(mut self, segments: u16) -> Self {
        self.log_segments = segments;
        self
    }

    /// Lowest generation present, generations required, last generation committed and present.
    pub fn with_generations(
        mut self,
        first: Generation,
        required: GenerationRange,
        committed: Generation,
    ) -> Self {
        self.first = first;
        self.required = required;
        self.committed = committed.max(required.last());
        self
    }

    /// Writes the set into an existing folder, over files of the same names.
    ///
    /// # Errors
    /// What the file system says. Files written so far stay.
    pub fn write_to(&self, folder: &Path) -> io::Result<WrittenSet> {
        let mut database = DatabaseSpec::new(self.seed)
            .with_page_size(self.page_size)
            .with_pages(self.pages)
            .with_old_format(self.old_format);
        let stream = LogStreamSpec::new(self.seed, self.first, self.committed)
            .with_base(&self.base)
            .with_current(self.has_current)
            .with_old_format(self.old_format)
            .with_segments(self.log_segments)
            .with_page_size(self.page_size)
            .with_database(
                database.signature(),
                format!("D:\\{name}\\{name}.edb", name = self.name),
            );
        if !self.is_clean {
            database = database.with_dirty(self.required, self.committed).with_log_times(
                stream.created(self.required.last()),
                stream.created(self.committed),
            );
        }
        let path = folder.join(format!("{}.edb", self.name));
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        database.write_to(&mut out)?;
        out.flush()?;

        let mut logs = Vec::new();
        for log in stream.logs() {
            let path = folder.join(&log.name);
            fs::write(&path, &log.bytes)?;
            logs.push(path);
        }
        let at = Lgpos::new(self.required.first(), 1, 0);
        let checkpoint = folder.join(format!("{}.chk", self.base));
        fs::write(&checkpoint, CheckpointSpec::new(stream.signature(), at).bytes())?;
        Ok(WrittenSet { database: path, logs, checkpoint })
    }
}
