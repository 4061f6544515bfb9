//! What is said of schemes while planning: what a single file lacks, what stays plain, what keeps its codes, which search is
//! made, and statistics of another model.

use std::{
    fs,
    path::{Path, PathBuf},
};
use tensormill_core::{
    Result, Search,
    convert::Target,
    job::{self, Job, Variant},
};

fn golden(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden")).join(path)
}

/// The notes of a plan with one variant, and the search that it says.
fn planned(
    source: &str,
    file: &str,
    scheme: &str,
    change: impl FnOnce(&mut Variant),
) -> Result<(Vec<String>, &'static str)> {
    let mut job = Job::new(golden(source), "out", "test");
    job.create_folder = true;
    job.allow_loss = true;
    let mut v = Variant::new("v", file, Target::Recipe(scheme.to_owned()));
    v.side_files = file.contains('/');
    change(&mut v);
    job.variants = vec![v];
    let planned = job::plan(job)?;
    let report = planned.report();
    Ok((report.job.notes.clone(), report.variants[0].search.expect("schemes have a search")))
}

fn notes(source: &str, file: &str, scheme: &str) -> Vec<String> {
    planned(source, file, scheme, |_| ()).unwrap_or_else(|e| panic!("{scheme}: {e}")).0
}

#[test]
fn a_file_alone_lacks_what_config_json_says() {
    let tells = |notes: &[String]| notes.iter().any(|n| n.contains("config.json") && n.contains("-o DIR"));
    for (scheme, key) in [("int4-g32", "quantization_config"), ("mlx-4bit-g32", "quantization")] {
        let said = notes("quantized/source", "x.safetensors", scheme);
        assert!(tells(&said) && said.iter().any(|n| n.contains(key)), "{scheme}: {said:?}");
        assert!(!tells(&notes("quantized/source", "x/model.safetensors", scheme)), "{scheme}");
    }
    // Casts need nothing said of them.
    assert!(!tells(&notes("quantized/source", "x.safetensors", "fp8-cast")));
}

