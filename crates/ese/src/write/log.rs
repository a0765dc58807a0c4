//! Log streams and checkpoints of our own making.

use super::{Noise, put, put_u32, seal_header, signature, time};
use crate::{
    Generation, Lgpos, LogName, LogTime, PageSize, Signature,
    bytes::u64_at,
    checksum::block_checksum,
    log::{HEADER_LEN, RECORD, seal_range},
};

const SEGMENT: usize = 4096;
/// Sectors of version 7.
const SECTOR: usize = 512;

/// A log stream to write: closed logs and the current one, chained to each other.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogStreamSpec {
    seed: u64,
    base: String,
    first: Generation,
    last: Generation,
    has_current: bool,
    old_format: bool,
    segments: u16,
    page_size: PageSize,
    signature: Signature,
    database: Signature,
    path: String,
}

/// A log with the name it has in its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedLog {
    /// File name.
    pub name: String,
    /// Generation.
    pub generation: Generation,
    /// Content.
    pub bytes: Vec<u8>,
}

impl LogStreamSpec {
    /// The generations `first` to `last` of base name `E00`, the last of them the current log,
    /// 1 MiB each as Exchange has them.
    pub fn new(seed: u64, first: Generation, last: Generation) -> Self {
        Self {
            seed,
            base: "E00".to_owned(),
            first,
            last,
            has_current: true,
            old_format: false,
            segments: 256,
            page_size: PageSize::KIB_32,
            signature: signature(seed, 2),
            database: signature(seed, 1),
            path: "D:\\DB01\\DB01.edb".to_owned(),
        }
    }

    /// Base name, three characters.
    pub fn with_base(mut self, base: impl Into<String>) -> Self {
        self.base = base.into();
        self
    }

    /// Whether the last generation is the log being written; otherwise it is closed, as after the
    /// freeze of a VSS backup.
    pub fn with_current(mut self, has_current: bool) -> Self {
        self.has_current = has_current;
        self
    }

    /// Whether the logs have version 7 (Exchange 2003 to 2010): sectors of 512 bytes and checksums
    /// over what was written at once.
    pub fn with_old_format(mut self, old_format: bool) -> Self {
        self.old_format = old_format;
        self
    }

    /// Segments of 4096 bytes of a log, at least 4; 256 in Exchange.
    pub fn with_segments(mut self, segments: u16) -> Self {
        self.segments = segments.max(4);
        self
    }

    /// Page size of the databases.
    pub fn with_page_size(mut self, page_size: PageSize) -> Self {
        self.page_size = page_size;
        self
    }

    /// Signature of the stream; of the seed unless given.
    pub fn with_signature(mut self, signature: Signature) -> Self {
        self.signature = signature;
        self
    }

    /// Signature and path of the database that the headers list.
    pub fn with_database(mut self, signature: Signature, path: impl Into<String>) -> Self {
        self.database = signature;
        self.path = path.into();
        self
    }

    /// Signature of the stream.
    pub fn signature(&self) -> Signature {
        self.signature
    }

    /// When a generation was created.
    pub fn created(&self, generation: Generation) -> LogTime {
        let number = i64::from(generation.number());
        let jitter = Noise::new(self.seed ^ u64::from(generation.number())).below(1000);
        time(number * 60_000 + i64::try_from(jitter).unwrap_or(0))
    }

