//! Fakes that watch: a reader that counts rows read, a sink that counts bytes written, ops that show their
//! row numbers, and a naive evaluator that shares no code with the engine.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod bundles;
pub mod notes;
#[cfg(target_os = "linux")]
pub mod resident;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tensormill_engine::{Event, Mode, Output, PlanOptions, Progress, Report, Run, Sink, plan};
use tensormill_model::{
    Accelerator, Capabilities, Checked, Encode, Error, Expr, FileLayout, Form, Index, Layout, Locality,
    MemoryAssets, Metadata, Model, Op, Place, Reader, Reduction, Result, RowMap, Rows, Tally, Tensor,
};
use tensormill_tensor::{BlockFormat, DType, Encoding, Shape, TensorSpec};

pub fn shape(dims: &[u64]) -> Shape {
    Shape::new(dims.to_vec()).unwrap()
}

/// Bytes that differ from place to place.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 24) as u8
        })
        .collect()
}

#[derive(Default)]
pub struct FakeReader {
    pub index: Index,
    pub data: Vec<Vec<u8>>,
    /// How often each row was read, per tensor.
    pub counts: Mutex<Vec<Vec<u32>>>,
    /// Tensors in the order in which their row 0 was read.
    pub order: Mutex<Vec<usize>>,
    /// Number of reads.
    pub calls: AtomicU64,
    /// Places, where they shall differ from the order of the index.
    pub offsets: Vec<u64>,
    /// How long every read takes at least.
    pub pause: Duration,
}

impl FakeReader {
    pub fn new(specs: &[(&[u64], Encoding)]) -> Self {
        let mut r = Self::default();
        for (i, (dims, encoding)) in specs.iter().enumerate() {
            let spec = TensorSpec::new(format!("src.{i}"), shape(dims), *encoding);
            r.data.push(noise(i as u64 + 1, spec.bytes().unwrap() as usize));
            r.counts.lock().unwrap().push(vec![0; spec.shape.rows() as usize]);
            r.offsets.push(i as u64);
            r.index.tensors.push(spec);
        }
        r
    }
    pub fn expr(&self, tensor: usize) -> Expr {
        let spec = &self.index.tensors[tensor];
        Expr::Read { source: 0, tensor, form: Form::new(spec.shape.clone(), spec.encoding) }
    }
}

impl Reader for FakeReader {
    fn index(&self) -> &Index {
        &self.index
    }
    fn read(&self, tensor: usize, rows: Rows, out: &mut [u8]) -> Result<()> {
        let row = self.index.tensors[tensor].row_bytes().unwrap() as usize;
        let bytes = &self.data[tensor][rows.start as usize * row..rows.end as usize * row];
        assert_eq!(bytes.len(), out.len(), "length of the buffer for {rows:?}");
        std::thread::sleep(self.pause);
        out.copy_from_slice(bytes);
        self.calls.fetch_add(1, Ordering::Relaxed);
        if rows.start == 0 {
            self.order.lock().unwrap().push(tensor);
        }
        for count in &mut self.counts.lock().unwrap()[tensor][rows.start as usize..rows.end as usize] {
            *count += 1;
        }
        Ok(())
    }
    fn place(&self, tensor: usize) -> Place {
        Place { file: 0, offset: self.offsets[tensor] }
    }
}

/// Files in memory; a byte that is written twice is a failed test.
pub struct FakeSink {
    pub files: Mutex<Vec<(Vec<u8>, Vec<bool>)>>,
    /// Fail when this byte of file 0 is written.
    pub poison: Option<u64>,
}

impl FakeSink {
    pub fn new(layout: &Layout) -> Self {
        let files = layout.files.iter().map(|f| (vec![0; f.len as usize], vec![false; f.len as usize]));
        Self { files: Mutex::new(files.collect()), poison: None }
    }
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        self.files.lock().unwrap().iter().map(|(b, _)| b.clone()).collect()
    }
    pub fn tensor(&self, place: Place, len: usize) -> Vec<u8> {
        self.files.lock().unwrap()[place.file].0[place.offset as usize..][..len].to_vec()
    }
}

