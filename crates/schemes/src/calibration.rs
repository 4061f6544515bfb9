//! Calibration files: what layers' inputs were like while a model ran. The form is described in `docs/calibration.md`.
//!
//! Must not know how files are opened: it is handed a [`Reader`].

use crate::ops::{Factors, Feedback, Hessian, floats};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tensormill_kernels::groups::Damping;
use tensormill_model::{Error, Reader, Result, Value, fingerprint};
use tensormill_tensor::{Encoding, TensorSpec};

const FORMAT: &str = "tensormill.calibration";
const VERSION: &str = "1";
/// Keys that name no module.
const OWN_KEYS: &[&str] = &["format", "version", "samples", "dataset"];
/// Most columns of a layer: a Hessian of them is 64 GiB.
const MAX_COLUMNS: u64 = 1 << 17;

/// A calibration file.
pub struct Calibration {
    reader: Arc<dyn Reader>,
    file: String,
    /// Tensors by name.
    tensors: HashMap<String, usize>,
    /// Modules that see the input of another.
    same: HashMap<String, String>,
    factors: Arc<Factors>,
    hessians: Mutex<HashMap<String, Hessian>>,
}

/// What is known of the columns of a layer's input.
#[derive(Clone, Debug)]
pub struct Columns {
    /// `E[x_j^2]`.
    pub mean_square: Arc<[f32]>,
    /// `E[|x_j|]`.
    pub mean_abs: Arc<[f32]>,
}

impl std::fmt::Debug for Calibration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} tensors", self.file, self.tensors.len())
    }
}

impl Calibration {
    /// Reads an opened file's index; `file` names it in errors.
    ///
    /// # Errors
    /// `Malformed` for what is no calibration file, naming the tensor or key; `Unsupported` for other versions.
    pub fn from_reader(reader: Arc<dyn Reader>, file: impl Into<String>) -> Result<Self> {
        let file = file.into();
        Self::checked(reader, file.clone()).map_err(|e| e.file(file))
    }

    fn checked(reader: Arc<dyn Reader>, file: String) -> Result<Self> {
        let index = reader.index();
        let text = |key: &str| match index.metadata.get(key) {
            Some(Value::Str(s)) => Some(s.as_str()),
            _ => None,
        };
        if text("format") != Some(FORMAT) {
            return Err(Error::malformed(format!(
                "is no calibration file: its metadata has no format {FORMAT:?}"
            ))
            .hint("docs/calibration.md describes the form"));
        }
        match text("version") {
            Some(VERSION) => {}
            other => {
                return Err(Error::unsupported(format!(
                    "calibration files of version {}",
                    other.unwrap_or("(none)")
                ))
                .hint(format!("this program reads version {VERSION}")));
            }
        }
        let tensors: HashMap<String, usize> =
            index.tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        for t in &index.tensors {
            check(t).map_err(|e| e.tensor(&t.name))?;
        }
        let same: HashMap<String, String> = index
            .metadata
            .iter()
            .filter(|(key, _)| !OWN_KEYS.contains(key))
            .filter_map(|(key, value)| match value {
                Value::Str(s) => Some((key.to_owned(), s.clone())),
                _ => None,
            })
            .collect();
        let there = |module: &str| tensors.contains_key(&format!("{module}.mean_square"));
        let bad = same.iter().filter(|(from, to)| !there(to) || there(from)).min();
        if let Some((from, to)) = bad {
            return Err(Error::malformed(format!(
                "metadata says that {from} sees the input of {to}, which has no mean_square, or has its own already"
            )));
        }
        for (name, i) in &tensors {
            let Some(module) = name.strip_suffix(".hessian") else { continue };
            let columns = index.tensors[*i].shape.row_len();
            let square = tensors.get(&format!("{module}.mean_square"));
            if square.is_none_or(|s| index.tensors[*s].shape.row_len() != columns) {
                return Err(Error::malformed(format!(
                    "{module}.mean_square is missing, or not of {columns} columns"
                ))
                .tensor(name));
            }
        }
        Ok(Self { reader, file, tensors, same, factors: Arc::default(), hessians: Mutex::default() })
    }

    /// The module whose statistics are those of a module.
    fn stored<'a>(&'a self, module: &'a str) -> &'a str {
        self.same.get(module).map_or(module, String::as_str)
    }

