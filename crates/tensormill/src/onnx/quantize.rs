//! Weights of a graph as codes: which operators take them, and the parts of each weight.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use tensormill_graph::{
    Candidate, Code as GraphCode, Coding, Elem, Group, Order, Part, Program, QuantizedWeight,
    Scheme as NodeScheme, WeightKind as Kind, Zero,
};
use tensormill_kernels::groups::{Code, Fit, Grid, Offset, Quantizer, ScaleType};
use tensormill_model::{Error, Expr, Model, Result, Tensor};
use tensormill_schemes::{
    Operators, Place, Scheme, check_plain, kept_note, onnx as parts,
    ops::{Encode, Feedback, Give, MaxAbs, Pack, TensorScale},
    packing::Packing,
    same_codes,
};
use tensormill_tensor::{DType, Encoding, Shape};
use tensormill_transforms::TensorImportance;

/// How a graph's weights are to be quantized.
pub(crate) struct Wanted<'a> {
    /// The scheme of weights that no rule speaks of.
    pub(crate) scheme: &'static Scheme,
    /// The scheme that rules give a tensor: `Some(None)` leaves it plain.
    pub(crate) rule: &'a dyn Fn(&str) -> Option<Option<&'static Scheme>>,
    /// What a tensor is.
    pub(crate) place: &'a dyn Fn(&Tensor) -> Place,
    /// Importance of a weight's columns.
    pub(crate) importance: &'a dyn Fn(&Tensor) -> Result<Option<TensorImportance>>,
    /// What makes up for errors of a weight's codes.
    pub(crate) feedback: &'a dyn Fn(&Tensor) -> Result<Option<Feedback>>,
    /// How numbers are found.
    pub(crate) fit: Fit,
    /// Let weights that are quantized already be decoded and quantized again.
    pub(crate) allow_requantize: bool,
}

/// The weights of a program that are quantized: what their parts are made by.
pub(crate) struct Encoded<'a> {
    /// Schemes by weight.
    chosen: HashMap<String, &'static Scheme>,
    /// The type of scales in the graph.
    scale: ScaleType,
    wanted: &'a Wanted<'a>,
    /// Weights whose codes are the source's.
    kept: RefCell<BTreeSet<String>>,
}

/// Rewrites a program; gives what makes parts of weights. `float` is the type that weights become.
///
/// # Errors
/// Schemes that operators do not have, and versions that the graph cannot have.
pub(crate) fn quantize<'a>(
    program: &mut Program,
    model: &Model,
    extra: &[Tensor],
    float: Option<DType>,
    wanted: &'a Wanted<'a>,
    notes: &mut Vec<String>,
) -> Result<Encoded<'a>> {
    let by_name: HashMap<&str, &Tensor> = extra.iter().chain(&model.tensors).map(|t| (t.name(), t)).collect();
    let (chosen, left) = (RefCell::new(HashMap::new()), RefCell::new(Vec::new()));
    let original = program.weights.clone();
    let known = |slot: usize| {
        let weight = original.get(slot)?;
        let t = by_name.get(weight.tensor.as_str())?;
        let mut dims = weight.dims.clone().unwrap_or_else(|| t.spec.shape.dims().to_vec());
        if let (true, [.., a, b]) = (weight.transposed, &mut dims[..]) {
            std::mem::swap(a, b);
        }
        let elem = match (float, t.spec.encoding) {
            (Some(f), _) if !weight.keep_type => Elem::of(f)?,
            (_, Encoding::Plain(d)) => Elem::of(d)?,
            (_, Encoding::Block(_)) => Elem::F32,
        };
        Some((elem, dims.into_iter().map(|n| i64::try_from(n).ok()).collect::<Option<_>>()?))
    };
    let choose = |c: &Candidate| {
        let t = by_name.get(c.tensor.as_str())?;
        let scheme = match (wanted.rule)(&c.tensor) {
            Some(rule) => rule?,
            None => Some(wanted.scheme).filter(|s| s.layout.quantizes(place_of(c, t, wanted)))?,
        };
        let nodes = nodes_of(scheme)?;
        if matches!(nodes, NodeScheme::Dynamic { zero_points: true, .. })
            && c.kinds.contains(&Kind::Embedding)
        {
            left.borrow_mut().push(c.tensor.clone());
            return None;
        }
        chosen.borrow_mut().insert(c.tensor.clone(), scheme);
        Some(nodes)
    };
    let done = program.quantize(&known, &choose).map_err(|e| {
        Error::unsupported(e.to_string()).hint("--tensor-type 'REGEX=plain' leaves a weight as it is; --opset chooses another version for graphs that are built")
    })?;
    if done.tensors.is_empty() {
        return Err(Error::unsupported(format!(
            "{}: no weight of this graph can be quantized so",
            wanted.scheme.name
        ))
        .hint("`tensormill inspect` shows its parameters"));
    }
    notes.extend(done.notes);
    notes.extend(left.into_inner().into_iter().map(|table| {
        format!(
            "{table} stays as it is: all rows of a table share a scale there, and no zero point is looked for that \
             they could share; --tensor-type '{}=onnx-int8' quantizes it around zero",
            regex::escape(&table)
        )
    }));
    let scale = match float {
        Some(DType::F16) => ScaleType::F16,
        _ => ScaleType::F32,
    };
    Ok(Encoded { chosen: chosen.into_inner(), scale, wanted, kept: RefCell::default() })
}

