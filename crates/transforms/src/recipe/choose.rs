//! Evaluates the rows for one model, tensor after tensor, keeping the counters that positions are measured with.
//!
//! Must not hold any recipe's choices: those are rows.

use super::rows::{ADJUSTMENTS, CHOICES, Cond, FALLBACKS, FLOORS, LARGE, NEED_IMPORTANCE, Row, V};
use super::{Id, KEPT, KEPT_GLM5_NEXT, Part, Recipe, part};
use tensormill_model::{Array, Error, Kind, Metadata, Result, Role, Slot, Value};
use tensormill_tensor::{BlockFormat, Encoding, Shape};

/// What the rows need to know about a model.
pub(crate) struct Facts {
    arch: String,
    layers: u64,
    /// Query heads per key-value head in the first layer.
    gqa: u64,
    experts: u64,
    large: bool,
    imatrix: bool,
    tied: bool,
    values: u64,
}

/// An integer, or the first of an array of them (one per layer).
fn first(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| match value {
        Value::Array(a @ (Array::U32(_) | Array::I32(_) | Array::U64(_) | Array::I64(_))) => {
            a.get(0)?.as_u64()
        }
        _ => None,
    })
}

impl Facts {
    /// Reads hyper-parameters from metadata, and counts `roles`, those of every tensor.
    pub(crate) fn new<'a>(
        metadata: &Metadata,
        roles: impl Iterator<Item = Option<&'a Role>>,
        imatrix: bool,
    ) -> Self {
        let arch = metadata.str("general.architecture").unwrap_or_default().to_owned();
        let number = |key: &str| metadata.get(&format!("{arch}.{key}")).and_then(first);
        // Positions are multiplied: a hostile number must not overflow them.
        let layers = number("block_count").unwrap_or(0).min(u64::from(u32::MAX));
        let mut experts = number("expert_count").unwrap_or(0);
        if experts == 1 && matches!(arch.as_str(), "hunyuan-dense" | "hunyuan_vl") {
            experts = 0;
        }
        let heads = number("attention.head_count").unwrap_or(0);
        let kv_heads = number("attention.head_count_kv").unwrap_or(heads);
        // Layers that predict further tokens do not count here, though they do in positions.
        let main_layers = layers.saturating_sub(number("nextn_predict_layers").unwrap_or(0));
        let large = LARGE.iter().any(|&(a, n, shared)| {
            a == arch && n == main_layers && (!shared || heads != kv_heads && experts != 8)
        });
        let (mut tied, mut values) = (true, 0);
        for role in roles {
            let p = part(role);
            tied &= p != Part::Output;
            values += u64::from(V.contains(&p));
        }
        let gqa = heads.checked_div(kv_heads).unwrap_or(0);
        Self { arch, layers, gqa, experts, large, imatrix, tied, values }
    }

    pub(crate) fn arch(&self) -> &str {
        &self.arch
    }
    pub(crate) fn layers(&self) -> u64 {
        self.layers
    }
}

/// Whether a tensor keeps its encoding under every recipe: anything but weights, vectors, norms, routers,
/// positions and other small matrices that the peer leaves alone.
pub(crate) fn is_always_plain(arch: &str, role: Option<&Role>, name: &str, shape: &Shape) -> bool {
    // ggml does not count leading dimensions of one.
    if shape.dims().iter().skip_while(|&&d| d == 1).count() < 2 {
        return true;
    }
    match role {
        Some(Role { kind, slot: Slot::Weight, .. }) => {
            KEPT.contains(kind) || arch == "glm5-next" && KEPT_GLM5_NEXT.contains(kind)
        }
        Some(_) => true,
        // A tensor that no registered kind spells: only the general part of the peer's rule can apply.
        None => !name.ends_with("weight") || name.ends_with("_norm.weight"),
    }
}

