//! Between rows of ggml's blocks and bundles: the same codes and numbers, without arithmetic on weights.
//!
//! Layout facts: `ggml-common.h`; the modules of `tensormill_kernels` that decode these blocks have diagrams.

use super::{check_bundles, dims, matrix, plain};
use tensormill_kernels::groups::{Code, Grid, Offset, ScaleType};
use tensormill_model::{Error, Form, Locality, Op, Result, Rows};
use tensormill_tensor::{BlockFormat, DType, Encoding, Shape, decode_plain, encode_plain, ggml};

/// The codes and numbers of a block format: what its bundles hold, and the type that its scales are exact in. `None` where
/// blocks are no grouped codes, or ones that nothing else has.
///
/// What bundles decode to is what blocks decode to, bit by bit, but for two things: the FP4 code of negative zero keeps its sign,
/// and NaN stands where an FP4 block's scale has the code that its type calls NaN.
pub fn grid_of(block: &BlockFormat) -> Option<(Grid, ScaleType)> {
    let grid = |code, group, offset| Grid { code, group, rows: 1, offset, outer: false };
    let (grid, scale) = match () {
        () if block == ggml::Q4_0 => (grid(Code::Int(4), 32, Offset::Middle), ScaleType::F16),
        () if block == ggml::Q4_1 => (grid(Code::Int(4), 32, Offset::Bias), ScaleType::F16),
        () if block == ggml::Q5_0 => (grid(Code::Int(5), 32, Offset::Middle), ScaleType::F16),
        () if block == ggml::Q5_1 => (grid(Code::Int(5), 32, Offset::Bias), ScaleType::F16),
        () if block == ggml::Q8_0 => (grid(Code::Int(8), 32, Offset::Middle), ScaleType::F16),
        () if block == ggml::MXFP4 => (grid(Code::E2M1, 32, Offset::None), ScaleType::E8M0),
        () if block == ggml::NVFP4 => (grid(Code::E2M1, 16, Offset::None), ScaleType::E4M3),
        // Their scales are products of 11 and 6 bits, exact in binary32.
        () if block == ggml::Q4_K => (grid(Code::Int(4), 32, Offset::Bias), ScaleType::F32),
        () if block == ggml::Q5_K => (grid(Code::Int(5), 32, Offset::Bias), ScaleType::F32),
        () => return None,
    };
    Some((grid, scale))
}

/// Bundles of block rows. A second input is a number that scales are multiplied by, one element: it becomes the outer scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks;

/// Block rows of bundles whose numbers are exact in the block's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToBlocks {
    /// What bundles hold.
    pub grid: Grid,
    /// Columns of the weights.
    pub columns: u64,
    /// The blocks.
    pub block: &'static BlockFormat,
}

/// One block, taken apart.
struct Taken {
    codes: [u8; 256],
    scales: [f32; 8],
    offsets: [f32; 8],
}

fn float(dtype: DType, bytes: &[u8]) -> f32 {
    let mut x = [0f32];
    let decoded = decode_plain(dtype, bytes, &mut x);
    debug_assert!(decoded, "a plain float");
    x[0]
}

fn bytes_of<const N: usize>(dtype: DType, x: f32) -> [u8; N] {
    let mut out = [0; N];
    let encoded = encode_plain(dtype, &[x], &mut out);
    debug_assert!(encoded, "a plain float");
    out
}

/// Codes of which byte `j` holds the `j`-th in its low half and the one half a group further on in its high half.
fn halves(bytes: &[u8], codes: &mut [u8]) {
    let n = bytes.len();
    for (j, b) in bytes.iter().enumerate() {
        (codes[j], codes[j + n]) = (b & 15, b >> 4);
    }
}

fn to_halves(codes: &[u8], bytes: &mut [u8]) {
    let n = bytes.len();
    for (j, b) in bytes.iter_mut().enumerate() {
        *b = (codes[j] & 15) | codes[j + n] << 4;
    }
}

/// The `j`-th scale and offset of eight, six bits each in twelve bytes.
fn six_bits(p: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        return (p[j] & 63, p[j + 4] & 63);
    }
    ((p[j + 4] & 15) | (p[j - 4] >> 6) << 4, (p[j + 4] >> 4) | (p[j] >> 6) << 4)
}

impl Taken {
    const NONE: Self = Self { codes: [0; 256], scales: [0.0; 8], offsets: [0.0; 8] };

