//! What the tests of layouts share: the golden folders, a reader of their files, and an evaluator of expressions that shares no
//! code with the engine.

use regex::Regex;
use serde_json::{Map, Value as Json};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use tensormill_model::{Expr, Form, Locality, MemoryAssets, Metadata, Model, Result, Tally, Tensor};
use tensormill_schemes::{Fit, Names, Place, Quantize, Rule, Scheme};
use tensormill_tensor::{DType, Encoding, Shape, decode_plain, encode_plain};

/// A safetensors file in memory.
pub struct File {
    /// Name, form and bytes, in the order of names.
    pub tensors: BTreeMap<String, (Form, Vec<u8>)>,
}

/// A golden folder of `golden/quantized`.
pub fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/quantized").join(name)
}

/// `config.json` of a golden folder.
pub fn config(name: &str) -> Map<String, Json> {
    serde_json::from_slice(&std::fs::read(folder(name).join("config.json")).unwrap()).unwrap()
}

/// A file of a golden folder.
pub fn file(name: &str, file: &str) -> File {
    File::parse(&std::fs::read(folder(name).join(file)).unwrap())
}

/// Quantizing by a scheme, where nothing else is said: a model whose output shares the embeddings.
pub fn quantize<'a>(scheme: &'static Scheme, place: &'a dyn Fn(&Tensor) -> Place) -> Quantize<'a> {
    Quantize {
        scheme,
        rules: Vec::new(),
        fit: Fit::Nearest,
        place,
        fused: &|module| vec![module.to_owned()],
        shared: vec!["lm_head".to_owned()],
        importance: &|_| Ok(None),
        feedback: &|_| Ok(None),
        scaling: None,
        allow_requantize: false,
    }
}

/// A rule that gives a scheme to the weights in whose names something is found; without one they stay plain.
pub fn rule(pattern: &str, scheme: Option<&'static Scheme>) -> Rule {
    Rule { names: Names::Like(Regex::new(pattern).unwrap()), scheme }
}

fn dtype(name: &str) -> DType {
    match name {
        "F64" => DType::F64,
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        "I64" => DType::I64,
        "I32" => DType::I32,
        "I8" => DType::I8,
        "U8" => DType::U8,
        "U32" => DType::U32,
        "F8_E4M3" => DType::F8E4M3,
        "F8_E5M2" => DType::F8E5M2,
        "F8_E8M0" => DType::F8E8M0,
        other => panic!("a file of {other}"),
    }
}

impl File {
    fn parse(bytes: &[u8]) -> Self {
        let (len, rest) = bytes.split_at(8);
        let (header, data) = rest.split_at(u64::from_le_bytes(len.try_into().unwrap()) as usize);
        let header: Map<String, Json> = serde_json::from_slice(header).unwrap();
        let tensors = header.into_iter().filter(|(n, _)| n != "__metadata__").map(|(name, t)| {
            let numbers = |key: &str| -> Vec<u64> {
                t[key].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect()
            };
            let at = numbers("data_offsets");
            let encoding = Encoding::Plain(dtype(t["dtype"].as_str().unwrap()));
            let form = Form::new(Shape::new(numbers("shape")).unwrap(), encoding);
            (name, (form, data[at[0] as usize..at[1] as usize].to_vec()))
        });
        Self { tensors: tensors.collect() }
    }

    /// The tensors of a model over this file.
    pub fn written(&self, model: &Model) -> Self {
        let tensors = model.tensors.iter().map(|t| {
            let bytes = self.eval(&t.expr).unwrap_or_else(|e| panic!("{}: {e}", t.name()));
            (t.name().to_owned(), (Form::new(t.spec.shape.clone(), t.spec.encoding), bytes))
        });
        Self { tensors: tensors.collect() }
    }

    /// Its tensors as a model that reads source 0.
    pub fn model(&self) -> Model {
        let tensors = self.tensors.iter().enumerate();
        let tensors = tensors.map(|(tensor, (name, (form, _)))| {
            Tensor::new(name, Expr::Read { source: 0, tensor, form: form.clone() }).unwrap()
        });
        Model {
            tensors: tensors.collect(),
            metadata: Metadata::new(),
            assets: Arc::new(MemoryAssets::default()),
            program: None,
        }
    }

