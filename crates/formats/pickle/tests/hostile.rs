//! Files that lie: an error of the right kind or a harmless result, never a panic, never much time or memory.

mod common;

use common::{build, golden, hostile::cases, open, refused, store, whole};
use std::time::{Duration, Instant};
use tensormill_model::{Error, ErrorKind, Limits, Reader};
use tensormill_pickle::{PickleOptions, audit, open_with, pickles};

fn all() -> PickleOptions {
    PickleOptions { key: None, all: true }
}

/// Reads a few rows of everything, as whoever converts would.
fn read_some(r: &dyn Reader) -> Result<(), Error> {
    for (t, spec) in r.index().tensors.iter().enumerate() {
        let (rows, row) = (spec.shape.rows(), spec.row_bytes()?);
        for i in [0, rows / 2, rows.saturating_sub(1)] {
            if i < rows && row < 8 << 20 {
                r.read(t, i..i + 1, &mut vec![0; row as usize])?;
            }
        }
    }
    Ok(())
}

/// Peak of resident memory since the last call, in bytes; nothing where the system does not tell.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    Some(kib << 10)
}

/// One test, so that its memory is the process's.
#[test]
fn hostile_files_cost_little_and_get_their_errors() {
    let cases = cases();
    assert!(cases.len() > 100);
    for (name, bytes, want) in cases {
        let size = bytes.len();
        let file = store("test.pt", bytes);
        peak();
        let before = peak();
        let start = Instant::now();
        let opened = open_with(&file, &Limits::default(), &all());
        let opened = opened.map(|r| (read_some(&*r), r));
        let time = start.elapsed();
        let after = peak();
        match (&opened, want) {
            (Ok(_), None) => {}
            (Err(e), Some(kind)) => assert_eq!(e.kind(), kind, "{name}: {e}"),
            (Ok((_, r)), Some(_)) => panic!("{name} was accepted: {:?}", r.index()),
            (Err(e), None) => panic!("{name}: {e}"),
        }
        drop(opened);
        // Unoptimised builds, with other tests beside this one, take several times as long.
        assert!(time < Duration::from_secs(4), "{name}: {time:?} for {size} bytes");
        if let (Some(a), Some(b)) = (before, after) {
            // At most: fifty bytes for every byte of a pickle that does nothing but make values.
            assert!(b.saturating_sub(a) < 100 << 20, "{name}: {} MiB", (b - a) >> 20);
        }
        println!(
            "{name}: {size} bytes, {time:?}, {:?} KiB",
            after.zip(before).map(|(b, a)| b.saturating_sub(a) >> 10)
        );

        // What a loader would do can be told of any of them.
        let start = Instant::now();
        if let Ok(list) = pickles(&file, &Limits::default()) {
            for p in list {
                audit(&*p.store, p.start, &Limits::default());
            }
        }
        assert!(start.elapsed() < Duration::from_secs(4), "{name}: audit {:?}", start.elapsed());
    }
}

#[test]
fn nothing_that_is_cut_off_is_accepted() {
    let files = [
        build::archive(build::pickle(&[&build::dict(&[("w", &build::four())])])),
        golden("tensor.pt"),
        golden("zip64.pt"),
        golden("legacy4.pt"),
        golden("numpy4.pkl"),
    ];
    for bytes in files {
        open(bytes.clone(), &all()).unwrap();
        for n in 0..bytes.len() {
            let e = refused(open(bytes[..n].to_vec(), &all()));
            assert!(matches!(e.kind(), ErrorKind::Malformed | ErrorKind::Unsupported), "{n}: {e}");
        }
    }
}

#[test]
fn every_flipped_byte_is_survived() {
    for name in [
        "sparse.pt",
        "nested.ckpt",
        "quantized.pt",
        "legacy.pt",
        "tar.pt",
        "traced.pt",
        "numpy0.pkl",
        "numpy5.pt",
    ] {
        let bytes = golden(name);
        // Each byte of the small ones, fewer of the others.
        for i in (0..bytes.len()).step_by(1 + bytes.len() / 4000) {
            for mask in [0xff, 0x01] {
                let mut b = bytes.clone();
                b[i] ^= mask;
                if let Ok(r) = open(b, &all()) {
                    let _ = read_some(&*r);
                }
            }
        }
    }
}

