//! Opening what a user points at: a Hugging Face folder, a safetensors file, a PyTorch checkpoint, what training leaves, a
//! GGUF file or split set.

use crate::{
    formats::{self, GGUF, ONNX, PICKLE, SAFETENSORS},
    location::{Dir, Found, Location, Opening, named},
    merge, onnx, training,
};
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};
use tensormill_gguf::{SplitName, join_metadata};
use tensormill_model::{
    Assets, Error, Format, Limits, MemoryAssets, Metadata, Model, Reader, Result, Store, Tensor,
};
use tensormill_pickle::PickleOptions;
use tensormill_safetensors::{INDEX_NAME, part_names, shard_names};
use tensormill_store::JoinedReader;
use tensormill_tensor::Encoding;
use xxhash_rust::xxh3::Xxh3;

/// Bytes looked at to tell formats apart.
const HEAD: usize = 64;

/// A checkpoint of many files, opened.
pub(crate) struct Opened {
    /// What it is, for people.
    pub(crate) format: String,
    pub(crate) reader: Arc<dyn Reader>,
    /// The files that say what the model is.
    pub(crate) assets: Arc<dyn Assets>,
}

/// An opened source: headers read, weights on demand.
pub struct Source {
    /// Where it is, as it was named.
    pub location: Location,
    /// The last component of what was named: of a folder, or of a file.
    pub(crate) name: String,
    /// Its folder, where it is one.
    pub(crate) folder: Option<Arc<dyn Dir>>,
    /// What it is, for people.
    pub format: String,
    /// The model as the source holds it.
    pub model: Model,
    /// The readers that the model's expressions speak of.
    pub readers: Vec<Arc<dyn Reader>>,
    /// Bytes of tensor data.
    pub bytes: u64,
    /// Of a quantized checkpoint, the tensors as files have them, where [`Self::model`] is the weights that they stand for.
    pub(crate) packed: Option<Model>,
    /// Tensors of the modules that a sentence-transformers folder has beside the model.
    pub(crate) modules: Vec<Tensor>,
    /// Graphs that were opened for it.
    pub(crate) templates: HashMap<Location, onnx::Template>,
    /// Tensors whose blocks were decoded because something was merged into them, and their encoding.
    pub(crate) decoded: HashMap<String, Encoding>,
    /// What a user should see.
    pub notes: Vec<String>,
    gguf: bool,
    fingerprint: OnceLock<u64>,
}

impl Source {
    /// Opens a folder or file; a merge recipe is opened as the model that it makes.
    ///
    /// # Errors
    /// Everything that headers can have wrong, each with its file: no model there, a Git LFS pointer in place of
    /// weights, a missing shard, a tensor that is listed but absent, malformed or hostile headers.
    pub fn open(at: impl Into<Location>, limits: &Limits) -> Result<Self> {
        Self::open_at(&at.into(), &Opening { limits: *limits, ..Opening::default() })
    }

    /// The same; of PyTorch checkpoints, the part that is asked for.
    ///
    /// # Errors
    /// As [`Self::open`]; `Usage` where a part is asked for and there are none.
    pub(crate) fn open_at(at: &Location, how: &Opening) -> Result<Self> {
        if let Some(recipe) = merge::recipe(at) {
            return merge::open(recipe, how, None);
        }
        let (at, found) = at.find(&how.access)?;
        let dir = Arc::clone(found.dir());
        let mut source = match found {
            Found::Folder(dir) => Self::open_folder(&at, &dir, how),
            Found::File { store, name, dir } => Self::open_file(&at, store, &name, dir, how),
        }?;
        source.readers = source.readers.into_iter().map(|r| dir.identified(r)).collect();
        Ok(source)
    }

