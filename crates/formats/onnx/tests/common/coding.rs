//! The plainest coder of quantized weights: what initializers hold, to compare with.

use tensormill_graph::{Code, Coding, Elem, Group, Order, Part, Zero};

/// A quantized matrix: a code for every weight, row after row; a scale and a zero point for every group.
#[derive(Clone, Debug, PartialEq)]
pub struct Codes {
    pub coding: Coding,
    pub numbers: Vec<i32>,
    pub scales: Vec<f32>,
    pub zeros: Vec<f32>,
}

const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];
const FP4: [f32; 8] = [0.0, 0.005_208_333_3, 0.666_666_7, 1.0, 0.333_333_33, 0.5, 0.166_666_67, 0.25];

/// Least and largest code.
fn range(coding: &Coding) -> (i32, i32) {
    match coding.code {
        Code::Elem(Elem::I8) => (-128, 127),
        Code::Elem(Elem::I4) => (-8, 7),
        Code::Elem(Elem::I2) => (-2, 1),
        _ => (0, (1 << coding.code.bits()) - 1),
    }
}

/// The group of a weight.
fn group(coding: &Coding, row: u64, column: u64) -> usize {
    let n = match coding.group {
        Group::Tensor => 0,
        Group::Row => row,
        Group::Block(n) if coding.order == Order::Running => (row * coding.columns + column) / n,
        Group::Block(n) => row * coding.columns.div_ceil(n) + column / n,
    };
    n as usize
}

fn groups(coding: &Coding) -> usize {
    match coding.group {
        Group::Tensor => 1,
        _ if coding.order == Order::Running => coding.groups() as usize,
        _ => (coding.rows * coding.groups()) as usize,
    }
}

fn places(coding: &Coding) -> impl Iterator<Item = (u64, u64)> {
    let Coding { rows, columns, .. } = *coding;
    (0..rows).flat_map(move |r| (0..columns).map(move |c| (r, c)))
}

/// Numbers of equal length to bytes.
fn pack(numbers: &[i32], bits: u64) -> Vec<u8> {
    let mut bytes = vec![0u8; (numbers.len() as u64 * bits).div_ceil(8) as usize];
    for (i, n) in numbers.iter().enumerate() {
        let at = i as u64 * bits;
        bytes[(at / 8) as usize] |= ((*n as u8) & (0xff >> (8 - bits))) << (at % 8);
    }
    bytes
}

/// The other way round; `signed` ones have their sign.
fn unpack(bytes: &[u8], bits: u64, signed: bool, high_first: bool) -> Vec<i32> {
    let each = 8 / bits;
    let one = |i: u64| {
        let shift = if high_first { 8 - bits - i % each * bits } else { i % each * bits };
        let n = i32::from(bytes[(i / each) as usize] >> shift) & ((1 << bits) - 1);
        if signed && n >> (bits - 1) == 1 { n - (1 << bits) } else { n }
    };
    (0..bytes.len() as u64 * each).map(one).collect()
}

impl Codes {
    /// Nearest codes of `[rows, columns]`.
    pub fn of(coding: Coding, x: &[f32]) -> Self {
        let (low, high) = range(&coding);
        let mut ends = vec![(0f32, 0f32); groups(&coding)];
        for ((r, c), x) in places(&coding).zip(x) {
            let g = &mut ends[group(&coding, r, c)];
            *g = (g.0.min(*x), g.1.max(*x));
        }
        let mut scales = Vec::new();
        let mut zeros = Vec::new();
        for (least, most) in ends {
            let (scale, zero) = if coding.zero == Zero::Point {
                let scale = (most - least) / (high - low) as f32;
                (scale, low as f32 - (least / scale).round())
            } else {
                let zero = if coding.zero == Zero::Middle { (high + 1) / 2 } else { 0 };
                (most.max(-least) / (high - zero) as f32, zero as f32)
            };
            scales.push(if scale > 0.0 { scale } else { 1.0 });
            zeros.push(zero);
        }
        let code = |((r, c), x): ((u64, u64), &f32)| {
            let g = group(&coding, r, c);
            ((x / scales[g]).round() + zeros[g]).clamp(low as f32, high as f32) as i32
        };
        let numbers = places(&coding).zip(x).map(code).collect();
        Self { coding, numbers, scales, zeros }
    }

