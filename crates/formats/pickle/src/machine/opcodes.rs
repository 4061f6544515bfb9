//! The instruction set of pickle protocols 0 to 5 (CPython's `pickletools.py`): codes, names, forms of argument.

/// How the argument of an opcode is stored behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    None,
    /// Unsigned, one byte.
    U8,
    /// Unsigned, two bytes.
    U16,
    /// Unsigned, four bytes.
    U32,
    /// Unsigned, eight bytes.
    U64,
    /// Signed, four bytes.
    I32,
    /// Binary64, big-endian.
    F64,
    /// Text up to a line feed.
    Line,
    /// Two such lines.
    TwoLines,
    /// A length of one byte, then as many bytes.
    Counted1,
    /// A length of four bytes (never negative), then as many bytes.
    Counted4,
    /// A length of eight bytes, then as many bytes.
    Counted8,
}

macro_rules! opcodes {
    ($($name:ident = $code:literal $form:ident;)*) => {
        /// Codes by name.
        pub(crate) mod code {
            $(pub(crate) const $name: u8 = $code;)*
        }
        /// Name and form of a code; `None` for bytes that are no opcode.
        pub(crate) const fn describe(code: u8) -> Option<(&'static str, Form)> {
            match code {
                $($code => Some((stringify!($name), Form::$form)),)*
                _ => None,
            }
        }
    };
}

opcodes! {
    MARK = b'(' None;
    STOP = b'.' None;
    POP = b'0' None;
    POP_MARK = b'1' None;
    DUP = b'2' None;
    FLOAT = b'F' Line;
    INT = b'I' Line;
    BININT = b'J' I32;
    BININT1 = b'K' U8;
    LONG = b'L' Line;
    BININT2 = b'M' U16;
    NONE = b'N' None;
    PERSID = b'P' Line;
    BINPERSID = b'Q' None;
    REDUCE = b'R' None;
    STRING = b'S' Line;
    BINSTRING = b'T' Counted4;
    SHORT_BINSTRING = b'U' Counted1;
    UNICODE = b'V' Line;
    BINUNICODE = b'X' Counted4;
    APPEND = b'a' None;
    BUILD = b'b' None;
    GLOBAL = b'c' TwoLines;
    DICT = b'd' None;
    EMPTY_DICT = b'}' None;
    APPENDS = b'e' None;
    GET = b'g' Line;
    BINGET = b'h' U8;
    INST = b'i' TwoLines;
    LONG_BINGET = b'j' U32;
    LIST = b'l' None;
    EMPTY_LIST = b']' None;
    OBJ = b'o' None;
    PUT = b'p' Line;
    BINPUT = b'q' U8;
    LONG_BINPUT = b'r' U32;
    SETITEM = b's' None;
    TUPLE = b't' None;
    EMPTY_TUPLE = b')' None;
    SETITEMS = b'u' None;
    BINFLOAT = b'G' F64;
    PROTO = 0x80 U8;
    NEWOBJ = 0x81 None;
    EXT1 = 0x82 U8;
    EXT2 = 0x83 U16;
    EXT4 = 0x84 I32;
    TUPLE1 = 0x85 None;
    TUPLE2 = 0x86 None;
    TUPLE3 = 0x87 None;
    NEWTRUE = 0x88 None;
    NEWFALSE = 0x89 None;
    LONG1 = 0x8a Counted1;
    LONG4 = 0x8b Counted4;
    BINBYTES = b'B' Counted4;
    SHORT_BINBYTES = b'C' Counted1;
    SHORT_BINUNICODE = 0x8c Counted1;
    BINUNICODE8 = 0x8d Counted8;
    BINBYTES8 = 0x8e Counted8;
    EMPTY_SET = 0x8f None;
    ADDITEMS = 0x90 None;
    FROZENSET = 0x91 None;
    NEWOBJ_EX = 0x92 None;
    STACK_GLOBAL = 0x93 None;
    MEMOIZE = 0x94 None;
    FRAME = 0x95 U64;
    BYTEARRAY8 = 0x96 Counted8;
    NEXT_BUFFER = 0x97 None;
    READONLY_BUFFER = 0x98 None;
}

/// Whether the four-byte length of this opcode is signed (and may then not be negative).
pub(crate) const fn signed_length(code: u8) -> bool {
    matches!(code, code::BINSTRING | code::LONG4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_68_opcodes() {
        assert_eq!((0..=255).filter(|c| describe(*c).is_some()).count(), 68);
        assert_eq!(describe(0x93), Some(("STACK_GLOBAL", Form::None)));
        assert_eq!(describe(b'c'), Some(("GLOBAL", Form::TwoLines)));
        assert_eq!(describe(0), None);
    }
}
