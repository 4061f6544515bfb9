//! Forms that no torch at hand writes any more, or that no file of the golden data has, put together by hand.

mod common;

use common::{build, open, refused, store, whole};
use tensormill_model::{ErrorKind, Limits, Value};
use tensormill_pickle::{PickleOptions, open_with};

/// Storage `0` is the bytes 0 to 15.
fn archive(pickle: Vec<u8>) -> Vec<u8> {
    let data: Vec<u8> = (0..16).collect();
    build::zip(&[build::Member::stored("a/data.pkl", pickle), build::Member::stored("a/data/0", data)])
}

/// Name, type, dimensions and bytes of every tensor, then aliases and what is left out.
fn told(bytes: Vec<u8>, key: Option<&str>) -> Vec<String> {
    let options = PickleOptions { key: key.map(str::to_owned), all: false };
    let r = match open(bytes, &options) {
        Ok(r) => r,
        Err(e) => return vec![format!("{:?}: {e}", e.kind())],
    };
    let index = r.index();
    let mut out: Vec<String> = index
        .tensors
        .iter()
        .enumerate()
        .map(|(i, t)| format!("{} {} {} {:?}", t.name, t.encoding, t.shape, whole(&*r, i).unwrap()))
        .collect();
    out.extend(index.aliases.iter().map(|a| format!("{} = {}", a.name, index.tensors[a.tensor].name)));
    out.extend(index.left_out.iter().map(|l| format!("({}: {})", l.name, l.what)));
    out
}

fn one(value: &[u8]) -> Vec<String> {
    told(archive(build::pickle(&[&build::dict(&[("w", value)])])), None)
}

fn floats(numel: i64) -> Vec<u8> {
    build::storage("FloatStorage", "0", numel)
}

const W: &str = "w f32 [2] [4, 5, 6, 7, 8, 9, 10, 11]";

#[test]
fn tensors_of_every_age() {
    let args = |more: &[u8]| [b"(", &floats(4)[..], b"K\x01(K\x02t(K\x01t", more, b"t"].concat();
    // torch 0.1 to 0.3: the first rebuild function, and state given to an object of a typed class.
    assert_eq!(one(&[b"ctorch._utils\n_rebuild_tensor\n", &args(b"")[..], b"R"].concat()), [W]);
    assert_eq!(one(&[b"ctorch\nFloatTensor\n)\x81", &args(b"")[..], b"b"].concat()), [W]);
    assert_eq!(one(&[b"ctorch.cuda\nHalfTensor\n)R", &args(b"\x88")[..], b"b"].concat()), [W]);
    // Parameters by function, by class, and within each other.
    let tensor = build::tensor(&floats(4), 1, &[2], &[1]);
    assert_eq!(one(&[b"ctorch._utils\n_rebuild_parameter\n(", &tensor[..], b"\x88NtR"].concat()), [W]);
    assert_eq!(one(&[b"ctorch.nn.parameter\nParameter\n(", &tensor[..], b"\x88t\x81"].concat()), [W]);
    // A class of its own: the tensor is kept, the class is told.
    let typed = |func: &str, class: &str| {
        let args = args(b"\x89N");
        [
            b"ctorch._tensor\n_rebuild_from_type_v2\n(c",
            func.as_bytes(),
            b"\nc",
            class.as_bytes(),
            b"\n",
            &args,
            b"}tR",
        ]
        .concat()
    };
    let v2 = "torch._utils\n_rebuild_tensor_v2";
    assert_eq!(one(&typed(v2, "torch\nTensor")), [W]);
    assert_eq!(
        one(&typed(v2, "fastai\nTensorImage")),
        [W, "(w: its class fastai.TensorImage and attributes; the tensor is kept)"]
    );
    let e = one(&typed("torch._utils\n_rebuild_wrapper_subclass", "x\nY"));
    assert!(e[0].starts_with("Unsupported: test.pt: tensor w: a tensor subclass that wraps others"), "{e:?}");
    // Devices that pickled through the processor.
    let on = |ty: &str| {
        [
            b"ctorch._utils\n_rebuild_device_tensor_from_cpu_tensor\n(",
            &tensor[..],
            b"ctorch\n",
            ty.as_bytes(),
            b"\nX\x01\0\0\0x\x89tR",
        ]
        .concat()
    };
    assert_eq!(one(&on("float32")), [W]);
    assert!(one(&on("bfloat16"))[0].contains("to be cast to bfloat16"));
}

