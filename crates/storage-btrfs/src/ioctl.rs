//! The calls into btrfs, and the one place with unsafe code.
//!
//! Arguments are plain arrays of bytes, as long as the kernel's own structures and filled field by field, so that no layout
//! of ours has to agree with the kernel's and every bit pattern that comes back is a legal value.
//!
//! Nothing here is ever called on a file system that is frozen: the thread would hang in the kernel until the thaw, not to
//! be killed, and the snapshot would appear then.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// `BTRFS_IOCTL_MAGIC`.
const BTRFS: u8 = 0x94;
/// Bytes of `btrfs_ioctl_vol_args_v2`, and of `btrfs_ioctl_ino_lookup_args`.
const PAGE: usize = 4096;
/// Bytes of `btrfs_ioctl_get_subvol_info_args`.
const INFO: usize = 504;
/// Bytes of `btrfs_ioctl_fs_info_args`.
const FS_INFO: usize = 1024;
/// Bytes of `btrfs_ioctl_search_args_v2` without the room for what is found, and that room.
const SEARCH: usize = 112;
const FOUND: usize = 1 << 16;

const SNAP_CREATE_V2: Opcode = opcode::write::<[u8; PAGE]>(BTRFS, 23);
const SNAP_DESTROY_V2: Opcode = opcode::write::<[u8; PAGE]>(BTRFS, 63);
const GET_SUBVOL_INFO: Opcode = opcode::read::<[u8; INFO]>(BTRFS, 60);
const FS_INFO_OF: Opcode = opcode::read::<[u8; FS_INFO]>(BTRFS, 31);
const INO_LOOKUP: Opcode = opcode::read_write::<[u8; PAGE]>(BTRFS, 18);
const TREE_SEARCH_V2: Opcode = opcode::read_write::<[u8; SEARCH]>(BTRFS, 17);

/// `BTRFS_SUBVOL_RDONLY`.
const READ_ONLY: u64 = 1 << 1;
/// The longest name that is passed: `BTRFS_SUBVOL_NAME_MAX`, without the zero behind it.
const LONGEST_NAME: usize = 4039;

/// Passes an array of bytes to the kernel and takes it back.
///
/// Private, and called only by the functions below: each of them passes an operation of btrfs with the array that is its
/// argument.
fn call<const OPERATION: Opcode, const LENGTH: usize>(
    file: &File,
    argument: &mut [u8; LENGTH],
) -> io::Result<()> {
    // SAFETY: The operation's number has the size of its argument in it, and the kernel reads and writes so many bytes,
    // which the array has; for TREE_SEARCH_V2 the bytes behind them, too, of which the argument says how many there are
    // (see `search`). No argument has an address in it: SNAP_CREATE_V2 would take one only with the flag
    // BTRFS_SUBVOL_QGROUP_INHERIT, which nobody here sets. The kernel copies to and from the array, so its alignment does
    // not matter, and keeps no pointer to it. A descriptor of another file system answers with ENOTTY: 0x94 is btrfs's own,
    // and what else shares it (`FICLONE`, 9 to 13) has other numbers.
    unsafe { ioctl(file, Updater::<OPERATION, [u8; LENGTH]>::new(argument)) }
        .map_err(io::Error::from)
}

/// Makes a snapshot of the subvolume `source` in the folder `parent`. When it returns, its transaction is on disk.
pub(crate) fn snap_create(
    source: &File,
    parent: &File,
    name: &str,
    read_only: bool,
) -> io::Result<()> {
    let mut argument = [0; PAGE];
    let flags = if read_only { READ_ONLY } else { 0 };
    put(&mut argument, 0, &i64::from(source.as_raw_fd()).to_ne_bytes());
    put(&mut argument, 16, &flags.to_ne_bytes());
    put_name(&mut argument, 56, name)?;
    call::<SNAP_CREATE_V2, PAGE>(parent, &mut argument)
}

/// Deletes the subvolume of this name in the folder `parent`, read-only or not. Its room comes back later.
pub(crate) fn snap_destroy(parent: &File, name: &str) -> io::Result<()> {
    let mut argument = [0; PAGE];
    put_name(&mut argument, 56, name)?;
    call::<SNAP_DESTROY_V2, PAGE>(parent, &mut argument)
}

/// `btrfs_ioctl_get_subvol_info_args` of the subvolume in which a file lies.
#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) id: u64,
    pub(crate) flags: u64,
    pub(crate) uuid: [u8; 16],
    pub(crate) parent_uuid: [u8; 16],
    pub(crate) created_seconds: u64,
    pub(crate) created_nanos: u32,
}

impl Info {
    pub(crate) fn is_read_only(&self) -> bool {
        // On disk BTRFS_ROOT_SUBVOL_RDONLY is another bit than BTRFS_SUBVOL_RDONLY.
        self.flags & 1 != 0
    }
}

/// What the subvolume is in which a file lies.
pub(crate) fn subvol_info(file: &File) -> io::Result<Info> {
    let mut argument = [0; INFO];
    call::<GET_SUBVOL_INFO, INFO>(file, &mut argument)?;
    Ok(Info {
        id: u64_at(&argument, 0),
        flags: u64_at(&argument, 288),
        uuid: bytes_at(&argument, 296),
        parent_uuid: bytes_at(&argument, 312),
        created_seconds: u64_at(&argument, 392),
        created_nanos: u32::from_ne_bytes(bytes_at(&argument, 400)),
    })
}

