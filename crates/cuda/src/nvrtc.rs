//! NVRTC, CUDA's run-time compiler: found, loaded and called.
//!
//! Loaded by hand rather than through `cudarc`, whose loader can be given no path, finds one major version alone, and
//! panics where it finds none. Must not know devices or formats.
#![allow(unsafe_code)]

use crate::Error;
use libloading::Library;
use std::{
    env,
    ffi::{CStr, CString, c_char, c_int, c_void},
    path::{Path, PathBuf},
    ptr::{null, null_mut},
};

/// Environment variable that names NVRTC's library, or its folder.
pub const NVRTC_VARIABLE: &str = "TENSORMILL_NVRTC";

/// How device code is compiled: nothing is fused, nothing is approximate, subnormals live.
pub const OPTIONS: &[&str] =
    &["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"];

/// Major versions that are looked for where the driver's own is not there.
const MAJORS: [u32; 2] = [13, 12];

type Program = *mut c_void;

/// NVRTC's functions; see its documentation for what each does.
struct Functions {
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    count_archs: unsafe extern "C" fn(*mut c_int) -> c_int,
    archs: unsafe extern "C" fn(*mut c_int) -> c_int,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    log: Getter,
    cubin: Getter,
    ptx: Getter,
}

/// Two functions: one gives a length, the other as many bytes.
struct Getter(
    unsafe extern "C" fn(Program, *mut usize) -> c_int,
    unsafe extern "C" fn(Program, *mut c_char) -> c_int,
);

/// `NVRTC_ERROR_COMPILATION`
const COMPILATION: c_int = 6;

/// What to compile for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Machine code of one architecture, 90 for `sm_90`.
    Machine(u32),
    /// PTX, which the driver compiles for devices that are newer than the compiler.
    Portable(u32),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Machine(arch) => write!(f, "sm_{arch}"),
            Self::Portable(arch) => write!(f, "compute_{arch}"),
        }
    }
}

/// A translation unit.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Name for messages.
    pub file: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Name and text of what it includes.
    pub headers: &'a [(&'a str, &'a str)],
}

/// What came of it.
#[derive(Debug)]
pub struct Compiled {
    /// CUBIN or PTX.
    pub image: Vec<u8>,
    /// What the compiler said.
    pub log: String,
}

/// The compiler.
pub struct Nvrtc {
    functions: Functions,
    version: (i32, i32),
    archs: Vec<u32>,
    path: PathBuf,
}

