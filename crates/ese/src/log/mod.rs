//! Transaction logs: header, body, names, and the rules of a stream.

mod body;
mod chain;
mod header;
mod name;
mod stream;

pub use body::{LogBody, LogReport, scan_log};
pub use header::{Attachment, EngineSettings, LogHeader, read_log_header};
pub use name::{LogName, LogRole};
pub(crate) use stream::{Chain, choose};
pub use stream::{LogMember, StreamFinding, StreamFindingKind, check_stream};

#[cfg(feature = "write")]
pub(crate) use chain::{RECORD, seal_range};
#[cfg(feature = "write")]
pub(crate) use header::HEADER_LEN;
