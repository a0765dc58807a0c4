//! The one way to the file system for everything that changes it.
//!
//! Each change passes [`Hook::before`] first, so that a test can stop the world between any two of them, count them, or
//! look at their order.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::subvolume::{Subvolume, Subvolumes};

/// A change of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    MakeDir,
    Create,
    Write,
    Clone,
    Sync,
    SyncDir,
    Rename,
    Exchange,
    Link,
    Remove,
    RemoveDir,
    Chmod,
    Times,
    Snapshot,
    Branch,
    Destroy,
}

/// Hears of each change before it is made, and may refuse it.
pub(crate) trait Hook: Debug + Send + Sync {
    fn before(&self, op: Op, path: &Path) -> io::Result<()>;

    /// Hears of each look at a set of which the answer of a call depends, just before it.
    fn look(&self, path: &Path) {
        let _: &Path = path;
    }
}

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inode {
    pub(crate) device: u64,
    pub(crate) number: u64,
}

impl Inode {
    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), number: metadata.ino() }
    }

    /// What is under this name now; links are not followed.
    pub(crate) fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether nothing is under this name; a broken link is something.
pub(crate) fn is_free(path: &Path) -> io::Result<bool> {
    Ok(Inode::at(path)?.is_none())
}

/// A lock file that is held until the value is dropped, also by another process.
#[derive(Debug)]
pub(crate) struct Lock {
    /// The open file *is* the lock.
    file: File,
    path: PathBuf,
    inode: Inode,
}

impl Lock {
    /// Locks an open file; `None` if somebody works under it and we do not wait.
    fn hold(file: File, path: &Path, wait: Wait<'_>) -> io::Result<Option<Self>> {
        match wait {
            Wait::Yes => file.lock()?,
            Wait::No => match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            },
            Wait::ForGlances(go_on) => loop {
                match file.try_lock() {
                    Ok(()) => break,
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => return Err(error),
                }
                // Whoever works holds it alone; those who look share it.
                match file.try_lock_shared() {
                    Ok(()) => file.unlock()?,
                    Err(TryLockError::WouldBlock) => return Ok(None),
                    Err(TryLockError::Error(error)) => return Err(error),
                }
                if !go_on() {
                    return Ok(None);
                }
                std::thread::yield_now();
            },
        }
        let inode = Inode::of(&file.metadata()?);
        Ok(Some(Self { file, path: path.to_owned(), inode }))
    }

    pub(crate) fn inode(&self) -> Inode {
        self.inode
    }

    /// Whether the name still leads to the locked file, so that the folder it lies in has not been moved or removed.
    pub(crate) fn is_in_place(&self) -> bool {
        matches!(Inode::at(&self.path), Ok(Some(now)) if now == self.inode)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing releases it too, but a child process that inherited the file would keep it.
        let _ignored = self.file.unlock();
    }
}

/// The file system.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    hook: Option<Arc<dyn Hook>>,
    /// What knows the subvolumes of the file system, for a store over such a one.
    subvolumes: Option<Arc<dyn Subvolumes>>,
}

impl Disk {
    #[cfg(test)]
    pub(crate) fn hooked(hook: Arc<dyn Hook>) -> Self {
        Self { hook: Some(hook), subvolumes: None }
    }

    /// The same over a file system with subvolumes.
    pub(crate) fn with_subvolumes(mut self, subvolumes: Option<Arc<dyn Subvolumes>>) -> Self {
        self.subvolumes = subvolumes;
        self
    }