    fn open_file(
        at: &Location,
        store: Arc<dyn Store>,
        name: &str,
        dir: Arc<dyn Dir>,
        how: &Opening,
    ) -> Result<Self> {
        let Opening { limits, part, .. } = how;
        let named = |e: Error| e.file(at);
        if let Some(opened) = training::of_file(&dir, name, limits, part)? {
            return Self::new(at, &opened.format, false, opened.reader, opened.assets);
        }
        let mut head = vec![0; HEAD.min(usize::try_from(store.len()).unwrap_or(HEAD))];
        store.read_at(0, &mut head)?;
        let format = formats::probe(&head, name).ok_or_else(|| {
            let known: Vec<&str> = formats::FORMATS.iter().map(|f| f.info().id).collect();
            named(
                Error::unsupported("not a model file that this version reads")
                    .hint(format!("known formats: {}, and Hugging Face folders", known.join(", "))),
            )
        })?;
        if format.info().id == GGUF.info().id {
            no_parts(part).map_err(named)?;
            return Self::open_gguf(at, name, store, &*dir, limits);
        }
        if format.info().id == ONNX.info().id {
            no_parts(part).map_err(named)?;
            return onnx::open(at, store, dir, limits);
        }
        let reader = if format.info().id == PICKLE.info().id {
            tensormill_pickle::open_with(&store, limits, part)
        } else {
            no_parts(part).and_then(|()| format.open(store, limits))
        };
        let reader = reader.map_err(named)?;
        whole(&*reader).map_err(named)?;
        // The files beside a single weights file say what the model is.
        Self::new(at, format.info().id, false, Arc::from(reader), dir)
    }

    fn open_gguf(
        at: &Location,
        name: &str,
        store: Arc<dyn Store>,
        dir: &dyn Dir,
        limits: &Limits,
    ) -> Result<Self> {
        let stem = name.strip_suffix(".gguf").unwrap_or(name).to_owned();
        let assets = Arc::new(MemoryAssets { name: stem, ..MemoryAssets::default() });
        let Some(split) = SplitName::parse(name) else {
            let reader = GGUF.open(store, limits).map_err(|e| e.file(at))?;
            return Self::new(at, "gguf", true, Arc::from(reader), assets);
        };
        split.check_complete(|n| dir.contains(n))?;
        let mut parts = Vec::new();
        for name in split.all() {
            let reader = GGUF.open(dir.open(&name)?, limits).map_err(named(dir, &name))?;
            parts.push((name, reader));
        }
        let indexes: Vec<_> = parts.iter().map(|(n, r)| (n.as_str(), r.index())).collect();
        let metadata = join_metadata(&indexes)?;
        let what = format!("gguf, {} files", parts.len());
        Self::new(at, &what, true, Arc::new(JoinedReader::concat(parts, metadata)?), assets)
    }

    fn open_folder(at: &Location, dir: &Arc<dyn Dir>, how: &Opening) -> Result<Self> {
        let opened = Self::open_weights(at, dir, how)?;
        // A graph that is alone in it was opened as a file.
        let folder = opened.model.program.is_none().then(|| Arc::clone(dir));
        Ok(Self { location: at.clone(), name: dir.name().to_owned(), folder, ..opened })
    }

    fn open_weights(at: &Location, dir: &Arc<dyn Dir>, how: &Opening) -> Result<Self> {
        let Opening { limits, part, .. } = how;
        let list = dir.list();
        let safetensors = {
            let model = part_names(&list, "model");
            if model.is_empty() { part_names(&list, "consolidated") } else { model }
        };
        let torch = tensormill_pickle::part_names(&list);
        if !safetensors.is_empty() || dir.contains(INDEX_NAME) {
            no_parts(part).map_err(|e| e.file(at))?;
            let set = ShardSet { index: INDEX_NAME, files: safetensors, what: "safetensors" };
            return Self::open_set(at, dir, set, |store| SAFETENSORS.open(store, limits));
        }
        if !torch.is_empty() || dir.contains(tensormill_pickle::INDEX_NAME) {
            let set = ShardSet { index: tensormill_pickle::INDEX_NAME, files: torch, what: "PyTorch" };
            return Self::open_set(at, dir, set, |store| tensormill_pickle::open_with(&store, limits, part));
        }
        if let Some(opened) = training::of_folder(dir, limits, part)? {
            return Self::new(at, &opened.format, false, opened.reader, opened.assets);
        }
        if let Some(name) = onnx::in_folder(&**dir) {
            no_parts(part).map_err(|e| e.file(at))?;
            let folder = match name.rsplit_once('/') {
                Some((folder, _)) => dir.inner(folder)?,
                None => None,
            };
            let store = dir.open(&name)?;
            return onnx::open(&at.file(&name), store, folder.unwrap_or_else(|| Arc::clone(dir)), limits);
        }
        Err(no_weights(&**dir).file(at))
    }