/// What a candidate is: its name says it, or what its nodes do with it.
fn place_of(c: &Candidate, t: &Tensor, wanted: &Wanted<'_>) -> Place {
    if c.kinds.contains(&Kind::Embedding) {
        return Place::Table;
    }
    match (wanted.place)(t) {
        // Graphs of others have names of their own: what is multiplied is a layer's weight.
        Place::Other if c.kinds.iter().any(|k| matches!(k, Kind::MatMul | Kind::Gemm)) => Place::Linear,
        place => place,
    }
}

/// What a scheme is to nodes.
fn nodes_of(scheme: &Scheme) -> Option<NodeScheme> {
    let Code::Int(bits) = scheme.grid.code else { return None };
    let group = match scheme.grid.group {
        0 => Group::Row,
        n => Group::Block(u64::from(n)),
    };
    let zero_points = scheme.grid.offset == Offset::Point;
    let elem = match (bits, zero_points) {
        (2, false) => Elem::I2,
        (2, true) => Elem::U2,
        (4, false) => Elem::I4,
        (4, true) => Elem::U4,
        (_, false) => Elem::I8,
        (_, true) => Elem::U8,
    };
    Some(match scheme.layout.operators()? {
        Operators::Blocks => NodeScheme::Blocks {
            bits: u64::from(bits),
            block: u64::from(scheme.grid.group),
            zero_points,
            accuracy: None,
        },
        Operators::Dequantize => NodeScheme::Dequantize { elem, group, zero_points },
        Operators::Dynamic => NodeScheme::Dynamic { elem, group, zero_points },
    })
}

