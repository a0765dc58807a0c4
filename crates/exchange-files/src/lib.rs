//! A Stillpoint plug-in for Exchange databases at rest under a folder: a mounted clone, a lab, a migration.
//!
//! ```
#![doc = include_str!("../doc/first.rs")]
//! ```
//!
//! Nobody has these files open, so there is no writer to freeze and nobody to tell of a backup. What the plug-in can do, it
//! does; what it cannot, it says:
//!
//! - A database is known by its **header**, never by its name; its id is a UUIDv5 of the signature in that header and of its
//!   place under the folder, so two clones are two databases. Its log stream and checkpoint are those of its signature that
//!   lie nearest.
//! - It can be backed up only if it is **recoverable** from what is there; if not, the missing log generations are in the
//!   availability's reasons. Missing *committed* generations cost work, not consistency: such a database can be backed up,
//!   and verification tells of the loss.
//! - A **freeze** is a shared lock where the file system has locks, and a stamp of every file (size, times, header). It has no
//!   limit of its own and is graded "at rest", never "application". The thaw compares: a file that changed or vanished has
//!   broken the freeze of its database, and the evidence names it.
//! - **Verification** reads every byte: page and segment checksums, seals, and whether the set can be recovered. The one
//!   thing it does not look into is the body of version 7 logs (Exchange 2003 to 2010): such a set is unverified, not good.
//! - **Truncation** never happens: there is no server to do it.
//! - **Sessions** live in this process. After a restart every session is unknown.
//!
//! ```text
//!   root/ ── walk, sniff ──▶ databases ◀─ pair by signature ─▶ logs, checkpoint
//!                               │
//!             begin: stamp A    │   freeze: lock, stamp B = A?   thaw: stamp C = B?   evidence: held, per copy
//! ```
//!
//! The hidden folders of a restore are passed by. Symbolic links are not followed, and pipes and devices are not opened. A
//! file named `*.edb` that is no database by its content is listed as unavailable, so that a wiped database does not go
//! unseen.

#![forbid(unsafe_code)]

mod logs;
mod plugin;
mod restore;
mod session;
mod survey;
mod verify;
mod walk;
mod watch;

pub use plugin::FilesPlugin;
