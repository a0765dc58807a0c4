//! Subvolumes of btrfs, in the words of a store.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use chrono::{DateTime, Utc};
use rustix::io::Errno;
use stillpoint_storage_fs::subvolume::{Located, Quota, Subvolume, Subvolumes};
use uuid::Uuid;

use crate::ioctl::{self, Key, bytes_at};

/// The inode of the root of any subvolume.
const ROOT_INODE: u64 = 256;
/// `BTRFS_SUPER_MAGIC`.
const MAGIC: i64 = 0x9123_683e;
/// Kinds of items in the tree of roots: a root, and where it is.
const ROOT_ITEM: u8 = 132;
const ROOT_BACKREF: u8 = 144;
/// The first number of a subvolume that somebody made, and the last.
const FIRST: u64 = 256;
const LAST: u64 = u64::MAX - 255;

/// btrfs as the kernel has it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Btrfs;

impl Subvolumes for Btrfs {
    fn name(&self) -> &'static str {
        "btrfs"
    }

    fn identify(&self, folder: &File) -> io::Result<Option<Subvolume>> {
        let metadata = folder.metadata()?;
        if !metadata.is_dir() || metadata.ino() != ROOT_INODE || !is_btrfs(folder)? {
            return Ok(None);
        }
        let info = ioctl::subvol_info(folder)?;
        Ok(Some(Subvolume {
            filesystem: Uuid::from_bytes(ioctl::filesystem(folder)?),
            uuid: Uuid::from_bytes(info.uuid),
            parent: known(info.parent_uuid),
            id: info.id,
            read_only: info.is_read_only(),
            created_at: time(info.created_seconds, info.created_nanos),
        }))
    }

    fn filesystem(&self, file: &File) -> io::Result<Option<Uuid>> {
        if !is_btrfs(file)? {
            return Ok(None);
        }
        Ok(Some(Uuid::from_bytes(ioctl::filesystem(file)?)))
    }

    fn snapshot(&self, source: &File, folder: &File, name: &str) -> io::Result<()> {
        ioctl::snap_create(source, folder, name, true)
    }

    fn branch(&self, source: &File, folder: &File, name: &str) -> io::Result<()> {
        ioctl::snap_create(source, folder, name, false)
    }

    fn destroy(&self, folder: &File, name: &str) -> io::Result<()> {
        ioctl::snap_destroy(folder, name)
    }

    fn all(&self, file: &File) -> io::Result<Vec<Located>> {
        let filesystem = Uuid::from_bytes(ioctl::filesystem(file)?);
        let mut roots: BTreeMap<u64, Subvolume> = BTreeMap::new();
        let mut found = Vec::new();
        let mut next = Some(Key { object: FIRST, kind: ROOT_ITEM, offset: 0 });
        let last = Key { object: LAST, kind: ROOT_BACKREF, offset: u64::MAX };
        while let Some(first) = next.filter(|first| *first <= last) {
            let items = ioctl::search(file, first, last)?;
            next = items.last().and_then(|(key, _)| key.next());
            for (key, item) in items {
                match key.kind {
                    ROOT_ITEM => {
                        let _newer = roots.insert(key.object, root(filesystem, key.object, &item));
                    }
                    ROOT_BACKREF => {
                        // A root that is being deleted has no name any more, and thus is not among these.
                        let Some(subvolume) = roots.get(&key.object) else { continue };
                        found.push(located(subvolume.clone(), key.offset, &item));
                    }
                    _ => {}
                }
            }
        }
        Ok(found)
    }

    fn root(&self, file: &File) -> io::Result<u64> {
        ioctl::root_of(file)
    }

    fn path(&self, file: &File, root: u64, folder: u64) -> io::Result<String> {
        let path = ioctl::path_of(file, root, folder)?;
        let path = String::from_utf8_lossy(&path);
        Ok(path.trim_end_matches('/').to_owned())
    }

    fn quota(&self, subvolume: &Subvolume) -> io::Result<Option<Quota>> {
        quota(Path::new("/sys/fs/btrfs"), subvolume)
    }
}

/// Asked before every other call, as other file systems answer to some of its numbers.
fn is_btrfs(file: &File) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(file)?.f_type == MAGIC)
}

fn known(uuid: [u8; 16]) -> Option<Uuid> {
    Some(Uuid::from_bytes(uuid)).filter(|uuid| !uuid.is_nil())
}

fn time(seconds: u64, nanos: u32) -> DateTime<Utc> {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    DateTime::from_timestamp(seconds, nanos).unwrap_or_default()
}

