//! The small types that every header is made of.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::bytes::{array_at, text_at, u16_at, u32_at};

/// A log generation: the number of a log file within its stream. Shown in decimal, as the headers
/// are dumped; file names carry it in hexadecimal.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(u32);

impl Generation {
    /// The highest generation in use (0x7FFFF800); values above are damage.
    pub const MAX: Self = Self(0x7FFF_F800);

    /// A generation by its number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Whether a log file may carry it: 1 to [`Generation::MAX`].
    pub fn is_valid(self) -> bool {
        self.0 >= 1 && self <= Self::MAX
    }

    /// The generation that follows.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Consecutive generations, both ends included; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GenerationRange {
    first: Generation,
    last: Generation,
}

impl GenerationRange {
    /// `first` to `last`; `None` when `last` comes before `first`.
    pub fn new(first: Generation, last: Generation) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// One generation.
    pub const fn one(generation: Generation) -> Self {
        Self { first: generation, last: generation }
    }

    /// The same range, reaching at least to `last`.
    pub fn through(self, last: Generation) -> Self {
        Self { first: self.first, last: self.last.max(last) }
    }

    /// The lowest generation.
    pub fn first(&self) -> Generation {
        self.first
    }

    /// The highest generation.
    pub fn last(&self) -> Generation {
        self.last
    }

    /// How many generations.
    pub fn count(&self) -> u64 {
        u64::from(self.last.0 - self.first.0) + 1
    }

    /// Whether the generation lies within.
    pub fn contains(&self, generation: Generation) -> bool {
        (self.first..=self.last).contains(&generation)
    }
}

impl fmt::Display for GenerationRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// A position in a log stream: generation, segment of the file, byte of the segment.
///
/// Ordered as the engine orders it. Shown in hexadecimal as the engine's tools show it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct Lgpos {
    /// Log generation.
    pub generation: Generation,
    /// Segment (sector) in the log file, its header counted.
    pub segment: u16,
    /// Byte within the segment.
    pub byte: u16,
}

impl Lgpos {
    /// A position.
    pub const fn new(generation: Generation, segment: u16, byte: u16) -> Self {
        Self { generation, segment, byte }
    }

    /// Whether it is unset (all zero).
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn parse(bytes: &[u8], at: usize) -> Self {
        Self {
            byte: u16_at(bytes, at),
            segment: u16_at(bytes, at.saturating_add(2)),
            generation: Generation(u32_at(bytes, at.saturating_add(4))),
        }
    }

    /// The eight bytes of the file format.
    pub fn to_bytes(self) -> [u8; 8] {
        let mut out = [0; 8];
        out[..2].copy_from_slice(&self.byte.to_le_bytes());
        out[2..4].copy_from_slice(&self.segment.to_le_bytes());
        out[4..].copy_from_slice(&self.generation.0.to_le_bytes());
        out
    }
}

impl fmt::Display for Lgpos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({:X},{:X},{:X})", self.generation.0, self.segment, self.byte)
    }
}

/// An instant as the engine writes it: civil time to the millisecond, with a mark for UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LogTime([u8; 8]);

