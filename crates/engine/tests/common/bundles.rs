//! Ops that make bundles, and parts of them, small enough to follow by hand.

use super::{NIBBLES, U8, shape};
use tensormill_model::{Encode, Error, Expr, Form, Locality, Op, Reduction, Result, Rows, Tally};
use tensormill_tensor::{DType, Encoding};

/// Columns that share a scale.
pub const GROUP: usize = 4;

/// Codes of eight bits with one scale per group of columns of so many rows; the scale's place in the bundle is after the
/// codes of every row. Divides by the first number of a second input, where there is one.
#[derive(Clone, Debug)]
pub struct Pour {
    pub key: u8,
    pub rows: u64,
    /// Whether an accelerator may be asked.
    pub offers: bool,
}

impl Pour {
    pub fn new(key: u8) -> Self {
        Self { key, rows: 1, offers: false }
    }
}

fn columns(bundle: usize) -> usize {
    // Columns are a multiple of GROUP in all tests.
    bundle / (GROUP + 4) * GROUP
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

impl Op for Pour {
    fn describe(&self) -> String {
        format!("pour[{} {}]", self.key, self.rows)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        assert_eq!(inputs[0].encoding, Encoding::F32);
        let (rows, n) = (inputs[0].shape.rows(), inputs[0].shape.row_len());
        assert!(n.is_multiple_of(GROUP as u64));
        Ok(Form::new(shape(&[rows, n + n / GROUP as u64 * 4]), U8))
    }
    fn locality(&self, input: usize) -> Locality {
        if input == 0 { Locality::Row } else { Locality::Whole }
    }
    fn unit(&self) -> u64 {
        self.rows
    }
    fn makes_bundle(&self) -> bool {
        true
    }
    fn scratch(&self, _: &[Form], rows: u64) -> u64 {
        rows * 3
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let (all, n) = (forms[0].shape.rows(), forms[0].shape.row_len() as usize);
        assert!(rows.start.is_multiple_of(self.rows), "{rows:?} begin within a unit");
        assert!(rows.end.is_multiple_of(self.rows) || rows.end == all, "{rows:?} end within a unit of {all}");
        let outer = match inputs.get(1) {
            Some(bytes) => {
                assert_eq!(bytes.len() as u64, forms[1].row_bytes()? * forms[1].shape.rows());
                floats(bytes)[0]
            }
            None => 1.0,
        };
        let values = inputs[0].as_chunks::<4>().0;
        assert_eq!(values.len(), (rows.end - rows.start) as usize * n);
        let height = (self.rows.min(all) as usize).max(1);
        let bundle = n + n / GROUP * 4;
        for (values, out) in values.chunks(height * n).zip(out.chunks_mut(height * bundle)) {
            for g in 0..n / GROUP {
                let of = |x: &[u8; 4]| f32::from_le_bytes(*x);
                let at =
                    |row: &[[u8; 4]]| row[g * GROUP..][..GROUP].iter().fold(0f32, |a, x| a.max(of(x).abs()));
                let most = values.chunks(n).map(at).fold(0f32, f32::max);
                if most.is_nan() || most.is_infinite() {
                    return Err(Error::malformed("a value that is no number"));
                }
                let scale = most / outer / 100.0 + 1e-3;
                for (row, out) in values.chunks(n).zip(out.chunks_mut(bundle)) {
                    for (x, o) in row[g * GROUP..][..GROUP].iter().zip(&mut out[g * GROUP..]) {
                        let code = (of(x) / outer / scale).round().clamp(-128.0, 127.0);
                        *o = (code as i8 as u8) ^ self.key;
                    }
                    out[n + g * 4..][..4].copy_from_slice(&(scale * outer).to_le_bytes());
                }
            }
        }
        Ok(())
    }
    fn encodes(&self) -> Option<Encode<'_>> {
        self.offers.then_some(Encode { block: NIBBLES, importance: None })
    }
    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Option<Result<()>> {
        let n = columns(bytes.len());
        assert_eq!(n, out.len(), "bundles are decoded one by one");
        let scales = floats(&bytes[n..]);
        for (i, (o, c)) in out.iter_mut().zip(bytes).enumerate() {
            *o = f32::from((c ^ self.key) as i8) * scales[i / GROUP];
        }
        Some(Ok(()))
    }
}

/// Codes of bundles.
#[derive(Debug)]
pub struct Codes;
impl Op for Codes {
    fn describe(&self) -> String {
        "codes".into()
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let (rows, n) = (inputs[0].shape.rows(), columns(inputs[0].shape.row_len() as usize));
        Ok(Form::new(shape(&[rows, n as u64]), U8))
    }
    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let bundle = forms[0].shape.row_len() as usize;
        let n = columns(bundle);
        for (i, o) in inputs[0].chunks(bundle).zip(out.chunks_mut(n)) {
            o.copy_from_slice(&i[..n]);
        }
        Ok(())
    }
}

