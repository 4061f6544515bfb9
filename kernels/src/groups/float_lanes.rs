//! Codes that are floats over lanes: a vector is a stretch of one row.

use super::code::{E2M1, FP4, NF4};
use super::decode::{Book, E4m3, E5m2, Values};
use super::float_codes::{Bounds, FP4_BOUNDS, MIDDLES, NF4_BOUNDS, Rounding};
use super::float_numbers::Numbers;
use super::floats::{Coder, SUMS, Task, encode_with};
use super::rounding::{BF16, F16, Float, round};
use crate::lanes::{Job, MAX_LANES, Scan, Simd};

/// Weights that are worked on at a time.
const CHUNK: usize = 32;

/// A [`Rounding`], known when compiled.
trait Round: Copy {
    /// What its codes stand for.
    type Values: Values;
    const VALUES: Self::Values;
    /// Codes of numbers that are not NaN.
    fn codes<V: Simd>(self, v: V, x: V::F) -> V::I;
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

#[derive(Clone, Copy)]
struct E4M3;

impl Round for E4M3 {
    type Values = E4m3;
    const VALUES: E4m3 = E4m3;

    #[inline(always)]
    fn codes<V: Simd>(self, v: V, x: V::F) -> V::I {
        signed_eighth(v, x, nearest_even(v, x, 3, 7, 448f32.to_bits()))
    }
}

#[derive(Clone, Copy)]
struct E5M2;

impl Round for E5M2 {
    type Values = E5m2;
    const VALUES: E5m2 = E5m2;

    #[inline(always)]
    fn codes<V: Simd>(self, v: V, x: V::F) -> V::I {
        signed_eighth(v, x, nearest_even(v, x, 2, 15, 57344f32.to_bits()))
    }
}

/// What is rounded to a type first.
#[derive(Clone, Copy)]
struct After<const T: u8, R>(R);

impl<const T: u8, R: Round> Round for After<T, R> {
    type Values = R::Values;
    const VALUES: R::Values = R::VALUES;

    #[inline(always)]
    fn codes<V: Simd>(self, v: V, x: V::F) -> V::I {
        self.0.codes(v, round::<V, T>(v, x))
    }
}

#[derive(Clone, Copy)]
struct E2M1Even;

impl Round for E2M1Even {
    type Values = Book;
    const VALUES: Book = Book(&E2M1);

    #[inline(always)]
    fn codes<V: Simd>(self, v: V, x: V::F) -> V::I {
        let sign = v.select_i(v.lt(x, v.splat(0.0)), v.splat_i(8), v.splat_i(0));
        nearest_even(v, x, 1, 1, 6f32.to_bits()) | sign
    }
}

#[derive(Clone, Copy)]
struct E2M1Down;

impl Round for E2M1Down {
    type Values = Book;
    const VALUES: Book = Book(&E2M1);

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
}

/// How many bounds lie below each number.
#[inline(always)]
fn places<V: Simd>(v: V, bounds: &Bounds, x: V::F) -> V::I {
    let (zero, one) = (v.splat_i(0), v.splat_i(1));
    let mut place = zero;
    for bound in bounds.bounds {
        place = place + v.select_i(v.lt(v.splat(bound), x), one, zero);
    }
    place
}

#[derive(Clone, Copy)]
struct Nf4;

impl Round for Nf4 {
    type Values = Book;
    const VALUES: Book = Book(&NF4);

    #[inline(always)]
    fn codes<V: Simd>(self, v: V, x: V::F) -> V::I {
        places(v, &NF4_BOUNDS, x)
    }
}

#[derive(Clone, Copy)]
struct Fp4;

/// The codes by place, as numbers that a lookup can move.
const FP4_CODES: [f32; 16] = {
    let (mut codes, mut i) = ([0.0; 16], 0);
    while i < 16 {
        codes[i] = FP4_BOUNDS.codes[i] as f32;
        i += 1;
    }
    codes
};

impl Round for Fp4 {
    type Values = Book;
    const VALUES: Book = Book(&FP4);