#[test]
fn dtypes_that_torch_does_not_save() {
    let v3 = |ty: &str| {
        // In a module of its own.
        let storage = build::storage("UntypedStorage", "0", 16);
        let at = storage.windows(7).position(|w| w == b"ctorch\n").unwrap();
        let storage = [&storage[..at], b"ctorch.storage\n", &storage[at + 7..]].concat();
        [
            b"ctorch._utils\n_rebuild_tensor_v3\n(",
            &storage[..],
            b"K\x02(K\x03t(K\x02t\x89Nctorch\n",
            ty.as_bytes(),
            b"\ntR",
        ]
        .concat()
    };
    assert_eq!(one(&v3("uint4"))[0], "w u8 [3] [2, 4, 6]");
    assert_eq!(one(&v3("uint4"))[1], "(w: the dtype torch.uint4: its bytes are kept as u8)");
    assert_eq!(one(&v3("int7"))[0], "w i8 [3] [2, 4, 6]");
    assert_eq!(one(&v3("float4_e2m1fn_x2")), ["w f4 [6] [2, 4, 6]"]);
    assert_eq!(one(&v3("uint16")), ["w u16 [3] [4, 5, 8, 9, 12, 13]"]);
    assert!(one(&v3("float99"))[0].contains("torch.float99 is no dtype that is known"));
}

#[test]
fn storages_that_are_parts_of_others() {
    // The sixth field of old persistent ids: (key, first element, number of elements).
    let view = [
        b"(",
        &build::text("storage")[..],
        b"ctorch\nFloatStorage\n",
        &build::text("0"),
        &build::text("cpu"),
        b"K\x04(",
        &build::text("9"),
        b"K\x01K\x03ttQ",
    ]
    .concat();
    let object =
        |offset, size| build::pickle(&[&build::dict(&[("w", &build::tensor(&view, offset, &[size], &[1]))])]);
    let file = |object: &[u8]| {
        let data: Vec<u8> = [&4u64.to_le_bytes()[..], &(0..16).collect::<Vec<u8>>()].concat();
        build::legacy(object, &["0"], &data)
    };
    assert_eq!(told(file(&object(0, 2)), None), [W]);
    assert_eq!(told(file(&object(1, 2)), None), ["w f32 [2] [8, 9, 10, 11, 12, 13, 14, 15]"]);
    assert!(told(file(&object(2, 2)), None)[0].contains("ends at byte 16 of a storage of 12"));
    // Classes with their source, as torch pickled modules until 1.5.
    let module = [b"(", &build::text("module")[..], b"csome\nNet\nX\0\0\0\0X\0\0\0\0tQ)\x81"].concat();
    let state = build::dict(&[
        ("_parameters", &build::dict(&[("w", &build::tensor(&floats(4), 1, &[2], &[1])), ("b", b"N")])),
        ("_buffers", b"}"),
        ("_modules", b"}"),
        ("training", b"\x88"),
    ]);
    assert_eq!(told(file(&build::pickle(&[&module, &state, b"b"])), None), [W]);
}