impl Encoded<'_> {
    /// The bundles of a matrix.
    fn bundle(&self, t: &Tensor, quantizer: Quantizer) -> Result<Expr> {
        let (wanted, grid) = (self.wanted, quantizer.grid);
        let same = same_codes(&t.expr, grid, Some(quantizer.scale), t.spec.shape.row_len());
        if let Some(found) = same.filter(|found| found.outer.is_none()) {
            self.kept.borrow_mut().insert(t.name().to_owned());
            return Ok(found.bundle);
        }
        check_plain(t, wanted.allow_requantize)?;
        let (importance, feedback) = ((wanted.importance)(t)?, (wanted.feedback)(t)?);
        let op = Encode { quantizer, importance, divides: false, feedback };
        let inputs = std::iter::once(t.expr.clone()).chain(grid.outer.then(|| matrix_scale(t, quantizer)));
        Ok(Expr::Apply { op: Arc::new(op), inputs: inputs.collect() })
    }

    /// A part of a weight: what [`super::bind`] asks for.
    ///
    /// # Errors
    /// Weights of other sizes than the graph has, and such as are quantized already.
    pub(crate) fn part(&self, t: &Tensor, part: &QuantizedWeight) -> Result<Expr> {
        let QuantizedWeight { part, coding } = part;
        let scheme = self.chosen.get(t.name()).copied().unwrap_or(self.wanted.scheme);
        let (grid, signed) = grid_of(coding)?;
        let (rows, columns) = (t.spec.shape.rows(), t.spec.shape.row_len());
        if (rows, columns) != (coding.rows, coding.columns) {
            return Err(Error::mismatch(format!(
                "a matrix of {} where the graph has {} x {}",
                t.spec.shape, coding.rows, coding.columns
            )));
        }
        let quantizer = Quantizer { grid, scale: self.scale, rule: scheme.rule, fit: self.wanted.fit };
        let bundle = self.bundle(t, quantizer)?;
        let bits = grid.code.bits();
        let turned = coding.order == Order::Columns;
        let turn = |e: Expr| if turned { e.transpose() } else { e };
        // Elements below a byte are packed along what is a row by now.
        let packed = |e: Expr, rows: u64, columns: u64| -> Result<Expr> {
            if bits == 8 {
                return Ok(e);
            }
            let (rows, columns) = if turned { (columns, rows) } else { (rows, columns) };
            let whole = (columns * u64::from(bits)).is_multiple_of(8);
            let e = if whole { e } else { e.reshape(Shape::new(vec![1, rows * columns])?) };
            Ok(e.apply(Pack { packing: Packing::dense(bits), to: DType::U8 }))
        };
        match (part, coding.order) {
            (_, Order::Running) => Err(Error::unsupported("codes that run on from row to row")),
            (Part::Codes, Order::Packed) => {
                let filled = grid.groups(columns as usize) as u64 * u64::from(grid.group.max(1));
                let columns_there = if grid.group == 0 { columns } else { filled };
                Ok(parts::packed_codes(bundle, grid, columns, columns_there))
            }
            (Part::Codes, _) => packed(turn(parts::codes(bundle, grid, columns, signed)), rows, columns),
            (Part::Scales, _) if grid.outer => Ok(matrix_scale(t, quantizer)),
            (Part::Scales, _) => Ok(turn(parts::scales(bundle, grid, columns))),
            (Part::ZeroPoints, Order::Packed) => {
                let points = parts::points(bundle, grid, columns, false);
                Ok(points.apply(Pack { packing: Packing::dense(bits), to: DType::U8 }))
            }
            (Part::ZeroPoints, _) => {
                let groups = grid.groups(columns as usize) as u64;
                packed(turn(parts::points(bundle, grid, columns, signed)), rows, groups)
            }
        }
    }

    /// What should be said of the parts that were made.
    pub(crate) fn note(&self) -> Option<String> {
        kept_note(self.kept.borrow().len())
    }
}

/// The scale of all rows.
fn matrix_scale(t: &Tensor, quantizer: Quantizer) -> Expr {
    let largest = t.expr.clone().apply(MaxAbs { give: Give::Magnitude });
    largest.apply(TensorScale { quantizer, to: DType::F32 })
}

/// What bundles hold for a coding, and whether files have signed codes.
fn grid_of(coding: &Coding) -> Result<(Grid, bool)> {
    let GraphCode::Elem(elem) = coding.code else {
        return Err(Error::unsupported("code books in graphs that are written"));
    };
    let signed = matches!(elem, Elem::I8 | Elem::I4 | Elem::I2);
    let group = match coding.group {
        Group::Row | Group::Tensor => 0,
        Group::Block(n) => u32::try_from(n).map_err(|_| Error::unsupported("groups of so many weights"))?,
    };
    let offset = match coding.zero {
        Zero::None if !signed => return Err(Error::unsupported("unsigned codes without a zero point")),
        Zero::None | Zero::Middle => Offset::Middle,
        Zero::Point => Offset::Point,
    };
    let code = Code::Int(coding.code.bits() as u8);
    // One scale for all rows is found before them.
    let whole = coding.group == Group::Tensor;
    if whole && offset != Offset::Middle {
        return Err(Error::unsupported("a zero point of a whole matrix"));
    }
    Ok((Grid { code, group, rows: u32::from(!whole), offset, outer: whole }, signed))
}