    #[inline(always)]
    fn codes<V: Simd>(self, v: V, x: V::F) -> V::I {
        v.trunc(v.look_up(&FP4_CODES, places(v, &FP4_BOUNDS, x)))
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
        importance: &[f32; CHUNK],
        numbers: &Numbers,
        sums: &mut [V::F; MAX_LANES],
    ) {
        let v = self.v;
        let (step, unit) = (v.splat(numbers.step), v.splat(numbers.unit));
        let mut i = 0;
        while i < CHUNK / V::N {
            let weights = v.load_from(&x[i * V::N..]);
            let quotient = if numbers.divide { weights / step } else { weights * step };
            let value = R::VALUES.of(v, self.round.codes(v, quotient)) * unit;
            let error = (value - weights) * (value - weights);
            let sum = i % (SUMS / V::N);
            sums[sum] = sums[sum] + v.load_from(&importance[i * V::N..]) * error;
            i += 1;
        }
    }
}

/// A chunk; what is left of a row, among zeros in `room`.
#[inline(always)]
fn whole<'a>(x: &'a [f32], room: &'a mut [f32; CHUNK]) -> &'a [f32; CHUNK] {
    if let Some(x) = x.first_chunk() {
        return x;
    }
    room[..x.len()].copy_from_slice(x);
    room[x.len()..].fill(0.0);
    room
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
        let ((mut chunks, rest), (mut outs, out_rest)) =
            (x.as_chunks::<CHUNK>(), out.as_chunks_mut::<CHUNK>());
        let (mut room, mut last) = ([0.0; CHUNK], [0; CHUNK]);
        let mut left = !rest.is_empty();
        // What is left goes through the same loop: what it calls is inlined, and takes long to compile.
        loop {
            for (x, out) in chunks.iter().zip(&mut *outs) {
                *out = self.codes_of(x, steps, divide);
            }
            if !left {
                break;
            }
            left = false;
            (chunks, outs) = (std::slice::from_ref(whole(rest, &mut room)), std::slice::from_mut(&mut last));
        }
        if !rest.is_empty() {
            out_rest.copy_from_slice(&last[..rest.len()]);
        }
    }

    #[inline(always)]
    fn errors(self, x: &[f32], importance: Option<&[f32]>, numbers: &Numbers, sums: &mut [f32; SUMS]) {
        let mut lanes = [self.v.splat(0.0); MAX_LANES];
        for i in 0..SUMS / V::N {
            lanes[i] = self.v.load_from(&sums[i * V::N..]);
        }
        let (mut room, mut weights) = ([0.0; CHUNK], [0.0; CHUNK]);
        for (i, x) in x.chunks(CHUNK).enumerate() {
            // Zeros have no error, and one changes none.
            let w = importance.map_or(&[1.0; CHUNK], |w| whole(&w[i * CHUNK..][..x.len()], &mut weights));
            self.errors_of(whole(x, &mut room), w, numbers, &mut lanes);
        }
        for i in 0..SUMS / V::N {
            self.v.store_to(lanes[i], &mut sums[i * V::N..]);
        }
    }
}

/// A task, with room for its bundles.
pub(super) struct Encode<'a> {
    pub(super) task: &'a Task<'a>,
    pub(super) out: &'a mut [u8],
}

impl Job for Encode<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Scan>(self, v: V) {
        let Self { task, out } = self;
        match (task.rounding(), task.quotients()) {
            (Rounding::E4M3, Float::F32) => encode_with(Along { v, round: E4M3 }, task, out),
            (Rounding::E4M3, Float::F16) => encode_with(Along { v, round: After::<F16, _>(E4M3) }, task, out),
            (Rounding::E4M3, Float::BF16) => {
                encode_with(Along { v, round: After::<BF16, _>(E4M3) }, task, out);
            }
            (Rounding::E5M2, Float::F32) => encode_with(Along { v, round: E5M2 }, task, out),
            (Rounding::E5M2, Float::F16) => encode_with(Along { v, round: After::<F16, _>(E5M2) }, task, out),
            (Rounding::E5M2, Float::BF16) => {
                encode_with(Along { v, round: After::<BF16, _>(E5M2) }, task, out);
            }
            (Rounding::E2M1Even, _) => encode_with(Along { v, round: E2M1Even }, task, out),
            (Rounding::E2M1Down, _) => encode_with(Along { v, round: E2M1Down }, task, out),
            (Rounding::Nf4, _) => encode_with(Along { v, round: Nf4 }, task, out),
            (Rounding::Fp4, _) => encode_with(Along { v, round: Fp4 }, task, out),
        }
    }
}
