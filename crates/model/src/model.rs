//! The model: tensors in order, metadata, side files.

use crate::{Assets, Error, Expr, Form, Index, Metadata, Result, Role};
use std::sync::Arc;
use tensormill_graph::Program;
use tensormill_tensor::{Encoding, TensorSpec};

/// One tensor of a model.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Name, shape and encoding. Always equal to what `expr` yields: use [`Tensor::new`] and
    /// [`Tensor::set_expr`].
    pub spec: TensorSpec,
    /// How the bytes come about.
    pub expr: Expr,
    /// What it is for, once an architecture has said so.
    pub role: Option<Role>,
    /// The encoding that the architecture demands, whatever dtype or recipe the user chose.
    pub pinned: Option<Encoding>,
}

impl Tensor {
    /// A tensor with the shape and encoding of its expression.
    ///
    /// # Errors
    /// When the expression's parts do not fit; names the tensor.
    pub fn new(name: impl Into<String>, expr: Expr) -> Result<Self> {
        let name = name.into();
        let Form { shape, encoding } = expr.form().map_err(|e| e.tensor(&name))?;
        Ok(Self { spec: TensorSpec { name, shape, encoding }, expr, role: None, pinned: None })
    }
    /// Replaces the expression and with it shape and encoding.
    ///
    /// # Errors
    /// When the expression's parts do not fit; names the tensor.
    pub fn set_expr(&mut self, expr: Expr) -> Result<()> {
        let Form { shape, encoding } = expr.form().map_err(|e| e.tensor(&self.spec.name))?;
        (self.spec.shape, self.spec.encoding, self.expr) = (shape, encoding, expr);
        Ok(())
    }
    /// The name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }
}

/// A model: what a reader found or a transform made of it. Holds no weights.
#[derive(Clone)]
pub struct Model {
    /// Tensors, in the order they will be written.
    pub tensors: Vec<Tensor>,
    /// Typed key-value metadata, in order.
    pub metadata: Metadata,
    /// Side files.
    pub assets: Arc<dyn Assets>,
    /// What is computed with the tensors, where the source says so or somebody has built it. Its weights are named like
    /// the tensors, and writers of other formats leave it aside.
    pub program: Option<Arc<Program>>,
}

impl Model {
    /// The model as source number `source` of a plan holds it: every tensor read as it stands. Aliases become tensors
    /// at the places where the file names them; tied tensors are those whose expressions are equal, through every
    /// rewrite.
    pub fn from_index(index: &Index, source: usize, assets: Arc<dyn Assets>) -> Self {
        let tensor = |name: &str, i: usize| {
            let spec = &index.tensors[i];
            Tensor {
                expr: Expr::Read { source, tensor: i, form: Form::new(spec.shape.clone(), spec.encoding) },
                spec: TensorSpec { name: name.to_owned(), ..spec.clone() },
                role: None,
                pinned: None,
            }
        };
        let mut tensors = Vec::with_capacity(index.tensors.len() + index.aliases.len());
        let mut aliases = index.aliases.iter().peekable();
        for (i, spec) in index.tensors.iter().enumerate() {
            while let Some(a) = aliases.next_if(|a| a.at <= tensors.len()) {
                tensors.push(tensor(&a.name, a.tensor));
            }
            tensors.push(tensor(&spec.name, i));
        }
        tensors.extend(aliases.map(|a| tensor(&a.name, a.tensor)));
        Self { tensors, metadata: index.metadata.clone(), assets, program: None }
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|t| t.spec.name == name)
    }

    /// Bytes of all tensors.
    ///
    /// # Errors
    /// When a size cannot be represented.
    pub fn bytes(&self) -> Result<u64> {
        self.tensors.iter().try_fold(0u64, |a, t| {
            let n = t.spec.bytes().map_err(|e| Error::from(e).tensor(t.name()))?;
            a.checked_add(n).ok_or_else(|| Error::malformed("the model is larger than 64 bits can count"))
        })
    }

    /// Number of weights in all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(|t| t.spec.shape.elements()).fold(0, u64::saturating_add)
    }
}

/// A pure rewrite of a model.
pub trait Transform {
    /// Gives the rewritten model; touches no weight.
    ///
    /// # Errors
    /// When the model is not one this transform can take.
    fn rewrite(&self, model: Model) -> Result<Model>;
}