    fn pass(&self, op: Op, path: &Path) -> io::Result<()> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook.before(op, path))
    }

    /// Said before a set is looked at, so that a test can move it between any two looks.
    pub(crate) fn look(&self, path: &Path) {
        if let Some(hook) = &self.hook {
            hook.look(path);
        }
    }

    /// Makes a folder for us alone, as what is stored is other people's mail; one that is there already is fine.
    pub(crate) fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.make_dir_with(path, 0o700)
    }

    /// Makes a folder as any program would; one that is there already is fine.
    pub(crate) fn make_open_dir(&self, path: &Path) -> io::Result<()> {
        self.make_dir_with(path, 0o777)
    }

    fn make_dir_with(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.pass(Op::MakeDir, path)?;
        match fs::DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            done => done,
        }
    }

    /// Makes the folders below `base` that lead to `path`, which lies below it.
    pub(crate) fn make_dirs(&self, base: &Path, path: &Path) -> io::Result<()> {
        let below = path.strip_prefix(base).map_err(io::Error::other)?;
        let mut folder = base.to_owned();
        for part in below.components() {
            folder.push(part);
            if !folder.is_dir() {
                self.make_dir(&folder)?;
            }
        }
        Ok(())
    }

    /// Makes a file that was not there.
    pub(crate) fn create_new(&self, path: &Path) -> io::Result<File> {
        self.pass(Op::Create, path)?;
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
    }

    pub(crate) fn write(&self, mut file: &File, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.pass(Op::Write, path)?;
        file.write_all(bytes)
    }

    /// Writes bytes where they belong in a file, while others may write elsewhere in it.
    pub(crate) fn write_at(
        &self,
        file: &File,
        path: &Path,
        at: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.pass(Op::Write, path)?;
        file.write_all_at(bytes, at)
    }

    /// Makes `to` share the bytes of `from`.
    pub(crate) fn clone_bytes(&self, from: &File, to: &File, path: &Path) -> io::Result<()> {
        self.pass(Op::Clone, path)?;
        rustix::fs::ioctl_ficlone(to, from).map_err(io::Error::from)
    }

    pub(crate) fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        self.pass(Op::Sync, path)?;
        file.sync_all()
    }

    /// Makes the names in a folder durable.
    pub(crate) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.pass(Op::SyncDir, path)?;
        match File::open(path)?.sync_all() {
            // Some network and user-space file systems have nothing to sync in a folder and say so in this way.
            Err(error) if is(&error, &[Errno::INVAL]) => Ok(()),
            done => done,
        }
    }

    /// Moves a file or an empty folder's name, in the place of a file that is there.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass(Op::Rename, to)?;
        fs::rename(from, to)
    }

    /// Moves to a name where nothing is; `AlreadyExists` if something is.
    pub(crate) fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass(Op::Rename, to)?;
        match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
        // A file system without it. A hard link never replaces; where there are none either, a check has to do.
        if !fs::symlink_metadata(from)?.is_dir() {
            match fs::hard_link(from, to) {
                Ok(()) => return fs::remove_file(from),
                Err(error) if has_no_links(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if is_free(to)? { fs::rename(from, to) } else { Err(Errno::EXIST.into()) }
    }

    /// Swaps two names at one instant.
    pub(crate) fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        self.pass(Op::Exchange, other)?;
        rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
            .map_err(io::Error::from)
    }

    pub(crate) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass(Op::Link, to)?;
        fs::hard_link(from, to)
    }

    /// Removes a file; one that is not there is fine.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        if is_free(path)? {
            return Ok(());
        }
        self.pass(Op::Remove, path)?;
        absent_is_fine(fs::remove_file(path))
    }

    /// Removes an empty folder; one that is not there is fine.
    pub(crate) fn remove_dir(&self, path: &Path) -> io::Result<()> {
        if is_free(path)? {
            return Ok(());
        }
        self.pass(Op::RemoveDir, path)?;
        absent_is_fine(fs::remove_dir(path))
    }

    /// What knows the subvolumes, where there are any.
    pub(crate) fn subvolumes(&self) -> Option<&dyn Subvolumes> {
        self.subvolumes.as_deref()
    }

    fn with(&self) -> io::Result<&dyn Subvolumes> {
        self.subvolumes().ok_or_else(|| Errno::NOTSUP.into())
    }

    /// The subvolume of which this folder is the root; none if it is not there, or is not the root of one.
    pub(crate) fn subvolume_at(&self, path: &Path) -> io::Result<Option<Subvolume>> {
        let Some(subvolumes) = self.subvolumes() else { return Ok(None) };
        self.look(path);
        match open_folder(path) {
            Ok(folder) => subvolumes.identify(&folder),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) || is(&error, &[Errno::LOOP]) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a read-only snapshot of a subvolume. Everything is open by the time that this is called.
    pub(crate) fn snapshot(
        &self,
        source: &File,
        folder: &File,
        name: &str,
        path: &Path,
    ) -> io::Result<()> {
        self.pass(Op::Snapshot, path)?;
        self.with()?.snapshot(source, folder, name)
    }

    /// Makes a snapshot that can be written.
    pub(crate) fn branch(&self, source: &Path, to: &Path) -> io::Result<()> {
        self.pass(Op::Branch, to)?;
        let (folder, name) = (open_folder(folder_of(to)?)?, name_of(to)?);
        self.with()?.branch(&open_folder(source)?, &folder, name)
    }

    /// Deletes a subvolume; one that is not there is fine.
    pub(crate) fn destroy(&self, path: &Path) -> io::Result<()> {
        if is_free(path)? {
            return Ok(());
        }
        self.pass(Op::Destroy, path)?;
        let (folder, name) = (open_folder(folder_of(path)?)?, name_of(path)?);
        absent_is_fine(self.with()?.destroy(&folder, name))
    }

    /// Writes everything to disk that waits in memory, of the file system in which a folder lies.
    pub(crate) fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.pass(Op::Sync, path)?;
        rustix::fs::syncfs(File::open(path)?).map_err(io::Error::from)
    }

    /// Removes a folder of ours with all that is in it, also where it is read-only. Links are removed, never followed, and
    /// a subvolume goes as a whole.
    pub(crate) fn remove_tree(&self, path: &Path) -> io::Result<()> {
        let metadata = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        if !metadata.is_dir() {
            return self.remove(path);
        }
        if self.subvolume_at(path)?.is_some() {
            return self.destroy(path);
        }
        if metadata.permissions().mode() & 0o700 != 0o700 {
            self.chmod(path, 0o700)?;
        }
        for entry in fs::read_dir(path)? {
            self.remove_tree(&entry?.path())?;
        }
        self.remove_dir(path)
    }

    pub(crate) fn chmod(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.pass(Op::Chmod, path)?;
        fs::set_permissions(path, Permissions::from_mode(mode))
    }

    pub(crate) fn set_modified(
        &self,
        file: &File,
        path: &Path,
        time: SystemTime,
    ) -> io::Result<()> {
        self.pass(Op::Times, path)?;
        file.set_modified(time)
    }

    /// Puts bytes under a name, in the place of what is there, at one instant: whoever reads it sees the old bytes or the
    /// new. With `durable` they survive a power cut once this returns.
    ///
    /// The bytes are first written to a neighbour with a fixed name, so that crashes leave at most one of them. It is
    /// locked while it is written, as another process may be at the same name.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
        self.put(path, bytes, durable, |new| self.rename(new, path))
    }

    /// The same, durably, where nothing is; `AlreadyExists` if something is.
    pub(crate) fn put_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.put(path, bytes, true, |new| self.rename_new(new, path))
    }

    fn put(
        &self,
        path: &Path,
        bytes: &[u8],
        durable: bool,
        name: impl Fn(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let new = neighbour(path)?;
        let Some(lock) = self.lock(&new, Wait::Yes)? else {
            return Err(Errno::AGAIN.into());
        };
        let fill = || {
            lock.file.set_len(0)?;
            self.write(&lock.file, &new, bytes)?;
            if durable {
                self.sync(&lock.file, &new)?;
            }
            name(&new)
        };
        if let Err(error) = fill() {
            let _left_for_the_next = self.remove(&new);
            return Err(error);
        }
        if durable {
            self.sync_dir(folder_of(path)?)?;
        }
        Ok(())
    }

    /// Locks a file, which is made if it is not there. `None` if somebody else holds it and we do not wait.
    pub(crate) fn lock(&self, path: &Path, wait: Wait<'_>) -> io::Result<Option<Lock>> {
        loop {
            if is_free(path)? {
                self.pass(Op::Create, path)?;
            }
            let file = for_locks().create(true).truncate(false).mode(0o600).open(path)?;
            let Some(lock) = Lock::hold(file, path, wait)? else { return Ok(None) };
            // Whoever held it before may have removed or moved it meanwhile: then it locks nothing.
            if lock.is_in_place() {
                return Ok(Some(lock));
            }
        }
    }

    /// The same for a file that is there: an error if it is not.
    pub(crate) fn lock_known(&self, path: &Path, wait: Wait<'_>) -> io::Result<Option<Lock>> {
        loop {
            self.look(path);
            let Some(lock) = Lock::hold(for_locks().open(path)?, path, wait)? else {
                return Ok(None);
            };
            if lock.is_in_place() {
                return Ok(Some(lock));
            }
        }
    }

    /// Makes and locks a file that was not there. `None` if it was moved away or removed that very moment.
    pub(crate) fn lock_new(&self, path: &Path, wait: Wait<'_>) -> io::Result<Option<Lock>> {
        let file = self.create_new(path)?;
        Ok(Lock::hold(file, path, wait)?.filter(Lock::is_in_place))
    }

    /// Whether somebody works under this lock. Only looks: the file is not made, and others who look do not count.
    pub(crate) fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.look(path);
        let file = match OpenOptions::new().read(true).custom_flags(nofollow()).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        match file.try_lock_shared() {
            Ok(()) => file.unlock().map(|()| false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// How a file is opened to be locked; a link is never followed.
fn for_locks() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(nofollow());
    options
}

/// Whether to wait for a lock.
#[derive(Clone, Copy)]
pub(crate) enum Wait<'a> {
    /// Until whoever holds it has ended.
    Yes,
    /// Not at all.
    No,
    /// Not for anybody's work. Those who only look whether there is any hold the lock for an instant; they are waited
    /// for as long as this says so.
    ForGlances(&'a dyn Fn() -> bool),
}

/// Where [`Disk::replace`] puts new bytes first.
pub(crate) fn neighbour(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let mut new = OsString::from(".");
    new.push(name);
    new.push(".new");
    Ok(path.with_file_name(new))
}

/// The folder in which a name stands.
pub(crate) fn folder_of(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| Errno::INVAL.into())
}

/// The name at the end of a path, as text.
fn name_of(path: &Path) -> io::Result<&str> {
    path.file_name().and_then(|name| name.to_str()).ok_or_else(|| Errno::INVAL.into())
}

/// Opens a folder; a link is never followed.
pub(crate) fn open_folder(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Whether the error is one of these.
pub(crate) fn is(error: &io::Error, which: &[Errno]) -> bool {
    which.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Whether a hard link failed because the file system or its rules do not allow any.
pub(crate) fn has_no_links(error: &io::Error) -> bool {
    is(error, &[Errno::PERM, Errno::NOTSUP, Errno::NOSYS, Errno::MLINK, Errno::INVAL])
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// `O_NOFOLLOW` in the standard library's type for it.
fn nofollow() -> i32 {
    i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0)
}
