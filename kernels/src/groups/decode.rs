//! Bundles back to rows: one by one by a table of the code's values, or over lanes.

use super::code::{E2M1, FP4, NF4};
use super::{Code, Grid, Parts};
use crate::dispatch::Level;
use crate::lanes::{Job, MAX_LANES, Scan, Simd, try_at};

/// Values of a bundle; see [`Grid::decode_row`].
pub(super) fn decode(grid: &Grid, level: Level, bundle: &[u8], out: &mut [f32]) {
    if let Err(Decode { grid, bundle, out }) = try_at(level, Decode { grid, bundle, out }) {
        one_by_one(grid, bundle, out);
    }
}

/// What a group's codes are decoded with.
#[derive(Clone, Copy)]
struct Group {
    zero: f32,
    scale: f32,
    bias: Option<f32>,
}

impl Group {
    #[inline]
    fn at(grid: &Grid, parts: &Parts<'_>, group: usize) -> Self {
        let offset = parts.offsets.get(group).map_or(0.0, |b| f32::from_le_bytes(*b));
        let (zero, bias) = grid.zero_and_bias(offset);
        Self { zero, scale: outer(parts) * f32::from_le_bytes(parts.scales[group]), bias }
    }

    #[inline(always)]
    fn values<V: Scan, T: Values, const SCALED: bool>(&self, v: V, values: T, codes: &[u8]) -> V::F {
        let (value, scale) = (values.of(v, v.load_bytes(codes)), v.splat(self.scale));
        if SCALED {
            return value * scale;
        }
        let value = (value - v.splat(self.zero)) * scale;
        match self.bias {
            Some(bias) => value + v.splat(bias),
            None => value,
        }
    }
}

/// What all scales are multiplied by.
#[inline(always)]
fn outer(parts: &Parts<'_>) -> f32 {
    parts.outer.map_or(1.0, |b| f32::from_le_bytes(*b))
}

fn one_by_one(grid: &Grid, bundle: &[u8], out: &mut [f32]) {
    let (parts, table) = (grid.parts(bundle, out.len()), grid.code.values());
    let len = grid.group_len(out.len()).max(1);
    for (i, (out, codes)) in out.chunks_mut(len).zip(parts.codes.chunks(len)).enumerate() {
        let group = Group::at(grid, &parts, i);
        for (out, code) in out.iter_mut().zip(codes) {
            let value = (table[usize::from(*code)] - group.zero) * group.scale;
            *out = group.bias.map_or(value, |bias| value + bias);
        }
    }
}

struct Decode<'a> {
    grid: &'a Grid,
    bundle: &'a [u8],
    out: &'a mut [f32],
}

impl Job for Decode<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: Scan>(self, v: V) {
        match self.grid.code {
            Code::Int(bits) => self.by::<V, _, false>(v, Whole { mask: (1 << bits) - 1 }),
            _ if self.grid.offset.is_stored() => one_by_one(self.grid, self.bundle, self.out),
            Code::E4M3 => self.by::<V, _, true>(v, E4m3),
            Code::E5M2 => self.by::<V, _, true>(v, E5m2),
            Code::E2M1 => self.by::<V, _, true>(v, Book(&E2M1)),
            Code::Nf4 => self.by::<V, _, true>(v, Book(&NF4)),
            Code::Fp4 => self.by::<V, _, true>(v, Book(&FP4)),
        }
    }
}

impl Decode<'_> {
    /// With `SCALED`, groups have nothing but their scale.
    #[inline(always)]
    fn by<V: Scan, T: Values, const SCALED: bool>(self, v: V, values: T) {
        let parts = self.grid.parts(self.bundle, self.out.len());
        let len = self.grid.group_len(self.out.len()).max(1);
        let outer = outer(&parts);
        let groups = self.out.chunks_mut(len).zip(parts.codes.chunks(len)).zip(parts.scales);
        for (i, ((out, codes), scale)) in groups.enumerate() {
            let group = if SCALED {
                Group { zero: 0.0, scale: outer * f32::from_le_bytes(*scale), bias: None }
            } else {
                Group::at(self.grid, &parts, i)
            };
            let whole = codes.len() / V::N * V::N;
            let mut c = 0;
            while c < whole {
                v.store_to(group.values::<V, T, SCALED>(v, values, &codes[c..]), &mut out[c..]);
                c += V::N;
            }
            if c < codes.len() {
                let mut last = [0; MAX_LANES];
                last[..codes.len() - c].copy_from_slice(&codes[c..]);
                let last = v.store(group.values::<V, T, SCALED>(v, values, &last));
                out[c..].copy_from_slice(&last[..codes.len() - c]);
            }
        }
    }
}

/// What codes stand for.
pub(super) trait Values: Copy {
    /// Their values; of what is wider than a code, the low bits count.
    fn of<V: Simd>(self, v: V, codes: V::I) -> V::F;
}

/// Integers.
#[derive(Clone, Copy)]
struct Whole {
    mask: i32,
}

impl Values for Whole {
    #[inline(always)]
    fn of<V: Simd>(self, v: V, codes: V::I) -> V::F {
        v.to_f(codes & v.splat_i(self.mask))
    }
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

/// [`Code::E4M3`].
#[derive(Clone, Copy)]
pub(super) struct E4m3;

impl Values for E4m3 {
    #[inline(always)]
    fn of<V: Simd>(self, v: V, codes: V::I) -> V::F {
        let value = eight_bits(v, codes, 3, 7);
        v.select(v.eq_i(codes & v.splat_i(0x7f), v.splat_i(0x7f)), v.splat(f32::NAN), value)
    }
}

/// [`Code::E5M2`].
#[derive(Clone, Copy)]
pub(super) struct E5m2;

impl Values for E5m2 {
    #[inline(always)]
    fn of<V: Simd>(self, v: V, codes: V::I) -> V::F {
        let magnitude = codes & v.splat_i(0x7f);
        let infinity =
            v.float(v.splat_i(f32::INFINITY.to_bits().cast_signed()) | v.shl(codes & v.splat_i(0x80), 24));
        let value = v.select(v.lt_i(magnitude, v.splat_i(0x7c)), eight_bits(v, codes, 2, 15), infinity);
        v.select(v.lt_i(v.splat_i(0x7c), magnitude), v.splat(f32::NAN), value)
    }
}

/// Any sixteen values, by code.
#[derive(Clone, Copy)]
pub(super) struct Book(pub(super) &'static [f32; 16]);

impl Values for Book {
    #[inline(always)]
    fn of<V: Simd>(self, v: V, codes: V::I) -> V::F {
        v.look_up(self.0, codes)
    }
}
