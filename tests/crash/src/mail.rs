//! The databases: real ESE files in a folder, written again and again, so that a copy taken while they are written shows it.
//!
//! ```text
//!   mail/DB01/  DB01.edb      the first and the last page in use bear the beat
//!               DB01.pulse    and so does this file beside it
//!               E00*.log  E00.chk
//! ```
//!
//! A **beat** is a number. A round writes the next one to every place in turn, each page sealed as the engine seals it. Between
//! two rounds all places bear the same beat; a copy in which they differ was taken in the middle of a round, or over several.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use stillpoint_ese::write::{ExchangeSet, seal_page};
use stillpoint_ese::{PageSize, PageState, check_page, read_database_header};

/// Where in a page its beat stands: behind the page's own header, in what is data to the engine.
const IN_PAGE: usize = 2048;

/// The extension of the file that beats beside a database.
pub const PULSE: &str = "pulse";

/// The databases of a folder, open for writing.
#[derive(Debug)]
pub struct Mail {
    databases: Vec<Database>,
    beat: u64,
}

#[derive(Debug)]
struct Database {
    file: File,
    page_size: PageSize,
    pages: [u32; 2],
    pulse: File,
}

impl Mail {
    /// Makes `count` databases below a folder, with log streams and checkpoints, as a running server has them: dirty, and in
    /// need of their last logs.
    ///
    /// # Errors
    /// What the file system says.
    pub fn make(root: &Path, count: u8) -> io::Result<()> {
        for number in 1..=count {
            let folder = root.join(format!("DB{number:02}"));
            fs::create_dir_all(&folder)?;
            // Small, so that a copy takes no time to speak of.
            ExchangeSet::new(u64::from(number))
                .with_name(format!("DB{number:02}"))
                .with_base(format!("E{:02}", number - 1))
                .with_page_size(PageSize::KIB_8)
                .with_pages(64)
                .with_log_segments(16)
                .write_to(&folder)?;
            fs::write(folder.join(format!("DB{number:02}.{PULSE}")), [0; 8])?;
        }
        // What the places hold is noise as yet; from here on they agree.
        let mut mail = Self::open(root)?;
        mail.beat = 0;
        mail.round()
    }

    /// Opens the databases of a folder, and goes on at the beat at which they stand.
    ///
    /// # Errors
    /// What the file system says; `InvalidData` for what is no database.
    pub fn open(root: &Path) -> io::Result<Self> {
        let mut databases = Vec::new();
        let mut beat = 0;
        for path in databases_below(root)? {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let pulse =
                OpenOptions::new().read(true).write(true).open(path.with_extension(PULSE))?;
            let (page_size, pages) = pages(&file)?;
            let database = Database { file, page_size, pages, pulse };
            beat = beat.max(database.beats()?.last().copied().unwrap_or(0));
            databases.push(database);
        }
        Ok(Self { databases, beat })
    }

    /// The beat of the last round.
    pub fn beat(&self) -> u64 {
        self.beat
    }

    /// Writes the next beat to every place.
    ///
    /// # Errors
    /// What the file system says. The places then differ until the next round that succeeds.
    pub fn round(&mut self) -> io::Result<()> {
        self.beat += 1;
        for database in &self.databases {
            for number in database.pages {
                database.stamp(number, self.beat)?;
            }
            database.pulse.write_all_at(&self.beat.to_le_bytes(), 0)?;
        }
        Ok(())
    }
}

impl Database {
    fn place(&self, number: u32) -> u64 {
        // The two headers come first, and pages count from 1.
        (u64::from(number) + 1) * u64::from(self.page_size.bytes())
    }

    fn page(&self, number: u32) -> io::Result<Vec<u8>> {
        let mut page = vec![0; self.page_size.len()];
        self.file.read_exact_at(&mut page, self.place(number))?;
        Ok(page)
    }

    fn stamp(&self, number: u32, beat: u64) -> io::Result<()> {
        let mut page = self.page(number)?;
        page[IN_PAGE..IN_PAGE + 8].copy_from_slice(&beat.to_le_bytes());
        seal_page(&mut page, number);
        self.file.write_all_at(&page, self.place(number))
    }

