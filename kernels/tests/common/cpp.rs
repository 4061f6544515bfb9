//! The machine's C++ compiler, for tests: device code as shared libraries, made once for all tests that want them.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    thread,
};
use tensormill_kernels::cuda::{ROW_MEANS, device_codes, headers};

const FLAGS: [&str; 6] = ["-std=c++17", "-O2", "-ffp-contract=off", "-fno-fast-math", "-shared", "-fPIC"];

/// A compiler, and a folder with the headers of device code.
pub struct Cpp {
    compiler: PathBuf,
    folder: PathBuf,
}

impl Cpp {
    /// `CXX`, or the first of the usual names that runs. `None`, and a line that says so, where there is none.
    pub fn get() -> Option<Self> {
        let chosen = std::env::var_os("CXX").map(PathBuf::from);
        let names = ["c++", "g++", "clang++"].map(PathBuf::from);
        let runs = |c: &PathBuf| Command::new(c).arg("--version").output().is_ok_and(|o| o.status.success());
        let Some(compiler) = chosen.into_iter().chain(names).find(runs) else {
            println!("skipped: no C++ compiler");
            return None;
        };
        // What is shipped is compiled, not what lies in the source tree.
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cuda_source");
        for (name, text) in headers() {
            write(&folder.join(name), text);
        }
        Some(Self { compiler, folder })
    }

    /// Every file of device code with its library.
    pub fn kernels(&self) -> Vec<(&'static str, PathBuf)> {
        let mut texts = vec![(ROW_MEANS.file, ROW_MEANS.text)];
        for code in device_codes() {
            match texts.iter().find(|t| t.0 == code.file) {
                Some((_, text)) => assert_eq!(*text, code.text, "{} is one file", code.file),
                None => texts.push((code.file, code.text)),
            }
        }
        thread::scope(|scope| {
            let make = |(file, text)| (file, self.library(file, text));
            let threads: Vec<_> = texts.into_iter().map(|t| scope.spawn(move || make(t))).collect();
            threads.into_iter().map(|t| t.join().expect("the compiler runs")).collect()
        })
    }

    /// Makes a shared library of one translation unit, or finds the one that was made of the same text; gives its path.
    pub fn library(&self, name: &str, text: &str) -> PathBuf {
        let mut hash = DefaultHasher::new();
        (&self.compiler, text, headers(), FLAGS).hash(&mut hash);
        let library = self.folder.join(format!("{name}-{:016x}.so", hash.finish()));
        if library.is_file() {
            return library;
        }
        let source = self.folder.join(name);
        write(&source, text);
        // Another test may be making the same one.
        let part = library.with_extension(format!("part-{}", std::process::id()));
        let made = Command::new(&self.compiler)
            .args(FLAGS)
            .arg("-I")
            .arg(&self.folder)
            .args(["-x", "c++"])
            .arg(&source)
            .arg("-o")
            .arg(&part)
            .arg("-ldl")
            .output()
            .expect("the compiler runs");
        assert!(made.status.success(), "{}:\n{}", source.display(), String::from_utf8_lossy(&made.stderr));
        fs::rename(&part, &library).expect("the folder can be written to");
        library
    }
}

/// Writes a text, unless it stands there already: a compiler may be reading it.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a file in a folder")).expect("the folder can be made");
    fs::write(path, text).expect("the folder can be written to");
}
