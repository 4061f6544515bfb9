//! How codes stand in bytes: pure functions on rows.
//!
//! Sources: compressed-tensors `compressors/pack_quantized/helpers.py`, GPTQModel `nn_modules/qlinear/__init__.py`, AutoAWQ
//! `utils/packing_utils.py`, bitsandbytes `backends/cpu/ops.py`, MLX `backend/cpu/quantized.cpp`.

/// Order of the codes of a row. All of them begin with the first code in the lowest bits unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// One stream of bits, without gaps: codes may cross bytes and words.
    Dense,
    /// As many whole codes as fit in each 32-bit word; the bits above them are zero.
    Words,
    /// Two 4-bit codes in a byte, the first one in the high half.
    HighFirst,
    /// Eight 4-bit codes in a 32-bit word: nibble `i` holds the code of column `AWQ[i]` of eight.
    Awq,
}

/// Which of eight columns each nibble of an AWQ word holds.
pub const AWQ: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Codes of a given width in a given order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packing {
    /// Order of the codes.
    pub order: Order,
    /// Bits of a code, 1 to 8.
    pub bits: u32,
    /// What each code is changed by (exclusive or) before it is stored: the sign bit, where files have signed integers.
    pub flip: u8,
}

impl Packing {
    /// Bytes of signed integers, as codes around 128.
    pub const SIGNED: Self = Self { flip: 0x80, ..Self::dense(8) };

    /// Dense codes as they are.
    pub const fn dense(bits: u32) -> Self {
        Self { order: Order::Dense, bits, flip: 0 }
    }

    /// Bytes of `columns` codes, before they are filled up to whole words.
    pub fn bytes(self, columns: u64) -> u64 {
        match self.order {
            Order::Dense | Order::HighFirst => (columns * u64::from(self.bits)).div_ceil(8),
            Order::Words => columns.div_ceil(u64::from(32 / self.bits)) * 4,
            Order::Awq => columns.div_ceil(8) * 4,
        }
    }

    /// Packs a row; bytes that are left are zero.
    pub fn pack(self, codes: &[u8], out: &mut [u8]) {
        let (bits, flip) = (self.bits, self.flip);
        let used = (self.bytes(codes.len() as u64) as usize).min(out.len());
        out[used..].fill(0);
        match (self.order, bits) {
            (Order::Dense | Order::Words, 8) => {
                for (o, c) in out.iter_mut().zip(codes) {
                    *o = c ^ flip;
                }
            }
            (Order::Dense | Order::Words, 4) => {
                let (pairs, rest) = codes.as_chunks::<2>();
                pack_pairs(pairs, flip, out);
                if let [last] = rest {
                    out[pairs.len()] = (last ^ flip) & 15;
                }
                out[pairs.len() + rest.len()..used].fill(0);
            }
            (Order::HighFirst, _) => {
                for (o, c) in out.iter_mut().zip(codes.chunks(2)) {
                    *o = ((c[0] ^ flip) << 4) | c.get(1).map_or(0, |c| (c ^ flip) & 15);
                }
            }
            (Order::Awq, _) => {
                for (o, c) in out.chunks_exact_mut(4).zip(codes.chunks(8)) {
                    let word = (0..8).fold(0u32, |w, i| {
                        w | c.get(AWQ[i]).map_or(0, |c| u32::from((c ^ flip) & 15) << (4 * i))
                    });
                    o.copy_from_slice(&word.to_le_bytes());
                }
            }
            (Order::Words, _) => {
                for (o, c) in out.chunks_exact_mut(4).zip(codes.chunks((32 / bits) as usize)) {
                    let word = c.iter().rev().fold(0u32, |w, c| (w << bits) | u32::from(self.masked(*c)));
                    o.copy_from_slice(&word.to_le_bytes());
                }
            }
            (Order::Dense, _) => {
                let (mut held, mut have, mut at) = (0u32, 0, 0);
                for c in codes {
                    held |= u32::from(self.masked(*c)) << have;
                    have += bits;
                    while have >= 8 {
                        out[at] = held as u8;
                        (held, have, at) = (held >> 8, have - 8, at + 1);
                    }
                }
                if have > 0 {
                    out[at] = held as u8;
                }
            }
        }
    }

    fn masked(self, code: u8) -> u8 {
        (code ^ self.flip) & ((1u16 << self.bits) - 1) as u8
    }

