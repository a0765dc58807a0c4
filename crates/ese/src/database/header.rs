//! The two copies of a database header, and the choice between them.

use serde::Serialize;

use super::DatabaseHeader;
use crate::{
    EseError, FileKind, JetError, PageSize, ReadAt,
    bytes::u32_at,
    checksum::{SEED, is_header_good},
    read::head,
};

/// The magic number at offset 4.
pub(crate) const MAGIC: u32 = SEED;
/// The format version at offset 8, unchanged since 1997.
pub(crate) const VERSION: u32 = 0x620;

/// Whether the bytes begin as a database header does.
pub(crate) fn has_magic(bytes: &[u8]) -> bool {
    u32_at(bytes, 4) == MAGIC
}

/// One of the two copies of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderCopy {
    /// At the start of the file.
    Primary,
    /// On the page after it.
    Shadow,
}

/// How a copy of a header was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyState {
    /// Its checksum is right.
    Good,
    /// Its checksum is wrong.
    Bad,
    /// The file ends before it.
    Absent,
}

/// A database header with how it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DatabaseHeaders {
    /// The header in use.
    pub header: DatabaseHeader,
    /// Which copy that is.
    pub used: HeaderCopy,
    /// The first copy.
    pub primary: CopyState,
    /// The second copy.
    pub shadow: CopyState,
    /// Byte offset within the page where the copies begin to differ, if they do.
    pub differs_at: Option<u64>,
}

/// Reads the header of a database, whatever its page size: the primary copy if it is good, else
/// the shadow. Reads at most the first 64 KiB.
///
/// # Errors
/// [`EseError::HeaderUnusable`] when neither copy is good (`JET_errReadVerifyFailure`), or of
/// another format version; [`EseError::Read`] when reading fails.
pub fn read_database_header<R: ReadAt + ?Sized>(file: &R) -> Result<DatabaseHeaders, EseError> {
    let largest = PageSize::KIB_32.len();
    let start = head(file, 2 * largest)?;
    choose(&start)
}

/// [`read_database_header`] on the first 64 KiB of a file.
pub(crate) fn choose(start: &[u8]) -> Result<DatabaseHeaders, EseError> {
    let unusable = |jet| EseError::HeaderUnusable { kind: FileKind::Database, jet };
    let mut found = None;
    for size in PageSize::ALL {
        let len = size.len();
        let copy = |at: usize| start.get(at..at + len);
        let is_good = |page: &[u8]| {
            has_magic(page)
                && is_header_good(page)
                && PageSize::from_field(u32_at(page, 236)) == Some(size)
        };
        let state = |page: Option<&[u8]>| match page {
            None => CopyState::Absent,
            Some(page) if is_good(page) => CopyState::Good,
            Some(_) => CopyState::Bad,
        };
        let (primary, shadow) = (copy(0), copy(len));
        let used = match (state(primary), state(shadow)) {
            (CopyState::Good, _) => HeaderCopy::Primary,
            (_, CopyState::Good) => HeaderCopy::Shadow,
            _ => continue,
        };
        let page = match used {
            HeaderCopy::Primary => primary,
            HeaderCopy::Shadow => shadow,
        };
        let Some(header) = page.and_then(DatabaseHeader::parse) else { continue };
        let differs_at = match (primary, shadow) {
            (Some(one), Some(other)) => {
                one.iter().zip(other).position(|(one, other)| one != other).map(|at| at as u64)
            }
            _ => None,
        };
        let headers = DatabaseHeaders {
            header,
            used,
            primary: state(primary),
            shadow: state(shadow),
            differs_at,
        };
        // A good primary settles the page size; a page that merely looks like a shadow does not.
        if used == HeaderCopy::Primary {
            found = Some(headers);
            break;
        }
        found.get_or_insert(headers);
    }
    let found = found.ok_or_else(|| unusable(JetError::READ_VERIFY_FAILURE))?;
    if found.header.version != VERSION {
        return Err(unusable(JetError::INVALID_DATABASE_VERSION));
    }
    if found.header.attribute != 0 || !matches!(found.header.file_type, 0 | 1 | 5) {
        return Err(unusable(JetError::FILE_INVALID_TYPE));
    }
    Ok(found)
}
