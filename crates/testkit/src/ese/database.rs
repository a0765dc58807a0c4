//! Damage to databases.

use std::collections::BTreeSet;

use stillpoint_ese::{PageSize, Place, read_database_header, write::Noise};

use super::Done;

/// The bit of a page that says which checksum it has.
const FORMAT_BIT: u32 = 301;

/// Damages a database in memory, no page more than once, so that every finding has one cause.
#[derive(Debug)]
pub struct DatabaseDamager<'a> {
    noise: Noise,
    file: &'a mut Vec<u8>,
    page_size: PageSize,
    touched: BTreeSet<u32>,
    header_is_touched: bool,
}

impl<'a> DatabaseDamager<'a> {
    /// Takes up a file that is whole; `None` when it is no database. The same seed does the same.
    pub fn new(seed: u64, file: &'a mut Vec<u8>) -> Option<Self> {
        let page_size = read_database_header(file).ok()?.header.page_size;
        Some(Self {
            noise: Noise::new(seed),
            file,
            page_size,
            touched: BTreeSet::new(),
            header_is_touched: false,
        })
    }

    /// One of the things below, to whole pages or a header; `None` when nothing is left to damage.
    pub fn any(&mut self) -> Option<Done> {
        match self.noise.below(12) {
            3..=5 => self.turn_two_bits(),
            6 => self.copy_page(),
            7 | 8 => self.tear_page(),
            9 => self.overwrite_page(),
            10 if !self.header_is_touched => self.turn_header_bit(),
            _ => self.turn_bit(),
        }
    }

    /// Turns a bit of a page.
    pub fn turn_bit(&mut self) -> Option<Done> {
        let page = self.fresh_page()?;
        let bit = self.below(self.page_size.bytes() * 8);
        self.flip(page, bit);
        let is_located = self.uses_ecc(page, &[bit]) && bit >= 64 && bit != FORMAT_BIT;
        Some(Done::BitsTurned { page, bits: vec![bit], is_located })
    }

    /// Turns two bits of a page, of one checksum block or of two.
    pub fn turn_two_bits(&mut self) -> Option<Done> {
        let page = self.fresh_page()?;
        let bits = self.page_size.bytes() * 8;
        let one = self.below(bits);
        let mut other = (one + 1 + self.below(bits - 1)) % bits;
        // The old checksum is blind to two bits of one column.
        if !self.uses_ecc(page, &[]) && one % 32 == other % 32 {
            other ^= 1;
        }
        let mut turned = vec![one, other];
        turned.sort_unstable();
        for &bit in &turned {
            self.flip(page, bit);
        }
        let block = bits / if self.page_size.is_large() { 4 } else { 1 };
        // Each block names one bit, but not one of the stored checksum or the format.
        let is_located = self.uses_ecc(page, &turned)
            && one / block != other / block
            && turned.iter().all(|&bit| bit >= 64 && bit != FORMAT_BIT);
        Some(Done::BitsTurned { page, bits: turned, is_located })
    }

    /// Swaps two pages.
    pub fn swap_pages(&mut self) -> Option<[Done; 2]> {
        let (one, other) = (self.fresh_page()?, self.fresh_page()?);
        let content = self.page(one).to_vec();
        let moved = self.page(other).to_vec();
        self.page_mut(one).copy_from_slice(&moved);
        self.page_mut(other).copy_from_slice(&content);
        Some([
            Done::ContentMoved { page: one, from: other },
            Done::ContentMoved { page: other, from: one },
        ])
    }

    /// Writes a page over another.
    pub fn copy_page(&mut self) -> Option<Done> {
        let (page, from) = (self.fresh_page()?, self.fresh_page()?);
        let content = self.page(from).to_vec();
        self.page_mut(page).copy_from_slice(&content);
        Some(Done::ContentMoved { page, from })
    }

    /// Leaves the first sectors of a page and gives it the rest of another.
    pub fn tear_page(&mut self) -> Option<Done> {
        let (page, from) = (self.fresh_page()?, self.fresh_page()?);
        let sectors = self.page_size.bytes() / 512;
        let at = 512 * (1 + self.below(sectors - 1)) as usize;
        let rest = self.page(from)[at..].to_vec();
        self.page_mut(page)[at..].copy_from_slice(&rest);
        Some(Done::PageTorn { page })
    }

    /// Overwrites a few dozen bytes of a page's data.
    pub fn overwrite_page(&mut self) -> Option<Done> {
        let page = self.fresh_page()?;
        let mut junk = [0; 48];
        self.noise.fill(&mut junk);
        let at = 80 + self.below(self.page_size.bytes() - 80 - 48) as usize;
        self.page_mut(page)[at..at + 48].copy_from_slice(&junk);
        Some(Done::PageOverwritten { page })
    }

    /// Turns a bit of the fields of one copy of the header; only once, or nothing would be left.
    pub fn turn_header_bit(&mut self) -> Option<Done> {
        if self.header_is_touched {
            return None;
        }
        self.header_is_touched = true;
        let is_shadow = self.noise.below(2) == 1;
        let at = self.below(748) as usize + if is_shadow { self.page_size.len() } else { 0 };
        let bit = self.noise.below(8);
        *self.file.get_mut(at)? ^= 1 << bit;
        let place = if is_shadow { Place::ShadowHeader } else { Place::Header };
        Some(Done::HeaderBitTurned { place, offset: at as u64 })
    }

    /// Cuts the file in the middle of its last page.
    pub fn cut(&mut self) -> Done {
        let tail = 1 + self.below(self.page_size.bytes() - 1) as usize;
        let whole = (self.file.len() / self.page_size.len()).saturating_sub(1);
        self.file.truncate(whole * self.page_size.len() + tail);
        Done::Cut { tail: tail as u64 }
    }

    /// A page with content that was not touched before.
    fn fresh_page(&mut self) -> Option<u32> {
        let pages = u32::try_from(self.file.len() / self.page_size.len()).ok()?.checked_sub(2)?;
        let fresh: Vec<u32> = (1..=pages)
            .filter(|page| !self.touched.contains(page))
            .filter(|&page| self.page(page).iter().any(|&byte| byte != 0))
            .collect();
        let chosen = *fresh.get(usize::try_from(self.noise.below(fresh.len() as u64)).ok()?)?;
        self.touched.insert(chosen);
        Some(chosen)
    }

    /// Whether a page has the ECC format, the turned bits turned back.
    fn uses_ecc(&self, page: u32, turned: &[u32]) -> bool {
        (self.page(page)[37] & 0x20 != 0) != turned.contains(&FORMAT_BIT)
    }

    fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.noise.below(u64::from(end))).unwrap_or(0)
    }

    fn flip(&mut self, page: u32, bit: u32) {
        self.page_mut(page)[bit as usize / 8] ^= 1 << (bit % 8);
    }

    fn page(&self, page: u32) -> &[u8] {
        let at = (page as usize + 1) * self.page_size.len();
        &self.file[at..at + self.page_size.len()]
    }

    fn page_mut(&mut self, page: u32) -> &mut [u8] {
        let at = (page as usize + 1) * self.page_size.len();
        let len = self.page_size.len();
        &mut self.file[at..at + len]
    }
}
