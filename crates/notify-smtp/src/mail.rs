//! A notification as a mail.

use std::time::{Duration, SystemTime};

use lettre::Message;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};
use stillpoint::Notification;
use stillpoint_context::{ErrorClass, Failure};

/// What the report is called, where it is attached.
const REPORT: &str = "job-report.json";

/// The last second that the form of a mail knows: of the year 9999.
const LAST: i64 = 253_402_300_799;

/// The mail, as it is sent: lines of ASCII that end with CRLF.
///
/// # Errors
/// `smtp.encode` and those of [`JobReport::to_json`](stillpoint::JobReport::to_json), which are defects of ours.
pub(crate) fn mail(
    notification: &Notification,
    from: &Mailbox,
    to: &[Mailbox],
) -> Result<Vec<u8>, Failure> {
    let defect = |why: String| Failure::new("smtp.encode", ErrorClass::Internal, why);
    let Notification { key, subject, text, report, .. } = notification;
    // The same for the same notification, so that whoever has it already can drop it.
    let id = key.as_str().replace(|c: char| !(c.is_ascii_alphanumeric() || c == '-'), ".");
    let json = ContentType::parse("application/json").map_err(|error| defect(error.to_string()))?;
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    let mut message = Message::builder()
        .from(from.clone())
        .subject(subject.clone())
        .date(time(report.ended_at.timestamp()))
        .message_id(Some(format!("<{id}@{}>", from.email.domain())))
        .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()));
    for to in to {
        message = message.to(to.clone());
    }
    let parts = MultiPart::mixed()
        .boundary(format!("=_{id}"))
        .singlepart(SinglePart::plain(text.clone()))
        .singlepart(Attachment::new(REPORT.to_owned()).body(report.to_json()?, json));
    let message = message.multipart(parts).map_err(|error| defect(error.to_string()))?;
    Ok(message.formatted())
}

/// The time, as near as a mail can tell it.
fn time(seconds: i64) -> SystemTime {
    let seconds = u64::try_from(seconds.clamp(0, LAST)).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// With a dot more before each line that begins with one, since a dot alone would end the mail; and with an end of its last line.
pub(crate) fn stuffed(mail: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(mail.len() + 16);
    for line in mail.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    if !stuffed.ends_with(b"\r\n") {
        stuffed.extend_from_slice(b"\r\n");
    }
    stuffed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_mail_ends_it() {
        for (mail, wanted) in [
            ("", "\r\n"),
            ("a", "a\r\n"),
            (".\r\n..b\r\nc.\r\n", "..\r\n...b\r\nc.\r\n"),
            ("a\r\n.", "a\r\n..\r\n"),
        ] {
            let stuffed = stuffed(mail.as_bytes());
            assert_eq!(String::from_utf8(stuffed).unwrap(), wanted, "{mail:?}");
        }
    }

    #[test]
    fn a_clock_that_is_wrong_has_a_date_all_the_same() {
        assert_eq!(time(i64::MIN), SystemTime::UNIX_EPOCH);
        assert_eq!(time(1), SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(time(i64::MAX), time(LAST));
    }
}
