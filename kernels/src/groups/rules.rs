//! The numbers that a group of integers gets of its range, by each library's arithmetic, operation by operation.
//!
//! Libraries agree on what they want and differ in the last bit: in the type they compute in, in whether codes are made
//! with the scale before or after it is rounded, in whether they divide or multiply by an inverse, and in where zero is
//! forced into the range. Here each is spelled out once; how weights become codes with the numbers is `reference` and `lanes`.
//!
//! Where a library would write a scale that is infinite, this writes the largest number of its type.

use super::rounding::{Float, stored};
use super::{Code, Fit, Offset, Quantizer, Rule};

/// How a weight becomes a code:
/// `base + round(clamp((x - minus) / by + plus, low, high))`, or `* by`, as [`Style`] says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Coding {
    pub(super) minus: f32,
    pub(super) by: f32,
    pub(super) plus: f32,
    pub(super) low: f32,
    pub(super) high: f32,
    pub(super) base: f32,
}

/// What a group gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Numbers {
    /// As the bundle has it.
    pub(super) scale: f32,
    /// As the bundle has it; zero where it has none.
    pub(super) offset: f32,
    pub(super) coding: Coding,
}

/// What a rule does alike for all groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// Divides by the scale; otherwise multiplies by its inverse.
    pub(super) divide: bool,
    /// Ties away from zero; otherwise to even.
    pub(super) away: bool,
    /// What every result is rounded to.
    pub(super) arithmetic: Float,
    /// What weights are rounded to first.
    pub(super) weights: Float,
}

/// A zero point among codes of `0..=top`.
fn point(x: f32, top: f32) -> f32 {
    // Not NaN, and no negative zero.
    if x > 0.0 { x.min(top) } else { 0.0 }
}

/// `(high - low) / steps`, of any finite range.
fn span(low: f32, high: f32, steps: f32) -> f32 {
    let scale = (high - low) / steps;
    if scale.is_finite() { scale } else { high / steps - low / steps }
}

/// `1 / x`, and nothing for nothing.
fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

impl Quantizer {
    /// The rule that is meant. Some say nothing of an offset: then another does.
    fn rule_of_integers(&self) -> Rule {
        match (self.rule, self.grid.offset) {
            (_, Offset::Bias) => Rule::Mlx,
            (Rule::Mlx | Rule::DeepSeek, _)
            | (Rule::Hqq, Offset::Middle)
            | (Rule::BitsAndBytes, Offset::Point) => Rule::CompressedTensors,
            (rule, _) => rule,
        }
    }

    pub(super) fn style(&self) -> Style {
        let float = Float::of(self.scale);
        let plain = Style { divide: true, away: false, arithmetic: Float::F32, weights: float };
        if self.grid.offset == Offset::None {
            return plain;
        }
        match self.rule_of_integers() {
            Rule::CompressedTensors | Rule::Awq => Style { arithmetic: float, ..plain },
            Rule::Gptq => Style { weights: Float::F32, ..plain },
            Rule::Hqq => Style { divide: false, weights: Float::F32, ..plain },
            Rule::BitsAndBytes => Style { divide: false, ..plain },
            Rule::Mlas => Style { divide: false, away: true, ..plain },
            Rule::Mlx | Rule::OrtTools | Rule::OrtToolsReduced | Rule::DeepSeek => plain,
        }
    }

    /// How codes are made with numbers that a search found.
    pub(super) fn searched_style(&self) -> Style {
        let package = (self.rule, self.grid.offset, self.fit) == (Rule::Hqq, Offset::Point, Fit::Hqq);
        Style { divide: !package, away: false, arithmetic: Float::F32, weights: Float::F32 }
    }

    /// Rows whose scales go with another number for the whole matrix store them without it.
    fn stored(&self, scale: f32, outer: f32) -> f32 {
        stored(self.scale, if self.grid.outer { scale / outer } else { scale })
    }

