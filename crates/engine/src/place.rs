//! Where in a buffer a value should lie so that direct I/O can take it as it is.
//!
//! Direct I/O wants memory and file offset at the same distance from a page boundary. Buffers are a little larger than
//! what they hold, and every value starts where its file offset asks for. A wish only: what lies elsewhere is read or
//! written through the page cache.

/// Bytes of a page, as every file system's direct I/O accepts it.
const PAGE: u64 = 4096;

/// Bytes that a buffer needs beyond its two values: each start moves by less than a page.
pub(crate) const SLACK: u64 = 2 * PAGE;

/// The same for each further value that has a place of its own.
pub(crate) const OWN_SLACK: u64 = PAGE;

/// Values smaller than this are not worth a place of their own.
pub(crate) const ROOMY: u64 = 16 * PAGE;

/// Bytes to leave out at the start of `buffer`, so that the first byte suits file offset `offset`.
pub(crate) fn skip(buffer: &[u8], offset: u64) -> usize {
    let address = buffer.as_ptr().addr() as u64;
    (offset.wrapping_sub(address) % PAGE) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_as_their_offsets_do() {
        let buffer = vec![0u8; 20_000];
        for offset in [0, 1, 32, 4095, 4096, 123_456_789] {
            let n = skip(&buffer, offset);
            assert!(n < 4096);
            assert_eq!(buffer[n..].as_ptr().addr() as u64 % PAGE, offset % PAGE);
        }
    }
}
