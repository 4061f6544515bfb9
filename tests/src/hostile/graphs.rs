//! Graphs that nothing but `scan` reads, and what else only a scan looks at.

use super::{Case, How};

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut n = bytes.len();
    while n > 127 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    [out, bytes.to_vec()].concat()
}

/// A graph in an attribute of a node in a graph, `n` times.
fn recursive(n: usize) -> Vec<u8> {
    let innermost = field(1, &field(4, b"Add"));
    field(7, &(0..n).fold(innermost, |graph, _| field(1, &field(5, &field(6, &graph)))))
}

pub(super) fn cases() -> Vec<Case> {
    let onnx = |tries: &str, bytes: Vec<u8>| Case::new("graphs", ".onnx", How::Scan, tries, bytes);
    let pb = |tries: &str, bytes: Vec<u8>| Case {
        path: format!("graphs/{}/saved_model.pb", super::slug(tries)),
        ..Case::new("graphs", "", How::Scan, tries, bytes)
    };
    let node = |op: &str| field(7, &field(1, &[field(4, op.as_bytes()), field(7, b"my.domain")].concat()));
    let external = |location: &str| {
        let entry = [field(1, b"location"), field(2, location.as_bytes())].concat();
        field(7, &field(5, &field(13, &entry)))
    };
    let found = "`scan` found what a loader would do";
    let whole = node("Custom");
    vec![
        onnx("1000 graphs in graphs", recursive(1000)),
        onnx("3000 graphs in graphs", recursive(3000)),
        onnx("a message of 2^63 bytes", b"\x3a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01".to_vec()),
        onnx("a message of 2^64 - 1 bytes", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec()),
        onnx("a number without end", vec![0xff; 100]),
        onnx("an unknown wire type", b"\x3b\x00".to_vec()),
        onnx("cut off in a node", whole[..whole.len() - 3].to_vec()),
        onnx("a message longer than what holds it", [b"\x3a\x04\x0a\x7f", &[0u8; 200][..]].concat()),
        onnx("weights outside of the folder", external("../../../etc/passwd")).exits(7, found),
        onnx("weights at an absolute path", external("/etc/passwd")).exits(7, found),
        onnx("a node that runs Python", node("PyOp")).exits(7, found),
        pb("a graph that is cut off", field(2, &field(2, &field(1, &field(2, b"ReadFile"))))[..9].to_vec()),
        pb("a graph that reads a file", field(2, &field(2, &field(1, &field(2, b"ReadFile")))))
            .exits(7, found),
        pb("messages without end", b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f".to_vec()),
        Case::new("graphs", ".keras", How::Scan, "an archive cut off", b"PK\x03\x04\x14\0\0\0".to_vec()),
        Case::new("graphs", ".npy", How::Scan, "an array of objects that is os.system", {
            let header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n";
            let head = [&b"\x93NUMPY\x01\0"[..], &(header.len() as u16).to_le_bytes(), header].concat();
            [head, b"\x80\x02cos\nsystem\n(X\x02\0\0\0idtR.".to_vec()].concat()
        })
        .exits(7, found),
        Case::new(
            "graphs",
            ".npy",
            How::Scan,
            "an array whose header has 2^32 - 1 bytes",
            b"\x93NUMPY\x02\0\xff\xff\xff\xff{".to_vec(),
        )
        .exits(0, "suspicious, and no numpy reads it"),
    ]
}
