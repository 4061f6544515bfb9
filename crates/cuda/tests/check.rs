//! The program that checks a real device (`examples/check`), on the fake one: it passes where bytes are equal, and fails
//! where they are not.
#![cfg(target_os = "linux")]

#[path = "../../../kernels/tests/common/cpp.rs"]
mod cpp;
#[path = "../../../tests/cuda-fake/fake.rs"]
mod fake;

use fake::Fake;
use std::{env, process::Command};

/// Exit code, standard output and standard error.
fn check(args: &[&str], environment: &[(&str, &str)]) -> Option<(Option<i32>, String, String)> {
    let fake = Fake::get()?;
    // Beside the folder of the tests; `--test check` alone does not build it.
    let path = env::current_exe().ok()?.parent()?.parent()?.join("examples/check");
    assert!(path.is_file(), "{} is built with the tests", path.display());
    let cache = tempfile::tempdir().ok()?;
    let mut c = Command::new(path);
    c.args(args).envs(environment.iter().copied());
    fake.apply(&mut c, cache.path());
    let out = c.output().ok()?;
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    Some((out.status.code(), text(&out.stdout), text(&out.stderr)))
}

const SMALL: [&str; 6] = ["parity", "--mb", "1", "--rows", "7", "--columns"];

#[test]
fn parity_is_found_and_so_is_a_single_wrong_byte() {
    let args = [&SMALL[..], &["768"]].concat();
    let Some((code, out, err)) = check(&args, &[]) else { return };
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("Q8_0") && out.contains("bytes that differ"), "{out}");
    let Some((code, out, err)) = check(&args, &[("FAKE_CUDA_SPOIL", "1")]) else { return };
    assert_eq!(code, Some(1), "{out}");
    assert!(err.contains("bytes differ") && err.contains("on the processor"), "{err}");
    let Some((code, _, err)) = check(&args, &[("FAKE_CUDA_LOST_AT", "100")]) else { return };
    assert!(code == Some(1) && err.contains("unspecified launch failure"), "{err}");
}

#[test]
fn every_kernel_is_timed() {
    let args = ["bench", "--mib", "1", "--runs", "1", "--columns", "768"];
    let Some((code, out, err)) = check(&args, &[]) else { return };
    assert_eq!(code, Some(0), "{out}{err}");
    for code in tensormill_kernels::cuda::device_codes() {
        assert!(out.contains(&format!("| {}", code.block.name)), "{out}");
    }
}
