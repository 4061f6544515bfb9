//! The dependency direction of the house, read from `cargo metadata`: any edge that is not listed here fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

/// What each crate may use, besides crates from outside the workspace.
const ALLOWED: &[(&str, &[&str])] = &[
    ("tensormill-tensor", &[]),
    ("tensormill-kernels", &["tensormill-tensor"]),
    ("tensormill-graph", &["tensormill-tensor"]),
    ("tensormill-model", &["tensormill-tensor", "tensormill-graph"]),
    ("tensormill-store", &["tensormill-model", "tensormill-tensor"]),
    ("tensormill-safetensors", &["tensormill-model", "tensormill-tensor"]),
    ("tensormill-gguf", &["tensormill-model", "tensormill-tensor"]),
    ("tensormill-pickle", &["tensormill-model", "tensormill-tensor"]),
    ("tensormill-onnx", &["tensormill-model", "tensormill-tensor", "tensormill-graph"]),
    ("tensormill-arch", &["tensormill-model", "tensormill-tensor"]),
    ("tensormill-vocab", &["tensormill-model", "tensormill-tensor"]),
    ("tensormill-card", &["tensormill-model", "tensormill-tensor"]),
    ("tensormill-transforms", &["tensormill-model", "tensormill-tensor", "tensormill-kernels"]),
    (
        "tensormill-schemes",
        &["tensormill-model", "tensormill-tensor", "tensormill-kernels", "tensormill-transforms"],
    ),
    ("tensormill-adapters", &["tensormill-model", "tensormill-tensor", "tensormill-lowrank"]),
    ("tensormill-merge", &["tensormill-model", "tensormill-tensor"]),
    ("tensormill-lowrank", &[]),
    ("tensormill-export", &["tensormill-model", "tensormill-tensor", "tensormill-graph"]),
    ("tensormill-engine", &["tensormill-model", "tensormill-tensor"]),
    ("tensormill-cuda", &["tensormill-model", "tensormill-tensor", "tensormill-kernels"]),
    ("tensormill-report", &[]),
    ("tensormill-runtime", &["tensormill-model", "tensormill-tensor"]),
    ("tensormill-hub", &["tensormill-model", "tensormill-store"]),
    ("tensormill-hub-server", &[]),
    (
        "tensormill-scan",
        &["tensormill-model", "tensormill-store", "tensormill-pickle", "tensormill-safetensors"],
    ),
    (
        "tensormill-core",
        &[
            "tensormill-tensor",
            "tensormill-model",
            "tensormill-store",
            "tensormill-safetensors",
            "tensormill-gguf",
            "tensormill-pickle",
            "tensormill-onnx",
            "tensormill-arch",
            "tensormill-vocab",
            "tensormill-card",
            "tensormill-transforms",
            "tensormill-schemes",
            "tensormill-adapters",
            "tensormill-merge",
            "tensormill-lowrank",
            "tensormill-graph",
            "tensormill-export",
            "tensormill-engine",
            "tensormill-cuda",
            "tensormill-report",
            "tensormill-runtime",
            "tensormill-scan",
            "tensormill-hub",
            "tensormill-kernels",
        ],
    ),
    ("tensormill", &["tensormill-core"]),
    ("xtask", &[]),
];

/// Crates that test or measure the others and may therefore see all of them.
const OBSERVERS: &[&str] = &["tensormill-tests", "tensormill-benches"];

#[test]
fn only_the_designed_edges_exist() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(format!("{root}/Cargo.toml"))
        .output()
        .expect("cargo metadata runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON");
    let packages = json["packages"].as_array().expect("packages");
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("name");
        if OBSERVERS.contains(&name) {
            continue;
        }
        let Some(may) = allowed.get(name) else {
            wrong.push(format!("{name} is not in the list of crates; say where it stands"));
            continue;
        };
        for dep in package["dependencies"].as_array().expect("dependencies") {
            // Tests of a crate may look around; what ships may not.
            let target = dep["name"].as_str().expect("dependency name");
            if dep["kind"].as_str() != Some("dev") && ours.contains(target) && !may.contains(&target) {
                wrong.push(format!("{name} -> {target}"));
            }
        }
    }
    for name in allowed.keys() {
        if !ours.contains(name) {
            wrong.push(format!("{name} is listed here but does not exist"));
        }
    }
    assert!(wrong.is_empty(), "edges outside the design:\n{}", wrong.join("\n"));
}
