//! Kernels alone, by the device's own clock, beside the bandwidth of a copy inside the device.
//!
//! Goes to the driver directly, past seats and streams of a conversion: what is measured is the device code.
#![allow(unsafe_code)]

use crate::{codes, inputs};
use clap::Args;
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use cudarc::driver::{
    DriverError, result,
    sys::{self, CUevent_flags_enum},
};
use std::ffi::c_void;
use tensormill_cuda::{DeviceInfo, Nvrtc, Source};
use tensormill_kernels::{
    BlockCodec, codec,
    cuda::{DeviceCode, Job, ROW_MEANS, RowMeans, THREADS, headers},
};
use tensormill_tensor::{DType, encode_plain};

/// `bench`
#[derive(Args)]
pub struct Options {
    /// Device
    #[arg(long, default_value_t = 0)]
    device: u32,
    /// Formats; all by default
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// Weights, as MiB of f32
    #[arg(long, default_value_t = 256)]
    mib: u64,
    /// Columns of a row
    #[arg(long, default_value_t = 4096)]
    columns: u64,
    /// Runs of which the fastest counts
    #[arg(long, default_value_t = 5)]
    runs: u32,
}

/// GB/s of f32 that each kernel is meant to take in, on a device whose copies make 4 TB/s or so; the first two share the
/// copy's bandwidth instead.
fn goal(name: &str) -> Option<f64> {
    match name {
        "Q8_0" | "Q4_0" => None,
        n if n.starts_with("IQ4") || n.ends_with("_K") => Some(200.0),
        n if n.starts_with("IQ") => Some(30.0),
        _ => Some(0.0),
    }
}

/// The device's clock. The end of the process gives back what is taken here.
struct Bench {
    stream: sys::CUstream,
    start: sys::CUevent,
    end: sys::CUevent,
}

fn told<T>(what: &str, result: Result<T, DriverError>) -> Result<T, String> {
    result.map_err(|e| format!("the device failed to {what}: {e:?}"))
}

/// Measures and prints.
pub fn run(o: &Options) -> Result<(), String> {
    // This also loads the driver, without which the calls below would panic.
    let info = DeviceInfo::of(o.device).map_err(|e| format!("{e}\n  hint: {}", e.hint()))?;
    let nvrtc = Nvrtc::find(info.driver.0).map_err(|e| format!("{e}\n  hint: {}", e.hint()))?;
    let target = nvrtc.target(info.capability.0 * 10 + info.capability.1).map_err(|e| e.to_string())?;
    let bench = Bench::new(o.device)?;
    let rows = (o.mib << 20) / 4 / o.columns;
    let weights = rows * o.columns;
    let bytes = weights as usize * 4;

    let x: Vec<f32> = {
        // Rows repeat after a while: generating them takes longer than everything else.
        let distinct: Vec<f32> = (0..64).flat_map(|r| inputs::row("gauss", r, o.columns as usize)).collect();
        distinct.iter().copied().cycle().take(weights as usize).collect()
    };
    let importance = inputs::importance("spread", 1, o.columns as usize).ok_or("no importance")?;
    let importance: Vec<u8> = importance.iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut f32_bytes = vec![0; bytes];
    let mut bf16_bytes = vec![0; bytes / 2];
    let known =
        encode_plain(DType::F32, &x, &mut f32_bytes) && encode_plain(DType::BF16, &x, &mut bf16_bytes);
    debug_assert!(known);
    let (full, half) = (memory_of(&f32_bytes)?, memory_of(&bf16_bytes)?);
    let out = memory(bytes)?;
    let (importance, means, flags) = (memory_of(&importance)?, memory(rows as usize * 4)?, memory(16)?);

    let copied = bench.fastest(o.runs, || {
        // SAFETY: both buffers are as long.
        told("copy", unsafe { result::memcpy_dtod_async(out, full, bytes, bench.stream) })
    })?;
    // A copy reads and writes.
    let copy = 2.0 * bytes as f64 / copied;
    println!(
        "{}, compute capability {}.{}, driver for CUDA {}.{}, NVRTC {}.{}; copies inside the device {:.0} GB/s (read and written)\n",
        info.name,
        info.capability.0,
        info.capability.1,
        info.driver.0,
        info.driver.1,
        nvrtc.version().0,
        nvrtc.version().1,
        copy / 1e9
    );
    let mut t = Table::new();
    t.load_style(ASCII_MARKDOWN);
    t.set_header([
        "type",
        "importance",
        "GB/s of f32",
        "GB/s of f32, input bf16",
        "share of copy bandwidth",
        "goal",
    ]);
    let load = |file: &str, text: &str, kernel: &str| -> Result<sys::CUfunction, String> {
        let source = Source { file, text, headers: headers() };
        let mut image = nvrtc.compile(&source, target, &[]).map_err(|e| e.to_string())?.image;
        image.push(0);
        // SAFETY: the image came from the compiler.
        let module = told("load a kernel", unsafe { result::module::load_data(image.as_ptr().cast()) })?;
        let name = std::ffi::CString::new(kernel).map_err(|e| e.to_string())?;
        // SAFETY: the module stays loaded until the process ends.
        told("find a kernel", unsafe { result::module::get_function(module, name) })
    };
    let row_means = load(ROW_MEANS.file, ROW_MEANS.text, ROW_MEANS.kernel)?;
    for code in codes(&o.types)? {
        let kernel = load(code.file, code.text, code.kernel)?;
        let tables = code.tables.map(|make| memory_of(&make())).transpose()?;
        let size = u64::from(code.block.bytes);
        let blocks = weights / u64::from(code.block.weights);
        let needs = codec(code.block).is_some_and(BlockCodec::needs_importance);
        for with in [false, true] {
            if (with && !code.uses_importance) || (!with && needs) {
                continue;
            }
            let seconds = |input: u32, x: u64| {
                let job = Job {
                    x,
                    importance: if with { importance } else { 0 },
                    row_means: means,
                    out,
                    bad: flags,
                    odd: flags + 8,
                    tables: tables.unwrap_or(0),
                    row_len: o.columns,
                    blocks,
                    input,
                    reserved: 0,
                };
                bench.fastest(o.runs, || {
                    if needs_means(code, with) {
                        let job = Job { out: means, blocks: rows, ..job };
                        bench.launch(row_means, 1, &job)?;
                    }
                    bench.launch(kernel, code.lanes, &job)
                })
            };
            let (of_full, of_half) = (seconds(0, full)?, seconds(2, half)?);
            let moved = bytes as f64 + (blocks * size) as f64;
            let rate = bytes as f64 / of_full / 1e9;
            let share = moved / of_full / copy * 100.0;
            let verdict = match goal(code.block.name) {
                None => format!("80 % {}", if share >= 80.0 { "met" } else { "MISSED" }),
                Some(0.0) => "-".to_owned(),
                Some(goal) => format!("{goal} GB/s {}", if rate >= goal { "met" } else { "MISSED" }),
            };
            t.add_row([
                code.block.name.to_owned(),
                if with { "yes" } else { "no" }.to_owned(),
                format!("{rate:.0}"),
                format!("{:.0}", bytes as f64 / of_half / 1e9),
                format!("{share:.0} %"),
                verdict,
            ]);
        }
    }
    println!("{} MiB of f32 in rows of {}, fastest of {} runs:\n\n{t}", o.mib, o.columns, o.runs);
    Ok(())
}

