//! Every instruction set of this machine against plain arrays, operation by operation, at the values where
//! instruction sets differ: zeros of both signs, ties, NaN, infinity, denormals, and floats that are no `i32`.

use super::{Codebook, MAX_LANES, Portable, Scan};

#[rustfmt::skip]
const FLOATS: [f32; 31] = [
    0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 0.499_999_97, -0.499_999_97, 1.0, -1.0, 3.7, -3.7, 1e-45, -1e-40,
    f32::MIN_POSITIVE, 1e19, -1e30, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN,
    4_194_304.5, -8_388_607.5, 2_147_483_520.0, 2_147_483_648.0, -2_147_483_648.0, -2_147_483_904.0, 3e9,
];

#[rustfmt::skip]
const WORDS: [u32; 17] = [
    0, 1, 2, 7, 8, 15, 16, 127, 128, 0x0040_0000, 0x0100_0001, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, 0xffff_fff0,
    0xffff_ffff, 0x1234_5678,
];

static BOOK: Codebook = Codebook::new(
    &[-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113],
    [7.0, 2.0, 9.0, 4.0, 15.0, 1.0, 0.0, 8.0, 3.0, 12.0, 5.0, 14.0, 6.0, 10.0, 13.0, 11.0],
);

type Results = Vec<(&'static str, [u32; MAX_LANES])>;

/// Which NaN an operation makes is the machine's own affair.
fn patterns<V: Scan>(v: V, x: V::F) -> [u32; MAX_LANES] {
    v.store(x).map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() })
}

/// What every operation makes of these operands. Truth values are bits, in one word.
fn lane_by_lane<V: Scan>(
    v: V,
    (a, b): (&[f32; MAX_LANES], &[f32; MAX_LANES]),
    (i, j): (&[u32; MAX_LANES], &[u32; MAX_LANES]),
    by: u32,
) -> Results {
    let (a, b, i, j) = (v.load(a), v.load(b), v.load_words(i), v.load_words(j));
    let mut out = Vec::new();
    for (name, x) in [
        ("add", a + b),
        ("subtract", a - b),
        ("multiply", a * b),
        ("divide", a / b),
        ("min", v.min(a, b)),
        ("max", v.max(a, b)),
        ("abs", v.abs(a)),
        ("neg", v.neg(a)),
        ("sqrt", v.sqrt(a)),
        ("round", v.round(a)),
        ("select", v.select(v.lt(a, b), a, b)),
        ("to_f", v.to_f(i)),
        ("splat", v.splat(0.37)),
        ("look_up", v.look_up(&BOOK.entries, i)),
        ("lookup", v.lookup(a, i)),
        // No search scales to more.
        ("nearest", v.nearest(&BOOK, v.select(v.le(v.abs(a), v.splat(128.0)), a, v.splat(-51.25)))),
    ] {
        out.push((name, patterns(v, x)));
    }
    for (name, x) in [
        ("wrapping add", i + j),
        ("wrapping subtract", i - j),
        ("and", i & j),
        ("or", i | j),
        ("bits", v.bits(v.neg(a))),
        ("float", v.bits(v.float(i))),
        ("trunc", v.trunc(a)),
        ("shl", v.shl(i, by)),
        ("shr", v.shr(i, by)),
        ("min_i", v.min_i(i, j)),
        ("max_i", v.max_i(i, j)),
        ("select_i", v.select_i(v.lt_i(i, j), i, j)),
        ("splat_i", v.splat_i(-3)),
    ] {
        out.push((name, v.store_words(x)));
    }
    for (name, m) in [
        ("lt", v.lt(a, b)),
        ("le", v.le(a, b)),
        ("eq", v.eq(a, b)),
        ("lt_i", v.lt_i(i, j)),
        ("eq_i", v.eq_i(i, j)),
        ("both", v.lt(a, b) & v.lt_i(i, j)),
        ("either", v.lt(a, b) | v.lt_i(i, j)),
        ("mask", v.mask(by.wrapping_mul(0x9e37_79b9) >> 8 & ((1 << V::N) - 1))),
    ] {
        let mut word = [0; MAX_LANES];
        (word[0], word[1], word[2]) = (v.lanes(m), u32::from(v.any(m)), u32::from(v.all(m)));
        out.push((name, word));
    }
    out
}

