//! What a copy's files hold, and the one who writes them.
//!
//! ```text
//!   transaction n   log: n ──▶ page 0: n ──▶ page 1: n ──▶ …  ──▶ page 7: n        then n + 1
//!                   └ write-ahead: the log holds n before any page does ┘
//! ```
//!
//! As long as it runs, a transaction is under way and some pages are ahead of the others. A freeze lets it end first. So a
//! snapshot tells by its bytes how it was taken: all pages and the log at one transaction (quiesced), pages apart but none
//! beyond the log (as after a power cut: replay mends it), or a page beyond the log (torn: nothing mends it).

use std::time::Duration;

use chrono::{DateTime, Utc};
use stillpoint_model::inventory::{Generation, LogSignature, LogState};

use crate::moment::Moment;

pub(crate) const PAGES: u32 = 8;
pub(crate) const PAGE_BYTES: usize = 64;
const AHEAD: u128 = PAGES as u128 - 1;
/// How many generations the checkpoint is behind.
const DEPTH: u32 = 1;

/// How a database in a snapshot was taken, by its bytes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// The writer stood still, in the data and in the logs.
    Quiesced,
    /// The writer was running: as after a power cut. Replay mends it.
    Running,
    /// Pages are newer than the logs: nothing mends it.
    Torn,
    /// A checksum is wrong.
    Damaged,
    /// The database file or its logs are not there.
    Incomplete,
}

#[derive(Debug, Clone)]
pub(crate) struct Writer {
    pub(crate) signature: LogSignature,
    /// The time of one transaction; zero for a database that nobody writes.
    pub(crate) every: Duration,
    pub(crate) per_generation: u64,
    /// Transactions done when it last stood still.
    pub(crate) base: u64,
    pub(crate) running_since: Option<Moment>,
    /// The lowest generation that is there.
    pub(crate) oldest: u32,
    /// When the newest closed generation was closed, of those that were closed before it ran.
    pub(crate) closed_before: Moment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) done: u64,
    /// So many pages already hold the next transaction.
    pub(crate) ahead: u32,
}

impl Position {
    pub(crate) fn logged(self) -> u64 {
        self.done + u64::from(self.ahead > 0)
    }
}

impl Writer {
    pub(crate) fn position(&self, now: Moment) -> Position {
        let Some(since) = self.running_since.filter(|_| !self.every.is_zero()) else {
            return Position { done: self.base, ahead: 0 };
        };
        // Whole nanoseconds: one page step each `every / 7`.
        let steps = now.since(since).as_nanos() * AHEAD / self.every.as_nanos();
        let whole = u64::try_from(steps / AHEAD).unwrap_or(u64::MAX);
        let ahead = u32::try_from(1 + steps % AHEAD).unwrap_or(1);
        Position { done: self.base.saturating_add(whole), ahead }
    }

    /// Ends the transaction that is under way, and stands still.
    pub(crate) fn stop(&mut self, now: Moment) {
        self.closed_before = self.closed_at(now);
        self.base = self.position(now).logged();
        self.running_since = None;
    }

    pub(crate) fn run(&mut self, now: Moment) {
        if self.running_since.is_none() {
            self.running_since = Some(now);
        }
    }

    /// The generation that holds a transaction.
    pub(crate) fn generation_of(&self, transaction: u64) -> u32 {
        let before = transaction.saturating_sub(1) / self.per_generation.max(1);
        u32::try_from(before).unwrap_or(u32::MAX - 1) + 1
    }

    pub(crate) fn open_generation(&self, now: Moment) -> u32 {
        self.generation_of(self.position(now).logged()).max(self.oldest)
    }

    pub(crate) fn checkpoint(&self, now: Moment) -> u32 {
        self.open_generation(now).saturating_sub(DEPTH).max(self.oldest)
    }

    pub(crate) fn log_state(&self, now: Moment) -> LogState {
        let open = self.open_generation(now);
        let mut state = LogState::new(self.signature);
        state.oldest_present = Some(Generation(self.oldest));
        state.required = Some(Generation(self.checkpoint(now))..=Generation(open));
        state.committed = Some(Generation(open));
        state.last_closed = (open > self.oldest).then(|| Generation(open - 1));
        state.open = Some(Generation(open));
        state
    }

    /// When the newest closed generation was closed.
    pub(crate) fn closed_at(&self, now: Moment) -> Moment {
        let first_of_open =
            u64::from(self.open_generation(now).saturating_sub(1)) * self.per_generation.max(1) + 1;
        let Some(since) = self.running_since.filter(|_| first_of_open > self.base + 1) else {
            return self.closed_before;
        };
        let before = u32::try_from(first_of_open - 1 - self.base).unwrap_or(u32::MAX);
        since.plus(self.every.saturating_mul(before))
    }

    /// The log state, and when the newest closed generation was closed.
    pub(crate) fn closed_state(&self, now: Moment) -> LogState {
        let closed: DateTime<Utc> = self.closed_at(now).at;
        let mut state = self.log_state(now);
        state.closed_at = Some(closed);
        state
    }

    /// The database file.
    pub(crate) fn database_bytes(&self, now: Moment) -> Vec<u8> {
        let position = self.position(now);
        let mut bytes = Vec::with_capacity(PAGES as usize * PAGE_BYTES);
        for number in 0..PAGES {
            let version = position.done + u64::from(number < position.ahead);
            let mut page = Vec::with_capacity(PAGE_BYTES);
            page.extend_from_slice(b"SPDB");
            page.extend_from_slice(&number.to_le_bytes());
            page.extend_from_slice(&version.to_le_bytes());
            page.extend_from_slice(&self.signature.0);
            page.resize(PAGE_BYTES - 8, b'.');
            let sum = checksum(&page);
            page.extend_from_slice(&sum.to_le_bytes());
            bytes.append(&mut page);
        }
        bytes
    }

