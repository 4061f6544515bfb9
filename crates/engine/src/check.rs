//! Whether what was written stands: by its hash when a run goes on, by its values too when it is verified.
//!
//! Must not know how tiles are handed out, nor what becomes of failures.

use crate::{
    TileRecord,
    chain::Link,
    measure,
    place::skip,
    plan::Cut,
    tile::{Done, Worker, merge, rows_of, steps},
};
use tensormill_model::{Error, Form, Result};
use tensormill_tensor::ErrorStats;
use xxhash_rust::xxh3::Xxh3;

impl Worker<'_> {
    /// Whether what the sinks hold is what the record says: every byte, by its hash.
    pub(crate) fn matches(
        &self,
        cut: &Cut,
        number: u64,
        record: &TileRecord,
        arena: &mut [u8],
    ) -> Result<bool> {
        if record.computes.len() != cut.group.computes.len() {
            return Ok(false);
        }
        for (compute, want) in cut.group.computes.iter().zip(&record.computes) {
            for sink in &compute.sinks {
                let mut hash = Xxh3::new();
                let rows = compute.rows(&rows_of(cut, number));
                let end = sink.place.offset + rows.end * compute.row_bytes;
                let mut at = sink.place.offset + rows.start * compute.row_bytes;
                while at < end {
                    let skip = if cut.demand.roomy { skip(arena, at) } else { 0 };
                    let room = arena.len() - skip;
                    let out = &mut arena[skip..][..room.min((end - at) as usize)];
                    self.sinks[sink.output]
                        .read_at(sink.place.file, at, out)
                        .map_err(|e| e.tensor(&sink.name))?;
                    hash.update(out);
                    at += out.len() as u64;
                }
                if hash.digest() != want.hash {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Evaluates the base rows again and compares what the sinks hold: bytes by their hash, values by their error. Bundles
    /// are in no file, so they are made again.
    pub(crate) fn verify(
        &self,
        cut: &Cut,
        number: u64,
        record: &TileRecord,
        buffers: (&mut [u8], &mut [f32]),
    ) -> Result<Done> {
        let (arena, floats) = buffers;
        let failed = |name: &str, what: &str| {
            Err(Error::failed(format!("what was written does not hold {what}"))
                .tensor(name)
                .hint("the disk or its file system lost bytes: write to another one"))
        };
        let group = &cut.group;
        let mut done = Done::default();
        let mut errors = vec![None; group.computes.len()];
        if !self.matches(cut, number, record, arena)? {
            return failed(&group.label, "the bytes that were computed");
        }
        let (extras, arena) = self.extras(cut, arena, &mut done)?;
        for rows in steps(cut, number) {
            self.check_cancel()?;
            let (value, rest) = self.base(cut, &rows, arena, &mut done)?;
            let base = &group.base.form;
            let mut measure = |from: (&Form, &[u8]),
                               link: &Link,
                               out: &[u8],
                               name: &str,
                               error: &mut Option<ErrorStats>| {
                let (stats, waited, took) =
                    self.cores.run(|| measure::tile(from.0, from.1, link, out, floats));
                done.times.wait += waited;
                done.times.measure += took;
                merge(error, stats.map_err(|e| e.tensor(name))?);
                Ok::<(), Error>(())
            };
            for stem in group.stems.iter().filter(|s| s.measured) {
                let name = group.computes[stem.first].sinks[0].name.as_str();
                let out = &mut rest[..stem.link.bytes(rows.end - rows.start) as usize];
                let (made, ..) = self.cores.run(|| stem.link.run(&rows, value, &extras, out));
                made.map_err(|e| e.tensor(name))?;
                measure((base, value), &stem.link, out, name, &mut errors[stem.first])?;
            }
            for (compute, error) in group.computes.iter().zip(&mut errors) {
                let Some((pick, link)) = compute.chain.encoder().filter(|_| compute.measured) else {
                    continue;
                };
                let sink = &compute.sinks[0];
                let here = compute.rows(&rows);
                let (out, more) = rest.split_at_mut(((here.end - here.start) * compute.row_bytes) as usize);
                let at = sink.place.offset + here.start * compute.row_bytes;
                self.sinks[sink.output]
                    .read_at(sink.place.file, at, out)
                    .map_err(|e| e.tensor(&sink.name))?;
                let Some(pick) = pick else {
                    measure((base, value), link, out, &sink.name, error)?;
                    continue;
                };
                let picked = &mut more[..pick.bytes(rows.end - rows.start) as usize];
                let (made, ..) = self.cores.run(|| pick.run(&rows, value, &extras, picked));
                made.map_err(|e| e.tensor(&sink.name))?;
                measure((&pick.form, picked), link, out, &sink.name, error)?;
            }
        }
        for ((compute, got), want) in group.computes.iter().zip(errors).zip(&record.computes) {
            if got != want.error {
                return failed(&compute.sinks[0].name, "values as close to the source as they were measured");
            }
        }
        done.written = group.writes(&rows_of(cut, number));
        done.record = record.clone();
        Ok(done)
    }
}
