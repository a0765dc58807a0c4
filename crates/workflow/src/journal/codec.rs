//! How records are stored: JSON in an envelope that says its format.
//!
//! ```text
//!   {"format":1,"records":[{"run":{"intended":{"node":3,"attempt":1}}}, …]}
//! ```
//!
//! The format comes first, so that a reader that does not know it can say so instead of stumbling over the records.

use serde::{Deserialize, Serialize};

use super::JournalError;
use crate::machine::Record;

/// The format of stored records that this version writes; older ones are read, newer ones refused.
pub const RECORD_FORMAT: u32 = 1;

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    records: &'a [Record],
}

/// What can be said of an envelope without understanding its records.
#[derive(Deserialize)]
struct Envelope {
    format: u32,
}

#[derive(Deserialize)]
struct Read {
    records: Vec<Record>,
}

/// The stored form of records.
///
/// # Errors
/// [`JournalError::Corrupt`] when a payload is not text, which is a defect of whoever made it.
pub fn encode_records(records: &[Record]) -> Result<Vec<u8>, JournalError> {
    serde_json::to_vec(&Written { format: RECORD_FORMAT, records })
        .map_err(|error| JournalError::Corrupt(format!("records cannot be written: {error}")))
}

/// The records of a stored form.
///
/// # Errors
/// [`JournalError::Format`] when a newer version wrote them, [`JournalError::Corrupt`] when they are none.
pub fn decode_records(stored: &[u8]) -> Result<Vec<Record>, JournalError> {
    match serde_json::from_slice::<Read>(stored) {
        Ok(read) if is_known(stored) => Ok(read.records),
        Ok(_) => Err(format_of(stored)),
        Err(error) => match format_of(stored) {
            newer @ JournalError::Format { .. } => Err(newer),
            _ => Err(JournalError::Corrupt(format!("stored records cannot be read: {error}"))),
        },
    }
}

/// Whether the envelope begins with a format that we know: the common case, without a second parse.
fn is_known(stored: &[u8]) -> bool {
    stored.starts_with(b"{\"format\":1,")
        || !matches!(format_of(stored), JournalError::Format { .. })
}

fn format_of(stored: &[u8]) -> JournalError {
    match serde_json::from_slice::<Envelope>(stored) {
        Ok(Envelope { format }) if format > RECORD_FORMAT => {
            JournalError::Format { found: format, known: RECORD_FORMAT }
        }
        Ok(_) => JournalError::Corrupt("the envelope is known and its records are not".to_owned()),
        Err(error) => JournalError::Corrupt(format!("a stored envelope cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{End, RunRecord};

    #[test]
    fn records_come_back_and_a_newer_format_is_named() {
        let records = vec![Record::Run(RunRecord::Ended { end: End::Succeeded })];
        let stored = encode_records(&records).unwrap();
        assert_eq!(
            std::str::from_utf8(&stored).unwrap(),
            r#"{"format":1,"records":[{"run":{"ended":{"end":"succeeded"}}}]}"#
        );
        assert_eq!(decode_records(&stored).unwrap(), records);
        let newer = |text: &str| decode_records(text.as_bytes()).unwrap_err();
        let known = JournalError::Format { found: 2, known: 1 };
        assert_eq!(newer(r#"{"format":2,"records":[{"moon":{}}]}"#), known);
        assert_eq!(newer(r#"{"records":[],"format":2}"#), known);
        assert!(matches!(
            newer(r#"{"format":1,"records":[{"moon":{}}]}"#),
            JournalError::Corrupt(_)
        ));
        assert!(matches!(newer("{"), JournalError::Corrupt(_)));
    }
}