    /// A log file.
    pub(crate) fn log_bytes(&self, generation: u32, now: Moment) -> Vec<u8> {
        let per = self.per_generation.max(1);
        let first = u64::from(generation.saturating_sub(1)) * per + 1;
        let last = self.position(now).logged().min(first.saturating_add(per - 1));
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(b"SPLG");
        bytes.extend_from_slice(&generation.to_le_bytes());
        bytes.extend_from_slice(&first.to_le_bytes());
        bytes.extend_from_slice(&last.to_le_bytes());
        bytes.extend_from_slice(&self.signature.0);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The checkpoint file.
    pub(crate) fn checkpoint_bytes(&self, now: Moment) -> Vec<u8> {
        let mut bytes = b"SPCK".to_vec();
        bytes.extend_from_slice(&self.checkpoint(now).to_le_bytes());
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }
}

/// FNV-1a, 64 bits: enough to notice any single flipped bit.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn sealed(bytes: &[u8]) -> Option<&[u8]> {
    let (content, sum) = bytes.split_last_chunk::<8>()?;
    (checksum(content) == u64::from_le_bytes(*sum)).then_some(content)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The transaction of each page; `None` for a page that is damaged.
pub(crate) fn read_pages(bytes: &[u8]) -> Vec<Option<u64>> {
    let page = |(number, page): (usize, &[u8])| {
        let content = sealed(page).filter(|content| content.starts_with(b"SPDB"))?;
        let right = u32_at(content, 4).and_then(|n| usize::try_from(n).ok()) == Some(number);
        right.then(|| u64_at(content, 8)).flatten()
    };
    bytes.chunks(PAGE_BYTES).enumerate().map(page).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogFile {
    pub(crate) generation: u32,
    pub(crate) last: u64,
}

/// Whether a file of a log folder is a log, be it damaged or not.
pub(crate) fn is_log(bytes: &[u8]) -> bool {
    !bytes.starts_with(b"SPCK")
}

/// A log file, unless it is damaged.
pub(crate) fn read_log(bytes: &[u8]) -> Option<LogFile> {
    let content = sealed(bytes).filter(|content| content.starts_with(b"SPLG"))?;
    Some(LogFile { generation: u32_at(content, 4)?, last: u64_at(content, 16)? })
}

/// The generation that a checkpoint file names, unless it is damaged.
pub(crate) fn read_checkpoint(bytes: &[u8]) -> Option<u32> {
    u32_at(sealed(bytes).filter(|content| content.starts_with(b"SPCK"))?, 4)
}

/// What the bytes of a database and of its logs say together.
pub(crate) fn shape(database: &[u8], logs: &[&[u8]]) -> Shape {
    let pages = read_pages(database);
    let logs: Vec<Option<LogFile>> = logs.iter().map(|log| read_log(log)).collect();
    if pages.is_empty() || logs.is_empty() {
        return Shape::Incomplete;
    }
    if pages.contains(&None) || logs.contains(&None) {
        return Shape::Damaged;
    }
    let newest = pages.iter().flatten().max();
    let oldest = pages.iter().flatten().min();
    let logged = logs.iter().flatten().map(|log| log.last).max();
    if newest > logged.as_ref() {
        Shape::Torn
    } else if newest == oldest && newest == logged.as_ref() {
        Shape::Quiesced
    } else {
        Shape::Running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> Writer {
        Writer {
            signature: LogSignature([7; 28]),
            every: Duration::from_millis(10),
            per_generation: 5,
            base: 12,
            running_since: Some(Moment::default()),
            oldest: 2,
            closed_before: Moment::default(),
        }
    }

    fn at(millis: u64) -> Moment {
        Moment::default().plus(Duration::from_millis(millis))
    }

    #[test]
    fn while_it_runs_pages_are_apart_at_every_instant() {
        let writer = writer();
        for millis in 0..200 {
            let bytes = writer.database_bytes(at(millis));
            let log = writer.log_bytes(writer.open_generation(at(millis)), at(millis));
            assert_eq!(shape(&bytes, &[&log]), Shape::Running, "at {millis} ms");
        }
    }

    #[test]
    fn standing_still_it_is_whole_and_a_later_page_is_torn() {
        let mut still = writer();
        still.stop(at(33));
        assert_eq!(still.position(at(33)), still.position(at(90)));
        let log = still.log_bytes(still.open_generation(at(33)), at(33));
        assert_eq!(shape(&still.database_bytes(at(50)), &[&log]), Shape::Quiesced);
        still.run(at(100));
        assert_eq!(shape(&still.database_bytes(at(111)), &[&log]), Shape::Torn);
    }

    #[test]
    fn any_flipped_bit_shows() {
        let writer = writer();
        let good = writer.database_bytes(at(0));
        let log = writer.log_bytes(3, at(0));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(shape(&bad, &[&log]), Shape::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn generations_close_as_it_writes() {
        let mut writer = writer();
        assert_eq!(writer.open_generation(at(0)), 3, "transaction 13 of 5 a generation");
        assert_eq!(writer.open_generation(at(25)), 3);
        assert_eq!(writer.open_generation(at(30)), 4);
        let state = writer.log_state(at(30));
        assert_eq!(state.last_closed, Some(Generation(3)));
        assert_eq!(state.required, Some(Generation(3)..=Generation(4)));
        writer.oldest = 4;
        assert_eq!(writer.log_state(at(30)).last_closed, None);
    }
}
