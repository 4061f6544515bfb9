//! How fast a disk takes and gives tiles, by tile size and number of threads: the figures from which the engine's
//! tile size and number of threads for transfers are chosen.
//!
//! `cargo run --release -p tensormill-store --example disk -- FOLDER [MiB]` writes and removes a file of that size
//! (1024 unless told) in the folder many times. Every figure is GB/s, writing includes allocation and the final
//! sync, and ways are tried in turn because shared disks drift. Tiles start 1000 bytes into a page.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};
use tensormill_store::{ALIGN, DirectFile};

const SHIFT: u64 = 1000;
const TILES: [u64; 6] = [256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20];

#[derive(Clone, Copy)]
enum Way {
    /// Buffer placed like the file offset.
    Direct,
    /// Buffer placed otherwise: writes copy it, reads drop what they brought into the cache.
    Elsewhere,
    Buffered,
}

/// Runs `transfer` for every tile on `threads` threads, each with a buffer of its own.
fn tiles(
    len: u64,
    tile: u64,
    threads: usize,
    phase: u64,
    transfer: impl Fn(&mut [u8], u64) -> io::Result<()> + Sync,
) -> io::Result<()> {
    let next = AtomicU64::new(SHIFT);
    let work = || {
        let mut memory = vec![1u8; tile as usize + ALIGN];
        let start = (phase as usize + ALIGN - memory.as_ptr().addr() % ALIGN) % ALIGN;
        loop {
            let at = next.fetch_add(tile, Ordering::Relaxed);
            if at + tile > len {
                return Ok(());
            }
            transfer(&mut memory[start..start + tile as usize], at)?;
        }
    };
    thread::scope(|s| {
        let all: Vec<_> = (0..threads).map(|_| s.spawn(work)).collect();
        all.into_iter().try_for_each(|t| t.join().expect("a worker panicked"))
    })
}

fn write(path: &Path, len: u64, tile: u64, threads: usize, way: Way) -> io::Result<Duration> {
    let _ = fs::remove_file(path);
    let start = Instant::now();
    let plain = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    plain.set_len(len)?;
    #[cfg(target_os = "linux")]
    rustix::fs::fallocate(&plain, rustix::fs::FallocateFlags::empty(), 0, len)?;
    let file = DirectFile::writing(plain);
    let file = if matches!(way, Way::Buffered) { file.buffered() } else { file };
    let phase = if matches!(way, Way::Direct | Way::Buffered) { SHIFT } else { 16 };
    tiles(len, tile, threads, phase, |bytes, at| file.write_all_at(bytes, at))?;
    file.sync_all()?;
    Ok(start.elapsed())
}

fn read(path: &Path, len: u64, tile: u64, threads: usize, way: Way) -> io::Result<Duration> {
    let plain = File::open(path)?;
    #[cfg(target_os = "linux")]
    rustix::fs::fadvise(&plain, 0, None, rustix::fs::Advice::DontNeed)?;
    let start = Instant::now();
    let file = DirectFile::reading(plain);
    let file = if matches!(way, Way::Buffered) { file.buffered() } else { file };
    let phase = if matches!(way, Way::Direct) { SHIFT } else { 16 };
    tiles(len, tile, threads, phase, |bytes, at| file.read_exact_at(bytes, at))?;
    Ok(start.elapsed())
}

/// `cp` of the file, which is not in the cache, and a sync of the copy.
fn cp(path: &Path, copy: &Path) -> io::Result<Duration> {
    let _ = fs::remove_file(copy);
    #[cfg(target_os = "linux")]
    rustix::fs::fadvise(File::open(path)?, 0, None, rustix::fs::Advice::DontNeed)?;
    let start = Instant::now();
    if !Command::new("cp").arg(path).arg(copy).status()?.success() {
        return Err(io::Error::other("cp failed"));
    }
    File::open(copy)?.sync_all()?;
    let wall = start.elapsed();
    fs::remove_file(copy)?;
    Ok(wall)
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or_else(|| io::Error::other("usage: disk FOLDER [MiB]"))?;
    let mib = args.next().map_or(Ok(1024), |n| n.parse::<u64>()).map_err(io::Error::other)?;
    let (len, folder) = (mib << 20, Path::new(&folder));
    let (path, copy) = (folder.join("disk-example.tmp"), folder.join("disk-example-copy.tmp"));
    let rate = |wall: Duration| format!("{:.2}", len as f64 / wall.as_secs_f64() / 1e9);
    println!(
        "| tile KiB | threads | write direct | elsewhere | buffered | read direct | elsewhere | buffered |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for tile in TILES {
        for threads in [1, 2, 4] {
            print!("| {} | {threads} |", tile >> 10);
            for way in [Way::Direct, Way::Elsewhere, Way::Buffered] {
                print!(" {} |", rate(write(&path, len, tile, threads, way)?));
            }
            for way in [Way::Direct, Way::Elsewhere, Way::Buffered] {
                print!(" {} |", rate(read(&path, len, tile, threads, way)?));
            }
            println!();
        }
        println!("| cp + sync | | {} |", rate(cp(&path, &copy)?));
    }
    fs::remove_file(&path)
}
