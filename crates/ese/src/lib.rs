//! Reading and verifying the files of the Extensible Storage Engine: the databases, transaction
//! logs and checkpoints that Exchange keeps mail in. On any system, without the engine.
//!
#![cfg_attr(feature = "write", doc = "```")]
#![cfg_attr(not(feature = "write"), doc = "```ignore")]
//! use stillpoint_ese::{Health, ScanOptions, SetVerdict, check_set, write::ExchangeSet};
//!
//! // A small set of our own making: DB01.edb, its logs and their checkpoint.
//! let folder = tempfile::tempdir()?;
//! ExchangeSet::new(42).write_to(folder.path())?;
//!
//! // Is every byte as it was written, and can the database be recovered with the logs there are?
//! let check = check_set(&[folder.path().to_owned()], &ScanOptions::default(), &mut ())?;
//! assert_eq!(check.health(), Health::Good);
//! let set = &check.databases[0].set;
//! assert!(matches!(set.verdict, SetVerdict::Recoverable { .. }));
//!
//! // How new can it be made?
//! let newest = set.rolls_forward_to.ok_or("it cannot be recovered")?;
//! assert_eq!(newest.generation.number(), 8);
//! assert!(newest.cut_by.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is here
//!
//! ```text
//!  paths          ┌───────────── check_set · check_logs ─────────────┐
//!                 │                                                  │
//!  any reader     │           scans: every byte           judgements: pure
//!  ┌────────┐  check_file  ┌─────────────────┐ headers,  ┌──────────────┐
//!  │ ReadAt ├─────────────▶│ scan_database   │ findings  │ check_stream │
//!  └────────┘ read_*_header│ scan_log        ├──────────▶│ judge_set    │
//!   File, [u8] read_stamp  │ scan_checkpoint │           └──────────────┘
//!                          │ scan_flush_map  │
//!                          └─────────────────┘
//! ```
//!
//! - **Headers** ([`read_database_header`], [`read_log_header`], [`read_checkpoint`],
//!   [`read_flush_map`]) with every field typed, from primary or shadow.
//! - **Scans** ([`scan_database`], [`scan_log`], [`scan_checkpoint`], [`scan_flush_map`]; the right
//!   one by itself with [`check_file`] and [`check_path`]) check every byte that has a checksum.
//!   With its flush map beside a database that was shut down cleanly, writes that never reached the
//!   disk are found too ([`scan_mapped_database`]).
//!   Damage is data: a [`Finding`] with place, byte offset, severity and the [`JetError`] that a
//!   Windows tool would give.
//! - **Judgements** ([`check_stream`], [`judge_set`]) take headers or scan reports and say what is
//!   wrong between logs, and whether a database is clean, recoverable, recoverable with loss or
//!   not recoverable, which generations are missing, and how new it can be made.
//! - **Sets** ([`check_set`], [`check_logs`]): all of that for folders.
//! - **Kind and change**: [`FileKind::sniff`] tells a file by its content, [`read_stamp`] tells
//!   whether somebody worked on it.
//!
//! An [`Observer`] hears of progress, sees every byte if it wants to, and may stop a scan;
//! [`Background`] lets an asynchronous caller await one. Databases are read and checked on several
//! threads ([`ScanOptions::threads`]), with checksums in the widest vectors of the processor, and
//! holes of sparse files are passed by.
//!
//! No input makes this crate panic or take memory beyond [`ScanOptions`]. The tree inside a
//! database (links, keys, records) is not looked at, nor are the bodies of logs before version 7
//! (Exchange 2003).
//!
//! # Features
//!
//! - `write`: a seeded writer of valid databases, logs, checkpoints and flush maps, for tests and
//!   demonstrations. Not in default features.

#![forbid(unsafe_code)]

mod background;
mod bytes;
mod check;
mod checkpoint;
mod checksum;
mod database;
mod error;
mod finding;
mod flush_map;
mod folder;
mod jet;
mod lanes;
mod log;
mod read;
mod set;
mod sniff;
mod stamp;
mod types;
#[cfg(feature = "write")]
pub mod write;

pub use background::{Background, Stop, Task};
pub use check::{FileCheck, Health, check_file, check_path};
pub use checkpoint::{CheckpointHeader, CheckpointReport, read_checkpoint, scan_checkpoint};
pub use checksum::{
    PageFault, PageState, block_checksum, block_checksum_portable, check_page, header_checksum,
    is_header_good,
};
pub use database::{
    BackupType, CopyState, DatabaseFlags, DatabaseHeader, DatabaseHeaders, DatabaseReport,
    DatabaseState, HeaderCopy, Occurrence, RepairCount, RevertRecord, ScanRecord, ScrubRecord,
    Trailer, read_database_header, scan_database, scan_mapped_database,
};
pub use error::EseError;
pub use finding::{Finding, FindingKind, Findings, Place, Severity};
pub use flush_map::{FlushMapFit, FlushMapHeader, FlushMapReport, read_flush_map, scan_flush_map};
pub use folder::{
    CheckedDatabase, CheckedFile, CheckedStream, CheckpointFit, Failure, PageCounts, SetCheck,
    SetObserver, check_logs, check_set,
};
pub use jet::JetError;
pub use log::{
    Attachment, EngineSettings, LogBody, LogHeader, LogMember, LogName, LogReport, LogRole,
    StreamFinding, StreamFindingKind, check_stream, read_log_header, scan_log,
};
pub use read::{Observer, Progress, ReadAt, ScanOptions};
pub use set::{Reason, RollForward, SetReport, SetVerdict, judge_set};
pub use sniff::{FileKind, Sniffed};
pub use stamp::{HeaderStamp, read_segment_stamp, read_stamp};
pub use types::{BackupInfo, Generation, GenerationRange, Lgpos, LogTime, PageSize, Signature};
