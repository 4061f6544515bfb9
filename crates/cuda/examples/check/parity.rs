//! Blocks of the device against blocks of the processor, byte by byte, through the same calls as a conversion's.
//!
//! Every piece of work is a tile of one distribution in one type of input under one importance, for all formats at once.
//! Several are at work at a time, as in a conversion.

use crate::{codes, inputs};
use clap::Args;
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};
use tensormill_cuda::{Cache, Device, DeviceInfo, Options as Opening, Seats};
use tensormill_kernels::{BlockCodec, codec, cuda::DeviceCode};
use tensormill_model::{Form, Op, Task};
use tensormill_tensor::{BlockFormat, DType, Encoding, Shape, encode_plain};
use tensormill_transforms::{QuantizeOp, TensorImportance};

/// `parity`
#[derive(Args)]
pub struct Options {
    /// Device
    #[arg(long, default_value_t = 0)]
    device: u32,
    /// Least weights per format, as MB of f32
    #[arg(long, default_value_t = 256)]
    mb: usize,
    /// Formats; all by default
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// Columns of a row
    #[arg(long, default_value_t = 2304)]
    columns: usize,
    /// Rows of a tile; an odd number leaves every kernel's last block partly empty
    #[arg(long, default_value_t = 455)]
    rows: u64,
    /// Threads; one per core by default
    #[arg(long)]
    threads: Option<usize>,
}

const INPUTS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// One tile to encode.
#[derive(Clone, Copy)]
struct Tile {
    distribution: &'static str,
    importance: &'static str,
    input: DType,
    seed: u64,
}

/// What is known of one format.
#[derive(Clone, Copy, Default)]
struct Tally {
    /// Weights that both have encoded.
    weights: u64,
    tiles: u64,
    /// Tiles that the device left to the processor.
    left: u64,
    /// Bytes that differ.
    different: u64,
}

