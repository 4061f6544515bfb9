//! Llama, Mistral, Qwen2 and Qwen3: decoders with rotary positions, root mean square norms and gated layers.
//!
//! `…ForCausalLM` takes `input_ids`, `attention_mask`, `position_ids` and what was kept of earlier positions
//! (`past_key_values.N.key`, `.value`), and gives `logits` and `present.N.key`, `.value`: one graph for the prompt, whose past
//! is empty, and for every token after it. `…Model` and `…ForSequenceClassification` look at whole texts: they have
//! no past, and count positions themselves, as transformers does where it is given none.
//!
//! In the form of [`Form::Contrib`] attention is ONNX Runtime's `GroupQueryAttention`, as ONNX Runtime GenAI has it. It counts
//! positions itself (there are no `position_ids`) and takes padding to be on the right.

mod attention;
mod genai;
mod hyper;
mod mask;
mod norm;
mod rope;

pub use genai::genai_config;

use crate::{
    Family, Form, Request,
    layers::{Layers, length, reshape, unsqueeze},
};
use attention::{Cache, Positions};
use hyper::{Head, Hyper};
use norm::Stream;
use std::collections::HashSet;
use tensormill_graph::{Attribute, Dim, Elem, Program, Value};
use tensormill_model::{Error, Result};

/// The family.
pub(crate) struct Decoder;

/// The one instance, for registration.
pub(crate) static DECODER: Decoder = Decoder;

impl Family for Decoder {
    fn model_types(&self) -> &'static [&'static str] {
        &["llama", "mistral", "qwen2", "qwen3"]
    }
    fn has_contrib(&self) -> bool {
        true
    }
    fn build(&self, request: &Request<'_>) -> Result<Program> {
        let hyper = Hyper::read(request.config)?;
        if request.form == Form::Contrib && hyper.head != Head::Causal {
            return Err(Error::unsupported(
                "ONNX Runtime's own operators are used for models that generate text",
            )
            .file("config.json")
            .hint("ask for the form of ONNX's own operators"));
        }
        if request.form == Form::Contrib && !hyper.head_dim.is_multiple_of(16) {
            let what = format!("is {}: GroupQueryAttention turns heads of a multiple of 16", hyper.head_dim);
            let error = request.config.unsupported("head_dim", &what);
            return Err(error.hint("ask for the form of ONNX's own operators"));
        }
        let mut program = graph(request, &hyper)?;
        leave_out_unread(&mut program);
        Ok(program)
    }
}

fn graph(request: &Request<'_>, hyper: &Hyper) -> Result<Program> {
    let mut net = Layers::new(request, "decoder")?;
    let prefix = hyper::prefix(|name| request.has(name));
    let inputs = Inputs::new(&mut net, hyper);
    let positions = positions(&mut net, hyper, &inputs)?;

    let table = format!("{prefix}embed_tokens");
    let embedded = net.embedding(&inputs.ids, &table, (hyper.vocab, hyper.hidden))?;
    let mut stream = Stream::new(embedded);
    let mut presents = Vec::with_capacity(inputs.past.len());
    for layer in 0..hyper.windows.len() {
        let module = format!("{prefix}layers.{layer}");
        let name = format!("{module}.input_layernorm");
        let x = stream.norm(&mut net, &name, hyper.hidden, hyper.epsilon)?;
        let past = inputs.past.get(layer);
        let name = format!("{module}.self_attn");
        let (y, present) = attention::attention(&mut net, hyper, (&name, layer), &x, &positions, past)?;
        presents.extend(present);
        stream.add(y);
        let name = format!("{module}.post_attention_layernorm");
        let x = stream.norm(&mut net, &name, hyper.hidden, hyper.epsilon)?;
        stream.add(feed_forward(&mut net, hyper, &format!("{module}.mlp"), &x)?);
    }
    let hidden = stream.norm(&mut net, &format!("{prefix}norm"), hyper.hidden, hyper.epsilon)?;

    let float = net.request.float;
    let [batch, sequence] = ["batch_size", "sequence_length"].map(Dim::from);
    match hyper.head {
        Head::Causal => {
            let logits = logits(&mut net, hyper, &table, &inputs.ids, &hidden)?;
            let dims = [batch.clone(), sequence, (hyper.vocab as i64).into()];
            net.float_output("logits", &logits, float, &dims);
        }
        Head::None => {
            let dims = [batch.clone(), sequence, (hyper.hidden as i64).into()];
            net.float_output("last_hidden_state", &hidden, float, &dims);
        }
        Head::Classes => {
            let (logits, classes) = classes(&mut net, hyper, &inputs.ids, &hidden)?;
            net.float_output("logits", &logits, float, &[batch.clone(), (classes as i64).into()]);
        }
    }
    let dims = cache_dims(hyper, batch, inputs.total);
    for (layer, present) in presents.iter().enumerate() {
        for (value, kind) in present.iter().zip(["key", "value"]) {
            net.float_output(&format!("present.{layer}.{kind}"), value, float, &dims);
        }
    }
    Ok(net.finish())
}

