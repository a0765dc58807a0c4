//! What a file system does that snaps whole subvolumes, for a store over such a one.
//!
//! This crate knows no such file system; `stillpoint-storage-btrfs` does, and hands one in with
//! [`FsProvider::open_over`](crate::FsProvider::open_over). Everything else about a store (documents, exposures, restores, who
//! works on a set and how it ends) is the same whether its files are copied, cloned, or lie in a snapshot.

use std::fmt::Debug;
use std::fs::File;
use std::io;

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A subvolume, as the file system knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subvolume {
    /// The file system.
    pub filesystem: Uuid,
    /// The subvolume; a snapshot of it has another.
    pub uuid: Uuid,
    /// That of which it is a snapshot.
    pub parent: Option<Uuid>,
    /// Its number in the file system.
    pub id: u64,
    /// It cannot be written.
    pub read_only: bool,
    /// When it was made, by the clock of the file system, which is coarse.
    pub created_at: DateTime<Utc>,
}

/// A subvolume and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The subvolume.
    pub subvolume: Subvolume,
    /// The number of the subvolume in which it lies.
    pub root: u64,
    /// The inode of the folder in which it lies.
    pub folder: u64,
    /// Its name in that folder.
    pub name: String,
}

/// What of a quota there is on a subvolume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes that may still be written until the limit is reached.
    pub left: u64,
}

/// A file system with subvolumes.
///
/// Every call may block. None is made on a file system that is frozen.
pub trait Subvolumes: Debug + Send + Sync + 'static {
    /// What the file system is called, such as `btrfs`.
    fn name(&self) -> &'static str;

    /// What an open folder is; none if it is not the root of a subvolume.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    fn identify(&self, folder: &File) -> io::Result<Option<Subvolume>>;

    /// The file system on which an open file lies; none if it is not of this kind.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    fn filesystem(&self, file: &File) -> io::Result<Option<Uuid>>;

    /// Makes a read-only snapshot of a subvolume: the instant. When it returns, the snapshot survives a power cut.
    ///
    /// # Errors
    /// Those of the operating system. With an error, too, the snapshot may be there.
    fn snapshot(&self, source: &File, folder: &File, name: &str) -> io::Result<()>;

    /// Makes a snapshot that can be written.
    ///
    /// # Errors
    /// Those of the operating system.
    fn branch(&self, source: &File, folder: &File, name: &str) -> io::Result<()>;

    /// Deletes a subvolume, read-only or not.
    ///
    /// # Errors
    /// Those of the operating system; one with subvolumes in it is refused.
    fn destroy(&self, folder: &File, name: &str) -> io::Result<()>;

    /// All subvolumes of the file system on which a file lies.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn all(&self, file: &File) -> io::Result<Vec<Located>>;

    /// The number of the subvolume in which a file lies.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    fn root(&self, file: &File) -> io::Result<u64>;

    /// The path of a folder below the root of the subvolume in which it lies, without a `/` at either end.
    ///
    /// # Errors
    /// When it cannot be found.
    fn path(&self, file: &File, root: u64, folder: u64) -> io::Result<String>;

    /// The quota of a subvolume, if it has one.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn quota(&self, subvolume: &Subvolume) -> io::Result<Option<Quota>>;
}
