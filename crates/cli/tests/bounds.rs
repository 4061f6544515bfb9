//! Memory stays in its bound, and a killed run leaves nothing that looks finished.

mod common;

use common::{big_zero_model, expect, json, mill, names};
use std::{
    fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

const MIB: u64 = 1 << 20;

#[test]
fn memory_is_bounded_whatever_the_models_size() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m");
    let bytes = big_zero_model(&model, 2048, 12);
    assert!(bytes > 600 * MIB);
    let out = dir.path().join("out.gguf");
    for (quant, memory) in [("Q8_0", 32), ("Q4_0", 128)] {
        let memory_arg = format!("{memory}MiB");
        let (stdout, _) = expect(
            0,
            [
                "convert".as_ref(),
                model.as_os_str(),
                "-o".as_ref(),
                out.as_os_str(),
                "--quant".as_ref(),
                quant.as_ref(),
                "--memory".as_ref(),
                memory_arg.as_ref(),
                "--json".as_ref(),
                "--force".as_ref(),
            ],
        );
        let report = json(&stdout);
        let peak = report["peak_rss_bytes"].as_u64().unwrap();
        assert!(peak <= (memory + 64) * MIB, "{quant}: {} MiB of {memory} + 64", peak / MIB);
        assert_eq!(report["read_bytes"].as_u64(), Some(bytes), "the source is read once");
    }
}

#[test]
fn too_little_memory_is_an_error_that_says_how_much_works() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.gguf");
    let demo = common::demo();
    let (_, stderr) = expect(
        3,
        [
            "convert".as_ref(),
            demo.as_os_str(),
            "-o".as_ref(),
            out.as_os_str(),
            "--memory".as_ref(),
            "1KiB".as_ref(),
        ],
    );
    assert!(stderr.contains("memory"), "{stderr}");
}

#[test]
fn a_killed_run_leaves_nothing_under_the_final_name() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m");
    big_zero_model(&model, 2048, 12);
    let out_dir = dir.path().join("out");
    fs::create_dir(&out_dir).unwrap();
    let out = out_dir.join("big.gguf");
    let mut child = mill()
        .arg("convert")
        .args([model.as_os_str(), "-o".as_ref(), out.as_os_str()])
        .args(["--quant", "Q4_K_M", "-j", "1"])
        .env("TENSORMILL_SIMD", "scalar")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while names(&out_dir).is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be killed");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!out.exists());
    assert!(names(&out_dir).iter().all(|n| n.starts_with('.')), "{:?}", names(&out_dir));
    // What is left is reported, and does not stand in the way of a run that says what to do with it.
    let base = ["convert".as_ref(), model.as_os_str(), "-o".as_ref(), out.as_os_str()];
    let quant = |name: &'static str| ["--quant", name].map(std::ffi::OsStr::new);
    let (_, stderr) = expect(2, base.into_iter().chain(quant("Q8_0")));
    assert!(stderr.contains("--resume") && stderr.contains("--restart"), "{stderr}");
    let (stdout, _) =
        expect(0, base.into_iter().chain(quant("Q8_0")).chain(["--restart".as_ref(), "--json".as_ref()]));
    assert_eq!(names(&out_dir), ["big.gguf"]);
    assert_eq!(json(&stdout)["output_bytes"].as_u64(), Some(fs::metadata(&out).unwrap().len()));
}
