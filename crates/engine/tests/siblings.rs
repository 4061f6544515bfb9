//! Sibling tensors that are parts of one bundle: one read and one encoding for all of them and for other variants, whatever
//! the budget and the threads; their error; packed rows, units, whole inputs, transposed parts.

mod common;
use common::{bundles::*, notes::*, *};
use proptest::prelude::*;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tensormill_engine::{Mode, Output, PlanOptions, Sink, plan};
use tensormill_model::{
    Accelerator, Cast, Checked, ErrorKind, Expr, Form, Layout, Reader, Result, Rows, Task,
};
use tensormill_tensor::{DType, Encoding, ErrorStats};

type Outputs = Vec<(Checked, Layout)>;

/// Tensors of `f32` values between -9 and 9, with rows and columns as given.
fn reader(dims: &[[u64; 2]]) -> FakeReader {
    let specs: Vec<(&[u64], Encoding)> = dims.iter().map(|d| (&d[..], Encoding::F32)).collect();
    let mut r = FakeReader::new(&specs);
    for data in &mut r.data {
        for (i, x) in data.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let y = f32::from(x[0]) / 100.0;
            *x = ((i as f32 * 0.37).sin() * 9.0 * y).to_le_bytes();
        }
    }
    r
}

/// Three ways to store each tensor, one of which transposes: a folder like compressed-tensors', one like GPTQ's, and blocks.
fn variants(r: &FakeReader, turned: bool) -> Outputs {
    let stem = |i: usize, key, rows| r.expr(i).apply(Pour { rows, ..Pour::new(key) });
    let all = 0..r.data.len();
    let model = |f: &dyn Fn(usize) -> Vec<(String, Expr)>| output(all.clone().flat_map(f).collect());
    let flat = |e: Expr| {
        let n = e.form().unwrap().shape.elements();
        e.reshape(shape(&[n]))
    };
    let rows = |i| {
        vec![
            (format!("{i}.scale"), flat(stem(i, 1, 1).apply(Scales(1)))),
            (format!("{i}.packed"), stem(i, 1, 1).apply(Codes)),
            (format!("{i}.points"), stem(i, 1, 1).apply(Scales(1)).apply(Pack(8))),
            (format!("{i}.plain"), r.expr(i)),
        ]
    };
    let turn = |i| {
        let turn = |e: Expr| if turned { e.transpose() } else { e };
        vec![
            (format!("{i}.qweight"), turn(stem(i, 1, 1).apply(Codes)).apply(Pack(8))),
            (format!("{i}.scales"), turn(stem(i, 1, 1).apply(Scales(1)))),
            (format!("{i}.halves"), turn(stem(i, 1, 1).apply(Scales(1))).apply(Cast(DType::F16))),
            (format!("{i}.blocks"), stem(i, 2, 6).apply(Scales(6))),
            (format!("{i}.codes"), turn(stem(i, 2, 6).apply(Codes))),
        ]
    };
    let blocks = |i| vec![(format!("{i}"), r.expr(i).apply(ToNibbles(3)))];
    vec![model(&rows), model(&turn), model(&blocks)]
}

fn check(r: &FakeReader, outs: &[(Checked, Layout)], files: &[Vec<Vec<u8>>], what: &str) {
    for ((model, layout), files) in outs.iter().zip(files) {
        for (t, place) in model.model().tensors.iter().zip(&layout.places) {
            let want = naive(&t.expr, r);
            let got = &files[place.file][place.offset as usize..][..want.len()];
            assert!(got == want, "{}: {} {what}", t.name(), t.expr);
        }
    }
}

const DIMS: [[u64; 2]; 4] = [[300, 128], [77, 400], [1, 20_000], [1030, 8]];

#[test]
fn all_variants_come_from_one_read() {
    for turned in [false, true] {
        let r = Arc::new(reader(&DIMS));
        let outs = variants(&r, turned);
        for threads in [1, 3] {
            r.counts.lock().unwrap().iter_mut().for_each(|c| c.fill(0));
            let ran = run(&r, &outs, &small_tiles(64 << 20, threads, true)).unwrap();
            assert!(r.counts.lock().unwrap().iter().flatten().all(|&c| c == 1), "turned: {turned}");
            check(&r, &outs, &ran.files, "");
        }
    }
}

