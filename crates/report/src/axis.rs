//! Ticks at round numbers.

/// Round numbers in `low..=high`, about `wanted` of them; none if the range is empty or not finite.
pub(crate) fn linear(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let span = high - low;
    if !(span.is_finite() && span > 0.0) {
        return Vec::new();
    }
    let rough = span / wanted.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .iter()
        .map(|m| m * power)
        .find(|s| *s >= rough * 0.999)
        .unwrap_or(power * 10.0);
    // Counted, not summed: a step too small to change the sum would never end.
    let first = (low / step - 1e-9).ceil();
    (0..4 * wanted.max(1))
        .map(|i| (first + i as f64) * step)
        .take_while(|v| *v <= high + step * 1e-9)
        .collect()
}

/// Round numbers in `low..=high` for a logarithmic axis, at most `most`.
pub(crate) fn logarithmic(low: f64, high: f64, most: usize) -> Vec<f64> {
    if !(low > 0.0 && high.is_finite() && high > low) {
        return Vec::new();
    }
    let (from, to) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let mantissas: [&[f64]; 5] = [
        &[1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0],
        &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
        &[1.0, 2.0, 3.0, 5.0],
        &[1.0, 3.0],
        &[1.0],
    ];
    let mut ticks = Vec::new();
    for set in mantissas {
        ticks = (from..=to)
            .flat_map(|e| set.iter().map(move |m| m * 10f64.powi(e)))
            .filter(|v| (low..=high).contains(v))
            .collect();
        if ticks.len() <= most {
            break;
        }
    }
    ticks
}

/// A tick's text: as many decimals as the value needs, three at most.
pub(crate) fn label(v: f64) -> String {
    let v = (v * 1000.0).round() / 1000.0;
    if v == 0.0 { "0".to_owned() } else { format!("{v}").replace('-', "−") }
}

/// The unit in which `largest` reads well, and its size: `base` is 1000 or 1024.
pub(crate) fn unit(largest: f64, base: f64) -> (f64, &'static str) {
    let names =
        if base == 1024.0 { ["B", "KiB", "MiB", "GiB", "TiB"] } else { ["B", "kB", "MB", "GB", "TB"] };
    let mut size = 1.0;
    let mut at = 0;
    while largest >= size * base && at + 1 < names.len() {
        size *= base;
        at += 1;
    }
    (size, names[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(linear(0.0, 50.0, 5), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!(linear(3.0, 9.0, 3), [4.0, 6.0, 8.0]);
        assert_eq!(logarithmic(0.5, 2.6, 4), [0.5, 1.0, 2.0]);
        let seven: Vec<String> = logarithmic(0.5, 2.6, 5).into_iter().map(label).collect();
        assert_eq!(seven, ["0.5", "0.7", "1", "1.5", "2"]);
        assert_eq!(label(0.1 + 0.2), "0.3");
        assert_eq!(unit(1.5e9, 1000.0), (1e9, "GB"));
    }

    #[test]
    fn odd_ranges_give_few_ticks_or_none() {
        assert!(linear(1.0, 1.0, 5).is_empty());
        assert!(linear(f64::NAN, 1.0, 5).is_empty());
        assert!(linear(1e16, 1e16 + 2.0, 5).len() <= 20);
        assert!(linear(-1e300, 1e300, 5).len() <= 20);
        assert!(logarithmic(0.0, 1.0, 5).is_empty());
        assert!(logarithmic(1e-300, 1e300, 5).len() < 1000);
    }
}
