//! Codes that are floats over lanes: a vector is a stretch of one row.

use super::code::{E2M1, FP4, NF4};
use super::float_codes::{Book, FP4_BOOK, MIDDLES, NF4_BOOK, Rounding};
use super::float_numbers::Numbers;
use super::floats::{Coder, Job, SUMS, encode_with};
use super::rounding::{BF16, F16, Float, round};
use super::{Code, Grid, Parts};
use crate::lanes::{MAX_LANES, Scan, Simd, stamp_calls};

stamp_calls! {
    encode(job: &crate::groups::floats::Job<'_>, out: &mut [u8]) = encode;
    decode(grid: &crate::groups::Grid, parts: &crate::groups::Parts<'_>, out: &mut [f32]) = decode;
}

/// Weights that are worked on at a time.
const CHUNK: usize = 32;

/// A [`Rounding`], known when compiled.
trait Round: Copy {
    /// Codes of numbers that are not NaN.
    fn codes<V: Simd>(self, v: V, x: V::F) -> V::I;
    /// The values of any codes.
    fn values<V: Simd>(self, v: V, codes: V::I) -> V::F;
}

/// A small float of this many bits of mantissa, to nearest even, without its sign; `largest` is that number's bit pattern.
#[inline(always)]
fn nearest_even<V: Simd>(v: V, x: V::F, mantissa: u32, bias: u32, largest: u32) -> V::I {
    let dropped = 23 - mantissa;
    let magnitude = v.min_i(v.bits(x) & v.splat_i(i32::MAX), v.splat_i(largest.cast_signed()));
    // Binary32's exponent of the smallest normal number.
    let smallest = 128 - bias;
    let shift = v.splat(f32::from_bits((smallest + dropped) << 23));
    let subnormal = v.bits(v.float(magnitude) + shift) - v.bits(shift);
    let odd = v.shr(magnitude, dropped) & v.splat_i(1);
    let offset = ((smallest - 1) << 23) + 1 - (1 << (dropped - 1));
    let normal = v.shr(magnitude - v.splat_i(offset.cast_signed()) + odd, dropped);
    v.select_i(v.lt_i(magnitude, v.splat_i((smallest << 23).cast_signed())), subnormal, normal)
}

#[inline(always)]
fn signed_eighth<V: Simd>(v: V, x: V::F, magnitude: V::I) -> V::I {
    (v.shr(v.bits(x), 24) & v.splat_i(0x80)) | magnitude
}

/// Values of 8-bit floats, specials aside.
#[inline(always)]
fn eight_bits<V: Simd>(v: V, codes: V::I, mantissa: u32, bias: u32) -> V::F {
    let magnitude = codes & v.splat_i(0x7f);
    let normal = v.float(v.shl(magnitude, 23 - mantissa) + v.splat_i(((127 - bias) << 23).cast_signed()));
    // Not by multiplying a binary32 that is subnormal, which some processors do slowly.
    let last = v.splat(f32::from_bits((128 - bias - mantissa) << 23));
    let subnormal = v.to_f(magnitude) * last;
    let value = v.select(v.lt_i(magnitude, v.splat_i(1 << mantissa)), subnormal, normal);
    v.float(v.bits(value) | v.shl(codes & v.splat_i(0x80), 24))
}

#[derive(Clone, Copy)]
struct E4M3;

impl Round for E4M3 {
    #[inline(always)]
    fn codes<V: Simd>(self, v: V, x: V::F) -> V::I {
        signed_eighth(v, x, nearest_even(v, x, 3, 7, 448f32.to_bits()))
    }

    #[inline(always)]
    fn values<V: Simd>(self, v: V, codes: V::I) -> V::F {
        let value = eight_bits(v, codes, 3, 7);
        v.select(v.eq_i(codes & v.splat_i(0x7f), v.splat_i(0x7f)), v.splat(f32::NAN), value)
    }
}

#[derive(Clone, Copy)]
struct E5M2;

impl Round for E5M2 {
    #[inline(always)]
    fn codes<V: Simd>(self, v: V, x: V::F) -> V::I {
        signed_eighth(v, x, nearest_even(v, x, 2, 15, 57344f32.to_bits()))
    }

    #[inline(always)]
    fn values<V: Simd>(self, v: V, codes: V::I) -> V::F {
        let magnitude = codes & v.splat_i(0x7f);
        let infinity =
            v.float(v.splat_i(f32::INFINITY.to_bits().cast_signed()) | v.shl(codes & v.splat_i(0x80), 24));
        let value = v.select(v.lt_i(magnitude, v.splat_i(0x7c)), eight_bits(v, codes, 2, 15), infinity);
        v.select(v.lt_i(v.splat_i(0x7c), magnitude), v.splat(f32::NAN), value)
    }
}

/// What is rounded to a type first.
#[derive(Clone, Copy)]
struct After<const T: u8, R>(R);

impl<const T: u8, R: Round> Round for After<T, R> {
    #[inline(always)]
    fn codes<V: Simd>(self, v: V, x: V::F) -> V::I {
        self.0.codes(v, round::<V, T>(v, x))
    }

    #[inline(always)]
    fn values<V: Simd>(self, v: V, codes: V::I) -> V::F {
        self.0.values(v, codes)
    }
}

#[derive(Clone, Copy)]
struct E2M1Even;

impl Round for E2M1Even {
    #[inline(always)]
    fn codes<V: Simd>(self, v: V, x: V::F) -> V::I {
        let sign = v.select_i(v.lt(x, v.splat(0.0)), v.splat_i(8), v.splat_i(0));
        nearest_even(v, x, 1, 1, 6f32.to_bits()) | sign
    }

    #[inline(always)]
    fn values<V: Simd>(self, v: V, codes: V::I) -> V::F {
        v.look_up(&E2M1, codes)
    }
}

#[derive(Clone, Copy)]
struct E2M1Down;

impl Round for E2M1Down {
    #[inline(always)]
    fn codes<V: Simd>(self, v: V, x: V::F) -> V::I {
        let (zero, one, magnitude) = (v.splat_i(0), v.splat_i(1), v.abs(x));
        let mut level = zero;
        for middle in MIDDLES {
            level = level + v.select_i(v.lt(v.splat(middle), magnitude), one, zero);
        }
        let sign = v.select_i(v.lt(x, v.splat(-MIDDLES[0])), v.splat_i(8), zero);
        level | sign
    }

    #[inline(always)]
    fn values<V: Simd>(self, v: V, codes: V::I) -> V::F {
        v.look_up(&E2M1, codes)
    }
}

/// How many bounds lie below each number.
#[inline(always)]
fn places<V: Simd>(v: V, book: &Book, x: V::F) -> V::I {
    let (zero, one) = (v.splat_i(0), v.splat_i(1));
    let mut place = zero;
    for bound in book.bounds {
        place = place + v.select_i(v.lt(v.splat(bound), x), one, zero);
    }
    place
}

#[derive(Clone, Copy)]
struct Nf4;

impl Round for Nf4 {
    #[inline(always)]
    fn codes<V: Simd>(self, v: V, x: V::F) -> V::I {
        places(v, &NF4_BOOK, x)
    }

    #[inline(always)]
    fn values<V: Simd>(self, v: V, codes: V::I) -> V::F {
        v.look_up(&NF4, codes)
    }
}

#[derive(Clone, Copy)]
struct Fp4;

/// The codes by place, as numbers that a lookup can move.
const FP4_CODES: [f32; 16] = {
    let (mut codes, mut i) = ([0.0; 16], 0);
    while i < 16 {
        codes[i] = FP4_BOOK.codes[i] as f32;
        i += 1;
    }
    codes
};

impl Round for Fp4 {
    #[inline(always)]
    fn codes<V: Simd>(self, v: V, x: V::F) -> V::I {
        v.trunc(v.look_up(&FP4_CODES, places(v, &FP4_BOOK, x)))
    }

    #[inline(always)]
    fn values<V: Simd>(self, v: V, codes: V::I) -> V::F {
        v.look_up(&FP4, codes)
    }
}

#[derive(Clone, Copy)]
struct Along<V, R> {
    v: V,
    round: R,
}

impl<V: Simd, R: Round> Along<V, R> {
    #[inline(always)]
    fn codes_of(self, x: &[f32; CHUNK], steps: [V::F; 2], divide: bool) -> [u8; CHUNK] {
        let v = self.v;
        let mut codes = [v.splat_i(0); CHUNK];
        let mut i = 0;
        while i < CHUNK / V::N {
            let step = steps[i * V::N / 16];
            let x = v.load_from(&x[i * V::N..]);
            let quotient = if divide { x / step } else { x * step };
            codes[i] = self.round.codes(v, quotient);
            i += 1;
        }
        v.to_bytes(&codes[..CHUNK / V::N])
    }

    #[inline(always)]
    fn errors_of(
        self,
        x: &[f32; CHUNK],
        importance: Option<&[f32; CHUNK]>,
        numbers: &Numbers,
        sums: &mut [V::F; MAX_LANES],
    ) {
        let v = self.v;
        let (step, unit) = (v.splat(numbers.step), v.splat(numbers.unit));
        let mut i = 0;
        while i < CHUNK / V::N {
            let weights = v.load_from(&x[i * V::N..]);
            let quotient = if numbers.divide { weights / step } else { weights * step };
            let value = self.round.values(v, self.round.codes(v, quotient)) * unit;
            let mut error = (value - weights) * (value - weights);
            if let Some(w) = importance {
                error = v.load_from(&w[i * V::N..]) * error;
            }
            let sum = i % (SUMS / V::N);
            sums[sum] = sums[sum] + error;
            i += 1;
        }
    }
}

/// What is left of a row, among zeros.
#[inline(always)]
fn padded(x: &[f32]) -> [f32; CHUNK] {
    let mut whole = [0.0; CHUNK];
    whole[..x.len()].copy_from_slice(x);
    whole
}

impl<V: Scan, R: Round> Coder for Along<V, R> {
    #[inline(always)]
    fn amax(self, x: &[f32]) -> f32 {
        // As integers, magnitudes compare as they do as numbers, in any order.
        let v = self.v;
        let magnitude = v.splat_i(i32::MAX);
        let mut most = v.splat_i(0);
        let (chunks, rest) = x.as_chunks::<MAX_LANES>();
        for x in chunks {
            let mut i = 0;
            while i < MAX_LANES {
                most = v.max_i(v.bits(v.load_from(&x[i..])) & magnitude, most);
                i += V::N;
            }
        }
        let mut amax = v.store(v.neg(v.least(v.neg(v.float(most)))))[0];
        for x in rest {
            amax = amax.max(x.abs());
        }
        amax
    }

    #[inline(always)]
    fn codes(self, x: &[f32], steps: [f32; 2], divide: bool, out: &mut [u8]) {
        let steps = [self.v.splat(steps[0]), self.v.splat(steps[1])];
        let (chunks, rest) = x.as_chunks::<CHUNK>();
        let (outs, out_rest) = out.as_chunks_mut::<CHUNK>();
        for (x, out) in chunks.iter().zip(outs) {
            *out = self.codes_of(x, steps, divide);
        }
        if !rest.is_empty() {
            out_rest.copy_from_slice(&self.codes_of(&padded(rest), steps, divide)[..rest.len()]);
        }
    }

    #[inline(always)]
    #[allow(clippy::manual_map)] // There are no closures in generic code: see `lanes`.
    fn errors(self, x: &[f32], importance: Option<&[f32]>, numbers: &Numbers, sums: &mut [f32; SUMS]) {
        let mut lanes = [self.v.splat(0.0); MAX_LANES];
        for i in 0..SUMS / V::N {
            lanes[i] = self.v.load_from(&sums[i * V::N..]);
        }
        let (chunks, rest) = x.as_chunks::<CHUNK>();
        for (i, x) in chunks.iter().enumerate() {
            let w = match importance {
                Some(w) => w[i * CHUNK..].first_chunk(),
                None => None,
            };
            self.errors_of(x, w, numbers, &mut lanes);
        }
        if !rest.is_empty() {
            // Zeros have no error.
            let w = importance.map(|w| padded(&w[chunks.len() * CHUNK..]));
            self.errors_of(&padded(rest), w.as_ref(), numbers, &mut lanes);
        }
        for i in 0..SUMS / V::N {
            self.v.store_to(lanes[i], &mut sums[i * V::N..]);
        }
    }
}

#[inline(always)]
pub(super) fn encode<V: Scan>(v: V, job: &Job<'_>, out: &mut [u8]) {
    match job.rounding() {
        Rounding::E4M3 => match job.quotients() {
            Float::F32 => encode_with(Along { v, round: E4M3 }, job, out),
            Float::F16 => encode_with(Along { v, round: After::<F16, _>(E4M3) }, job, out),
            Float::BF16 => encode_with(Along { v, round: After::<BF16, _>(E4M3) }, job, out),
        },
        Rounding::E5M2 => match job.quotients() {
            Float::F32 => encode_with(Along { v, round: E5M2 }, job, out),
            Float::F16 => encode_with(Along { v, round: After::<F16, _>(E5M2) }, job, out),
            Float::BF16 => encode_with(Along { v, round: After::<BF16, _>(E5M2) }, job, out),
        },
        Rounding::E2M1Even => encode_with(Along { v, round: E2M1Even }, job, out),
        Rounding::E2M1Down => encode_with(Along { v, round: E2M1Down }, job, out),
        Rounding::Nf4 => encode_with(Along { v, round: Nf4 }, job, out),
        Rounding::Fp4 => encode_with(Along { v, round: Fp4 }, job, out),
    }
}

#[inline(always)]
fn decode_with<V: Simd, R: Round>(v: V, round: R, grid: &Grid, parts: &Parts<'_>, out: &mut [f32]) {
    let len = grid.group_len(out.len()).max(1);
    let outer = match parts.outer {
        Some(bytes) => f32::from_le_bytes(*bytes),
        None => 1.0,
    };
    for ((out, codes), scale) in out.chunks_mut(len).zip(parts.codes.chunks(len)).zip(parts.scales) {
        let scale = v.splat(outer * f32::from_le_bytes(*scale));
        let whole = out.len() / MAX_LANES * MAX_LANES;
        let mut i = 0;
        while i < whole {
            v.store_to(round.values(v, v.load_bytes(&codes[i..])) * scale, &mut out[i..]);
            i += V::N;
        }
        if whole < out.len() {
            let (mut last, mut decoded) = ([0; MAX_LANES], [0.0; MAX_LANES]);
            let rest = out.len() - whole;
            last[..rest].copy_from_slice(&codes[whole..]);
            let mut i = 0;
            while i < MAX_LANES {
                v.store_to(round.values(v, v.load_bytes(&last[i..])) * scale, &mut decoded[i..]);
                i += V::N;
            }
            out[whole..].copy_from_slice(&decoded[..rest]);
        }
    }
}

#[inline(always)]
pub(super) fn decode<V: Simd>(v: V, grid: &Grid, parts: &Parts<'_>, out: &mut [f32]) {
    match grid.code {
        Code::E4M3 => decode_with(v, E4M3, grid, parts, out),
        Code::E5M2 => decode_with(v, E5M2, grid, parts, out),
        Code::E2M1 => decode_with(v, E2M1Even, grid, parts, out),
        Code::Nf4 => decode_with(v, Nf4, grid, parts, out),
        Code::Fp4 => decode_with(v, Fp4, grid, parts, out),
        Code::Int(_) => unreachable!("integers have their own decoders"),
    }
}