/// Compares, prints a table, and fails on the first byte that differs or where too much was left.
pub fn run(o: &Options) -> Result<(), String> {
    let codes = codes(&o.types)?;
    let info = DeviceInfo::of(o.device).map_err(|e| e.to_string())?;
    let formats: Vec<&'static BlockFormat> = codes.iter().map(|c| c.block).collect();
    let threads = o.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let seats = Seats::within(threads, u64::MAX, u64::MAX).ok_or("no seats")?;
    let opening = Opening { formats: &formats, seats, memory: None, cache: Cache::of_user(), check: false };
    let start = Instant::now();
    let device = Device::open(&info, &opening).map_err(|e| format!("{e}\n  hint: {}", e.hint()))?;
    println!("{}: {} opened in {:.1} s", info.id(), info.name, start.elapsed().as_secs_f64());

    let tiles = tiles(o);
    let tallies = Mutex::new(vec![Tally::default(); codes.len()]);
    let first = Mutex::new(None);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(tile) = tiles.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = compare(&device, &codes, *tile, o, &tallies);
                    if let Err(message) = result {
                        first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
                        next.store(tiles.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let tallies = tallies.into_inner().unwrap_or_else(PoisonError::into_inner);
    print(&codes, &tallies, o);
    println!("{:.1} s", start.elapsed().as_secs_f64());
    if let Some(message) = first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(message);
    }
    for (code, t) in codes.iter().zip(&tallies) {
        if t.different > 0 {
            return Err(format!("{}: {} bytes differ", code.block.name, t.different));
        }
        if t.weights * 4 < (o.mb as u64) * 1_000_000 {
            return Err(format!("{}: only {} weights were compared", code.block.name, t.weights));
        }
    }
    Ok(())
}

/// As many tiles as make up the weights that are asked for, and some more: a few are left to the processor, and
/// some formats need importance.
fn tiles(o: &Options) -> Vec<Tile> {
    let mut tiles = Vec::new();
    let bytes = o.rows * o.columns as u64 * 4;
    let wanted = (o.mb as u64 * 1_000_000).div_ceil(bytes) * 2;
    for seed in 0.. {
        for distribution in inputs::DISTRIBUTIONS {
            for importance in inputs::IMPORTANCES {
                let input = INPUTS[(seed as usize + tiles.len() / inputs::IMPORTANCES.len()) % INPUTS.len()];
                tiles.push(Tile { distribution, importance, input, seed });
            }
        }
        if tiles.len() as u64 >= wanted {
            break;
        }
    }
    tiles
}

fn compare(
    device: &Device,
    codes: &[&'static DeviceCode],
    tile: Tile,
    o: &Options,
    tallies: &Mutex<Vec<Tally>>,
) -> Result<(), String> {
    // Two matrices, so that importance changes inside of a tile.
    let (columns, half) = (o.columns, o.rows.div_ceil(2));
    let shape = Shape::new(vec![2, half, columns as u64]).map_err(|e| e.to_string())?;
    let value = weights(tile, o.rows, columns);
    let importance: Option<Vec<f32>> = (0..2)
        .filter_map(|m| inputs::importance(tile.importance, tile.seed + m, columns))
        .reduce(|mut all, more| {
            all.extend(more);
            all
        });
    let importance = importance.map(|w| TensorImportance::new(Arc::from(w)));
    let form = Form::new(shape, Encoding::Plain(tile.input));
    let needs = |c: &DeviceCode| codec(c.block).is_some_and(BlockCodec::needs_importance);
    let mut ops = Vec::new();
    for (i, code) in codes.iter().enumerate().filter(|(_, c)| importance.is_some() || !needs(c)) {
        let op = QuantizeOp::new(code.block, importance.clone()).map_err(|e| e.to_string())?;
        let bytes = code.block.row_bytes(columns as u64).ok_or("columns do not fill blocks")? * o.rows;
        ops.push((i, op, vec![0xa5u8; bytes as usize]));
    }
    let rows = 0..o.rows;
    let mut tasks: Vec<Task<'_>> =
        ops.iter_mut().map(|(_, op, out)| Task { op: &*op, out, done: false }).collect();
    device.encode(&rows, &form, &value, &mut tasks).map_err(|e| e.to_string())?;
    let done: Vec<bool> = tasks.iter().map(|t| t.done).collect();
    drop(tasks);
    for ((i, op, got), done) in ops.iter().zip(done) {
        let code = codes[*i];
        let mut want = vec![0; got.len()];
        let mut different = 0;
        if done {
            op.run(rows.clone(), std::slice::from_ref(&form), &[&value], &mut want)
                .map_err(|e| format!("{}: {e}", code.block.name))?;
            different = got.iter().zip(&want).filter(|(a, b)| a != b).count() as u64;
        }
        if different > 0 {
            let at = got.iter().zip(&want).position(|(a, b)| a != b).unwrap_or(0);
            let size = code.block.bytes as usize;
            let block = at / size;
            eprintln!(
                "{}, {} {}, importance {}, seed {}: block {block} is\n  {:02x?}, and on the processor\n  {:02x?}",
                code.block.name,
                tile.distribution,
                tile.input,
                tile.importance,
                tile.seed,
                &got[block * size..][..size],
                &want[block * size..][..size]
            );
        }
        let mut tallies = tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let t = &mut tallies[*i];
        t.tiles += 1;
        t.left += u64::from(!done);
        t.different += different;
        t.weights += if done { o.rows * columns as u64 } else { 0 };
    }
    Ok(())
}

/// Rows of a tile, in its type; no further than the type's largest number.
fn weights(tile: Tile, rows: u64, columns: usize) -> Vec<u8> {
    let (max, size) = match tile.input {
        DType::F16 => (65504.0, 2),
        DType::BF16 => (f32::from_bits(0x7f7f_0000), 2),
        _ => (f32::MAX, 4),
    };
    let mut out = vec![0; rows as usize * columns * size];
    for (row, bytes) in (0..rows).zip(out.chunks_mut(columns * size)) {
        let mut x = inputs::row(tile.distribution, tile.seed * 100_003 + row, columns);
        for v in &mut x {
            *v = v.clamp(-max, max);
        }
        let known = encode_plain(tile.input, &x, bytes);
        debug_assert!(known, "kernels read f32, f16 and bf16");
    }
    out
}

fn print(codes: &[&'static DeviceCode], tallies: &[Tally], o: &Options) {
    let mut t = Table::new();
    t.load_style(ASCII_MARKDOWN);
    t.set_header(["type", "MB of f32 compared", "tiles", "left to the processor", "bytes that differ"]);
    for (code, n) in codes.iter().zip(tallies) {
        t.add_row([
            code.block.name.to_owned(),
            (n.weights * 4 / 1_000_000).to_string(),
            n.tiles.to_string(),
            n.left.to_string(),
            n.different.to_string(),
        ]);
    }
    println!("\nTiles of {} rows of {} weights, f32, f16 and bf16 in turn:\n\n{t}\n", o.rows, o.columns);
}
