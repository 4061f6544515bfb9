//! Opcodes read one by one, with nothing understood of what they do. Every length is checked before memory is taken.

use super::opcodes::{self, Form};
use crate::cursor::Cursor;
use tensormill_model::{Error, Limits, Result, Store};

/// Bytes of an argument that are kept in memory; of longer ones only the place is.
pub(crate) const KEEP: u64 = 1024;

/// One opcode.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Op {
    /// Position in the store.
    pub at: u64,
    pub code: u8,
    pub arg: Arg,
}

/// Its argument.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Arg {
    None,
    Int(i64),
    Float(f64),
    /// Bytes in the store; in [`Ops::kept`] as well when there are at most [`KEEP`] of them.
    Bytes {
        at: u64,
        len: u64,
    },
    /// One or two lines, joined by a line feed, in [`Ops::kept`].
    Lines,
}

/// Reads opcodes from a place in a store on.
pub(crate) struct Ops<'a> {
    cursor: Cursor<'a>,
    kept: Vec<u8>,
    /// Where the pickle starts, plus the bytes of arguments that were stepped over.
    counted_from: u64,
    left: u64,
    limits: &'a Limits,
}

impl<'a> Ops<'a> {
    pub fn new(store: &'a dyn Store, start: u64, limits: &'a Limits) -> Self {
        Self {
            cursor: Cursor::new(store, start),
            kept: Vec::new(),
            counted_from: start,
            left: limits.opcodes,
            limits,
        }
    }

    /// What the last opcode brought along, see [`Arg`].
    pub fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Position of the next opcode.
    pub fn position(&self) -> u64 {
        self.cursor.position()
    }

    /// The next opcode.
    pub fn next(&mut self) -> Result<Op> {
        let at = self.cursor.position();
        if self.left == 0 {
            return Err(Error::over_limit(format!("more than {} opcodes", self.limits.opcodes)).at(at));
        }
        if at.saturating_sub(self.counted_from) >= self.limits.header_bytes {
            return Err(Error::over_limit(format!(
                "a pickle of more than {} bytes, long strings left aside",
                self.limits.header_bytes
            ))
            .at(at));
        }
        self.left -= 1;
        let code = self.cursor.u8()?;
        let Some((name, form)) = opcodes::describe(code) else {
            return Err(Error::malformed(format!("{code:#04x} is no pickle opcode")).at(at));
        };
        let arg = self.arg(code, form).map_err(|e| e.context(format!("the argument of {name}")).at(at))?;
        Ok(Op { at, code, arg })
    }

    fn arg(&mut self, code: u8, form: Form) -> Result<Arg> {
        let c = &mut self.cursor;
        Ok(match form {
            Form::None => Arg::None,
            Form::U8 => Arg::Int(c.u8()?.into()),
            Form::U16 => Arg::Int(c.u16()?.into()),
            Form::U32 => Arg::Int(c.u32()?.into()),
            Form::I32 => Arg::Int((c.u32()? as i32).into()),
            // Frame lengths only; nobody needs those beyond the range of i64 to be exact.
            Form::U64 => Arg::Int(i64::try_from(c.u64()?).unwrap_or(i64::MAX)),
            Form::F64 => Arg::Float(f64::from_be_bytes(c.array()?)),
            Form::Line | Form::TwoLines => {
                self.kept.clear();
                c.line(&mut self.kept, self.limits.string_bytes)?;
                if form == Form::TwoLines {
                    self.kept.push(b'\n');
                    c.line(&mut self.kept, self.limits.string_bytes)?;
                }
                Arg::Lines
            }
            Form::Counted1 => {
                let n = c.u8()?;
                self.bytes(n.into())?
            }
            Form::Counted4 => {
                let n = c.u32()?;
                if opcodes::signed_length(code) && n > i32::MAX as u32 {
                    return Err(Error::malformed("a negative length"));
                }
                self.bytes(n.into())?
            }
            Form::Counted8 => {
                let n = c.u64()?;
                self.bytes(n)?
            }
        })
    }

    fn bytes(&mut self, len: u64) -> Result<Arg> {
        let at = self.cursor.position();
        self.kept.clear();
        if len <= KEEP {
            self.kept.extend_from_slice(self.cursor.take(len as usize)?);
        } else {
            self.cursor.skip(len)?;
            self.counted_from += len;
        }
        Ok(Arg::Bytes { at, len })
    }
}
