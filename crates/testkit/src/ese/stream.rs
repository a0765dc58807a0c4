//! Damage to log streams.

use stillpoint_ese::{
    Generation, block_checksum,
    write::{NamedLog, Noise, seal_header},
};

use super::Done;

const SEGMENT: usize = 4096;

/// Damages the logs of a stream of version 8 in memory. A log should be damaged once, so that every
/// finding has one cause.
#[derive(Debug)]
pub struct StreamDamager<'a> {
    noise: Noise,
    logs: &'a mut Vec<NamedLog>,
}

impl<'a> StreamDamager<'a> {
    /// Takes up logs that are whole. The same seed does the same.
    pub fn new(seed: u64, logs: &'a mut Vec<NamedLog>) -> Self {
        Self { noise: Noise::new(seed), logs }
    }

    /// Turns a bit of a segment with data that is not the last, which its shadow would restore.
    pub fn turn_bit(&mut self, generation: Generation) -> Option<Done> {
        let data = self.data(generation)?;
        let segment = self.between(1, data)?;
        let bit = u32::try_from(self.noise.below(SEGMENT as u64 * 8)).ok()?;
        self.segment(generation, segment)?[bit as usize / 8] ^= 1 << (bit % 8);
        Some(Done::SegmentBitTurned { generation, segment, bit })
    }

    /// Tears the last segment with data.
    pub fn tear_end(&mut self, generation: Generation) -> Option<Done> {
        let segment = self.data(generation)?;
        let at = 512 * usize::try_from(1 + self.noise.below(7)).ok()?;
        let mut junk = vec![0; SEGMENT - at];
        self.noise.fill(&mut junk);
        self.segment(generation, segment)?[at..].copy_from_slice(&junk);
        Some(Done::EndTorn { generation, segment })
    }

    /// Puts the same segment of an older log of the stream in the place of one with data.
    pub fn make_stale(&mut self, generation: Generation) -> Option<Done> {
        let older =
            self.logs.iter().map(|log| log.generation).filter(|&log| log < generation).max()?;
        let data = self.data(generation)?.min(self.data(older)?);
        let segment = self.between(1, data)?;
        let content = self.segment(older, segment)?.to_vec();
        self.segment(generation, segment)?.copy_from_slice(&content);
        Some(Done::SegmentStale { generation, segment })
    }

    /// Gives a segment another content, with a right checksum.
    pub fn rewrite(&mut self, generation: Generation) -> Option<Done> {
        let data = self.data(generation)?;
        let segment = self.between(1, data)?;
        let mut junk = [0; 64];
        self.noise.fill(&mut junk);
        let bytes = self.segment(generation, segment)?;
        bytes[100..164].copy_from_slice(&junk);
        let sum = block_checksum(bytes, segment, true)?;
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        Some(Done::SegmentRewritten { generation, segment })
    }

    /// Takes a log away.
    pub fn remove(&mut self, generation: Generation) -> Option<Done> {
        let at = self.logs.iter().position(|log| log.generation == generation)?;
        self.logs.remove(at);
        Some(Done::LogRemoved { generation })
    }

    /// Gives a log the signature of another stream.
    pub fn change_signature(&mut self, generation: Generation) -> Option<Done> {
        let header = self.segment(generation, 0)?;
        header[44] ^= 0x55;
        seal_header(header);
        Some(Done::SignatureChanged { generation })
    }

    /// Lets a log say that its predecessor was created at another time.
    pub fn fork_history(&mut self, generation: Generation) -> Option<Done> {
        let header = self.segment(generation, 0)?;
        // The second of the time, which stays a time.
        header[24] = (header[24] + 1) % 60;
        seal_header(header);
        Some(Done::HistoryForked { generation })
    }

    fn log(&mut self, generation: Generation) -> Option<&mut NamedLog> {
        self.logs.iter_mut().find(|log| log.generation == generation)
    }

    fn segment(&mut self, generation: Generation, segment: u32) -> Option<&mut [u8]> {
        let at = usize::try_from(segment).ok()? * SEGMENT;
        self.log(generation)?.bytes.get_mut(at..at + SEGMENT)
    }

    /// The last segment with data: those of its own position, the header not counted.
    fn data(&mut self, generation: Generation) -> Option<u32> {
        let bytes = &self.log(generation)?.bytes;
        let own = bytes.chunks_exact(SEGMENT).enumerate().skip(1).take_while(|(index, segment)| {
            let at = u16::from_le_bytes([segment[10], segment[11]]);
            usize::from(at) == *index && segment[12..16] == generation.number().to_le_bytes()
        });
        own.last().and_then(|(index, _)| u32::try_from(index).ok())
    }

    /// A number from `first` on and below `end`.
    fn between(&mut self, first: u32, end: u32) -> Option<u32> {
        let count = end.checked_sub(first).filter(|&count| count > 0)?;
        Some(first + u32::try_from(self.noise.below(u64::from(count))).ok()?)
    }
}
