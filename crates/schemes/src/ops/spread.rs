//! Numbers of groups, a number for every column: where columns of a group do not stand beside each other (act-order).

use super::{dims, matrix, plain};
use tensormill_model::{Error, Form, Locality, Op, Result, Rows};
use tensormill_tensor::DType;

/// Spreads rows of numbers over columns. The second input says of which group each column is (`i32`, one per column).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread;

impl Op for Spread {
    fn describe(&self) -> String {
        "spread".to_owned()
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [numbers, groups] = inputs else {
            return Err(Error::usage("spreading takes numbers and groups of columns"));
        };
        if plain(groups, "groups of columns")? != DType::I32 {
            return Err(Error::malformed(format!("groups of columns are {}, not I32", groups.encoding)));
        }
        matrix(dims(numbers).0, groups.shape.elements(), plain(numbers, "numbers of groups")?)
    }
    fn locality(&self, input: usize) -> Locality {
        if input == 0 { Locality::Row } else { Locality::Whole }
    }
    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let element = (plain(&forms[0], "numbers of groups")?.bits() / 8) as usize;
        let (in_row, groups) = (forms[0].row_bytes()? as usize, inputs[1].as_chunks::<4>().0);
        let rows =
            inputs[0].chunks_exact(in_row.max(1)).zip(out.chunks_exact_mut((groups.len() * element).max(1)));
        for (numbers, out) in rows {
            for (group, out) in groups.iter().zip(out.chunks_exact_mut(element)) {
                let group = i32::from_le_bytes(*group);
                let number =
                    usize::try_from(group).ok().and_then(|g| numbers.get(g * element..(g + 1) * element));
                let Some(number) = number else {
                    return Err(Error::malformed(format!(
                        "a column is of group {group}, of {}",
                        numbers.len() / element
                    )));
                };
                out.copy_from_slice(number);
            }
        }
        Ok(())
    }
}