    /// Every log of the stream, lowest generation first, made as they are asked for.
    pub fn logs(&self) -> impl Iterator<Item = NamedLog> + '_ {
        let mut accumulated = None;
        (self.first.number()..=self.last.number()).map(move |number| {
            let generation = Generation::new(number);
            let is_current = self.has_current && generation == self.last;
            // What came before the first log is not there to be asked; any number will do.
            let before = accumulated.unwrap_or_else(|| {
                if number <= 1 { 0 } else { Noise::new(self.seed ^ 0xACC).u64() | 1 }
            });
            let (bytes, sum) = self.log(generation, is_current, before);
            accumulated = Some(sum);
            let name = if is_current {
                format!("{}.log", self.base)
            } else {
                LogName::closed(&self.base, generation)
            };
            NamedLog { name, generation, bytes }
        })
    }

    fn log(&self, generation: Generation, is_current: bool, before: u64) -> (Vec<u8>, u64) {
        let mut bytes = vec![0; usize::from(self.segments) * SEGMENT];
        let noise = Noise::new(self.seed.rotate_left(40) ^ u64::from(generation.number()));
        let accumulated = if self.old_format {
            fill_ranges(&mut bytes, generation, is_current, noise);
            0
        } else {
            self.fill_segments(&mut bytes, generation, is_current, noise)
        };
        self.fill_header(&mut bytes[..HEADER_LEN], generation, before);
        (bytes, accumulated)
    }

    /// Writes a version 8 body; gives the XOR of its checksums.
    fn fill_segments(
        &self,
        bytes: &mut [u8],
        generation: Generation,
        is_current: bool,
        mut noise: Noise,
    ) -> u64 {
        let count = bytes.len() / SEGMENT;
        // A closed log is full; the current one is written to a third. Both end with a shadow.
        let data = if is_current { count / 3 } else { count - 2 };
        let mut accumulated = 0;
        for index in 1..=data {
            let segment = &mut bytes[index * SEGMENT..(index + 1) * SEGMENT];
            noise.fill(&mut segment[40..]);
            let at = Lgpos::new(generation, u16::try_from(index).unwrap_or(0), 0);
            put(segment, 8, &at.to_bytes());
            put(segment, 16, &self.created(generation).to_bytes());
            put_u32(segment, 36, 0x2000);
            let number = u32::try_from(index).unwrap_or(0);
            let sum = block_checksum(segment, number, true).unwrap_or(0);
            put(segment, 0, &sum.to_le_bytes());
            accumulated ^= u64_at(segment, 0);
        }
        let last = data * SEGMENT..(data + 1) * SEGMENT;
        bytes.copy_within(last, (data + 1) * SEGMENT);
        accumulated
    }

    fn fill_header(&self, header: &mut [u8], generation: Generation, before: u64) {
        let sector = if self.old_format { SECTOR } else { SEGMENT };
        let in_sectors = |len: usize| u16::try_from(len / sector).unwrap_or(0).to_le_bytes();
        put_u32(header, 4, generation.number());
        put(header, 8, &u16::try_from(sector).unwrap_or(0).to_le_bytes());
        put(header, 10, &in_sectors(HEADER_LEN));
        put(header, 12, &in_sectors(usize::from(self.segments) * SEGMENT));
        // 32 KiB fits; the field has 16 bits.
        put(header, 14, &u16::try_from(self.page_size.bytes()).unwrap_or(0).to_le_bytes());
        put(header, 16, &self.created(generation).to_bytes());
        if generation.number() > 1 {
            let previous = Generation::new(generation.number() - 1);
            put(header, 24, &self.created(previous).to_bytes());
        }
        let versions = if self.old_format {
            [(32, 7), (36, 3704), (40, 17), (648, 0), (667, 0)]
        } else {
            [(32, 8), (36, 4000), (40, 5), (648, 16), (667, 3)]
        };
        for (at, value) in versions {
            put_u32(header, at, value);
        }
        put(header, 44, self.signature.as_bytes());
        put(header, 72, b"D:\\DB01\\logs\\");
        put(header, 333, b"D:\\DB01\\logs\\");
        let behind = generation.number().saturating_sub(2).max(1);
        put(header, 640, &Lgpos::new(Generation::new(behind), 1, 0).to_bytes());
        if !self.old_format {
            put(header, 653, &before.to_le_bytes());
        }
        put(header, 671, &attachment(self.database, &self.path));
        seal_header(header);
    }
}

/// Writes a version 7 body: ranges of one to nine sectors, the last in one sector with its shadow.
fn fill_ranges(bytes: &mut [u8], generation: Generation, is_current: bool, mut noise: Noise) {
    let sectors = bytes.len() / SECTOR;
    let header = HEADER_LEN / SECTOR;
    // A closed log is full; the current one is written to a third.
    let last = if is_current { sectors / 3 } else { sectors - 2 }.max(header);
    let mut below = |end: usize| usize::try_from(noise.below(end as u64)).unwrap_or(0);
    let (mut sector, mut at) = (header, 0);
    let mut content = Noise::new(u64::from(generation.number()));
    while sector < last {
        let count = (1 + below(9)).min(last - sector);
        let range = &mut bytes[sector * SECTOR..(sector + count) * SECTOR];
        content.fill(range);
        let next_at = below(SECTOR - 2 * RECORD);
        let end = count * SECTOR;
        seal_range(range, SECTOR, at, end, Some(end + next_at), generation, false);
        sector += count;
        at = next_at;
    }
    let (range, after) = bytes[sector * SECTOR..].split_at_mut(SECTOR);
    let end = at + RECORD + below(SECTOR - at - RECORD);
    content.fill(&mut range[..end]);
    seal_range(range, SECTOR, at, end, None, generation, false);
    let shadow = &mut after[..SECTOR];
    shadow.copy_from_slice(range);
    seal_range(shadow, SECTOR, at, end, None, generation, true);
}

/// One packed entry of an attachment list.
fn attachment(signature: Signature, path: &str) -> Vec<u8> {
    let name: Vec<u8> = path.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let mut entry = vec![0; 64];
    entry[0] = 1;
    entry[1] = 0x20;
    put(&mut entry, 2, &u16::try_from(name.len()).unwrap_or(0).to_le_bytes());
    put(&mut entry, 4, &0x1000u64.to_le_bytes());
    put_u32(&mut entry, 12, 9);
    put(&mut entry, 20, &Lgpos::new(Generation::new(1), 3, 9).to_bytes());
    put(&mut entry, 28, &Lgpos::new(Generation::new(1), 3, 8).to_bytes());
    put(&mut entry, 36, signature.as_bytes());
    entry.extend(name);
    entry
}

/// A checkpoint to write.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CheckpointSpec {
    checkpoint: Lgpos,
    signature: Signature,
}

impl CheckpointSpec {
    /// A checkpoint of a stream.
    pub fn new(signature: Signature, checkpoint: Lgpos) -> Self {
        Self { checkpoint, signature }
    }

    /// The whole file: two equal copies.
    pub fn bytes(&self) -> Vec<u8> {
        let mut copy = vec![0; 4096];
        put(&mut copy, 12, &self.checkpoint.to_bytes());
        put(&mut copy, 20, self.signature.as_bytes());
        put_u32(&mut copy, 667, 4);
        seal_header(&mut copy);
        copy.repeat(2)
    }
}