#[test]
fn limits_are_the_callers() {
    let bytes = golden("nested.ckpt");
    let with = |change: &dyn Fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        open_with(&store("test.pt", bytes.clone()), &limits, &all())
    };
    with(&|_| ()).unwrap();
    for e in [
        with(&|l| l.opcodes = 1000),
        with(&|l| l.values = 1000),
        with(&|l| l.tensors = 10),
        with(&|l| l.string_bytes = 100),
        with(&|l| l.header_bytes = 1000),
        with(&|l| l.rank = 1),
    ] {
        assert_eq!(refused(e).kind(), ErrorKind::OverLimit);
    }
    // Metadata beyond the limit is lost, and that is said.
    let r = with(&|l| l.metadata = 3).unwrap();
    assert_eq!(r.index().metadata.len(), 3);
    assert!(r.index().left_out.iter().any(|l| l.what.contains("too many")));
    let deflated = golden("deflated.pt");
    let mut limits = Limits::default();
    limits.unpacked_bytes = 100;
    let e = refused(open_with(&store("test.pt", deflated), &limits, &all()));
    assert_eq!(e.kind(), ErrorKind::OverLimit);
    assert!(e.hint_text().is_some_and(|h| h.contains("zip -0")), "{e}");
}

#[test]
fn errors_say_where_and_what_next() {
    let refuse = |call: &[u8], all: &PickleOptions| {
        let bytes = build::archive(build::pickle(&[&build::dict(&[("w", &build::four()), ("x", call)])]));
        refused(open(bytes, all))
    };
    let run = [b"cos\nsystem\n(", &build::text("id")[..], b"tR"].concat();
    let e = refuse(&build::tensor(&run, 0, &[2], &[1]), &all());
    let text = e.to_string();
    assert!(text.starts_with("test.pt: tensor x: its storage is os.system (at byte "), "{text}");
    assert!(text.contains("of data.pkl) (torch._utils._rebuild_tensor_v2, at byte "), "{text}");
    assert!(e.hint_text().is_some());
    let e = refuse(b"", &all());
    let end = build::pickle(&[&build::dict(&[("w", &build::four()), ("x", b"")])]).len();
    assert_eq!(e.to_string(), format!("test.pt: a key without a value (at byte {} of data.pkl)", end - 2));
    let e = refuse(b"N", &PickleOptions { key: Some("y".into()), all: false });
    assert_eq!(e.kind(), ErrorKind::Usage);
    assert_eq!(e.hint_text(), Some("at its root there are: w, x"));
}

#[test]
fn reads_are_checked() {
    let r = open(golden("views.pt"), &all()).unwrap();
    for (rows, n) in [(0..25, 25 * 40), (0..24, 24 * 40 - 1), (u64::MAX..u64::MAX, 0)] {
        assert_eq!(r.read(0, rows, &mut vec![0; n]).unwrap_err().kind(), ErrorKind::Usage);
    }
    #[allow(clippy::reversed_empty_ranges, reason = "what is refused")]
    let backward = 5..4;
    assert_eq!(r.read(0, backward, &mut []).unwrap_err().kind(), ErrorKind::Usage);
    // Deflated weights that end early are found out when they are read, with their name.
    let members = [
        build::Member::stored("a/data.pkl", build::pickle(&[&build::dict(&[("w", &build::four())])])),
        build::Member { len: 16, ..build::Member::deflated("a/data/0", &[7; 15]) },
    ];
    let r = open(build::zip(&members), &all()).unwrap();
    let e = whole(&*r, 0).unwrap_err();
    assert_eq!(
        (e.kind(), e.tensor_name(), e.file_name()),
        (ErrorKind::Malformed, Some("w"), Some("test.pt"))
    );
}