/// Whether this tensor must not be encoded without importance.
pub(crate) fn needs_importance(recipe: &Recipe, role: Option<&Role>, block: &BlockFormat) -> bool {
    let exempt = matches!(part(role), Part::Output | Part::TokenEmbd);
    !exempt && (NEED_IMPORTANCE.contains(&block) || recipe.id == Id::Q2_K_S && block.name == "Q2_K")
}

/// Chooses block types, tensor after tensor in the order of the output file.
pub(crate) struct Chooser<'a> {
    facts: &'a Facts,
    recipe: &'a Recipe,
    base: &'static BlockFormat,
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    values: u64,
    down: u64,
    gate: u64,
    up: u64,
}

/// Where a tensor stands among those of its part.
struct Position {
    /// Number of them before this one.
    counted: u64,
    /// As `counted`, or the layer number where experts make counts useless; `None` when the name has none.
    index: Option<u64>,
    of: u64,
}

impl Position {
    fn more_bits(&self) -> Option<bool> {
        let (i, n) = (self.index?, self.of);
        Some(i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2)
    }
}

/// One tensor, as rows see it.
pub(crate) struct Subject<'a> {
    pub(crate) role: Option<&'a Role>,
    pub(crate) shape: &'a Shape,
    /// Layer number in the name, -1 for none.
    pub(crate) layer: i32,
}

impl<'a> Chooser<'a> {
    pub(crate) fn new(facts: &'a Facts, recipe: &'a Recipe, base: &'static BlockFormat) -> Self {
        Self { facts, recipe, base, seen: Seen::default() }
    }

    /// Whether this tensor is chosen for as the output projection.
    pub(crate) fn is_output(&self, role: Option<&Role>) -> bool {
        let p = part(role);
        p == Part::Output || self.facts.tied && p == Part::TokenEmbd
    }

