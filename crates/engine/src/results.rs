//! What becomes of a step's base rows: bundles, results, hashes, statistics, writes; and what is collected of transposed
//! matrices until their last column is there.
//!
//! Must not know how rows are evaluated, nor how steps follow each other.

use crate::{
    chain::Link,
    group::{Compute, On, Stem, Turned},
    measure,
    node::lcm,
    place::{OWN_SLACK, skip},
    plan::Cut,
    tile::{Meter, Times, Worker, merge},
    transpose::Turn,
};
use std::{
    ops::Range,
    time::{Duration, Instant},
};
use tensormill_model::{Form, Result, Task};
use tensormill_tensor::ErrorStats;

/// Bytes of a base that are encoded and measured before the next ones, so that what one reads the other has left in the
/// cache of a core.
const BLOCK_BYTES: u64 = 256 << 10;

/// Some rows of a base, in memory.
pub(crate) struct Step<'s> {
    pub cut: &'s Cut,
    /// How often the tile's rows have passed by before.
    pub pass: u64,
    pub rows: &'s Range<u64>,
    pub value: &'s [u8],
    pub extras: &'s [&'s [u8]],
}

impl Step<'_> {
    /// The first pass sees to everything; the others to what is transposed.
    fn wants(&self, turned: bool) -> bool {
        self.pass == 0 || turned
    }
    fn len(&self) -> u64 {
        self.rows.end - self.rows.start
    }

    /// Computes what a link makes of the rows, which have this form, unless `done`, and measures it, block by block; `seen`
    /// gets every block. Gives the time that computing and the rest took.
    fn measured(
        &self,
        (form, link): (&Form, &Link),
        (out, done): (&mut [u8], bool),
        floats: &mut [f32],
        error: &mut Option<ErrorStats>,
        mut seen: impl FnMut(&[u8]),
    ) -> Result<(Duration, Duration)> {
        let group = &self.cut.group;
        let in_row = form.row_bytes()?;
        let unit = lcm(group.unit, link.op.batch().max(1));
        let block = (BLOCK_BYTES / in_row.max(1)).max(1).next_multiple_of(unit);
        let (mut computed, mut measured) = (Duration::ZERO, Duration::ZERO);
        let (mut value, mut out) = (self.value, out);
        for start in self.rows.clone().step_by(usize::try_from(block).unwrap_or(usize::MAX)) {
            let rows = start..self.rows.end.min(start.saturating_add(block));
            let n = rows.end - rows.start;
            let (from, value_rest) = value.split_at((n * in_row) as usize);
            let (to, out_rest) = std::mem::take(&mut out).split_at_mut(link.bytes(n) as usize);
            (value, out) = (value_rest, out_rest);
            let begun = Instant::now();
            if !done {
                link.run(&rows, from, self.extras, to)?;
            }
            let made = Instant::now();
            seen(to);
            merge(error, measure::tile(form, from, link, to, floats)?);
            computed += made - begun;
            measured += made.elapsed();
        }
        Ok((computed, measured))
    }
}

/// What a step adds to.
pub(crate) struct To<'s, 'b> {
    pub windows: &'s mut [Window<'b>],
    pub meters: &'s mut [Meter],
    /// Room to measure in.
    pub floats: &'s mut [f32],
    pub times: &'s mut Times,
}

/// Rows of a transposed matrix, of which every step brings some columns.
pub(crate) struct Window<'b> {
    compute: usize,
    rows: Range<u64>,
    bytes: &'b mut [u8],
}

/// Where a result goes, or stands already.
struct Slot<'b> {
    buffer: &'b mut [u8],
    /// Its first byte.
    at: usize,
    /// Whether an accelerator has computed it.
    done: bool,
}

/// Results that have a place of their own.
pub(crate) struct Own<'b> {
    stems: Vec<Option<Slot<'b>>>,
    computes: Vec<Option<Slot<'b>>>,
}

/// The windows of a pass, and the rest of the arena.
pub(crate) fn windows<'b>(cut: &Cut, pass: u64, arena: &'b mut [u8]) -> (Vec<Window<'b>>, &'b mut [u8]) {
    let mut rest = arena;
    let mut windows = Vec::new();
    for (compute, c) in cut.group.computes.iter().enumerate() {
        let Some(t) = &c.turned else { continue };
        let height = t.window(cut.passes);
        let start = t.rows.min(pass * height);
        let rows = start..t.rows.min(start + height);
        // What is written as it stands lies where it suits its file.
        let place = c.sinks[0].place.offset + rows.start * c.row_bytes;
        let skip = if cut.demand.roomy && t.chain.is_empty() { skip(rest, place) } else { 0 };
        let len = ((rows.end - rows.start) * t.row_bytes()) as usize;
        let (bytes, more) = std::mem::take(&mut rest)[skip..].split_at_mut(len);
        windows.push(Window { compute, rows, bytes });
        rest = more;
    }
    (windows, rest)
}