impl Sink for FakeSink {
    fn write_at(&self, file: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let range = offset as usize..offset as usize + bytes.len();
        if let Some(p) = self.poison
            && range.contains(&(p as usize))
        {
            return Err(Error::io("write", std::io::Error::from(std::io::ErrorKind::StorageFull)));
        }
        let mut files = self.files.lock().unwrap();
        let (data, seen) = &mut files[file];
        assert!(seen[range.clone()].iter().all(|s| !s), "a byte was written twice");
        seen[range.clone()].fill(true);
        data[range].copy_from_slice(bytes);
        Ok(())
    }
    fn read_at(&self, file: usize, offset: u64, out: &mut [u8]) -> Result<()> {
        out.copy_from_slice(&self.files.lock().unwrap()[file].0[offset as usize..][..out.len()]);
        Ok(())
    }
}

/// Tiles small enough that every thread has two in the budget.
pub fn small_tiles(memory: u64, threads: usize, measure: bool) -> PlanOptions {
    let tile_bytes = (memory / threads as u64 / 2).max(1);
    PlanOptions { measure, tile_bytes, ..PlanOptions::new(memory, threads) }
}

/// A model of named expressions, laid out over two files with gaps.
pub fn output(tensors: Vec<(String, Expr)>) -> (Checked, Layout) {
    let tensors: Vec<_> = tensors.into_iter().map(|(n, e)| Tensor::new(n, e).unwrap()).collect();
    let mut files: Vec<_> = (0..2)
        .map(|i| FileLayout { name: format!("f{i}"), len: 5, ..FileLayout::default() })
        .collect::<Vec<_>>();
    let places = tensors
        .iter()
        .enumerate()
        .map(|(i, t)| {
            let file = i % 2;
            let offset = files[file].len;
            files[file].len += t.spec.bytes().unwrap() + 3;
            Place { file, offset }
        })
        .collect();
    let model = Model {
        tensors,
        metadata: Metadata::new(),
        assets: Arc::new(MemoryAssets::default()),
        program: None,
    };
    let target = Capabilities { format: "fake", max_name_bytes: 100, max_rank: 9, encoding: |_| true };
    (model.check(&target).unwrap(), Layout { files, places, ..Layout::default() })
}

pub struct Ran {
    pub report: Report,
    /// Files of every output.
    pub files: Vec<Vec<Vec<u8>>>,
    pub planned: u64,
}

pub fn run(reader: &Arc<FakeReader>, outs: &[(Checked, Layout)], options: &PlanOptions) -> Result<Ran> {
    run_with(reader, outs, options, &())
}

pub fn run_with(
    reader: &Arc<FakeReader>,
    outs: &[(Checked, Layout)],
    options: &PlanOptions,
    progress: &dyn Progress,
) -> Result<Ran> {
    run_on(reader, outs, options, progress, None)
}

pub fn run_on(
    reader: &Arc<FakeReader>,
    outs: &[(Checked, Layout)],
    options: &PlanOptions,
    progress: &dyn Progress,
    accelerator: Option<&dyn Accelerator>,
) -> Result<Ran> {
    let sources: Vec<Arc<dyn Reader>> = vec![Arc::clone(reader) as _];
    let outputs: Vec<_> = outs.iter().map(|(model, layout)| Output::new(model, layout)).collect();
    let plan = plan(&sources, &outputs, options)?;
    let sinks: Vec<_> = outs.iter().map(|(_, l)| FakeSink::new(l)).collect();
    let dyns: Vec<&dyn Sink> = sinks.iter().map(|s| s as _).collect();
    let report = plan.execute(&Run {
        sinks: &dyns,
        progress,
        cancel: &AtomicBool::new(false),
        ledger: &(),
        tiles: 0..plan.tiles(),
        mode: Mode::Write,
        accelerator,
    })?;
    assert!(report.peak_tile_bytes <= plan.memory(), "{} > {}", report.peak_tile_bytes, plan.memory());
    assert!(plan.memory() <= options.memory);
    assert_eq!(report.written, plan.output_bytes());
    assert_eq!(report.read, plan.source_bytes(), "what is planned to be read");
    Ok(Ran { report, files: sinks.iter().map(FakeSink::bytes).collect(), planned: plan.memory() })
}