    /// Opens the weights of a folder: the files that its index lists, or those that were found.
    fn open_set(
        at: &Location,
        dir: &Arc<dyn Dir>,
        set: ShardSet,
        open: impl Fn(Arc<dyn Store>) -> Result<Box<dyn Reader>>,
    ) -> Result<Self> {
        let index = match dir.read(set.index)? {
            Some(json) => Some(shard_names(&json).map_err(named(&**dir, set.index))?),
            None => None,
        };
        let files = match &index {
            Some(index) => {
                index.check_files(|n| dir.contains(n))?;
                index.files()
            }
            None => set.files,
        };
        let mut parts = Vec::new();
        for name in files {
            let reader = open(dir.open(&name)?).map_err(named(&**dir, &name))?;
            whole(&*reader).map_err(named(&**dir, &name))?;
            parts.push((name, reader));
        }
        if let Some(index) = &index {
            let indexes: Vec<_> = parts.iter().map(|(n, r)| (n.as_str(), r.index())).collect();
            index.check_tensors(&indexes)?;
        }
        let what = match parts.len() {
            1 => format!("Hugging Face folder, {}", set.what),
            n => format!("Hugging Face folder, {} in {n} shards", set.what),
        };
        // Shards say the same of themselves; where they do not, the first one counts.
        let mut metadata = Metadata::new();
        for (key, value) in parts.iter().flat_map(|(_, r)| r.index().metadata.iter()) {
            if metadata.get(key).is_none() {
                metadata.set(key, value.clone());
            }
        }
        let reader = JoinedReader::concat(parts, metadata)?;
        Self::new(at, &what, false, Arc::new(reader), Arc::clone(dir) as _)
    }

    fn new(
        at: &Location,
        format: &str,
        gguf: bool,
        reader: Arc<dyn Reader>,
        assets: Arc<dyn Assets>,
    ) -> Result<Self> {
        let model = Model::from_index(reader.index(), 0, assets);
        Self::made(at, format, gguf, model, vec![reader])
    }

    /// A source that was put together of what several files hold.
    ///
    /// # Errors
    /// When sizes cannot be represented.
    pub(crate) fn made(
        at: &Location,
        format: &str,
        gguf: bool,
        model: Model,
        readers: Vec<Arc<dyn Reader>>,
    ) -> Result<Self> {
        let bytes = model.bytes().map_err(|e| e.file(at))?;
        Ok(Self {
            location: at.clone(),
            name: at.last(),
            folder: None,
            format: format.to_owned(),
            model,
            readers,
            bytes,
            packed: None,
            modules: Vec::new(),
            templates: HashMap::new(),
            decoded: HashMap::new(),
            notes: Vec::new(),
            gguf,
            fingerprint: OnceLock::new(),
        })
    }

    /// Whether tensors and metadata are in GGUF form already.
    pub fn is_gguf(&self) -> bool {
        self.gguf
    }

    /// Whether there is a `config.json` from which the GGUF form can be derived.
    pub fn has_config(&self) -> bool {
        self.model.assets.list().iter().any(|n| n == "config.json")
    }

    /// Tells sources apart by their headers, and by their files' hashes where these are known, else by a few bytes of every
    /// tensor: a journal of another source must not be continued.
    ///
    /// # Errors
    /// When samples cannot be read.
    pub(crate) fn fingerprint(&self) -> Result<u64> {
        if let Some(known) = self.fingerprint.get() {
            return Ok(*known);
        }
        let taken = self.take_fingerprint()?;
        Ok(*self.fingerprint.get_or_init(|| taken))
    }