    fn vector(&self, name: &str) -> Result<Option<Arc<[f32]>>> {
        let Some(tensor) = self.tensors.get(name) else { return Ok(None) };
        let columns = self.reader.index().tensors[*tensor].shape.row_len() as usize;
        let mut bytes = vec![0; columns * 4];
        self.reader.read(*tensor, 0..1, &mut bytes)?;
        let values: Arc<[f32]> = floats(&bytes).collect();
        match values.iter().position(|x| !x.is_finite() || *x < 0.0) {
            Some(i) => Err(Error::malformed(format!("value {i} is {}: no mean of magnitudes", values[i]))
                .tensor(name)
                .file(&self.file)),
            None => Ok(Some(values)),
        }
    }

    /// What is known of the columns of a module's input.
    ///
    /// # Errors
    /// Numbers that are none.
    pub fn columns(&self, module: &str) -> Result<Option<Columns>> {
        let stored = self.stored(module);
        let Some(mean_square) = self.vector(&format!("{stored}.mean_square"))? else { return Ok(None) };
        let name = format!("{stored}.mean_abs");
        let mean_abs = match self.vector(&name)? {
            Some(mean_abs) if mean_abs.len() == mean_square.len() => mean_abs,
            Some(_) => {
                return Err(Error::malformed("is not as long as mean_square").tensor(name).file(&self.file));
            }
            None => mean_square.iter().map(|x| x.sqrt()).collect(),
        };
        Ok(Some(Columns { mean_square, mean_abs }))
    }

    /// Error feedback for a module.
    ///
    /// # Errors
    /// That its Hessian is missing, or cannot be read.
    pub fn feedback(&self, module: &str, damping: Damping) -> Result<Feedback> {
        let stored = self.stored(module);
        let name = format!("{stored}.hessian");
        let Some(tensor) = self.tensors.get(&name).copied() else {
            return Err(Error::usage(format!("the calibration file has no {name}")).file(&self.file).hint(
                "calibrate all layers that are to be quantized, or leave some plain: --tensor-type 'REGEX=plain'",
            ));
        };
        let mut hessians = self.hessians.lock().unwrap_or_else(PoisonError::into_inner);
        let hessian = if let Some(known) = hessians.get(&name) {
            known.clone()
        } else {
            let columns = self.reader.index().tensors[tensor].shape.row_len();
            let reader = Arc::clone(&self.reader);
            let fingerprint = self.fingerprint(stored, tensor, columns)?;
            let made = Hessian { reader, tensor, columns, name: name.clone(), fingerprint };
            hessians.insert(name, made.clone());
            made
        };
        Ok(Feedback { hessian, damping, factors: Arc::clone(&self.factors) })
    }

    /// Of the diagonal and three rows: whole Hessians would be read when nothing but a plan is wanted.
    fn fingerprint(&self, module: &str, tensor: usize, columns: u64) -> Result<u64> {
        let square = self.vector(&format!("{module}.mean_square"))?.unwrap_or_default();
        let mut bytes: Vec<u8> = square.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut row = vec![0; columns as usize * 4];
        for at in [0, columns / 2, columns - 1] {
            self.reader.read(tensor, at..at + 1, &mut row)?;
            bytes.extend_from_slice(&row);
        }
        Ok(fingerprint(bytes))
    }
}

/// A tensor's name, type and shape.
fn check(t: &TensorSpec) -> Result<()> {
    let dims = t.shape.dims();
    if t.encoding != Encoding::F32 {
        return Err(Error::malformed(format!("is {}; calibration files hold f32", t.encoding)));
    }
    let fits = match t.name.rsplit_once('.') {
        Some((_, "hessian")) => matches!(dims, [a, b] if a == b),
        Some((_, "mean_square" | "mean_abs")) => dims.len() == 1,
        _ => return Err(Error::malformed("is neither a hessian, a mean_square nor a mean_abs")),
    };
    if !fits {
        return Err(Error::malformed(format!(
            "has the shape {}; a hessian is square, a mean is a row",
            t.shape
        )));
    }
    if !(1..=MAX_COLUMNS).contains(&t.shape.row_len()) {
        return Err(Error::over_limit(format!(
            "{} columns; at most {MAX_COLUMNS} are read",
            t.shape.row_len()
        )));
    }
    Ok(())
}