#[test]
fn bytes_and_errors_depend_on_nothing_but_the_source() {
    for turned in [false, true] {
        let r = Arc::new(reader(&DIMS));
        let outs = variants(&r, turned);
        let least = least(&r, &outs, true);
        let mut first = None;
        for threads in [1, 2, 8] {
            for memory in [least, least + 1000, least + 100_000, 1 << 20, 64 << 20] {
                let options = PlanOptions { tile_bytes: 30_000, ..PlanOptions::new(memory, threads) };
                let ran = run(&r, &outs, &options).unwrap();
                assert!(ran.report.peak_tile_bytes <= memory && ran.report.peak_tile_bytes > 0);
                check(&r, &outs, &ran.files, &format!("{threads} threads, {memory} bytes"));
                let want = first.get_or_insert_with(|| ran.report.outputs.clone());
                assert!(*want == ran.report.outputs, "{threads} threads, {memory} bytes");
            }
        }
    }
}

#[test]
fn the_error_is_the_bundles_and_stands_with_the_first_part() {
    let r = Arc::new(reader(&DIMS));
    let outs = variants(&r, true);
    let ran = run(&r, &outs, &small_tiles(1 << 20, 2, true)).unwrap();
    for (i, dims) in DIMS.iter().enumerate() {
        let bytes = &r.data[i];
        let want: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let direct = |key, rows| {
            let op = Pour { rows, ..Pour::new(key) };
            let bundles = naive(&r.expr(i).apply(op.clone()), &r);
            let mut got = vec![0f32; want.len()];
            let n = bundles.len() / dims[0] as usize;
            for (b, o) in bundles.chunks(n).zip(got.chunks_mut(dims[1] as usize)) {
                tensormill_model::Op::decode(&op, b, o).unwrap().unwrap();
            }
            let mut stats = ErrorStats::default();
            stats.add(&want, &got);
            assert!(stats.rmse() > 0.0);
            stats
        };
        let is = |run: tensormill_engine::TensorRun, stats: &ErrorStats| {
            let error = run.error.unwrap();
            assert_eq!(
                (error.count, error.max_abs, error.different, error.non_finite),
                (stats.count, stats.max_abs, stats.different, stats.non_finite)
            );
            assert!((error.rmse() - stats.rmse()).abs() < 1e-12 && !run.copied);
        };
        let (one, two) = (direct(1, 1), direct(2, 6));
        let part = |output: usize, at: usize, of: usize| ran.report.outputs[output][i * of + at];
        is(part(0, 0, 4), &one);
        is(part(1, 0, 5), &one);
        is(part(1, 3, 5), &two);
        for (output, at, of) in [(0, 1, 4), (0, 2, 4), (1, 1, 5), (1, 2, 5), (1, 4, 5)] {
            assert_eq!(part(output, at, of), tensormill_engine::TensorRun::default());
        }
        assert!(part(0, 3, 4).copied && part(2, 0, 1).error.is_some());
    }
    let ran = run(&r, &outs, &small_tiles(1 << 20, 2, false)).unwrap();
    assert!(ran.report.outputs.iter().flatten().all(|t| t.error.is_none()));
}

#[test]
fn pieces_of_an_output_measure_a_bundle_once() {
    let r = Arc::new(reader(&DIMS));
    let outs = variants(&r, true);
    let whole = run(&r, &outs, &options(1)).unwrap();
    let sources: Vec<Arc<dyn Reader>> = vec![Arc::clone(&r) as _];
    // Siblings alternate between two files.
    let pieces = [[true, false], [false, true]].map(|files| {
        let output = |(model, layout)| Output { files: Some(&files), ..Output::new(model, layout) };
        let outputs: Vec<_> = outs.iter().map(|(m, l)| output((m, l))).collect();
        let plan = plan(&sources, &outputs, &options(2)).unwrap();
        let sinks: Vec<_> = outs.iter().map(|(_, l)| FakeSink::new(l)).collect();
        let dyns: Vec<&dyn Sink> = sinks.iter().map(|s| s as _).collect();
        let report = plan.run(&dyns, &(), &AtomicBool::new(false)).unwrap();
        let files: Vec<_> = sinks.iter().map(FakeSink::bytes).collect();
        (report, files)
    });
    for (output, whole_files) in whole.files.iter().enumerate() {
        assert!(pieces[0].1[output][0] == whole_files[0] && pieces[1].1[output][1] == whole_files[1]);
        for (tensor, run) in whole.report.outputs[output].iter().enumerate() {
            let errors = pieces.each_ref().map(|(r, _)| r.outputs[output][tensor].error);
            assert!(errors.iter().flatten().count() == usize::from(run.error.is_some()));
            assert_eq!(errors[0].or(errors[1]), run.error);
        }
    }
}

fn options(threads: usize) -> PlanOptions {
    PlanOptions { tile_bytes: 10_000, ..PlanOptions::new(4 << 20, threads) }
}

