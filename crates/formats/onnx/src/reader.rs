//! Opening a model: the program without its weights, then positional reads of them.

use crate::{
    codec::Message,
    data::{Found, FoundTensor, Stored},
    sound,
    wire::{Input, Span},
};
use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
};
use tensormill_graph::{Program, Stand, Weight};
use tensormill_model::{
    Error, Folder, Index, LeftOut, Limits, Metadata, Place, Reader, Result, Rows, Store, Value,
};
use tensormill_tensor::{DType, Encoding, Shape, TensorSpec};

/// An opened model.
pub struct OnnxReader {
    program: Arc<Program>,
    index: Index,
    tensors: Vec<FoundTensor>,
    /// The model's file, and those its weights are in.
    stores: Vec<Arc<dyn Store>>,
    /// File of every tensor.
    file_of: Vec<usize>,
}

impl OnnxReader {
    /// Reads everything but weights. `folder` is where files of weights lie.
    ///
    /// # Errors
    /// `Malformed`, `OverLimit` and `Unsupported` with the place in the file; missing files of weights.
    pub(crate) fn open(store: Arc<dyn Store>, folder: Option<&dyn Folder>, limits: &Limits) -> Result<Self> {
        let mut found = Found::default();
        let mut program = Program::default();
        let mut input = Input::new(&*store, limits);
        program.read(&mut input, Span { start: 0, len: store.len() }, &mut found)?;
        drop(input);
        sound::check(&mut program)?;
        let (tensors, names) = name_slots(&mut program, found)?;
        let mut reader = Self {
            index: Index { metadata: metadata(&program), ..Index::default() },
            program: Arc::new(program),
            tensors,
            stores: vec![store],
            file_of: Vec::new(),
        };
        reader.open_files(folder, &names)?;
        for (t, name) in reader.tensors.iter().zip(names) {
            reader.index.tensors.push(spec(name, t)?);
        }
        reader.index.left_out = left_out(&reader.program);
        Ok(reader)
    }

    /// The program; its weights are numbered as the index' tensors and have their names.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Files of weights: each once, and all tensors within them.
    fn open_files(&mut self, folder: Option<&dyn Folder>, names: &[String]) -> Result<()> {
        let mut known: HashMap<&str, usize> = HashMap::new();
        for (t, name) in self.tensors.iter().zip(names) {
            let Stored::External { location, offset, to_end } = &t.stored else {
                self.file_of.push(0);
                continue;
            };
            let fail = |e: Error| e.tensor(name);
            let file = if let Some(file) = known.get(location.as_str()) {
                *file
            } else {
                let folder = folder.ok_or_else(|| {
                    fail(Error::unsupported(format!("its elements are in another file, {location:?}")))
                })?;
                let store = folder.store(location).map_err(fail)?.ok_or_else(|| {
                    fail(Error::malformed(format!("its elements are in {location:?}, which is not there")))
                        .hint("a model with external data is several files: get the others, too")
                })?;
                let own = Path::new(self.stores[0].name()).file_name();
                if own.is_some_and(|n| Path::new(location).file_name() == Some(n)) {
                    return Err(fail(Error::malformed("its elements are in the model's own file")));
                }
                known.insert(location, self.stores.len());
                self.stores.push(store);
                self.stores.len() - 1
            };
            let len = self.stores[file].len();
            if *to_end && offset.checked_add(t.bytes).is_some_and(|end| end < len) {
                return Err(fail(Error::malformed(format!(
                    "its elements go up to the end of {location:?}, {len} bytes, where its shape takes {}",
                    t.bytes
                ))));
            }
            if offset.checked_add(t.bytes).is_none_or(|end| end > len) {
                return Err(fail(Error::malformed(format!(
                    "its elements, {} bytes from {offset}, end after {location:?}, which has {len}",
                    t.bytes
                ))));
            }
            self.file_of.push(file);
        }
        Ok(())
    }
}

