//! What TIES and DARE keep, against sorting whole tensors and the formulas written down plainly.

use tensormill_merge::{Delta, Prune, Sparsify, random};
use tensormill_model::{Form, Op, Tally};
use tensormill_tensor::{DType, Encoding, Shape, decode_plain, encode_plain};

/// Values with many that are alike, some tiny, some zero.
fn values(n: usize, seed: u64, dtype: DType) -> (Vec<u8>, Vec<f32>) {
    let mut state = seed;
    let each: Vec<f32> = (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let x = (state >> 40) as f32 / 16_777_216.0 - 0.5;
            match state >> 33 & 7 {
                0 => 0.0,
                1 => (x * 16.0).round() / 16.0,
                2 => x * 1e-30,
                3 => x * 100.0,
                _ => x,
            }
        })
        .collect();
    let mut bytes = vec![0; n * (dtype.bits() / 8) as usize];
    let mut back = vec![0.0; n];
    assert!(encode_plain(dtype, &each, &mut bytes) && decode_plain(dtype, &bytes, &mut back));
    (bytes, back)
}

fn round(dtype: DType, x: f32) -> f32 {
    let (mut bytes, mut back) = (vec![0; (dtype.bits() / 8) as usize], [0f32]);
    assert!(encode_plain(dtype, &[x], &mut bytes) && decode_plain(dtype, &bytes, &mut back));
    back[0]
}

/// The value of a reduction whose blocks have `step` rows, counted in another order than theirs.
fn numbers(op: &Prune, forms: &[Form], inputs: &[&[u8]], step: usize) -> Vec<u8> {
    let reduction = op.reduction().unwrap();
    let (rows, form) = (forms[0].shape.rows() as usize, op.form(forms).unwrap());
    let mut out = vec![0; form.shape.elements() as usize * 8];
    let mut tallies = Vec::new();
    while !reduction.value(&tallies, forms, &mut out) {
        assert!(tallies.len() < reduction.passes());
        let (mut total, mut sums) = (Tally::default(), Vec::new());
        for start in (0..rows).step_by(step).rev() {
            let end = rows.min(start + step);
            let part: Vec<&[u8]> =
                inputs.iter().map(|i| &i[i.len() / rows * start..i.len() / rows * end]).collect();
            reduction.add(&tallies, start as u64..end as u64, forms, &part, &mut total).unwrap();
            sums.push(std::mem::take(&mut total.sums));
        }
        for block in sums.iter().rev() {
            total.sums.resize(block.len(), 0.0);
            total.sums.iter_mut().zip(block).for_each(|(t, s)| *t += s);
        }
        tallies.push(total);
    }
    out
}

/// Runs on a few rows at a time.
fn merged(op: &Delta, forms: &[Form], inputs: &[&[u8]], dtype: DType, step: usize) -> Vec<f32> {
    let rows = forms[0].shape.rows() as usize;
    let width = (dtype.bits() / 8) as usize;
    let mut all = Vec::new();
    for start in (0..rows).step_by(step) {
        let end = rows.min(start + step);
        let part: Vec<&[u8]> = inputs
            .iter()
            .enumerate()
            .map(|(n, i)| if n < 3 { &i[i.len() / rows * start..i.len() / rows * end] } else { *i })
            .collect();
        let mut out = vec![0; (end - start) * forms[0].shape.row_len() as usize * width];
        op.run(start as u64..end as u64, forms, &part, &mut out).unwrap();
        let mut back = vec![0.0; out.len() / width];
        assert!(decode_plain(dtype, &out, &mut back));
        all.extend(back);
    }
    all
}

/// A sum of changes whose numbers about whole tensors are an input.
fn surveyed(weights: Vec<f64>, sparsify: Vec<Sparsify>, dtype: DType) -> Delta {
    Delta { weights, sparsify, elect: false, normalize: false, lambda: 1.0, surveyed: true, dtype }
}