impl LogTime {
    /// From the eight bytes of the file format.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The eight bytes of the file format.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0
    }

    pub(crate) fn parse(bytes: &[u8], at: usize) -> Self {
        Self(array_at(bytes, at))
    }

    /// Whether a time is there: its date and time bytes are not all zero.
    pub fn is_set(self) -> bool {
        self.0[..6] != [0; 6]
    }

    /// Whether it is marked as UTC; otherwise it is local time of the server that wrote it.
    pub fn is_utc(self) -> bool {
        self.0[6] & 1 != 0
    }

    /// Milliseconds of the second, 0 to 999 in sound files.
    pub fn millis(self) -> u16 {
        u16::from(self.0[6] >> 1) | (u16::from((self.0[7] >> 1) & 7) << 7)
    }

    /// Milliseconds since 1970-01-01 00:00 of the clock it was written by (UTC when
    /// [`is_utc`](Self::is_utc)); `None` when unset or no date.
    pub fn unix_millis(self) -> Option<i64> {
        let [second, minute, hour, day, month, year, ..] = self.0;
        let sound = self.is_set()
            && second < 60
            && minute < 60
            && hour < 24
            && (1..=31).contains(&day)
            && (1..=12).contains(&month)
            && self.millis() < 1000;
        if !sound {
            return None;
        }
        let days = days_from_civil(1900 + i64::from(year), i64::from(month), i64::from(day));
        let seconds =
            days * 86_400 + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
        Some(seconds * 1000 + i64::from(self.millis()))
    }

    /// The UTC time of an instant, in milliseconds since 1970; `None` outside 1900 to 2155.
    pub fn from_unix_millis(millis: i64) -> Option<Self> {
        let days = millis.div_euclid(86_400_000);
        let of_day = millis.rem_euclid(86_400_000);
        let (year, month, day) = civil_from_days(days);
        let byte = |value: i64| u8::try_from(value).ok();
        let sub = of_day % 1000;
        Some(Self([
            byte(of_day / 1000 % 60)?,
            byte(of_day / 60_000 % 60)?,
            byte(of_day / 3_600_000)?,
            byte(day)?,
            byte(month)?,
            byte(year - 1900)?,
            byte(((sub & 0x7F) << 1) | 1)?,
            byte((sub >> 7) << 1)?,
        ]))
    }
}

// Howard Hinnant's civil calendar, from and to days since 1970-01-01.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let slot = (5 * of_year + 2) / 153;
    let day = of_year - (153 * slot + 2) / 5 + 1;
    let month = if slot < 10 { slot + 3 } else { slot - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

impl fmt::Display for LogTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_set() {
            return f.write_str("unset");
        }
        let [second, minute, hour, day, month, year, ..] = self.0;
        write!(
            f,
            "{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}{}",
            1900 + u16::from(year),
            self.millis(),
            if self.is_utc() { "Z" } else { "" },
        )
    }
}

impl Serialize for LogTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_set() { serializer.collect_str(self) } else { serializer.serialize_none() }
    }
}

/// What ties the files of one database, or of one log stream, together: all 28 bytes compare.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Signature([u8; 28]);

impl Signature {
    /// From the 28 bytes of the file format.
    pub const fn from_bytes(bytes: [u8; 28]) -> Self {
        Self(bytes)
    }

    /// A signature of a random number and a creation time; the computer name stays empty, as
    /// modern engines leave it.
    pub fn new(random: u32, created: LogTime) -> Self {
        let mut bytes = [0; 28];
        bytes[..4].copy_from_slice(&random.to_le_bytes());
        bytes[4..12].copy_from_slice(&created.0);
        Self(bytes)
    }

    /// The 28 bytes of the file format.
    pub const fn as_bytes(&self) -> &[u8; 28] {
        &self.0
    }

    pub(crate) fn parse(bytes: &[u8], at: usize) -> Self {
        Self(array_at(bytes, at))
    }

    /// The random number.
    pub fn random(&self) -> u32 {
        u32_at(&self.0, 0)
    }

    /// When it was made.
    pub fn created(&self) -> LogTime {
        LogTime::parse(&self.0, 4)
    }

    /// The computer's name, empty in modern files.
    pub fn computer(&self) -> String {
        text_at(&self.0, 12, 16)
    }

    /// Whether it is unset (all zero).
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 28]
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}@{}", self.random(), self.created())?;
        let computer = self.computer();
        if computer.is_empty() { Ok(()) } else { write!(f, "@{computer}") }
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({self})")
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a database header remembers of one backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct BackupInfo {
    /// Log position when the backup began.
    pub mark: Lgpos,
    /// When it was taken.
    pub time: LogTime,
    /// Lowest generation that belongs to it.
    pub gen_low: Generation,
    /// Highest generation that belongs to it.
    pub gen_high: Generation,
}

