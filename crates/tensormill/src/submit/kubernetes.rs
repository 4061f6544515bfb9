//! Kubernetes: an Indexed Job of parts, and a Job that publishes when all of them are done.
//!
//! Fields are those of `batch/v1`; the newest of them, per-index limits, are on by default from 1.29 and stable in
//! 1.33 (<https://kubernetes.io/docs/concepts/workloads/controllers/job/>). Everything that comes from outside is a double-quoted scalar, so no path can change the manifest's shape,
//! and paths reach the container's shell as arguments, so no path is a shell's to read. In `command` and `args`
//! Kubernetes itself replaces `$(NAME)`: every dollar is doubled there, which it takes back.

use super::{AGAIN, Batch, KILLED, REPEATS, STOPPED, TERMINATED, plain};
use std::{
    fmt::Write,
    path::{Component, Path, PathBuf},
};
use tensormill_model::{Error, Result};

/// What only Kubernetes is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Image that holds the program and a shell.
    pub image: String,
    /// Claim of the volume that holds source, release file and outputs; all pods write to it (`ReadWriteMany`).
    pub volume_claim: String,
    /// Where the volume is mounted in the container.
    pub mount: String,
    /// Seconds for which the publishing job waits for parts before it fails.
    pub deadline: u64,
}

/// Starts part `index + 1`: Kubernetes counts from zero. `$0` and the arguments are the program's.
const PART: &str = "\
part=$((JOB_COMPLETION_INDEX + 1))
exec \"$0\" \"$@\" --shard \"$part/PARTS\"";

/// Publishes as soon as all parts are complete; until then the program says that it is worth repeating. The shell is
/// the container's first process and hands SIGTERM on. A signal can come between any two commands: the trap reads `$!`,
/// which is set as the program is started, and an assignment after that would be too late.
const FINISH: &str = "\
trap 'kill -TERM $! 2>/dev/null; wait $!; exit 143' TERM
while :; do
    \"$0\" \"$@\" &
    wait $!; code=$?
    [ \"$code\" -eq 75 ] || exit \"$code\"
    sleep 30 &
    wait $!
done";

/// Checks that a path of the release lies on the volume.
///
/// # Errors
/// `Usage` when it does not.
pub fn on_volume(mount: &str, what: &str, path: &Path) -> Result<()> {
    if normal(path).starts_with(normal(Path::new(mount))) {
        return Ok(());
    }
    Err(Error::usage(format!("{what} is not on the volume, which is mounted at {mount}"))
        .file(path.display())
        .hint("give the place where the volume is mounted with --mount, and the release file's path there with --path"))
}

/// The path without `.` and `..`, as far as its text says.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut out, c| {
        match c {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            c => out.push(c),
        }
        out
    })
}

/// Both jobs, as a stream of two YAML documents.
///
/// # Errors
/// `Usage` for what cannot stand in a manifest.
pub fn manifest(batch: &Batch, options: &Options) -> Result<String> {
    batch.check()?;
    [&options.image, &options.volume_claim, &options.mount].into_iter().try_for_each(|s| plain(s))?;
    if !is_name(&batch.name) {
        return Err(Error::usage(format!("{:?} cannot be the name of a job", batch.name)).hint(
            "it is small letters, digits and dashes, begins with a letter, and has at most 50 of them",
        ));
    }
    if !options.mount.starts_with('/') || options.mount.contains(':') {
        return Err(Error::usage("the place of the volume must be an absolute path without a colon")
            .file(&options.mount));
    }
    on_volume(&options.mount, "the release file", Path::new(&batch.release))?;
    let mut out = format!(
        "# A release in {parts} parts, and a job that publishes when all of them are complete. Submit both at once:\n\
         #   tensormill submit kubernetes ... | kubectl apply -f -\n\
         # Exit codes: 0 done; {AGAIN} worth repeating; others are final. A part that is repeated goes on where it stood.\n",
        parts = batch.parts,
    );
    let name = &batch.name;
    let script = PART.replace("PARTS", &batch.parts.to_string());
    let _ = write!(
        out,
        "apiVersion: batch/v1\n\
         kind: Job\n\
         metadata:\n\
         \x20 name: \"{name}\"\n\
         spec:\n\
         \x20 completionMode: Indexed\n\
         \x20 completions: {parts}\n\
         \x20 parallelism: {parallel}\n\
         \x20 backoffLimitPerIndex: {REPEATS}\n\
         \x20 podFailurePolicy:\n\
         \x20   rules:\n\
         \x20   # A machine that goes away says nothing about the part.\n\
         \x20   - action: Ignore\n\
         \x20     onPodConditions:\n\
         \x20     - type: DisruptionTarget\n\
         \x20       status: \"True\"\n\
         \x20   # Worth repeating: said so, stopped on request, killed, terminated. All else is final.\n\
         \x20   - action: FailIndex\n\
         \x20     onExitCodes:\n\
         \x20       containerName: part\n\
         \x20       operator: NotIn\n\
         \x20       values: [{AGAIN}, {STOPPED}, {KILLED}, {TERMINATED}]\n",
        parts = batch.parts,
        parallel = batch.parallel(),
    );
    out.push_str(&template(batch, options, "part", &script, &batch.part_arguments()));
    let _ = write!(
        out,
        "---\n\
         apiVersion: batch/v1\n\
         kind: Job\n\
         metadata:\n\
         \x20 name: \"{name}-finish\"\n\
         spec:\n\
         \x20 # Waits for the parts; a part that fails for good would make it wait for ever.\n\
         \x20 activeDeadlineSeconds: {deadline}\n\
         \x20 backoffLimit: {REPEATS}\n",
        deadline = options.deadline,
    );
    out.push_str(&template(batch, options, "finish", FINISH, &batch.finish_arguments()));
    Ok(out)
}