/// Scales of bundles, of the first of so many rows.
#[derive(Debug)]
pub struct Scales(pub u64);
impl Op for Scales {
    fn describe(&self) -> String {
        format!("scales[{}]", self.0)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let (rows, n) = (inputs[0].shape.rows(), columns(inputs[0].shape.row_len() as usize));
        Ok(Form::new(shape(&[rows.div_ceil(self.0), (n / GROUP) as u64]), Encoding::F32))
    }
    fn locality(&self, _: usize) -> Locality {
        if self.0 == 1 { Locality::Row } else { Locality::Rows(self.0) }
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let bundle = forms[0].shape.row_len() as usize;
        let need = forms[0].shape.rows().min(rows.end * self.0) - rows.start * self.0;
        assert_eq!(inputs[0].len() as u64, need * bundle as u64, "rows of bundles for {rows:?}");
        let n = columns(bundle);
        for (i, o) in inputs[0].chunks(self.0 as usize * bundle).zip(out.chunks_mut(n / GROUP * 4)) {
            o.copy_from_slice(&i[n..bundle]);
        }
        Ok(())
    }
}

/// So many rows of bytes in one: each turned by its place among them and xor the row's number. A second input, all of it, is
/// added.
#[derive(Debug)]
pub struct Pack(pub u64);
impl Op for Pack {
    fn describe(&self) -> String {
        format!("pack[{}]", self.0)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let f = &inputs[0].shape;
        let bytes = inputs[0].row_bytes()?;
        Ok(Form::new(shape(&[f.rows().div_ceil(self.0), bytes]), U8))
    }
    fn locality(&self, input: usize) -> Locality {
        if input == 0 { Locality::Rows(self.0) } else { Locality::Whole }
    }
    fn scratch(&self, _: &[Form], rows: u64) -> u64 {
        rows * 11
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let n = forms[0].row_bytes()? as usize;
        let need = forms[0].shape.rows().min(rows.end * self.0) - rows.start * self.0;
        assert_eq!(inputs[0].len(), need as usize * n, "rows of the input for {rows:?}");
        let added = inputs.get(1).map_or(0, |t| t.iter().fold(0u8, |a, b| a.wrapping_add(*b)));
        for (row, (i, o)) in rows.zip(inputs[0].chunks(self.0 as usize * n).zip(out.chunks_mut(n))) {
            o.fill((row as u8).wrapping_add(added));
            for (place, i) in i.chunks(n).enumerate() {
                for (o, i) in o.iter_mut().zip(i) {
                    *o ^= i.rotate_left(place as u32 % 8).wrapping_add(place as u8);
                }
            }
        }
        Ok(())
    }
}

/// The largest magnitude, without the lower half of its bits.
#[derive(Debug)]
pub struct Most;
impl Op for Most {
    fn describe(&self) -> String {
        "most".into()
    }
    fn form(&self, _: &[Form]) -> Result<Form> {
        Ok(Form::new(shape(&[1]), Encoding::Plain(DType::F32)))
    }
    fn run(&self, _: Rows, _: &[Form], _: &[&[u8]], _: &mut [u8]) -> Result<()> {
        Err(Error::usage("a reduction is not run"))
    }
    fn reduction(&self) -> Option<&dyn Reduction> {
        Some(self)
    }
}
impl Reduction for Most {
    fn passes(&self) -> usize {
        1
    }
    fn add(&self, _: &[Tally], _: Rows, _: &[Form], inputs: &[&[u8]], tally: &mut Tally) -> Result<()> {
        for x in floats(inputs[0]) {
            let bin = (x.to_bits() >> 16 & 0x7fff) as usize;
            if tally.counts.len() <= bin {
                tally.counts.resize(bin + 1, 0);
            }
            tally.counts[bin] += 1;
        }
        Ok(())
    }
    fn value(&self, tallies: &[Tally], _: &[Form], out: &mut [u8]) -> bool {
        let [tally] = tallies else { return false };
        let bits = (tally.counts.len().saturating_sub(1) as u32) << 16;
        out.copy_from_slice(&bits.to_le_bytes());
        true
    }
}

/// An op on a tensor, and on all of others.
pub fn with(op: impl Op + 'static, inputs: Vec<Expr>) -> Expr {
    Expr::Apply { op: std::sync::Arc::new(op), inputs }
}