    /// The beats at its places.
    fn beats(&self) -> io::Result<BTreeSet<u64>> {
        let mut beats = BTreeSet::new();
        for number in self.pages {
            let mut bytes = [0; 8];
            self.file.read_exact_at(&mut bytes, self.place(number) + IN_PAGE as u64)?;
            beats.insert(u64::from_le_bytes(bytes));
        }
        let mut bytes = [0; 8];
        self.pulse.read_exact_at(&mut bytes, 0)?;
        beats.insert(u64::from_le_bytes(bytes));
        Ok(beats)
    }
}

/// The first page and the last one in use.
fn pages(file: &File) -> io::Result<(PageSize, [u32; 2])> {
    let header = read_database_header(file).map_err(io::Error::other)?.header;
    let size = header.page_size;
    let count = (file.metadata()?.len() / u64::from(size.bytes())).saturating_sub(2);
    let mut last = u32::try_from(count).map_err(io::Error::other)?;
    let mut page = vec![0; size.len()];
    while last > 1 {
        file.read_exact_at(&mut page, (u64::from(last) + 1) * u64::from(size.bytes()))?;
        if check_page(&page, last) != PageState::Uninitialised {
            break;
        }
        last -= 1;
    }
    Ok((size, [1, last]))
}

/// The beats at all places of all databases below a folder: exactly one, if nobody wrote while the folder was copied.
///
/// # Errors
/// What the file system says; `InvalidData` for what is no database.
pub fn beats_below(root: &Path) -> io::Result<BTreeSet<u64>> {
    let mut beats = BTreeSet::new();
    for path in databases_below(root)? {
        let file = File::open(&path)?;
        let pulse = File::open(path.with_extension(PULSE))?;
        let (page_size, pages) = pages(&file)?;
        beats.extend(Database { file, page_size, pages, pulse }.beats()?);
    }
    Ok(beats)
}

/// The database files below a folder, in the order of their names.
fn databases_below(root: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut open, mut found) = (vec![root.to_owned()], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "edb") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use stillpoint_ese::{ScanOptions, scan_database};

    use super::*;

    fn copy(from: &Path, to: &Path) {
        for database in ["DB01", "DB02"] {
            fs::create_dir_all(to.join(database)).unwrap();
            for entry in fs::read_dir(from.join(database)).unwrap() {
                let path = entry.unwrap().path();
                fs::copy(&path, to.join(database).join(path.file_name().unwrap())).unwrap();
            }
        }
    }

    #[test]
    fn every_place_bears_the_beat_and_the_pages_stay_sound() {
        let folder = tempfile::tempdir().unwrap();
        Mail::make(folder.path(), 2).unwrap();
        let mut mail = Mail::open(folder.path()).unwrap();
        assert_eq!(mail.beat(), 1);
        mail.round().unwrap();
        mail.round().unwrap();
        assert_eq!(beats_below(folder.path()).unwrap(), BTreeSet::from([3]));
        for path in databases_below(folder.path()).unwrap() {
            let file = File::open(path).unwrap();
            let report = scan_database(&file, &ScanOptions::default(), &mut ()).unwrap();
            assert_eq!((report.pages, report.bad), (64, 0));
        }
        drop(mail);
        assert_eq!(Mail::open(folder.path()).unwrap().beat(), 3);
    }

    #[test]
    fn a_copy_over_a_round_is_torn_and_shows_it() {
        let folder = tempfile::tempdir().unwrap();
        let (live, taken) = (folder.path().join("live"), folder.path().join("taken"));
        Mail::make(&live, 2).unwrap();
        copy(&live, &taken);
        assert_eq!(beats_below(&taken).unwrap().len(), 1);
        Mail::open(&live).unwrap().round().unwrap();
        // As if the round had come between the two databases, and between a database and its pulse.
        fs::copy(live.join("DB02/DB02.edb"), taken.join("DB02/DB02.edb")).unwrap();
        assert_eq!(beats_below(&taken).unwrap(), BTreeSet::from([1, 2]));
    }
}
