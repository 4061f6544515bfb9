//! Decompositions of matrices whose singular values are known.

use nalgebra::DMatrix;
use std::ops::Range;
use tensormill_lowrank::{Dense, Failure, Matrix, Options, Svd, decompose, memory, product, residual};

/// Numbers without a pattern.
fn noise(i: usize) -> f64 {
    let mut x = (i as u64 + 1).wrapping_mul(0x2545_f491_4f6c_dd1d);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 32;
    (x >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn basis(rows: usize, columns: usize, seed: usize) -> DMatrix<f64> {
    DMatrix::from_fn(rows, columns, |i, j| noise(seed + i * columns + j)).qr().q()
}

/// A matrix with these singular values, row by row.
fn with_spectrum(rows: usize, columns: usize, s: &[f64]) -> Vec<f32> {
    let (u, v) = (basis(rows, s.len(), 1), basis(columns, s.len(), 1 << 30));
    let d = u * DMatrix::from_diagonal(&s.to_vec().into()) * v.transpose();
    (0..rows * columns).map(|i| d[(i / columns, i % columns)] as f32).collect()
}

fn decomposed(values: &[f32], columns: usize, options: &Options) -> Svd {
    decompose(&Dense { values, columns }, options).unwrap()
}

/// How far the product of the factors is from the matrix, relative to it.
fn error(values: &[f32], columns: usize, svd: Svd) -> f64 {
    let (rank, energy) = (svd.rank(), svd.energy);
    let (left, right) = svd.into_factors();
    (residual(&Dense { values, columns }, &left, &right, rank, 2).unwrap() / energy).sqrt()
}

/// How far `x`'s vectors (in columns, row by row) are from orthonormal.
fn skew(x: &[f32], vectors: usize, at: impl Fn(usize, usize) -> usize) -> f64 {
    let n = x.len() / vectors;
    let dot = |a, b| (0..n).map(|i| f64::from(x[at(i, a)]) * f64::from(x[at(i, b)])).sum::<f64>();
    let pairs = (0..vectors).flat_map(|a| (0..vectors).map(move |b| (a, b)));
    pairs.map(|(a, b)| (dot(a, b) - f64::from(u8::from(a == b))).abs()).fold(0.0, f64::max)
}

#[test]
fn low_ranks_are_found_exactly() {
    for (m, n, rank) in [(300, 200, 5), (90, 700, 16), (1000, 70, 1), (2000, 64, 12)] {
        let s: Vec<f64> = (0..rank).map(|i| 3.0 * 0.6f64.powi(i)).collect();
        let d = with_spectrum(m, n, &s);
        let svd = decomposed(&d, n, &Options::new(rank as usize));
        for (got, want) in svd.s.iter().zip(&s) {
            assert!((got - want).abs() < 2e-6 * s[0], "{m}x{n}: {got} for {want}");
        }
        let k = svd.rank();
        let skews = (skew(&svd.u, k, |i, a| i * k + a), skew(&svd.v, k, |i, a| a * n + i));
        assert!(skews.0 < 1e-3 && skews.1 < 1e-5, "{m}x{n}: {skews:?}");
        let e = error(&d, n, svd);
        assert!(e < 2e-6, "{m}x{n}: {e}");
    }
}

#[test]
fn values_far_apart_are_found() {
    let s = [1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5];
    let d = with_spectrum(400, 300, &s);
    let svd = decomposed(&d, 300, &Options::new(6));
    for (got, want) in svd.s.iter().zip(s) {
        assert!((got - want).abs() < 0.02 * want + 1e-7, "{got} for {want}");
    }
}

#[test]
fn what_is_cut_off_is_the_tail() {
    type Spectrum<'a> = (&'a str, &'a dyn Fn(usize) -> f64, f64);
    let flat = |i: usize| if i < 8 { 10.0 / (i + 1) as f64 } else { 0.3 };
    let spectra: [Spectrum<'_>; 4] = [
        ("1/i", &|i| 1.0 / (i + 1) as f64, 1.0005),
        ("1/sqrt(i)", &|i| 1.0 / ((i + 1) as f64).sqrt(), 1.005),
        ("a low rank and noise", &flat, 1.001),
        ("noise alone", &|_| 1.0, 1.001),
    ];
    for (name, value, bound) in spectra {
        let s: Vec<f64> = (0..240).map(value).collect();
        for (m, n) in [(500, 240), (240, 500)] {
            let d = with_spectrum(m, n, &s);
            for rank in [4, 16, 48] {
                let energy = s.iter().map(|s| s * s).sum::<f64>();
                let tail = (s[rank..].iter().map(|s| s * s).sum::<f64>() / energy).sqrt();
                let svd = decomposed(&d, n, &Options::new(rank));
                assert!((svd.energy / energy - 1.0).abs() < 1e-5, "{name}");
                let e = error(&d, n, svd);
                println!("{name}, rank {rank} of {m}x{n}: {:.5} of the best", e / tail);
                assert!(
                    e / tail > 0.9999 && e / tail < bound,
                    "{name}, rank {rank} of {m}x{n}: {e} and {tail}"
                );
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let (m, n) = (3000, 700);
    let s: Vec<f64> = (0..60).map(|i| 1.0 / (i + 1) as f64).collect();
    let d = with_spectrum(m, n, &s);
    let options = Options::new(10);
    let one = decomposed(&d, n, &options);
    for threads in [2, 5, 64] {
        assert!(decomposed(&d, n, &Options { threads, ..options }) == one, "{threads}");
    }
    assert!(decomposed(&d, n, &Options { seed: 1, ..options }) != one, "the seed does nothing");
    let dense = Dense { values: &d, columns: n };
    let (left, right) = one.into_factors();
    let of = |threads| residual(&dense, &left, &right, 10, threads).unwrap().to_bits();
    assert_eq!(of(1), of(7));
}

#[test]
fn small_matrices_are_decomposed_as_a_whole() {
    for (m, n) in [(5, 40), (40, 5), (1, 9), (9, 1), (6, 6)] {
        let s: Vec<f64> = (0..m.min(n)).map(|i| 2.0 - 0.3 * i as f64).collect();
        let d = with_spectrum(m, n, &s);
        let all = decomposed(&d, n, &Options::new(m.min(n)));
        assert_eq!(all.rank(), m.min(n));
        for (got, want) in all.s.iter().zip(&s) {
            assert!((got - want).abs() < 1e-6, "{m}x{n}");
        }
        assert!(error(&d, n, all) < 1e-6, "{m}x{n}");
        let two = decomposed(&d, n, &Options::new(2));
        let tail = s.iter().skip(2).map(|s| s * s).sum::<f64>() / s.iter().map(|s| s * s).sum::<f64>();
        assert!((error(&d, n, two) - tail.sqrt()).abs() < 1e-6, "{m}x{n}");
    }
}

#[test]
fn shares_of_energy_choose_ranks() {
    let d = with_spectrum(100, 80, &[4.0, 3.0, 2.0, 1.0]);
    let mut svd = decomposed(&d, 80, &Options::new(6));
    for (share, rank) in [(0.0, 0), (0.5, 1), (0.6, 2), (0.9, 3), (0.99, 4)] {
        assert_eq!(svd.rank_of_share(share), rank, "{share}");
    }
    svd.truncate(2);
    assert_eq!((svd.rank(), svd.u.len(), svd.v.len()), (2, 200, 160));
    let e = error(&d, 80, svd);
    assert!((e - (5.0f64 / 30.0).sqrt()).abs() < 1e-5, "{e}");
}

#[test]
fn sizes_of_values_do_not_matter() {
    let d = with_spectrum(200, 100, &[2.0, 1.0, 0.5]);
    let options = Options::new(3);
    let plain = decomposed(&d, 100, &options);
    for power in [-90, -60, 60, 100] {
        let scale = 2f32.powi(power);
        let scaled: Vec<f32> = d.iter().map(|x| x * scale).collect();
        let svd = decomposed(&scaled, 100, &options);
        for (a, b) in svd.s.iter().zip(&plain.s) {
            assert!((a / f64::from(scale) - b).abs() < 1e-4, "2^{power}: {a} {b}");
        }
    }
}

#[test]
fn nothing_gives_nothing_and_nan_is_refused() {
    for (m, n) in [(300, 200), (4, 4), (0, 7), (7, 0)] {
        let svd = decomposed(&vec![0.0; m * n], n, &Options::new(8));
        assert_eq!((svd.rank(), svd.energy), (0, 0.0));
    }
    for (m, n) in [(300, 200), (4, 4)] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut d = with_spectrum(m, n, &[1.0]);
            d[m * n / 2] = bad;
            let result = decompose(&Dense { values: &d, columns: n }, &Options::new(8));
            assert!(matches!(result, Err(Failure::NonFinite)), "{m}x{n}");
        }
    }
}

/// Cannot be read from some row on.
struct Broken;

impl Matrix for Broken {
    type Error = usize;
    fn rows(&self) -> usize {
        3000
    }
    fn columns(&self) -> usize {
        1000
    }
    fn read(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), usize> {
        out.fill(1.0);
        if rows.end > 1200 { Err(rows.start) } else { Ok(()) }
    }
}

#[test]
fn the_first_row_that_cannot_be_read_is_told() {
    for threads in [1, 4] {
        let failure = decompose(&Broken, &Options { threads, ..Options::new(8) }).unwrap_err();
        assert!(matches!(failure, Failure::Source(row) if row < 1200 && row + 524 > 1200), "{failure:?}");
    }
}

#[test]
fn products_of_factors_are_decomposed_exactly() {
    for (m, n, rank) in [(50, 30, 4), (6, 40, 9), (40, 6, 9), (1, 1, 3)] {
        let b: Vec<f32> = (0..m * rank).map(|i| noise(i) as f32).collect();
        let a: Vec<f32> = (0..rank * n).map(|i| noise(i + 7777) as f32).collect();
        let svd = product(&b, &a, rank).unwrap();
        let at = |i: usize, j: usize| {
            (0..rank).map(|k| f64::from(b[i * rank + k]) * f64::from(a[k * n + j])).sum::<f64>()
        };
        let whole: Vec<f32> = (0..m * n).map(|i| at(i / n, i % n) as f32).collect();
        let exact = DMatrix::from_fn(m, n, at).singular_values();
        for (got, want) in svd.s.iter().zip(exact.iter()) {
            assert!((got - want).abs() < 1e-10 * exact[0], "{m}x{n}: {got} for {want}");
        }
        assert!(error(&whole, n, svd) < 1e-6, "{m}x{n}");
    }
    assert!(product(&[f32::NAN], &[1.0], 1).is_none() && product(&[], &[], 0).is_none());
}

#[test]
fn memory_grows_with_the_sides_and_not_with_the_area() {
    let options = Options::new(16);
    let of = |m, n| memory(m, n, &options);
    assert!(of(8192, 8192) < 8 * of(1024, 1024).max(1 << 23), "{} {}", of(8192, 8192), of(1024, 1024));
    assert!(of(8192, 8192) < 8192 * 8192 * 4 / 4);
    assert!(memory(8192, 8192, &Options { threads: 8, ..options }) > of(8192, 8192));
}
