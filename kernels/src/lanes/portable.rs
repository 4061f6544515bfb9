//! Lanes as a plain array: any machine has it. Not a level of ggml's encoders (their references are as fast), but what
//! checks the lane-generic code on machines without wide vectors, and at widths that no instruction set here has. What
//! has no other reference (`best`) runs on it at the scalar level.

mod scan;

use super::{Codebook, MAX_LANES, Simd};
use crate::num;
use std::ops::{Add, BitAnd, BitOr, Div, Mul, Sub};

/// `N` lanes, at most [`MAX_LANES`].
#[derive(Clone, Copy)]
pub(crate) struct Portable<const N: usize>;

/// `N` values, one per lane.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<T, const N: usize>([T; N]);

macro_rules! lanewise {
    ($($trait:ident $name:ident $type:ty: |$a:ident, $b:ident| $result:expr;)*) => {
        $(impl<const N: usize> $trait for Lanes<$type, N> {
            type Output = Self;
            fn $name(self, other: Self) -> Self {
                Self(std::array::from_fn(|l| { let ($a, $b) = (self.0[l], other.0[l]); $result }))
            }
        })*
    };
}

lanewise! {
    Add add f32: |a, b| a + b;
    Sub sub f32: |a, b| a - b;
    Mul mul f32: |a, b| a * b;
    Div div f32: |a, b| a / b;
    Add add i32: |a, b| a.wrapping_add(b);
    Sub sub i32: |a, b| a.wrapping_sub(b);
    BitAnd bitand i32: |a, b| a & b;
    BitOr bitor i32: |a, b| a | b;
    BitAnd bitand bool: |a, b| a & b;
    BitOr bitor bool: |a, b| a | b;
}

impl<T: Copy, const N: usize> Lanes<T, N> {
    fn map<U>(self, f: impl Fn(T) -> U) -> Lanes<U, N> {
        Lanes(self.0.map(f))
    }

    fn with<U>(self, other: Self, f: impl Fn(T, T) -> U) -> Lanes<U, N> {
        Lanes(std::array::from_fn(|l| f(self.0[l], other.0[l])))
    }

    fn select(m: Lanes<bool, N>, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|l| if m.0[l] { a.0[l] } else { b.0[l] }))
    }
}

impl<const N: usize> Simd for Portable<N> {
    const N: usize = N;
    type F = Lanes<f32, N>;
    type I = Lanes<i32, N>;
    type M = Lanes<bool, N>;

    fn splat(self, x: f32) -> Self::F {
        Lanes([x; N])
    }
    fn splat_i(self, x: i32) -> Self::I {
        Lanes([x; N])
    }
    fn load_columns(self, x: &[f32], at: &[usize; MAX_LANES], out: &mut [Self::F]) {
        for (c, column) in out.iter_mut().enumerate() {
            *column = Lanes(std::array::from_fn(|l| x[at[l] + c]));
        }
    }
    fn store_columns(self, words: &[Self::I], out: &mut [u32], stride: usize) {
        for (c, column) in words[..N].iter().enumerate() {
            for l in 0..N {
                out[l * stride + c] = column.0[l] as u32;
            }
        }
    }
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        a.with(b, |a, b| if a < b { a } else { b })
    }
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        a.with(b, num::c_max)
    }
    fn abs(self, a: Self::F) -> Self::F {
        a.map(f32::abs)
    }
    fn neg(self, a: Self::F) -> Self::F {
        a.map(|a| -a)
    }
    fn sqrt(self, a: Self::F) -> Self::F {
        a.map(f32::sqrt)
    }
    fn round(self, a: Self::F) -> Self::F {
        // Without SSE4.1 the standard library's is a call. From 2^23 on all numbers are integral.
        const INTEGRAL: f32 = 8_388_608.0;
        a.map(|a| {
            let rounded = ((a.abs() + INTEGRAL) - INTEGRAL).copysign(a);
            if a.abs() < INTEGRAL { rounded } else { a }
        })
    }
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        a.with(b, |a, b| a < b)
    }
    fn le(self, a: Self::F, b: Self::F) -> Self::M {
        a.with(b, |a, b| a <= b)
    }
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        a.with(b, |a, b| a == b)
    }
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F {
        Lanes::select(m, a, b)
    }
    fn select_i(self, m: Self::M, a: Self::I, b: Self::I) -> Self::I {
        Lanes::select(m, a, b)
    }
    fn any(self, m: Self::M) -> bool {
        m.0.contains(&true)
    }
    fn all(self, m: Self::M) -> bool {
        !m.0.contains(&false)
    }
    fn bits(self, a: Self::F) -> Self::I {
        a.map(|a| a.to_bits() as i32)
    }
    fn float(self, a: Self::I) -> Self::F {
        a.map(|a| f32::from_bits(a as u32))
    }
    fn trunc(self, a: Self::F) -> Self::I {
        a.map(num::truncate)
    }
    fn to_f(self, a: Self::I) -> Self::F {
        a.map(|a| a as f32)
    }
    fn shl(self, a: Self::I, by: u32) -> Self::I {
        a.map(|a| a << by)
    }
    fn shr(self, a: Self::I, by: u32) -> Self::I {
        a.map(|a| (a as u32 >> by) as i32)
    }
    fn min_i(self, a: Self::I, b: Self::I) -> Self::I {
        a.with(b, i32::min)
    }
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I {
        a.with(b, i32::max)
    }
    fn lt_i(self, a: Self::I, b: Self::I) -> Self::M {
        a.with(b, |a, b| a < b)
    }
    fn eq_i(self, a: Self::I, b: Self::I) -> Self::M {
        a.with(b, |a, b| a == b)
    }
    fn load(self, x: &[f32; MAX_LANES]) -> Self::F {
        Lanes(std::array::from_fn(|l| x[l]))
    }
    fn store(self, x: Self::F) -> [f32; MAX_LANES] {
        std::array::from_fn(|l| if l < N { x.0[l] } else { 0.0 })
    }
    fn load_bytes(self, bytes: &[u8]) -> Self::I {
        Lanes(std::array::from_fn(|l| i32::from(bytes[l])))
    }
    fn store_to(self, x: Self::F, out: &mut [f32]) {
        out[..N].copy_from_slice(&x.0);
    }
    fn look_up(self, table: &[f32; 16], index: Self::I) -> Self::F {
        index.map(|i| table[i as usize & 15])
    }
    fn nearest(self, book: &Codebook, x: Self::F) -> Self::F {
        x.map(|x| book.entries[book.thresholds.iter().filter(|&&t| x >= t).count()])
    }
}