    fn take_fingerprint(&self) -> Result<u64> {
        /// Rows longer than this are not worth a sample.
        const ROW: u64 = 4 << 20;
        let mut hash = Xxh3::new();
        let mut row = Vec::new();
        for reader in &self.readers {
            let known = reader.identity();
            hash.update(known.unwrap_or_default().as_bytes());
            for (i, t) in reader.index().tensors.iter().enumerate() {
                let place = reader.place(i);
                hash.update(format!("{} {} {} {place:?}\n", t.name, t.shape, t.encoding).as_bytes());
                let (rows, bytes) = (t.shape.rows(), t.row_bytes()?);
                if bytes > ROW || rows == 0 || known.is_some() {
                    continue;
                }
                row.resize(bytes as usize, 0);
                for at in [0, rows / 2, rows - 1] {
                    reader.read(i, at..at + 1, &mut row)?;
                    hash.update(&row);
                }
            }
        }
        Ok(hash.digest())
    }

    /// Takes the model out, for rewriting; the readers stay.
    pub(crate) fn take_model(&mut self) -> Model {
        let assets = Arc::clone(&self.model.assets);
        let empty = Model { tensors: Vec::new(), metadata: Metadata::new(), assets, program: None };
        std::mem::replace(&mut self.model, empty)
    }
}

/// The weights of a folder in one format.
struct ShardSet {
    /// Name of the file that says which file holds which tensor.
    index: &'static str,
    /// What there is where that file is absent.
    files: Vec<String>,
    what: &'static str,
}

/// Parts can be asked for where files have them.
fn no_parts(part: &PickleOptions) -> Result<()> {
    if *part == PickleOptions::default() {
        return Ok(());
    }
    Err(Error::usage("only PyTorch checkpoints have parts to choose from").hint("leave --key and --all out"))
}

/// Whether tensors are whole: torch.distributed.checkpoint can write safetensors files, too, one for each process.
fn whole(reader: &dyn Reader) -> Result<()> {
    if reader.index().metadata.get("DCP_SHARDING_INFO").is_none() {
        return Ok(());
    }
    Err(unconsolidated("the tensors of this file are one process's parts"))
}

fn unconsolidated(what: &str) -> Error {
    Error::unsupported(what).hint(
        "merge them with consolidate_safetensors_files of torch.distributed.checkpoint, or save with enable_consolidation",
    )
}

/// Why a folder without weights cannot be converted, as precisely as its files tell.
fn no_weights(dir: &dyn Dir) -> Error {
    let list = dir.list();
    let at = dir.label();
    let with = |suffix: &str| list.iter().find(|n| n.to_ascii_lowercase().ends_with(suffix));
    if let Some(gguf) = with(".gguf") {
        return Error::usage("this folder holds GGUF files; name one of them")
            .hint(format!("for example {}", dir.label_of(gguf)));
    }
    if dir.contains("adapter_config.json") {
        return Error::usage("this folder holds an adapter, not a model").hint(format!(
            "merge it with `tensormill convert BASE --adapter {at} -o OUT`, or write it in another scheme with \
             `tensormill adapter {at} -o OUT`"
        ));
    }
    if list.iter().any(|n| n.starts_with("shard-") && n.ends_with(".safetensors")) {
        return unconsolidated(
            "the safetensors files of this folder are parts that processes of a training run wrote",
        );
    }
    for suffix in [".bin", ".pt", ".pth", ".ckpt"] {
        if let Some(name) = with(suffix) {
            return Error::usage("this folder holds PyTorch files; name one of them")
                .hint(format!("for example {}", dir.label_of(name)));
        }
    }
    Error::malformed("no model weights in this folder")
        .hint("expected model.safetensors, or model.safetensors.index.json with its shards")
}