/// Decides which tensors are the model's, and gives them names: all initializers, and of the others those that look like
/// weights. What is left keeps its elements in the program.
fn name_slots(program: &mut Program, found: Found) -> Result<(Vec<FoundTensor>, Vec<String>)> {
    let (mut kept, mut names) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    let mut weights = Vec::new();
    let mut twice = None;
    let mut tensors: Vec<Option<FoundTensor>> = found.tensors.into_iter().map(Some).collect();
    program.tensors_mut(|path, stand, t| {
        let Some(slot) = t.slot.take() else { return };
        let Some(one) = tensors.get_mut(slot).and_then(Option::take) else { return };
        let float = matches!(one.elem.dtype(), Some(d) if d.is_float());
        let known = t.bytes().is_some();
        if stand == Stand::Attribute && known && (!float || one.dims.is_empty()) {
            return;
        }
        let mut name = if path.is_empty() { "unnamed".to_owned() } else { path.to_owned() };
        if !seen.insert(name.clone()) {
            if stand == Stand::Initializer && t.name == path {
                twice.get_or_insert_with(|| name.clone());
            }
            let base = name.clone();
            for n in 2.. {
                name = format!("{base}.{n}");
                if seen.insert(name.clone()) {
                    break;
                }
            }
        }
        t.slot = Some(kept.len());
        let mut weight = Weight::plain(&name);
        weight.keep_type = t.dtype().is_none();
        weights.push(weight);
        names.push(name);
        kept.push(one);
    });
    if let Some(name) = twice {
        return Err(Error::malformed("two initializers have this name").tensor(name));
    }
    program.weights = weights;
    Ok((kept, names))
}

/// Elements that have no type elsewhere in the house (4-bit integers, complex128) are seen as bytes.
fn spec(name: String, t: &FoundTensor) -> Result<TensorSpec> {
    let fail = |e: Error| e.tensor(&name);
    let whole = t.elem.dtype().filter(|d| d.bytes(t.dims.iter().product()).is_some());
    let (dtype, dims) = match whole {
        Some(d) => (d, t.dims.clone()),
        None => (DType::U8, vec![t.bytes]),
    };
    let shape = Shape::new(dims).map_err(|e| fail(e.into()))?;
    if shape.row_len().checked_mul(dtype.bits()).is_none() {
        return Err(fail(Error::malformed(format!(
            "rows of shape {shape} are larger than 64 bits can count"
        ))));
    }
    Ok(TensorSpec::new(name, shape, Encoding::Plain(dtype)))
}

fn metadata(program: &Program) -> Metadata {
    let mut all = Metadata::new();
    for pair in &program.metadata {
        // Loaders take one of them; rewriting keeps all.
        if all.get(&pair.key).is_none() {
            all.set(pair.key.clone(), Value::Str(pair.value.clone()));
        }
    }
    all
}

/// Texts are no tensors anywhere else.
fn left_out(program: &Program) -> Vec<LeftOut> {
    let texts = program.graph.initializers.iter().filter(|t| t.elem == tensormill_graph::Elem::STRING);
    texts.map(|t| LeftOut { name: t.name.clone(), what: "a tensor of texts".to_owned() }).collect()
}

impl Reader for OnnxReader {
    fn index(&self) -> &Index {
        &self.index
    }

    fn read(&self, tensor: usize, rows: Rows, out: &mut [u8]) -> Result<()> {
        let spec = &self.index.tensors[tensor];
        let store = &self.stores[self.file_of[tensor]];
        let fail = |e: Error| e.tensor(&spec.name).file(store.name());
        if rows.start > rows.end || rows.end > spec.shape.rows() {
            return Err(fail(Error::usage(format!(
                "rows {}..{} of {}",
                rows.start,
                rows.end,
                spec.shape.rows()
            ))));
        }
        let bits = match spec.encoding {
            Encoding::Plain(d) => spec.shape.row_len() * d.bits(),
            Encoding::Block(_) => 0,
        };
        let (first, len) = (rows.start * bits, (rows.end - rows.start) * bits);
        if !first.is_multiple_of(8) || len != out.len() as u64 * 8 {
            return Err(fail(Error::unsupported(format!(
                "rows {}..{} of {} {} do not start and end on a byte",
                rows.start, rows.end, spec.encoding, spec.shape
            ))));
        }
        if out.is_empty() {
            return Ok(());
        }
        self.tensors[tensor].stored.read(&**store, first / 8, out).map_err(fail)
    }

    fn place(&self, tensor: usize) -> Place {
        let offset = match &self.tensors[tensor].stored {
            Stored::Here(span) | Stored::Numbers { span, .. } => span.start,
            Stored::External { offset, .. } => *offset,
            Stored::Known(_) => 0,
        };
        Place { file: self.file_of[tensor], offset }
    }

    fn program(&self) -> Option<&Arc<Program>> {
        Some(&self.program)
    }
}
