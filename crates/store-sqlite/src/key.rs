//! What streams and numbers are called in the tables.

use std::time::Duration;

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};
use stillpoint_context::{Mono, RunId};
use stillpoint_workflow::StreamId;
use uuid::Uuid;

/// The id of a stream: a byte for its kind and 16 for its id, in the order of [`StreamId`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    bytes: [u8; 17],
    length: usize,
}

impl Key {
    pub(crate) fn of(stream: StreamId) -> Self {
        let (kind, id) = match stream {
            StreamId::Arbiter => return Self { bytes: [0; 17], length: 1 },
            StreamId::Run(run) => (1, run.0),
            StreamId::Key(key) => (2, key),
        };
        let mut bytes = [kind; 17];
        bytes[1..].copy_from_slice(id.as_bytes());
        Self { bytes, length: 17 }
    }
}

impl ToSql for Key {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(&self.bytes[..self.length])))
    }
}

/// The stream of an id.
pub(crate) fn parse(bytes: &[u8]) -> Option<StreamId> {
    let (kind, id) = bytes.split_first()?;
    match (kind, Uuid::from_slice(id)) {
        (0, _) if id.is_empty() => Some(StreamId::Arbiter),
        (1, Ok(id)) => Some(StreamId::Run(RunId(id))),
        (2, Ok(id)) => Some(StreamId::Key(id)),
        _ => None,
    }
}

/// A number as SQLite keeps it; the largest stands for all that are larger.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that is never negative.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Nanoseconds; 292 years stand for all that is longer.
pub(crate) fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

pub(crate) fn duration(nanos: i64) -> Duration {
    Duration::from_nanos(unsigned(nanos))
}

pub(crate) fn mono(nanos: i64) -> Mono {
    Mono(duration(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_and_sort_as_streams_do() {
        let id = Uuid::from_u128;
        let streams = [
            StreamId::Arbiter,
            StreamId::Run(RunId(id(1))),
            StreamId::Run(RunId(id(u128::MAX))),
            StreamId::Key(id(0)),
            StreamId::Key(id(7)),
        ];
        let keys: Vec<_> = streams.iter().map(|stream| Key::of(*stream)).collect();
        let bytes: Vec<_> = keys.iter().map(|key| &key.bytes[..key.length]).collect();
        assert!(streams.is_sorted() && bytes.is_sorted());
        for (stream, bytes) in streams.iter().zip(&bytes) {
            assert_eq!(parse(bytes), Some(*stream));
        }
        for bad in [&b""[..], b"\0x", b"\x01", b"\x03aaaaaaaaaaaaaaaa"] {
            assert_eq!(parse(bad), None);
        }
    }
}