#[test]
fn a_cut_run_goes_on_and_parts_make_the_whole() {
    for turned in [false, true] {
        let r = Arc::new(reader(&DIMS));
        let outs = variants(&r, turned);
        let want = run(&r, &outs, &options(1)).unwrap();
        for most in [0, 1, 3] {
            with_plan(&r, &outs, &options(2), |plan| {
                let files = slates(&outs);
                let broken = Notes { most: Some(most), ..Notes::default() };
                execute(plan, &files, &broken, 0..plan.tiles(), Mode::Write).unwrap_err();
                let notes = Notes { records: broken.records, most: None };
                if most > 0 {
                    // A byte of a part is lost.
                    let place = outs[0].1.places[0];
                    files[0].0.lock().unwrap()[place.file][place.offset as usize] ^= 1;
                }
                // Going on works with less memory, too.
                let tight = PlanOptions { memory: least(&r, &outs, true), ..options(1) };
                with_plan(&r, &outs, &tight, |tight| {
                    assert_eq!((tight.fingerprint(), tight.tiles()), (plan.fingerprint(), plan.tiles()));
                    let report = execute(tight, &files, &notes, 0..plan.tiles(), Mode::Write).unwrap();
                    assert_eq!(report.outputs, want.report.outputs);
                    assert!(report.peak_tile_bytes <= tight.memory());
                });
                assert!(all(&files) == want.files);
                assert_eq!(plan.collect(&notes).unwrap(), want.report.outputs);
                let report = execute(plan, &files, &notes, 0..plan.tiles(), Mode::Write).unwrap();
                assert_eq!((report.read, report.written, report.skipped), (0, 0, plan.output_bytes()));
            });
        }
        with_plan(&r, &outs, &options(2), |plan| {
            let (files, notes) = (slates(&outs), Notes::default());
            let mut read = 0;
            for index in 0..3 {
                let tiles = plan.part(index, 3);
                read += execute(plan, &files, &notes, tiles, Mode::Write).unwrap().read;
            }
            assert!(all(&files) == want.files);
            assert_eq!(
                (read, plan.collect(&notes).unwrap()),
                (plan.source_bytes(), want.report.outputs.clone())
            );
            let written: u64 = files.iter().map(|f| f.1.load(Ordering::Relaxed)).sum();
            assert_eq!(written, plan.output_bytes());
        });
    }
}

#[test]
fn verification_knows_parts_and_values() {
    let r = Arc::new(reader(&DIMS));
    let outs = variants(&r, true);
    with_plan(&r, &outs, &options(2), |plan| {
        let (files, notes) = (slates(&outs), Notes::default());
        execute(plan, &files, &notes, 0..plan.tiles(), Mode::Write).unwrap();
        execute(plan, &files, &notes, 0..plan.tiles(), Mode::Verify).unwrap();
        for tensor in [0, 1, 4] {
            let place = outs[1].1.places[tensor];
            let flip = || files[1].0.lock().unwrap()[place.file][place.offset as usize + 3] ^= 1;
            flip();
            let e = execute(plan, &files, &notes, 0..plan.tiles(), Mode::Verify).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Failed, "{e}");
            flip();
        }
        // The bytes are those of the note, and the note's error is not that of the bundle.
        let mut records = notes.records.lock().unwrap();
        let (one, two) = (records[&0].computes[0].error, records[&0].computes[7].error);
        assert!(one.is_some() && two.is_some() && one != two);
        records.get_mut(&0).unwrap().computes[0].error = two;
        drop(records);
        let e = execute(plan, &files, &notes, 0..plan.tiles(), Mode::Verify).unwrap_err();
        assert!(e.kind() == ErrorKind::Failed && e.message().contains("as close to the source"), "{e}");
    });
}

#[test]
fn numbers_about_the_whole_are_found_once_for_all_siblings() {
    let r = Arc::new(reader(&[[3000, 128], [40, 60]]));
    let most = || r.expr(0).apply(Most);
    let stem = |key| with(Pour::new(key), vec![r.expr(0), most()]);
    let outs = [output(vec![
        ("codes".into(), stem(1).apply(Codes)),
        ("scales".into(), stem(1).apply(Scales(1))),
        ("others".into(), stem(2).apply(Codes)),
        // The number itself is a tensor, and no part.
        ("most".into(), most().apply(Cast(DType::F16))),
        ("table".into(), with(Pack(3), vec![stem(1).apply(Scales(1)), r.expr(1)])),
    ])];
    for (memory, threads) in [(1 << 20, 1), (64 << 20, 3)] {
        r.counts.lock().unwrap().iter_mut().for_each(|c| c.fill(0));
        let options = PlanOptions { tile_bytes: 100_000, ..PlanOptions::new(memory, threads) };
        let ran = run(&r, &outs, &options).unwrap();
        check(&r, &outs, &ran.files, "");
        let counts = r.counts.lock().unwrap();
        assert!(counts[0].iter().all(|c| *c == 2), "one pass for the number, one for all that needs it");
        // 8 tiles of 384 rows, which go by 3 and by 128: once for each, whatever the steps.
        assert!(counts[1].iter().all(|c| *c == 8), "{:?}", counts[1]);
    }
}

