//! Little-endian fields at fixed offsets. Reading past the end gives zeros: older engines wrote
//! shorter structures and left the rest zero, and no input may make a reader panic.

/// `N` bytes at `at`, zeros when they are not all there.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(<[u8]>::first_chunk::<N>).copied().unwrap_or([0; N])
}

pub(crate) fn u8_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// The text of a fixed field up to its first NUL; bytes that are no UTF-8 are replaced.
pub(crate) fn text_at(bytes: &[u8], at: usize, len: usize) -> String {
    let field = bytes.get(at..at.saturating_add(len)).unwrap_or_default();
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(field.get(..end).unwrap_or_default()).into_owned()
}

/// The first NUL-terminated UTF-16 or 8-bit string of a packed name field.
pub(crate) fn first_name(field: &[u8], wide: bool) -> String {
    if wide {
        let units: Vec<u16> = field
            .chunks_exact(2)
            .map(|pair| u16_at(pair, 0))
            .take_while(|&unit| unit != 0)
            .collect();
        String::from_utf16_lossy(&units)
    } else {
        text_at(field, 0, field.len())
    }
}

/// Whether every byte is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // A row at a time: a page that has something on it is told by its first, an empty one is read
    // at the rate of memory.
    let (rows, tail) = bytes.as_chunks::<64>();
    rows.iter().all(|row| row.iter().fold(0, |all, byte| all | byte) == 0)
        && tail.iter().all(|&byte| byte == 0)
}
