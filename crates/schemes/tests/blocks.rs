//! ggml's blocks as bundles, and back: the values of the blocks' own decoders, and the same bytes.

use tensormill_kernels::codec;
use tensormill_model::{Expr, Form, Op, RowMap};
use tensormill_schemes::{
    as_blocks, coded, is_quantized,
    ops::{Blocks, Scaled, ToBlocks, grid_of},
    with_scales,
};
use tensormill_tensor::{BlockFormat, DType, Encoding, Shape, ggml};
use tensormill_transforms::Dequantize;

const ALL: [&BlockFormat; 9] = [
    ggml::Q4_0,
    ggml::Q4_1,
    ggml::Q5_0,
    ggml::Q5_1,
    ggml::Q8_0,
    ggml::MXFP4,
    ggml::NVFP4,
    ggml::Q4_K,
    ggml::Q5_K,
];

const ROWS: u64 = 3;
const COLUMNS: u64 = 512;

fn form(block: &'static BlockFormat) -> Form {
    Form::new(Shape::new(vec![ROWS, COLUMNS]).unwrap(), Encoding::Block(block))
}

/// Rows of encoded weights, some of them zero, with codes that an encoder does not choose.
fn rows(block: &'static BlockFormat) -> Vec<u8> {
    let x: Vec<f32> = (0..ROWS * COLUMNS)
        .map(|i| if i / 64 % 5 == 0 { 0.0 } else { (i as f32 * 0.37).sin() * (1.0 + (i % 7) as f32) })
        .collect();
    let mut out = vec![0; (ROWS * form(block).row_bytes().unwrap()) as usize];
    codec(block).unwrap().encode_rows(&x, COLUMNS as usize, None, &mut out).unwrap();
    for b in out.chunks_exact_mut(block.bytes as usize).step_by(3) {
        // The last bytes are codes in all of them.
        let n = b.len();
        b[n - 3..].copy_from_slice(&[0x1f, 0x80, 0xe7]);
    }
    out
}

#[test]
fn bundles_of_blocks_decode_to_what_blocks_decode_to() {
    for block in ALL {
        let (grid, _) = grid_of(block).unwrap();
        let (form, bytes) = (form(block), rows(block));
        let bundle = grid.bundle_bytes(COLUMNS as usize);
        let mut bundles = vec![0; ROWS as usize * bundle];
        Blocks.run(0..ROWS, std::slice::from_ref(&form), &[&bytes], &mut bundles).unwrap();
        let in_row = form.row_bytes().unwrap() as usize;
        for (bundle, row) in bundles.chunks_exact(bundle).zip(bytes.chunks_exact(in_row)) {
            let (mut got, mut want) = (vec![0f32; COLUMNS as usize], vec![0f32; COLUMNS as usize]);
            grid.decode_row(bundle, &mut got);
            codec(block).unwrap().decode_row(row, &mut want).unwrap();
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                // Negative zero is the only difference.
                let same = got.to_bits() == want.to_bits() || (*got == 0.0 && *want == 0.0);
                assert!(same, "{block} column {i}: {got} for {want}");
            }
        }
        // Those whose scales stand as they are go back.
        if block != ggml::Q4_K && block != ggml::Q5_K {
            let op = ToBlocks { grid, columns: COLUMNS, block };
            let of = Blocks.form(&[form]).unwrap();
            let mut back = vec![0; bytes.len()];
            op.run(0..ROWS, &[of], &[&bundles], &mut back).unwrap();
            assert_eq!(back, bytes, "{block}");
        }
    }
}

#[test]
fn codes_go_to_blocks_that_hold_them_exactly() {
    let of = |block| Expr::Read { source: 0, tensor: 0, form: form(block) }.apply(Dequantize);
    let fits = |from, to| as_blocks(&of(from), to).is_some();
    for block in ALL {
        let found = coded(&of(block).rows(RowMap::Slice { start: 1, len: 2 })).unwrap();
        assert_eq!(found.bundle.form().unwrap().shape.rows(), 2);
        for to in ALL {
            let pairs = [
                (ggml::Q4_0, ggml::Q5_0),
                (ggml::Q4_0, ggml::Q8_0),
                (ggml::Q5_0, ggml::Q8_0),
                (ggml::Q4_1, ggml::Q5_1),
            ];
            let exact = block == to && grid_of(to).unwrap().1 != tensormill_kernels::groups::ScaleType::F32;
            assert_eq!(fits(block, to), exact || pairs.contains(&(block, to)), "{block} to {to}");
        }
    }
}

