//! Ledgers in memory, and files that may be written again.

use super::FakeReader;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tensormill_engine::{Ledger, Mode, Output, Plan, PlanOptions, Report, Run, Sink, TileRecord, plan};
use tensormill_model::{Checked, ErrorKind, Layout, Reader, Result};

/// A ledger in memory, which can refuse to take more notes.
#[derive(Default)]
pub struct Notes {
    pub records: Mutex<BTreeMap<u64, TileRecord>>,
    /// Notes taken before the pen breaks.
    pub most: Option<usize>,
}

impl Ledger for Notes {
    fn keeps(&self) -> bool {
        true
    }
    fn done(&self, tile: u64) -> Option<TileRecord> {
        self.records.lock().unwrap().get(&tile).cloned()
    }
    fn record(&self, tile: u64, record: &TileRecord) -> Result<()> {
        let mut records = self.records.lock().unwrap();
        if self.most.is_some_and(|m| records.len() >= m) {
            return Err(tensormill_model::Error::new(ErrorKind::Io, "the pen is broken"));
        }
        records.insert(tile, record.clone());
        Ok(())
    }
}

/// Files that may be written again.
pub struct Slate(pub Mutex<Vec<Vec<u8>>>, pub AtomicU64);

impl Slate {
    pub fn new(layout: &Layout) -> Self {
        Self(Mutex::new(layout.files.iter().map(|f| vec![0; f.len as usize]).collect()), AtomicU64::new(0))
    }
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }
}

impl Sink for Slate {
    fn write_at(&self, file: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        self.1.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.0.lock().unwrap()[file][offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn read_at(&self, file: usize, offset: u64, out: &mut [u8]) -> Result<()> {
        out.copy_from_slice(&self.0.lock().unwrap()[file][offset as usize..][..out.len()]);
        Ok(())
    }
}

pub fn with_plan<T>(
    r: &Arc<FakeReader>,
    outs: &[(Checked, Layout)],
    options: &PlanOptions,
    f: impl FnOnce(&Plan<'_>) -> T,
) -> T {
    let sources: Vec<Arc<dyn Reader>> = vec![Arc::clone(r) as _];
    let outputs: Vec<_> = outs.iter().map(|(model, layout)| Output::new(model, layout)).collect();
    f(&plan(&sources, &outputs, options).unwrap())
}

pub fn execute(
    plan: &Plan<'_>,
    slates: &[Slate],
    ledger: &dyn Ledger,
    tiles: std::ops::Range<u64>,
    mode: Mode,
) -> Result<Report> {
    let sinks: Vec<&dyn Sink> = slates.iter().map(|s| s as _).collect();
    let cancel = AtomicBool::new(false);
    plan.execute(&Run {
        sinks: &sinks,
        progress: &(),
        cancel: &cancel,
        ledger,
        tiles,
        mode,
        accelerator: None,
    })
}

pub fn slates(outs: &[(Checked, Layout)]) -> Vec<Slate> {
    outs.iter().map(|(_, l)| Slate::new(l)).collect()
}

pub fn all(slates: &[Slate]) -> Vec<Vec<Vec<u8>>> {
    slates.iter().map(Slate::bytes).collect()
}