/// A ModelOpt folder of older versions: `config.json` says nothing of quantization.
fn older(name: &str, to: &Path) {
    let from = golden("quantized").join(name);
    let mut config: serde_json::Value =
        serde_json::from_slice(&fs::read(from.join("config.json")).unwrap()).unwrap();
    config.as_object_mut().unwrap().remove("quantization_config").expect("says it");
    fs::write(to.join("config.json"), config.to_string()).unwrap();
    for file in ["hf_quant_config.json", "model.safetensors"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

#[test]
fn what_modelopt_says_in_a_file_of_its_own_is_read() {
    for (name, what) in [
        ("modelopt-fp8", "7 8-bit floats, a scale per matrix"),
        ("modelopt-nvfp4", "7 NVFP4"),
        ("modelopt-mxfp4", "7 MXFP4"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        older(name, dir.path());
        let at = dir.path().display().to_string();
        let consent = |v: &mut Variant| v.allow_requantize = true;
        let (said, _) = planned(&at, "x/model.safetensors", "nf4", consent).unwrap();
        let wanted = format!("quantized weights (ModelOpt): {what}");
        assert!(said.contains(&wanted), "{name}: {said:?}");
        let left = said.iter().filter(|n| n.starts_with("7 scales of activations are left out")).count();
        assert_eq!(left, usize::from(name != "modelopt-mxfp4"), "{name}: {said:?}");
        fs::write(dir.path().join("hf_quant_config.json"), "{}").unwrap();
        let e = planned(&at, "x/model.safetensors", "nf4", consent);
        let e = e.expect_err("says nothing");
        assert!(e.to_string().contains("hf_quant_config.json"), "{e}");
    }
}

/// An importance matrix in the old form.
fn importance(path: &Path, entries: &[(&str, usize)]) {
    let int = |n: usize| (n as i32).to_le_bytes();
    let mut bytes = int(entries.len()).to_vec();
    for (name, columns) in entries {
        bytes.extend(int(name.len()));
        bytes.extend(name.as_bytes());
        bytes.extend(int(1));
        bytes.extend(int(*columns));
        bytes.extend((0..*columns).flat_map(|i| (1.0 + i as f32).to_le_bytes()));
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn statistics_of_another_model_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("matrix.dat");
    let with = |source: &str, out: &str, scheme: &str| {
        planned(source, out, scheme, |v| v.imatrix = Some(file.clone())).map(|(notes, _)| notes)
    };
    importance(&file, &[("blk.0.somebody.weight", 32)]);
    for (source, out, scheme) in [
        ("quantized/source", "x/model.safetensors", "int4-g32"),
        ("quantized/source", "x/onnx/model.onnx", "onnx-int4"),
        ("onnx/quantized/plain-chain.onnx", "x.onnx", "onnx-int4"),
    ] {
        let e = with(source, out, scheme).err().unwrap_or_else(|| panic!("{source}: nothing is said"));
        assert!(e.to_string().contains("the importance matrix says nothing of any weight"), "{source}: {e}");
        assert!(e.hint_text().is_some_and(|h| h.contains("this very model")), "{source}: {e}");
    }
    // One of seven.
    importance(&file, &[("blk.0.attn_q.weight", 32)]);
    let said = with("quantized/source", "x/model.safetensors", "int4-g32").unwrap();
    let wanted = "6 of 7 weights are quantized without the importance matrix";
    assert!(said.iter().any(|n| n.starts_with(wanted)), "{said:?}");
    // A matrix of other columns is refused as before.
    importance(&file, &[("blk.0.attn_q.weight", 31)]);
    let e = with("quantized/source", "x/model.safetensors", "int4-g32").expect_err("31 columns");
    assert!(e.to_string().contains("has 31 values"), "{e}");
}

#[test]
fn the_search_that_is_told_is_the_one_that_is_made() {
    for (scheme, search, told) in [
        ("int4-g32", Search::Hqq, "hqq"),
        ("int4-g32", Search::Best, "mse"),
        ("nf4", Search::Hqq, "mse"),
        ("fp8", Search::Hqq, "mse"),
        ("mxfp4", Search::Mse, "mse"),
        // The scale of a whole matrix is found before its codes are; a cast has none.
        ("fp8-tensor", Search::Best, "nearest"),
        ("fp8-cast", Search::Best, "nearest"),
        ("fp8", Search::Usual, "nearest"),
    ] {
        let (_, found) =
            planned("quantized/source", "x/model.safetensors", scheme, |v| v.search = search).unwrap();
        assert_eq!(found, told, "{scheme}, {search:?}");
    }
}

#[test]
fn searches_that_a_scheme_does_not_have_are_told() {
    const FOLDER: &str = "x/model.safetensors";
    let with = |scheme: &str, search, rule: Option<&str>| {
        planned("quantized/source", FOLDER, scheme, |v| {
            v.search = search;
            v.tensor_types.extend(rule.map(str::to_owned));
        })
    };
    for (scheme, search, has) in [
        ("fp8-cast", Search::Mse, "has --search usual"),
        ("fp8-cast", Search::Hqq, "has --search usual"),
        // Not asked for a calibration file that would change nothing.
        ("fp8-cast", Search::Gptq, "has --search usual"),
        ("fp8-cast-e5m2", Search::Awq, "has --search usual"),
        ("fp8-tensor", Search::Mse, "has --search usual, gptq, awq"),
        ("fp8-tensor", Search::Hqq, "has --search usual, gptq, awq"),
    ] {
        let e =
            with(scheme, search, None).err().unwrap_or_else(|| panic!("{scheme}, {search:?}: is planned"));
        let wanted = format!("--search {} does nothing for {scheme}", search.name());
        assert!(e.to_string().contains(&wanted), "{scheme}, {search:?}: {e}");
        assert!(e.hint_text().is_some_and(|h| h.ends_with(has)), "{scheme}, {search:?}: {:?}", e.hint_text());
    }
    let said = |scheme: &str, search, rule| {
        let (notes, _) = with(scheme, search, rule).unwrap_or_else(|e| panic!("{scheme}: {e}"));
        notes.into_iter().filter(|n| n.contains("--search")).collect::<Vec<_>>()
    };
    // The least error that there is, is asked for of anything.
    assert!(said("fp8-cast", Search::Best, None)[0].contains("best does nothing for fp8-cast"));
    assert_eq!(
        said("nf4", Search::Hqq, None),
        ["--search hqq is for integers: weights that become nf4 get mse"]
    );
    assert_eq!(said("int4-g32", Search::Hqq, None), [""; 0]);
    // What some weights have is made of them.
    let mixed = said("int4-g32", Search::Mse, Some("down_proj=fp8-tensor"));
    assert!(mixed.len() == 1 && mixed[0].contains("mse does nothing for fp8-tensor"), "{mixed:?}");
}

#[test]
fn statistics_by_which_nothing_goes_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("matrix.dat");
    importance(&file, &[("blk.0.attn_q.weight", 32)]);
    let said = |scheme: &str| {
        let given = |v: &mut Variant| v.imatrix = Some(file.clone());
        planned("quantized/source", "x/model.safetensors", scheme, given).unwrap().0
    };
    for scheme in ["fp8-cast", "fp8-tensor"] {
        let idle = format!("the importance matrix does nothing for {scheme}");
        assert!(said(scheme).iter().any(|n| n.starts_with(&idle)), "{scheme}: {:?}", said(scheme));
    }
    assert!(!said("fp8").iter().any(|n| n.contains("does nothing")), "{:?}", said("fp8"));
}

/// A calibration file of the layers of `golden/quantized/source`, whose inputs have nothing in common.
fn calibration(path: &Path) {
    let mut header =
        serde_json::json!({ "__metadata__": { "format": "tensormill.calibration", "version": "1" } });
    let mut data: Vec<u8> = Vec::new();
    let modules =
        ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down"];
    for module in modules {
        let n = if module == "mlp.down" { 96 } else { 32 };
        let eye = (0..n * n).map(|i| if i % (n + 1) == 0 { 1f32 } else { 0.0 });
        for (what, shape, values) in
            [("hessian", vec![n, n], eye.collect::<Vec<_>>()), ("mean_square", vec![n], vec![1.0; n])]
        {
            let from = data.len();
            data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
            header[format!("model.layers.0.{module}_proj.{what}")] =
                serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [from, data.len()] });
        }
    }
    let header = header.to_string();
    let len = (header.len() as u64).to_le_bytes();
    fs::write(path, [&len[..], header.as_bytes(), &data].concat()).unwrap();
}

#[test]
fn error_feedback_is_refused_where_blocks_run_on_from_row_to_row() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("calibration.safetensors");
    calibration(&file);
    let plan = |scheme: &str| {
        planned("quantized/source", "x/model.safetensors", scheme, |v| {
            v.search = Search::Gptq;
            v.calibration = Some(file.clone());
        })
    };
    assert_eq!(plan("int4-g32").unwrap().1, "gptq");
    let e = plan("nf4").expect_err("rows of 32 in blocks of 64");
    assert!(
        e.to_string().contains("run on from row to row") && e.to_string().contains("_proj.weight"),
        "{e}"
    );
}

