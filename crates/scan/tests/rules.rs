//! Every rule fires on a file that it is for, says where, and is quiet on the file's harmless twin.

mod common;

use common::{
    build::{Member, pickle, text, zip},
    field, folder, found, gguf, npy, onnx, onnx_external, report, rules, system,
};
use std::{collections::BTreeSet, fs, os::unix::fs::symlink};
use tensormill_scan::{RULES, Severity};

/// A rule, a file that breaks it, its harmless twin, and where the finding is (as text).
type Case = (&'static str, &'static str, Vec<u8>, Vec<u8>, &'static str);

fn token(parts: &[&str]) -> String {
    // Put together here so that no scanner of repositories takes this file for a leak.
    parts.concat()
}

fn letters(n: usize) -> String {
    "qW7eRt5yUiOpAsDfGhJkLzXcVbNm".chars().cycle().take(n).collect()
}

/// Letters alone, as Hugging Face's tokens have them.
fn plain_letters(n: usize) -> String {
    letters(2 * n).chars().filter(char::is_ascii_alphabetic).take(n).collect()
}

fn npz(member: &[u8]) -> Vec<u8> {
    zip(&[Member::stored("arr_0.npy", member)])
}

fn script(code: &str) -> Vec<u8> {
    zip(&[
        Member::stored("m/data.pkl", pickle(&[b"c__torch__\nM\n)\x81"])),
        Member::deflated("m/code/__torch__.py", code.as_bytes()),
    ])
}

fn keras(layer: &str) -> Vec<u8> {
    zip(&[Member::deflated("config.json", layer.as_bytes()), Member::stored("metadata.json", *b"{}")])
}

fn pickles() -> Vec<Case> {
    let safe = || pickle(&[b"ccollections\nOrderedDict\n)R"]);
    let inner = system();
    let nested = |name: &str| {
        let bytes = [b"C", &[inner.len() as u8][..], &inner].concat();
        pickle(&[format!("ctorch.storage\n{name}\n").as_bytes(), b"(", &bytes, b"tR"])
    };
    vec![
        ("pickle/dangerous-import", "a.pkl", system(), safe(), "byte 2"),
        (
            "pickle/computed-import",
            "a.pt",
            zip(&[Member::stored("a/data.pkl", pickle(&[b"NN\x93)R"]))]),
            zip(&[Member::stored("a/data.pkl", safe())]),
            "a/data.pkl, byte 4",
        ),
        ("pickle/unknown-import", "a.bin", pickle(&[b"csome\nThing\n)\x81"]), safe(), "byte 2"),
        ("pickle/nested", "a.pkl", nested("_load_from_bytes"), safe(), "byte 2"),
        ("pickle/broken", "a.pth", safe()[..9].to_vec(), safe(), "byte 9"),
        (
            "pickle/trailing-data",
            "a.pkl",
            [safe(), vec![0xff; 9]].concat(),
            [safe(), safe()].concat(),
            "byte 30",
        ),
        (
            "torchscript/code",
            "a.pt",
            script("class M:\n"),
            zip(&[Member::stored("m/data.pkl", safe())]),
            "m/code/__torch__.py",
        ),
        (
            "torchscript/file-access",
            "a.pt",
            script("def forward(self):\n  x = torch.from_file(\"/etc/passwd\")\n"),
            script("def forward(self):\n  x = torch.add(1, 2)\n  y = ops.aten.add(x)\n"),
            "m/code/__torch__.py, line 2",
        ),
        (
            "numpy/object-array",
            "a.npz",
            npz(&npy("|O", &system())),
            npz(&npy("<f4", &[0; 4])),
            "arr_0.npy, byte 67",
        ),
        ("file/hidden-pickle", "a.safetensors", system(), common_safetensors(), "byte 0"),
    ]
}

fn common_safetensors() -> Vec<u8> {
    let header = br#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header, &[7]].concat()
}

/// A function of an ONNX model.
fn field25(name: &[u8], domain: &[u8]) -> Vec<u8> {
    let function = [field(1, name), field(10, domain)].concat();
    // Field numbers from 16 on take two bytes.
    [vec![0xca, 0x01, function.len() as u8], function].concat()
}

fn graphs() -> Vec<Case> {
    let node = |op: &str| [field(1, b"n"), field(2, op.as_bytes())].concat();
    let saved = |op: &str| field(2, &field(2, &field(1, &node(op))));
    let function = |op: &str| field(2, &field(2, &field(2, &field(1, &field(3, &node(op))))));
    let lambda = r#"{"layers":[{"module":"keras.layers","class_name":"Lambda"}]}"#;
    let dense = r#"{"layers":[{"module":"keras.layers","class_name":"Dense"}]}"#;
    let from = |module: &str| keras(&dense.replace("keras.layers", module));
    let h5 = |layer: &str| [b"\x89HDF\r\n\x1a\n", &vec![0; 1 << 20][..], layer.as_bytes()].concat();
    vec![
        ("keras/lambda", "a.keras", keras(lambda), keras(dense), "config.json, $.layers[0].class_name"),
        ("keras/lambda", "a.h5", h5(lambda), h5(dense), "byte 1048620"),
        (
            "keras/foreign-module",
            "a.keras",
            from("mine.layers"),
            keras(dense),
            "config.json, $.layers[0].module",
        ),
        (
            "keras/dangerous-module",
            "a.keras",
            from("subprocess"),
            keras(dense),
            "config.json, $.layers[0].module",
        ),
        ("tensorflow/file-op", "saved_model.pb", saved("ReadFile"), saved("MatMul"), "byte 6"),
        ("tensorflow/file-op", "saved_model.pb", function("WriteFile"), function("MatMul"), "byte 10"),
        ("tensorflow/python-op", "saved_model.pb", saved("EagerPyFunc"), saved("MatMul"), "byte 6"),
        ("tensorflow/broken", "saved_model.pb", saved("MatMul")[..9].to_vec(), saved("MatMul"), "byte 2"),
        (
            "onnx/custom-op",
            "a.onnx",
            onnx("Mine", "my.domain", &[]),
            onnx("Gelu", "com.microsoft", &[]),
            "byte 6",
        ),
        ("onnx/python-op", "a.onnx", onnx("PyOp", "pyopmulti", &[]), onnx("Add", "", &[]), "byte 6"),
        // A function of the model's own is no excuse for another operator of its domain.
        (
            "onnx/custom-op",
            "a.onnx",
            [onnx("Other", "own", &[]), field25(b"F", b"own")].concat(),
            [onnx("F", "own", &[]), field25(b"F", b"own")].concat(),
            "byte 6",
        ),
        // In the body of a loop.
        (
            "onnx/custom-op",
            "a.onnx",
            onnx("Loop", "", &field(5, &field(6, &field(1, &[field(4, b"X"), field(7, b"y.z")].concat())))),
            onnx("Loop", "", &field(5, &field(6, &field(1, &[field(4, b"Add"), field(7, b"")].concat())))),
            "byte 20",
        ),
        (
            "onnx/external-path",
            "a.onnx",
            onnx_external("../../etc/passwd"),
            onnx_external("w.data"),
            "byte 21",
        ),
        (
            "onnx/external-path",
            "a.onnx",
            onnx_external("/etc/passwd"),
            onnx_external("sub/w.data"),
            "byte 21",
        ),
        ("onnx/broken", "a.onnx", onnx("Add", "", &[])[..6].to_vec(), onnx("Add", "", &[]), "byte 4"),
    ]
}

fn configurations() -> Vec<Case> {
    let json = |s: &str| s.as_bytes().to_vec();
    let plain = || json(r#"{"model_type":"llama","trust_remote_code":false,"rope_theta":NaN}"#);
    vec![
        (
            "code/auto-map",
            "config.json",
            json(r#"{"auto_map":{"AutoModel":"modeling_x.Model"}}"#),
            plain(),
            "$.auto_map.AutoModel",
        ),
        (
            "code/trust-remote-code",
            "config.json",
            json(r#"{"a":{"trust_remote_code":true}}"#),
            plain(),
            "$.a.trust_remote_code",
        ),
        (
            "code/custom-pipeline",
            "config.json",
            json(r#"{"custom_pipelines":{"p":{"impl":"pipe.P","pt":["AutoModel"]}}}"#),
            plain(),
            "$.custom_pipelines.p.impl",
        ),
        (
            "code/custom-pipeline",
            "model_index.json",
            json(r#"{"_class_name":"P","unet":["my_unet","Net"]}"#),
            json(r#"{"_class_name":"P","unet":["diffusers","Net"],"x":[null,null]}"#),
            "$.unet[0]",
        ),
        (
            "code/module-type",
            "modules.json",
            json(r#"[{"idx":0,"type":"mine.Thing"}]"#),
            json(r#"[{"idx":0,"type":"sentence_transformers.models.Pooling"}]"#),
            "$[0].type",
        ),
        (
            "code/module-type",
            "adapter_config.json",
            json(r#"{"auto_mapping":{"base_model_class":"M","parent_library":"mine.model"}}"#),
            json(r#"{"auto_mapping":{"base_model_class":"M","parent_library":"transformers.models.llama"}}"#),
            "$.auto_mapping.parent_library",
        ),
        ("code/python-file", "x.py", json("print(1)\n"), json(""), ""),
        ("code/executable", "run", json("\x7fELF\x02\x01"), json("ELF"), ""),
        (
            "index/path-escape",
            "model.safetensors.index.json",
            json(r#"{"weight_map":{"a":"../../x/model.safetensors"}}"#),
            json(r#"{"weight_map":{"a":"model-00001-of-00002.safetensors"}}"#),
            "$.weight_map.a",
        ),
        ("json/broken", "config.json", json("{\"a\": "), plain(), "line 1"),
        (
            "secret/password-key",
            "config.json",
            json(r#"{"db_password":"hunter2!"}"#),
            json(r#"{"db_password":"<your password>","password":null}"#),
            "$.db_password",
        ),
        (
            "secret/password-key",
            "settings.yaml",
            json("a: 1\napi_key: 6f9a1c\n"),
            json("a: 1\napi_key: ${KEY}\n"),
            "line 2",
        ),
    ]
}

fn templates() -> Vec<Case> {
    let json = |s: &str| s.as_bytes().to_vec();
    let good = || {
        json(
            "{% for m in messages %}{{ '<|' ~ m['role'] ~ '|>' }}\n{% endfor %}{# __class__ is no code here #} see __init__.py",
        )
    };
    let mut hidden = good();
    hidden.extend("\u{202e}".bytes());
    vec![
        (
            "template/dunder",
            "chat_template.jinja",
            json("hello\n{{ ''.__class__.__mro__ }}"),
            good(),
            "line 2",
        ),
        (
            "template/dunder",
            "tokenizer_config.json",
            json(
                r#"{"chat_template":[{"name":"default","template":"ok"},{"name":"tool","template":"{{ x['__globals__'] }}"}]}"#,
            ),
            json(r#"{"chat_template":[{"name":"default","template":"{{ messages }}"}]}"#),
            "$.chat_template[1].template, line 1",
        ),
        (
            "template/dunder",
            "a.gguf",
            gguf(&[
                ("general.name", "x"),
                ("tokenizer.chat_template.tool", "\n\n{% set a = 'x'|attr('\\x5f\\x5finit') %}"),
            ]),
            gguf(&[("general.name", "x"), ("tokenizer.chat_template", "{{ messages }}")]),
            "tokenizer.chat_template.tool, line 3",
        ),
        ("template/dunder", "a.jinja", json("{{ x['__cl' ~ 'ass__'] }}"), good(), "line 1"),
        ("template/odd-object", "a.jinja", json("{{ lipsum(5) }}"), json("lipsum {{ 1 }}"), "line 1"),
        (
            "template/odd-object",
            "a.jinja",
            json("{{ cycler._x }}"),
            json("{% set c = cycler('a', 'b') %}"),
            "line 1",
        ),
        ("template/odd-object", "a.jinja", json("{{ self._TemplateReference__context }}"), good(), "line 1"),
        (
            "template/attr-filter",
            "a.jinja",
            json("{{ x | attr(y) }}"),
            json("{{ x | map(attribute='role') }}"),
            "line 1",
        ),
        (
            "template/include",
            "a.jinja",
            json("{% include '/etc/passwd' %}"),
            json("{% if x %}include{% endif %}"),
            "line 1",
        ),
        (
            "template/url",
            "a.jinja",
            json("fetch http://10.0.0.7/x.sh"),
            json("see https://huggingface.co/docs"),
            "line 1",
        ),
        ("template/url", "a.jinja", json("{{ 'https://abc.ngrok.io' }}"), good(), "line 1"),
        ("template/hidden-text", "a.jinja", hidden, good(), "line 2"),
        (
            "template/huge-loop",
            "a.jinja",
            json("{% for i in range(999999999) %}{% endfor %}"),
            json("{% for i in range(messages|length) %}{% endfor %}{{ range(0, 100) }}"),
            "line 1",
        ),
        ("template/huge-loop", "a.jinja", json("{{ 'a' * 100000000 }}"), json("{{ ' ' * 4 }}"), "line 1"),
        (
            "template/huge-loop",
            "a.jinja",
            json("{% for i in range(10 * 1000 * 1000) %}{% endfor %}"),
            good(),
            "line 1",
        ),
        ("template/too-long", "a.jinja", vec![b'x'; (1 << 20) + 1], good(), "line 1"),
    ]
}

fn secrets() -> Vec<Case> {
    let line = |s: String| format!("first line\nkey = {s} # end\n").into_bytes();
    let none =
        || b"hf_short sk-learn ghp_ AKIA eyJ https://user@host/ https://user:password@host.org AIza".to_vec();
    let key = token(&["-----BEGIN OPENSSH ", "PRIVATE KEY-----"]);
    let jwt = token(&["eyJ", &letters(20), ".eyJ", &letters(30), ".", &letters(43)]);
    vec![
        (
            "secret/huggingface-token",
            "README.md",
            line(token(&["hf_", &plain_letters(34)])),
            line(format!("hf_{}", "x".repeat(34))),
            "line 2",
        ),
        (
            "secret/aws-key",
            "a.txt",
            line(token(&["AKIA", "QW7ERT5YUIOPASDF"])),
            line(token(&["AKIA", "IOSFODNN7EXAMPLE"])),
            "line 2",
        ),
        ("secret/github-token", "a.txt", line(token(&["ghp_", &letters(36)])), none(), "line 2"),
        ("secret/github-token", "a.txt", line(token(&["github_pat_", &letters(82)])), none(), "line 2"),
        ("secret/api-key", "a.txt", line(token(&["sk-ant-", &letters(90)])), none(), "line 2"),
        ("secret/api-key", "a.txt", line(token(&["sk-", &letters(48)])), none(), "line 2"),
        ("secret/slack-token", "a.txt", line(token(&["xoxb-", &letters(40)])), none(), "line 2"),
        ("secret/google-api-key", "a.txt", line(token(&["AIza", &letters(35)])), none(), "line 2"),
        ("secret/private-key", "id", line(key), none(), "line 2"),
        ("secret/jwt", "a.txt", line(jwt), none(), "line 2"),
        (
            "secret/url-password",
            "a.txt",
            line(token(&["https://me:hunter2secret", "@huggingface.co/x"])),
            none(),
            "line 2",
        ),
        (
            "secret/huggingface-token",
            "a.gguf",
            gguf(&[("general.url", &token(&["hf_", &plain_letters(34)]))]),
            gguf(&[]),
            "general.url",
        ),
    ]
}

fn archives() -> Vec<Case> {
    let data = || Member::stored("a/data/0", vec![7; 16]);
    let good = || zip(&[data()]);
    let with = |m: Member| zip(&[m, data()]);
    vec![
        (
            "archive/path-escape",
            "a.npz",
            with(Member::stored("../../x.npy", npy("<f4", &[0; 4]))),
            good(),
            "../../x.npy",
        ),
        ("archive/duplicate", "a.pt", with(data()), good(), "a/data/0"),
        (
            "archive/two-views",
            "a.pt",
            with(Member { local_name: Some("a/data.pkl".into()), ..Member::stored("a/data/x", vec![]) }),
            good(),
            "a/data/x",
        ),
        (
            "archive/bomb",
            "a.zip",
            with(Member { len: 1 << 40, ..Member::deflated("x", &[0; 9]) }),
            good(),
            "x",
        ),
        ("archive/bomb", "a.zip", with(Member { at: Some(5), ..Member::stored("x", vec![]) }), good(), "x"),
        (
            "archive/opaque",
            "a.zip",
            with(Member { flags: 1, ..Member::stored("x.pkl", vec![1]) }),
            good(),
            "x.pkl",
        ),
        ("archive/opaque", "a.pkl", b"\x1f\x8b\x08\0".to_vec(), pickle(&[b"N"]), "byte 0"),
        ("archive/broken", "a.pt", good()[..50].to_vec(), good(), "byte 0"),
        ("file/wrong-format", "a.gguf", b"not that at all".to_vec(), gguf(&[]), "byte 0"),
        ("file/wrong-format", "a.json", gguf(&[]), b"{}".to_vec(), "byte 0"),
        (
            "safetensors/broken",
            "a.safetensors",
            common_safetensors()[..30].to_vec(),
            common_safetensors(),
            "byte 8",
        ),
        ("gguf/broken", "a.gguf", gguf(&[("k", "v")])[..40].to_vec(), gguf(&[("k", "v")]), "byte 37"),
        (
            "lfs/pointer",
            "model.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n".to_vec(),
            common_safetensors(),
            "",
        ),
    ]
}

/// Member with a Unix mode in the directory.
fn zip_with_link() -> Vec<u8> {
    let mut bytes = zip(&[Member::stored("link", *b"/etc/passwd")]);
    let entry = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    bytes[entry + 38..entry + 42].copy_from_slice(&(0o120_777u32 << 16).to_le_bytes());
    bytes
}

fn cases() -> Vec<Case> {
    let link = ("archive/symlink", "a.zip", zip_with_link(), zip(&[Member::stored("link", *b"x")]), "link");
    [pickles(), graphs(), configurations(), templates(), secrets(), archives(), vec![link]].concat()
}

#[test]
fn every_rule_fires_where_it_should_and_not_elsewhere() {
    let mut wrong = Vec::new();
    for (rule, name, bad, good, place) in cases() {
        let bad = found(&[(name, &bad)]);
        let places: Vec<String> = bad.iter().filter(|f| f.rule == rule).map(|f| f.place.text()).collect();
        if !places.iter().any(|p| p == place) {
            wrong.push(format!("{rule} on {name}: at {places:?}, not at {place:?}: {bad:?}"));
        }
        if !bad.iter().all(|f| f.file.ends_with(name)) {
            wrong.push(format!("{rule} names another file than {name}"));
        }
        if rules(name, &good).contains(&rule) {
            wrong.push(format!("{rule} on harmless {name}: {:?}", found(&[(name, &good)])));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_rule_is_without_a_test() {
    // What needs more than one file has a test of its own below.
    let own = [
        "code/named-file",
        "onnx/external-link",
        "link/leaves-folder",
        "file/special",
        "file/unreadable",
        "scan/limit",
    ];
    let tested: BTreeSet<&str> = cases().into_iter().map(|c| c.0).chain(own).collect();
    let all: BTreeSet<&str> = RULES.iter().map(|r| r.id).collect();
    assert_eq!(all.difference(&tested).collect::<Vec<_>>(), Vec::<&&str>::new());
    assert_eq!(tested.difference(&all).collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[test]
fn the_table_in_the_documentation_is_this_one() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/scan.md")).unwrap();
    for r in RULES {
        let severity = match r.severity {
            Severity::Info => "info",
            Severity::Suspicious => "suspicious",
            Severity::Dangerous => "dangerous",
        };
        let row = format!("| `{}` | {severity} | {} | {} |", r.id, r.what, r.advice);
        assert!(page.contains(&row), "docs/scan.md lacks:\n{row}");
    }
    assert_eq!(
        page.matches("` | info |").count()
            + page.matches("` | suspicious |").count()
            + page.matches("` | dangerous |").count(),
        RULES.len()
    );
}

#[test]
fn secrets_are_never_shown() {
    for (rule, name, bad, ..) in secrets() {
        let told = format!("{:?}", found(&[(name, &bad)]));
        let text = String::from_utf8_lossy(&bad).into_owned();
        let secret = text.split_whitespace().max_by_key(|w| w.len()).unwrap();
        let tail: String = secret.chars().skip(secret.len() / 2).take(12).collect();
        assert!(
            rule == "secret/private-key" || rule == "secret/url-password" || !told.contains(&tail),
            "{rule}: {told}"
        );
        assert!(!told.contains("hunter2"), "{told}");
    }
    let password = found(&[("config.json", br#"{"password":"hunter2!"}"#)]);
    assert!(!format!("{password:?}").contains("hunter2"));
}

#[test]
fn python_files_are_told_apart_by_who_names_them() {
    let config =
        br#"{"auto_map":{"AutoModel":"modeling_x.Model","AutoConfig":"other/repo--configuration_x.C"}}"#;
    let f = found(&[
        ("config.json", config),
        ("modeling_x.py", b"x = 1"),
        ("setup.py", b"y = 1"),
        ("custom_generate/generate.py", b""),
    ]);
    let of =
        |name: &str| -> Vec<&str> { f.iter().filter(|f| f.file.ends_with(name)).map(|f| f.rule).collect() };
    assert_eq!(of("modeling_x.py"), ["code/named-file"]);
    assert_eq!(of("setup.py"), ["code/python-file"]);
    // In a folder below, named from above; and in a model that is itself in a folder.
    let config = br#"{"auto_map":{"AutoModel":"code.modeling.Model"}}"#;
    let f = found(&[("m/config.json", config), ("m/code/modeling.py", b"x = 1"), ("m/modeling.py", b"")]);
    let of =
        |name: &str| -> Vec<&str> { f.iter().filter(|f| f.file.ends_with(name)).map(|f| f.rule).collect() };
    assert_eq!(of("m/code/modeling.py"), ["code/named-file"]);
    assert!(of("m/modeling.py").is_empty(), "an empty file runs nothing");
    let f = found(&[("custom_generate/generate.py", b"x = 1")]);
    assert_eq!(f[0].rule, "code/named-file");
}

#[test]
fn links_and_devices() {
    let outside = folder(&[("secret.bin", b"x"), ("d/y", b"y")]);
    let dir =
        folder(&[("models--a--b/blobs/0", b"{}"), ("models--a--b/snapshots/1/x", b""), ("m/onnx/keep", b"")]);
    let at = |p: &str| dir.path().join(p);
    symlink(outside.path().join("secret.bin"), at("m/w.bin")).unwrap();
    symlink(outside.path().join("d"), at("m/folder")).unwrap();
    symlink(at("m/gone"), at("m/dangling")).unwrap();
    symlink("../../blobs/0", at("models--a--b/snapshots/1/config.json")).unwrap();
    symlink(outside.path().join("secret.bin"), at("m/onnx/w.data")).unwrap();
    fs::write(at("m/onnx/a.onnx"), onnx_external("w.data")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("m/socket")).unwrap();
    let found: BTreeSet<(String, &str)> = report(&at("m"))
        .findings
        .into_iter()
        .map(|f| (f.file.rsplit('/').next().unwrap().to_owned(), f.rule))
        .collect();
    let want = [
        ("a.onnx", "onnx/external-link"),
        ("dangling", "file/unreadable"),
        ("folder", "link/leaves-folder"),
        ("socket", "file/special"),
        ("w.bin", "link/leaves-folder"),
        ("w.data", "link/leaves-folder"),
    ];
    assert_eq!(found, want.map(|(f, r)| (f.to_owned(), r)).into());
    // Download caches are made of links to their own blobs.
    assert_eq!(report(&at("models--a--b/snapshots/1")).findings, []);
}

#[test]
fn depth_and_number_of_findings_are_bounded() {
    let dir = folder(&[]);
    let deep = dir.path().join("d/".repeat(40));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("a.pkl"), system()).unwrap();
    let r = report(dir.path());
    assert_eq!(r.findings.iter().map(|f| f.rule).collect::<Vec<_>>(), ["scan/limit"]);

    let many = token(&["hf_", &plain_letters(34), "\n"]).repeat(1000);
    let dir = folder(&[("a.txt", many.as_bytes())]);
    let r = report(dir.path());
    assert_eq!((r.counts.dangerous, r.findings.len(), r.truncated), (1000, 200, true));
    assert_eq!(r.findings[199].place.line, Some(200));
}

#[test]
fn names_that_come_late_in_a_large_pickle_are_found() {
    // More values than the machine makes here; the name itself comes from the memo.
    let text_of = |s: &str| text(s);
    let many = b"K\x010".repeat(300_000);
    let named = [text_of("os"), b"q\x01".to_vec(), text_of("system"), b"q\x02".to_vec()].concat();
    let bytes = [&b"\x80\x04"[..], &named, &many, b"h\x01h\x02\x93", &text_of("id"), b"\x85R."].concat();
    let f = found(&[("a.pkl", &bytes)]);
    assert_eq!(f.iter().map(|f| f.rule).collect::<Vec<_>>(), ["pickle/dangerous-import"]);
    assert!(f[0].found.starts_with("os.system by STACK_GLOBAL"), "{}", f[0].found);
    // And behind a thousand others.
    let others: Vec<u8> = (0..3000).flat_map(|i| format!("cm{i}\nx\n0").into_bytes()).collect();
    let bytes = [&b"\x80\x02"[..], &others, &many, b"cos\nsystem\n."].concat();
    assert!(found(&[("a.pkl", &bytes)]).iter().any(|f| f.rule == "pickle/dangerous-import"));
}

#[test]
fn what_is_hidden_in_a_pickle_is_found() {
    // Unpickled bytes, protocol 4's paths of attributes, a second pickle, a pickle that breaks off behind its work.
    let inner = system();
    let bytes = [b"C", &[inner.len() as u8][..], &inner].concat();
    let nested = pickle(&[b"ctorch.storage\n_load_from_bytes\n(", &bytes, b"tR"]);
    let f = found(&[("a.pkl", &nested)]);
    let hit = f.iter().find(|f| f.rule == "pickle/dangerous-import").unwrap();
    assert_eq!(hit.place.text(), "pickle at byte 37, byte 2");
    let path = pickle(&[&text("torch"), &text("serialization.os.system"), b"\x93)R"]);
    assert_eq!(rules("a.pkl", &path), ["pickle/dangerous-import"]);
    // A path that goes in circles, longer than any name.
    let circle = "nn.functional.torch.".repeat(30_000) + "os.system";
    let long = pickle(&[b"ctorch\n", circle.as_bytes(), b"\n)R"]);
    assert_eq!(rules("a.pkl", &long)[0], "pickle/dangerous-import");
    let second = [pickle(&[b"N"]), system()].concat();
    assert_eq!(rules("a.pkl", &second), ["pickle/dangerous-import"]);
    let mut broken = system();
    broken.pop();
    broken.push(0xee);
    assert_eq!(rules("a.pkl", &broken), ["pickle/dangerous-import", "pickle/broken"]);
    // Behind the numbers that joblib puts in the middle, in both forms.
    for late in [&b"cos\nsystem\n"[..], b"\x8c\x02os\x94\x8c\x06system\x94\x93"] {
        let joblib = [b"\x80\x04", &vec![0xee; 3 << 20][..], late, b")R."].concat();
        let f = found(&[("a.joblib", &joblib)]);
        let hit = f.iter().find(|f| f.rule == "pickle/dangerous-import").unwrap();
        assert_eq!(hit.place.offset, Some((3 << 20) + 2));
        let zlib = miniz_oxide::deflate::compress_to_vec_zlib(&joblib, 6);
        assert_eq!(rules("a.joblib", &zlib), ["pickle/dangerous-import", "pickle/broken"]);
    }
    // Without a name that says so, and in an array.
    assert_eq!(rules("weights", &system()), ["pickle/dangerous-import"]);
    assert!(rules("a.npy", &system()).contains(&"file/hidden-pickle"));
    // In an archive under another name, with a wrong checksum, which torch does not look at.
    let odd = zip(&[Member { crc: 1, ..Member::deflated("a/extra", &system()) }]);
    assert_eq!(rules("a.pt", &odd), ["pickle/dangerous-import"]);
    // Weights that look like a pickle by accident.
    assert_eq!(rules("w.bin", &[0x80, 2, 0, 0, 7, 1, 2, 3]), Vec::<&str>::new());
}