    /// All bytes of an expression over this file.
    pub fn eval(&self, expr: &Expr) -> Result<Vec<u8>> {
        let bytes = |form: &Form| Ok::<_, tensormill_model::Error>(form.row_bytes()? as usize);
        match expr {
            Expr::Read { tensor, .. } => Ok(self.tensors.values().nth(*tensor).unwrap().1.clone()),
            Expr::Const { bytes, .. } => Ok(bytes.to_vec()),
            Expr::Reshape { input, .. } => {
                expr.form()?;
                self.eval(input)
            }
            Expr::Rows { input, map } => {
                let (value, row) = (self.eval(input)?, bytes(&input.form()?)?);
                let rows = (0..expr.form()?.shape.rows()).map(|i| map.source(i) as usize);
                Ok(rows.flat_map(|r| value[r * row..][..row].to_vec()).collect())
            }
            Expr::Concat { inputs, .. } => {
                expr.form()?;
                Ok(inputs.iter().map(|e| self.eval(e)).collect::<Result<Vec<_>>>()?.concat())
            }
            Expr::Transpose { input } => {
                let (value, form) = (self.eval(input)?, input.form()?);
                expr.form()?;
                let dims = form.shape.dims();
                let (rows, columns) = (dims[dims.len() - 2] as usize, dims[dims.len() - 1] as usize);
                let size = bytes(&form)? / columns.max(1);
                let mut out = Vec::with_capacity(value.len());
                for matrix in value.chunks_exact((rows * columns * size).max(1)) {
                    for c in 0..columns {
                        (0..rows)
                            .for_each(|r| out.extend_from_slice(&matrix[(r * columns + c) * size..][..size]));
                    }
                }
                Ok(out)
            }
            Expr::Apply { op, inputs } => {
                let forms = inputs.iter().map(Expr::form).collect::<Result<Vec<_>>>()?;
                let form = op.form(&forms)?;
                let values = inputs.iter().map(|e| self.eval(e)).collect::<Result<Vec<_>>>()?;
                let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
                let rows = form.shape.rows();
                let mut out = vec![0; rows as usize * bytes(&form)?];
                if let Some(reduction) = op.reduction() {
                    let mut tallies = Vec::new();
                    while !reduction.value(&tallies, &forms, &mut out) {
                        let mut tally = Tally::default();
                        let rows = 0..forms[0].shape.rows();
                        reduction.add(&tallies, rows, &forms, &values, &mut tally)?;
                        tallies.push(tally);
                    }
                    return Ok(out);
                }
                // In two parts where that is allowed, so that ops that mistake their first row show.
                let unit = op.unit().max(1);
                let cut = (rows / 2).next_multiple_of(unit).min(rows);
                let row = bytes(&form)?;
                for part in [0..cut, cut..rows].into_iter().filter(|p| !p.is_empty()) {
                    let inputs: Vec<&[u8]> = (values.iter().zip(&forms).enumerate())
                        .map(|(i, (value, form))| match op.locality(i) {
                            Locality::Whole => Ok(*value),
                            local => {
                                let (of, row) = (local.of(&part, form.shape.rows()), bytes(form)?);
                                Ok(&value[of.start as usize * row..of.end as usize * row])
                            }
                        })
                        .collect::<Result<_>>()?;
                    let out = &mut out[part.start as usize * row..part.end as usize * row];
                    op.run(part, &forms, &inputs, out)?;
                }
                Ok(out)
            }
        }
    }

    /// The values of an expression, rounded to a plain type.
    pub fn values(&self, expr: &Expr, to: DType) -> Result<Vec<u8>> {
        let Encoding::Plain(from) = expr.form()?.encoding else { panic!("blocks") };
        let (bytes, n) = (self.eval(expr)?, expr.form()?.shape.elements() as usize);
        if from == to {
            return Ok(bytes);
        }
        let mut x = vec![0f32; n];
        assert!(decode_plain(from, &bytes, &mut x));
        let mut out = vec![0; n * to.bits() as usize / 8];
        assert!(encode_plain(to, &x, &mut out));
        Ok(out)
    }
}
