//! Encoding on a device: the same bytes, clear errors, no start without it. The device is a fake one: a driver whose
//! kernels are the device code compiled as C++ (`tests/cuda-fake`).
#![cfg(target_os = "linux")]

mod common;
#[path = "../../../kernels/tests/common/cpp.rs"]
mod cpp;
#[path = "../../../tests/cuda-fake/fake.rs"]
mod fake;

use common::{demo, json, mill, names};
use fake::Fake;
use serde_json::Value as Json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn golden(model: &str) -> PathBuf {
    demo().with_file_name(model)
}

/// A run of the program with the fake device, in a folder of its own.
struct Bench {
    fake: &'static Fake,
    dir: tempfile::TempDir,
}

/// What a run left.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    /// The output, where there is one.
    bytes: Option<Vec<u8>>,
    /// Lines that the fakes wrote.
    log: Vec<String>,
}

impl Ran {
    fn report(&self) -> Json {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        json(&self.stdout)
    }

    fn count(&self, what: &str) -> usize {
        self.log.iter().filter(|l| l.split(' ').next() == Some(what)).count()
    }

    /// Bytes of blocks that the device made.
    fn encoded(&self) -> u64 {
        self.report()["device_run"]["encoded_bytes"].as_u64().unwrap_or(0)
    }
}

