//! MLX against what mlx-lm wrote and mlx decoded, and the packed weights of BitNet and gpt-oss against what transformers
//! decodes: golden/quantized.

mod common;

use common::{config, file};
use tensormill_model::Tensor;
use tensormill_schemes::{Place, Quantize, open, scheme};
use tensormill_tensor::{DType, Encoding, decode_plain};

/// Folders, what their weights are held as, and how they are made of `golden/quantized/source`.
const MLX: [(&str, &[&str], &str); 10] = [
    ("mlx-2bit-g32", &["mlx 2-bit"], "mlx-2bit-g32"),
    ("mlx-3bit-g32", &["mlx 3-bit"], "mlx-3bit-g32"),
    ("mlx-4bit-g32", &["mlx 4-bit"], "mlx-4bit-g32"),
    ("mlx-5bit-g32", &["mlx 5-bit"], "mlx-5bit-g32"),
    ("mlx-6bit-g32", &["mlx 6-bit"], "mlx-6bit-g32"),
    ("mlx-8bit-g32", &["mlx 8-bit"], "mlx-8bit-g32"),
    ("mlx-mxfp4", &["mlx mxfp4"], "mlx-mxfp4"),
    ("mlx-nvfp4", &["mlx nvfp4"], "mlx-nvfp4"),
    ("mlx-mxfp8", &["mlx mxfp8"], "mlx-mxfp8"),
    ("mlx-mixed", &["mlx 4-bit", "mlx 6-bit"], "mlx-4bit-g32"),
];

/// The rules that the mixed folder was made with.
const MIXED: [(&str, &str); 2] = [("o_proj", "plain"), ("down_proj|embed_tokens", "mlx-6bit-g32")];

fn check_values(name: &str, what: &[&str]) {
    let source = file(name, "model.safetensors");
    let opened = open(&source.model(), &config(name), &|e| source.eval(e)).unwrap().unwrap();
    assert_eq!(opened.counts.keys().collect::<Vec<_>>(), what, "{name}");
    let expected = file(name, "expected.safetensors");
    assert!(!expected.tensors.is_empty());
    for (tensor, (form, bytes)) in &expected.tensors {
        let t = opened.model.tensor(tensor).unwrap_or_else(|| panic!("{name} lacks {tensor}"));
        assert_eq!(t.spec.shape, form.shape, "{name} {tensor}");
        let Encoding::Plain(dtype) = form.encoding else { panic!("blocks") };
        let numbers = |bytes: &[u8]| {
            let mut x = vec![0f32; form.shape.elements() as usize];
            assert!(decode_plain(dtype, bytes, &mut x));
            x
        };
        let got = numbers(&source.values(&t.expr, dtype).unwrap());
        assert_eq!(got, numbers(bytes), "{name} {tensor}");
    }
    let left =
        |t: &&Tensor| ["scales", "biases", "weight_scale", "blocks"].iter().any(|s| t.name().ends_with(s));
    assert_eq!(opened.model.tensors.iter().find(left).map(Tensor::name), None, "{name}");
}

#[test]
fn values_are_those_that_mlx_decodes() {
    for (name, what, _) in MLX {
        check_values(name, what);
    }
}

#[test]
fn ternary_weights_and_stacked_experts_are_read() {
    check_values("bitnet", &["ternary"]);
    check_values("gpt-oss-mxfp4", &["mxfp4"]);
}

#[test]
fn the_same_source_gives_mlx_lms_bytes() {
    let source = file("source", "model.safetensors");
    let mut wrong = Vec::new();
    for (name, _, preset) in MLX {
        let place = |t: &Tensor| match t.name() {
            n if n.contains("norm") => Place::Other,
            n if n.contains("embed") => Place::Table,
            _ => Place::Linear,
        };
        let mixed = MIXED.map(|(pattern, name)| common::rule(pattern, scheme(name)));
        let rules = if name == "mlx-mixed" { mixed.into() } else { Vec::new() };
        let quantize = Quantize { rules, ..common::quantize(scheme(preset).unwrap(), &place) };
        let made = quantize.rewrite(source.model()).unwrap();
        assert_eq!(made.model.metadata.str("format"), Some("mlx"));
        let expected = file(name, "model.safetensors");
        let written = source.written(&made.model);
        assert_eq!(made.model.tensors.len(), expected.tensors.len(), "{name}");
        assert_eq!(written.tensors.len(), expected.tensors.len(), "{name}");
        for (tensor, (form, got)) in &written.tensors {
            let (want, bytes) = expected.tensors.get(tensor).unwrap_or_else(|| panic!("{name}: {tensor}"));
            assert_eq!(form, want, "{name} {tensor}");
            let different = got.iter().zip(bytes).filter(|(a, b)| a != b).count();
            if different > 0 {
                wrong.push(format!("{name} {tensor}: {different} of {} bytes", bytes.len()));
            }
        }
        for key in ["quantization", "quantization_config"] {
            assert_eq!(made.config[key], config(name)[key], "{name} {key}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn stacked_experts_get_their_own_names() {
    let mut source = file("mlx-4bit-g32", "model.safetensors");
    // Two experts of one matrix's rows, as mlx-lm stacks them.
    for part in ["weight", "scales", "biases"] {
        let (form, bytes) = source.tensors.remove(&format!("model.layers.0.mlp.up_proj.{part}")).unwrap();
        let dims = vec![2, form.shape.rows() / 2, form.shape.row_len()];
        let shape = tensormill_tensor::Shape::new(dims).unwrap();
        let form = tensormill_model::Form::new(shape, form.encoding);
        source.tensors.insert(format!("model.layers.0.mlp.switch_mlp.up_proj.{part}"), (form, bytes));
    }
    let whole = file("mlx-4bit-g32", "model.safetensors");
    let values = |file: &common::File, name: &str| {
        let opened = open(&file.model(), &config("mlx-4bit-g32"), &|e| file.eval(e)).unwrap().unwrap();
        file.values(&opened.model.tensor(name).unwrap().expr, DType::F32).unwrap()
    };
    let want = values(&whole, "model.layers.0.mlp.up_proj.weight");
    let got: Vec<u8> = (0..2)
        .flat_map(|e| values(&source, &format!("model.layers.0.mlp.experts.{e}.up_proj.weight")))
        .collect();
    assert_eq!(got, want);
}
