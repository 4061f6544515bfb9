//! Whether a device gives the processor's bytes: asked with a few rows of every format, before its bytes are believed.
//!
//! It takes milliseconds, and a device, driver or compiler that computes otherwise is found before it writes anything.

use crate::{Error, encode, kernels::Kernels, seat::Pool};
use tensormill_kernels::{codec, cuda::DeviceCode};
use tensormill_model::{Encode, Form, Op, Result, Rows, Task};
use tensormill_tensor::{BlockFormat, Encoding, Shape};

/// Two super-blocks to a row; teams and warps with nothing to do at the end.
const COLUMNS: usize = 512;
/// One for each of [`SCALES`].
const ROWS: usize = SCALES.len();
/// Of weights: of trained models, and far from them.
const SCALES: [f32; 5] = [0.02, 1.0, 1e-4, 40.0, 0.3];

/// What stands for the op that encodes the sample.
#[derive(Debug)]
struct Sample<'a> {
    block: &'static BlockFormat,
    importance: Option<&'a [f32]>,
}

impl Op for Sample<'_> {
    fn describe(&self) -> String {
        format!("sample[{}]", self.block)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let input =
            inputs.first().ok_or_else(|| tensormill_model::Error::usage("a sample takes one input"))?;
        Ok(Form::new(input.shape.clone(), Encoding::Block(self.block)))
    }
    fn run(&self, _: Rows, _: &[Form], _: &[&[u8]], _: &mut [u8]) -> Result<()> {
        Err(tensormill_model::Error::usage("a sample is for devices only"))
    }
    fn encodes(&self) -> Option<Encode<'_>> {
        Some(Encode { block: self.block, importance: self.importance })
    }
}

/// Encodes the sample in every format, with and without importance.
///
/// # Errors
/// [`Error::Differs`] for the first format whose bytes are not the processor's; what a device that fails says.
pub(crate) fn same_bytes(
    kernels: &Kernels,
    pool: &Pool,
    codes: &[&'static DeviceCode],
) -> std::result::Result<(), Error> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32
    };
    // The sum of four is close enough to how weights are distributed.
    let mut weight = |scale: f32| (uniform() + uniform() + uniform() + uniform() - 2.0) * scale;
    let x: Vec<f32> = SCALES.iter().flat_map(|s| [*s; COLUMNS]).map(&mut weight).collect();
    let importance: Vec<f32> = (0..COLUMNS).map(|_| 0.1 + weight(1.0).abs()).collect();
    let value: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
    for code in codes {
        let Some(codec) = codec(code.block) else { continue };
        let bytes = code.block.row_bytes(COLUMNS as u64).unwrap_or_default() as usize * ROWS;
        for importance in [None, Some(importance.as_slice())] {
            if importance.is_some() && !code.uses_importance
                || importance.is_none() && codec.needs_importance()
            {
                continue;
            }
            let (mut want, mut got) = (vec![0; bytes], vec![0; bytes]);
            let differs = || Error::Differs { format: code.block.name };
            codec.encode_rows(&x, COLUMNS, importance, &mut want).map_err(|_| differs())?;
            let shape = Shape::new(vec![ROWS as u64, COLUMNS as u64]).map_err(|_| differs())?;
            let form = Form::new(shape, Encoding::F32);
            let op = Sample { block: code.block, importance };
            let mut tasks = [Task { op: &op, out: &mut got, done: false }];
            encode::run(kernels, pool, &(0..ROWS as u64), &form, &value, &mut tasks)?;
            if !tasks[0].done || got != want {
                return Err(differs());
            }
        }
    }
    Ok(())
}
