//! Weights that a number about the whole matrix goes with, where blocks have no place for it: GGUF's `.scale` beside NVFP4.

use super::{
    Blocks,
    blocks::{outer_of, outer_type},
    dims, grid_of, store_floats,
};
use tensormill_kernels::groups::{Grid, Offset, ScaleType};
use tensormill_model::{Error, Form, Locality, Op, Result, Rows};
use tensormill_tensor::{DType, Encoding};
use tensormill_transforms::{check_readable, widen};

/// Decodes weights and multiplies them; the second input is the number, one element. Of blocks of 4-bit floats it is their
/// scales that are multiplied, as the libraries whose codes these are do it: one rounding comes earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaled;

impl Scaled {
    /// What the bundles of such weights hold, where their scales are multiplied.
    pub(crate) fn grid(encoding: Encoding) -> Option<(Grid, ScaleType)> {
        let Encoding::Block(block) = encoding else { return None };
        let (grid, scale) = grid_of(block).filter(|(g, _)| g.offset == Offset::None)?;
        Some((Grid { outer: true, ..grid }, scale))
    }
}

impl Op for Scaled {
    fn describe(&self) -> String {
        "scaled".to_owned()
    }

    fn any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }

    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [input, outer] = inputs else {
            return Err(Error::usage("weights and their scale are two inputs"));
        };
        check_readable(input.encoding, "decode")?;
        outer_type(outer)?;
        Ok(Form::new(input.shape.clone(), Encoding::F32))
    }

    fn locality(&self, input: usize) -> Locality {
        if input == 0 { Locality::Row } else { Locality::Whole }
    }

    fn scratch(&self, inputs: &[Form], _: u64) -> u64 {
        inputs.first().map_or(0, |f| f.shape.row_len().saturating_mul(8))
    }

    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let (form, in_row) = (&forms[0], forms[0].row_bytes()? as usize);
        let columns = dims(form).1 as usize;
        if in_row == 0 {
            return Ok(());
        }
        let grid = Self::grid(form.encoding).map(|(grid, _)| grid);
        let times = outer_of(&forms[1], inputs[1])?;
        let mut x = vec![0f32; columns];
        let mut bundle = vec![0; grid.map_or(0, |g| g.bundle_bytes(columns))];
        for ((row, input), out) in rows
            .zip(inputs[0].chunks_exact(in_row))
            .zip(out.chunks_exact_mut(columns * DType::F32.bits() as usize / 8))
        {
            if let Some(grid) = grid {
                Blocks.run(row..row + 1, forms, &[input, inputs[1]], &mut bundle)?;
                grid.decode_row(&bundle, &mut x);
            } else {
                widen(form.encoding, input, &mut x)?;
                for x in &mut x {
                    *x *= times;
                }
            }
            store_floats(x.iter().copied(), out);
        }
        Ok(())
    }
}