impl Nvrtc {
    /// Finds and loads the compiler: the one that [`NVRTC_VARIABLE`] names, or else one that the system's loader finds,
    /// or one of an installed toolkit; of the driver's major version if there is one.
    ///
    /// # Errors
    /// [`Error::NoCompiler`].
    pub fn find(driver_major: u32) -> Result<Self, Error> {
        let names = names(driver_major);
        let places = match env::var_os(NVRTC_VARIABLE).map(PathBuf::from) {
            Some(place) if place.is_dir() => names.iter().map(|n| place.join(n)).collect(),
            Some(file) => vec![file],
            None => {
                let folders = folders();
                let plain = names.iter().map(PathBuf::from);
                plain.chain(folders.iter().flat_map(|f| names.iter().map(|n| f.join(n)))).collect()
            }
        };
        let found = places.iter().find_map(|p| Self::load(p));
        found.ok_or_else(|| Error::NoCompiler {
            tried: places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Loads the compiler from a file.
    pub fn load(path: &Path) -> Option<Self> {
        // SAFETY: loading runs the library's initialisers; NVRTC's do nothing but set itself up.
        let library = unsafe { Library::new(path) }.ok()?;
        let functions = Functions::of(&library)?;
        // Never unloaded: NVRTC keeps threads and handlers of its own.
        std::mem::forget(library);
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: the pointers are those of local variables.
        let told = unsafe {
            (functions.version)(&raw mut major, &raw mut minor) | (functions.count_archs)(&raw mut count)
        };
        let mut archs = vec![0; usize::try_from(count).ok()?];
        // SAFETY: as many numbers as the line above asked for.
        if told != 0 || unsafe { (functions.archs)(archs.as_mut_ptr()) } != 0 {
            return None;
        }
        let archs = archs.into_iter().map(c_int::unsigned_abs).collect();
        Some(Self { functions, version: (major, minor), archs, path: path.to_owned() })
    }

    /// Major and minor version.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// What was loaded: a path, or a name that the system's loader found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What to compile for, for a device of this architecture.
    ///
    /// # Errors
    /// [`Error::TooOld`].
    pub fn target(&self, arch: u32) -> Result<Target, Error> {
        if self.archs.contains(&arch) {
            return Ok(Target::Machine(arch));
        }
        match self.archs.iter().copied().filter(|a| *a < arch).max() {
            Some(older) => Ok(Target::Portable(older)),
            None => Err(Error::TooOld { arch, version: format!("{}.{}", self.version.0, self.version.1) }),
        }
    }

    /// Compiles, with [`OPTIONS`] and `more`.
    ///
    /// # Errors
    /// [`Error::Compile`] with the compiler's messages, [`Error::Compiler`].
    pub fn compile(&self, source: &Source<'_>, target: Target, more: &[&str]) -> Result<Compiled, Error> {
        let (text, file) = (c_string(source.text)?, c_string(source.file)?);
        let headers = source.headers.iter();
        let (names, texts): (Vec<CString>, Vec<CString>) = headers
            .map(|(name, text)| Ok((c_string(name)?, c_string(text)?)))
            .collect::<Result<Vec<_>, Error>>()?
            .into_iter()
            .unzip();
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
        let (name_pointers, text_pointers) = (pointers(&names), pointers(&texts));
        let mut program = Running { functions: &self.functions, raw: null_mut() };
        // SAFETY: all strings end with zero and outlive the program.
        let created = unsafe {
            (self.functions.create)(
                &raw mut program.raw,
                text.as_ptr(),
                file.as_ptr(),
                names.len() as c_int,
                if names.is_empty() { null() } else { text_pointers.as_ptr() },
                if names.is_empty() { null() } else { name_pointers.as_ptr() },
            )
        };
        self.functions.check("take a program", created)?;
        let arch = format!("--gpu-architecture={target}");
        let options: Vec<CString> = std::iter::once(arch.as_str())
            .chain(OPTIONS.iter().copied())
            .chain(more.iter().copied())
            .map(c_string)
            .collect::<Result<_, _>>()?;
        let options = (pointers(&options), options);
        // SAFETY: the program was created; the options end with zero and outlive the call.
        let code =
            unsafe { (self.functions.compile)(program.raw, options.0.len() as c_int, options.0.as_ptr()) };
        let log = program.get("give its log", &self.functions.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).trim_end_matches(['\0', '\n', ' ']).to_owned();
        if code == COMPILATION {
            return Err(Error::Compile { file: source.file.to_owned(), target: target.to_string(), log });
        }
        self.functions.check("compile", code)?;
        let image = match target {
            Target::Machine(_) => program.get("give its code", &self.functions.cubin)?,
            Target::Portable(_) => program.get("give its code", &self.functions.ptx)?,
        };
        Ok(Compiled { image, log })
    }
}

impl Functions {
    fn of(library: &Library) -> Option<Self> {
        // SAFETY: these names are NVRTC's, with these signatures since CUDA 11.2.
        unsafe {
            Some(Self {
                error_string: *library.get(b"nvrtcGetErrorString").ok()?,
                version: *library.get(b"nvrtcVersion").ok()?,
                count_archs: *library.get(b"nvrtcGetNumSupportedArchs").ok()?,
                archs: *library.get(b"nvrtcGetSupportedArchs").ok()?,
                create: *library.get(b"nvrtcCreateProgram").ok()?,
                destroy: *library.get(b"nvrtcDestroyProgram").ok()?,
                compile: *library.get(b"nvrtcCompileProgram").ok()?,
                log: Getter(
                    *library.get(b"nvrtcGetProgramLogSize").ok()?,
                    *library.get(b"nvrtcGetProgramLog").ok()?,
                ),
                cubin: Getter(*library.get(b"nvrtcGetCUBINSize").ok()?, *library.get(b"nvrtcGetCUBIN").ok()?),
                ptx: Getter(*library.get(b"nvrtcGetPTXSize").ok()?, *library.get(b"nvrtcGetPTX").ok()?),
            })
        }
    }

    fn check(&self, what: &'static str, code: c_int) -> Result<(), Error> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: NVRTC gives a text that stays, for codes that it does not know as well.
        let text = unsafe {
            let text = (self.error_string)(code);
            if text.is_null() { "unknown".into() } else { CStr::from_ptr(text).to_string_lossy() }
        };
        Err(Error::Compiler { what, text: text.into_owned() })
    }
}

/// A program, until it is dropped.
struct Running<'a> {
    functions: &'a Functions,
    raw: Program,
}

impl Running<'_> {
    fn get(&self, what: &'static str, getter: &Getter) -> Result<Vec<u8>, Error> {
        let mut len = 0;
        // SAFETY: the program was created, and the pointer is that of a local variable.
        self.functions.check(what, unsafe { getter.0(self.raw, &raw mut len) })?;
        let mut bytes = vec![0u8; len];
        // SAFETY: as many bytes as the call above asked for.
        self.functions.check(what, unsafe { getter.1(self.raw, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: created, and destroyed once.
            let _ = unsafe { (self.functions.destroy)(&raw mut self.raw) };
        }
    }
}

fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text)
        .map_err(|_| Error::Compiler { what: "take a text", text: "it holds a zero".to_owned() })
}

/// Names of the library, those of the driver's version first: what a newer compiler makes, an older driver may refuse.
fn names(driver_major: u32) -> Vec<String> {
    let others = MAJORS.into_iter().filter(|m| *m != driver_major);
    let majors = std::iter::once(driver_major).chain(others);
    if cfg!(windows) {
        majors.map(|m| format!("nvrtc64_{m}0_0.dll")).collect()
    } else {
        majors.map(|m| format!("libnvrtc.so.{m}")).chain(["libnvrtc.so".to_owned()]).collect()
    }
}

/// Where toolkits are, and beside the program.
fn folders() -> Vec<PathBuf> {
    let roots = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    let inside = |root: PathBuf| ["lib64", "lib", "bin"].map(|f| root.join(f));
    let program = env::current_exe().ok().and_then(|p| Some(p.parent()?.to_owned()));
    roots.chain(["/usr/local/cuda".into()]).flat_map(inside).chain(program).filter(|f| f.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_version_is_looked_for_first() {
        if cfg!(unix) {
            assert_eq!(names(12), ["libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so"]);
            assert_eq!(names(11), ["libnvrtc.so.11", "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]);
        }
    }

    #[test]
    fn what_is_no_compiler_is_not_loaded() {
        assert!(Nvrtc::load(Path::new("/no/such/library.so")).is_none());
        // A library that is there, and is another one.
        if cfg!(target_os = "linux") {
            assert!(Nvrtc::load(Path::new("libc.so.6")).is_none());
        }
    }
}