#[test]
fn containers_of_every_kind() {
    let t = |offset| build::tensor(&floats(4), offset, &[1], &[1]);
    let name = |n: &str, i: u8| format!("{n} f32 [1] {:?}", (4 * i..4 * i + 4).collect::<Vec<u8>>());
    // Pairs, as Python 2 gave them to OrderedDict; keys that are no text; one that occurs twice.
    let pairs = [
        b"ccollections\nOrderedDict\n(](](U\x01a",
        &t(0)[..],
        b"e](K\x07",
        &t(1),
        b"e](\x88",
        &t(2),
        b"e](U\x01a",
        &t(3),
        b"eetR",
    ]
    .concat();
    assert_eq!(told(archive(build::pickle(&[&pairs])), None), [name("a", 3), name("7", 1), name("True", 2)]);
    let nested = [b"(", &t(0)[..], b"](", &t(1), b"}(K\x01", &t(0), b"uet"].concat();
    assert_eq!(
        told(archive(build::pickle(&[&nested])), None),
        [name("0", 0), name("1.0", 1), "1.1.1 = 0".into()]
    );
    let factory = [b"ccollections\ndefaultdict\n(cbuiltins\nlist\ntR(K\x01", &t(2)[..], b"u"].concat();
    assert_eq!(told(archive(build::pickle(&[&factory])), None), [name("1", 2)]);
    // A subclass of dict holds what nobody here can vouch for; a part of it may be named all the same.
    let subclass = [b"csome\nDict\n)\x81(", &build::text("a.b")[..], &t(1), b"u"].concat();
    let file = archive(build::pickle(&[&build::dict(&[("d", &subclass)])]));
    assert!(
        told(file.clone(), None)[0]
            .starts_with("Unsupported: test.pt: tensor d: tensors are inside an object of some.Dict")
    );
    assert_eq!(told(file, Some("d.a.b")), [name("tensor", 1)]);
}

#[test]
fn keys_lead_to_parts() {
    let t = |offset| build::tensor(&floats(4), offset, &[1], &[1]);
    let inner = build::dict(&[("c", &t(0)), ("b.c", &t(1))]);
    let list = [b"](", &t(2)[..], &build::dict(&[("x", &t(3))]), b"e"].concat();
    let file = archive(build::pickle(&[&build::dict(&[
        ("a", &inner),
        ("a.b", &build::dict(&[("c", &t(2))])),
        ("l", &list),
    ])]));
    let first = |key: &str| told(file.clone(), Some(key))[0].clone();
    assert_eq!(first("a.c"), "tensor f32 [1] [0, 1, 2, 3]");
    // The longest key that fits comes first.
    assert_eq!(first("a.b.c"), "tensor f32 [1] [8, 9, 10, 11]");
    assert_eq!(first("a"), "c f32 [1] [0, 1, 2, 3]");
    assert_eq!(first("l.1"), "x f32 [1] [12, 13, 14, 15]");
    assert_eq!(first("l.1.x"), "tensor f32 [1] [12, 13, 14, 15]");
    for wrong in ["b", "a.", "a.x", "l.2", "l.x", "l.1.y", "a.c.d"] {
        let options = PickleOptions { key: Some(wrong.into()), all: false };
        let e = refused(open(file.clone(), &options));
        assert_eq!(e.kind(), ErrorKind::Usage, "{wrong}: {e}");
        assert_eq!(e.hint_text(), Some("at its root there are: a, a.b, l"));
    }
    // Two ways to one name: nobody could tell them apart afterwards.
    assert!(
        told(file, Some(""))[0].starts_with("Malformed: test.pt: tensor a.b.c: two tensors have this name")
    );
}

