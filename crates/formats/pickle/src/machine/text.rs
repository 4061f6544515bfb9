//! Values that protocols 0 and 1 write as text, and integers of any length.

use super::{
    heap::{Heap, Value},
    opcodes::code as c,
};
use tensormill_model::{Error, Result};

/// The value of a line behind `INT`, `LONG`, `FLOAT`, `STRING` or `UNICODE`.
pub(super) fn literal(heap: &mut Heap, code: u8, line: &[u8]) -> Result<Value> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match code {
        c::STRING => {
            let bytes = quoted(line).ok_or_else(|| Error::malformed("a string without its quotes"))?;
            let t = heap.text(&bytes)?;
            Ok(if std::str::from_utf8(&bytes).is_ok() { Value::Text(t) } else { Value::Bytes(t) })
        }
        c::UNICODE => Ok(Value::Text(heap.text(raw_unicode_escape(line).as_bytes())?)),
        c::FLOAT => {
            let v = std::str::from_utf8(line).ok().and_then(|s| s.trim().parse().ok());
            v.map(Value::Float).ok_or_else(|| Error::malformed("a float that is no number"))
        }
        c::INT if line == b"00" => Ok(Value::Bool(false)),
        c::INT if line == b"01" => Ok(Value::Bool(true)),
        _ => {
            let digits = std::str::from_utf8(line).ok().map(str::trim);
            let digits = digits.map(|s| s.strip_suffix(['L', 'l']).unwrap_or(s));
            let v = digits.and_then(|s| s.parse::<i128>().ok());
            match v {
                Some(v) => integer(heap, &v.to_le_bytes()),
                None => Err(Error::malformed("an integer that is no number, or one beyond 128 bits")),
            }
        }
    }
}

/// An integer from its little-endian two's complement.
pub(super) fn integer(heap: &mut Heap, bytes: &[u8]) -> Result<Value> {
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    // Without the bytes that only repeat the sign.
    let mut n = bytes.len();
    while n > 8 && bytes[n - 1] == fill && (bytes[n - 2] & 0x80 != 0) == negative {
        n -= 1;
    }
    if n <= 8 {
        let mut wide = [fill; 8];
        wide[..n].copy_from_slice(&bytes[..n]);
        return Ok(Value::Int(i64::from_le_bytes(wide)));
    }
    Ok(Value::Huge(heap.text(&bytes[..n])?))
}

/// The bytes of a Python string literal.
fn quoted(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.trim_ascii();
    let (quote, inner) = line.split_first()?;
    let inner = match (quote, inner.split_last()?) {
        (b'\'' | b'"', (last, inner)) if last == quote => inner,
        _ => return None,
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((b, tail)) = rest.split_first() {
        rest = tail;
        if *b != b'\\' {
            out.push(*b);
            continue;
        }
        let (e, tail) = rest.split_first()?;
        rest = tail;
        let plain = match e {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'v' => 11,
            b'\\' | b'\'' | b'"' => *e,
            b'x' => {
                out.push(digits(rest.get(..2)?, 16)? as u8);
                rest = &rest[2..];
                continue;
            }
            b'0'..=b'7' => {
                let n = 1 + rest.iter().take(2).take_while(|d| (b'0'..=b'7').contains(d)).count();
                let at = inner.len() - rest.len() - 1;
                out.push(digits(&inner[at..at + n], 8)? as u8);
                rest = &inner[at + n..];
                continue;
            }
            _ => {
                out.push(b'\\');
                *e
            }
        };
        out.push(plain);
    }
    Some(out)
}

fn digits(text: &[u8], radix: u32) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(text).ok()?, radix).ok()
}

/// Text in Python's `raw-unicode-escape`: Latin-1 with `\uXXXX` and `\UXXXXXXXX`. Lone surrogates become U+FFFD.
fn raw_unicode_escape(line: &[u8]) -> String {
    let mut out = String::with_capacity(line.len());
    let mut i = 0;
    while i < line.len() {
        let n = match line.get(i..i + 2) {
            Some(b"\\u") => 4,
            Some(b"\\U") => 8,
            _ => 0,
        };
        let code = (n > 0).then(|| line.get(i + 2..i + 2 + n).and_then(|d| digits(d, 16))).flatten();
        if let Some(code) = code {
            out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            i += 2 + n;
        } else {
            out.push(line[i] as char);
            i += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::Limits;

    fn one(code: u8, line: &str) -> (Heap, Result<Value>) {
        let mut heap = Heap::new(&Limits::default(), "x".into(), 0);
        let v = literal(&mut heap, code, line.as_bytes());
        (heap, v)
    }

    #[test]
    fn numbers() {
        assert_eq!(one(c::INT, "01").1.unwrap(), Value::Bool(true));
        assert_eq!(one(c::INT, "-12").1.unwrap(), Value::Int(-12));
        assert_eq!(one(c::LONG, "9223372036854775807L").1.unwrap(), Value::Int(i64::MAX));
        assert!(matches!(one(c::LONG, "9223372036854775808L").1.unwrap(), Value::Huge(_)));
        assert_eq!(one(c::FLOAT, "1e-3").1.unwrap(), Value::Float(0.001));
        assert!(one(c::INT, "x").1.is_err());
        let mut heap = Heap::new(&Limits::default(), "x".into(), 0);
        assert_eq!(integer(&mut heap, &[]).unwrap(), Value::Int(0));
        assert_eq!(integer(&mut heap, &[0xff]).unwrap(), Value::Int(-1));
        assert_eq!(
            integer(&mut heap, &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).unwrap(),
            Value::Int(-256)
        );
        let nine = integer(&mut heap, &[0, 0, 0, 0, 0, 0, 0, 0x80, 0]).unwrap();
        assert!(matches!(nine, Value::Huge(_)));
    }

    #[test]
    fn strings() {
        for (line, want) in
            [(r"'a\n\x41\101\\\'\q'", "a\nAA\\'\\q"), (r#""it's""#, "it's"), (r"'\0\08'", "\0\x008")]
        {
            let (heap, v) = one(c::STRING, line);
            assert_eq!(heap.str(v.unwrap()), Some(want), "{line}");
        }
        for bad in ["a", "'a", "'\\x4'", "'\\'", ""] {
            assert!(one(c::STRING, bad).1.is_err(), "{bad}");
        }
        let (heap, v) = one(c::UNICODE, "a\\u00e9\\U0001F999\\u12");
        assert_eq!(heap.str(v.unwrap()), Some("a\u{e9}\u{1f999}\\u12"));
    }
}
