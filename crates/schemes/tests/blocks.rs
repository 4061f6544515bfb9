//! ggml's blocks as bundles, and back: the values of the blocks' own decoders, and the same bytes.

use tensormill_kernels::codec;
use tensormill_model::{Expr, Form, Op, RowMap};
use tensormill_schemes::{
    as_blocks, coded,
    ops::{Blocks, ToBlocks, grid_of},
};
use tensormill_tensor::{BlockFormat, Encoding, Shape, ggml};
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
        Blocks.run(0..ROWS, &[form.clone()], &[&bytes], &mut bundles).unwrap();
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
