//! Which versions of operators a scheme takes, and whether the rest of a graph can have them.

use super::{Candidate, Scheme};
use crate::{
    Elem, Group, Opset, Program,
    builder::MICROSOFT,
    schema::{self, Known},
};

/// Why weights cannot be quantized as somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantizeError {
    /// A scheme that there is not.
    #[error("{tensor}: {why}")]
    Scheme {
        /// Name of the model's tensor.
        tensor: String,
        /// What is wrong.
        why: String,
    },
    /// Operators that came later than the rest of the graph allows.
    #[error("{what} takes opset {needed}; the graph uses opset {found} and cannot be raised: {why}")]
    Opset {
        /// What is wanted.
        what: String,
        /// Version that it takes.
        needed: i64,
        /// Version of the graph.
        found: i64,
        /// What stands against it.
        why: String,
    },
}

/// Refuses schemes that operators do not have.
pub(super) fn sound(scheme: &Scheme, c: &Candidate) -> Result<(), QuantizeError> {
    let wrong = |why: &str| Err(QuantizeError::Scheme { tensor: c.tensor.clone(), why: why.to_owned() });
    match scheme {
        Scheme::Blocks { bits, .. } if Elem::unsigned(*bits).is_none() => {
            wrong("codes in blocks have 2, 4 or 8 bits")
        }
        Scheme::Blocks { block, .. } if !block.is_power_of_two() || *block < 16 => {
            wrong("blocks are a power of two, 16 or more")
        }
        Scheme::Dequantize { group: Group::Block(0), .. } => wrong("a block of no weights"),
        Scheme::Dequantize { elem, .. } if since(*elem, Group::Tensor, Elem::F32).is_none() => {
            wrong(&format!("DequantizeLinear takes no {elem}"))
        }
        Scheme::Dequantize { elem, zero_points: true, .. } if !is_integer(*elem) => {
            wrong(&format!("{elem} has no zero points"))
        }
        Scheme::Dynamic { elem, .. } if !matches!(*elem, Elem::I8 | Elem::U8) => {
            wrong("MatMulInteger takes int8 and uint8")
        }
        Scheme::Dynamic { group: Group::Block(_), .. } => wrong("MatMulInteger has no blocks"),
        Scheme::Dynamic { elem, zero_points: false, .. }
        | Scheme::Dequantize { elem, zero_points: false, .. }
            if matches!(*elem, Elem::U8 | Elem::U4 | Elem::U2) =>
        {
            wrong(&format!("{elem} without zero points has no negative numbers"))
        }
        _ => Ok(()),
    }
}

const fn is_integer(elem: Elem) -> bool {
    matches!(elem, Elem::I8 | Elem::U8 | Elem::I4 | Elem::U4 | Elem::I2 | Elem::U2)
}

/// The version of ONNX's operators since which `DequantizeLinear` makes `float` of `elem` in such groups.
fn since(elem: Elem, group: Group, float: Elem) -> Option<i64> {
    (10..=64).find(|version| {
        let Known::Now(op) = schema::find("", "DequantizeLinear", *version) else { return false };
        let attribute = match group {
            Group::Tensor => None,
            Group::Row => Some("axis"),
            Group::Block(_) => Some("block_size"),
        };
        op.inputs[0].takes(elem)
            && op.inputs[1].takes(float)
            && attribute.is_none_or(|name| op.attributes.iter().any(|a| a.0 == name))
    })
}

/// Raises versions as far as schemes need it; gives what should be said of that.
pub(super) fn raise<'a>(
    program: &mut Program,
    schemes: impl Iterator<Item = &'a (Scheme, Candidate)>,
) -> Result<Option<String>, QuantizeError> {
    let mut most: Option<(i64, String)> = None;
    let mut structures = 4;
    for (scheme, c) in schemes {
        let (needed, what) = match scheme {
            Scheme::Blocks { .. } => continue,
            Scheme::Dequantize { elem, group, .. } => {
                structures = structures.max(of_elem(*elem));
                let Some(needed) = since(*elem, *group, c.elem) else { continue };
                let of = if matches!(group, Group::Block(_)) { " in blocks" } else { "" };
                (needed, format!("DequantizeLinear of {elem}{of}"))
            }
            Scheme::Dynamic { .. } => (11, "DynamicQuantizeLinear".to_owned()),
        };
        if most.as_ref().is_none_or(|(n, _)| needed > *n) {
            most = Some((needed, what));
        }
    }
    let found = program.opset("").unwrap_or_default();
    let mut note = None;
    if let Some((needed, what)) = most.filter(|(n, _)| *n > found) {
        if let Err(why) = program.raise(needed) {
            return Err(QuantizeError::Opset { what, needed, found, why });
        }
        note = Some(format!("the graph's operators are raised from opset {found} to {needed} for {what}"));
    }
    // Older files name every initializer as an input, too.
    program.ir_version = program.ir_version.max(structures);
    Ok(note)
}

/// The version of a file's structures that came with an element type.
const fn of_elem(elem: Elem) -> i64 {
    match elem {
        Elem::I4 | Elem::U4 => 10,
        Elem::F8E4M3 | Elem::F8E4M3FNUZ | Elem::F8E5M2 | Elem::F8E5M2FNUZ => 9,
        Elem::F4 => 11,
        Elem::I2 | Elem::U2 => 13,
        _ => 4,
    }
}

/// Says that ONNX Runtime's operators are used.
pub(super) fn import(program: &mut Program, microsoft: bool) {
    if microsoft && program.opset(MICROSOFT).is_none() {
        program.opsets.push(Opset { domain: MICROSOFT.to_owned(), version: 1, ..Opset::default() });
    }
}