#[test]
fn what_is_large_and_needed_as_a_whole_makes_high_tiles() {
    // 400 KiB that each tile needs: not for every 10 KiB of 1 MiB.
    let r = Arc::new(reader(&[[2048, 128], [800, 128]]));
    let outs = [output(vec![("t".into(), with(Pour::new(1), vec![r.expr(0), r.expr(1)]).apply(Codes))])];
    let options = PlanOptions { tile_bytes: 10_000, measure: false, ..PlanOptions::new(2 << 20, 2) };
    let ran = run(&r, &outs, &options).unwrap();
    check(&r, &outs, &ran.files, "");
    assert!(r.counts.lock().unwrap()[1].iter().all(|c| *c == 3));
}

#[test]
fn small_budgets_take_passes_and_read_as_planned() {
    let r = Arc::new(reader(&[[512, 512]]));
    let stem = || r.expr(0).apply(Pour::new(1));
    let outs = [output(vec![
        ("q".into(), stem().apply(Codes).transpose().apply(Pack(8))),
        ("s".into(), stem().apply(Scales(1)).transpose()),
        ("r".into(), stem().apply(Codes)),
    ])];
    let least = least(&r, &outs, true);
    let passes = |memory: u64| {
        r.counts.lock().unwrap()[0].fill(0);
        let ran =
            run(&r, &outs, &PlanOptions { tile_bytes: 64 << 10, ..PlanOptions::new(memory, 2) }).unwrap();
        check(&r, &outs, &ran.files, &format!("{memory} bytes"));
        assert!(ran.report.peak_tile_bytes <= memory && ran.planned <= memory);
        let counts = r.counts.lock().unwrap();
        assert!(counts[0].iter().all(|c| *c == counts[0][0]));
        assert_eq!(ran.report.read, u64::from(counts[0][0]) << 20);
        counts[0][0]
    };
    // Codes and scales are 512 KiB, beside steps.
    assert_eq!(passes(8 << 20), 1);
    assert_eq!(passes(900 << 10), 1);
    let half = passes(400 << 10);
    assert!((2..=4).contains(&half), "{half}");
    // The smallest windows are one row of the scales, of which there are 128.
    assert!((8..=128).contains(&passes(least)), "{least}");
}

#[test]
fn repacked_rows_of_several_tensors_are_read_once() {
    /// Codes and scales that are there already: a bundle that needs no search.
    #[derive(Debug)]
    struct Join;
    impl tensormill_model::Op for Join {
        fn describe(&self) -> String {
            "join".into()
        }
        fn form(&self, f: &[Form]) -> Result<Form> {
            let n = f[0].row_bytes()? + f[1].row_bytes()?;
            Ok(Form::new(shape(&[f[0].shape.rows(), n]), U8))
        }
        fn makes_bundle(&self) -> bool {
            true
        }
        fn run(&self, _: Rows, f: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
            let (a, b) = (f[0].row_bytes()? as usize, f[1].row_bytes()? as usize);
            for ((o, x), y) in out.chunks_mut(a + b).zip(inputs[0].chunks(a)).zip(inputs[1].chunks(b)) {
                o[..a].copy_from_slice(x);
                o[a..].copy_from_slice(y);
            }
            Ok(())
        }
    }
    let r = Arc::new(FakeReader::new(&[(&[500, 64], U8), (&[500, 16], Encoding::F32)]));
    let bundle = || with(Join, vec![r.expr(0), r.expr(1)]);
    let outs = [
        output(vec![
            ("q".into(), bundle().apply(Codes).transpose().apply(Pack(4))),
            ("s".into(), bundle().apply(Scales(1)).transpose()),
        ]),
        output(vec![("c".into(), bundle().apply(Codes)), ("s".into(), bundle().apply(Scales(5)))]),
    ];
    let ran = run(&r, &outs, &small_tiles(1 << 20, 2, true)).unwrap();
    check(&r, &outs, &ran.files, "");
    assert!(r.counts.lock().unwrap().iter().flatten().all(|c| *c == 1));
    assert!(ran.report.outputs.iter().flatten().all(|t| t.error.is_none()));
}

