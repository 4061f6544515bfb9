//! `submit`: what is handed to an engine does the release. The real Slurm is in `tests/slurm`.

mod common;

use common::{expect, json, mill};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

/// Takes a script as Slurm's `sbatch` does, and runs all its tasks at once.
const SBATCH: &str = r#"#!/bin/sh
cat >script
tasks=
for arg; do
    case $arg in --array=1-*) tasks=$(seq "${arg#--array=1-}") ;; esac
    printf '%s\n' "$arg" >>args
done
if [ "$tasks" ]; then
    for task in $tasks; do
        SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task sh script >>log 2>&1 || exit
    done
    echo 7
else
    SLURM_JOB_ID=8 sh script >>log 2>&1 || exit
    echo "8;cluster"
fi
"#;

fn workplace(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    common::copy_demo(&dir.join("the 'model'"));
    let text = "[source]\npath = \"the 'model'\"\n[release]\nname = \"Demo\"\nfolder = \"out\"\nmemory = \"128MiB\"\n\
                threads = 1\n[[variant]]\nquant = \"Q4_K_M\"\n[[variant]]\nquant = \"Q8_0\"\n";
    fs::write(dir.join("re $lease.toml"), text).unwrap();
    fs::write(dir.join("sbatch"), SBATCH).unwrap();
    fs::set_permissions(dir.join("sbatch"), fs::Permissions::from_mode(0o755)).unwrap();
}

fn submit(dir: &Path, path: &str, args: &[&str]) -> Output {
    mill()
        .args(["submit", "slurm", "re $lease.toml"])
        .args(args)
        .current_dir(dir)
        .env("PATH", path)
        .output()
        .unwrap()
}

fn sums(dir: &Path) -> String {
    fs::read_to_string(dir.join("out/SHA256SUMS")).unwrap()
}

#[test]
fn a_submitted_release_is_the_one_that_one_process_makes() {
    let tmp = tempfile::tempdir().unwrap();
    let (one, printed, run) = (tmp.path().join("one"), tmp.path().join("a b"), tmp.path().join("it's"));
    for dir in [&one, &printed, &run] {
        workplace(dir);
    }
    expect(0, ["release", one.join("re $lease.toml").to_str().unwrap()]);
    let path = |dir: &Path| format!("{}:/usr/bin:/bin", dir.display());

    let out = submit(&printed, &path(&printed), &["-n", "3"]);
    let script = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && !printed.join("out").exists(), "{script}");
    let said = Command::new("sh")
        .args(["-c", &script])
        .current_dir(&printed)
        .env("PATH", path(&printed))
        .output()
        .unwrap();
    let log = fs::read_to_string(printed.join("log")).unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "parts: job 7; publishing: job 8\n", "{log}");
    assert!(log.contains("part 3/3"), "{log}");

    let out =
        submit(&run, &path(&run), &["-n", "2", "--run", "--json", "--sbatch-arg=--qos=a b", "--time", "9"]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(json(&said), serde_json::json!({"parts": 2, "array_job": 7, "finish_job": 8}));
    let args = fs::read_to_string(run.join("args")).unwrap();
    for arg in ["--mem=384M", "--cpus-per-task=1", "--qos=a b", "--time=9", "--dependency=afterok:7"] {
        assert!(args.lines().any(|a| a == arg), "{arg} in {args}");
    }
    assert_eq!((sums(&printed), sums(&run)), (sums(&one), sums(&one)));
}

#[test]
fn what_slurm_does_not_take_is_told() {
    let tmp = tempfile::tempdir().unwrap();
    workplace(tmp.path());
    let empty = tmp.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let refused = |path: &Path, args: &[&str], what: &str| {
        let out = submit(tmp.path(), &format!("{}:/bin", path.display()), args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(2) && said.contains(what), "{said}");
    };
    if !Path::new("/bin/sbatch").exists() {
        refused(&empty, &["-n", "2", "--run"], "no sbatch");
    }
    fs::write(tmp.path().join("sbatch"), "#!/bin/sh\necho 'bad partition' >&2\nexit 1\n").unwrap();
    refused(tmp.path(), &["-n", "2", "--run"], "did not take the job");
    refused(tmp.path(), &["-n", "0"], "0");
    refused(tmp.path(), &["-n", "2", "--sbatch-arg=a\nb"], "control character");
    assert!(!tmp.path().join("out").exists());
}

#[test]
fn kubernetes_paths_lie_on_the_volume() {
    let tmp = tempfile::tempdir().unwrap();
    workplace(tmp.path());
    let file = tmp.path().join("re $lease.toml");
    let common =
        ["submit", "kubernetes", file.to_str().unwrap(), "-n", "2", "--image", "i", "--volume-claim", "c"];
    let with = |code: i32, more: &[&str]| expect(code, common.iter().chain(more));
    let (text, _) = with(0, &["--path", "/data/x/re $lease.toml"]);
    assert!(
        text.contains("\"/data/x/re $$lease.toml\"") && text.contains("name: \"tensormill-demo-finish\""),
        "{text}"
    );
    with(0, &["--mount", tmp.path().to_str().unwrap()]);
    let (_, error) = with(2, &[]);
    assert!(error.contains("not on the volume"), "{error}");
    with(2, &["--path", "/elsewhere/r.toml"]);
    with(2, &["--path", "/data/r.toml", "--name", "a: b"]);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"out\"", "\"/scratch/out\"")).unwrap();
    let (_, error) = with(2, &["--path", "/data/x/r.toml"]);
    assert!(error.contains("folder of the outputs") && error.contains("/scratch/out"), "{error}");
}
