//! Disks that fill, as `crates/hub/tests/disk.rs` has them: folders that get copies, and jobs whose source does not fit.
#![cfg(unix)]

mod common;
#[path = "common/hub.rs"]
mod hub;

use common::{big_zero_model, expect, names, text};
use hub::{Hub, expect_of, same, walk};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};
use tensormill_hub_server::{Repo, Server};

/// The program where no file may become longer than so many blocks (of 512 bytes or 1 KiB, as the shell has it).
fn limited(hub: &Hub, blocks: u64, args: &[&str]) -> Command {
    let program = hub.mill();
    let mut c = Command::new("sh");
    // Without the signal, which would end the program, the write itself fails.
    c.args(["-c", "trap '' XFSZ; ulimit -f $0 && exec \"$@\""]).arg(blocks.to_string());
    c.arg(program.get_program()).args(args).stdin(Stdio::null());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => c.env(name, value),
            None => c.env_remove(name),
        };
    }
    c
}

fn hub() -> (Hub, Vec<u8>) {
    let weights: Vec<u8> = (0..6u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let server = Server::start();
    server.state().add(
        Repo::new("org/m")
            .file("config.json", b"{\"model_type\": \"llama\"}")
            .lfs("model.safetensors", &weights),
    );
    (Hub::of(server), weights)
}

#[test]
fn a_folder_that_does_not_fit_gets_no_half_of_a_file() {
    let (hub, weights) = hub();
    let (_, error) = expect_of(6, &mut limited(&hub, 2048, &["pull", "org/m"]));
    assert!(error.contains("model.safetensors has 6291456 bytes") && error.contains("is kept"), "{error}");
    hub.expect(0, &["pull", "org/m"]);
    let out = hub.path("out");
    let out_text = text(&out);
    let copy = ["pull", "org/m", "-o", &out_text];
    let (_, error) = expect_of(6, &mut limited(&hub, 2048, &copy));
    for said in ["out/model.safetensors", "the cache holds the whole file", "--hard-links"] {
        assert!(error.contains(said), "{said} in {error}");
    }
    assert!(!walk(&out).iter().any(|p| text(p).contains("model.safetensors")), "{:?}", walk(&out));
    hub.expect(0, &copy);
    assert!(fs::read(out.join("model.safetensors")).unwrap() == weights);
}

#[test]
fn a_job_whose_source_does_not_fit_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("big");
    big_zero_model(&folder, 512, 2);
    let hub = Hub::new().with("org/big", &folder);
    let (near, far) = (text(&dir.path().join("near.gguf")), hub.path("out/far.gguf"));
    fs::create_dir(hub.path("out")).unwrap();
    expect(0, ["convert", &text(&folder), "-o", &near, "--quant", "Q8_0"]);
    let far_text = text(&far);
    let args = ["convert", "hf://org/big", "-o", &far_text, "--quant", "Q8_0"];
    let (_, error) = expect_of(6, &mut limited(&hub, 2048, &args));
    assert!(error.contains("model.safetensors has") && error.contains("HF_HUB_CACHE"), "{error}");
    assert_eq!(names(&hub.path("out")), [""; 0]);
    hub.expect(0, &args);
    same(Path::new(&near), &far);
}
