//! Bytes that nobody planned: whatever is opened can be read, and nothing panics.

mod common;

use common::{build, golden, open, store};
use proptest::prelude::*;
use tensormill_model::Limits;
use tensormill_pickle::{PickleOptions, audit, instructions, pickles};

const GOLDEN: [&str; 12] = [
    "nested.ckpt",
    "views.pt",
    "protocol4.pt",
    "legacy.pt",
    "legacy4.pt",
    "tar.pt",
    "numpy0.pkl",
    "numpy5.pt",
    "quantized.pt",
    "module.pt",
    "script.pt",
    "zip64.pt",
];

fn all() -> PickleOptions {
    PickleOptions { key: None, all: true }
}

/// Opens, reads and audits; gives whether it opened.
fn survive(bytes: Vec<u8>) -> bool {
    let file = store("test.pt", bytes.clone());
    let limits = Limits::default();
    for p in pickles(&file, &limits).unwrap_or_default() {
        audit(&*p.store, p.start, &limits);
        let _ = instructions(&*p.store, p.start, &limits).count();
    }
    let Ok(r) = open(bytes, &all()) else { return false };
    for (t, spec) in r.index().tensors.iter().enumerate() {
        let Ok(n) = spec.bytes() else { panic!("{spec:?} has no size") };
        if n < 1 << 20 {
            let _ = r.read(t, 0..spec.shape.rows(), &mut vec![0; n as usize]);
        }
    }
    true
}

/// Pieces that do something, so that soups of them get somewhere.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(b"(]}).0125NabdelostuRQ\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94".to_vec()).prop_map(|b| vec![b]),
        3 => (0u8..8).prop_map(|n| vec![b'q', n]),
        3 => (0u8..8).prop_map(|n| vec![b'h', n]),
        2 => any::<u8>().prop_map(|n| vec![b'K', n]),
        2 => Just(build::text("a")),
        1 => Just(build::four()),
        1 => Just(build::storage("FloatStorage", "0", 4)),
        1 => Just(b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec()),
        1 => Just(b"ctorch._tensor\n_rebuild_from_type_v2\n".to_vec()),
        1 => Just(b"ctorch._utils\n_rebuild_qtensor\n".to_vec()),
        1 => Just(b"ccollections\nOrderedDict\n".to_vec()),
        1 => Just(b"cnumpy.core.multiarray\n_reconstruct\n".to_vec()),
        1 => Just(b"cnumpy.core.multiarray\nscalar\n".to_vec()),
        1 => Just(b"cnumpy\ndtype\n".to_vec()),
        1 => Just(b"cos\nsystem\n".to_vec()),
        1 => Just(b"c__torch__\nM\n".to_vec()),
    ];
    prop::collection::vec(piece, 0..80).prop_map(|p| p.concat())
}

proptest! {
    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        survive(bytes.clone());
        survive(build::archive(bytes.clone()));
        survive([b"PK\x03\x04".to_vec(), bytes].concat());
    }

    #[test]
    fn soups_of_opcodes(soup in soup()) {
        survive(build::archive(build::pickle(&[&soup])));
        survive(build::legacy(&build::pickle(&[&soup]), &["0"], &[&4u64.to_le_bytes()[..], &[7; 16]].concat()));
    }

    #[test]
    fn changed_golden_files(
        which in 0..GOLDEN.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        splice in prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0usize..200)),
    ) {
        let mut bytes = golden(GOLDEN[which]);
        for (at, b) in changes {
            let at = at.index(bytes.len());
            bytes[at] = b;
        }
        if let Some((from, to, n)) = splice {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            let piece = bytes[from..(from + n).min(bytes.len())].to_vec();
            bytes.splice(to..to, piece);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        survive(bytes);
    }
}

#[test]
fn some_of_them_open() {
    assert!(GOLDEN.iter().all(|g| survive(golden(g))));
    assert!(survive(build::archive(build::pickle(&[&build::four()]))));
}
