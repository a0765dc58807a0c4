//! A Stillpoint snapshot provider for any directory: reflink clones or full copies.
//!
//! A volume is a folder that the operator names; its snapshots go to a store folder outside it. Where the file system can
//! (btrfs, XFS with reflink) a snapshot of a file is a clone that takes an instant and no room; elsewhere it is a full copy,
//! which the provider declares in its capabilities and refuses where a freeze limit could not hold it.
//!
//! ```
//! use stillpoint_context::{Cx, HostPath};
//! use stillpoint_storage::{MemberRole, MemberSpec, PrepareSpec, SnapshotProvider, VolumeRef};
//! use stillpoint_storage_fs::{FsConfig, FsProvider};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let lab = tempfile::tempdir()?;
//! # let (mail, store) = (lab.path().join("mail"), lab.path().join("store"));
//! # std::fs::create_dir(&mail)?;
//! # std::fs::write(mail.join("DB01.edb"), b"precious")?;
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
//! # let seams = stillpoint_workflow::TokioSeams::on(runtime.handle().clone());
//! # runtime.block_on(async {
//! let config = FsConfig::new("fs".parse()?, "lab".parse()?, &store).with_volume("mail".parse()?, &mail);
//! let provider = FsProvider::open(&config)?;
//!
//! let database = HostPath::from_native("lab".parse()?, &mail.join("DB01.edb"))?;
//! let volume: VolumeRef = "fs:mail".parse()?;
//! let member = MemberSpec::new(volume, MemberRole::DataAndLog, vec![database]);
//!
//! let cx = Cx::detached(&seams);
//! let spec = PrepareSpec::new("my-first-set".parse()?, "my first set").with_member(member);
//! let prepared = provider.prepare(&cx, &spec).await?; // slow: checks every file
//! provider.commit(&cx, &prepared).await?; // what happens inside a freeze
//! let snapshots = provider.settle(&cx, &prepared).await?; // durable
//! assert_eq!(snapshots[0].files[0].seal.as_ref().map(|seal| seal.bytes()), Some(8));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })
//! # }
//! ```
//!
//! # The store
//!
//! ```text
//! <store>/
//!   store.json                  says that it is a store, and its version
//!   sets/
//!     <token>.partial/          prepared, maybe taken, not durable
//!       lock                    held while somebody makes the set, works on it, exposes it or removes it
//!       plan.json               what prepare worked out
//!       begun                   a commit has begun
//!       taken.json              the commit is complete: files, sizes, seals
//!       m0/<path>…              the files of the first volume, under their paths below it
//!       m1/<path>…              … of the second
//!     <token>/                  settled: durable, files read-only
//!       set.json                token, name, tags, members, files with size and seal
//!       m0/… m1/…
//!     <token>.discarded/        on its way out
//!   docs/<name>                 documents beside the data
//!   exposures/<key>.json        exposures that are open
//!   restores/<key>.json         journals of restores, with .lock and .stop
//! ```
//!
//! Folders of the store are readable by their owner alone, and no stored file by anybody who could not read the original.
//! A name that begins with a dot and ends in `.new` is a document that is being written. Documents are JSON with a format and
//! a version; what the store holds besides all this is not ours, is listed as such and is never touched.
//!
//! # What holds
//!
//! - `commit` clones or copies and makes one small file; it neither syncs nor lists. It takes volumes with database files
//!   first, then those with both, then those with logs only, the volumes of each kind side by side (S9), and the files of
//!   a volume in the order in which they were named. It is told what lies on a volume, not what each file is: where the
//!   logs of a database lie on another volume that holds databases too, only held writes, or files at rest, keep the two
//!   in order. A copy is sealed from the very bytes that were read. A file that shrinks, grows, vanishes or is replaced
//!   meanwhile is an error.
//! - `settle` syncs every file and folder, reads clones once to seal them, writes `set.json` and gives the set its name: all
//!   or nothing. A set that was taken but not settled before the machine restarted is not trusted: it is `Partial`, and can
//!   only be discarded.
//! - `discard` moves the set's folder away under whoever works on it. A preparation or a commit that is still running finds
//!   that out at the next file or chunk, and removes what it made when it ends; until then the answer is `WatchUntil`, as it
//!   is while a preparation of this provider waits for a thread. Prepared again meanwhile, the set is `Busy`.
//! - A set moves from `.partial` to its name to `.discarded`, never back. Calls look for it in that order, and again where
//!   it moved between two looks. What is exposed cannot be removed, nor be exposed while it is removed.
//! - A snapshot that is [held](stillpoint_storage::SnapshotLock) or locked is not removed, and neither is its set. Both stand
//!   in `set.json` and bind everybody who goes through a provider; root can remove files all the same.
//! - A restore stages files in a hidden folder beside their targets and checks every byte before `publish` moves them to
//!   their names, with what was there kept aside. Its journal is durable before each step.
//! - Names are never followed out of their folder: `..` and NUL cannot be said, a link that leads out of its volume is
//!   refused, and names that are not Unicode are refused.
//!
//! # Limits
//!
//! Linux. What a clone costs goes with the file's extents, of which a database that grew page by page may have very many:
//! `prepare` counts them and clones each file once for a trial, states the worst case, and refuses what does not fit the
//! freeze limit with the number of extents and the file. A clone is per file: files of one set are taken one after the other on each volume, so the writes must be held by
//! the application, or the data be at rest. Do not freeze the file system itself: a clone would hang in the kernel until the
//! thaw. The store's file system must have file locks. Owners, ACLs and extended attributes are not kept.

#![forbid(unsafe_code)]

mod commit;
mod config;
mod copy;
mod disk;
mod expose;
mod extents;
mod find;
mod flight;
mod format;
mod hold;
mod lineage;
mod prepare;
mod provider;
mod remove;
mod restore;
mod revert;
mod settle;
mod snap;
mod store;
pub mod subvolume;
#[cfg(test)]
mod tests;
mod volume;

pub use config::{CloneMode, FsConfig, is_store};
pub use provider::FsProvider;
