//! What a name says about an output: which format it is in, and whether it is a file or the folder of a checkpoint.

use crate::convert::Target;
use tensormill_model::{Error, Format, FormatInfo, Result};
use tensormill_tensor::DType;

/// What an output's name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    /// The file itself.
    File,
    /// A folder that gets configuration and tokenizer too; the weights' file in it is called like this.
    Folder(&'static str),
}

/// Formats that conversions can end in.
pub(crate) fn writable() -> impl Iterator<Item = &'static dyn Format> {
    crate::formats::FORMATS.iter().copied().filter(|f| f.info().can_write)
}

fn extension(name: &str) -> String {
    name.rsplit_once('.').map_or("", |(_, e)| e).to_ascii_lowercase()
}

/// The format that a file's name asks for.
///
/// # Errors
/// `Unsupported` for a name that asks for none.
pub(crate) fn format_of(file_name: &str) -> Result<&'static dyn Format> {
    let extension = extension(file_name);
    writable().find(|f| f.info().extensions.contains(&extension.as_str())).ok_or_else(|| {
        let known: Vec<&str> = writable().flat_map(|f| f.info().extensions).copied().collect();
        Error::unsupported(format!("the name {file_name:?} does not say which format to write"))
            .hint(format!("end it in .{}, or name the format with --to", known.join(", .")))
    })
}

/// A format to write, by its name.
///
/// # Errors
/// `Usage` when there is none.
pub(crate) fn format_called(id: &str) -> Result<&'static dyn Format> {
    writable().find(|f| f.info().id == id).ok_or_else(|| {
        let known: Vec<&str> = writable().map(|f| f.info().id).collect();
        Error::usage(format!("there is no format {id:?} to write"))
            .hint(format!("known: {}", known.join(", ")))
    })
}

/// What `name` stands for in a format that is asked for by name; `exists` says that there is a folder of this name.
///
/// # Errors
/// `Usage` when the name ends like a file of another format, and for folders of a format that has none.
pub(crate) fn named(name: &str, info: &FormatInfo, exists: bool) -> Result<Named> {
    let extension = extension(name);
    let is_of = |i: &FormatInfo| i.extensions.contains(&extension.as_str());
    if !exists {
        if is_of(info) {
            return Ok(Named::File);
        }
        if writable().any(|f| is_of(f.info())) {
            return Err(Error::usage(format!("the output's name does not end like a {} file", info.id))
                .hint(format!("end it in .{}, or ask for the format that it names", info.extensions[0])));
        }
    }
    info.folder_name.map(Named::Folder).ok_or_else(|| {
        Error::usage(format!("{} outputs are files, not folders", info.id))
            .hint(format!("end the output's name in .{}", info.extensions[0]))
    })
}

/// The file of a checkpoint's folder for weights of a type: graphs of `f16` are where transformers.js looks for them.
pub(crate) fn of_type(file: &str, target: &Target) -> String {
    match file.strip_suffix("onnx/model.onnx") {
        Some(folder) if *target == Target::Dtype(DType::F16) => format!("{folder}onnx/model_fp16.onnx"),
        _ => file.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{GGUF, SAFETENSORS};

    #[test]
    fn names_are_of_files_or_of_folders() {
        let (st, gguf) = (SAFETENSORS.info(), GGUF.info());
        assert_eq!(named("a.safetensors", st, false).unwrap(), Named::File);
        assert_eq!(named("a.safetensors", st, true).unwrap(), Named::Folder("model.safetensors"));
        assert_eq!(named("Llama-3.2-1B", st, false).unwrap(), Named::Folder("model.safetensors"));
        assert!(named("a.gguf", st, false).is_err());
        assert!(named("a", gguf, false).is_err());
        assert!(format_called("gguf").is_ok() && format_called("tar").is_err());
        let f16 = Target::Dtype(DType::F16);
        assert_eq!(of_type("m/onnx/model.onnx", &f16), "m/onnx/model_fp16.onnx");
        assert_eq!(of_type("onnx/model.onnx", &Target::Lossless), "onnx/model.onnx");
        assert_eq!(of_type("model.safetensors", &f16), "model.safetensors");
        assert!(format_of("a.PT").is_ok() && format_of("a").is_err());
    }
}