    fn take(&mut self, block: &BlockFormat, b: &[u8]) {
        let half = |at: usize| float(DType::F16, &b[at..at + 2]);
        let Self { codes, scales, offsets } = self;
        if block == ggml::MXFP4 {
            scales[0] = float(DType::F8E8M0, &b[..1]);
            halves(&b[1..], codes);
        } else if block == ggml::NVFP4 {
            for g in 0..4 {
                scales[g] = float(DType::F8E4M3, &b[g..=g]);
                halves(&b[4 + 8 * g..][..8], &mut codes[16 * g..]);
            }
        } else if block == ggml::Q8_0 {
            scales[0] = half(0);
            codes.iter_mut().zip(&b[2..]).for_each(|(c, b)| *c = b ^ 0x80);
        } else if block == ggml::Q4_K || block == ggml::Q5_K {
            let (d, m) = (half(0), half(2));
            let (high, low) = if block == ggml::Q5_K { b[16..].split_at(32) } else { b[16..].split_at(0) };
            for g in 0..8 {
                let (scale, offset) = six_bits(&b[4..16], g);
                (scales[g], offsets[g]) = (d * f32::from(scale), -(m * f32::from(offset)));
                for (l, c) in codes[32 * g..][..32].iter_mut().enumerate() {
                    let fifth = high.get(l).map_or(0, |h| (h >> g & 1) << 4);
                    *c = (low[g / 2 * 32 + l] >> (g % 2 * 4) & 15) | fifth;
                }
            }
        } else {
            scales[0] = half(0);
            let mut at = 2;
            if block == ggml::Q4_1 || block == ggml::Q5_1 {
                offsets[0] = half(2);
                at = 4;
            }
            let bits = b.len() - at - 16;
            halves(&b[at + bits..], codes);
            for (i, byte) in b[at..at + bits].iter().enumerate() {
                for k in 0..8 {
                    codes[8 * i + k] |= (byte >> k & 1) << 4;
                }
            }
        }
    }

    /// Of the formats whose scales stand as they are.
    fn put(&self, block: &BlockFormat, b: &mut [u8]) {
        let Self { codes, scales, offsets } = self;
        if block == ggml::MXFP4 {
            b[0] = (scales[0].to_bits() >> 23) as u8;
            to_halves(codes, &mut b[1..]);
            return;
        }
        if block == ggml::NVFP4 {
            for g in 0..4 {
                let [scale] = bytes_of(DType::F8E4M3, scales[g]);
                b[g] = scale & 0x7f;
                to_halves(&codes[16 * g..], &mut b[4 + 8 * g..][..8]);
            }
            return;
        }
        b[..2].copy_from_slice(&bytes_of::<2>(DType::F16, scales[0]));
        if block == ggml::Q8_0 {
            b[2..].iter_mut().zip(codes).for_each(|(b, c)| *b = c ^ 0x80);
            return;
        }
        let mut at = 2;
        if block == ggml::Q4_1 || block == ggml::Q5_1 {
            b[2..4].copy_from_slice(&bytes_of::<2>(DType::F16, offsets[0]));
            at = 4;
        }
        let bits = b.len() - at - 16;
        to_halves(codes, &mut b[at + bits..]);
        for (i, byte) in b[at..at + bits].iter_mut().enumerate() {
            *byte = (0..8).fold(0, |held, k| held | (codes[8 * i + k] >> 4 & 1) << k);
        }
    }
}

fn blocks_of(form: &Form) -> Result<(&'static BlockFormat, Grid)> {
    let Encoding::Block(block) = form.encoding else {
        return Err(Error::usage(format!("{} weights are not in blocks", form.encoding)));
    };
    let (grid, _) = grid_of(block)
        .ok_or_else(|| Error::unsupported(format!("the codes of {block} blocks are nobody else's")))?;
    Ok((block, grid))
}

/// What the bundles of blocks hold that perhaps have a scale beside them.
fn bundles_of(forms: &[Form]) -> Result<Grid> {
    let (block, grid) = blocks_of(&forms[0])?;
    let Some(outer) = forms.get(1) else { return Ok(grid) };
    outer_type(outer)?;
    if grid.offset.is_stored() {
        return Err(Error::unsupported(format!("a scale beside {block} blocks, which have offsets")));
    }
    Ok(Grid { outer: true, ..grid })
}

/// The type of a number about a whole matrix.
pub(super) fn outer_type(form: &Form) -> Result<DType> {
    let dtype = plain(form, "scales")?;
    if form.shape.elements() != 1 || !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
        return Err(Error::malformed(format!("a scale of type {dtype} and shape {}", form.shape)));
    }
    Ok(dtype)
}

