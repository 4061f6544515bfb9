//! How the numbers of a quantized weight stand in a graph's initializers, in the terms that operators have for it.

use crate::Elem;

/// What a code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// A number of this type: integers of 2, 4 and 8 bits, floats of 4 and 8.
    Elem(Elem),
    /// The place of one of the sixteen numbers of NF4, as bitsandbytes has them.
    Nf4,
    /// The place of one of the sixteen numbers of bitsandbytes' FP4.
    Fp4,
}

impl Code {
    /// Bits of one.
    pub fn bits(self) -> u64 {
        match self {
            Self::Elem(elem) => elem.bits().unwrap_or_default(),
            Self::Nf4 | Self::Fp4 => 4,
        }
    }
}

/// Which weights share a scale, and a zero point where there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// All.
    Tensor,
    /// Those of a row.
    Row,
    /// So many beside each other in a row; the last group of a row may have fewer.
    Block(u64),
}

/// Which code stands for zero: `value = (code - zero) * scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Zero {
    /// Zero does.
    None,
    /// The middle one of unsigned codes: 8 for four bits.
    Middle,
    /// Every group has its own, which is stored.
    Point,
}

/// In which order a part's numbers stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Row after row, every row beginning on a byte: `MatMulNBits`, `GatherBlockQuantized` of bytes. Rows of codes are filled
    /// up with zeros to whole groups. Lowest bits first.
    Packed,
    /// Row after row as elements of the code's type, which are packed without regard to rows. Lowest bits first.
    Rows,
    /// The same, column after column.
    Columns,
    /// As [`Self::Rows`], highest bits first; groups, too, go on from row to row: `MatMulBnb4`.
    Running,
}

/// A quantized matrix: `rows` are what a layer gives, `columns` what it takes, as PyTorch's linear layers have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Coding {
    /// Number of rows: N.
    pub rows: u64,
    /// Number of columns: K. Of a convolution's kernels, all numbers behind the first dimension.
    pub columns: u64,
    /// What codes stand for.
    pub code: Code,
    /// Which weights share a scale.
    pub group: Group,
    /// Which code stands for zero.
    pub zero: Zero,
    /// How parts are laid out.
    pub order: Order,
}

impl Coding {
    /// Groups of a row; of the whole where groups do not end with rows.
    pub fn groups(&self) -> u64 {
        match self.group {
            Group::Tensor | Group::Row => 1,
            Group::Block(n) if self.order == Order::Running => {
                self.rows.saturating_mul(self.columns).div_ceil(n.max(1))
            }
            Group::Block(n) => self.columns.div_ceil(n.max(1)),
        }
    }

    /// Type and dimensions of the elements of a part, as operators want them. A convolution's codes have others: as many.
    /// Scales have the type of what is multiplied, `float`.
    pub fn form(&self, part: Part, float: Elem) -> (Elem, Vec<i64>) {
        let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let (rows, columns, groups) = (int(self.rows), int(self.columns), int(self.groups()));
        let bytes = |n: u64| int(n.saturating_mul(self.code.bits()).div_ceil(8));
        let code = match self.code {
            Code::Elem(elem) => elem,
            Code::Nf4 | Code::Fp4 => Elem::U8,
        };
        match (part, self.order, self.group) {
            (Part::Codes, Order::Packed, Group::Block(n)) => (Elem::U8, vec![rows, groups, bytes(n)]),
            (Part::Codes, Order::Packed, _) => (Elem::U8, vec![rows, bytes(self.columns)]),
            (Part::Codes, Order::Rows, _) => (code, vec![rows, columns]),
            (Part::Codes, Order::Columns, _) => (code, vec![columns, rows]),
            (Part::Codes, Order::Running, _) => {
                (Elem::U8, vec![bytes(self.rows.saturating_mul(self.columns))])
            }
            (Part::Scales, Order::Running, _) => (float, vec![groups]),
            (Part::ZeroPoints, Order::Packed, _) => (Elem::U8, vec![rows, bytes(self.groups())]),
            (Part::Scales | Part::ZeroPoints, order, group) => {
                let elem = if part == Part::Scales { float } else { code };
                let dims = match (group, order) {
                    (Group::Tensor, _) => vec![],
                    (Group::Row, Order::Packed) => vec![rows, 1],
                    (Group::Row, _) => vec![rows],
                    (Group::Block(_), Order::Columns) => vec![groups, rows],
                    (Group::Block(_), _) => vec![rows, groups],
                };
                (elem, dims)
            }
        }
    }
}

/// A part of a quantized weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// A code for every weight.
    Codes,
    /// A scale for every group.
    Scales,
    /// A zero point for every group.
    ZeroPoints,
}

/// What an initializer has of a quantized weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuantizedWeight {
    /// Which part.
    pub part: Part,
    /// Of which whole.
    pub coding: Coding,
}

impl QuantizedWeight {
    /// What is put behind the weight's name.
    pub fn suffix(&self) -> String {
        match self.part {
            Part::Codes => format!("_Q{}", self.coding.code.bits()),
            Part::Scales => "_scales".to_owned(),
            Part::ZeroPoints => "_zero_points".to_owned(),
        }
    }
}
