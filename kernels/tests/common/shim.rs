//! Device code as plain C++, called: one shared library per `cuda.cu`.

use crate::cpp::Cpp;
use libloading::Library;
use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;
use tensormill_kernels::cuda::{DeviceCode, Job, ROW_MEANS, RowMeans, device_codes};
use tensormill_tensor::{DType, decode_plain, encode_plain};

/// First to last, last to first, scattered (`struct Team` of `base.cuh`).
pub const ORDERS: [u32; 3] = [0, 1, 7];

/// What a kernel is as C++ (`TM_KERNEL` of `base.cuh`).
type Kernel = unsafe extern "C" fn(*const Job, u32);

/// Rows in one of the types that kernels read.
pub struct Weights {
    /// What kernels see, as `f32`.
    pub values: Vec<f32>,
    input: DType,
    halves: Vec<u16>,
}

impl Weights {
    /// `x` rounded to `input`, and no further than its largest number.
    pub fn rounded(x: &[f32], input: DType) -> Self {
        let max = match input {
            DType::F16 => 65504.0,
            DType::BF16 => f32::from_bits(0x7f7f_0000),
            _ => f32::MAX,
        };
        let mut weights = Self { values: vec![0.0; x.len()], input, halves: vec![0; x.len()] };
        for (i, v) in x.iter().enumerate() {
            weights.put(i, v.clamp(-max, max));
        }
        weights
    }

    /// Makes weight `i` a value of the type, or what is no number.
    pub fn put(&mut self, i: usize, value: f32) {
        let mut bytes = [0; 4];
        let bytes = if self.input == DType::F32 { &mut bytes[..] } else { &mut bytes[..2] };
        assert!(encode_plain(self.input, &[value], bytes), "kernels read f32, f16 and bf16");
        assert!(decode_plain(self.input, bytes, &mut self.values[i..=i]));
        self.halves[i] = u16::from_le_bytes([bytes[0], bytes[1]]);
    }

    fn job(&self, row_len: usize) -> Job {
        let (x, input) = match self.input {
            DType::F32 => (self.values.as_ptr() as u64, 0),
            DType::F16 => (self.halves.as_ptr() as u64, 1),
            _ => (self.halves.as_ptr() as u64, 2),
        };
        Job { x, input, row_len: row_len as u64, ..Job::default() }
    }
}

/// What a kernel left.
pub struct Encoded {
    pub blocks: Vec<u8>,
    pub bad: u64,
    pub odd: bool,
}

/// All kernels, compiled and loaded.
pub struct Shim {
    libraries: HashMap<&'static str, Library>,
    /// By format; as 16 bytes each, because devices' allocations are aligned too.
    tables: HashMap<&'static str, Vec<u128>>,
}

impl Shim {
    /// `None`, and a line that says so, where there is no C++ compiler.
    pub fn get() -> Option<&'static Self> {
        static SHIM: LazyLock<Option<Shim>> = LazyLock::new(Shim::build);
        SHIM.as_ref()
    }

    fn build() -> Option<Self> {
        let kernels = Cpp::get()?.kernels();
        let libraries = kernels.iter().map(|(file, library)| (*file, load(library))).collect();
        let tables =
            device_codes().iter().filter_map(|c| Some((c.block.name, aligned(&c.tables?())))).collect();
        Some(Self { libraries, tables })
    }

    /// Encodes rows of `row_len` weights. The job is as bare as the format's registration allows.
    pub fn encode(
        &self,
        code: &DeviceCode,
        weights: &Weights,
        row_len: usize,
        importance: Option<&[f32]>,
        order: u32,
    ) -> Encoded {
        const GUARD: [u8; 64] = [0xc3; 64];
        let importance = importance.filter(|_| code.uses_importance);
        let means = match code.row_means {
            RowMeans::Unused => None,
            RowMeans::WithImportance if importance.is_none() => None,
            RowMeans::WithImportance | RowMeans::Always => Some(self.row_means(weights, row_len, order)),
        };
        let count = weights.values.len() as u64;
        let bytes = code.block.row_bytes(count).expect("whole blocks") as usize;
        // Every order finds other bytes there, so what is not written shows.
        let mut out = vec![0xa5 ^ order as u8; bytes];
        out.extend(GUARD);
        let (mut bad, mut odd) = (u64::MAX, 0u32);
        let job = Job {
            importance: importance.map_or(0, |w| w.as_ptr() as u64),
            row_means: means.as_ref().map_or(0, |m| m.as_ptr() as u64),
            out: out.as_mut_ptr() as u64,
            bad: &raw mut bad as u64,
            odd: &raw mut odd as u64,
            tables: self.tables.get(code.block.name).map_or(0, |t| t.as_ptr() as u64),
            blocks: count / u64::from(code.block.weights),
            ..weights.job(row_len)
        };
        self.call(code.file, code.kernel, &job, order);
        assert_eq!(out.split_off(bytes), GUARD, "{} writes behind its blocks", code.block.name);
        Encoded { blocks: out, bad, odd: odd != 0 }
    }

    /// The mean square of each row.
    pub fn row_means(&self, weights: &Weights, row_len: usize, order: u32) -> Vec<f32> {
        let mut means = vec![f32::NAN; weights.values.len() / row_len];
        let job = Job { out: means.as_mut_ptr() as u64, blocks: means.len() as u64, ..weights.job(row_len) };
        self.call(ROW_MEANS.file, ROW_MEANS.kernel, &job, order);
        means
    }

    #[allow(unsafe_code)]
    fn call(&self, file: &str, kernel: &str, job: &Job, order: u32) {
        // SAFETY: the signature is that of `TM_KERNEL`; the callers above give buffers of the lengths that the job
        // names, alive until the call returns.
        unsafe {
            let kernel: libloading::Symbol<Kernel> =
                self.libraries[file].get(kernel.as_bytes()).expect("the file has its kernel");
            kernel(job, order);
        }
    }
}

#[allow(unsafe_code)]
fn load(path: &Path) -> Library {
    // SAFETY: what was compiled just now has no initialisers: its constants are constants.
    unsafe { Library::new(path) }.expect("what was compiled can be loaded")
}

fn aligned(bytes: &[u8]) -> Vec<u128> {
    let word = |chunk: &[u8]| {
        let mut word = [0; 16];
        word[..chunk.len()].copy_from_slice(chunk);
        u128::from_ne_bytes(word)
    };
    bytes.chunks(16).map(word).collect()
}