/// The least memory that works, as the planner's message for no memory at all says it.
pub fn least(reader: &Arc<FakeReader>, outs: &[(Checked, Layout)], measure: bool) -> u64 {
    let options = small_tiles(0, 1, measure);
    match run(reader, outs, &options) {
        Ok(_) => 0,
        Err(e) => {
            let text = e.to_string();
            let at = text.find("takes ").expect("says what it takes") + 6;
            text[at..].split(' ').next().unwrap().parse().expect("a number of bytes")
        }
    }
}

/// Counts events.
#[derive(Default)]
pub struct Log(pub Mutex<Vec<String>>);

impl Progress for Log {
    fn event(&self, event: Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

/// Sets the flag at the n-th finished tile.
pub struct CancelAfter<'a>(pub Mutex<u32>, pub &'a AtomicBool);

impl Progress for CancelAfter<'_> {
    fn event(&self, event: Event<'_>) {
        if let Event::Advanced { .. } = event {
            let mut left = self.0.lock().unwrap();
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.1.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Every byte xor a key xor its row number: shows wrong row numbers.
#[derive(Debug)]
pub struct Xor(pub u8);
impl Op for Xor {
    fn describe(&self) -> String {
        format!("xor[{}]", self.0)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        Ok(inputs[0].clone())
    }
    fn scratch(&self, _: &[Form], rows: u64) -> u64 {
        rows * 7
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let n = forms[0].row_bytes()? as usize;
        assert_eq!(inputs[0].len() as u64, (rows.end - rows.start) * n as u64);
        assert_eq!(inputs[0].len(), out.len());
        for (row, (i, o)) in rows.zip(inputs[0].chunks(n).zip(out.chunks_mut(n))) {
            i.iter().zip(o).for_each(|(i, o)| *o = i ^ self.0 ^ row as u8);
        }
        Ok(())
    }
}

/// The sum of two inputs, byte by byte.
#[derive(Debug)]
pub struct Sum;
impl Op for Sum {
    fn describe(&self) -> String {
        "sum".into()
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        assert_eq!(inputs.len(), 2);
        Ok(inputs[0].clone())
    }
    fn run(&self, _: Rows, _: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        for (o, (a, b)) in out.iter_mut().zip(inputs[0].iter().zip(inputs[1])) {
            *o = a.wrapping_add(*b);
        }
        Ok(())
    }
}

/// Every row twice, one after the other: rows grow.
#[derive(Debug)]
pub struct Twice;
impl Op for Twice {
    fn describe(&self) -> String {
        "twice".into()
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let f = &inputs[0];
        Ok(Form::new(shape(&[f.shape.rows(), f.shape.row_len() * 2]), f.encoding))
    }
    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let n = forms[0].row_bytes()? as usize;
        for (i, o) in inputs[0].chunks(n).zip(out.chunks_mut(2 * n)) {
            o[..n].copy_from_slice(i);
            o[n..].copy_from_slice(i);
        }
        Ok(())
    }
}

/// Adds the sum of all input bytes: a whole-tensor op.
#[derive(Debug)]
pub struct AddTotal;
impl Op for AddTotal {
    fn describe(&self) -> String {
        "add-total".into()
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        Ok(inputs[0].clone())
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Whole
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let n = forms[0].row_bytes()?;
        assert_eq!(inputs[0].len() as u64, n * forms[0].shape.rows());
        let total = inputs[0].iter().fold(0u8, |a, b| a.wrapping_add(*b));
        for (o, i) in out.iter_mut().zip(&inputs[0][(rows.start * n) as usize..]) {
            *o = i.wrapping_add(total);
        }
        Ok(())
    }
}

/// Adds to every row the sum of a table's bytes, which is needed as a whole, and the row's own number: as a product of
/// two factors needs rows of one and all of the other.
#[derive(Debug)]
pub struct AddTable;
impl Op for AddTable {
    fn describe(&self) -> String {
        "add-table".into()
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        Ok(inputs[0].clone())
    }
    fn locality(&self, input: usize) -> Locality {
        if input == 1 { Locality::Whole } else { Locality::Row }
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let n = forms[0].row_bytes()? as usize;
        assert_eq!(inputs[0].len(), out.len());
        assert_eq!(inputs[1].len() as u64, forms[1].row_bytes()? * forms[1].shape.rows());
        let total = inputs[1].iter().fold(0u8, |a, b| a.wrapping_add(*b));
        for (row, (o, i)) in rows.zip(out.chunks_mut(n).zip(inputs[0].chunks(n))) {
            for (o, i) in o.iter_mut().zip(i) {
                *o = i.wrapping_add(total).wrapping_add(row as u8);
            }
        }
        Ok(())
    }
}

/// Finds, in two passes, the byte of which half are smaller (its upper half first), and the sum of all.
#[derive(Debug)]
pub struct Middle {
    /// Fail or panic where this row is.
    pub trap: Option<(u64, bool)>,
}
impl Op for Middle {
    fn describe(&self) -> String {
        "middle".into()
    }
    fn form(&self, _: &[Form]) -> Result<Form> {
        Ok(Form::new(shape(&[2, 5]), U8))
    }
    fn scratch(&self, _: &[Form], _: u64) -> u64 {
        4096
    }
    fn run(&self, _: Rows, _: &[Form], _: &[&[u8]], _: &mut [u8]) -> Result<()> {
        Err(Error::usage("a reduction is not run"))
    }
    fn reduction(&self) -> Option<&dyn Reduction> {
        Some(self)
    }
}
impl Middle {
    /// The bin that holds element number `k`, and the number of it in there.
    fn bin(counts: &[u64], mut k: u64) -> (u8, u64) {
        for (bin, n) in counts.iter().enumerate() {
            if *n > k {
                return (bin as u8, k);
            }
            k -= n;
        }
        (0, 0)
    }
}
impl Reduction for Middle {
    fn passes(&self) -> usize {
        2
    }
    fn add(
        &self,
        earlier: &[Tally],
        rows: Rows,
        forms: &[Form],
        inputs: &[&[u8]],
        tally: &mut Tally,
    ) -> Result<()> {
        if let Some((_, panics)) = self.trap.filter(|(row, _)| rows.contains(row)) {
            assert!(!panics, "the trap");
            return Err(Error::malformed("the trap"));
        }
        assert!(tally.sums.is_empty());
        tally.counts.resize(16, 0);
        let upper = earlier.first().map(|t| Self::bin(&t.counts, forms[0].shape.elements() / 2).0);
        for x in inputs[0] {
            match upper {
                None => tally.counts[usize::from(x >> 4)] += 1,
                Some(upper) if x >> 4 == upper => tally.counts[usize::from(x & 15)] += 1,
                Some(_) => {}
            }
        }
        // Rounding shows the order of blocks.
        let sum = inputs[0].iter().map(|x| f64::from(*x)).sum::<f64>() / 3.0;
        tally.sums = vec![1e16 * sum, sum];
        Ok(())
    }
    fn value(&self, tallies: &[Tally], forms: &[Form], out: &mut [u8]) -> bool {
        let [first, second] = tallies else { return false };
        let (upper, k) = Self::bin(&first.counts, forms[0].shape.elements() / 2);
        out[0] = upper << 4 | Self::bin(&second.counts, k).0;
        out[2..].copy_from_slice(&second.sums[0].to_le_bytes());
        out[1] = second.sums[1] as u8;
        true
    }
}

/// Fails or panics at one row; otherwise copies.
#[derive(Debug)]
pub struct Trap {
    pub row: u64,
    pub panics: bool,
}
impl Op for Trap {
    fn describe(&self) -> String {
        format!("{self:?}")
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        Ok(inputs[0].clone())
    }
    fn run(&self, rows: Rows, _: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        if rows.contains(&self.row) {
            assert!(!self.panics, "trapped at row {}", self.row);
            return Err(Error::malformed(format!("row {} is bad", self.row)));
        }
        out.copy_from_slice(inputs[0]);
        Ok(())
    }
}

pub static NIBBLES: &BlockFormat =
    &BlockFormat { name: "NIBBLES", weights: 4, bytes: 2, ggml_code: 0xffff_0001 };

/// f32 rounded to 0..=15, four to a block of two bytes; then every byte xor a key.
#[derive(Debug)]
pub struct ToNibbles(pub u8);
impl Op for ToNibbles {
    fn describe(&self) -> String {
        format!("nibbles[{}]", self.0)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        assert_eq!(inputs[0].encoding, Encoding::F32);
        Ok(Form::new(inputs[0].shape.clone(), Encoding::Block(NIBBLES)))
    }
    fn run(&self, _: Rows, _: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let q = |b: &[u8]| f32::from_le_bytes(b.try_into().unwrap()).round().clamp(0.0, 15.0) as u8;
        for (i, o) in inputs[0].chunks(8).zip(out) {
            *o = (q(&i[..4]) | q(&i[4..]) << 4) ^ self.0;
        }
        Ok(())
    }
    fn encodes(&self) -> Option<Encode<'_>> {
        Some(Encode { block: NIBBLES, importance: None })
    }
    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Option<Result<()>> {
        assert_eq!(bytes.len() * 2, out.len());
        for (b, o) in bytes.iter().zip(out.chunks_mut(2)) {
            let b = b ^ self.0;
            o[0] = f32::from(b & 15);
            o[1] = f32::from(b >> 4);
        }
        Some(Ok(()))
    }
}

/// The whole value, the slow way.
pub fn naive(expr: &Expr, reader: &FakeReader) -> Vec<u8> {
    let form = expr.form().unwrap();
    let row = form.row_bytes().unwrap() as usize;
    match expr {
        Expr::Read { tensor, .. } => reader.data[*tensor].clone(),
        Expr::Const { bytes, .. } => bytes.to_vec(),
        Expr::Rows { input, map } => {
            let value = naive(input, reader);
            let at = |i: u64| map.source(i) as usize * row;
            (0..form.shape.rows()).flat_map(|i| value[at(i)..at(i) + row].to_vec()).collect()
        }
        Expr::Concat { inputs, .. } => inputs.iter().flat_map(|i| naive(i, reader)).collect(),
        Expr::Reshape { input, .. } => naive(input, reader),
        Expr::Transpose { input } => {
            let form = input.form().unwrap();
            let (m, n) =
                (*form.shape.dims().iter().nth_back(1).unwrap() as usize, form.shape.row_len() as usize);
            let value = naive(input, reader);
            let e = form.row_bytes().unwrap() as usize / n;
            let element = |matrix: &[u8], i: usize, j: usize| matrix[(i * n + j) * e..][..e].to_vec();
            let matrices = value.chunks(m * n * e);
            matrices
                .flat_map(|x| (0..n).flat_map(move |j| (0..m).flat_map(move |i| element(x, i, j))))
                .collect()
        }
        Expr::Apply { op, inputs } => {
            let values: Vec<_> = inputs.iter().map(|i| naive(i, reader)).collect();
            let views: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
            let forms: Vec<_> = inputs.iter().map(|i| i.form().unwrap()).collect();
            let mut out = vec![0; row * form.shape.rows() as usize];
            if let Some(reduction) = op.reduction() {
                let mut tallies = Vec::new();
                while !reduction.value(&tallies, &forms, &mut out) {
                    let mut tally = Tally::default();
                    reduction.add(&tallies, 0..forms[0].shape.rows(), &forms, &views, &mut tally).unwrap();
                    tallies.push(tally);
                }
                return out;
            }
            op.run(0..form.shape.rows(), &forms, &views, &mut out).unwrap();
            out
        }
    }
}

pub const U8: Encoding = Encoding::Plain(DType::U8);

pub fn slice(e: Expr, start: u64, len: u64) -> Expr {
    e.rows(RowMap::Slice { start, len })
}
pub fn swap(e: Expr, a: u64, b: u64) -> Expr {
    e.rows(RowMap::SwapInner { a, b })
}
pub fn concat(inputs: Vec<Expr>) -> Expr {
    let rows = inputs.iter().map(|i| i.form().unwrap().shape.rows()).sum();
    let shape = shape(&[rows, inputs[0].form().unwrap().shape.row_len()]);
    Expr::Concat { inputs, shape }
}
pub fn constant(dims: &[u64], seed: u64) -> Expr {
    let shape = shape(dims);
    let bytes = noise(seed, shape.elements() as usize).into();
    Expr::Const { form: Form::new(shape, U8), bytes }
}