    /// `[rows, columns]`.
    pub fn values(&self) -> Vec<f32> {
        let one = |((r, c), code): ((u64, u64), &i32)| {
            let g = group(&self.coding, r, c);
            let number = match self.coding.code {
                Code::Nf4 => NF4[*code as usize],
                Code::Fp4 if *code > 7 => -FP4[*code as usize - 8],
                Code::Fp4 => FP4[*code as usize],
                Code::Elem(_) => *code as f32 - self.zeros[g],
            };
            number * self.scales[g]
        };
        places(&self.coding).zip(&self.numbers).map(one).collect()
    }

    /// What an initializer holds; scales as `f32`.
    pub fn bytes(&self, part: Part) -> Vec<u8> {
        let Coding { rows, columns, group, order, .. } = self.coding;
        let bits = self.coding.code.bits();
        let groups = self.coding.groups() as usize;
        let by_columns = |n: usize| -> Vec<usize> {
            let rows = rows as usize;
            match (order, group) {
                (Order::Columns, Group::Block(_)) => {
                    (0..n).flat_map(|c| (0..rows).map(move |r| r * n + c)).collect()
                }
                _ => (0..self.scales.len()).collect(),
            }
        };
        match part {
            Part::Scales => {
                by_columns(groups).into_iter().flat_map(|g| self.scales[g].to_le_bytes()).collect()
            }
            Part::ZeroPoints if order == Order::Packed => {
                let all: Vec<i32> = self.zeros.iter().map(|z| *z as i32).collect();
                all.chunks(groups).flat_map(|row| pack(row, bits)).collect()
            }
            Part::ZeroPoints => {
                let all: Vec<i32> = by_columns(groups).into_iter().map(|g| self.zeros[g] as i32).collect();
                pack(&all, bits)
            }
            Part::Codes => match (order, group) {
                (Order::Packed, Group::Block(n)) => {
                    let whole = (columns.div_ceil(n) * n) as usize;
                    let row = |row: &[i32]| {
                        let mut row = row.to_vec();
                        row.resize(whole, 0);
                        pack(&row, bits)
                    };
                    self.numbers.chunks(columns as usize).flat_map(row).collect()
                }
                (Order::Columns, _) => {
                    let at = |c: u64| (0..rows).map(move |r| (r * columns + c) as usize);
                    let all: Vec<i32> = (0..columns).flat_map(at).map(|i| self.numbers[i]).collect();
                    pack(&all, bits)
                }
                _ => pack(&self.numbers, bits),
            },
        }
    }

    /// From what initializers hold.
    pub fn read(coding: Coding, codes: &[u8], scales: &[f32], zeros: Option<&[u8]>) -> Self {
        let Coding { rows, columns, code, group, order, zero } = coding;
        let bits = code.bits();
        let signed = matches!(code, Code::Elem(Elem::I8 | Elem::I4 | Elem::I2 | Elem::I32));
        let groups = coding.groups() as usize;
        let turned = |all: Vec<f32>| -> Vec<f32> {
            match (order, group) {
                (Order::Columns, Group::Block(_)) => (0..rows as usize * groups)
                    .map(|i| all[i % groups * rows as usize + i / groups])
                    .collect(),
                _ => all,
            }
        };
        let all = match bits {
            32 => codes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b)).collect(),
            _ => unpack(codes, bits, signed, order == Order::Running),
        };
        let each = match (order, group) {
            (Order::Packed, Group::Block(n)) => columns.div_ceil(n) * n,
            _ => columns,
        };
        let code = |(r, c): (u64, u64)| match order {
            Order::Columns => all[(c * rows + r) as usize],
            _ => all[(r * each + c) as usize],
        };
        let numbers = places(&coding).map(code).collect();
        let zeros = match (zero, zeros) {
            (Zero::Point, Some(bytes)) if bits == 32 => vec![0.0; bytes.len() / 4],
            (Zero::Point, Some(bytes)) if order == Order::Packed => bytes
                .chunks(bytes.len() / rows as usize)
                .flat_map(|row| unpack(row, bits, signed, false).into_iter().take(groups).map(|z| z as f32))
                .collect(),
            (Zero::Point, Some(bytes)) => {
                turned(unpack(bytes, bits, signed, false).into_iter().map(|z| z as f32).collect())
            }
            (Zero::Middle, _) => vec![(1 << (bits - 1)) as f32; scales.len()],
            _ => vec![0.0; scales.len()],
        };
        Self { coding, numbers, scales: turned(scales.to_vec()), zeros }
    }
}
