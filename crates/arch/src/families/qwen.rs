//! Qwen2, Qwen3 and Qwen3-MoE.

use crate::{
    Config, VocabForm, VocabPolicy,
    hyper::Hyper,
    pooling,
    text::{Item, Rewrite, Text, plain},
};
use tensormill_model::{Assets, Error, Expr, Result, RowMap};
use tensormill_tensor::Shape;

pub(super) static QWEN2: Text = Text {
    gguf: "qwen2",
    hf: &["Qwen2ForCausalLM", "Qwen2Model", "KORMoForCausalLM"],
    filter: plain::filter,
    extra: plain::extra,
    modify,
    hyper,
    vocab,
};

pub(super) static QWEN3: Text =
    Text { gguf: "qwen3", hf: &["Qwen3ForCausalLM", "Qwen3Model"], extra: refuse_rerankers, ..QWEN2 };

pub(super) static QWEN3_MOE: Text = Text {
    gguf: "qwen3moe",
    hf: &["Qwen3MoeForCausalLM"],
    filter: plain::filter,
    extra: plain::extra,
    modify: modify_moe,
    hyper: hyper_moe,
    vocab: |config, _| VocabPolicy::new(&[VocabForm::Gpt2], config),
};

fn modify(rw: &mut Rewrite, mut item: Item) -> Result<()> {
    if rw.config.architecture() == "Qwen2Model" {
        item.name.insert_str(0, "model.");
    }
    plain::modify(rw, item)
}

fn hyper(h: &mut Hyper) -> Result<()> {
    h.base()?;
    pooling::write(h)
}

fn vocab(config: &Config, _: &dyn Assets) -> Result<VocabPolicy> {
    VocabPolicy::new(&[VocabForm::SentencePiece, VocabForm::Gpt2], config)
}

/// Rerankers take two rows of the output matrix as a classifier, by token ids that only a tokenizer knows.
fn refuse_rerankers(rw: &mut Rewrite) -> Result<()> {
    let card = rw.assets.read("README.md")?.unwrap_or_default();
    let card = String::from_utf8_lossy(&card).to_lowercase();
    let hint = |s: &str| s.contains("qwen3-reranker") || s.contains("qwen3-vl-reranker");
    if card.contains("# qwen3-reranker")
        || card.contains("# qwen3-vl-reranker")
        || hint(&rw.assets.name().to_lowercase())
        || rw
            .config
            .find(&["_name_or_path"])
            .and_then(serde_json::Value::as_str)
            .is_some_and(|s| hint(&s.to_lowercase()))
    {
        return Err(Error::unsupported("a Qwen3 reranker: its classification head cannot be made yet"));
    }
    Ok(())
}

const EXPERTS: [(&str, &str); 3] = [
    (
        "model.layers.{bid}.mlp.experts.{xid}.down_proj.weight",
        "model.layers.{bid}.mlp.experts.down_proj.weight",
    ),
    (
        "model.layers.{bid}.mlp.experts.{xid}.gate_proj.weight",
        "model.layers.{bid}.mlp.experts.gate_proj.weight",
    ),
    ("model.layers.{bid}.mlp.experts.{xid}.up_proj.weight", "model.layers.{bid}.mlp.experts.up_proj.weight"),
];

fn modify_moe(rw: &mut Rewrite, item: Item) -> Result<()> {
    // Some checkpoints store all experts of a layer as one tensor.
    let stem = item.name.strip_suffix(".weight").unwrap_or(&item.name);
    if stem.ends_with("mlp.experts.down_proj") {
        return rw.emit(&format!("{stem}.weight"), item.layer, item.expr);
    }
    if let Some(base) = stem.strip_suffix(".gate_up_proj").filter(|b| b.ends_with("mlp.experts")) {
        for (half, part) in ["gate_proj", "up_proj"].into_iter().enumerate() {
            let expr = half_of_each(&item.expr, half as u64)?;
            rw.emit(&format!("{base}.{part}.weight"), item.layer, expr)?;
        }
        return Ok(());
    }
    if item.name.contains("experts") {
        let experts = rw.config.need_u64(&["num_local_experts", "num_experts"])?;
        return rw.expert(item, experts, &EXPERTS);
    }
    plain::modify(rw, item)
}

/// More experts than any model has: a shape from a file must not decide how much memory a plan takes.
const MAX_EXPERTS: u64 = 1 << 16;

/// The first (0) or second (1) half of the rows of each matrix in a stack.
fn half_of_each(expr: &Expr, half: u64) -> Result<Expr> {
    let shape = expr.form()?.shape;
    let &[experts, rows, len] = shape.dims() else {
        return Err(Error::mismatch(format!("gate and up matrices of shape {shape}")));
    };
    if rows % 2 != 0 || experts == 0 {
        return Err(Error::mismatch(format!("gate and up matrices of shape {shape}")));
    }
    if experts > MAX_EXPERTS {
        return Err(Error::over_limit(format!("{experts} experts")));
    }
    let n = rows / 2;
    let inputs = (0..experts)
        .map(|x| expr.clone().rows(RowMap::Slice { start: x * rows + half * n, len: n }))
        .collect();
    Ok(Expr::Concat { inputs, shape: Shape::new(vec![experts, n, len])? })
}

fn hyper_moe(h: &mut Hyper) -> Result<()> {
    h.base()?;
    if let Some(v) = h.config.find(&["moe_intermediate_size"]) {
        h.u32s("expert_feed_forward_length", v)?;
    }
    if let Some(v) = h.config.find(&["shared_expert_intermediate_size"]) {
        h.u32("expert_shared_feed_forward_length", v)?;
    }
    Ok(())
}
