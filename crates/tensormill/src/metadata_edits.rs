//! `--remove-metadata KEY` and `--metadata KEY=VALUE`: edits of the output's metadata, with types.

use tensormill_model::{Error, Metadata, Result, Value};

/// Takes keys out, then makes the edits.
///
/// # Errors
/// `Usage` for a key that is not there or cannot be missed, and as [`edit`].
pub fn apply(metadata: &mut Metadata, remove: &[String], edits: &[String]) -> Result<()> {
    for key in remove {
        if key == ARCHITECTURE {
            return Err(Error::usage(format!("{key} says what the file is and cannot be left out")));
        }
        if metadata.remove(key).is_none() {
            return Err(Error::usage(format!("there is no metadata {key:?} to leave out"))
                .hint("`tensormill inspect` shows what there is"));
        }
    }
    edits.iter().try_for_each(|text| edit(metadata, text))
}

/// What every loader of GGUF files asks for first.
const ARCHITECTURE: &str = "general.architecture";

/// Where tensors begin, a property of the file: it has one type in all of them.
const ALIGNMENT: &str = "general.alignment";

/// Sets a key. The value takes the type of the value it replaces; a new key is text unless the value starts with a
/// type (`u32:7`, `f32:0.5`, `bool:true`, `str:u32:7`).
///
/// # Errors
/// `Usage` for anything that is not `KEY=VALUE`, values that do not parse, arrays, and keys that are the
/// writer's own.
fn edit(metadata: &mut Metadata, text: &str) -> Result<()> {
    let Some((key, value)) = text.split_once('=').filter(|(k, _)| !k.is_empty()) else {
        return Err(Error::usage(format!("{text:?} is not of the form KEY=VALUE"))
            .hint("for example --metadata general.author=Jane"));
    };
    if key.starts_with("split.") {
        return Err(
            Error::usage(format!("{key} is written by the splitter")).hint("use --max-shard-size to split")
        );
    }
    if key == ALIGNMENT {
        let text = value.strip_prefix("u32:").unwrap_or(value);
        let bytes = text.parse::<u32>().ok().filter(|n| n.is_power_of_two() && (8..=1 << 20).contains(n));
        let bytes = bytes.ok_or_else(|| {
            Error::usage(format!("{key} is {text:?}; it must be a power of two from 8 to 1048576"))
        })?;
        metadata.set(key, bytes);
        return Ok(());
    }
    let typed = value.split_once(':').and_then(|(t, v)| parse(t, v).map(|r| (t, r)));
    let new = match (metadata.get(key), typed) {
        (Some(Value::Array(_)), _) => {
            return Err(Error::usage(format!(
                "{key} is an array; arrays cannot be set from the command line"
            )));
        }
        (Some(old), typed) => {
            let t = old.value_type().0;
            match typed {
                // Only a prefix that names the type which stands there already is one; text may hold colons.
                Some((given, Ok(v))) if given == t => v,
                _ => parse(t, value)
                    .ok_or_else(|| Error::usage(format!("{key} has type {t}")))?
                    .map_err(|()| Error::usage(format!("{value:?} is not a {t}, which {key} is")))?,
            }
        }
        (None, Some((_, Ok(v)))) => v,
        (None, Some((t, Err(())))) => {
            return Err(
                Error::usage(format!("{value:?} is not a {t}")).hint("write str:... for text with a colon")
            );
        }
        (None, None) => Value::from(value),
    };
    metadata.set(key, new);
    Ok(())
}

/// `None` when `t` is not the name of a scalar type.
fn parse(t: &str, v: &str) -> Option<std::result::Result<Value, ()>> {
    macro_rules! number {
        ($t:ty) => {
            v.parse::<$t>().map(Value::from).map_err(drop)
        };
    }
    Some(match t {
        "u8" => number!(u8),
        "i8" => number!(i8),
        "u16" => number!(u16),
        "i16" => number!(i16),
        "u32" => number!(u32),
        "i32" => number!(i32),
        "u64" => number!(u64),
        "i64" => number!(i64),
        "f32" => number!(f32),
        "f64" => number!(f64),
        "bool" => number!(bool),
        "str" => Ok(Value::from(v)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_or_name_their_type() {
        let mut m = Metadata::new();
        m.set("n", 1u32);
        m.set("s", "old");
        m.set("a", vec![1u32]);
        for text in ["n=7", "s=u32:8", "new=u64:9", "t=str:u32:1", "plain=a=b"] {
            edit(&mut m, text).unwrap();
        }
        assert_eq!(m.get("n"), Some(&Value::U32(7)));
        assert_eq!(m.get("s"), Some(&Value::from("u32:8")));
        assert_eq!(m.get("new"), Some(&Value::U64(9)));
        assert_eq!(m.get("t"), Some(&Value::from("u32:1")));
        assert_eq!(m.get("plain"), Some(&Value::from("a=b")));
        apply(&mut m, &["t".to_owned(), "a".to_owned()], &["general.alignment=64".to_owned()]).unwrap();
        assert!(m.get("t").is_none() && m.get("a").is_none());
        assert_eq!(m.get("general.alignment"), Some(&Value::U32(64)));
        m.set("a", vec![1u32]);
        m.set("general.architecture", "llama");
        for bad in ["gone", "general.architecture"] {
            assert!(apply(&mut m, &[bad.to_owned()], &[]).is_err(), "{bad}");
        }
        for bad in [
            "general.alignment=48",
            "general.alignment=u64:64",
            "general.alignment=4",
            "",
            "x",
            "=1",
            "n=-1",
            "a=3",
            "split.no=1",
            "b=u8:300",
        ] {
            assert!(edit(&mut m, bad).is_err(), "{bad}");
        }
    }
}
