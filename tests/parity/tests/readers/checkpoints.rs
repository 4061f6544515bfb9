//! candle's own readers of safetensors and PyTorch files: names, shapes, dtypes and values are the source's.

use candle_core::{DType, Device, Tensor, pickle, safetensors};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};
use tensormill_core::convert::{Request, Target};
use tensormill_parity::{MODELS, convert, golden_model};

/// Types that checkpoints are cast to; the last one leaves them alone.
const TARGETS: [Target; 4] = [
    Target::Dtype(tensormill_core::DType::F32),
    Target::Dtype(tensormill_core::DType::F16),
    Target::Dtype(tensormill_core::DType::BF16),
    Target::Lossless,
];

fn values(t: &Tensor) -> Vec<f32> {
    let flat = t.flatten_all().and_then(|t| t.to_dtype(DType::F32)).expect("floats");
    flat.to_vec1().expect("values")
}

/// The weights of a golden model, read by candle.
fn source(model: &str) -> BTreeMap<String, Tensor> {
    let files = fs::read_dir(golden_model(model)).expect("golden model");
    let files =
        files.map(|e| e.expect("entry").path()).filter(|p| p.extension().is_some_and(|e| e == "safetensors"));
    files.flat_map(|p| safetensors::load(p, &Device::Cpu).expect("golden weights")).collect()
}

fn check(what: &str, model: &str, target: &Target, found: &HashMap<String, Tensor>) {
    let source = source(model);
    assert_eq!(found.len(), source.len(), "{model} as {what}: number of tensors");
    for (name, want) in &source {
        let got = found.get(name).unwrap_or_else(|| panic!("{model} as {what} lacks {name}"));
        let dtype = match target {
            Target::Dtype(tensormill_core::DType::F32) => DType::F32,
            Target::Dtype(tensormill_core::DType::F16) => DType::F16,
            Target::Dtype(_) => DType::BF16,
            _ => want.dtype(),
        };
        assert_eq!((got.dims(), got.dtype()), (want.dims(), dtype), "{model} as {what}: {name}");
        // candle's own cast is the oracle.
        let want = want.to_dtype(dtype).expect("candle casts");
        assert!(values(&want) == values(got), "{model} as {what}: values of {name}");
    }
}

fn request(model: &str, output: &Path, target: &Target) -> Request {
    Request::new(golden_model(model), output, target.clone())
}

#[test]
fn candle_reads_our_safetensors() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    for model in MODELS {
        for (i, target) in TARGETS.iter().enumerate() {
            let mut sharded =
                request(model, &scratch.path().join(format!("{model}-{i}.safetensors")), target);
            sharded.variant.shards.bytes = (i % 2 == 1).then_some(100_000);
            let files = convert(&sharded);
            let weights = files.iter().filter(|p| p.extension().is_some_and(|e| e == "safetensors"));
            let found: HashMap<String, Tensor> =
                weights.flat_map(|p| safetensors::load(p, &Device::Cpu).expect("candle opens it")).collect();
            check("safetensors", model, target, &found);
        }
    }
}

#[test]
fn candle_reads_our_torch_checkpoints() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    for model in MODELS {
        for (i, target) in TARGETS.iter().enumerate() {
            let path = scratch.path().join(format!("{model}-{i}.pt"));
            convert(&request(model, &path, target));
            let read = pickle::read_all(&path).unwrap_or_else(|e| panic!("candle reads {model}: {e}"));
            check("a torch checkpoint", model, target, &read.into_iter().collect());
        }
    }
}
