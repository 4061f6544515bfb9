//! Which of two encodings of a block has the smaller error, measured in what its decoder gives.

/// `sum importance * (x - y)^2` in binary64, in eight sums of every eighth weight, which are then added in order: the
/// same number at every level.
#[inline(always)]
pub(crate) fn weighted_error(x: &[f32], importance: Option<&[f32]>, y: &[f32]) -> f64 {
    let mut sums = [0f64; 8];
    let eights = x.as_chunks::<8>().0.iter().zip(y.as_chunks::<8>().0);
    match importance {
        None => {
            for (x, y) in eights {
                for i in 0..8 {
                    let error = f64::from(x[i]) - f64::from(y[i]);
                    sums[i] += error * error;
                }
            }
        }
        Some(w) => {
            for ((x, y), w) in eights.zip(w.as_chunks::<8>().0) {
                for i in 0..8 {
                    let error = f64::from(x[i]) - f64::from(y[i]);
                    sums[i] += f64::from(w[i]) * (error * error);
                }
            }
        }
    }
    sums.iter().sum()
}

/// Weights and encodings of whole blocks, one after the other.
pub(super) struct Encodings<'a> {
    pub(super) x: &'a [f32],
    pub(super) importance: Option<&'a [f32]>,
    /// Weights and bytes of a block.
    pub(super) weights: usize,
    pub(super) bytes: usize,
    /// What the blocks of `out` decode to, and those of `found`.
    pub(super) old: &'a [f32],
    pub(super) new: &'a [f32],
    pub(super) found: &'a [u8],
    pub(super) out: &'a mut [u8],
}

/// Copies the blocks of `found` that are better than those of `out`.
#[inline(always)]
pub(super) fn keep_better(e: &mut Encodings<'_>) {
    let (n, size) = (e.weights, e.bytes);
    let blocks = e.found.chunks_exact(size).zip(e.out.chunks_exact_mut(size));
    for (i, (found, block)) in blocks.enumerate() {
        let w = e.importance.map(|w| &w[i * n..][..n]);
        let x = &e.x[i * n..][..n];
        let before = weighted_error(x, w, &e.old[i * n..][..n]);
        let after = weighted_error(x, w, &e.new[i * n..][..n]);
        // Overflowing scales decode to infinities and NaN; anything finite is better.
        if after < before || before.is_nan() && after.is_finite() {
            block.copy_from_slice(found);
        }
    }
}

/// [`keep_better`] at each level: the same loops, vectorised as widely as the level allows.
macro_rules! stamped {
    ($arch:literal, $level:ident, $token:ident, $features:literal) => {
        #[cfg(target_arch = $arch)]
        #[allow(unsafe_code)]
        pub(super) mod $level {
            use super::Encodings;

            pub(in crate::best) fn keep_better(e: &mut Encodings<'_>) {
                #[target_feature(enable = $features)]
                fn inner(e: &mut Encodings<'_>) {
                    super::keep_better(e);
                }
                crate::lanes::$token::detect().expect("dispatch offers a level only where it was detected");
                // SAFETY: the token proves that this machine has the features.
                unsafe { inner(e) }
            }
        }
    };
}

stamped!("x86_64", avx2, Avx2, "avx2");
stamped!("x86_64", avx512, Avx512, "avx512f,avx512bw,avx512vl,avx512dq");
stamped!("aarch64", neon, Neon, "neon");