/// A number about a whole matrix.
pub(super) fn outer_of(form: &Form, bytes: &[u8]) -> Result<f32> {
    Ok(float(outer_type(form)?, bytes))
}

impl Op for Blocks {
    fn describe(&self) -> String {
        "blocks".to_owned()
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let ([input] | [input, _]) = inputs else {
            return Err(Error::usage("blocks are one input, and their scale another"));
        };
        let grid = bundles_of(inputs)?;
        let (rows, columns) = dims(input);
        matrix(rows, grid.bundle_bytes(columns as usize) as u64, DType::U8)
    }
    fn locality(&self, input: usize) -> Locality {
        if input == 0 { Locality::Row } else { Locality::Whole }
    }
    fn makes_bundle(&self) -> bool {
        true
    }
    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let ((block, _), grid) = (blocks_of(&forms[0])?, bundles_of(forms)?);
        let outer = match (forms, inputs) {
            ([_, form], [_, bytes]) => outer_of(form, bytes)?.to_le_bytes(),
            _ => 1f32.to_le_bytes(),
        };
        let (in_row, columns) = (forms[0].row_bytes()? as usize, forms[0].shape.row_len() as usize);
        if in_row == 0 {
            return Ok(());
        }
        let (weights, group) = (block.weights as usize, grid.group as usize);
        let groups = weights / group;
        let mut taken = Taken::NONE;
        for (row, out) in inputs[0].chunks_exact(in_row).zip(out.chunks_exact_mut(grid.bundle_bytes(columns)))
        {
            let parts = grid.parts_mut(out, columns);
            if let Some(o) = parts.outer {
                *o = outer;
            }
            for (i, b) in row.chunks_exact(block.bytes as usize).enumerate() {
                taken.take(block, b);
                parts.codes[i * weights..][..weights].copy_from_slice(&taken.codes[..weights]);
                for g in 0..groups {
                    parts.scales[i * groups + g] = taken.scales[g].to_le_bytes();
                    if let Some(offset) = parts.offsets.get_mut(i * groups + g) {
                        *offset = taken.offsets[g].to_le_bytes();
                    }
                }
            }
        }
        Ok(())
    }
}

impl ToBlocks {
    fn out_form(&self, bundles: &Shape) -> Result<Form> {
        let mut dims = bundles.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.columns;
        }
        let form = Form::new(Shape::new(dims)?, Encoding::Block(self.block));
        form.row_bytes()?;
        Ok(form)
    }
}

impl Op for ToBlocks {
    fn describe(&self) -> String {
        format!("to-blocks[{} of {:?} {}]", self.block, self.grid, self.columns)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [bundle] = inputs else { return Err(Error::usage("blocks are made of one bundle")) };
        check_bundles(bundle, &self.grid, self.columns)?;
        self.out_form(&bundle.shape)
    }
    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let columns = self.columns as usize;
        let in_row = self.grid.bundle_bytes(columns);
        let out_row = self.out_form(&forms[0].shape)?.row_bytes()? as usize;
        let (to, _) = grid_of(self.block)
            .ok_or_else(|| Error::unsupported(format!("{} blocks are made of no codes", self.block)))?;
        if in_row == 0 || out_row == 0 {
            return Ok(());
        }
        // Narrower integers are wider ones whose middle lies elsewhere.
        let shift = match to.offset {
            Offset::Middle => (to.code.middle() - self.grid.code.middle()) as u8,
            _ => 0,
        };
        let (weights, group, len) =
            (self.block.weights as usize, to.group as usize, self.grid.group_len(columns).max(1));
        let mut taken = Taken::NONE;
        for (bundle, out) in inputs[0].chunks_exact(in_row).zip(out.chunks_exact_mut(out_row)) {
            let parts = self.grid.parts(bundle, columns);
            for (i, b) in out.chunks_exact_mut(self.block.bytes as usize).enumerate() {
                for (c, from) in taken.codes.iter_mut().zip(&parts.codes[i * weights..][..weights]) {
                    *c = from.wrapping_add(shift);
                }
                for g in 0..weights / group {
                    let at = (i * weights + g * group) / len;
                    taken.scales[g] = f32::from_le_bytes(parts.scales[at]);
                    taken.offsets[g] = parts.offsets.get(at).map_or(0.0, |o| f32::from_le_bytes(*o));
                }
                taken.put(self.block, b);
            }
        }
        Ok(())
    }
}