/// What moves lanes, and what looks at all of them at once.
fn across_lanes<V: Scan>(v: V) -> Results {
    let numbers: Vec<f32> = (0..40 * MAX_LANES).map(|i| (i * i % 997) as f32).collect();
    let at: [usize; MAX_LANES] = std::array::from_fn(|l| 37 * l + l % 3);
    let mut columns = [v.splat(0.0); MAX_LANES];
    v.load_columns(&numbers, &at, &mut columns[..V::N]);
    let mut out: Results = columns[..V::N].iter().map(|&c| ("load_columns", patterns(v, c))).collect();
    let words = columns.map(|c| v.bits(c));
    let mut rows = vec![9u32; 19 * MAX_LANES];
    v.store_columns(&words[..V::N], &mut rows, 19);
    out.extend(rows.as_chunks().0.iter().map(|&row| ("store_columns", row)));
    let bytes: Vec<u8> = (0..MAX_LANES as u8).map(|i| i.wrapping_mul(73)).collect();
    out.push(("load_bytes", v.store_words(v.load_bytes(&bytes))));
    out.push(("load_signed_bytes", v.store_words(v.load_signed_bytes(&bytes))));
    out.push(("load_from", patterns(v, v.load_from(&numbers[5..]))));
    let mut words = columns.map(|c| v.trunc(c) + v.splat_i(0x1234_5600));
    words[1] = v.splat_i(-7) - words[1];
    out.extend(v.to_bytes(&words[..32 / V::N]).as_chunks().0.iter().map(|b| ("to_bytes", b.map(u32::from))));
    let mut floats = [3.5; MAX_LANES];
    v.store_to(columns[0], &mut floats);
    out.push(("store_to", floats.map(f32::to_bits)));
    for column in &columns[..V::N] {
        out.push(("least", patterns(v, v.least(*column))));
    }
    out
}

fn assert_same(got: &Results, want: &Results, of: &str) {
    for ((name, got), (_, want)) in got.iter().zip(want) {
        assert_eq!(got, want, "{name} of {of}");
    }
    assert_eq!(got.len(), want.len());
}

fn agrees<V: Scan, P: Scan>(v: V, p: P) {
    assert_eq!(V::N, P::N);
    for first in 0..FLOATS.len() {
        for apart in 0..FLOATS.len() {
            let float = |l| FLOATS[(first + l) % FLOATS.len()];
            let word = |l| WORDS[(first + l) % WORDS.len()];
            let floats = (std::array::from_fn(float), std::array::from_fn(|l| float(l + apart)));
            let words = (std::array::from_fn(word), std::array::from_fn(|l| word(l + apart)));
            let (floats, words) = ((&floats.0, &floats.1), (&words.0, &words.1));
            let by = apart as u32;
            let of = format!("{floats:?} {words:x?} {by}");
            assert_same(&lane_by_lane(v, floats, words, by), &lane_by_lane(p, floats, words, by), &of);
        }
    }
    // Either side of each step of the codebook, and the step itself.
    for t in BOOK.thresholds {
        let x = [t.next_down(), t, t.next_up(), t - 1.0, t + 1.0];
        let x: [f32; MAX_LANES] = std::array::from_fn(|l| x[l % x.len()]);
        assert_eq!(v.store(v.nearest(&BOOK, v.load(&x))), p.store(p.nearest(&BOOK, p.load(&x))), "{x:?}");
    }
    assert_same(&across_lanes(v), &across_lanes(p), "columns");
}

#[test]
fn as_plain_arrays_do() {
    #[cfg(target_arch = "x86_64")]
    {
        match super::Avx2::detect() {
            Some(v) => agrees(v, Portable::<8>),
            None => println!("avx2 skipped: this machine lacks it"),
        }
        match super::Avx512::detect() {
            Some(v) => agrees(v, Portable::<16>),
            None => println!("avx512 skipped: this machine lacks it"),
        }
    }
    #[cfg(target_arch = "aarch64")]
    match super::Neon::detect() {
        Some(v) => agrees(v, Portable::<8>),
        None => println!("neon skipped: this machine lacks it"),
    }
}
