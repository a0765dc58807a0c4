use super::*;
use crate::write::seal_page;

/// The definition, bit by bit, to hold the fast way against.
fn naive_block_checksum(block: &[u8], number: u32, first: bool) -> u64 {
    let mask = block.len() * 8 - 1;
    let (mut low, mut high, mut sum) = (0usize, 0usize, 0u32);
    for (byte, &value) in block.iter().enumerate() {
        let value = if first && byte < 8 { 0 } else { value };
        for bit in 0..8 {
            if value >> bit & 1 == 1 {
                let index = byte * 8 + bit;
                low ^= index;
                high ^= mask - index;
                sum ^= 1 << (index % 32);
            }
        }
    }
    ((high as u64) << 48) | ((low as u64) << 32) | u64::from(sum ^ number)
}

fn words(len: usize, value: impl Fn(u32) -> u32) -> Vec<u8> {
    (0..u32::try_from(len / 4).unwrap()).flat_map(|index| value(index).to_le_bytes()).collect()
}

#[test]
fn vectors_of_the_format() {
    let at =
        |index: u32, value: u32| words(4096, move |word| if word == index { value } else { 0 });
    let ramp = words(4096, |word| word);
    let spread = words(8192, |word| word.wrapping_mul(2_654_435_761));
    let mut last_bit = vec![0; 8192];
    last_bit[8191] = 0x80;
    let zero = vec![0; 8192];
    for (block, number, first, expected) in [
        (&at(9, 0x2000), 1, true, 0x7ED2_012D_0000_2001),
        (&at(10, 8), 7, true, 0x7EBC_0143_0000_000F),
        (&ramp, 1, true, 0x7FDF_0020_0000_0000),
        (&ramp, 1, false, 0x0000_0000_0000_0001),
        (&spread, 1000, true, 0xCD4E_CD4E_2546_3A59),
        (&spread, 1000, false, 0x3292_CD6D_BB71_43E8),
        (&last_bit, 0x12345, true, 0x0000_FFFF_8001_2345),
        (&zero, 1, false, 0x0000_0000_0000_0001),
    ] {
        let computed = block_checksum(block, number, first).unwrap();
        assert_eq!(computed, expected, "{computed:016X} {expected:016X}");
        assert_eq!(naive_block_checksum(block, number, first), expected);
        assert_eq!(block_checksum_portable(block, number, first), Some(expected));
    }
}

#[test]
fn header_checksum_vectors() {
    assert_eq!(header_checksum(&[0; 4096]), 0x89AB_CDEF);
    assert!(!is_header_good(&[0; 4096]));
    let mut magic = vec![0; 4096];
    magic[4..8].copy_from_slice(&SEED.to_le_bytes());
    assert_eq!(header_checksum(&magic), 0);
    assert!(is_header_good(&magic));
    assert!(!is_header_good(&[]));
}

#[test]
fn other_lengths_have_no_checksum() {
    for len in [0, 1, 7, 1024, 2047, 4097, 16384] {
        assert_eq!(block_checksum(&vec![1; len], 1, true), None);
        assert!(
            len == 16384 || check_page(&vec![1; len], 1) == PageState::Bad(PageFault::Checksum)
        );
    }
}

/// A page with seeded content and right checksums.
fn page(size: PageSize, number: u32, seed: u64) -> Vec<u8> {
    let mut page = vec![0; size.len()];
    crate::write::Noise::new(seed).fill(&mut page);
    page[36..40].copy_from_slice(&0x0000_A803_u32.to_le_bytes());
    seal_page(&mut page, number);
    page
}

#[test]
fn the_fast_way_equals_the_definition() {
    for seed in 0..20 {
        for size in [PageSize::KIB_2, PageSize::KIB_4, PageSize::KIB_8] {
            let block = page(size, 9, seed);
            for first in [true, false] {
                assert_eq!(
                    block_checksum(&block, 77, first).unwrap(),
                    naive_block_checksum(&block, 77, first),
                );
            }
        }
    }
}

/// Turns every single bit of a page in turn. All must be found; all must be located, except the
/// checksum's own 64 bits and the format flag.
fn turn_every_bit(size: PageSize) {
    let number = 4711;
    let mut page = page(size, number, u64::from(size.bytes()));
    assert_eq!(check_page(&page, number), PageState::Good);
    for bit in 0..size.bytes() * 8 {
        let byte = bit as usize / 8;
        page[byte] ^= 1 << (bit % 8);
        match check_page(&page, number) {
            PageState::Bad(PageFault::Correctable { bits }) => assert_eq!(bits, [bit], "{size}"),
            PageState::Bad(fault) => {
                assert!(bit < 64 || bit == FLAG_ECC_BIT, "{size} bit {bit} not located");
                // The low dword of a single block's checksum is where the page number is mixed in.
                let astray = matches!(fault, PageFault::WrongPage { .. });
                assert_eq!(astray, bit < 32 && !size.is_large(), "{size} bit {bit}: {fault:?}");
            }
            state => panic!("{size} bit {bit} not found: {state:?}"),
        }
        page[byte] ^= 1 << (bit % 8);
    }
}

