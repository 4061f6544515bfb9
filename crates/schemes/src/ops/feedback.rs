//! The Hessians that error feedback goes by, and their factors, each made when a tile first wants it.

use super::floats;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use tensormill_kernels::groups::{Damping, Factor, FactorError};
use tensormill_model::{Error, Reader, Result};

/// A Hessian in a file: `f32`, square.
#[derive(Clone)]
pub struct Hessian {
    /// The file.
    pub reader: Arc<dyn Reader>,
    /// Which of its tensors.
    pub tensor: usize,
    /// Rows and columns.
    pub columns: u64,
    /// The tensor's name.
    pub name: String,
    /// Tells it from others.
    pub fingerprint: u64,
}

/// Factors that were made, the last used last. Tiles of a module come one after the other, and of modules that see one
/// input those of several, so that two are enough; what is in use stays beyond that.
#[derive(Default)]
pub struct Factors {
    held: Mutex<Vec<(String, Slot)>>,
}

/// A factor, or the place where somebody is making it.
type Slot = Arc<Mutex<Option<Arc<Factor>>>>;

/// Factors that are kept.
const KEPT: usize = 2;

/// How errors are fed back.
#[derive(Clone)]
pub struct Feedback {
    /// By what.
    pub hessian: Hessian,
    /// How its factor is made.
    pub damping: Damping,
    /// Where factors are kept: one place for all.
    pub factors: Arc<Factors>,
}

impl fmt::Debug for Feedback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hessian { name, columns, fingerprint, .. } = &self.hessian;
        let order = if self.damping.by_activity { " by activity" } else { "" };
        write!(f, "feedback {name} {columns} {fingerprint:016x} damped {}{order}", self.damping.part)
    }
}

impl Feedback {
    /// Bytes beyond those of rows: a factor being made, and those that are kept.
    pub fn scratch(&self) -> u64 {
        let columns = self.hessian.columns;
        Factor::work_bytes(columns).saturating_add(Factor::bytes(columns).saturating_mul(KEPT as u64))
    }

    /// The factor; makes it, or waits for who does.
    ///
    /// # Errors
    /// What is wrong with the Hessian, naming it.
    pub fn factor(&self) -> Result<Arc<Factor>> {
        let slot = self.slot();
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*slot {
            return Ok(Arc::clone(made));
        }
        let made = Arc::new(self.make()?);
        *slot = Some(Arc::clone(&made));
        Ok(made)
    }

    fn slot(&self) -> Slot {
        let key = format!("{self:?}");
        let mut held = self.factors.held.lock().unwrap_or_else(PoisonError::into_inner);
        let known = held.iter().position(|(k, _)| *k == key).map(|at| held.remove(at).1);
        let slot = known.unwrap_or_default();
        held.push((key, Arc::clone(&slot)));
        if held.len() > KEPT {
            held.remove(0);
        }
        slot
    }

    fn make(&self) -> Result<Factor> {
        let Hessian { reader, tensor, columns, name, .. } = &self.hessian;
        let mut bytes = vec![0; *columns as usize * 4];
        let made = Factor::new(*columns as usize, self.damping, |row, out| {
            let row = row as u64;
            reader.read(*tensor, row..row + 1, &mut bytes)?;
            out.iter_mut().zip(floats(&bytes)).for_each(|(x, b)| *x = b);
            Ok(())
        });
        made.map_err(|e| match e {
            FactorError::Read(e) => e,
            FactorError::NotPositive => Error::malformed(format!("{name}: {e}"))
                .hint("calibrate with more samples, or damp it more (--damp-percent 0.1)"),
            other => Error::malformed(format!("{name}: {other}"))
                .hint("it should be the mean of x x^T over samples; write the calibration file again"),
        })
    }
}
