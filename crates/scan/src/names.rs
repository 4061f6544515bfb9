//! What the names that pickles import stand for: a table of facts (`data/pickle-names.txt`), and how it is looked up.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

/// What unpickling a name gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Plain data.
    Harmless,
    /// Nobody knows.
    Unknown,
    /// Code, files, network, or what fetches such.
    Dangerous,
}

#[derive(Default)]
struct Table {
    harmless: HashMap<&'static str, HashSet<&'static str>>,
    dangerous: HashMap<&'static str, HashSet<&'static str>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table::default();
    let lines = include_str!("../data/pickle-names.txt").lines();
    for line in lines.filter(|l| !l.starts_with('#')) {
        let mut words = line.split_ascii_whitespace();
        let to = match words.next() {
            Some("harmless") => &mut table.harmless,
            Some("dangerous") => &mut table.dangerous,
            _ => continue,
        };
        if let Some(module) = words.next() {
            to.entry(module).or_default().extend(words);
        }
    }
    table
});

/// What importing `name` from `module` gives.
pub(crate) fn classify(module: &str, name: &str) -> Class {
    /// Real names are shorter. Longer ones hide something: paths of attributes may lead in circles.
    const MOST: usize = 1000;
    if module.len() + name.len() > MOST {
        return Class::Dangerous;
    }
    let t = &*TABLE;
    // From protocol 4 on a name may be a path of attributes, which leads anywhere.
    let listed = |m: &str, n: &str| {
        t.harmless.get(m).is_some_and(|names| names.contains(n) || (names.contains("*") && !n.contains('.')))
    };
    let script = module.starts_with("__torch__.");
    if listed(module, name) || script {
        return Class::Harmless;
    }
    let full = format!("{module}.{name}");
    // `torch` with `serialization.os.system`: wherever the path may pass through a listed module.
    let inner =
        full.match_indices('.').map(|(i, _)| i + 1).filter(|i| *i > module.len() && name.contains('.'));
    let paths = std::iter::once(0).chain(inner).map(|i| &full[i..]);
    if paths.into_iter().any(dangerous) { Class::Dangerous } else { Class::Unknown }
}

/// Whether a path starts with a listed module that is dangerous as a whole, or names what is dangerous in one.
fn dangerous(path: &str) -> bool {
    let ends = path.match_indices('.').map(|(i, _)| i).chain([path.len()]);
    ends.into_iter().any(|end| {
        let Some(names) = TABLE.dangerous.get(&path[..end]) else { return false };
        let rest = path[end..].strip_prefix('.').unwrap_or("");
        let first = rest.split('.').next().unwrap_or("");
        names.contains("*") || names.contains(first)
    })
}

/// Whether importing a module is dangerous whatever is taken from it.
pub(crate) fn is_dangerous_module(module: &str) -> bool {
    dangerous(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for (module, name, class) in [
            ("collections", "OrderedDict", Class::Harmless),
            ("torch._utils", "_rebuild_tensor_v2", Class::Harmless),
            ("numpy.core.multiarray", "_reconstruct", Class::Harmless),
            ("numpy.dtypes", "Float32DType", Class::Harmless),
            ("__torch__.torch.nn.modules.linear", "Linear", Class::Harmless),
            ("os", "system", Class::Dangerous),
            ("posix", "system", Class::Dangerous),
            ("os.path", "join", Class::Dangerous),
            ("builtins", "eval", Class::Dangerous),
            ("builtins", "getattr", Class::Dangerous),
            ("builtins", "set", Class::Harmless),
            ("builtins", "set.__class__", Class::Unknown),
            ("builtins", "print", Class::Unknown),
            ("__builtin__", "apply", Class::Dangerous),
            ("torch", "serialization.os.system", Class::Dangerous),
            ("torch", "load", Class::Dangerous),
            ("torch.serialization", "load", Class::Dangerous),
            ("torch.jit.unsupported_tensor_ops", "execWrapper", Class::Dangerous),
            ("numpy.testing._private.utils", "runstring", Class::Dangerous),
            ("numpy.dtypes", "sys.modules", Class::Dangerous),
            ("collections", "OrderedDict.__globals__", Class::Unknown),
            ("my.os", "system", Class::Unknown),
            ("ossaudio", "x", Class::Unknown),
            ("argparse", "Namespace", Class::Harmless),
            ("transformers.training_args", "TrainingArguments", Class::Unknown),
            ("", "", Class::Unknown),
            ("?", "?", Class::Unknown),
        ] {
            assert_eq!(classify(module, name), class, "{module} {name}");
        }
        // Time does not grow with a name's length.
        let long = "torch.".repeat(200_000) + "os.system";
        assert_eq!(classify("torch", &long), Class::Dangerous);
        assert!(is_dangerous_module("subprocess") && is_dangerous_module("os.path"));
        assert!(!is_dangerous_module("builtins") && !is_dangerous_module("keras.layers"));
    }
}