#[test]
fn narrow_integers_become_wide_ones() {
    let (from, to) = (ggml::Q4_0, ggml::Q8_0);
    let bytes = rows(from);
    let (grid, _) = grid_of(from).unwrap();
    let mut bundles = vec![0; ROWS as usize * grid.bundle_bytes(COLUMNS as usize)];
    Blocks.run(0..ROWS, &[form(from)], &[&bytes], &mut bundles).unwrap();
    let of = Blocks.form(&[form(from)]).unwrap();
    let mut wide = vec![0; (ROWS * form(to).row_bytes().unwrap()) as usize];
    ToBlocks { grid, columns: COLUMNS, block: to }.run(0..ROWS, &[of], &[&bundles], &mut wide).unwrap();
    let values = |block: &'static BlockFormat, bytes: &[u8]| {
        let mut x = vec![0f32; COLUMNS as usize];
        codec(block)
            .unwrap()
            .decode_row(&bytes[..form(block).row_bytes().unwrap() as usize], &mut x)
            .unwrap();
        x
    };
    assert_eq!(values(to, &wide), values(from, &bytes));
}

fn number(n: u64) -> Form {
    Form::new(Shape::new(vec![n]).unwrap(), Encoding::F32)
}

#[test]
fn scales_beside_blocks_multiply_their_scales() {
    let scale = 0.1f32;
    for block in ALL {
        let (forms, bytes) = ([form(block), number(1)], rows(block));
        let mut values = vec![0; (ROWS * COLUMNS) as usize * 4];
        Scaled.run(0..ROWS, &forms, &[&bytes, &scale.to_le_bytes()], &mut values).unwrap();
        let mut plain = vec![0f32; COLUMNS as usize];
        let in_row = forms[0].row_bytes().unwrap() as usize;
        for (values, row) in values.chunks_exact(COLUMNS as usize * 4).zip(bytes.chunks_exact(in_row)) {
            codec(block).unwrap().decode_row(row, &mut plain).unwrap();
            for (got, x) in values.as_chunks::<4>().0.iter().zip(&plain) {
                let (got, want) = (f32::from_le_bytes(*got), x * scale);
                let near = want.abs().max(f32::MIN_POSITIVE) * 2e-7;
                assert!((got - want).abs() <= near, "{block}: {got} for {want}");
            }
        }
        let read = Expr::Read { source: 0, tensor: 0, form: form(block) };
        let one = Expr::Read { source: 0, tensor: 1, form: number(1) };
        let scaled = with_scales(&read, &one).unwrap();
        assert!(is_quantized(&scaled));
        // Only 4-bit floats have scales of scales.
        let found = coded(&scaled);
        assert_eq!(found.is_some(), matches!(block.name, "MXFP4" | "NVFP4"), "{block}");
        let Some(found) = found else { continue };
        let mut bundles = vec![0; ROWS as usize * found.grid.bundle_bytes(COLUMNS as usize)];
        Blocks.run(0..ROWS, &forms, &[&bytes, &scale.to_le_bytes()], &mut bundles).unwrap();
        for (bundle, values) in bundles
            .chunks_exact(found.grid.bundle_bytes(COLUMNS as usize))
            .zip(values.chunks_exact(COLUMNS as usize * 4))
        {
            found.grid.decode_row(bundle, &mut plain);
            let got: Vec<u8> = plain.iter().flat_map(|x| x.to_le_bytes()).collect();
            assert_eq!(got, values, "{block}");
        }
    }
}

#[test]
fn each_matrix_of_a_stack_has_its_scale() {
    let stack = Form::new(Shape::new(vec![2, ROWS, COLUMNS]).unwrap(), Encoding::Block(ggml::NVFP4));
    let read = Expr::Read { source: 0, tensor: 0, form: stack };
    let scales = |n| Expr::Read { source: 0, tensor: 1, form: number(n) };
    let scaled = with_scales(&read, &scales(2)).unwrap();
    assert_eq!(scaled.form().unwrap().shape.dims(), [2, ROWS, COLUMNS]);
    let matrix = Shape::new(vec![ROWS, COLUMNS]).unwrap();
    let second = scaled.rows(RowMap::Slice { start: ROWS, len: ROWS }).reshape(matrix);
    let found = coded(&second).unwrap();
    assert_eq!(found.outer.unwrap().expr.form().unwrap(), number(1));
    assert_eq!(found.bundle.form().unwrap().shape.rows(), ROWS);
    for n in [0, 3] {
        assert!(with_scales(&read, &scales(n)).is_err(), "{n}");
    }
    let words = Form::new(Shape::new(vec![1]).unwrap(), Encoding::Plain(DType::I32));
    assert!(with_scales(&read, &Expr::Read { source: 0, tensor: 1, form: words }).is_err());
}

#[test]
fn decoded_blocks_are_quantized_whatever_they_are() {
    let form = Form::new(Shape::new(vec![1, 256]).unwrap(), Encoding::Block(ggml::Q6_K));
    let decoded = Expr::Read { source: 0, tensor: 0, form }.apply(Dequantize);
    assert!(coded(&decoded).is_none());
    assert!(is_quantized(&decoded.rows(RowMap::Slice { start: 0, len: 1 })));
}
