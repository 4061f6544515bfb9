//! Rows of one tensor through kernels: cut into portions, sent, encoded in every format that is asked for, fetched.
//!
//! A portion is whole rows. It goes to the device once; formats follow one another in its stream, and what they
//! make comes back as often as the room for it is full. Whatever a kernel could not do (values that are no numbers,
//! sums that a device would spell otherwise) is left undone, for the processor to do or to refuse.

use crate::{
    Error,
    kernels::{Kernel, Kernels},
    seat::{ALIGN, LAUNCHES, Pool, Seat},
};
use std::ops::Range;
use tensormill_kernels::cuda::{Job, RowMeans};
use tensormill_model::{Form, Rows, Task};
use tensormill_tensor::{DType, Encoding};

/// What kernels need to know of the rows.
struct Input<'a> {
    value: &'a [u8],
    /// [`Job::input`].
    kind: u32,
    row_len: usize,
    row_bytes: usize,
    first: u64,
    rows: u64,
    /// Rows of each matrix that the tensor stacks.
    per_matrix: u64,
}

/// One task that kernels can do.
struct Work<'k, 'a> {
    task: usize,
    kernel: &'k Kernel,
    row_bytes: usize,
    /// Which of the portion's importances.
    importance: Option<usize>,
    values: Option<&'a [f32]>,
    means: bool,
    /// Whether the processor has to do it after all.
    refused: bool,
}

/// Does those of the tasks that kernels can do.
pub(crate) fn run(
    kernels: &Kernels,
    pool: &Pool,
    rows: &Rows,
    form: &Form,
    value: &[u8],
    tasks: &mut [Task<'_>],
) -> Result<(), Error> {
    let Some(input) = input(rows, form, value) else { return Ok(()) };
    let portion = pool.seats().portion;
    let ops: Vec<_> = tasks.iter().map(|t| t.op).collect();
    let mut works: Vec<Work<'_, '_>> = Vec::new();
    for (task, op) in ops.into_iter().enumerate() {
        let Some(encode) = op.encodes() else { continue };
        let Some(kernel) = kernels.of(encode.block) else { continue };
        let Some(row_bytes) = encode.block.row_bytes(input.row_len as u64) else { continue };
        let values = encode.importance.filter(|_| kernel.code.uses_importance);
        let row_bytes = row_bytes as usize;
        let usable = tasks[task].out.len() as u64 == input.rows * row_bytes as u64
            && row_bytes <= portion
            && values.is_none_or(|v| input.fits(v));
        if !usable {
            continue;
        }
        // Equal importances of several formats go once.
        let same = |w: &Work<'_, '_>| {
            values.is_some() && w.values.map(<[f32]>::as_ptr) == values.map(<[f32]>::as_ptr)
        };
        let next = works.iter().filter_map(|w| w.importance).max().map_or(0, |i| i + 1);
        let importance =
            values.map(|_| works.iter().find(|w| same(w)).and_then(|w| w.importance).unwrap_or(next));
        let means = match kernel.code.row_means {
            RowMeans::Unused => false,
            RowMeans::WithImportance => values.is_some(),
            RowMeans::Always => true,
        };
        works.push(Work { task, kernel, row_bytes, importance, values, means, refused: false });
    }
    if works.is_empty() {
        return Ok(());
    }
    let mut seat = pool.take()?;
    let mut done = 0;
    while done < input.rows && works.iter().any(|w| !w.refused) {
        let Some(n) = input.portion(&seat, &works, done) else { return Ok(()) };
        self::portion(&mut seat, kernels, &input, done..done + n, &mut works, tasks)?;
        done += n;
    }
    for w in works.iter().filter(|w| !w.refused) {
        tasks[w.task].done = true;
    }
    Ok(())
}

/// What kernels can read, if it is that.
fn input<'a>(rows: &Rows, form: &Form, value: &'a [u8]) -> Option<Input<'a>> {
    let (kind, size) = match form.encoding {
        Encoding::Plain(DType::F32) => (0, 4),
        Encoding::Plain(DType::F16) => (1, 2),
        Encoding::Plain(DType::BF16) => (2, 2),
        _ => return None,
    };
    let row_len = usize::try_from(form.shape.row_len()).ok()?;
    let row_bytes = row_len.checked_mul(size)?;
    let n = rows.end.checked_sub(rows.start)?;
    let per_matrix = match form.shape.dims() {
        [.., rows, _] => *rows,
        _ => 1,
    };
    let whole = row_bytes > 0 && n > 0 && per_matrix > 0 && value.len() as u64 == n * row_bytes as u64;
    whole.then_some(Input { value, kind, row_len, row_bytes, first: rows.start, rows: n, per_matrix })
}

impl Input<'_> {
    /// Whether there is an importance for every row, and all of it is numbers: what the processor insists on.
    fn fits(&self, importance: &[f32]) -> bool {
        let matrices = self.matrices(0..self.rows);
        let all = matrices.start as usize * self.row_len..matrices.end as usize * self.row_len;
        importance.get(all).is_some_and(|used| used.iter().all(|v| v.is_finite()))
    }

    /// The matrices that some of the rows belong to.
    fn matrices(&self, rows: Range<u64>) -> Range<u64> {
        (self.first + rows.start) / self.per_matrix..(self.first + rows.end).div_ceil(self.per_matrix)
    }

    /// The rows of one matrix, of some rows.
    fn rows_of(&self, matrix: u64, rows: &Range<u64>) -> Range<u64> {
        let start = (matrix * self.per_matrix).saturating_sub(self.first);
        let end = ((matrix + 1) * self.per_matrix).saturating_sub(self.first);
        start.max(rows.start)..end.min(rows.end)
    }

    /// How many rows from `done` on can go at a time; `None` when not even one can.
    fn portion(&self, seat: &Seat, works: &[Work<'_, '_>], done: u64) -> Option<u64> {
        let importances = works.iter().filter_map(|w| w.importance).max().map_or(0, |i| i + 1);
        let widest = works.iter().map(|w| w.row_bytes.max(1)).max().unwrap_or(1);
        let most = (seat.portion() / self.row_bytes)
            .min(seat.portion() / widest)
            .min(seat.scratch_len() / size_of::<f32>());
        let mut n = (self.rows - done).min(most as u64);
        while n > 0 {
            let matrices = self.matrices(done..done + n);
            let side =
                (matrices.end - matrices.start) as usize * importances * self.row_len * size_of::<f32>();
            if aligned(n as usize * self.row_bytes) + side <= seat.portion() {
                return Some(n);
            }
            // Importance is short beside weights: a little less will do.
            n -= n.div_ceil(8);
        }
        None
    }
}

