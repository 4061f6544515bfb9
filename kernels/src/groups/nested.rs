//! Double quantization: the scales of bitsandbytes' blocks, themselves quantized to eight bits.
//!
//! A vector of scales, less their mean, goes in blocks of 256 to the nearest entries of a map of 256 values under the block's
//! largest magnitude. Source: `create_dynamic_map` and `quantize_4bit` in `functional.py`; what the library's CPU code does with
//! a block, which is not quite the nearest entry, was found by asking it (version 0.50.2).

/// Values of a block.
pub const BLOCK: usize = 256;

/// The signed dynamic map, `create_dynamic_map()`: for each of seven powers of ten, the middles of twice as many equal parts
/// of `0.1..=1`; with zero and one.
pub fn map() -> [f32; 256] {
    let mut values = Vec::with_capacity(256);
    for (doublings, power) in [1e-6f32, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0].into_iter().enumerate() {
        let parts = 1usize << doublings;
        // torch.linspace: up from the start to the middle and from there down from the end, each with one rounding.
        let (start, step) = (f64::from(0.1f32), f64::from((1.0f32 - 0.1) / parts as f32));
        let bound = |i: usize| {
            let x =
                if i < parts.div_ceil(2) { start + step * i as f64 } else { 1.0 - step * (parts - i) as f64 };
            x as f32
        };
        for i in 0..parts {
            let middle = f32::midpoint(bound(i), bound(i + 1));
            values.extend([power * middle, -power * middle]);
        }
    }
    values.extend([0.0, 1.0]);
    values.sort_by(f32::total_cmp);
    std::array::from_fn(|i| values[i])
}

/// The mean that is taken from all scales. The library adds in an order that depends on vectors and threads, so that its
/// last bit may differ.
pub fn offset(scales: &[f32]) -> f32 {
    let sum: f64 = scales.iter().map(|s| f64::from(*s)).sum();
    if scales.is_empty() { 0.0 } else { (sum / scales.len() as f64) as f32 }
}

/// Encodes finite scales: a byte each, and for each [`BLOCK`] of them a scale of its own.
///
/// # Panics
/// When `codes` or `outer` is not as long as that.
pub fn encode(scales: &[f32], offset: f32, codes: &mut [u8], outer: &mut [f32]) {
    assert_eq!((codes.len(), outer.len()), (scales.len(), scales.len().div_ceil(BLOCK)), "lengths");
    let nearest = nearest_of_steps(&map());
    for ((scales, codes), outer) in scales.chunks(BLOCK).zip(codes.chunks_mut(BLOCK)).zip(outer) {
        *outer = scales.iter().fold(0.0, |a, s| a.max((s - offset).abs()));
        if *outer == 0.0 {
            codes.fill(0);
            continue;
        }
        let inverse = 1.0 / *outer;
        for (code, scale) in codes.iter_mut().zip(scales) {
            let part = ((scale - offset) * inverse).clamp(-1.0, 1.0);
            *code = nearest[((part + 1.0) * HALF_STEPS + 0.5) as usize];
        }
    }
}

/// Decodes scales.
///
/// # Panics
/// When lengths are not those of [`encode`].
pub fn decode(codes: &[u8], outer: &[f32], offset: f32, scales: &mut [f32]) {
    assert_eq!((codes.len(), outer.len()), (scales.len(), scales.len().div_ceil(BLOCK)), "lengths");
    let map = map();
    for ((scales, codes), outer) in scales.chunks_mut(BLOCK).zip(codes.chunks(BLOCK)).zip(outer) {
        for (scale, code) in scales.iter_mut().zip(codes) {
            *scale = map[usize::from(*code)] * outer + offset;
        }
    }
}

/// Half the steps between -1 and 1 at which the library knows the nearest entry.
const HALF_STEPS: f32 = 32767.5;

/// The nearest entry of each of these steps.
fn nearest_of_steps(map: &[f32; 256]) -> Vec<u8> {
    let mut code = 0u8;
    (0..=u16::MAX)
        .map(|step| {
            let x = (f64::from(step) / f64::from(HALF_STEPS) - 1.0) as f32;
            while code < 255 && (map[usize::from(code) + 1] - x).abs() < (map[usize::from(code)] - x).abs() {
                code += 1;
            }
            code
        })
        .collect()
}