/// A `btrfs_root_item`: little-endian, packed.
fn root(filesystem: Uuid, id: u64, item: &[u8]) -> Subvolume {
    let seconds = u64::from_le_bytes(bytes_at(item, 339));
    let nanos = u32::from_le_bytes(bytes_at(item, 347));
    Subvolume {
        filesystem,
        uuid: Uuid::from_bytes(bytes_at(item, 247)),
        parent: known(bytes_at(item, 263)),
        id,
        read_only: u64::from_le_bytes(bytes_at(item, 208)) & 1 != 0,
        created_at: time(seconds, nanos),
    }
}

/// A `btrfs_root_ref`: folder, sequence, length of the name, name.
fn located(subvolume: Subvolume, root: u64, item: &[u8]) -> Located {
    let length = usize::from(u16::from_le_bytes(bytes_at(item, 16)));
    let name = item.get(18..18 + length).unwrap_or_default();
    Located {
        subvolume,
        root,
        folder: u64::from_le_bytes(bytes_at(item, 0)),
        name: String::from_utf8_lossy(name).into_owned(),
    }
}

/// Reads what the kernel says of a subvolume's own quota group. Without quotas, or without a limit, there is none.
fn quota(below: &Path, subvolume: &Subvolume) -> io::Result<Option<Quota>> {
    let folder = below.join(subvolume.filesystem.to_string());
    let folder = folder.join("qgroups").join(format!("0_{}", subvolume.id));
    let number = |name: &str| -> io::Result<Option<u64>> {
        match fs::read_to_string(folder.join(name)) {
            Ok(text) => text.trim().parse().map(Some).map_err(io::Error::other),
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    };
    let mut left: Option<u64> = None;
    // A limit of everything that it refers to, and one of what it alone has.
    for (flag, most, used) in
        [(1, "max_referenced", "referenced"), (2, "max_exclusive", "exclusive")]
    {
        let flags = number("limit_flags")?.unwrap_or(0);
        if flags & flag == 0 {
            continue;
        }
        if let (Some(most), Some(used)) = (number(most)?, number(used)?) {
            let here = most.saturating_sub(used);
            left = Some(left.map_or(here, |before| before.min(here)));
        }
    }
    Ok(left.map(|left| Quota { left }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_what_is_left_of_the_tighter_of_its_limits() {
        let below = tempfile::tempdir().unwrap();
        let subvolume = Subvolume {
            filesystem: Uuid::from_u128(1),
            uuid: Uuid::from_u128(2),
            parent: None,
            id: 259,
            read_only: false,
            created_at: DateTime::UNIX_EPOCH,
        };
        let left = || quota(below.path(), &subvolume).unwrap().map(|quota| quota.left);
        assert_eq!(left(), None, "quotas are off");
        let folder = below.path().join(subvolume.filesystem.to_string()).join("qgroups/0_259");
        fs::create_dir_all(&folder).unwrap();
        let put = |name: &str, number: u64| fs::write(folder.join(name), format!("{number}\n"));
        for (name, number) in [("limit_flags", 0), ("max_referenced", 0), ("referenced", 700)] {
            put(name, number).unwrap();
        }
        assert_eq!(left(), None, "there is no limit");
        put("limit_flags", 1).unwrap();
        put("max_referenced", 1000).unwrap();
        assert_eq!(left(), Some(300));
        put("limit_flags", 3).unwrap();
        put("max_exclusive", 100).unwrap();
        put("exclusive", 200).unwrap();
        assert_eq!(left(), Some(0), "one that is passed leaves nothing");
    }

    #[test]
    fn items_of_the_tree_of_roots_are_read_where_the_kernel_puts_them() {
        let mut item = vec![0_u8; 439];
        item[208] = 1;
        item[247..263].copy_from_slice(&[7; 16]);
        item[263..279].copy_from_slice(&[9; 16]);
        item[339..347].copy_from_slice(&1_000_000_000_u64.to_le_bytes());
        item[347..351].copy_from_slice(&5_u32.to_le_bytes());
        let filesystem = Uuid::from_u128(1);
        let read = root(filesystem, 300, &item);
        assert_eq!(read.uuid, Uuid::from_bytes([7; 16]));
        assert_eq!(read.parent, Some(Uuid::from_bytes([9; 16])));
        assert!(read.read_only);
        assert_eq!(read.created_at.to_rfc3339(), "2001-09-09T01:46:40.000000005+00:00");
        let mut place = 261_u64.to_le_bytes().to_vec();
        place.extend(3_u64.to_le_bytes());
        place.extend(4_u16.to_le_bytes());
        place.extend(b"snap and more");
        let found = located(read.clone(), 5, &place);
        assert_eq!((found.root, found.folder, found.name.as_str()), (5, 261, "snap"));
        // What is cut off is not read beyond.
        assert_eq!(located(root(filesystem, 300, &item[..100]), 5, &place[..10]).name, "");
    }
}