fn aligned(n: usize) -> usize {
    n.next_multiple_of(ALIGN)
}

/// Blocks that are on their way: whose, from which launch, where, and of which rows.
struct Pending {
    work: usize,
    launch: usize,
    offset: usize,
    rows: Range<u64>,
}

/// Encodes rows `rows` of the input, counted from its first.
fn portion(
    seat: &mut Seat,
    kernels: &Kernels,
    input: &Input<'_>,
    rows: Range<u64>,
    works: &mut [Work<'_, '_>],
    tasks: &mut [Task<'_>],
) -> Result<(), Error> {
    let n = (rows.end - rows.start) as usize;
    let weights = &input.value[rows.start as usize * input.row_bytes..][..n * input.row_bytes];
    let matrices = input.matrices(rows.clone());
    let importance_at = aligned(weights.len());
    let importance_len = (matrices.end - matrices.start) as usize * input.row_len * size_of::<f32>();
    seat.send(|bytes| {
        bytes[..weights.len()].copy_from_slice(weights);
        let mut len = weights.len();
        let mut sent = 0;
        for w in works.iter() {
            let (Some(number), Some(values)) = (w.importance, w.values) else { continue };
            if number < sent {
                continue;
            }
            sent = number + 1;
            let from = &values[matrices.start as usize * input.row_len..];
            let to = &mut bytes[importance_at + number * importance_len..][..importance_len];
            for (to, from) in to.chunks_exact_mut(size_of::<f32>()).zip(from) {
                to.copy_from_slice(&from.to_ne_bytes());
            }
            len = importance_at + sent * importance_len;
        }
        len
    })?;
    let job = Job { x: seat.input(), row_len: input.row_len as u64, input: input.kind, ..Job::default() };
    if let (Some(kernel), true) = (kernels.row_means(), works.iter().any(|w| w.means && !w.refused)) {
        let job = Job { out: seat.scratch(), blocks: n as u64, ..job };
        seat.launch(kernel, 1, &job)?;
    }
    let mut flight = Flight::default();
    for i in 0..works.len() {
        // Where importance matters, a launch for each matrix.
        let spans = if works[i].importance.is_some() { matrices.end - matrices.start } else { 1 };
        for span in 0..spans {
            let w = &works[i];
            if w.refused {
                break;
            }
            let span_rows = match w.importance {
                Some(_) => input.rows_of(matrices.start + span, &rows),
                None => rows.clone(),
            };
            let bytes = (span_rows.end - span_rows.start) as usize * w.row_bytes;
            if flight.used + bytes > seat.portion() || flight.pending.len() == LAUNCHES {
                flight.land(seat, works, tasks)?;
            }
            if flight.pending.is_empty() {
                seat.reset_flags()?;
            }
            let w = &works[i];
            let (flags, out) = seat.place(flight.pending.len(), flight.used);
            let importance = w.importance.map_or(0, |number| {
                let before = span as usize * input.row_len * size_of::<f32>();
                seat.input() + (importance_at + number * importance_len + before) as u64
            });
            let start = span_rows.start - rows.start;
            let per_row = input.row_len as u64 / u64::from(w.kernel.code.block.weights);
            let job = Job {
                x: job.x + start * input.row_bytes as u64,
                importance,
                row_means: if w.means { seat.scratch() + start * size_of::<f32>() as u64 } else { 0 },
                out,
                bad: flags,
                odd: flags + 8,
                tables: w.kernel.tables(),
                blocks: (span_rows.end - span_rows.start) * per_row,
                ..job
            };
            seat.launch(&w.kernel.function, w.kernel.code.lanes, &job)?;
            flight.pending.push(Pending {
                work: i,
                launch: flight.pending.len(),
                offset: flight.used,
                rows: span_rows,
            });
            // Every launch's blocks start where kernels may expect it.
            flight.used = aligned(flight.used + bytes);
        }
    }
    flight.land(seat, works, tasks)
}

/// What was launched and not fetched yet.
#[derive(Default)]
struct Flight {
    pending: Vec<Pending>,
    /// Bytes of room for blocks that are taken.
    used: usize,
}

impl Flight {
    /// Fetches it, and puts it where it belongs.
    fn land(
        &mut self,
        seat: &mut Seat,
        works: &mut [Work<'_, '_>],
        tasks: &mut [Task<'_>],
    ) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        seat.fetch(self.used.min(seat.portion()))?;
        for p in self.pending.drain(..) {
            let w = &mut works[p.work];
            let len = (p.rows.end - p.rows.start) as usize * w.row_bytes;
            let (bad, odd, blocks) = seat.result(p.launch, p.offset, len);
            if bad == u64::MAX && odd == 0 {
                tasks[w.task].out[p.rows.start as usize * w.row_bytes..][..len].copy_from_slice(blocks);
            } else {
                w.refused = true;
            }
        }
        self.used = 0;
        Ok(())
    }
}
