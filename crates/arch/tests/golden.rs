//! Every fixture in golden/arch: names, shapes, order, pinned encodings, values, hyper-parameter keys and the
//! vocabulary's plan equal what the peer's converter classes gave (golden/generators/arch.py).

use serde_json::Value as Json;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use tensormill_arch::{Architecture, Config, Rewritten, for_config, registry, roles_for_gguf};
use tensormill_model::{Array, ErrorKind, Expr, Form, MemoryAssets, Metadata, Model, Role, Tensor, Value};
use tensormill_tensor::{DType, Encoding, Shape, decode_plain, encode_plain};

/// The number that the generator asks the peer for: `MOSTLY_F16`.
const FILE_TYPE: u32 = 1;

struct Fixture {
    name: String,
    json: Json,
}

fn fixtures() -> Vec<Fixture> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/arch");
    let mut all: Vec<Fixture> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .map(|p| Fixture {
            name: p.file_stem().unwrap().to_string_lossy().into_owned(),
            json: serde_json::from_slice(&std::fs::read(&p).unwrap()).unwrap(),
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(all.len() >= 50, "{} fixtures", all.len());
    all
}

fn dims(v: &Json) -> Vec<u64> {
    v.as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect()
}

impl Fixture {
    fn get(&self, path: &str) -> &Json {
        self.json.pointer(path).unwrap_or_else(|| panic!("{}: no {path}", self.name))
    }

    fn assets(&self) -> MemoryAssets {
        let mut files = BTreeMap::new();
        files.insert("config.json".to_owned(), self.get("/config").to_string().into_bytes());
        for (name, text) in self.get("/assets").as_object().unwrap() {
            files.insert(name.clone(), text.as_str().unwrap().as_bytes().to_vec());
        }
        MemoryAssets { name: "model".to_owned(), files }
    }

    /// Source tensors by name: the order of one safetensors file in the peer.
    fn sources(&self) -> Vec<(String, Shape, DType)> {
        let mut all = Vec::new();
        for row in self.get("/tensors").as_array().unwrap() {
            let dtype = match row[3].as_str().unwrap() {
                "F32" => DType::F32,
                "F16" => DType::F16,
                "BF16" => DType::BF16,
                other => panic!("{other}"),
            };
            let mut names = vec![row[0].as_str().unwrap().to_owned()];
            for count in dims(&row[1]) {
                names = names
                    .iter()
                    .flat_map(|n| (0..count).map(move |i| n.replacen("{}", &i.to_string(), 1)))
                    .collect();
            }
            let shape = Shape::new(dims(&row[2])).unwrap();
            all.extend(names.into_iter().map(|n| (n, shape.clone(), dtype)));
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn model(&self) -> Model {
        let read = |(i, (name, shape, dtype)): (usize, (String, Shape, DType))| {
            let form = Form::new(shape, Encoding::Plain(dtype));
            Tensor::new(name, Expr::Read { source: 0, tensor: i, form }).unwrap()
        };
        let tensors = self.sources().into_iter().enumerate().map(read).collect();
        Model { tensors, metadata: Metadata::new(), assets: Arc::new(self.assets()), program: None }
    }

    fn rewrite(&self) -> (&'static dyn Architecture, Rewritten) {
        let config = Config::read(&self.assets()).unwrap();
        let arch = for_config(&config).unwrap();
        let rewritten = arch.rewrite(self.model(), &config, FILE_TYPE);
        (arch, rewritten.unwrap_or_else(|e| panic!("{}: {e}", self.name)))
    }
}

/// The generator's `values`.
fn source_bytes(index: usize, dtype: DType, n: u64) -> Vec<u8> {
    let x: Vec<f32> = (0..n)
        .map(|i| {
            let h = (i + index as u64 * 7919).wrapping_mul(2_654_435_761) % (1 << 32);
            ((h >> 24) as f32 - 128.0) / 256.0
        })
        .collect();
    let mut bytes = vec![0; dtype.bytes(n).unwrap() as usize];
    assert!(encode_plain(dtype, &x, &mut bytes));
    bytes
}

/// Evaluates an expression whole.
fn evaluate(e: &Expr) -> Vec<u8> {
    match e {
        Expr::Read { tensor, form, .. } => {
            let Encoding::Plain(dtype) = form.encoding else { panic!("plain sources only") };
            source_bytes(*tensor, dtype, form.shape.elements())
        }
        Expr::Const { bytes, .. } => bytes.to_vec(),
        Expr::Rows { input, map } => {
            let form = input.form().unwrap();
            let (bytes, row) = (evaluate(input), form.row_bytes().unwrap() as usize);
            (0..map.rows(form.shape.rows()).unwrap())
                .flat_map(|i| {
                    let at = map.source(i) as usize * row;
                    bytes[at..at + row].to_vec()
                })
                .collect()
        }
        Expr::Concat { inputs, .. } => inputs.iter().flat_map(evaluate).collect(),
        Expr::Reshape { input, .. } => evaluate(input),
        Expr::Transpose { input } => {
            let (form, bytes) = (input.form().unwrap(), evaluate(input));
            let (columns, row) = (form.shape.row_len() as usize, form.row_bytes().unwrap() as usize);
            let rows = form.shape.dims()[form.shape.rank() - 2] as usize;
            let width = row / columns;
            bytes
                .chunks(rows * row)
                .flat_map(|m| {
                    (0..columns).flat_map(move |c| (0..rows).map(move |r| (m, r * row + c * width)))
                })
                .flat_map(|(m, at)| m[at..at + width].to_vec())
                .collect()
        }
        Expr::Apply { op, inputs } => {
            let forms: Vec<Form> = inputs.iter().map(|i| i.form().unwrap()).collect();
            let bytes: Vec<Vec<u8>> = inputs.iter().map(evaluate).collect();
            let refs: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
            let form = op.form(&forms).unwrap();
            let rows = form.shape.rows();
            let mut out = vec![0; (form.row_bytes().unwrap() * rows) as usize];
            op.run(0..rows, &forms, &refs, &mut out).unwrap();
            out
        }
    }
}

fn hash_as_f32(t: &Tensor) -> String {
    let Encoding::Plain(dtype) = t.spec.encoding else { panic!("plain tensors only") };
    let mut x = vec![0f32; t.spec.shape.elements() as usize];
    assert!(decode_plain(dtype, &evaluate(&t.expr), &mut x));
    let h = x
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{h:016x}")
}

fn metadata(rows: &Json) -> Metadata {
    let mut m = Metadata::new();
    for row in rows.as_array().unwrap() {
        let v = &row[2];
        let int = |v: &Json| v.as_u64().unwrap();
        let value = match row[1].as_str().unwrap() {
            "UINT32" => Value::U32(int(v) as u32),
            "FLOAT32" => Value::F32(f32::from_bits(int(v) as u32)),
            "BOOL" => Value::Bool(v.as_bool().unwrap()),
            "STRING" => Value::Str(v.as_str().unwrap().to_owned()),
            "ARRAY STRING" => Value::Array(Array::Str(
                v.as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned()).collect(),
            )),
            other => panic!("{other}"),
        };
        m.set(row[0].as_str().unwrap(), value);
    }
    m
}

#[test]
fn tensors_are_the_peers() {
    let mut hashed = 0;
    for f in fixtures() {
        let (arch, got) = f.rewrite();
        assert_eq!(arch.gguf_name(), f.get("/expected/architecture"), "{}", f.name);
        let want = f.get("/expected/tensors").as_array().unwrap();
        let names: Vec<&str> = got.model.tensors.iter().map(Tensor::name).collect();
        let want_names: Vec<&str> = want.iter().map(|r| r[0].as_str().unwrap()).collect();
        assert_eq!(names, want_names, "{}", f.name);
        for (t, row) in got.model.tensors.iter().zip(want) {
            let place = format!("{}: {}", f.name, t.name());
            assert_eq!(t.spec.shape.dims(), dims(&row[1]), "{place}");
            assert_eq!(t.pinned == Some(Encoding::F32), row[2].as_bool().unwrap(), "{place}");
            assert_eq!(t.role.as_ref().map(Role::to_string).as_deref(), Some(t.name()), "{place}");
            if let Some(hash) = row.get(3) {
                assert_eq!(hash_as_f32(t), *hash, "{place}");
                hashed += 1;
            }
        }
    }
    assert!(hashed > 500, "{hashed} tensors with values");
}

#[test]
fn hyper_parameters_are_the_peers() {
    for f in fixtures() {
        let (_, got) = f.rewrite();
        assert_eq!(got.early, metadata(f.get("/expected/early")), "{}", f.name);
        assert_eq!(got.hyper, metadata(f.get("/expected/hyper")), "{}", f.name);
    }
}

#[test]
fn vocabularies_are_tried_as_in_the_peer() {
    let mut seen = 0;
    for f in fixtures() {
        let want = f.get("/expected/vocab");
        if want.is_null() {
            continue;
        }
        seen += 1;
        let got = f.rewrite().1.vocab;
        let attempts: Vec<String> = got.attempts.iter().map(|a| format!("{a:?}")).collect();
        assert_eq!(Json::from(attempts), want["attempts"], "{}", f.name);
        assert_eq!(got.before, metadata(&want["before"]), "{}", f.name);
        assert_eq!(got.after, metadata(&want["after"]), "{}", f.name);
    }
    assert!(seen > 20, "{seen}");
}

fn fixture(name: &str) -> Fixture {
    fixtures().into_iter().find(|f| f.name == name).unwrap()
}

fn fails(f: &Fixture, change: impl FnOnce(&mut Model)) -> tensormill_model::Error {
    let config = Config::read(&f.assets()).unwrap();
    let mut model = f.model();
    change(&mut model);
    for_config(&config).unwrap().rewrite(model, &config, FILE_TYPE).err().expect("must be refused")
}

#[test]
fn what_is_left_out_is_listed() {
    for (name, want) in [
        ("llama", &[][..]),
        ("llama-buffers", &["model.layers.0.self_attn.rotary_emb.inv_freq"]),
        ("gemma2", &["lm_head.weight"]),
        (
            "gemma3-multimodal",
            &[
                "multi_modal_projector.mm_input_projection_weight",
                "vision_tower.vision_model.embeddings.patch_embedding.weight",
            ],
        ),
        ("bert", &["pooler.dense.bias", "pooler.dense.weight"]),
    ] {
        assert_eq!(fixture(name).rewrite().1.dropped, want, "{name}");
    }
}

#[test]
fn a_quantized_neighbour_file_is_refused() {
    let mut f = fixture("llama");
    f.json["assets"]["hf_quant_config.json"] = Json::from("{}");
    let e = for_config(&Config::read(&f.assets()).unwrap()).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("hf_quant_config.json"), "{e}");
}

#[test]
fn a_pooling_path_cannot_leave_the_folder() {
    for path in ["../secret", "/etc", "a/../../b", "a\\..\\b"] {
        let mut f = fixture("bert");
        f.json["assets"]["modules.json"] =
            Json::from(serde_json::json!([{"type": "x.Pooling", "path": path}]).to_string());
        let e = fails(&f, |_| {});
        assert_eq!(e.file_name(), Some("modules.json"), "{e}");
    }
}

#[test]
fn gguf_names_get_their_roles_back() {
    let (_, got) = fixture("qwen3moe").rewrite();
    let mut bare = got.model.clone();
    for t in &mut bare.tensors {
        t.role = None;
    }
    let again = roles_for_gguf(bare);
    for (a, b) in again.tensors.iter().zip(&got.model.tensors) {
        assert_eq!(a.role, b.role, "{}", b.name());
    }
}

#[test]
fn every_registered_name_is_known_once() {
    let mut seen = std::collections::HashSet::new();
    for arch in registry() {
        for name in arch.hf_names() {
            assert!(seen.insert(*name), "{name} is registered twice");
            let json = format!("{{\"architectures\": [\"{name}\"]}}");
            let config = Config::parse(json.as_bytes()).unwrap();
            assert_eq!(for_config(&config).unwrap().gguf_name(), arch.gguf_name());
        }
    }
    assert!(seen.len() >= 15);
}

#[test]
fn a_missing_expert_is_named() {
    let f = fixture("mixtral");
    let gone = "model.layers.1.block_sparse_moe.experts.2.w3.weight";
    let e = fails(&f, |m| m.tensors.retain(|t| t.name() != gone));
    assert_eq!(e.kind(), ErrorKind::Mismatch);
    assert!(e.to_string().contains("layer 1"), "{e}");
    // As many matrices as there should be, but one under another expert's number.
    let e = fails(&f, |m| {
        let t = m.tensors.iter_mut().find(|t| t.name() == gone).unwrap();
        t.spec.name = gone.replace("experts.2", "experts.7");
    });
    assert!(e.to_string().contains(gone), "{e}");
}

#[test]
fn a_tensor_without_counterpart_is_named() {
    let f = fixture("llama");
    let e = fails(&f, |m| m.tensors[3].spec.name = "model.layers.0.strange.weight".to_owned());
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("model.layers.0.strange.weight"), "{e}");
}

#[test]
fn absurd_numbers_cost_nothing() {
    for (key, value) in [
        ("num_hidden_layers", Json::from(4_000_000_000u64)),
        ("num_local_experts", Json::from(u64::MAX)),
        ("num_attention_heads", Json::from(0)),
        ("head_dim", Json::from(1u64 << 62)),
        ("num_labels", Json::from(u64::MAX)),
        ("vocab_size", Json::from(-1)),
    ] {
        for name in ["mixtral", "llama-tied-scaled", "phi3-longrope", "gemma3", "bert", "qwen3moe-fused"] {
            let mut f = fixture(name);
            f.json["config"][key] = value.clone();
            // Accepted or refused, but at once and without a panic.
            if let Ok(config) = Config::read(&f.assets()) {
                let _ = for_config(&config).unwrap().rewrite(f.model(), &config, FILE_TYPE).map(|_| ());
            }
        }
    }
}
