//! How many parameters a model has, and the short label made of it ("8x7B").
//!
//! Source: `GGUFWriter.get_total_parameter_count` (gguf-py/gguf/gguf_writer.py), `size_label` and
//! `model_weight_count_rounded_notation` (gguf-py/gguf/utility.py).

use tensormill_model::Model;

/// Parameters as the peer counts them over the output's tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParamCounts {
    /// Elements of all tensors.
    pub total: u64,
    /// Elements of all tensors that every token uses.
    pub shared: u64,
    /// Elements of one expert, over all layers.
    pub expert: u64,
    /// Experts per layer, zero for a dense model.
    pub expert_count: u64,
    /// Whether these are the parameters that an adapter adds to: not all that its model has.
    pub adapter: bool,
}

impl ParamCounts {
    /// Counts a model whose tensors have their GGUF names and shapes (experts stacked, `_exps.` in their names).
    pub fn of(model: &Model) -> Self {
        Self::over(model.tensors.iter().map(|t| (t.name(), t.spec.shape.dims())))
    }

    /// The total as the peer hands it on: negative for adapters.
    pub(crate) fn signed(self) -> i64 {
        let total = i64::try_from(self.total).unwrap_or(i64::MAX);
        if self.adapter { -total } else { total }
    }

    /// Counts tensors given as GGUF name and dimensions, outermost first.
    pub fn over<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a [u64])>) -> Self {
        let mut c = Self::default();
        let (mut experts_seen, mut expert_tensors) = (0u64, 0u64);
        for (name, dims) in tensors {
            let size = dims.iter().fold(1u64, |a, &d| a.saturating_mul(d));
            c.total = c.total.saturating_add(size);
            let experts = match dims {
                [.., n, _] if name.contains(".bias") && dims.len() >= 3 => *n,
                [.., n, _, _] => *n,
                _ => 0,
            };
            if name.contains("_exps.") && experts > 0 {
                c.expert = c.expert.saturating_add(size / experts);
                experts_seen = experts_seen.saturating_add(experts);
                expert_tensors += 1;
            } else {
                c.shared = c.shared.saturating_add(size);
            }
        }
        c.expert_count = experts_seen.checked_div(expert_tensors).unwrap_or(0);
        c
    }
}

/// The size label of a model: `7.24B` becomes "7.2B", eight experts "8x7B".
pub fn size_label(counts: ParamCounts) -> String {
    if counts.expert_count > 0 {
        format!("{}x{}", counts.expert_count, rounded(counts.shared.saturating_add(counts.expert)))
    } else {
        rounded(counts.total)
    }
}

/// A count in thousands, millions, billions or trillions with two significant digits.
fn rounded(count: u64) -> String {
    let n = count as f64;
    let (scaled, suffix) = if n > 1e12 {
        (n * 1e-12, 'T')
    } else if n > 1e9 {
        (n * 1e-9, 'B')
    } else if n > 1e6 {
        (n * 1e-6, 'M')
    } else {
        (n * 1e-3, 'K')
    };
    // Digits before the point; a leading zero does not count.
    let whole = format!("{:.0}", scaled.round_ties_even());
    let decimals = 2usize.saturating_sub(whole.trim_start_matches('0').len());
    format!("{scaled:.decimals$}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        let dense = |total| size_label(ParamCounts { total, shared: total, ..Default::default() });
        assert_eq!(dense(1_235_814_432), "1.2B");
        assert_eq!(dense(8_030_261_312), "8.0B");
        assert_eq!(dense(70_553_706_496), "71B");
        assert_eq!(dense(22_713_216), "23M");
        assert_eq!(dense(1_000_000), "1000K");
        assert_eq!(dense(400), "0.40K");
        let moe = ParamCounts {
            adapter: false,
            total: 46_702_792_704,
            shared: 1_600_000_000,
            expert: 5_640_000_000,
            expert_count: 8,
        };
        assert_eq!(size_label(moe), "8x7.2B");
    }

    #[test]
    fn counts_stacked_experts() {
        let tensors: [(&str, &[u64]); 4] = [
            ("token_embd.weight", &[10, 4]),
            ("blk.0.ffn_up_exps.weight", &[8, 6, 4]),
            ("blk.0.ffn_up_exps.bias", &[8, 6]),
            ("blk.0.attn_norm.weight", &[4]),
        ];
        let c = ParamCounts::over(tensors);
        assert_eq!(
            c,
            ParamCounts {
                total: 40 + 192 + 48 + 4,
                shared: 40 + 48 + 4,
                expert: 24,
                expert_count: 8,
                adapter: false
            }
        );
        let empty: [(&str, &[u64]); 1] = [("blk.0.ffn_up_exps.weight", &[0, 6, 4])];
        assert_eq!(ParamCounts::over(empty).expert_count, 0);
    }
}
