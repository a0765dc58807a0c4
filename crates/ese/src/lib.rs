//! Reading and verifying the files of the Extensible Storage Engine: the databases, transaction
//! logs and checkpoints that Exchange keeps mail in. On any system, without the engine.
//!
#![cfg_attr(feature = "write", doc = "```")]
#![cfg_attr(not(feature = "write"), doc = "```ignore")]
//! use std::fs::File;
//! use stillpoint_ese::{ScanOptions, judge_set, read_database_header, read_log_header, scan_database,
//!     LogMember, SetVerdict, write::ExchangeSet};
//!
//! // A small set of our own making: DB01.edb, its logs and their checkpoint.
//! let folder = tempfile::tempdir()?;
//! ExchangeSet::new(42).write_to(folder.path())?;
//!
//! // Is every page as it was written?
//! let database = File::open(folder.path().join("DB01.edb"))?;
//! let report = scan_database(&database, &ScanOptions::default(), &mut ())?;
//! assert!(report.findings.is_intact());
//!
//! // Can it be recovered with the logs that are there?
//! let mut logs = Vec::new();
//! for entry in std::fs::read_dir(folder.path())? {
//!     let path = entry?.path();
//!     if let Ok(header) = read_log_header(&File::open(&path)?) {
//!         logs.push(LogMember::from_header(path.to_string_lossy(), &header));
//!     }
//! }
//! let header = read_database_header(&database)?.header;
//! assert!(matches!(judge_set(&header, &logs).verdict, SetVerdict::Recoverable { .. }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is here
//!
//! ```text
//!  any reader                      scans: every byte             judgements: pure
//!  ┌────────┐  FileKind::sniff    ┌─────────────────┐ headers,  ┌──────────────┐
//!  │ ReadAt ├──read_*_header────▶ │ scan_database   │ findings  │ check_stream │
//!  └────────┘  read_stamp         │ scan_log        ├─────────▶ │ judge_set    │
//!   File, [u8]                    │ scan_checkpoint │           └──────────────┘
//!                                 └─────────────────┘
//! ```
//!
//! - **Headers** ([`read_database_header`], [`read_log_header`], [`read_checkpoint`]) with typed
//!   fields, from primary or shadow.
//! - **Scans** ([`scan_database`], [`scan_log`], [`scan_checkpoint`]) check every byte that has a
//!   checksum. Damage is data: a [`Finding`] with place, byte offset, severity and the
//!   [`JetError`] that a Windows tool would give.
//! - **Judgements** ([`check_stream`], [`judge_set`]) take headers or scan reports and say what is
//!   wrong between logs, and whether a database is clean, recoverable, recoverable with loss or
//!   not recoverable, and which generations are missing.
//! - **Kind and change**: [`FileKind::sniff`] tells a file by its content, [`read_stamp`] tells
//!   whether somebody worked on it.
//!
//! No input makes this crate panic or take memory beyond [`ScanOptions`]. The tree inside a
//! database (links, keys, records) is not looked at, nor are the bodies of version 7 logs
//! (Exchange 2003 to 2010) or the pages of flush maps.
//!
//! # Features
//!
//! - `write`: a seeded writer of valid databases, logs and checkpoints, for tests and
//!   demonstrations. Not in default features.

#![forbid(unsafe_code)]

mod bytes;
mod checkpoint;
mod checksum;
mod database;
mod error;
mod finding;
mod flush_map;
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

pub use checkpoint::{CheckpointHeader, CheckpointReport, read_checkpoint, scan_checkpoint};
pub use checksum::{
    PageFault, PageState, block_checksum, block_checksum_portable, check_page, header_checksum,
    is_header_good,
};
pub use database::{
    BackupType, CopyState, DatabaseFlags, DatabaseHeader, DatabaseHeaders, DatabaseReport,
    DatabaseState, HeaderCopy, Occurrence, RepairCount, RevertRecord, ScanRecord, ScrubRecord,
    Trailer, read_database_header, scan_database,
};
pub use error::EseError;
pub use finding::{Finding, FindingKind, Findings, Place, Severity};
pub use flush_map::{FlushMapFit, FlushMapHeader, FlushMapReport, read_flush_map, scan_flush_map};
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