fn needs_means(code: &DeviceCode, importance: bool) -> bool {
    match code.row_means {
        RowMeans::Unused => false,
        RowMeans::WithImportance => importance,
        RowMeans::Always => true,
    }
}

/// Memory that is given back when the process ends.
fn memory(bytes: usize) -> Result<u64, String> {
    // SAFETY: an allocation.
    told("find memory", unsafe { result::malloc_sync(bytes.max(1)) })
}

fn memory_of(bytes: &[u8]) -> Result<u64, String> {
    let memory = memory(bytes.len())?;
    // SAFETY: as long as the bytes.
    told("copy", unsafe { result::memcpy_htod_sync(memory, bytes) })?;
    Ok(memory)
}

impl Bench {
    fn new(ordinal: u32) -> Result<Self, String> {
        let device = told("open", result::device::get(ordinal as i32))?;
        // SAFETY: the handle came from the driver.
        let context = told("make a context", unsafe { result::primary_ctx::retain(device) })?;
        // SAFETY: the context was made just now.
        told("change threads", unsafe { result::ctx::set_current(context) })?;
        let stream = told("make a stream", result::stream::create(result::stream::StreamKind::NonBlocking))?;
        let event = || told("make an event", result::event::create(CUevent_flags_enum::CU_EVENT_DEFAULT));
        Ok(Self { stream, start: event()?, end: event()? })
    }

    fn launch(&self, kernel: sys::CUfunction, lanes: u32, job: &Job) -> Result<(), String> {
        let blocks = (job.blocks * u64::from(lanes)).div_ceil(u64::from(THREADS)) as u32;
        let mut parameters = [std::ptr::from_ref(job).cast_mut().cast::<c_void>()];
        // SAFETY: kernels take a `Job`, which points into buffers that are never freed.
        let launched = unsafe {
            result::launch_kernel(kernel, (blocks, 1, 1), (THREADS, 1, 1), 0, self.stream, &mut parameters)
        };
        told("start a kernel", launched)
    }

    /// Seconds of the fastest of several runs, after one that does not count.
    fn fastest(&self, runs: u32, f: impl Fn() -> Result<(), String>) -> Result<f64, String> {
        let mut fastest = f64::INFINITY;
        for run in 0..=runs {
            // SAFETY: events and stream live as long as `self`.
            unsafe {
                told("take the time", result::event::record(self.start, self.stream))?;
                f()?;
                told("take the time", result::event::record(self.end, self.stream))?;
                told("run a kernel", result::stream::synchronize(self.stream))?;
                let took = told("take the time", result::event::elapsed(self.start, self.end))?;
                if run > 0 {
                    fastest = fastest.min(f64::from(took) / 1e3);
                }
            }
        }
        Ok(fastest)
    }
}