    /// The scale of a whole matrix of integers whose zero is the middle code: that of one group with all of it.
    pub(super) fn integer_matrix_scale(&self, amax: f32) -> f32 {
        let grid = super::Grid { outer: false, ..self.grid };
        Self { grid, ..*self }.numbers(-amax, amax, 1.0).scale
    }

    /// The numbers of a group whose weights are in `low..=high`.
    pub(super) fn numbers(&self, low: f32, high: f32, outer: f32) -> Numbers {
        if self.grid.offset == Offset::None {
            return self.unsigned(high, outer);
        }
        let (low, high) = (low + 0.0, high + 0.0);
        if self.grid.is_whole() && self.grid.outer && self.grid.offset == Offset::Middle {
            // Found before, of all rows.
            let by = if outer == 0.0 { f32::MIN_POSITIVE } else { outer };
            return Numbers { scale: 1.0, offset: 0.0, coding: self.around_middle(by) };
        }
        let mut numbers = match self.rule_of_integers() {
            Rule::Gptq => self.gptq(low, high, outer),
            Rule::Awq => self.awq(low, high, outer),
            Rule::Mlx => self.mlx(low, high, outer),
            Rule::Mlas => self.mlas(low, high, outer),
            Rule::OrtTools | Rule::OrtToolsReduced => self.ort_tools(low, high, outer),
            Rule::BitsAndBytes => self.bits_and_bytes(low, high),
            Rule::Hqq => self.hqq(low, high, outer),
            Rule::CompressedTensors | Rule::DeepSeek => self.compressed_tensors(low, high, outer),
        };
        // A scale too small for its type: nothing may be divided by it.
        if numbers.coding.by == 0.0 && self.style().divide {
            numbers.coding.by = f32::MIN_POSITIVE;
        }
        numbers
    }

    pub(super) fn middle(&self) -> f32 {
        self.grid.code.middle()
    }

    /// The highest code.
    pub(super) fn top(&self) -> f32 {
        2.0 * self.middle() - 1.0
    }

    /// Codes of `0..=top` with zero at their middle.
    fn around_middle(&self, by: f32) -> Coding {
        let middle = self.middle();
        Coding { minus: 0.0, by, plus: 0.0, low: -middle, high: middle - 1.0, base: middle }
    }

    /// Codes of `0..=top` with zero at a whole number that is added after rounding.
    fn around(&self, by: f32, zero: f32) -> Coding {
        Coding { minus: 0.0, by, plus: 0.0, low: -zero, high: self.top() - zero, base: zero }
    }

    /// Codes of `0..=top` with `plus` added before rounding.
    fn with_point(&self, by: f32, plus: f32) -> Coding {
        Coding { minus: 0.0, by, plus, low: 0.0, high: self.top(), base: 0.0 }
    }

    /// No library has integers without a zero point; these are the nearest that leave out what is negative.
    fn unsigned(&self, high: f32, outer: f32) -> Numbers {
        let scale = self.stored(high.max(0.0) / self.top(), outer);
        let scale = if scale == 0.0 { f32::EPSILON } else { scale };
        Numbers { scale, offset: 0.0, coding: self.with_point(scale, 0.0) }
    }

    /// `calculate_qparams`, in the type of the weights; codes with the rounded scale.
    fn compressed_tensors(&self, low: f32, high: f32, outer: f32) -> Numbers {
        let float = Float::of(self.scale);
        let (low, high, middle) = (low.min(0.0), high.max(0.0), self.middle());
        let asymmetric = self.grid.offset == Offset::Point;
        let scale = if asymmetric {
            float.weight(span(0.0, float.weight(high - low), self.top()))
        } else {
            float.weight(high.max(-low) / (self.top() / 2.0))
        };
        let mut zero = 0.0;
        if asymmetric {
            // Zero by zero is NaN there, which becomes the integer zero.
            zero = float.round(-middle - float.round(low / scale)).clamp(-middle, middle - 1.0);
            zero = if zero.is_nan() { 0.0 } else { zero.round_ties_even() + 0.0 };
        }
        let scale = self.stored(scale, outer);
        let scale = if scale == 0.0 { float.epsilon() } else { scale };
        let coding = Coding { plus: zero, ..self.around_middle(scale) };
        let offset = if asymmetric { zero + middle } else { 0.0 };
        Numbers { scale, offset, coding }
    }

