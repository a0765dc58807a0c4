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
use crate::plan::PLAN_FORMAT;

/// The format of stored records that this version writes; older ones are read, newer ones refused.
pub const RECORD_FORMAT: u32 = 1;

/// How many bytes most records take at most.
const USUAL: usize = 96;

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
    let mut stored = Vec::with_capacity(64 + records.len() * USUAL);
    serde_json::to_writer(&mut stored, &Written { format: RECORD_FORMAT, records })
        .map_err(|error| JournalError::Corrupt(format!("records cannot be written: {error}")))?;
    Ok(stored)
}

/// The records of a stored form.
///
/// # Errors
/// [`JournalError::Format`] when a newer version wrote them, [`JournalError::PlanFormat`] when it made a plan in them,
/// [`JournalError::Corrupt`] when they are none.
pub fn decode_records(stored: &[u8]) -> Result<Vec<Record>, JournalError> {
    match serde_json::from_slice::<Read>(stored) {
        Ok(read) if is_known(stored) => Ok(read.records),
        Ok(_) => Err(format_of(stored)),
        Err(error) => match format_of(stored) {
            newer @ (JournalError::Format { .. } | JournalError::PlanFormat { .. }) => Err(newer),
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
        Ok(_) => plan_format_of(stored).unwrap_or_else(|| {
            JournalError::Corrupt("the envelope is known and its records are not".to_owned())
        }),
        Err(error) => JournalError::Corrupt(format!("a stored envelope cannot be read: {error}")),
    }
}

/// That a plan among the records is of a newer format, if one is: the rest of it need not be understood.
fn plan_format_of(stored: &[u8]) -> Option<JournalError> {
    let envelope: serde_json::Value = serde_json::from_slice(stored).ok()?;
    let plans = envelope.get("records")?.as_array()?.iter();
    let formats = plans.filter_map(|record| record.pointer("/run/submitted/plan/format")?.as_u64());
    let found = formats.max().and_then(|format| u32::try_from(format).ok())?;
    let known = PLAN_FORMAT;
    (found > known).then_some(JournalError::PlanFormat { found, known })
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