/// What a graph is given.
struct Inputs {
    ids: Value,
    mask: Value,
    positions: Option<Value>,
    past: Vec<Cache>,
    /// Name of the dimension of past and present together.
    total: &'static str,
}

impl Inputs {
    fn new(net: &mut Layers<'_>, hyper: &Hyper) -> Self {
        let standard = net.request.form == Form::Standard;
        let generates = hyper.head == Head::Causal;
        // Each as its usual makers have it: optimum, and ONNX Runtime GenAI.
        let total = match (generates, standard) {
            (false, _) => "sequence_length",
            (true, true) => "past_sequence_length + sequence_length",
            (true, false) => "total_sequence_length",
        };
        let [batch, sequence] = ["batch_size", "sequence_length"].map(Dim::from);
        let now = [batch.clone(), sequence];
        let ids = net.b.input("input_ids", Elem::I64, &now);
        let mask = net.b.input("attention_mask", Elem::I64, &[batch.clone(), total.into()]);
        let positions = (generates && standard).then(|| net.b.input("position_ids", Elem::I64, &now));
        let mut past = Vec::new();
        if generates {
            let dims = cache_dims(hyper, batch, "past_sequence_length");
            past = (0..hyper.windows.len())
                .map(|layer| {
                    ["key", "value"]
                        .map(|kind| net.float_input(&format!("past_key_values.{layer}.{kind}"), &dims))
                })
                .collect();
        }
        Self { ids, mask, positions, past, total }
    }
}

fn cache_dims(hyper: &Hyper, batch: Dim, length: &str) -> [Dim; 4] {
    [batch, (hyper.kv_heads as i64).into(), length.into(), (hyper.head_dim as i64).into()]
}

fn positions(net: &mut Layers<'_>, hyper: &Hyper, inputs: &Inputs) -> Result<Positions> {
    let request = net.request;
    if request.form == Form::Contrib {
        let rows = hyper.rope.rows(request.config)?;
        let tables = hyper.rope.tables(rows, request.float).map(|t| net.b.constant(t));
        return Ok(Positions::Contrib { lengths: mask::lengths(&mut net.b, &inputs.mask), tables });
    }
    let masks = mask::masks(&mut net.b, &inputs.ids, &inputs.mask, &hyper.windows);
    let given = inputs.positions.clone().unwrap_or_else(|| {
        let b = &mut net.b;
        let (zero, one) = (b.ints(&[], &[0]), b.ints(&[], &[1]));
        let total = length(b, &inputs.ids, 1);
        let all = b.node("Range", &[&zero, &total, &one], vec![]);
        unsqueeze(b, &all, &[0])
    });
    Ok(Positions::Standard { turns: attention::turns(&mut net.b, hyper, &given), masks })
}

