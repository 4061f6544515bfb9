//! Hostile files: a name, the bytes, and what is to become of them.

use super::build::{Member, archive, dict, four, legacy, pickle, storage, tensor, text, zip};
use tensormill_model::ErrorKind::{self, Malformed, OverLimit, Unsupported};

/// A file and the error it gets; none where it is harmless.
pub type Case = (&'static str, Vec<u8>, Option<ErrorKind>);

/// A tensor at the bottom of `n` containers.
fn nested(open: &[u8], close: &[u8], n: usize) -> Vec<u8> {
    archive(pickle(&[&open.repeat(n), &four(), &close.repeat(n)]))
}

/// `n` lists, each holding the one before it twice; something at the bottom.
fn bomb(bottom: &[u8], n: u8) -> Vec<u8> {
    let levels: Vec<u8> =
        (0..n).flat_map(|i| [&b"q"[..], &[i], b"0](h", &[i], b"h", &[i], b"e"].concat()).collect();
    pickle(&[bottom, &levels])
}

fn opcodes() -> Vec<Case> {
    let many = 1_000_000;
    let system = b"cos\nsystem\n";
    let run = [&system[..], b"(", &text("touch /tmp/owned"), b"tR"].concat();
    let reads = |call: &[u8]| archive(pickle(&[&dict(&[("w", &four()), ("x", call)])]));
    vec![
        ("a million marks", archive(pickle(&[&b"(".repeat(many)])), Some(Malformed)),
        ("a million lists in lists", nested(b"](", b"e", many), Some(OverLimit)),
        ("a million tuples in tuples", nested(b"", b"\x85", many), Some(OverLimit)),
        ("a million dicts in dicts", nested(b"}(X\x01\0\0\0k", b"u", many / 4), Some(OverLimit)),
        ("a million parameters in parameters", nested(b"ctorch._utils\n_rebuild_parameter\n(", b"\x89NtR", 20_000), None),
        (
            "a million typed tensors in typed tensors",
            nested(b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_parameter\nctorch\nTensor\n(", b"\x89NtNtR", 10_000),
            None,
        ),
        (
            "typed tensors that make typed tensors",
            archive(pickle(&[
                &b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nctorch\nTensor\n(".repeat(10_000),
                &b"tNt".repeat(9_999),
                b"tNtR",
            ])),
            Some(Malformed),
        ),
        ("a million empty lists", archive(pickle(&[b"](", &b"]".repeat(many), b"e"])), None),
        ("a million memo entries", archive(pickle(&[b"\x80\x04]", &b"\x94".repeat(many)])), None),
        ("two to the sixty lists", archive(bomb(b"]", 60)), None),
        ("two to the sixty names of a tensor", archive(bomb(&four(), 60)), Some(OverLimit)),
        ("two to the sixty numbers", archive(bomb(b"](K\x01K\x02e", 60)), None),
        (
            "a long text under many names",
            archive(pickle(&[
                &text(&"x".repeat(100_000)),
                b"q\x00]((",
                &b"h\x00".repeat(20_000),
                b"te",
            ])),
            None,
        ),
        (
            "a tensor under many long names",
            archive(pickle(&[
                &four(),
                b"q\x00}(",
                &text(&"k".repeat(60_000)),
                b"](",
                &b"h\x00".repeat(20_000),
                b"eu",
            ])),
            Some(OverLimit),
        ),
        ("a list that holds itself", archive(pickle(&[b"]q\x00h\x00a"])), None),
        ("a list that holds itself and a tensor", archive(pickle(&[b"]q\x00h\x00a", &four(), b"a"])), None),
        ("a dict that holds itself by every key", archive(pickle(&[b"}q\x00(", &four(), &b"K\x01h\x00".repeat(3)[1..], b"u"])), Some(Malformed)),
        (
            "lists that hold each other, and a tensor",
            archive(pickle(&[&(0..40u8).flat_map(|i| [b']', b'q', i]).collect::<Vec<_>>(), b"0".repeat(39).as_slice(), &four(), b"q\x64a",
                &(1..40u8).flat_map(|i| [b'h', i, b'(', b'h', i - 1, b'h', i - 1, b'h', 0x64, b'e', b'0']).collect::<Vec<_>>(), b"h\x27"])),
            Some(OverLimit),
        ),
        ("bytes of 2^63", archive(b"\x80\x04\x8e\0\0\0\0\0\0\0\x80.".to_vec()), Some(Malformed)),
        ("text of 2^64 - 1", archive(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.".to_vec()), Some(Malformed)),
        ("a bytearray of 2^63 - 1", archive(b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.".to_vec()), Some(Malformed)),
        ("a string of -1", archive(b"\x80\x02T\xff\xff\xff\xff.".to_vec()), Some(Malformed)),
        ("an integer of -1 bytes", archive(b"\x80\x02\x8b\xff\xff\xff\xff.".to_vec()), Some(Malformed)),
        ("an integer of a megabyte", archive(pickle(&[b"\x8b\0\0\x10\0", &vec![1; 1 << 20]])), Some(OverLimit)),
        ("an endless line", archive([b"L".to_vec(), vec![b'1'; 1 << 20]].concat()), Some(Malformed)),
        ("a line of digits", archive([b"L".to_vec(), vec![b'1'; 1 << 20], b"L\n.".to_vec()].concat()), Some(Malformed)),
        ("an unknown opcode", archive(b"\x80\x02\xee.".to_vec()), Some(Malformed)),
        ("protocol 6", archive(b"\x80\x06].".to_vec()), Some(Unsupported)),
        ("no STOP", archive(b"\x80\x02]".to_vec()), Some(Malformed)),
        ("nothing", archive(vec![]), Some(Malformed)),
        ("an empty stack", archive(b"\x80\x02.".to_vec()), Some(Malformed)),
        ("a mark taken for a value", archive(pickle(&[b"](a"])), Some(Malformed)),
        ("no mark", archive(pickle(&[b"]e"])), Some(Malformed)),
        ("a key without a value", archive(pickle(&[b"}(K\x01u"])), Some(Malformed)),
        ("nothing in the memo", archive(pickle(&[b"h\x05"])), Some(Malformed)),
        ("a memo key of -1", archive(pickle(&[b"]p-1\n"])), Some(Malformed)),
        ("items for a number", archive(pickle(&[b"K\x01(K\x02e"])), Some(Malformed)),
        ("a call with a number for arguments", archive(pickle(&[&system[..], b"K\x01R"])), Some(Malformed)),
        ("os.system", reads(&run), None),
        ("os.system by INST", reads(&[b"(", &text("id")[..], b"ios\nsystem\n"].concat()), None),
        ("os.system by OBJ", reads(&[b"(", &system[..], &text("id"), b"o"].concat()), None),
        ("os.system by STACK_GLOBAL", reads(&[&text("os")[..], &text("system"), b"\x93", &text("id"), b"\x85R"].concat()), None),
        ("os.system as a class", reads(&[&system[..], b")\x81}(u", b"b"].concat()), None),
        ("an extension", reads(b"\x82\x01)R"), None),
        ("a computed import", reads(b"K\x01K\x02\x93)R"), None),
        ("os.system makes a storage", reads(&tensor(&run, 0, &[2], &[1])), Some(Unsupported)),
        (
            "os.system makes a size",
            reads(&[b"ctorch._utils\n_rebuild_tensor_v2\n(", &storage("FloatStorage", "0", 4)[..], b"K\0", &run, b"(K\x01t\x89NtR"].concat()),
            Some(Malformed),
        ),
        ("os.system is given a tensor", reads(&[&system[..], b"(", &four(), b"tR"].concat()), Some(Unsupported)),
        ("an object with a tensor inside", reads(&[b"csome\nThing\n)\x81}", &text("w")[..], &four(), b"sb"].concat()), Some(Unsupported)),
        ("a storage pickled within", reads(&[b"ctorch.storage\n_load_from_bytes\n(", &text("x")[..], b"tR"].concat()), Some(Unsupported)),
        ("a foreign persistent id", archive(pickle(&[&text("x"), b"Q"])), Some(Malformed)),
        ("an odd persistent id", archive(pickle(&[b"(", &text("storage"), b"tQ"])), Some(Malformed)),
        ("a name of a megabyte", reads(&[b"c", &vec![b'm'; 1 << 20][..], b"\nx\n)R"].concat()), None),
        ("names without end", archive(pickle(&[&(0..100_000u32).flat_map(|i| format!("cm{i}\nx\n0").into_bytes()).collect::<Vec<_>>(), b"]"])), None),
        ("dicts made of dicts", archive(pickle(&[
            b"}q\x00(", &(0..50_000u32).flat_map(|i| [b"J", &i.to_le_bytes()[..], b"N"].concat()).collect::<Vec<_>>(), b"u",
            &b"ccollections\nCounter\n(h\x00tR0".repeat(100_000),
        ])), Some(OverLimit)),
        ("bytes made of text again and again", archive(pickle(&[
            b"V", &vec![b'x'; 1 << 20], b"\nq\x00X\x06\0\0\0latin1q\x010", &b"c_codecs\nencode\n(h\x00h\x01tR0".repeat(100_000),
        ])), Some(OverLimit)),
    ]
}

fn views() -> Vec<Case> {
    let of = |numel, offset, size: &[i64], stride: &[i64]| {
        archive(pickle(&[&dict(&[(
            "w",
            &tensor(&storage("FloatStorage", "0", numel), offset, size, stride),
        )])]))
    };
    let big = i64::MAX;
    vec![
        ("a storage smaller than its tensor", of(4, 0, &[5], &[1]), Some(Malformed)),
        ("a record smaller than its storage", of(5, 0, &[5], &[1]), Some(Malformed)),
        ("a storage of 2^63 - 1 elements", of(big, 0, &[2], &[1]), Some(Malformed)),
        ("a storage of -1 elements", of(-1, 0, &[2], &[1]), Some(Malformed)),
        ("an offset behind the storage", of(4, 4, &[1], &[1]), Some(Malformed)),
        ("an offset of -1", of(4, -1, &[1], &[1]), Some(Malformed)),
        ("an offset of 2^63 - 1", of(4, big, &[1], &[1]), Some(Malformed)),
        ("a stride over the end", of(4, 0, &[2, 2], &[3, 1]), Some(Malformed)),
        ("a stride of 2^63 - 1", of(4, 0, &[2, 2], &[big, 1]), Some(Malformed)),
        ("a stride of -1", of(4, 3, &[2], &[-1]), Some(Malformed)),
        ("dimensions beyond 64 bits", of(4, 0, &[big, big, big], &[0, 0, 0]), Some(Malformed)),
        ("2^62 elements from one", of(4, 0, &[1 << 62], &[0]), Some(Malformed)),
        ("empty, and beyond 64 bits", of(4, 0, &[0, big, big], &[0, 0, 0]), Some(Malformed)),
        ("a row beyond 64 bits, empty", of(4, 0, &[0, big], &[0, 0]), Some(Malformed)),
        ("more strides than dimensions", of(4, 0, &[2], &[1, 1]), Some(Malformed)),
        ("seventeen dimensions", of(4, 0, &[1; 17], &[1; 17]), Some(OverLimit)),
        ("four views of the same bytes", of(4, 0, &[4, 4], &[0, 1]), None),
        (
            "a storage that is not there",
            archive(pickle(&[&dict(&[("w", &tensor(&storage("FloatStorage", "9", 4), 0, &[2], &[1]))])])),
            Some(Malformed),
        ),
        (
            "a storage of another folder",
            zip(&[
                Member::stored("a/data.pkl", pickle(&[&tensor(&storage("FloatStorage", "../b/0", 4), 0, &[2], &[1])])),
                Member::stored("b/0", vec![7; 16]),
            ]),
            Some(Malformed),
        ),
        (
            "two types of one storage",
            archive(pickle(&[&dict(&[
                ("w", &four()),
                ("x", &tensor(&storage("DoubleStorage", "0", 2), 0, &[2], &[1])),
                ("y", &tensor(&storage("DoubleStorage", "0", 4), 0, &[2], &[1])),
            ])])),
            Some(Malformed),
        ),
        ("two tensors of one name", archive(pickle(&[&dict(&[("a.b", &four()), ("a", &dict(&[("b", &tensor(&storage("FloatStorage", "0", 4), 1, &[1], &[1]))]))])])), Some(Malformed)),
        ("a key that occurs twice", archive(pickle(&[&dict(&[("a", b"K\x01"), ("a", &four())])])), None),
        (
            "a numpy array of too few bytes",
            archive(pickle(&[b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85NtR(K\x01K\x09\x85cnumpy\ndtype\n(", &text("f8"), b"tR\x89U\x04abcdtb"])),
            Some(Malformed),
        ),
        (
            "a numpy array of objects",
            archive(pickle(&[b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85NtR(K\x01K\x02\x85cnumpy\ndtype\n(", &text("O8"), b"tR\x89](K\x01K\x02etb"])),
            Some(Unsupported),
        ),
    ]
}

fn archives() -> Vec<Case> {
    let pkl = || Member::stored("a/data.pkl", pickle(&[&dict(&[("w", &four())])]));
    let data = || Member::stored("a/data/0", vec![7; 16]);
    let with = |change: &dyn Fn(&mut Member)| {
        let mut m = data();
        change(&mut m);
        zip(&[pkl(), m])
    };
    let bomb = vec![0; 64 << 20];
    let mut big = b"\x80\x02".to_vec();
    big.resize(65 << 20, b'N');
    let big = Member::deflated("a/data.pkl", &big);
    let big_pickle = || big.clone();
    vec![
        ("a plain archive", zip(&[pkl(), data()]), None),
        ("a member twice", zip(&[pkl(), data(), data()]), Some(Malformed)),
        ("members that overlap", with(&|m| m.at = Some(10)), Some(Malformed)),
        ("two members in one place", with(&|m| m.at = Some(0)), Some(Malformed)),
        ("a member behind the file", with(&|m| m.at = Some(1 << 40)), Some(Malformed)),
        ("a member at 2^64 - 1", with(&|m| m.at = Some(u64::MAX)), Some(Malformed)),
        ("a length of 2^63", with(&|m| (m.len, m.packed) = (1 << 63, 1 << 63)), Some(Malformed)),
        ("a length of 2^64 - 1", with(&|m| (m.len, m.packed) = (u64::MAX, u64::MAX)), Some(Malformed)),
        ("a member over the directory", with(&|m| (m.len, m.packed) = (17, 17)), Some(Malformed)),
        ("a stored member of two lengths", with(&|m| m.len = 400), Some(Malformed)),
        (
            "another name in its own header",
            with(&|m| m.local_name = Some("a/data/1".into())),
            Some(Malformed),
        ),
        (
            "a longer name in its own header",
            with(&|m| m.local_name = Some("a/data/0".repeat(20))),
            Some(Malformed),
        ),
        ("encrypted", with(&|m| m.flags = 1), Some(Unsupported)),
        ("another compression", with(&|m| m.method = 12), Some(Unsupported)),
        (
            "weights that unpack to less than they say",
            zip(&[pkl(), Member { len: 16, ..Member::deflated("a/data/0", &[7; 15]) }]),
            None,
        ),
        (
            "weights that cannot unpack to what they say",
            zip(&[pkl(), Member { len: 1 << 40, ..Member::deflated("a/data/0", &[7; 16]) }]),
            Some(Malformed),
        ),
        (
            "weights that are no deflated data",
            zip(&[pkl(), Member { method: 8, len: 16, ..Member::stored("a/data/0", vec![0xff; 16]) }]),
            None,
        ),
        (
            "a bomb of weights",
            zip(&[
                Member::stored(
                    "a/data.pkl",
                    pickle(&[&tensor(
                        &storage("ByteStorage", "0", 64 << 20),
                        0,
                        &[64, 1 << 20],
                        &[1 << 20, 1],
                    )]),
                ),
                Member::deflated("a/data/0", &bomb),
            ]),
            None,
        ),
        ("a bomb of a pickle", zip(&[big_pickle(), data()]), Some(OverLimit)),
        (
            "a bomb of a pickle that says it is small",
            zip(&[Member { len: 1000, ..big_pickle() }, data()]),
            Some(Malformed),
        ),
        ("a damaged pickle", zip(&[Member { crc: 1, ..pkl() }, data()]), Some(Malformed)),
        ("no pickle", zip(&[data()]), Some(Unsupported)),
        (
            "two pickles",
            zip(&[
                data(),
                Member { name: "b/data.pkl".into(), ..pkl() },
                Member { name: "c/data.pkl".into(), ..pkl() },
            ]),
            Some(Malformed),
        ),
        ("no members", zip(&[]), Some(Malformed)),
        (
            "an odd byte order",
            zip(&[pkl(), data(), Member::stored("a/byteorder", *b"middle")]),
            Some(Unsupported),
        ),
        (
            "a byte order without end",
            zip(&[pkl(), data(), Member::stored("a/byteorder", vec![b'x'; 1000])]),
            Some(OverLimit),
        ),
        (
            "many members",
            zip(&(0..60_000)
                .map(|i| Member::stored(&format!("a/x{i}"), vec![]))
                .chain([pkl(), data()])
                .collect::<Vec<_>>()),
            None,
        ),
        ("text behind the archive", [zip(&[pkl(), data()]), b"x".to_vec()].concat(), Some(Malformed)),
    ]
}

fn streams() -> Vec<Case> {
    let object = pickle(&[&dict(&[("w", &four())])]);
    let rest = |n: u64, bytes: usize| [n.to_le_bytes().to_vec(), vec![7; bytes]].concat();
    vec![
        ("a plain stream", legacy(&object, &["0"], &rest(4, 16)), None),
        ("a storage cut short", legacy(&object, &["0"], &rest(4, 15)), Some(Malformed)),
        ("a storage of 2^63 elements", legacy(&object, &["0"], &rest(1 << 63, 16)), Some(Malformed)),
        (
            "a storage of other size than its tensors say",
            legacy(&object, &["0"], &rest(3, 12)),
            Some(Malformed),
        ),
        ("no storages", legacy(&object, &[], &[]), Some(Malformed)),
        (
            "a storage of no tensor",
            legacy(&object, &["0", "1"], &[rest(4, 16), rest(4, 16)].concat()),
            Some(Malformed),
        ),
        (
            "a storage twice",
            legacy(&object, &["0", "0"], &[rest(4, 16), rest(4, 16)].concat()),
            Some(Malformed),
        ),
        (
            "2^61 elements of four bytes",
            legacy(
                &pickle(&[&tensor(&storage("FloatStorage", "0", 1 << 61), 0, &[2], &[1])]),
                &["0"],
                &rest(1 << 61, 16),
            ),
            Some(Malformed),
        ),
        (
            "another version",
            [pickle(&[b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"]), pickle(&[b"K\x07"])].concat(),
            Some(Unsupported),
        ),
        ("empty", vec![], Some(Malformed)),
        ("zeros", vec![0; 1000], Some(Malformed)),
        ("text", b"version https://git-lfs.github.com/spec/v1\n".to_vec(), Some(Malformed)),
        ("only the first bytes of an archive", b"PK\x03\x04".to_vec(), Some(Malformed)),
    ]
}

/// All of them.
pub fn cases() -> Vec<Case> {
    [opcodes(), views(), archives(), streams()].concat()
}
