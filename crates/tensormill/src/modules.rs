//! The modules that a sentence-transformers folder has beside its model: pooling, dense layers, each in a folder of its own.

use crate::{
    formats::{PICKLE, SAFETENSORS},
    source::Source,
};
use serde_json::Value as Json;
use std::sync::Arc;
use tensormill_model::{Assets, Error, Format, Limits, Model, Reader, Result, Tensor};

/// More modules than any model has.
const MOST: usize = 64;

/// Files with a module's weights, in the order in which sentence-transformers looks for them.
const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Folders of modules; the model itself, whose folder is the whole, is none.
fn folders(assets: &dyn Assets) -> Result<Vec<String>> {
    let Some(bytes) = assets.read("modules.json")? else { return Ok(Vec::new()) };
    let json: Json = serde_json::from_slice(&bytes)
        .map_err(|e| Error::malformed(format!("not valid JSON: {e}")).file("modules.json"))?;
    let paths = json.as_array().into_iter().flatten().filter_map(|m| m["path"].as_str());
    let folders = paths.map(|p| p.trim_end_matches('/').to_owned()).filter(|f| !f.is_empty());
    Ok(folders.take(MOST).collect())
}

/// Files of modules, by their names in the whole folder.
///
/// # Errors
/// A `modules.json` that cannot be read, and names that lead out of the folder.
pub(crate) fn files(assets: &dyn Assets) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in folders(assets)? {
        for file in ["config.json"].iter().chain(&WEIGHTS) {
            let name = format!("{folder}/{file}");
            if assets.read(&name)?.is_some() && !found.contains(&name) {
                found.push(name);
            }
        }
    }
    Ok(found)
}

/// Opens the weights of modules, which become the source's: tensors are called `2_Dense/linear.weight`.
///
/// # Errors
/// As opening any model.
pub(crate) fn open(source: &mut Source, limits: &Limits) -> Result<()> {
    let Some(dir) = source.folder.clone().filter(|_| source.modules.is_empty()) else { return Ok(()) };
    for folder in folders(&*dir)? {
        let Some(file) = WEIGHTS.iter().map(|w| format!("{folder}/{w}")).find(|f| dir.contains(f)) else {
            continue;
        };
        let format: &dyn Format = if file.ends_with(WEIGHTS[0]) { &SAFETENSORS } else { &PICKLE };
        let reader: Arc<dyn Reader> = dir.identified(Arc::from(format.open(dir.open(&file)?, limits)?));
        let number = source.readers.len();
        let model = Model::from_index(reader.index(), number, Arc::clone(&source.model.assets));
        for t in model.tensors {
            source.modules.push(Tensor::new(format!("{folder}/{}", t.name()), t.expr)?);
        }
        source.readers.push(reader);
    }
    Ok(())
}