/// Does what it is offered.
#[derive(Default)]
struct Willing {
    tasks: std::sync::Mutex<Vec<String>>,
}
impl Accelerator for Willing {
    fn run(&self, rows: Rows, form: &Form, value: &[u8], tasks: &mut [Task<'_>]) -> Result<()> {
        for t in tasks {
            t.op.run(rows.clone(), std::slice::from_ref(form), &[value], t.out)?;
            t.done = true;
            self.tasks.lock().unwrap().push(t.op.describe());
        }
        Ok(())
    }
}

#[test]
fn bundles_are_offered_to_accelerators() {
    let r = Arc::new(reader(&[[300, 128], [60, 60]]));
    let stem = |extra: bool| {
        let op = Pour { offers: true, ..Pour::new(7) };
        if extra { with(op, vec![r.expr(0), r.expr(1)]) } else { r.expr(0).apply(op) }
    };
    let outs = [
        output(vec![
            ("c".into(), stem(false).apply(Codes)),
            ("t".into(), stem(false).apply(Codes).transpose()),
            ("x".into(), stem(true).apply(Codes)),
        ]),
        output(vec![("n".into(), r.expr(0).apply(ToNibbles(1)))]),
    ];
    for memory in [330_000, 4 << 20] {
        let options = PlanOptions { offload: true, ..PlanOptions::new(memory, 2) };
        let willing = Willing::default();
        let Ran { report, files, .. } = run_on(&r, &outs, &options, &(), Some(&willing)).unwrap();
        assert!(report.peak_tile_bytes <= memory);
        check(&r, &outs, &files, "");
        // Once for all parts, in every pass; what has other inputs is no task.
        let tasks = willing.tasks.into_inner().unwrap();
        let count = |name: &str| tasks.iter().filter(|t| *t == name).count();
        let (pours, nibbles) = (count("pour[7 1]"), count("nibbles[1]"));
        assert!(nibbles > 0 && pours.is_multiple_of(nibbles) && pours + nibbles == tasks.len(), "{tasks:?}");
        assert_eq!(pours == nibbles, memory > 1 << 20, "{tasks:?}");
        let want = run(&r, &outs, &PlanOptions::new(memory, 1)).unwrap();
        assert_eq!(report.outputs, want.report.outputs);
    }
}

#[test]
fn a_failing_encoder_names_the_first_part() {
    let mut r = reader(&[[300, 128]]);
    r.data[0][200 * 128 * 4..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    r.data[0][200 * 128 * 4 + 4..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let r = Arc::new(r);
    for turned in [false, true] {
        let outs = variants(&r, turned);
        let e = run(&r, &outs, &options(2)).err().unwrap();
        assert_eq!((e.kind(), e.tensor_name()), (ErrorKind::Malformed, Some("0.scale")), "{e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_shape_ratio_unit_and_budget(
        (rows, groups) in (1u64..200, 1u64..30),
        unit in prop::sample::select(vec![1u64, 2, 7, 32, 1000]),
        (many, pack, above) in (1u64..40, 1u64..9, 1u64..9),
        turned: bool,
        whole: bool,
        measure: bool,
        extra in 0u64..40_000,
        threads in 1usize..4,
    ) {
        let r = Arc::new(reader(&[[rows, groups * GROUP as u64], [5, 8]]));
        let stem = || {
            let op = Pour { rows: unit, ..Pour::new(9) };
            if whole { with(op, vec![r.expr(0), r.expr(0).apply(Most)]) } else { r.expr(0).apply(op) }
        };
        let turn = |e: Expr| if turned { e.transpose() } else { e };
        let outs = [
            output(vec![
                ("a".into(), stem().apply(Codes)),
                ("b".into(), stem().apply(Scales(many))),
                ("c".into(), turn(stem().apply(Codes).apply(Pack(pack))).apply(Pack(above)).apply(Xor(3))),
                ("d".into(), with(Pack(pack), vec![turn(stem().apply(Scales(1))), r.expr(1)])),
                // No part, since what it takes is not all there is; and packed without a bundle.
                ("e".into(), slice(stem().apply(Codes), rows / 3, rows - rows / 3)),
                ("f".into(), r.expr(0).apply(Pack(many))),
            ]),
            output(vec![("g".into(), r.expr(0).apply(Cast(DType::BF16))), ("h".into(), stem())]),
        ];
        let memory = least(&r, &outs, measure) + extra;
        let ran = run(&r, &outs, &small_tiles(memory, threads, measure)).unwrap();
        check(&r, &outs, &ran.files, &format!("{memory} bytes, {threads} threads"));
    }
}