#[test]
fn what_stays_is_what_sorting_keeps() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for (rows, columns) in [(1, 1), (1, 5000), (37, 50), (300, 3), (9, 1500)] {
            let shape = Shape::new(vec![rows, columns]).unwrap();
            let n = (rows * columns) as usize;
            let (base, b) = values(n, 1, dtype);
            let others = [values(n, 2, dtype), values(n, 3, dtype)];
            let forms = vec![Form::new(shape, Encoding::Plain(dtype)); 3];
            let inputs = [&base[..], &others[0].0, &others[1].0];
            for (densities, rescale) in [([0.3, 0.7], false), ([0.001, 0.999], true), ([0.5, 1.0], false)] {
                let of = |d: f64| if d < 1.0 { Sparsify::Largest(d) } else { Sparsify::All };
                let sparsify = densities.map(of).to_vec();
                let prune = Prune { sparsify: sparsify.clone(), rescale, dtype };
                let found = numbers(&prune, &forms, &inputs, 7);
                assert!(found == numbers(&prune, &forms, &inputs, 1000) || rescale);
                let op = surveyed(vec![1.0, 0.0], sparsify, dtype);
                let mut forms = forms.clone();
                forms.push(prune.form(&forms).unwrap());
                for model in 0..2 {
                    let mut op = op.clone();
                    op.weights = vec![f64::from(model == 0), f64::from(model == 1)];
                    let with: Vec<&[u8]> = inputs.iter().copied().chain([&found[..]]).collect();
                    let got = merged(&op, &forms, &with, dtype, 5);
                    assert_eq!(got, merged(&op, &forms, &with, dtype, 1000));
                    if rescale {
                        continue;
                    }
                    let change: Vec<f32> =
                        others[model].1.iter().zip(&b).map(|(x, b)| round(dtype, x - b)).collect();
                    let mut order: Vec<usize> = (0..n).collect();
                    order.sort_by(|i, j| change[*j].abs().total_cmp(&change[*i].abs()));
                    let k = if densities[model] < 1.0 {
                        ((densities[model] * n as f64) as usize).max(1)
                    } else {
                        n
                    };
                    let mut want = b.clone();
                    for i in &order[..k] {
                        want[*i] = round(dtype, b[*i] + change[*i]);
                    }
                    assert!(got == want, "{dtype} {rows}x{columns} {densities:?} model {model}");
                }
            }
        }
    }
}

#[test]
fn what_stays_at_random_keeps_its_length() {
    let (rows, columns, dtype) = (40u64, 130u64, DType::F32);
    let n = (rows * columns) as usize;
    let (base, b) = values(n, 1, dtype);
    let other = values(n, 2, dtype);
    let key = random::key(9, "a.weight", 1);
    let sparsify = vec![Sparsify::Random(0.3, key), Sparsify::Nothing];
    let forms = vec![Form::new(Shape::new(vec![rows, columns]).unwrap(), Encoding::F32); 3];
    let inputs = [&base[..], &other.0, &other.0];
    let prune = Prune { sparsify: sparsify.clone(), rescale: true, dtype };
    let found = numbers(&prune, &forms, &inputs, 3);
    let op = surveyed(vec![1.0, 1.0], sparsify, dtype);
    let mut forms = forms;
    forms.push(prune.form(&forms).unwrap());
    let with: Vec<&[u8]> = inputs.iter().copied().chain([&found[..]]).collect();
    let got = merged(&op, &forms, &with, dtype, 11);
    let threshold = random::threshold(0.3);
    let (mut whole, mut kept, mut after) = (0f64, 0usize, 0f64);
    for i in 0..n {
        let change = other.1[i] - b[i];
        whole += f64::from(change.abs());
        if random::stays(key, i as u64, threshold) {
            kept += 1;
            after += (f64::from(got[i]) - f64::from(b[i])).abs();
        } else {
            assert_eq!(got[i], b[i]);
        }
    }
    assert!((kept as f64 / n as f64 - 0.3).abs() < 0.04, "{kept} of {n}");
    assert!((after / whole - 1.0).abs() < 1e-5, "{after} of {whole}");
}
