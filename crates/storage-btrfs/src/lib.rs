//! A Stillpoint snapshot provider for btrfs: read-only snapshots of subvolumes.
//!
//! A volume is a subvolume, and a snapshot of it is another, read-only one, in a store folder on the same file system. It takes
//! milliseconds however large the volume is and shares every block with it until one of them is written.
//!
//! ```no_run
//! use stillpoint_context::{Cx, HostPath};
//! use stillpoint_storage::{MemberRole, MemberSpec, PrepareSpec, SnapshotProvider};
//! use stillpoint_storage_btrfs::{BtrfsConfig, BtrfsProvider};
//!
//! # async fn example(cx: &Cx) -> Result<(), Box<dyn std::error::Error>> {
//! // Both are on one btrfs, and the volume is a subvolume: `btrfs subvolume create /mnt/pool/mail`.
//! let mail = std::path::Path::new("/mnt/pool/mail");
//! let config = BtrfsConfig::new("btrfs".parse()?, "lab".parse()?, "/mnt/pool/stillpoint").with_volume(mail);
//! let provider = BtrfsProvider::open(&config)?;
//!
//! let volume = provider.volume(mail).ok_or("it was configured")?;
//! let database = HostPath::from_native("lab".parse()?, &mail.join("DB01.edb"))?;
//! let member = MemberSpec::new(volume, MemberRole::DataAndLog, vec![database]);
//! let spec = PrepareSpec::new("my-first-set".parse()?, "my first set").with_member(member);
//!
//! let prepared = provider.prepare(cx, &spec).await?; // slow: writes out what waits in memory
//! provider.commit(cx, &prepared).await?; // what happens inside a freeze
//! let snapshots = provider.settle(cx, &prepared).await?; // looked through, named
//! # let _ = snapshots;
//! # Ok(())
//! # }
//! ```
//!
//! # The store
//!
//! ```text
//! <store>/                          a folder of the file system, outside every volume
//!   sets/<token>.partial/           prepared, maybe taken
//!     plan.json                     volumes, the UUIDs of their subvolumes, files, name, tags
//!     m0/v                          the snapshot of the first volume: it is there, so it was taken
//!     m1/v                          … of the second
//!   sets/<token>/                   settled
//!     set.json                      token, name, tags, UUIDs of the snapshots, files, holds, locks
//!     m0/v  m1/v
//!   volumes/<uuid>.json             the subvolumes that are, or have been, one volume
//!   reverts/…                       journals of reverts
//!   docs/  exposures/  restores/    as in any store of stillpoint-storage-fs
//! ```
//!
//! This is a store of `stillpoint-storage-fs` whose members are subvolumes: locks, discarding under a commit that is still
//! running, exposures, documents and restores are the same code, and its docs say how they work. A token stands in the name of
//! its set's folder, so that finding it is looking up a name. Tags stand in `set.json`, as a snapshot is read-only.
//!
//! # What holds
//!
//! - A volume is known by the UUIDs of the file system and of its first subvolume, never by its path. Mounted elsewhere or
//!   renamed, it is the same; another subvolume at its path is another volume.
//! - `commit` makes the snapshots, side by side, and writes nothing else. Before the first of them it looks, with a few calls
//!   for each volume, whether they are there already and whether the subvolume at each path is still the one that was
//!   prepared. The kernel writes out the volume's dirty pages and commits a transaction for each of them; `prepare` writes
//!   out beforehand what waits in memory, and states a worst case from how long the second time takes.
//! - **Every snapshot is a transaction of its own**, so several volumes are never at one instant by themselves: the
//!   capability `atomic_group` is not there. The files of one subvolume are at one instant. Database and logs in one subvolume
//!   are consistent like after a power cut even if nobody held the writes; over several subvolumes the application has to hold
//!   its writes over all the snapshots.
//! - The file system itself must **never be frozen** (`fsfreeze`): a snapshot would hang in the kernel until the thaw, not to be
//!   killed, and would then appear. Nothing here freezes it, and no plug-in may.
//! - A snapshot that appears late (the caller was killed, or gave up waiting, while the kernel was at it) appears in the folder
//!   of its set, on which the kernel's call holds a lock for as long as it goes on, also for a process that is being killed.
//!   `find` answers `InFlight` meanwhile, and `discard` moves the folder away and answers `WatchUntil`; what appears in it goes
//!   with it at the next look.
//! - What was taken is on disk when `commit` returns. A set that was taken and not settled before a power cut can still be
//!   settled.
//! - Only the files that were named are in the restore point, and each of them has to lie on the volume itself: what is reached
//!   through a link, or lies on a subvolume inside the volume, is refused, as it would not be in the snapshot under its name.
//! - Files are not read after the freeze and have no seals: btrfs has a checksum of every block and fails a read that does not
//!   match, and the plug-in checks what it verifies.
//! - `list` shows every snapshot of a volume in the file system, also those that others made (snapper, btrbk, people); they
//!   have no token, and `delete` refuses them.
//! - A revert makes a new subvolume out of a snapshot and swaps it with the one at the volume's path, at one instant; the old one
//!   is deleted then. Its collateral is every file of the volume that does not belong to the restore point. No snapshot is lost by
//!   a revert, also none that is newer. A volume that is a mount point cannot be swapped, and one with subvolumes inside is
//!   refused.
//! - Holds and locks stand in `set.json` and bind everybody who goes through a provider. They do not bind root with
//!   `btrfs subvolume delete`: btrfs has no storage lock of its own.
//!
//! # Limits
//!
//! Linux 5.9 or newer, and root (`CAP_SYS_ADMIN`). btrfs has no limit of snapshots; a quota on a volume's subvolume, where
//! quotas are on, bounds the free room in the facts. Room that a deleted snapshot alone took comes back later.

#![deny(unsafe_code)]

mod config;
#[cfg(test)]
#[path = "../tests/inside/mod.rs"]
#[allow(clippy::unwrap_used, clippy::print_stdout)]
mod inside;
mod ioctl;
mod provider;
#[cfg(test)]
mod speed;
mod subvolumes;

pub use config::BtrfsConfig;
pub use provider::{BtrfsProvider, is_subvolume};