    /// `Quantizer.find_params` and `quantize`, in `f32` whatever the weights are; scales are rounded after codes are made.
    fn gptq(&self, low: f32, high: f32, outer: f32) -> Numbers {
        let (mut low, mut high, top) = (low.min(0.0), high.max(0.0), self.top());
        let symmetric = self.grid.offset == Offset::Middle;
        if symmetric {
            high = high.max(-low);
            // As there: where no weight is negative, half of the codes go unused.
            low = if low < 0.0 { -high } else { low };
        }
        if low == 0.0 && high == 0.0 {
            (low, high) = (-1.0, 1.0);
        }
        let scale = span(low, high, top);
        let zero = if symmetric { self.middle() } else { point((-low / scale).round_ties_even(), top) };
        let by = if scale == 0.0 { f32::MIN_POSITIVE } else { scale };
        let offset = if symmetric { 0.0 } else { zero };
        Numbers { scale: self.stored(scale, outer), offset, coding: self.around(by, zero) }
    }

    /// `pseudo_quantize_tensor`, in the type of the weights, which `AutoAWQ` makes binary16. Zero is not forced into the range.
    fn awq(&self, low: f32, high: f32, outer: f32) -> Numbers {
        let float = Float::of(self.scale);
        let (top, middle, least) = (self.top(), self.middle(), float.round(1e-5));
        if self.grid.offset == Offset::Middle {
            let amax = high.max(-low).max(least);
            let scale = self.stored(float.weight(amax / (middle - 1.0).max(1.0)), outer);
            return Numbers { scale, offset: 0.0, coding: self.around_middle(scale) };
        }
        let scale = float.weight(span(0.0, float.weight(high - low).max(least), top));
        let zero = point(-float.round(low / scale).round_ties_even(), top);
        let scale = self.stored(scale, outer);
        Numbers { scale, offset: zero, coding: self.around(scale, zero) }
    }

    /// `quantize` of `mlx/backend/cpu/quantized.cpp`, in `f32`; both numbers are rounded after codes are made.
    fn mlx(&self, low: f32, high: f32, outer: f32) -> Numbers {
        let top = self.top();
        let below = low.abs() > high.abs();
        let width = span(low, high, top).max(1e-7);
        let (mut scale, edge) = if below { (width, low) } else { (-width, high) };
        let steps = (edge / scale).round_ties_even();
        let mut bias = 0.0;
        if steps != 0.0 {
            (scale, bias) = (edge / steps, edge);
        }
        let coding = Coding { minus: bias, by: scale, plus: 0.0, low: 0.0, high: top, base: 0.0 };
        Numbers { scale: self.stored(scale, outer), offset: stored(self.scale, bias), coding }
    }

    /// `BlockwiseQuantizer` of `q4_dq.cpp`: `f32`, the rounded scale's inverse, ties away from zero.
    fn mlas(&self, low: f32, high: f32, outer: f32) -> Numbers {
        let (top, middle) = (self.top(), self.middle());
        if self.grid.offset == Offset::Middle {
            let edge = if high.abs() > low.abs() { high } else { low };
            let scale = self.stored(-edge / middle, outer);
            return Numbers { scale, offset: 0.0, coding: self.with_point(inverse(scale), middle) };
        }
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = span(low, high, top);
        let zero = if scale == 0.0 { 0.0 } else { point(0.0 - low / scale, top).round() };
        let scale = self.stored(scale, outer);
        Numbers { scale, offset: zero, coding: self.with_point(inverse(scale), zero) }
    }