/// The UUID of the file system.
pub(crate) fn filesystem(file: &File) -> io::Result<[u8; 16]> {
    let mut argument = [0; FS_INFO];
    call::<FS_INFO_OF, FS_INFO>(file, &mut argument)?;
    Ok(bytes_at(&argument, 16))
}

/// The id of the subvolume in which a file lies, as INO_LOOKUP gives it to anybody.
pub(crate) fn root_of(file: &File) -> io::Result<u64> {
    let mut argument = [0; PAGE];
    // The first inode of any subvolume: the answer is the empty path.
    put(&mut argument, 8, &256_u64.to_ne_bytes());
    call::<INO_LOOKUP, PAGE>(file, &mut argument)?;
    Ok(u64_at(&argument, 0))
}

/// The path of a folder, by its inode, below the root of the subvolume `root`; ends with `/` unless it is empty.
pub(crate) fn path_of(file: &File, root: u64, inode: u64) -> io::Result<Vec<u8>> {
    let mut argument = [0; PAGE];
    put(&mut argument, 0, &root.to_ne_bytes());
    put(&mut argument, 8, &inode.to_ne_bytes());
    call::<INO_LOOKUP, PAGE>(file, &mut argument)?;
    let path = argument.get(16..).unwrap_or_default();
    Ok(path.iter().copied().take_while(|byte| *byte != 0).collect())
}

/// A place in a tree of btrfs, in the tree's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) object: u64,
    pub(crate) kind: u8,
    pub(crate) offset: u64,
}

impl Key {
    /// The place behind this one; none behind the last.
    pub(crate) fn next(self) -> Option<Self> {
        if let Some(offset) = self.offset.checked_add(1) {
            return Some(Self { offset, ..self });
        }
        if let Some(kind) = self.kind.checked_add(1) {
            return Some(Self { kind, offset: 0, ..self });
        }
        Some(Self { object: self.object.checked_add(1)?, kind: 0, offset: 0 })
    }
}

/// The items of the tree of roots from `first` to `last`, as many as one call gives; none at the end.
pub(crate) fn search(file: &File, first: Key, last: Key) -> io::Result<Vec<(Key, Vec<u8>)>> {
    let argument: Box<[u8]> = vec![0; SEARCH + FOUND].into_boxed_slice();
    let mut argument: Box<[u8; SEARCH + FOUND]> =
        argument.try_into().map_err(|_| io::Error::from(Errno::OVERFLOW))?;
    let all = &mut argument[..];
    for (at, value) in [
        (0, 1), // the tree of roots
        (8, first.object),
        (16, last.object),
        (24, first.offset),
        (32, last.offset),
        (48, u64::MAX), // any transaction
        (104, FOUND as u64),
    ] {
        put(all, at, &u64::to_ne_bytes(value));
    }
    for (at, value) in [(56, u32::from(first.kind)), (60, u32::from(last.kind)), (64, u32::MAX)] {
        put(all, at, &value.to_ne_bytes());
    }
    // The kernel writes into the array behind the structure, and no more bytes than FOUND, which stands at 104.
    call::<TREE_SEARCH_V2, { SEARCH + FOUND }>(file, &mut argument)?;
    let count = u32::from_ne_bytes(bytes_at(&argument[..], 64));
    let mut at = SEARCH;
    let mut items = Vec::new();
    for _ in 0..count {
        let head: [u8; 32] = bytes_at(&argument[..], at);
        let kind = u32::from_ne_bytes(bytes_at(&head, 24));
        let length = u32::from_ne_bytes(bytes_at(&head, 28));
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let Some(item) = argument.get(at + 32..at + 32 + length) else {
            return Err(Errno::OVERFLOW.into());
        };
        let kind = u8::try_from(kind).map_err(io::Error::other)?;
        items.push((
            Key { object: u64_at(&head, 8), kind, offset: u64_at(&head, 16) },
            item.to_vec(),
        ));
        at += 32 + length;
    }
    Ok(items)
}

fn put(argument: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = argument.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// A name, with the zeros behind it that are there already.
fn put_name(argument: &mut [u8], at: usize, name: &str) -> io::Result<()> {
    let is_one = !name.is_empty() && name != "." && name != ".." && name.len() <= LONGEST_NAME;
    if !is_one || name.bytes().any(|byte| byte == 0 || byte == b'/') {
        return Err(Errno::INVAL.into());
    }
    put(argument, at, name.as_bytes());
    Ok(())
}

/// So many bytes of an answer; zeros where it ends before.
pub(crate) fn bytes_at<const LENGTH: usize>(answer: &[u8], at: usize) -> [u8; LENGTH] {
    let bytes = answer.get(at..at + LENGTH).and_then(|bytes| bytes.try_into().ok());
    bytes.unwrap_or([0; LENGTH])
}

fn u64_at(answer: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes_at(answer, at))
}