/// Whether hosts can be called this with an index behind it (RFC 1123; 63 characters at most).
fn is_name(name: &str) -> bool {
    const LONGEST: usize = 50;
    name.len() <= LONGEST
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// The pod of a job.
fn template(batch: &Batch, options: &Options, container: &str, script: &str, args: &[String]) -> String {
    let memory = format!("{}Mi", batch.memory_to_ask().div_ceil(1 << 20));
    // Waiting takes no core; publishing reads and hashes, which what a node has left does well enough.
    let cpu = if container == "finish" { "100m".to_owned() } else { batch.cpus.to_string() };
    let expanded = |s: &str| scalar(&s.replace('$', "$$"));
    let mut out = format!(
        "\x20 template:\n\
         \x20   spec:\n\
         \x20     restartPolicy: Never\n\
         \x20     containers:\n\
         \x20     - name: {container}\n\
         \x20       image: {image}\n\
         \x20       command: [\"/bin/sh\", \"-c\"]\n\
         \x20       args:\n\
         \x20       - |\n",
        image = scalar(&options.image),
    );
    for line in script.replace('$', "$$").lines() {
        let _ = writeln!(out, "          {line}");
    }
    for word in std::iter::once(&batch.program).chain(args) {
        let _ = writeln!(out, "        - {}", expanded(word));
    }
    let _ = write!(
        out,
        "\x20       resources:\n\
         \x20         requests: {{cpu: \"{cpu}\", memory: {memory}}}\n\
         \x20         limits: {{memory: {memory}}}\n\
         \x20       volumeMounts:\n\
         \x20       - name: data\n\
         \x20         mountPath: {mount}\n\
         \x20     volumes:\n\
         \x20     - name: data\n\
         \x20       persistentVolumeClaim:\n\
         \x20         claimName: {claim}\n",
        mount = scalar(&options.mount),
        claim = scalar(&options.volume_claim),
    );
    out
}

/// A double-quoted scalar; control characters were refused before.
fn scalar(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{HOSTILE, batch},
        *,
    };
    use saphyr_parser::{Event, Parser};
    use serde_json::{Map, Value};
    use std::process::Command;

    fn options() -> Options {
        Options {
            image: "repo/mill:1".into(),
            volume_claim: "models".into(),
            mount: "/data".into(),
            deadline: 3600,
        }
    }

    /// The documents of a YAML stream; only what manifests use. Plain scalars that are numbers become numbers.
    fn documents(text: &str) -> Vec<Value> {
        fn node<'a>(first: Event<'a>, rest: &mut impl Iterator<Item = Event<'a>>) -> Value {
            match first {
                Event::Scalar(text, saphyr_parser::ScalarStyle::Plain, ..) if text.parse::<u64>().is_ok() => {
                    text.parse::<u64>().unwrap().into()
                }
                Event::Scalar(text, ..) => text.into_owned().into(),
                Event::SequenceStart(..) => {
                    let mut list = Vec::new();
                    loop {
                        match rest.next().unwrap() {
                            Event::SequenceEnd => return list.into(),
                            item => list.push(node(item, rest)),
                        }
                    }
                }
                Event::MappingStart(..) => {
                    let mut map = Map::new();
                    loop {
                        match rest.next().unwrap() {
                            Event::MappingEnd => return map.into(),
                            key => {
                                let key = node(key, rest).as_str().unwrap().to_owned();
                                let value = rest.next().unwrap();
                                let value = node(value, rest);
                                assert!(map.insert(key, value).is_none(), "a key stands twice");
                            }
                        }
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        let mut events = Parser::new_from_str(text).map(|e| e.unwrap().0);
        let mut out = Vec::new();
        while let Some(event) = events.next() {
            if let Event::DocumentStart(..) = event {
                let first = events.next().unwrap();
                out.push(node(first, &mut events));
            }
        }
        out
    }

    /// What Kubernetes makes of `args`.
    fn expand(args: &Value) -> Vec<String> {
        let words = args.as_array().unwrap().iter();
        words.map(|a| a.as_str().unwrap().replace("$$", "$")).collect()
    }

    #[test]
    fn the_manifest_has_the_fields_of_the_batch_api() {
        let mut batch = batch("/data/r.toml");
        batch.parallel = Some(2);
        let docs = documents(&manifest(&batch, &options()).unwrap());
        let [parts, finish] = docs.as_slice() else { panic!("two documents") };
        let spec = &parts["spec"];
        assert_eq!((&parts["apiVersion"], &parts["kind"]), (&"batch/v1".into(), &"Job".into()));
        assert_eq!(spec["completionMode"], "Indexed");
        assert_eq!((&spec["completions"], &spec["parallelism"]), (&4.into(), &2.into()));
        let rules = &spec["podFailurePolicy"]["rules"];
        assert_eq!(rules[0]["action"], "Ignore");
        assert_eq!(rules[0]["onPodConditions"][0]["type"], "DisruptionTarget");
        assert_eq!(rules[1]["action"], "FailIndex");
        let codes = &rules[1]["onExitCodes"];
        assert_eq!(
            (&codes["operator"], &codes["values"]),
            (&"NotIn".into(), &serde_json::json!([75, 130, 137, 143]))
        );
        let pod = &spec["template"]["spec"];
        assert_eq!(
            (&pod["restartPolicy"], &codes["containerName"]),
            (&"Never".into(), &pod["containers"][0]["name"])
        );
        assert_eq!(
            pod["containers"][0]["resources"]["requests"],
            serde_json::json!({"cpu": "2", "memory": "768Mi"})
        );
        assert_eq!(pod["volumes"][0]["persistentVolumeClaim"]["claimName"], "models");
        assert_eq!(pod["containers"][0]["volumeMounts"][0]["mountPath"], "/data");
        assert_eq!(
            finish["metadata"]["name"],
            format!("{}-finish", parts["metadata"]["name"].as_str().unwrap())
        );
        assert_eq!(
            (&finish["spec"]["activeDeadlineSeconds"], &finish["spec"]["backoffLimit"]),
            (&3600.into(), &6.into())
        );
    }

    #[test]
    fn hostile_paths_reach_the_program_as_they_are() {
        for path in HOSTILE {
            let tmp = tempfile::tempdir().unwrap();
            let batch = Batch { program: "printf".into(), ..batch(path) };
            let image = format!("image{path}");
            let docs = documents(&manifest(&batch, &Options { image: image.clone(), ..options() }).unwrap());
            let container = &docs[0]["spec"]["template"]["spec"]["containers"][0];
            assert_eq!(container["image"], *image);
            assert_eq!(container["command"], serde_json::json!(["/bin/sh", "-c"]));
            let mut args = expand(&container["args"]);
            assert_eq!(args[1..], [vec!["printf".to_owned()], batch.part_arguments()].concat());
            args.insert(2, "%s\\n".into());
            let out = Command::new("/bin/sh")
                .arg("-c")
                .args(&args)
                .env("JOB_COMPLETION_INDEX", "2")
                .current_dir(tmp.path())
                .output()
                .unwrap();
            let expected = [batch.part_arguments(), vec!["--shard".into(), "3/4".into()]].concat();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), expected.join("\n") + "\n");
            assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn publishing_waits_for_the_parts_and_hands_signals_on() {
        let tmp = tempfile::tempdir().unwrap();
        let shell = |program: &str| {
            let mut c = Command::new("/bin/sh");
            c.args(["-c", &FINISH.replace("sleep 30", "sleep 0"), "/bin/sh", "-c", program])
                .current_dir(tmp.path());
            c
        };
        // Missing parts twice, then an end.
        for end in [0, 3] {
            let program =
                format!("echo >>tries; [ $(wc -l <tries) -gt 2 ] || exit {AGAIN}; rm tries; exit {end}");
            assert_eq!(shell(&program).status().unwrap().code(), Some(end));
        }
        let told = "trap 'echo >told; exit 130' TERM; kill -TERM $PPID; while :; do sleep 0.05; done";
        assert_eq!(shell(told).status().unwrap().code(), Some(i32::from(TERMINATED)));
        assert!(tmp.path().join("told").exists());
    }

    #[test]
    fn what_is_not_on_the_volume_is_refused() {
        for bad in ["/other/r.toml", "/data/../r.toml", "/database/r.toml"] {
            assert!(manifest(&batch(bad), &options()).is_err(), "{bad}");
        }
        assert!(manifest(&batch("/data/a/../r.toml"), &options()).is_ok());
        for name in ["", "A", "a: b", "1", "a-", "a\"b", &"a".repeat(51)] {
            let batch = Batch { name: name.into(), ..batch("/data/r.toml") };
            assert!(manifest(&batch, &options()).is_err(), "{name}");
        }
        for mount in ["data", "/da:ta", "/da\nta"] {
            assert!(manifest(&batch("/data/r.toml"), &Options { mount: mount.into(), ..options() }).is_err());
        }
    }
}