    /// The codes of a packed row.
    pub fn unpack(self, bytes: &[u8], codes: &mut [u8]) {
        let (bits, flip) = (self.bits, self.flip);
        match (self.order, bits) {
            (Order::Dense | Order::Words, 8) => {
                for (c, b) in codes.iter_mut().zip(bytes) {
                    *c = b ^ flip;
                }
            }
            (Order::Dense | Order::Words, 4) => {
                let (pairs, rest) = codes.as_chunks_mut::<2>();
                unpack_pairs(bytes, flip & 15, pairs);
                if let ([last], Some(b)) = (rest, bytes.get(pairs.len())) {
                    *last = (b & 15) ^ (flip & 15);
                }
            }
            (Order::HighFirst, _) => {
                for (c, b) in codes.chunks_mut(2).zip(bytes) {
                    c[0] = (b >> 4) ^ (flip & 15);
                    if let Some(c) = c.get_mut(1) {
                        *c = (b & 15) ^ (flip & 15);
                    }
                }
            }
            (Order::Awq, _) => {
                for (c, word) in codes.chunks_mut(8).zip(bytes.as_chunks::<4>().0) {
                    let word = u32::from_le_bytes(*word);
                    for (i, at) in AWQ.into_iter().enumerate() {
                        if let Some(c) = c.get_mut(at) {
                            *c = ((word >> (4 * i)) & 15) as u8 ^ (flip & 15);
                        }
                    }
                }
            }
            (Order::Words, _) => {
                for (c, word) in codes.chunks_mut((32 / bits) as usize).zip(bytes.as_chunks::<4>().0) {
                    let mut word = u32::from_le_bytes(*word);
                    for c in c {
                        *c = self.masked(word as u8 ^ flip) ^ self.masked(0);
                        word >>= bits;
                    }
                }
            }
            (Order::Dense, _) => {
                let (mut held, mut have, mut rest) = (0u32, 0, bytes.iter());
                for c in codes {
                    while have < bits {
                        held |= u32::from(rest.next().copied().unwrap_or(0)) << have;
                        have += 8;
                    }
                    *c = self.masked(held as u8 ^ flip) ^ self.masked(0);
                    (held, have) = (held >> bits, have - bits);
                }
            }
        }
    }
}

/// Two codes of 4 bits to a byte, the first one in the low half.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2"))]
fn pack_pairs(pairs: &[[u8; 2]], flip: u8, out: &mut [u8]) {
    for (o, [a, b]) in out.iter_mut().zip(pairs) {
        *o = ((a ^ flip) & 15) | ((b ^ flip) << 4);
    }
}

/// The way back.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2"))]
fn unpack_pairs(bytes: &[u8], flip: u8, pairs: &mut [[u8; 2]]) {
    for (pair, b) in pairs.iter_mut().zip(bytes) {
        *pair = [(b & 15) ^ flip, (b >> 4) ^ flip];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        for order in [Order::Dense, Order::Words, Order::HighFirst, Order::Awq] {
            for bits in 1..=8 {
                if matches!(order, Order::HighFirst | Order::Awq) && bits != 4 {
                    continue;
                }
                for flip in [0, 1 << (bits - 1)] {
                    for n in [1, 7, 8, 31, 32, 33, 100] {
                        let p = Packing { order, bits, flip };
                        let mask = ((1u32 << bits) - 1) as u8;
                        let codes: Vec<u8> = (0..n).map(|i: u8| i.wrapping_mul(37) & mask).collect();
                        let mut bytes = vec![0xaa; p.bytes(u64::from(n)) as usize + 3];
                        p.pack(&codes, &mut bytes);
                        let mut back = vec![0; codes.len()];
                        p.unpack(&bytes, &mut back);
                        assert_eq!(back, codes, "{p:?} {n}");
                    }
                }
            }
        }
    }

    #[test]
    fn three_bits_are_dense_or_ten_to_a_word() {
        let codes: Vec<u8> = (0..32).map(|i| i % 8).collect();
        let mut dense = [0; 12];
        Packing::dense(3).pack(&codes, &mut dense);
        let bits = codes.iter().enumerate().fold(0u128, |b, (i, c)| b | u128::from(*c) << (3 * i));
        assert_eq!(dense, bits.to_le_bytes()[..12]);
        let mut words = [0; 16];
        Packing { order: Order::Words, bits: 3, flip: 0 }.pack(&codes, &mut words);
        let word = (0..10).fold(0u32, |w, i| w | (i % 8) << (3 * i));
        assert_eq!(words[..4], word.to_le_bytes());
    }

    #[test]
    fn awq_words_hold_even_columns_first() {
        let mut out = [0; 4];
        Packing { order: Order::Awq, bits: 4, flip: 0 }.pack(&[0, 1, 2, 3, 4, 5, 6, 7], &mut out);
        assert_eq!(u32::from_le_bytes(out), 0x7531_6420);
    }
}
