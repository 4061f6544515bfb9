//! Weights to codes and back one by one: the truth that every level equals.

use super::rounding::Float;
use super::rules::{Coding, Style};

/// The least and the largest weight.
pub(super) fn range(x: &[f32]) -> (f32, f32) {
    let first = x.first().copied().unwrap_or(0.0);
    x.iter().fold((first, first), |(low, high), &x| (low.min(x), high.max(x)))
}

/// Weights as the library sees them.
pub(super) fn weights(float: Float, x: &[f32], out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = float.weight(*x);
    }
}

/// The codes of a group.
pub(super) fn codes(style: Style, coding: &Coding, x: &[f32], out: &mut [u8]) {
    let float = style.arithmetic;
    for (out, x) in out.iter_mut().zip(x) {
        let x = float.round(x - coding.minus);
        let level = float.round(if style.divide { x / coding.by } else { x * coding.by });
        let level = float.round(level + coding.plus).clamp(coding.low, coding.high);
        let level = if style.away { level.round() } else { level.round_ties_even() };
        *out = (level + coding.base) as u8;
    }
}