    /// `compute_scale_zp` for whole rows, `compute_scale_zp_blocked` for groups: `f64`. The latter subtracts in the type of
    /// the weights, and has its zero points of the rounded scale. Symmetric int8 is -127..=127, other symmetric integers
    /// use all codes; the reduced range is half of them. Codes may be any.
    fn ort_tools(&self, low: f32, high: f32, outer: f32) -> Numbers {
        let float = Float::of(self.scale);
        let (low, high, middle) = (low.min(0.0), high.max(0.0), self.middle());
        // One bit has no smaller range.
        let (blocked, reduced) = (self.grid.group != 0, self.rule == Rule::OrtToolsReduced && middle > 1.0);
        if self.grid.offset == Offset::Middle {
            let steps = match (self.grid.code, reduced) {
                (Code::Int(8), false) => 254.0,
                (Code::Int(8), true) => 128.0,
                (_, false) => self.top(),
                (_, true) => middle - 1.0,
            };
            let scale = float.round_f64(2.0 * f64::from(high.max(-low)) / f64::from(steps));
            let scale = if scale < float.tiny() { 1.0 } else { scale };
            let scale = self.stored(scale, outer);
            return Numbers { scale, offset: 0.0, coding: self.around_middle(scale) };
        }
        let top = if reduced { middle - 1.0 } else { self.top() };
        let width = if blocked {
            f64::from(float.weight(high - low).min(f32::MAX))
        } else {
            f64::from(high) - f64::from(low)
        };
        let exact = width / f64::from(top);
        let scale = float.round_f64(exact);
        let degenerate = if blocked { scale < float.tiny() } else { exact < f64::from(float.tiny()) };
        if degenerate {
            return Numbers { scale: 1.0, offset: 0.0, coding: self.around(1.0, 0.0) };
        }
        let of_zero = if blocked { f64::from(scale) } else { exact };
        let zero = point((0.0 - f64::from(low) / of_zero).round_ties_even() as f32, top);
        let scale = self.stored(scale, outer);
        Numbers { scale, offset: zero, coding: self.around(scale, zero) }
    }

    /// `int8_vectorwise_quant`: `f32`, by the inverse. What the library keeps is the largest magnitude; with an outer scale,
    /// which is then 1/127, that is the scale.
    fn bits_and_bytes(&self, low: f32, high: f32) -> Numbers {
        let amax = high.max(-low);
        let steps = (self.middle() - 1.0).max(1.0);
        // torch divides a number by a tensor so. Nothing by nothing is no number there, which becomes the integer zero.
        let by = (1.0 / amax) * steps;
        let by = if by.is_finite() { by } else { 0.0 };
        let scale = stored(self.scale, if self.grid.outer { amax } else { amax / steps });
        Numbers { scale, offset: 0.0, coding: self.around_middle(by) }
    }

    /// `hqq.core.quantize.Quantizer.quantize` before its optimizer: inverse scales, zero points that need not be whole.
    fn hqq(&self, low: f32, high: f32, outer: f32) -> Numbers {
        let width = high - low;
        // torch divides a number by a tensor so.
        let by = if width.abs() <= 1e-4 { 1.0 } else { ((1.0 / width) * self.top()).min(2e4) };
        // A width that overflows leaves no inverse.
        let by = if by == 0.0 { inverse(span(low, high, self.top())) } else { by };
        self.hqq_numbers(by, -low * by, outer)
    }

    /// The numbers of an inverse scale and a zero point.
    pub(super) fn hqq_numbers(&self, by: f32, zero: f32, outer: f32) -> Numbers {
        let scale = self.stored(1.0 / by, outer);
        let zero = stored(self.scale, zero);
        Numbers { scale, offset: zero, coding: self.with_point(by, zero) }
    }
}
