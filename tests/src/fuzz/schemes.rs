//! Quantized checkpoints: a configuration and a file of tensors become weights, all of which are computed.

use super::{assets, expected, limits, store};
use std::sync::{Arc, atomic::AtomicBool};
use tensormill_engine::{Output, PlanOptions, Sink, plan};
use tensormill_model::{Capabilities, Error, Expr, FileLayout, Format, Layout, Model, Place, Reader, Result};

/// Bytes of weights that are computed; larger models have been opened, which is what matters.
const MOST: u64 = 1 << 20;

/// Two bytes that say how long `config.json` is, `config.json`, a safetensors file.
///
/// # Panics
/// When what is fuzzed does what it must not.
pub fn schemes(data: &[u8]) {
    let Some((len, rest)) = data.split_first_chunk::<2>() else { return };
    let Some((config, file)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len))) else { return };
    let Ok(config) = serde_json::from_slice(config) else { return };
    let format = &tensormill_core::formats::SAFETENSORS;
    let Ok(reader) = format.open(store("model.safetensors", file), &limits()) else { return };
    let reader: Arc<dyn Reader> = Arc::from(reader);
    let model = Model::from_index(reader.index(), 0, Arc::new(assets(&[])));
    let read = |e: &Expr| {
        let Expr::Read { tensor, form, .. } = e else { panic!("only source tensors are read while opening") };
        let mut out = vec![0; (form.shape.rows() * form.row_bytes()?) as usize];
        reader.read(*tensor, 0..form.shape.rows(), &mut out)?;
        Ok(out)
    };
    match tensormill_schemes::open(&model, &config, &read) {
        Ok(Some(opened)) => compute(&reader, opened.model),
        Ok(None) => {}
        Err(e) => expected(&e),
    }
}

/// Takes everything and keeps nothing.
struct Nowhere;

impl Sink for Nowhere {
    fn write_at(&self, _: usize, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn read_at(&self, _: usize, _: u64, _: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("nothing is kept"))
    }
}

fn compute(reader: &Arc<dyn Reader>, mut model: Model) {
    const ANYTHING: Capabilities = Capabilities {
        format: "nothing",
        max_name_bytes: usize::MAX,
        max_rank: usize::MAX,
        encoding: |_| true,
    };
    for t in &model.tensors {
        // Codes that are seen by a target go the same way as values.
        if let Some(coded) = tensormill_schemes::coded(&t.expr) {
            let _ = coded.bundle.form().map_err(|e| expected(&e));
        }
    }
    let small = |n: Option<u64>| n.is_some_and(|n| n <= MOST);
    model.tensors.retain(|t| small(t.spec.bytes().ok()));
    let total = model.bytes().ok();
    if !small(total) {
        return;
    }
    let checked = match model.check(&ANYTHING) {
        Ok(checked) => checked,
        Err(e) => return expected(&e),
    };
    let (mut offset, mut places) = (0u64, Vec::new());
    for t in &checked.model().tensors {
        places.push(Place { file: 0, offset });
        offset += t.spec.bytes().expect("small");
    }
    let files = vec![FileLayout { name: "weights".to_owned(), len: offset, ..FileLayout::default() }];
    let layout = Layout { files, places, ..Layout::default() };
    let readers = [Arc::clone(reader)];
    let options = PlanOptions { measure: false, ..PlanOptions::new(64 << 20, 1) };
    let outputs = [Output::new(&checked, &layout)];
    let run =
        plan(&readers, &outputs, &options).and_then(|p| p.run(&[&Nowhere], &(), &AtomicBool::new(false)));
    if let Err(e) = run {
        expected(&e);
    }
}