impl BackupInfo {
    pub(crate) fn parse(bytes: &[u8], at: usize) -> Self {
        Self {
            mark: Lgpos::parse(bytes, at),
            time: LogTime::parse(bytes, at.saturating_add(8)),
            gen_low: Generation(u32_at(bytes, at.saturating_add(16))),
            gen_high: Generation(u32_at(bytes, at.saturating_add(20))),
        }
    }
}

/// The size of a database's pages in bytes: 2048 to 32768, a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct PageSize(u32);

impl PageSize {
    /// 2 KiB (legacy).
    pub const KIB_2: Self = Self(2048);
    /// 4 KiB (Exchange up to 2003).
    pub const KIB_4: Self = Self(4096);
    /// 8 KiB (Exchange 2007).
    pub const KIB_8: Self = Self(8192);
    /// 16 KiB.
    pub const KIB_16: Self = Self(16384);
    /// 32 KiB (Exchange since 2010).
    pub const KIB_32: Self = Self(32768);
    /// Every page size, smallest first.
    pub const ALL: [Self; 5] = [Self::KIB_2, Self::KIB_4, Self::KIB_8, Self::KIB_16, Self::KIB_32];

    /// The page size of so many bytes; `None` if the engine has no such pages.
    pub fn new(bytes: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.0 == bytes)
    }

    /// From a header's field, where 0 means 4096.
    pub fn from_field(field: u32) -> Option<Self> {
        if field == 0 { Some(Self::KIB_4) } else { Self::new(field) }
    }

    /// Bytes in a page.
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// Bytes in a page, for indexing.
    pub const fn len(self) -> usize {
        self.0 as usize
    }

    /// Never: a page has bytes. Here because [`len`](Self::len) is.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// Whether pages have the large header and four checksum blocks (above 8 KiB).
    pub const fn is_large(self) -> bool {
        self.0 > 8192
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB", self.0 / 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_time_round_trips() {
        for millis in [0, 951_782_399_999, 1_717_581_880_060, 4_102_444_799_123, -2_208_988_800_000]
        {
            let time = LogTime::from_unix_millis(millis).unwrap();
            assert_eq!(time.unix_millis(), Some(millis), "{time}");
            assert!(time.is_utc());
        }
        assert_eq!(LogTime::from_unix_millis(i64::MAX), None);
        assert_eq!(LogTime::from_unix_millis(i64::MIN), None);
    }

    #[test]
    fn log_time_reads_genuine_bytes() {
        let time = LogTime::from_bytes([0x28, 0x04, 0x0A, 0x05, 0x06, 0x7C, 0x79, 0x00]);
        assert_eq!(time.to_string(), "2024-06-05T10:04:40.060Z");
        assert_eq!(LogTime::default().to_string(), "unset");
        assert_eq!(LogTime::default().unix_millis(), None);
        assert_eq!(LogTime::from_bytes([99; 8]).unix_millis(), None);
    }

    #[test]
    fn lgpos_orders_as_one_number() {
        let at = |generation, segment, byte| Lgpos::new(Generation(generation), segment, byte);
        assert!(at(1, 9, 9) < at(2, 0, 0));
        assert!(at(2, 1, 0) > at(2, 0, 9));
        let bytes = at(0x12, 0x34, 0x56).to_bytes();
        assert_eq!(Lgpos::parse(&bytes, 0), at(0x12, 0x34, 0x56));
        assert_eq!(at(0x12, 0x34, 0x56).to_string(), "(12,34,56)");
    }

    #[test]
    fn page_sizes_are_the_engines() {
        assert_eq!(PageSize::from_field(0), Some(PageSize::KIB_4));
        assert_eq!(PageSize::new(0), None);
        assert_eq!(PageSize::new(20480), None);
        assert!(!PageSize::KIB_8.is_large() && PageSize::KIB_16.is_large());
    }
}