/// `down_proj(act(gate_proj(x)) * up_proj(x))`.
fn feed_forward(net: &mut Layers<'_>, hyper: &Hyper, module: &str, x: &Value) -> Result<Value> {
    let wide = (hyper.intermediate, hyper.hidden);
    let gate = net.linear(x, &format!("{module}.gate_proj"), wide, hyper.mlp_bias)?;
    let up = net.linear(x, &format!("{module}.up_proj"), wide, hyper.mlp_bias)?;
    let y = net.at(&format!("{module}.act_fn"), |b| hyper.activation.apply(b, &gate));
    let y = net.at(module, |b| b.node("Mul", &[&y, &up], vec![]));
    net.linear(&y, &format!("{module}.down_proj"), (hyper.hidden, hyper.intermediate), hyper.mlp_bias)
}

/// Logits of the next token at every position.
///
/// A tied head is the table of embeddings, which `Gather` takes as it stands, `[vocab, hidden]`; a second initializer would
/// have it twice in the file. `Gemm` transposes its operand within the product, while a `Transpose` node is computed once when
/// ONNX Runtime loads the graph, into a table of its own: a graph whose table has 256 MiB loaded in 2.6 s with it and in
/// 0.9 s without, at the same speed later. At the peak the table is there twice in either case, as ONNX Runtime's `Gemm`
/// packs a copy on the processor; where it does not (`session.disable_prepacking`), there is one.
fn logits(net: &mut Layers<'_>, hyper: &Hyper, table: &str, ids: &Value, x: &Value) -> Result<Value> {
    let (vocab, hidden) = (hyper.vocab, hyper.hidden);
    if !hyper.tied {
        return net.linear(x, "lm_head", (vocab, hidden), false);
    }
    let weight = net.tensor(&format!("{table}.weight"), &[vocab, hidden])?;
    Ok(net.at("lm_head", |b| {
        let rows = reshape(b, x, &[-1, hidden as i64]);
        let y = b.node("Gemm", &[&rows, &weight], vec![Attribute::int("transB", 1)]);
        let dims = b.node("Shape", &[ids], vec![]);
        let last = b.ints(&[1], &[vocab as i64]);
        let dims = b.node("Concat", &[&dims, &last], vec![Attribute::int("axis", 0)]);
        b.node("Reshape", &[&y, &dims], vec![])
    }))
}

/// Logits of classes, from the last token of each text that is no padding.
fn classes(net: &mut Layers<'_>, hyper: &Hyper, ids: &Value, x: &Value) -> Result<(Value, u64)> {
    let config = net.request.config;
    let classes = config.labels()?;
    let pad = match config.get("pad_token_id") {
        None => None,
        Some(v) => Some(v.as_i64().ok_or_else(|| config.bad("pad_token_id", &format!("is {v}, no number")))?),
    };
    let last = net.at("score", |b| {
        let Some(pad) = pad else {
            let last = b.ints(&[], &[-1]);
            return b.node("Gather", &[x, &last], vec![Attribute::int("axis", 1)]);
        };
        // The largest place of a token that is no padding; padding counts as the first place.
        let (zero, one, pad) = (b.ints(&[], &[0]), b.ints(&[], &[1]), b.ints(&[], &[pad]));
        let padding = b.node("Equal", &[ids, &pad], vec![]);
        let total = length(b, ids, 1);
        let places = b.node("Range", &[&zero, &total, &one], vec![]);
        let places = b.node("Where", &[&padding, &zero, &places], vec![]);
        let keep = vec![Attribute::int("axis", 1), Attribute::int("keepdims", 1)];
        let last = b.node("ArgMax", &[&places], keep);
        b.node("GatherND", &[x, &last], vec![Attribute::int("batch_dims", 1)])
    });
    Ok((net.linear(&last, "score", (classes, hyper.hidden), false)?, classes))
}

/// Outputs that nothing reads are not asked for: operators need not give their optional ones.
fn leave_out_unread(program: &mut Program) {
    let graph = &mut program.graph;
    let read: HashSet<String> = (graph.nodes.iter().flat_map(|n| n.inputs.iter().cloned()))
        .chain(graph.outputs.iter().map(|o| o.name.clone()))
        .collect();
    for node in &mut graph.nodes {
        for output in node.outputs.iter_mut().filter(|o| !read.contains(*o)) {
            output.clear();
        }
        while node.outputs.last().is_some_and(String::is_empty) {
            node.outputs.pop();
        }
    }
}
