//! Finds damage in SQLite's log that SQLite itself takes for its end.
//!
//! SQLite reads its log up to the first frame whose checksum is wrong, and forgets the rest: right after a crash, where
//! that is a commit that was never finished, and silent where it is damage to commits that were acknowledged.
//!
//! ```text
//!   header │ frame frame commit │ frame ✗ commit │ frame commit │ …
//!                                       │        └──────┴─ chained: this commit was synced before the next began
//!                                       └─ so this is damage, not a torn end
//! ```
//!
//! Each frame's header holds the checksum of everything up to it. Where, behind a wrong frame, a commit is followed by a
//! frame that is chained to it, a later transaction was begun, so the one before had been synced. What a killed process
//! left behind the end, or a failed commit, is never chained to more than itself.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

const HEADER: usize = 32;
const FRAME: usize = 24;

/// How often a log that is found damaged is looked at: a foreign tool may have begun it anew under our eyes.
const LOOKS: usize = 3;

/// What is wrong with the log, in words, if anything is.
pub(crate) fn damage(log: &Path) -> io::Result<Option<String>> {
    let mut found = None;
    for _ in 0..LOOKS {
        let file = match File::open(log) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        found = scan(&mut BufReader::with_capacity(1 << 18, file))?;
        if found.is_none() {
            break;
        }
    }
    Ok(found)
}

fn scan(log: &mut impl Read) -> io::Result<Option<String>> {
    let mut header = [0; HEADER];
    if !fill(log, &mut header)? {
        return Ok(None);
    }
    let Some(start) = Header::parse(&header) else {
        // It is synced before a frame is written.
        let mut rest = Vec::new();
        log.read_to_end(&mut rest)?;
        let written = header.iter().chain(&rest).any(|byte| *byte != 0) && rest.len() > FRAME;
        return Ok(written.then(|| "the header of the log is wrong".to_owned()));
    };
    let mut frame = vec![0; FRAME + start.page];
    // What the frame before says its sum is, and what it is: damage may be in either.
    let mut before = [start.sum; 2];
    let mut wrong = None;
    let mut commit = false;
    let mut number = 0_usize;
    while fill(log, &mut frame)? {
        number += 1;
        let sum = |from| start.add(start.add(from, &frame[..8]), &frame[FRAME..]);
        let (stored, computed) = (pair(&frame[16..24]), sum(before[0]));
        let chained = frame[8..16] == start.salt
            && (computed == stored || before[0] != before[1] && sum(before[1]) == stored);
        if !chained && wrong.is_none() {
            wrong = Some(number);
        }
        if let Some(wrong) = wrong
            && chained
            && commit
        {
            return Ok(Some(format!("frame {wrong} of the log is wrong, and later commits exist")));
        }
        before = [stored, computed];
        commit = frame[4..8] != [0; 4];
    }
    Ok(None)
}

/// Fills the buffer; says no at the end.
fn fill(log: &mut impl Read, into: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

type Sum = (u32, u32);

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn pair(bytes: &[u8]) -> Sum {
    (word(&bytes[..4]), word(&bytes[4..8]))
}

/// What the log's header says.
struct Header {
    page: usize,
    salt: [u8; 8],
    sum: Sum,
    big_endian: bool,
}

impl Header {
    fn parse(header: &[u8; HEADER]) -> Option<Self> {
        let magic = word(&header[..4]);
        let page = usize::try_from(word(&header[8..12])).ok()?;
        let sound =
            magic & !1 == 0x377f_0682 && page.is_power_of_two() && (512..=65_536).contains(&page);
        if !sound {
            return None;
        }
        let salt = header[16..24].try_into().ok()?;
        let mut parsed = Self { page, salt, sum: (0, 0), big_endian: magic & 1 == 1 };
        parsed.sum = parsed.add((0, 0), &header[..24]);
        (parsed.sum == pair(&header[24..])).then_some(parsed)
    }

    /// SQLite's checksum, continued.
    fn add(&self, (mut a, mut b): Sum, bytes: &[u8]) -> Sum {
        for eight in bytes.chunks_exact(8) {
            let (mut x, mut y) = pair(eight);
            if !self.big_endian {
                (x, y) = (x.swap_bytes(), y.swap_bytes());
            }
            a = a.wrapping_add(x).wrapping_add(b);
            b = b.wrapping_add(y).wrapping_add(a);
        }
        (a, b)
    }
}