#[test]
fn numpy_and_its_friends() {
    let array = |ty: &[u8], state: &[u8], data: &[u8]| {
        one(&[b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85NtR(K\x01K\x02\x85cnumpy\ndtype\n(", ty, b"tR", state, b"\x89", data, b"tb"].concat())
    };
    let f4 = build::text("<f4");
    assert_eq!(array(&f4, b"", b"U\x08abcdefgh"), ["w f32 [2] [97, 98, 99, 100, 101, 102, 103, 104]"]);
    let big = b"(K\x03X\x01\0\0\0>NNNK\0K\0K\0tb";
    assert_eq!(array(&f4, big, b"U\x08abcdefgh"), ["w f32 [2] [100, 99, 98, 97, 104, 103, 102, 101]"]);
    assert_eq!(array(b"cml_dtypes\nbfloat16\n", b"", b"U\x04abcd"), ["w bf16 [2] [97, 98, 99, 100]"]);
    for (ty, data, says) in [
        (build::text("U3"), &b"U\x18abcdefghabcdefghabcdefgh"[..], "a numpy array of dtype \"U3\""),
        (build::text("c16"), b"N", "torch.complex128"),
        (build::text("f4"), b"N", "elements are None"),
    ] {
        let e = array(&ty, b"", data);
        assert!(e[0].starts_with("Unsupported") && e[0].contains(says), "{e:?}");
    }
    let fields = b"(K\x03X\x01\0\0\0|N(X\x01\0\0\0atNK\0K\0K\0tb";
    assert!(array(&build::text("V4"), fields, b"U\x08abcdefgh")[0].starts_with("Unsupported"));
    // Numbers become metadata, and those that cannot are told.
    let scalar = |ty: &str, data: &[u8]| {
        let v =
            [b"cnumpy._core.multiarray\nscalar\n(cnumpy\ndtype\n(", &build::text(ty)[..], b"tR", data, b"tR"]
                .concat();
        let r =
            open(archive(build::pickle(&[&build::dict(&[("n", &v)])])), &PickleOptions::default()).unwrap();
        (r.index().metadata.get("n").cloned(), r.index().left_out.len())
    };
    assert_eq!(scalar("i2", b"U\x02\xfe\xff"), (Some(Value::I16(-2)), 0));
    assert_eq!(scalar("f2", b"U\x02\0\x3c"), (Some(Value::F32(1.0)), 0));
    assert_eq!(scalar("b1", b"U\x01\x01"), (Some(Value::Bool(true)), 0));
    assert_eq!(scalar("M8", b"U\x08aaaaaaaa"), (None, 1));
    assert_eq!(scalar("i4", b"U\x02\0\0"), (None, 1));
}

#[test]
fn quantized_tensors_carry_their_scales() {
    let q = |quantizer: &[u8]| {
        let storage = build::storage("QInt8Storage", "0", 16);
        one(&[
            b"ctorch._utils\n_rebuild_qtensor\n(",
            &storage[..],
            b"K\0(K\x02K\x02t(K\x02K\x01t",
            quantizer,
            b"\x89NtR",
        ]
        .concat())
    };
    let per_tensor = q(b"(ctorch\nper_tensor_affine\nG\x3f\xe0\0\0\0\0\0\0K\x03t");
    assert_eq!(
        per_tensor,
        [
            "w i8 [2, 2] [0, 1, 2, 3]".to_owned(),
            format!("w.q_scale f64 [] {:?}", 0.5f64.to_le_bytes()),
            format!("w.q_zero_point i64 [] {:?}", 3i64.to_le_bytes()),
        ]
    );
    for (bad, says) in [
        (&b"(ctorch\nper_tensor_affine\nK\x01K\x03t"[..], "the quantization scheme torch.per_tensor_affine"),
        (
            b"(ctorch\nper_channel_affine\n](G\x3f\xe0\0\0\0\0\0\0e](K\0eK\0t",
            "its q_per_channel_scales are a list",
        ),
        (b"(ctorch\nfloat32\nK\x01K\x03t", "the quantization scheme torch.float32"),
        (b"N", "the quantization scheme None"),
    ] {
        let e = q(bad);
        assert!(e[0].starts_with("Unsupported: test.pt: tensor w: ") && e[0].contains(says), "{e:?}");
    }
}

/// What makes readers disagree about an archive is refused; what only looks unusual is not.
#[test]
fn folders_and_byte_orders() {
    let pkl = || build::pickle(&[&build::dict(&[("w", &build::tensor(&floats(4), 1, &[2], &[1]))])]);
    let member = build::Member::stored;
    let data = || (0..16).collect::<Vec<u8>>();
    for (top, first) in [("", "data.pkl"), ("x y/", "x y/version"), ("a.b/", "a.b/.data/version")] {
        let mut members =
            vec![member(&format!("{top}data.pkl"), pkl()), member(&format!("{top}data/0"), data())];
        if !first.ends_with("pkl") {
            members.insert(0, member(first, b"3\n".to_vec()));
        }
        assert_eq!(told(build::zip(&members), None), [W], "{top}");
    }
    let big =
        [member("a/data.pkl", pkl()), member("a/data/0", data()), member("a/byteorder", b"big".to_vec())];
    assert_eq!(told(build::zip(&big), None), ["w f32 [2] [7, 6, 5, 4, 11, 10, 9, 8]"]);
    let two = [build::Member::deflated("a/data.pkl", &pkl()), build::Member::deflated("a/data/0", &data())];
    assert_eq!(told(build::zip(&two), None), [W]);
    let commented = {
        let mut b = archive(pkl());
        let n = b.len();
        b[n - 2..].copy_from_slice(&5u16.to_le_bytes());
        [b, b"hello".to_vec()].concat()
    };
    assert_eq!(told(commented, None), [W]);
    // What is refused keeps its reason when only a part without it is wanted.
    let file = store(
        "test.pt",
        archive(build::pickle(&[&build::dict(&[
            ("bad", b"ctorch._utils\n_rebuild_sparse_tensor\n(K\0tR"),
            ("w", &build::tensor(&floats(4), 1, &[2], &[1])),
        ])])),
    );
    let part = PickleOptions { key: Some("w".into()), all: false };
    assert_eq!(open_with(&file, &Limits::default(), &part).unwrap().index().tensors.len(), 1);
    assert_eq!(
        refused(open_with(&file, &Limits::default(), &PickleOptions::default())).tensor_name(),
        Some("bad")
    );
}

#[test]
fn state_of_optimizers_is_left_out_of_files_not_of_models() {
    let t = |offset| build::tensor(&floats(4), offset, &[1], &[1]);
    let state = build::dict(&[("state", &build::dict(&[("0", &t(0))])), ("param_groups", b"]")]);
    let module = |inner: &[u8]| {
        let state = build::dict(&[("_parameters", b"}"), ("_buffers", b"}"), ("_modules", inner)]);
        [b"csome\nNet\n)\x81", &state[..], b"b"].concat()
    };
    let head = module(&build::dict(&[(
        "optimizer",
        &[
            b"csome\nHead\n)\x81",
            &build::dict(&[
                ("_parameters", &build::dict(&[("w", &t(1))])),
                ("_buffers", b"}"),
                ("_modules", b"}"),
            ])[..],
            b"b",
        ]
        .concat(),
    )]));
    let file = archive(build::pickle(&[&build::dict(&[
        ("net", &head),
        ("any", &state),
        ("optimizer_states", &[b"]", &t(3)[..], b"a"].concat()),
        ("optimism", &build::dict(&[("w", &t(2))])),
    ])]));
    assert_eq!(
        told(file.clone(), None),
        [
            "net.optimizer.w f32 [1] [4, 5, 6, 7]",
            "optimism.w f32 [1] [8, 9, 10, 11]",
            "(any: optimizer state (1 tensors); --all keeps it)",
            "(optimizer_states: optimizer state (1 tensors); --all keeps it)",
        ]
    );
    let all = open(file.clone(), &PickleOptions { key: None, all: true }).unwrap();
    assert_eq!(all.index().tensors.len(), 4);
    // Whoever names it gets it.
    assert_eq!(told(file, Some("any")), ["state.0 f32 [1] [0, 1, 2, 3]"]);
}
