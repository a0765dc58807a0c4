//! Databases: choosing the header, and checking every page.

mod fields;
mod flushes;
mod header;
mod scan;
mod state;
mod trailer;
mod upkeep;

pub use fields::{DatabaseFlags, DatabaseHeader};
pub use header::{CopyState, DatabaseHeaders, HeaderCopy, read_database_header};
pub use scan::{DatabaseReport, scan_database, scan_mapped_database};
pub use state::DatabaseState;
pub use trailer::Trailer;
pub use upkeep::{BackupType, Occurrence, RepairCount, RevertRecord, ScanRecord, ScrubRecord};

pub(crate) use header::{MAGIC, VERSION, has_magic};