#[test]
fn every_bit_of_2_kib() {
    turn_every_bit(PageSize::KIB_2);
}

#[test]
fn every_bit_of_4_kib() {
    turn_every_bit(PageSize::KIB_4);
}

#[test]
fn every_bit_of_8_kib() {
    turn_every_bit(PageSize::KIB_8);
}

#[test]
fn every_bit_of_16_kib() {
    turn_every_bit(PageSize::KIB_16);
}

#[test]
fn every_bit_of_32_kib() {
    turn_every_bit(PageSize::KIB_32);
}

/// A number of the caller's, to repeat a run or to make it longer.
fn asked(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Turns two bits of a page at a time. `STILLPOINT_ESE_FLIPS` says how many pairs for each page
/// size, `STILLPOINT_ESE_SEED` from which seed.
fn turn_two_bits(size: PageSize) {
    let pairs = asked("STILLPOINT_ESE_FLIPS", 100_000);
    let seed = asked("STILLPOINT_ESE_SEED", 1);
    println!("{size}: {pairs} pairs of bits from STILLPOINT_ESE_SEED={seed}");
    let bits = u64::from(size.bytes()) * 8;
    let block_bits = usize::try_from(bits).unwrap() / if size.is_large() { 4 } else { 1 };
    let mut noise = crate::write::Noise::new(seed ^ u64::from(size.bytes()).rotate_left(32));
    let mut page = page(size, 99, seed);
    let mut done = 0;
    while done < pairs {
        let (one, two) = (noise.below(bits), noise.below(bits));
        if one == two {
            continue;
        }
        done += 1;
        let (one, two) = (usize::try_from(one).unwrap(), usize::try_from(two).unwrap());
        for bit in [one, two] {
            page[bit / 8] ^= 1 << (bit % 8);
        }
        let context = format!("{size} seed {seed} pair {done}: bits {one} and {two}");
        match check_page(&page, 99) {
            PageState::Bad(PageFault::Correctable { bits }) => {
                // Only two blocks can each have one bit; the engine corrects these too.
                let mut both = [one, two];
                both.sort_unstable();
                let mut found: Vec<usize> = bits.iter().map(|&bit| bit as usize).collect();
                found.sort_unstable();
                assert_ne!(one / block_bits, two / block_bits, "{context}: taken for one bit");
                assert_eq!(found, both, "{context}");
            }
            PageState::Bad(_) => {}
            state => panic!("{context}: missed: {state:?}"),
        }
        for bit in [one, two] {
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }
    assert_eq!(check_page(&page, 99), PageState::Good);
}

#[test]
fn two_bits_of_2_kib() {
    turn_two_bits(PageSize::KIB_2);
}

#[test]
fn two_bits_of_4_kib() {
    turn_two_bits(PageSize::KIB_4);
}

#[test]
fn two_bits_of_8_kib() {
    turn_two_bits(PageSize::KIB_8);
}

#[test]
fn two_bits_of_16_kib() {
    turn_two_bits(PageSize::KIB_16);
}

#[test]
fn two_bits_of_32_kib() {
    turn_two_bits(PageSize::KIB_32);
}

#[test]
fn content_of_another_page_names_it() {
    for size in PageSize::ALL {
        let page = page(size, 0x1234, 3);
        assert_eq!(
            check_page(&page, 0x1237),
            PageState::Bad(PageFault::WrongPage { actual: 0x1234 }),
            "{size}"
        );
    }
}

#[test]
fn a_large_page_must_carry_its_own_number() {
    let mut page = page(PageSize::KIB_16, 12, 3);
    page[64..68].copy_from_slice(&13u32.to_le_bytes());
    let block = blocks(PageSize::KIB_16).next().unwrap();
    let sum = block.checksum(&page, 12);
    page[..8].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(check_page(&page, 12), PageState::Bad(PageFault::NumberField { found: 13 }));
}

#[test]
fn old_format() {
    for size in [PageSize::KIB_2, PageSize::KIB_4, PageSize::KIB_8] {
        let mut page = page(size, 6, 1);
        page[36..40].copy_from_slice(&0x0803_u32.to_le_bytes());
        seal_page(&mut page, 6);
        assert_eq!(u32_at(&page, 4), 6);
        assert_eq!(check_page(&page, 6), PageState::Good);
        assert_eq!(check_page(&page, 7), PageState::Bad(PageFault::WrongPage { actual: 6 }));
        for bit in 0..size.bytes() * 8 {
            page[bit as usize / 8] ^= 1 << (bit % 8);
            assert!(matches!(check_page(&page, 6), PageState::Bad(_)), "{size} bit {bit}");
            page[bit as usize / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn a_large_page_in_the_old_format_is_bad() {
    let mut page = page(PageSize::KIB_32, 6, 1);
    page[36..40].copy_from_slice(&0x0803_u32.to_le_bytes());
    let sum = header_checksum(&page);
    page[..4].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(check_page(&page, 6), PageState::Bad(PageFault::Checksum));
}