impl Bench {
    fn new() -> Option<Self> {
        Some(Self { fake: Fake::get()?, dir: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut c = mill();
        c.args(args).env_remove("TENSORMILL_DEVICE").env("FAKE_CUDA_LOG", self.path("log"));
        self.fake.apply(&mut c, &self.path("cache"));
        for (name, value) in environment {
            c.env(name, value);
        }
        c
    }

    /// Converts a golden model, anew.
    fn convert(&self, model: &str, args: &[&str], environment: &[(&str, &str)]) -> Ran {
        let (source, out) = (golden(model).display().to_string(), self.path("out.gguf"));
        let _ = fs::remove_file(&out);
        let _ = fs::remove_file(self.path("log"));
        let to = out.display().to_string();
        let all = [&["convert", &source, "-o", &to, "--json"], args].concat();
        let ran = self.command(&all, environment).output().unwrap();
        Ran {
            code: ran.status.code(),
            stdout: String::from_utf8_lossy(&ran.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&ran.stderr).into_owned(),
            bytes: fs::read(out).ok(),
            log: fs::read_to_string(self.path("log"))
                .unwrap_or_default()
                .lines()
                .map(str::to_owned)
                .collect(),
        }
    }

    /// What the processor makes.
    fn reference(&self, model: &str, args: &[&str]) -> Vec<u8> {
        let ran = self.convert(model, &[args, &["--device", "cpu"]].concat(), &[]);
        assert_eq!((ran.code, ran.log.len()), (Some(0), 0), "{}{:?}", ran.stderr, ran.log);
        ran.bytes.unwrap()
    }
}

const Q4: [&str; 2] = ["--quant", "Q4_K_M"];

#[test]
fn bytes_are_the_processors() {
    let Some(bench) = Bench::new() else { return };
    for (model, recipe, imatrix) in [
        ("tiny-llama", "Q8_0", false),
        ("tiny-llama", "Q4_K_M", true),
        ("mistral-f16", "Q4_K_M", false),
        ("mistral-f16", "IQ4_XS", true),
        ("llama-f32-bias", "Q5_K_S", true),
        ("llama-f32-bias", "Q2_K", false),
        ("mixtral-4x", "Q3_K_M", true),
        ("mixtral-4x", "Q4_0", true),
        ("mixtral-4x", "IQ2_XS", true),
        ("gemma3", "Q5_1", false),
    ] {
        let matrix = golden(model).join("expected/imatrix.gguf").display().to_string();
        let mut args = vec!["--quant", recipe];
        if imatrix {
            args.extend(["--imatrix", &matrix]);
        }
        let want = bench.reference(model, &args);
        for device in ["cuda:0", "auto"] {
            let ran = bench.convert(model, &[&args[..], &["--device", device]].concat(), &[]);
            let report = ran.report();
            assert!(ran.bytes.as_ref() == Some(&want), "{model} {recipe} on {device}");
            assert_eq!(report["device"]["name"], "Fake device 0");
            assert!(ran.encoded() > 0 && ran.count("launch") > 0, "{model} {recipe}: {report:?}");
            assert_eq!(ran.stderr, "", "{model} {recipe}");
        }
    }
}

#[test]
fn code_is_compiled_once() {
    let Some(bench) = Bench::new() else { return };
    let want = bench.reference("tiny-llama", &Q4);
    let first = bench.convert("tiny-llama", &Q4, &[]);
    assert!(
        first.count("compile") > 0
            && first.log.iter().any(|l| l.ends_with("compute_90") || l.ends_with("sm_90"))
    );
    let second = bench.convert("tiny-llama", &Q4, &[]);
    assert_eq!((second.count("compile"), second.encoded()), (0, first.encoded()));
    // Another device, another code; a damaged entry is made again.
    let other = bench.convert("tiny-llama", &Q4, &[("FAKE_CUDA_ARCH", "89"), ("FAKE_NVRTC_NEWEST", "89")]);
    assert_eq!(other.count("compile"), first.count("compile"));
    let folder = bench.path("cache/cuda");
    assert_eq!(names(&folder).len(), 2 * first.count("compile"), "nothing else is left there");
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let damaged = bench.convert("tiny-llama", &Q4, &[]);
    assert_eq!(damaged.count("compile"), first.count("compile"));
    for ran in [first, second, other, damaged] {
        assert!(ran.encoded() > 0 && ran.bytes.as_ref() == Some(&want));
    }
}

#[test]
fn a_device_newer_than_the_compiler_gets_portable_code() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench.convert("tiny-llama", &Q4, &[("FAKE_CUDA_ARCH", "120"), ("FAKE_NVRTC_NEWEST", "100")]);
    assert!(ran.log.iter().any(|l| l.ends_with("compute_100")), "{:?}", ran.log);
    assert!(ran.encoded() > 0 && ran.bytes == Some(bench.reference("tiny-llama", &Q4)));
}

/// One way to fail: what the fakes are told, what an error says, and its exit code.
type Failure = (&'static [(&'static str, &'static str)], &'static [&'static str], i32);

#[test]
fn what_fails_is_said_and_the_processor_goes_on_where_it_may() {
    let Some(bench) = Bench::new() else { return };
    let want = bench.reference("tiny-llama", &Q4);
    let failures: [Failure; 6] = [
        (&[("FAKE_NVRTC_ERROR", "1")], &["does not compile", "\"fake\" is undefined", "--device cpu"], 4),
        (&[("FAKE_CUDA_OOM_AT", "1")], &["out of memory", "--device-memory"], 3),
        (&[("FAKE_CUDA_BAD_IMAGE", "1")], &["device kernel image is invalid", "load a kernel"], 6),
        (&[("FAKE_CUDA_LOST_AT", "8")], &["unspecified launch failure", "tensor", "nvidia-smi"], 6),
        (
            &[("FAKE_CUDA_SPOIL", "1")],
            &["other bytes than the processor for", "report it", "--device cpu"],
            4,
        ),
        (&[("FAKE_CUDA_ARCH", "30")], &["as old as sm_30"], 4),
    ];
    for (environment, says, code) in failures {
        let explicit = bench.convert("tiny-llama", &[&Q4[..], &["--device", "cuda:0"]].concat(), environment);
        assert_eq!(
            (explicit.code, explicit.bytes.is_some()),
            (Some(code), false),
            "{environment:?}: {}",
            explicit.stderr
        );
        for text in says {
            assert!(explicit.stderr.contains(text), "{text}: {}", explicit.stderr);
        }
        assert!(explicit.stderr.contains("hint"), "{}", explicit.stderr);
        let auto = bench.convert("tiny-llama", &[&Q4[..], &["--restart"]].concat(), environment);
        let failure = auto.report()["device_run"]["failure"].as_str().unwrap_or_default().to_owned();
        assert!(auto.bytes.as_ref() == Some(&want), "{environment:?}");
        assert!(failure.contains(says[0]) && failure.contains("processor"), "{failure}");
        assert_eq!(auto.stderr.lines().filter(|l| l.starts_with("note: ")).count(), 1, "{}", auto.stderr);
        assert!(auto.stderr.contains(says[0]), "{}", auto.stderr);
    }
}

#[test]
fn a_device_that_is_lost_midway_leaves_a_run_to_resume() {
    let Some(bench) = Bench::new() else { return };
    let want = bench.reference("mixtral-4x", &Q4);
    let args = [&Q4[..], &["--device", "cuda:0", "-j", "1"]].concat();
    let lost = bench.convert("mixtral-4x", &args, &[("FAKE_CUDA_LOST_AT", "14")]);
    assert_eq!(lost.code, Some(6), "{}", lost.stderr);
    assert!(lost.stderr.contains("continue with --resume"), "{}", lost.stderr);
    // Without a compiler nothing is lost of what was done.
    let resume = [&args[..], &["--resume"]].concat();
    let broken =
        bench.convert("mixtral-4x", &resume, &[("FAKE_NVRTC_ERROR", "1"), ("TENSORMILL_CACHE", "/dev/null")]);
    assert_eq!(broken.code, Some(4), "{}", broken.stderr);
    let resumed = bench.convert("mixtral-4x", &resume, &[]);
    assert!(resumed.report()["resumed_bytes"].as_u64() > Some(0), "{}", resumed.stdout);
    assert!(resumed.bytes == Some(want));
}

#[test]
fn a_machine_without_a_device_says_nothing_unless_asked() {
    let Some(bench) = Bench::new() else { return };
    let want = bench.reference("tiny-llama", &Q4);
    let none = [("FAKE_CUDA_DEVICES", "0")];
    let auto = bench.convert("tiny-llama", &Q4, &none);
    assert!(auto.bytes == Some(want) && auto.stderr.is_empty(), "{}", auto.stderr);
    assert!(auto.report().get("device_run").is_none() && auto.report().get("device").is_none());
    let explicit = bench.convert("tiny-llama", &[&Q4[..], &["--device", "cuda:0"]].concat(), &none);
    assert_eq!(explicit.code, Some(4));
    assert!(explicit.stderr.contains("sees no device"), "{}", explicit.stderr);
    let wrong = bench.convert("tiny-llama", &[&Q4[..], &["--device", "cuda:1"]].concat(), &[]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("cuda:1") && wrong.stderr.contains("list devices"), "{}", wrong.stderr);
    // Without the compiler's library.
    let folder = bench.fake.without_nvrtc().display().to_string();
    let bare = [("LD_LIBRARY_PATH", folder.as_str()), ("TENSORMILL_NVRTC", "/no/such/folder")];
    let explicit = bench.convert("tiny-llama", &[&Q4[..], &["--device", "cuda:0"]].concat(), &bare);
    assert_eq!(explicit.code, Some(4));
    assert!(
        explicit.stderr.contains("NVRTC") && explicit.stderr.contains("TENSORMILL_NVRTC"),
        "{}",
        explicit.stderr
    );
    let auto = bench.convert("tiny-llama", &Q4, &bare);
    assert!(auto.code == Some(0) && auto.stderr.contains("NVRTC"), "{}", auto.stderr);
    // Nothing that a device could do: none is started.
    let plain = bench.convert("tiny-llama", &["--dtype", "f16"], &[]);
    assert!(plain.code == Some(0) && plain.log.is_empty(), "{:?}", plain.log);
    let best = bench.convert("tiny-llama", &["--quant", "Q4_0", "--search", "best"], &[]);
    assert!(best.code == Some(0) && best.count("launch") == 0, "{:?}", best.log);
}

#[test]
fn memory_on_both_sides_is_kept() {
    let Some(bench) = Bench::new() else { return };
    let want = bench.reference("llama-f32-bias", &Q4);
    let allocated = |ran: &Ran| -> u64 {
        let sizes = ran.log.iter().filter_map(|l| l.strip_prefix("allocate "));
        sizes.map(|n| n.parse::<u64>().unwrap()).sum()
    };
    for (limit, bytes) in [("150KB", 150_000), ("2MiB", 2 << 20), ("64MiB", 64 << 20)] {
        let args = [&Q4[..], &["--device", "cuda:0", "--device-memory", limit]].concat();
        let ran = bench.convert("llama-f32-bias", &args, &[]);
        assert!(ran.encoded() > 0 && ran.bytes.as_ref() == Some(&want), "{limit}: {}", ran.stderr);
        let taken = allocated(&ran);
        assert!(taken <= bytes, "{taken} of {bytes}");
        assert_eq!(ran.report()["device_run"]["memory_bytes"].as_u64(), Some(taken));
    }
    // Portions of a stack of matrices, each with its importance.
    let matrix = golden("mixtral-4x").join("expected/imatrix.gguf").display().to_string();
    let stacked = ["--quant", "Q4_K_S", "--imatrix", &matrix];
    let all = bench.convert("mixtral-4x", &[&stacked[..], &["--device", "cuda:0"]].concat(), &[]);
    let small = [&stacked[..], &["--device", "cuda:0", "--device-memory", "150KB"]].concat();
    let parts = bench.convert("mixtral-4x", &small, &[]);
    assert!(parts.count("launch") > all.count("launch") && parts.encoded() == all.encoded());
    let processors = bench.reference("mixtral-4x", &stacked);
    assert!(parts.bytes.as_ref() == Some(&processors) && all.bytes == Some(processors));
    // Memory that is short when it is taken: fewer seats do.
    let few = bench.convert("llama-f32-bias", &Q4, &[("FAKE_CUDA_MEMORY", "3000000")]);
    assert!(
        few.encoded() > 0 && few.bytes.as_ref() == Some(&want) && few.stderr.is_empty(),
        "{}",
        few.stderr
    );
    let little = [&Q4[..], &["--device-memory", "100KB"]].concat();
    let explicit = bench.convert("llama-f32-bias", &[&little[..], &["--device", "cuda:0"]].concat(), &[]);
    assert_eq!(explicit.code, Some(3), "{}", explicit.stderr);
    assert!(explicit.stderr.contains("100000 bytes") && explicit.stderr.contains("raise --device-memory"));
    let auto = bench.convert("llama-f32-bias", &little, &[]);
    assert!(auto.bytes.as_ref() == Some(&want) && auto.stderr.contains("too little"), "{}", auto.stderr);
    // What is on its way to the device is part of --memory.
    let [with, without] = ["cuda:0", "cpu"].map(|device| {
        let args = [&Q4[..], &["--memory", "64MiB", "--device", device, "--dry-run"]].concat();
        bench.convert("llama-f32-bias", &args, &[]).report()
    });
    let staging = with["device"]["staging_bytes"].as_u64().unwrap();
    assert!(staging > 0 && staging <= (64 << 20) / 4, "{staging}");
    assert!(with["memory_planned"].as_u64() <= without["memory_planned"].as_u64());
}

/// The demo with other bytes for the weights of one matrix, which are bf16 in rows of 256.
fn changed(model: &Path, change: impl Fn(&mut [u8])) {
    common::copy_demo(model);
    let file = model.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors = json(std::str::from_utf8(&bytes[8..8 + header]).unwrap());
    let [from, to] = [0, 1]
        .map(|i| tensors["model.layers.0.mlp.up_proj.weight"]["data_offsets"][i].as_u64().unwrap() as usize);
    change(&mut bytes[8 + header..][from..to]);
    fs::write(&file, bytes).unwrap();
}

#[test]
fn what_a_device_would_spell_otherwise_goes_to_the_processor() {
    let Some(bench) = Bench::new() else { return };
    let model = bench.path("m");
    // Any finite bits: some sums of squares are no numbers.
    changed(&model, |bytes| {
        for (i, w) in bytes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let bits = ((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16;
            *w = if bits & 0x7f80 == 0x7f80 { bits & 0xbfff } else { bits }.to_le_bytes();
        }
    });
    let model = model.display().to_string();
    let matrix = golden("tiny-llama").join("expected/imatrix.gguf").display().to_string();
    for recipe in ["Q4_0", "Q4_K_S", "Q5_0", "Q8_0"] {
        let args = ["--quant", recipe, "--imatrix", &matrix];
        let want = bench.reference(&model, &args);
        let ran = bench.convert(&model, &[&args[..], &["--device", "cuda:0"]].concat(), &[]);
        assert!(ran.bytes.as_ref() == Some(&want), "{recipe}");
        let left = ran.report()["device_run"]["processor_bytes"].as_u64().unwrap();
        assert!(ran.encoded() > 0 && (left > 0) == (recipe != "Q8_0"), "{recipe}: {left} bytes were left");
    }
}

#[test]
fn values_that_are_no_numbers_are_the_processors_errors() {
    let Some(bench) = Bench::new() else { return };
    let model = bench.path("m");
    // A NaN in row 3, column 5.
    changed(&model, |bytes| bytes[2 * (3 * 256 + 5)..][..2].copy_from_slice(&[0xc0, 0x7f]));
    let (source, out) = (model.display().to_string(), bench.path("x.gguf").display().to_string());
    let [cpu, cuda] = ["cpu", "cuda:0"].map(|device| {
        let args = ["convert", &source, "-o", &out, "--quant", "Q8_0", "--device", device];
        let ran = bench.command(&args, &[]).output().unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    });
    assert_eq!(cpu.0, Some(3), "{}", cpu.1);
    assert!(cpu.1.contains("row 3, column 5 is NaN"), "{}", cpu.1);
    assert_eq!(cpu, cuda);
}

#[test]
fn a_release_sends_rows_once_and_says_what_the_device_did() {
    let Some(bench) = Bench::new() else { return };
    let write = |dir: &Path, device: &str| {
        fs::create_dir_all(dir).unwrap();
        let text = format!(
            "[source]\npath = {:?}\n[release]\nname = \"m\"\nfolder = \"out\"\n{device}\n[[variant]]\nquant = \"Q4_K_M\"\n\
             [[variant]]\nquant = \"Q8_0\"\n[[variant]]\nquant = \"Q5_0\"\n[[variant]]\ndtype = \"f16\"\n",
            golden("mistral-f16").display().to_string()
        );
        let path = dir.join("release.toml");
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let mut sums = Vec::new();
    for (name, device) in [("a", "device = \"cpu\""), ("b", "device = \"cuda:0\"\ndevice_memory = \"8MiB\"")]
    {
        let dir = bench.path(name);
        let file = write(&dir, device);
        let ran = bench.command(&["release", &file, "--verify"], &[]).output().unwrap();
        assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert_eq!(said.contains("encoded on cuda:0"), name == "b", "{said}");
        let page = fs::read_to_string(dir.join("out/m.report.html")).unwrap();
        assert_eq!(page.contains("encoded on cuda:0"), name == "b");
        let read = |name: &str| fs::read_to_string(dir.join("out").join(name)).unwrap();
        sums.push((read("SHA256SUMS"), read("m.manifest.json")));
    }
    assert_eq!(sums[0], sums[1], "sums and manifest say nothing of the device");
    // The command line has the last word, and finishing needs no device.
    let file = write(&bench.path("c"), "device = \"cuda:7\"");
    let part =
        bench.command(&["release", &file, "--shard", "1/1", "--device", "auto"], &[]).output().unwrap();
    assert_eq!(part.status.code(), Some(0), "{}", String::from_utf8_lossy(&part.stderr));
    let finish = bench.command(&["finish", &file], &[]).output().unwrap();
    assert_eq!(finish.status.code(), Some(0), "{}", String::from_utf8_lossy(&finish.stderr));
    let c = fs::read_to_string(bench.path("c/out/SHA256SUMS")).unwrap();
    assert_eq!(c, sums[0].0);
}

#[test]
fn devices_are_listed() {
    let Some(bench) = Bench::new() else { return };
    let run = |args: &[&str], environment: &[(&str, &str)]| {
        let ran = bench.command(&[&["list", "devices"], args].concat(), environment).output().unwrap();
        assert_eq!(ran.status.code(), Some(0));
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    let two = [("FAKE_CUDA_DEVICES", "2"), ("FAKE_CUDA_ARCH", "86")];
    let text = run(&[], &two);
    assert!(
        text.contains("cuda:1")
            && text.contains("Fake device 1")
            && text.contains("8.6")
            && text.contains("12.9")
    );
    let list = json(&run(&["--json"], &two));
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!((&list[1]["device"], &list[1]["memory"]), (&"cuda:1".into(), &(1u64 << 30).into()));
    let none = [("FAKE_CUDA_DEVICES", "0")];
    assert!(run(&[], &none).contains("no device"));
    assert_eq!(json(&run(&["--json"], &none)), serde_json::json!([]));
}
