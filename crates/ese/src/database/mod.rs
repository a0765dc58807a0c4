//! Databases: choosing the header, and checking every page.

mod header;
mod scan;

pub use header::read_database_header;
pub use header::{
    CopyState, DatabaseHeader, DatabaseHeaders, DatabaseState, HeaderCopy, RepairCount,
};
pub use scan::{DatabaseReport, scan_database};

pub(crate) use header::{MAGIC, VERSION, has_magic};
