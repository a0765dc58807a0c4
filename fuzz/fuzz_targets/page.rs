#![no_main]
//! Pages: what is said to be correctable is good once it is corrected, and both kernels agree.

use libfuzzer_sys::fuzz_target;
use stillpoint_ese::{
    PageFault, PageState, block_checksum, block_checksum_portable, check_page, write::seal_page,
};

fuzz_target!(|data: (u8, u32, Vec<u8>)| {
    let (kind, number, content) = data;
    let mut page = vec![0; 2048 << (kind % 5)];
    for (into, from) in page.iter_mut().zip(&content) {
        *into = *from;
    }
    if kind >= 128 {
        seal_page(&mut page, number);
        if let Some(bits) = content.last_chunk::<4>() {
            let bit = u32::from_le_bytes(*bits) as usize % (page.len() * 8);
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }
    for first in [true, false] {
        let block = &page[..page.len().min(8192)];
        assert_eq!(
            block_checksum(block, number, first),
            block_checksum_portable(block, number, first)
        );
    }
    if let PageState::Bad(PageFault::Correctable { bits }) = check_page(&page, number) {
        for bit in bits {
            page[bit as usize / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(check_page(&page, number), PageState::Good);
    }
});