impl Worker<'_> {
    /// Lets the accelerator do what it can, all at once and without a permit: meanwhile others compute. Gives the
    /// results' places, for those that have one of their own, and the rest of the buffer.
    pub(crate) fn offer<'b>(
        &self,
        step: &Step<'_>,
        mut rest: &'b mut [u8],
        times: &mut Times,
    ) -> Result<(Own<'b>, &'b mut [u8])> {
        let (cut, group) = (step.cut, &step.cut.group);
        let slack = if cut.demand.roomy { OWN_SLACK as usize } else { 0 };
        let mut take = |len: u64| {
            let (own, more) = std::mem::take(&mut rest).split_at_mut(len as usize + slack);
            rest = more;
            own
        };
        let stem = |s: &Stem| {
            let wanted = s.offload && step.wants(s.turned);
            wanted.then(|| Slot { buffer: take(s.link.bytes(step.len())), at: 0, done: false })
        };
        let mut stems: Vec<Option<Slot<'b>>> = group.stems.iter().map(stem).collect();
        let compute = |c: &Compute| {
            let wanted = c.offload && step.wants(false);
            wanted.then(|| slot(cut, c, step.rows, take(c.chain.bytes(step.len()))))
        };
        let mut computes: Vec<Option<Slot<'b>>> = group.computes.iter().map(compute).collect();
        if let Some(accelerator) = self.accelerator {
            let start = Instant::now();
            let stem_links = group.stems.iter().map(|s| Some(&s.link)).zip(&mut stems);
            let links = group.computes.iter().map(|c| c.chain.only()).zip(&mut computes);
            let (mut tasks, mut flags): (Vec<Task<'_>>, Vec<&mut bool>) = stem_links
                .chain(links)
                .filter_map(|(link, slot)| {
                    let (link, Slot { buffer, at, done }) = (link?, slot.as_mut()?);
                    let out = &mut buffer[*at..][..link.bytes(step.len()) as usize];
                    Some((Task { op: &*link.op, out, done: false }, done))
                })
                .unzip();
            if !tasks.is_empty() {
                accelerator
                    .run(step.rows.clone(), &group.base.form, step.value, &mut tasks)
                    .map_err(|e| e.tensor(&group.label))?;
            }
            for (task, flag) in tasks.iter().zip(&mut flags) {
                **flag = task.done;
            }
            times.compute += start.elapsed();
        }
        Ok((Own { stems, computes }, rest))
    }

    /// Makes bundles and results of a step's rows, one after the other, and writes what is complete.
    pub(crate) fn results(
        &self,
        step: &Step<'_>,
        own: Own<'_>,
        rest: &mut [u8],
        to: &mut To<'_, '_>,
    ) -> Result<()> {
        let group = &step.cut.group;
        for (i, (stem, own)) in group.stems.iter().zip(own.stems).enumerate() {
            if !step.wants(stem.turned) {
                continue;
            }
            let len = stem.link.bytes(step.len()) as usize;
            let (bundle, done, rest) = if let Some(slot) = own {
                (&mut slot.buffer[..len], slot.done, &mut *rest)
            } else {
                let (bundle, rest) = rest.split_at_mut(len);
                (bundle, false, rest)
            };
            self.bundle(step, stem, bundle, done, to)?;
            for number in (0..group.computes.len()).filter(|n| group.computes[*n].on == On::Stem(i)) {
                self.result(step, number, bundle, None, rest, to)?;
            }
        }
        for (number, own) in own.computes.into_iter().enumerate() {
            if group.computes[number].on == On::Base {
                self.result(step, number, step.value, own, rest, to)?;
            }
        }
        Ok(())
    }

    /// Makes a bundle, unless it is done, and measures it when it is made for the first time.
    fn bundle(
        &self,
        step: &Step<'_>,
        stem: &Stem,
        out: &mut [u8],
        done: bool,
        to: &mut To<'_, '_>,
    ) -> Result<()> {
        let group = &step.cut.group;
        let error = &mut to.meters[stem.first].error;
        let (took, waited, _) = self.cores.run(|| {
            if stem.measured && step.pass == 0 {
                let encoder = (&group.base.form, &stem.link);
                return step.measured(encoder, (out, done), to.floats, error, |_| ());
            }
            let start = Instant::now();
            if !done {
                stem.link.run(step.rows, step.value, step.extras, out)?;
            }
            Ok((start.elapsed(), Duration::ZERO))
        });
        let (computed, measured) = took.map_err(|e| e.tensor(&group.computes[stem.first].sinks[0].name))?;
        to.times.wait += waited;
        to.times.compute += computed;
        to.times.measure += measured;
        Ok(())
    }

    /// What one compute makes of rows of the base, or of a bundle.
    fn result(
        &self,
        step: &Step<'_>,
        number: usize,
        input: &[u8],
        own: Option<Slot<'_>>,
        rest: &mut [u8],
        to: &mut To<'_, '_>,
    ) -> Result<()> {
        let compute = &step.cut.group.computes[number];
        if let Some(turned) = &compute.turned {
            return self.collect(step, number, turned, input, rest, to);
        }
        if !step.wants(false) {
            return Ok(());
        }
        let slot = own.unwrap_or_else(|| slot(step.cut, compute, step.rows, rest));
        self.compute(step, number, input, slot, to)
    }

    /// Computes what is not done, hashes, measures and writes it.
    fn compute(
        &self,
        step: &Step<'_>,
        number: usize,
        input: &[u8],
        slot: Slot<'_>,
        to: &mut To<'_, '_>,
    ) -> Result<()> {
        let (cut, group) = (step.cut, &step.cut.group);
        let (compute, meter) = (&group.computes[number], &mut to.meters[number]);
        let first = compute.rows(step.rows).start;
        let Slot { buffer, at, done } = slot;
        if compute.chain.is_empty() {
            if self.hash {
                let ((), waited, took) = self.cores.run(|| meter.hash.update(input));
                to.times.wait += waited;
                to.times.measure += took;
            }
            if compute.on == On::Base && cut.demand.roomy && group.placed().is_none() {
                let start = Instant::now();
                buffer[at..][..input.len()].copy_from_slice(input);
                to.times.compute += start.elapsed();
                return self.put_moved(cut, compute, first, (buffer, at, input.len()), to.times);
            }
            return self.put(compute, first, input, to.times);
        }
        let len = compute.chain.bytes(step.len()) as usize;
        if !done || self.hash || compute.measured {
            let (out, scratch) = buffer[at..].split_at_mut(len);
            let Meter { hash, error } = meter;
            let mut seen = |out: &[u8]| {
                if self.hash {
                    hash.update(out);
                }
            };
            let (took, waited, _) = self.cores.run(|| {
                match compute.chain.encoder().filter(|_| compute.measured) {
                    Some((None, link)) => {
                        return step.measured((&group.base.form, link), (out, done), to.floats, error, seen);
                    }
                    Some((Some(pick), link)) => {
                        let start = Instant::now();
                        let value = &mut scratch[..pick.bytes(step.len()) as usize];
                        pick.run(step.rows, step.value, step.extras, value)?;
                        let picked = Step { rows: &pick.rows(step.rows), value, ..*step };
                        let took = start.elapsed();
                        let done = picked.measured((&pick.form, link), (out, done), to.floats, error, seen);
                        return done.map(|(computed, measured)| (took + computed, measured));
                    }
                    None => {}
                }
                let start = Instant::now();
                if !done {
                    compute.chain.run(step.rows, input, step.extras, out, scratch)?;
                }
                let computed = Instant::now();
                seen(out);
                Ok((computed - start, computed.elapsed()))
            });
            let (computed, measured) = took.map_err(|e| e.tensor(&compute.sinks[0].name))?;
            to.times.wait += waited;
            to.times.compute += computed;
            to.times.measure += measured;
        }
        self.put_moved(cut, compute, first, (buffer, at, len), to.times)
    }

    /// Computes rows and puts them where they are columns.
    fn collect(
        &self,
        step: &Step<'_>,
        number: usize,
        turned: &Turned,
        input: &[u8],
        rest: &mut [u8],
        to: &mut To<'_, '_>,
    ) -> Result<()> {
        let compute = &step.cut.group.computes[number];
        let Some(window) = to.windows.iter_mut().find(|w| w.compute == number && !w.rows.is_empty()) else {
            return Ok(());
        };
        let (done, waited, took) = self.cores.run(|| -> Result<()> {
            let chain = &compute.chain;
            let (out, scratch) = rest.split_at_mut(chain.bytes(step.len()) as usize);
            let value = if chain.is_empty() {
                input
            } else {
                chain.run(step.rows, input, step.extras, out, scratch)?;
                out
            };
            let columns = window.rows.start as usize..window.rows.end as usize;
            let (n, m) = (turned.rows as usize, turned.columns as usize);
            let turn = Turn { n, columns, m, row: chain.rows(step.rows).start as usize };
            turn.run(turned.element as usize, value, window.bytes);
            Ok(())
        });
        to.times.wait += waited;
        to.times.compute += took;
        done.map_err(|e| e.tensor(&compute.sinks[0].name))
    }

    /// Makes results of windows whose columns are all there, and writes them.
    pub(crate) fn finish(
        &self,
        cut: &Cut,
        windows: Vec<Window<'_>>,
        extras: &[&[u8]],
        rest: &mut [u8],
        meters: &mut [Meter],
        times: &mut Times,
    ) -> Result<()> {
        for Window { compute, rows, bytes } in windows {
            let (compute, hash) = (&cut.group.computes[compute], &mut meters[compute].hash);
            let Some(t) = &compute.turned else { continue };
            let portion = if t.chain.is_empty() { t.rows } else { t.portion(t.window(cut.passes)) };
            for start in rows.clone().step_by(portion.max(1) as usize) {
                self.check_cancel()?;
                let part = start..rows.end.min(start + portion);
                let len = ((part.end - part.start) * t.row_bytes()) as usize;
                let value = &bytes[((start - rows.start) * t.row_bytes()) as usize..][..len];
                let first = t.chain.rows(&part).start;
                let offset = compute.sinks[0].place.offset + first * compute.row_bytes;
                let at = if cut.demand.roomy && !t.chain.is_empty() { skip(rest, offset) } else { 0 };
                let len = t.chain.bytes(part.end - part.start) as usize;
                let (made, waited, took) = self.cores.run(|| -> Result<()> {
                    let (out, scratch) = rest[at..].split_at_mut(len);
                    if !t.chain.is_empty() {
                        t.chain.run(&part, value, extras, out, scratch)?;
                    }
                    if self.hash {
                        hash.update(if t.chain.is_empty() { value } else { out });
                    }
                    Ok(())
                });
                times.wait += waited;
                times.compute += took;
                made.map_err(|e| e.tensor(&compute.sinks[0].name))?;
                if t.chain.is_empty() {
                    self.put(compute, first, value, times)?;
                } else {
                    self.put_moved(cut, compute, first, (rest, at, len), times)?;
                }
            }
        }
        Ok(())
    }

    /// Writes a result, whose first row is `row`, to all of its places.
    fn put(&self, compute: &Compute, row: u64, bytes: &[u8], times: &mut Times) -> Result<()> {
        let start = Instant::now();
        for sink in &compute.sinks {
            let offset = sink.place.offset + row * compute.row_bytes;
            self.sinks[sink.output]
                .write_at(sink.place.file, offset, bytes)
                .map_err(|e| e.tensor(&sink.name))?;
        }
        times.write += start.elapsed();
        Ok(())
    }

    /// As [`Self::put`], of bytes that begin at `at` of a buffer and may be moved in it: another file wants them at
    /// another distance from its pages, by less than one.
    fn put_moved(
        &self,
        cut: &Cut,
        compute: &Compute,
        row: u64,
        (buffer, mut at, len): (&mut [u8], usize, usize),
        times: &mut Times,
    ) -> Result<()> {
        let start = Instant::now();
        for sink in &compute.sinks {
            let offset = sink.place.offset + row * compute.row_bytes;
            if cut.demand.roomy {
                let to = skip(buffer, offset);
                buffer.copy_within(at..at + len, to);
                at = to;
            }
            self.sinks[sink.output]
                .write_at(sink.place.file, offset, &buffer[at..][..len])
                .map_err(|e| e.tensor(&sink.name))?;
        }
        times.write += start.elapsed();
        Ok(())
    }
}

/// The place of a result at the front of a buffer.
fn slot<'b>(cut: &Cut, compute: &Compute, rows: &Range<u64>, buffer: &'b mut [u8]) -> Slot<'b> {
    let offset = compute.sinks[0].place.offset + compute.rows(rows).start * compute.row_bytes;
    let at = if cut.demand.roomy { skip(buffer, offset) } else { 0 };
    Slot { buffer, at, done: false }
}