#[test]
fn tables_that_stay_plain_in_graphs_are_told() {
    let table = |notes: &[String]| notes.iter().any(|n| n.starts_with("embeddings.weight stays as it is"));
    let said = notes("onnx/quantized/plain-chain.onnx", "x.onnx", "onnx-uint8");
    assert!(table(&said) && said.iter().any(|n| n.contains("=onnx-int8'")), "{said:?}");
    assert!(!table(&notes("onnx/quantized/plain-chain.onnx", "x.onnx", "onnx-int8")));
    // What the note advises.
    let advised = |v: &mut Variant| v.tensor_types = vec![r"embeddings\.weight=onnx-int8".to_owned()];
    let (said, _) = planned("onnx/quantized/plain-chain.onnx", "x.onnx", "onnx-uint8", advised).unwrap();
    assert!(!table(&said), "{said:?}");
}

#[test]
fn graphs_say_which_codes_they_keep() {
    let kept = |notes: &[String]| notes.iter().any(|n| n == "7 weights keep the codes that the source has");
    let said = notes("quantized/ct-int4-g32", "x/onnx/model.onnx", "onnx-int4");
    assert!(kept(&said), "{said:?}");
    assert!(!kept(&notes("quantized/source", "x/onnx/model.onnx", "onnx-int4")));
}
