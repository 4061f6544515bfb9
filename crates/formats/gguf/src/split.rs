//! Split sets: one model in files `NAME-00001-of-00003.gguf`.
//!
//! Naming and keys follow `gguf-split` and `gguf-py`: file numbers count from one, `split.no` counts from zero; all
//! metadata lies in the first file. Opening the files and joining their readers is the caller's work; what
//! makes a set complete is decided here.

use tensormill_model::{Error, Index, Metadata, Result};

/// Number of this file in its set, from zero (u16).
pub(crate) const NO: &str = "split.no";
/// Number of files (u16).
pub(crate) const COUNT: &str = "split.count";
/// Number of tensors in all files (i32).
pub(crate) const TENSORS: &str = "split.tensors.count";

/// Keys that describe a file's part in a set rather than the model.
pub const SPLIT_KEYS: [&str; 3] = [NO, COUNT, TENSORS];

/// The name of one file of a set, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SplitName {
    /// What comes before `-00001-of-00003.gguf`, folders included.
    pub stem: String,
    /// Number of the file, from one.
    pub no: u32,
    /// Number of files.
    pub count: u32,
}

impl SplitName {
    /// Takes a file name or path apart; `None` when it does not name a part of a set.
    pub fn parse(name: &str) -> Option<Self> {
        let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (stem, no) = rest.rsplit_once('-')?;
        let number =
            |s: &str| (s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse().ok());
        let (no, count) = (number(no)??, number(count)??);
        (1 <= no && no <= count).then(|| Self { stem: stem.to_owned(), no, count })
    }

    /// Names of all files of the set, in order.
    pub fn all(&self) -> Vec<String> {
        (1..=self.count).map(|no| file_name(&self.stem, no as usize, self.count as usize)).collect()
    }

    /// Checks that every file of the set is there, by asking `exists` for each name.
    ///
    /// # Errors
    /// `Mismatch` naming the missing files.
    pub fn check_complete(&self, exists: impl Fn(&str) -> bool) -> Result<()> {
        let all = self.all();
        let missing: Vec<&str> = all.iter().map(String::as_str).filter(|n| !exists(n)).collect();
        let Some(first) = missing.first() else { return Ok(()) };
        let more = if missing.len() > 1 { format!(" and {} more", missing.len() - 1) } else { String::new() };
        Err(Error::mismatch(format!(
            "this file of a set of {} is missing{more}; all of them are needed",
            self.count
        ))
        .file(first)
        .hint("download the missing files into the same folder"))
    }
}

/// Names of all files of the set that `name` belongs to, in order; `None` when it does not name a part of a set.
pub fn split_names(name: &str) -> Option<Vec<String>> {
    SplitName::parse(name).map(|s| s.all())
}

/// Name of file number `no` (from one).
pub(crate) fn file_name(stem: &str, no: usize, count: usize) -> String {
    format!("{stem}-{no:05}-of-{count:05}.gguf")
}

/// Metadata of a whole set from its files' names and indexes in order: the first file's, without `split.*`.
/// Metadata that other files may carry is ignored, as llama.cpp does.
///
/// # Errors
/// `Mismatch` naming the file whose `split.*` keys contradict its name or the other files.
pub fn join_metadata(parts: &[(&str, &Index)]) -> Result<Metadata> {
    let tensors = parts.iter().map(|(_, i)| i.tensors.len() as u64).sum();
    for (no, (name, index)) in parts.iter().enumerate() {
        for (key, want) in [(NO, no as u64), (COUNT, parts.len() as u64), (TENSORS, tensors)] {
            let got = index.metadata.u64(key);
            if got != Some(want) {
                let got = got.map_or_else(|| "absent".to_owned(), |v| v.to_string());
                return Err(Error::mismatch(format!("{key} is {got}, but the files at hand make it {want}"))
                    .file(name)
                    .hint("the files do not belong to one set: download all of them again"));
            }
        }
    }
    let mut metadata = parts.first().map(|(_, i)| i.metadata.clone()).unwrap_or_default();
    for key in SPLIT_KEYS {
        metadata.remove(key);
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::ErrorKind;

    #[test]
    fn names_come_apart_and_together() {
        let s = SplitName::parse("dir/a-b-00002-of-00003.gguf").unwrap();
        assert_eq!((s.stem.as_str(), s.no, s.count), ("dir/a-b", 2, 3));
        assert_eq!(
            split_names("x-00001-of-00002.gguf").unwrap(),
            ["x-00001-of-00002.gguf", "x-00002-of-00002.gguf"]
        );
        for no in [
            "x.gguf",
            "x-1-of-2.gguf",
            "x-00003-of-00002.gguf",
            "x-00000-of-00002.gguf",
            "x-00001-of-00002.bin",
        ] {
            assert_eq!(SplitName::parse(no), None, "{no}");
        }
        let e = s.check_complete(|n| n.contains("00002-of")).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Mismatch);
        assert_eq!(e.file_name(), Some("dir/a-b-00001-of-00003.gguf"));
        assert!(e.message().contains("and 1 more"), "{e}");
        s.check_complete(|_| true).unwrap();
    }

    #[test]
    fn sets_must_agree_with_themselves() {
        let part = |no: u16, count: u16, total: i32| {
            let mut m = Metadata::new();
            m.set("general.architecture", "llama");
            m.set(NO, no);
            m.set(COUNT, count);
            m.set(TENSORS, total);
            Index { metadata: m, ..Index::default() }
        };
        let (a, b) = (part(0, 2, 0), part(1, 2, 0));
        let m = join_metadata(&[("a", &a), ("b", &b)]).unwrap();
        assert_eq!(m.iter().map(|(k, _)| k).collect::<Vec<_>>(), ["general.architecture"]);
        for (x, y) in
            [(part(0, 2, 0), part(0, 2, 0)), (part(0, 3, 0), part(1, 3, 0)), (part(0, 2, 0), part(1, 2, 9))]
        {
            let e = join_metadata(&[("a", &x), ("b", &y)]).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Mismatch);
        }
    }
}