    /// The recipe's choice for one tensor. Counts it.
    ///
    /// # Errors
    /// In models with experts, a feed-forward tensor outside the model's layers.
    pub(crate) fn choose(&mut self, t: &Subject) -> Result<&'static BlockFormat> {
        let real = part(t.role);
        let effective = if self.is_output(t.role) { Part::Output } else { real };
        let counts = self.recipe.id != Id::MXFP4_MOE;
        let mut position = Position { counted: 0, index: None, of: 0 };
        if let Some(row) = self.first_fit(FLOORS, effective, t, &position)? {
            return Ok(row.gives);
        }
        let counter = match effective {
            p if V.contains(&p) => Some((&mut self.seen.values, self.facts.values, false)),
            Part::FfnDown => Some((&mut self.seen.down, self.facts.layers, true)),
            Part::FfnGate => Some((&mut self.seen.gate, self.facts.layers, true)),
            Part::FfnUp => Some((&mut self.seen.up, self.facts.layers, true)),
            _ => None,
        };
        if let Some((counter, of, by_layer)) = counter.filter(|_| counts) {
            let by_layer = by_layer && self.facts.experts > 1;
            let index =
                if by_layer { u64::try_from(t.layer).ok().filter(|l| *l < of) } else { Some(*counter) };
            position = Position { counted: *counter, index, of };
            *counter += 1;
        }
        let mut gives = self.first_fit(CHOICES, effective, t, &position)?.map_or(self.base, |row| row.gives);
        for row in ADJUSTMENTS {
            if self.fits(row, effective, t, &position, gives)? {
                gives = row.gives;
            }
        }
        Ok(gives)
    }

    fn first_fit(
        &self,
        rows: &'static [Row],
        part: Part,
        t: &Subject,
        position: &Position,
    ) -> Result<Option<&'static Row>> {
        for row in rows {
            if self.fits(row, part, t, position, self.base)? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    fn fits(
        &self,
        row: &Row,
        part: Part,
        t: &Subject,
        position: &Position,
        so_far: &BlockFormat,
    ) -> Result<bool> {
        if !row.recipes.contains(self.recipe.id) || !row.parts.contains(&part) {
            return Ok(false);
        }
        for cond in row.when {
            if !self.holds(cond, t, position, so_far)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn holds(&self, cond: &Cond, t: &Subject, p: &Position, so_far: &BlockFormat) -> Result<bool> {
        let f = self.facts;
        let outside = || {
            Error::mismatch(format!(
                "a feed-forward tensor of a model with {} experts must lie in one of its {} layers (blk.N.)",
                f.experts, f.layers
            ))
        };
        Ok(match *cond {
            Cond::Arch(a) => f.arch == a,
            Cond::NotArch(a) => f.arch != a,
            Cond::Grouped => f.gqa >= 4,
            Cond::Large => f.large,
            Cond::Experts(n) => f.experts == n,
            Cond::NotExperts(n) => f.experts != n,
            Cond::ExpertsAtLeast(n) => f.experts >= n,
            Cond::Imatrix(given) => f.imatrix == given,
            Cond::RaggedRow => !t.shape.row_len().is_multiple_of(u64::from(self.base.weights)),
            Cond::Stacked => matches!(t.shape.dims(), [.., n, _, _] if *n > 1),
            Cond::Kinds(kinds) => is_kind(t.role, kinds),
            Cond::First(d) => p.index.ok_or_else(outside)? < p.of / u64::from(d),
            Cond::FirstCounted(d) => p.counted < p.of / u64::from(d),
            Cond::Nth(k) => p.counted < u64::from(k),
            Cond::MoreBits => p.more_bits().ok_or_else(outside)?,
            Cond::Middle => (p.of / 8..7 * p.of / 8).contains(&p.index.ok_or_else(outside)?),
            Cond::Result(formats) => formats.contains(&so_far),
        })
    }
}

fn is_kind(role: Option<&Role>, kinds: &[Kind]) -> bool {
    role.is_some_and(|r| r.slot == Slot::Weight && kinds.contains(&r.kind))
}

/// What to store rows of this length as, if they do not fill the chosen blocks.
///
/// # Errors
/// When the format has no substitute.
pub(crate) fn fallback(chosen: &'static BlockFormat, row: u64) -> Result<Encoding> {
    let fits = |b: &BlockFormat| row.is_multiple_of(u64::from(b.weights));
    if fits(chosen) {
        return Ok(Encoding::Block(chosen));
    }
    match FALLBACKS.iter().find(|(from, _)| from.contains(&chosen)) {
        Some((_, to)) if fits(to) => Ok(Encoding::Block(to)),
        Some(_) => Ok(Encoding::F16),
        None if chosen.weights <= 32 => Ok(Encoding::F16),
        None => Err(Error::unsupported(format!(
            "rows of {row} weights do not fill {chosen} blocks of {}, and {chosen} has no substitute",
            chosen.weights
        ))
        .hint("name another type for this tensor with --tensor-type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_tensor::ggml;

    #[test]
    fn ragged_rows_fall_back_once_and_then_to_f16() {
        assert_eq!(fallback(ggml::Q4_K, 256).unwrap(), Encoding::Block(ggml::Q4_K));
        assert_eq!(fallback(ggml::Q4_K, 96).unwrap(), Encoding::Block(ggml::Q5_0));
        assert_eq!(fallback(ggml::Q4_K, 48).unwrap(), Encoding::F16);
        assert_eq!(fallback(ggml::Q8_0, 48).unwrap(), Encoding::F16);
        assert!(fallback(ggml::Q1_0, 96).is_err());
        assert_eq!(fallback(ggml::Q2_0, 96).unwrap(), Encoding::Block(ggml::Q4_0));
    }

    #[test]
    fn leading_ones_are_not_dimensions() {
        let shape = |d: &[u64]| Shape::new(d.to_vec()).unwrap();
        let role = Role::from_gguf_name("blk.0.ffn_gate_inp_shexp.weight");
        assert!(is_always_plain("qwen2moe", role.as_ref(), "", &shape(&[1, 64])));
        assert!(!is_always_plain("qwen2moe", role.as_ref(), "", &shape(&[2, 64])));
        assert!(!is_always_plain("qwen2moe", role.as_ref(), "", &shape(&[2, 1])));
    }
}
