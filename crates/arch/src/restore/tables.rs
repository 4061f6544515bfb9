//! What tensors are called in Hugging Face checkpoints, and which classes read them.

use tensormill_model::Kind;

/// Where a GGUF tensor goes.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// One tensor, `{bid}` being the layer.
    One(&'static str),
    /// One for each matrix of the stack, `{xid}` being the expert.
    Each(&'static str),
    /// One that has no suffix.
    Bare(&'static str),
    /// One stack of matrices that are used from the other side; biases end in `_bias`.
    Across(&'static str),
    /// The even (0) or odd (1) rows of matrices in such a stack.
    Woven(&'static str, usize),
}

/// One GGUF architecture and what it is in transformers.
pub(super) struct Family {
    pub(super) gguf: &'static str,
    /// `model_type` and class without experts.
    pub(super) class: (&'static str, &'static str),
    /// The same with experts, where there are such models.
    pub(super) expert_class: Option<(&'static str, &'static str)>,
    /// Whether rows of q and k stand in the interleaved order.
    pub(super) interleaved: bool,
    /// Whether norms are stored plus one.
    pub(super) raised_norms: bool,
    /// Names; the first table that has a kind decides.
    names: &'static [&'static [(Kind, Place)]],
    expert_names: &'static [(Kind, Place)],
}

/// Tensors that the converter makes of hyper-parameters.
pub(super) const GENERATED: &[Kind] = &[Kind::RopeFreqs, Kind::RopeFactorsLong, Kind::RopeFactorsShort];

/// What most decoders share.
const DECODER: &[(Kind, Place)] = &[
    (Kind::TokenEmbd, Place::One("model.embed_tokens")),
    (Kind::Output, Place::One("lm_head")),
    (Kind::OutputNorm, Place::One("model.norm")),
    (Kind::AttnQ, Place::One("model.layers.{bid}.self_attn.q_proj")),
    (Kind::AttnK, Place::One("model.layers.{bid}.self_attn.k_proj")),
    (Kind::AttnV, Place::One("model.layers.{bid}.self_attn.v_proj")),
    (Kind::AttnOut, Place::One("model.layers.{bid}.self_attn.o_proj")),
    (Kind::AttnNorm, Place::One("model.layers.{bid}.input_layernorm")),
    (Kind::FfnNorm, Place::One("model.layers.{bid}.post_attention_layernorm")),
    (Kind::FfnGate, Place::One("model.layers.{bid}.mlp.gate_proj")),
    (Kind::FfnUp, Place::One("model.layers.{bid}.mlp.up_proj")),
    (Kind::FfnDown, Place::One("model.layers.{bid}.mlp.down_proj")),
];

const QK_NORMS: &[(Kind, Place)] = &[
    (Kind::AttnQNorm, Place::One("model.layers.{bid}.self_attn.q_norm")),
    (Kind::AttnKNorm, Place::One("model.layers.{bid}.self_attn.k_norm")),
];

const MIXTRAL: &[(Kind, Place)] = &[
    (Kind::FfnGateInp, Place::One("model.layers.{bid}.block_sparse_moe.gate")),
    (Kind::FfnGateExp, Place::Each("model.layers.{bid}.block_sparse_moe.experts.{xid}.w1")),
    (Kind::FfnDownExp, Place::Each("model.layers.{bid}.block_sparse_moe.experts.{xid}.w2")),
    (Kind::FfnUpExp, Place::Each("model.layers.{bid}.block_sparse_moe.experts.{xid}.w3")),
];

const GPT_OSS: &[(Kind, Place)] = &[
    (Kind::AttnSinks, Place::Bare("model.layers.{bid}.self_attn.sinks")),
    (Kind::AttnPostNorm, Place::One("model.layers.{bid}.post_attention_layernorm")),
    (Kind::FfnGateInp, Place::One("model.layers.{bid}.mlp.router")),
    (Kind::FfnGateExp, Place::Woven("model.layers.{bid}.mlp.experts.gate_up_proj", 0)),
    (Kind::FfnUpExp, Place::Woven("model.layers.{bid}.mlp.experts.gate_up_proj", 1)),
    (Kind::FfnDownExp, Place::Across("model.layers.{bid}.mlp.experts.down_proj")),
];

const QWEN_EXPERTS: &[(Kind, Place)] = &[
    (Kind::FfnGateInp, Place::One("model.layers.{bid}.mlp.gate")),
    (Kind::FfnGateExp, Place::Each("model.layers.{bid}.mlp.experts.{xid}.gate_proj")),
    (Kind::FfnDownExp, Place::Each("model.layers.{bid}.mlp.experts.{xid}.down_proj")),
    (Kind::FfnUpExp, Place::Each("model.layers.{bid}.mlp.experts.{xid}.up_proj")),
];

const SANDWICH_NORMS: &[(Kind, Place)] = &[
    (Kind::AttnPostNorm, Place::One("model.layers.{bid}.post_attention_layernorm")),
    (Kind::FfnNorm, Place::One("model.layers.{bid}.pre_feedforward_layernorm")),
    (Kind::FfnPreNorm, Place::One("model.layers.{bid}.pre_feedforward_layernorm")),
    (Kind::FfnPostNorm, Place::One("model.layers.{bid}.post_feedforward_layernorm")),
];

const PHI_FUSED: &[(Kind, Place)] = &[
    (Kind::AttnQkv, Place::One("model.layers.{bid}.self_attn.qkv_proj")),
    (Kind::FfnUp, Place::One("model.layers.{bid}.mlp.gate_up_proj")),
];

const ENCODER: &[(Kind, Place)] = &[
    (Kind::TokenEmbd, Place::One("embeddings.word_embeddings")),
    (Kind::PosEmbd, Place::One("embeddings.position_embeddings")),
    (Kind::TokenTypes, Place::One("embeddings.token_type_embeddings")),
    (Kind::TokenEmbdNorm, Place::One("embeddings.LayerNorm")),
    (Kind::AttnQ, Place::One("encoder.layer.{bid}.attention.self.query")),
    (Kind::AttnK, Place::One("encoder.layer.{bid}.attention.self.key")),
    (Kind::AttnV, Place::One("encoder.layer.{bid}.attention.self.value")),
    (Kind::AttnOut, Place::One("encoder.layer.{bid}.attention.output.dense")),
    (Kind::AttnOutNorm, Place::One("encoder.layer.{bid}.attention.output.LayerNorm")),
    (Kind::FfnUp, Place::One("encoder.layer.{bid}.intermediate.dense")),
    (Kind::FfnDown, Place::One("encoder.layer.{bid}.output.dense")),
    (Kind::LayerOutNorm, Place::One("encoder.layer.{bid}.output.LayerNorm")),
];

const PLAIN: Family = Family {
    gguf: "",
    class: ("", ""),
    expert_class: None,
    interleaved: false,
    raised_norms: false,
    names: &[DECODER],
    expert_names: &[],
};

static FAMILIES: &[Family] = &[
    Family {
        gguf: "llama",
        class: ("llama", "LlamaForCausalLM"),
        expert_class: Some(("mixtral", "MixtralForCausalLM")),
        interleaved: true,
        expert_names: MIXTRAL,
        ..PLAIN
    },
    Family { gguf: "qwen2", class: ("qwen2", "Qwen2ForCausalLM"), ..PLAIN },
    Family { gguf: "qwen3", class: ("qwen3", "Qwen3ForCausalLM"), names: &[QK_NORMS, DECODER], ..PLAIN },
    Family {
        gguf: "qwen3moe",
        class: ("qwen3_moe", "Qwen3MoeForCausalLM"),
        names: &[QK_NORMS, DECODER],
        expert_names: QWEN_EXPERTS,
        ..PLAIN
    },
    Family {
        gguf: "gemma2",
        class: ("gemma2", "Gemma2ForCausalLM"),
        raised_norms: true,
        names: &[SANDWICH_NORMS, DECODER],
        ..PLAIN
    },
    Family {
        gguf: "gemma3",
        class: ("gemma3_text", "Gemma3ForCausalLM"),
        raised_norms: true,
        names: &[SANDWICH_NORMS, QK_NORMS, DECODER],
        ..PLAIN
    },
    Family { gguf: "phi3", class: ("phi3", "Phi3ForCausalLM"), names: &[PHI_FUSED, DECODER], ..PLAIN },
    Family { gguf: "gpt-oss", class: ("gpt_oss", "GptOssForCausalLM"), names: &[GPT_OSS, DECODER], ..PLAIN },
    Family { gguf: "bert", class: ("bert", "BertModel"), names: &[ENCODER], ..PLAIN },
];

/// The family of a GGUF architecture.
pub(super) fn family(arch: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|f| f.gguf == arch)
}

/// The architectures whose way back is known.
pub(super) fn known() -> Vec<&'static str> {
    FAMILIES.iter().map(|f| f.gguf).collect()
}

impl Family {
    /// Where tensors of a kind go.
    pub(super) fn place(&self, kind: Kind, experts: bool) -> Option<Place> {
        let own = if experts { self.expert_names } else { &[] };
        std::iter::once(own)
            .chain(self.names.iter().copied())
            .find_map(|table| table.iter().find(|(k, _)| *k == kind))
            .map(|(_, place)| *place)
    }

    /// `model_type` and class.
    pub(super) fn class(&self, experts: bool) -> (&'static str, &'static str) {
        self.expert_class.filter(|_| experts).unwrap_or(self.class)
    }
}
