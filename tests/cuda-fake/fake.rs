//! A CUDA driver and an NVRTC without a device, built and put into a command's environment.
//!
//! Files that use it also declare `cpp` (`kernels/tests/common/cpp.rs`). What the two fakes can be told is at the head of
//! `driver.cpp` and `nvrtc.cpp`.
#![allow(dead_code, reason = "each test file uses its part")]

use crate::cpp::Cpp;
use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

/// A folder with both libraries and all kernels.
pub struct Fake {
    folder: PathBuf,
}

impl Fake {
    /// `None`, and a line that says so, where there is no C++ compiler.
    pub fn get() -> Option<&'static Self> {
        static FAKE: LazyLock<Option<Fake>> = LazyLock::new(|| Some(Fake::build(&Cpp::get()?)));
        FAKE.as_ref()
    }

    fn build(cpp: &Cpp) -> Self {
        let driver = cpp.library("driver.cpp", include_str!("driver.cpp"));
        let nvrtc = cpp.library("nvrtc.cpp", include_str!("nvrtc.cpp"));
        let kernels = cpp.kernels();
        // Names of libraries hold hashes of what they were made of.
        let mut hash = DefaultHasher::new();
        (&driver, &nvrtc, &kernels).hash(&mut hash);
        let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let folder = home.join(format!("cuda-fake-{:016x}", hash.finish()));
        if folder.is_dir() {
            return Self { folder };
        }
        let part = home.join(format!("cuda-fake-{}", std::process::id()));
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(part.join("kernels")).expect("the folder can be made");
        let link =
            |to: &Path, name: &str| symlink(to, part.join(name)).expect("the folder can be written to");
        // Whatever name is looked for first, a driver that the machine has must not be found.
        for name in ["libcuda.so", "libcuda.so.1"] {
            link(&driver, name);
        }
        for name in ["libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so"] {
            link(&nvrtc, name);
        }
        for (file, library) in kernels {
            link(&library, &format!("kernels/{}.so", file.replace('/', "-")));
        }
        // Another test may have been faster.
        if fs::rename(&part, &folder).is_err() {
            let _ = fs::remove_dir_all(&part);
        }
        Self { folder }
    }

    /// Makes a command find the fakes, and no cache of anybody else's.
    pub fn apply(&self, command: &mut Command, cache: &Path) {
        command.env("LD_LIBRARY_PATH", &self.folder).env("TENSORMILL_CACHE", cache);
        command.env_remove("TENSORMILL_NVRTC");
    }

    /// A folder with the driver alone.
    pub fn without_nvrtc(&self) -> PathBuf {
        let folder = self.folder.join("driver-only");
        let made = fs::create_dir(&folder);
        assert!(made.is_ok() || made.is_err_and(|e| e.kind() == io::ErrorKind::AlreadyExists));
        for name in ["libcuda.so", "libcuda.so.1", "kernels"] {
            let _ = symlink(self.folder.join(name), folder.join(name));
        }
        folder
    }
}
