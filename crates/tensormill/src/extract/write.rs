//! The adapter's files: weights in safetensors' layout, configuration, card. They appear together, when all is known.

use super::{
    adapter,
    pairs::How,
    run::{Job, Outcome},
};
use crate::{Source, formats::SAFETENSORS};
use serde_json::Value as Json;
use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tensormill_model::{
    Error, Expr, Form, Format, Metadata, Model, Result, ShardLimits, Tensor, Value, WriteOptions,
};
use tensormill_store::{Existing, OutputSet, Parts};
use tensormill_tensor::{Encoding, Shape};

/// The files of an adapter, the weights first.
pub(super) const FILES: [&str; 3] = ["adapter_model.safetensors", "adapter_config.json", "README.md"];

/// Bytes that are copied together.
const PORTION: u64 = 4 << 20;

/// What is written.
pub(super) struct Input<'a> {
    pub(super) jobs: &'a [Job<'a>],
    pub(super) outcomes: &'a [Outcome],
    pub(super) held: &'a [bool],
    pub(super) tuned: &'a Source,
    /// Where the factors are.
    pub(super) spool: &'a OutputSet,
}

/// Where the bytes of a tensor come from.
enum From {
    /// A byte of the file of factors.
    Factors(u64),
    /// A tensor of the tuned checkpoint.
    Tuned(usize),
}

/// Writes the files; gives their paths and the bytes of the weights.
pub(super) fn write(
    folder: &Path,
    input: &Input<'_>,
    config: &Json,
    card: &str,
    existing: Existing,
    cancel: &AtomicBool,
) -> Result<(Vec<String>, u64)> {
    let (tensors, sources) = tensors(input)?;
    let mut metadata = Metadata::new();
    // Libraries of Hugging Face refuse files that do not say where they come from.
    metadata.set("format", Value::Str("pt".into()));
    let model = Model { tensors, metadata, assets: Arc::clone(&input.tuned.model.assets), program: None };
    let checked = model.check(&SAFETENSORS.info().capabilities)?;
    let options =
        WriteOptions { file_name: FILES[0].to_owned(), shards: ShardLimits::default(), external: false };
    let layout = SAFETENSORS.layout(&checked, &options)?;
    let file = &layout.files[0];
    let mut set = OutputSet::open(folder, &[(file.name.clone(), file.len)], existing, Parts::Fresh)?;
    set.write_all_at(0, 0, &file.header)?;
    let mut buffer = Vec::new();
    for ((tensor, source), place) in checked.model().tensors.iter().zip(&sources).zip(&layout.places) {
        let len = tensor.spec.bytes()?;
        // Whole rows of what is read.
        let row = match source {
            From::Factors(_) => 1,
            From::Tuned(_) => tensor.spec.row_bytes()?.max(1),
        };
        let step = (PORTION / row).max(1) * row;
        let mut at = 0;
        while at < len {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::cancelled());
            }
            let end = len.min(at + step);
            buffer.resize((end - at) as usize, 0);
            match source {
                From::Factors(first) => input.spool.read_exact_at(0, first + at, &mut buffer)?,
                From::Tuned(number) => {
                    input.tuned.readers[0].read(*number, at / row..end / row, &mut buffer)?;
                }
            }
            set.write_all_at(0, place.offset + at, &buffer)?;
            at = end;
        }
    }
    let mut text =
        serde_json::to_vec_pretty(config).map_err(|e| Error::io("encode the configuration", e.into()))?;
    text.push(b'\n');
    set.add(FILES[1], &text)?;
    set.add(FILES[2], card.as_bytes())?;
    let paths = set.commit()?;
    Ok((paths.iter().map(|p| p.display().to_string()).collect(), file.len))
}

/// The adapter's tensors, and where their bytes come from.
fn tensors(input: &Input<'_>) -> Result<(Vec<Tensor>, Vec<From>)> {
    let pairs = || input.jobs.iter().map(|j| j.pair).zip(input.outcomes);
    let with_factors: HashSet<&str> =
        pairs().filter(|(p, o)| p.how.is_low_rank() && o.rank > 0).map(|(p, _)| p.module.as_str()).collect();
    let (mut tensors, mut sources) = (Vec::new(), Vec::new());
    for ((job, outcome), held) in input.jobs.iter().zip(input.outcomes).zip(input.held) {
        if !held {
            continue;
        }
        let pair = job.pair;
        let names = adapter::names(pair, with_factors.contains(pair.module.as_str()));
        let spec = &input.tuned.readers[0].index().tensors[pair.tuned];
        let mut add = |name: &String, shape: Vec<u64>, encoding: Encoding, from: From| -> Result<u64> {
            let form = Form::new(Shape::new(shape)?, encoding);
            let tensor = Tensor::new(name, Expr::Read { source: 0, tensor: sources.len(), form })?;
            let len = tensor.spec.bytes()?;
            tensors.push(tensor);
            sources.push(from);
            Ok(len)
        };
        if !pair.how.is_low_rank() {
            for name in &names {
                add(name, spec.shape.dims().to_vec(), spec.encoding, From::Tuned(pair.tuned))?;
            }
            continue;
        }
        let (rank, dims) = (outcome.rank as u64, spec.shape.dims());
        let (rows, rest) = (dims[0], &dims[1..]);
        let (a, b) = match pair.how {
            // `A` reads tokens or inputs, which are the rows here.
            How::Embedding | How::Linear(true) => (vec![rank, rows], vec![rest[0], rank]),
            _ => {
                let a = std::iter::once(rank).chain(rest.iter().copied()).collect();
                // `B` of a convolution is one of a single point.
                let b = [rows, rank].into_iter().chain(rest.iter().skip(1).map(|_| 1)).collect();
                (a, b)
            }
        };
        let encoding = Encoding::Plain(job.dtype);
        let len = add(&names[0], a, encoding, From::Factors(job.at))?;
        add(&names[1], b, encoding, From::Factors(job.at + len))?;
    }
    Ok((tensors, sources))
}
