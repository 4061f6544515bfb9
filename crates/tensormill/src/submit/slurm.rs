//! Slurm: an array of parts, and a job that publishes when all of them are done.
//!
//! Options are given to `sbatch` as arguments, not as `#SBATCH` lines: those have quoting rules of their own. A script
//! asks for its own requeue where that helps: when the exit code says so, when something killed the program, and when
//! the time limit is near. Whatever a part has done by then is kept, so each try goes on where the last one stood.

use super::{AGAIN, Batch, KILLED, REPEATS, STOPPED, command_line, plain, quoted};
use std::fmt::Write;
use tensormill_model::Result;

/// Seconds before the time limit at which a script is told to stop; Slurm may be up to a minute early.
const NOTICE: u32 = 60;

/// What only Slurm is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `--partition`
    pub partition: Option<String>,
    /// `--time`, as Slurm writes it
    pub time: Option<String>,
    /// `--mem`, as Slurm writes it; made from the batch's memory when not given
    pub mem: Option<String>,
    /// Further arguments, as they are
    pub extra: Vec<String>,
}

/// One call of `sbatch`: its arguments, and the script it reads from standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Arguments.
    pub args: Vec<String>,
    /// Script.
    pub script: String,
}

/// The array of parts.
///
/// # Errors
/// `Usage` for what cannot stand in a script.
pub fn parts(batch: &Batch, options: &Options) -> Result<Call> {
    let mut args = common(batch, options, "")?;
    let at_once =
        if batch.parallel() < batch.parts { format!("%{}", batch.parallel()) } else { String::new() };
    args.push(format!("--array=1-{}{at_once}", batch.parts));
    args.extend(options.extra.iter().cloned());
    let words = [vec![batch.program.clone()], batch.part_arguments()].concat();
    let command = format!("{} --shard \"$SLURM_ARRAY_TASK_ID/{}\"", command_line(&words), batch.parts);
    // The number of a task of its own: that of the array would requeue all of them.
    Ok(Call { args, script: script(&command, "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}") })
}

/// The job that publishes; `array` is the number of the parts' job, or whatever a shell replaces by it.
///
/// # Errors
/// `Usage` for what cannot stand in a script.
pub fn finish(batch: &Batch, options: &Options, array: &str) -> Result<Call> {
    let mut args = common(batch, options, "-finish")?;
    args.push(format!("--dependency=afterok:{array}"));
    // When a part has failed for good this job can never start: it should not wait in the queue for ever.
    args.push("--kill-on-invalid-dep=yes".to_owned());
    args.extend(options.extra.iter().cloned());
    let words = [vec![batch.program.clone()], batch.finish_arguments()].concat();
    Ok(Call { args, script: script(&command_line(&words), "$SLURM_JOB_ID") })
}

/// A shell script that submits both: what a person reads, keeps, or edits.
///
/// # Errors
/// `Usage` for what cannot stand in a script.
pub fn submission(batch: &Batch, options: &Options) -> Result<String> {
    const MARK: &str = "array=";
    let (parts, finish) = (parts(batch, options)?, finish(batch, options, MARK)?);
    let mut out = format!(
        "#!/bin/sh\n\
         # Submits {} parts of a release to Slurm, and a job that publishes when all of them are done.\n\
         # Made by `tensormill submit slurm`; with --run it submits the same by itself.\n\
         set -eu\n\n",
        batch.parts
    );
    // A here-document with a quoted end is taken as it is; its end stands in no line of a script.
    let _ = write!(
        out,
        "array=$(sbatch {} <<'RELEASE_PART'\n{}RELEASE_PART\n)\narray=${{array%%;*}}\n\n",
        command_line(&parts.args),
        parts.script
    );
    let args = command_line(&finish.args);
    let dependency = format!("--dependency=afterok:{MARK}");
    let args = args.replacen(&quoted(&dependency), "--dependency=\"afterok:$array\"", 1);
    let _ = write!(
        out,
        "finish=$(sbatch {args} <<'RELEASE_FINISH'\n{}RELEASE_FINISH\n)\n\
         echo \"parts: job $array; publishing: job ${{finish%%;*}}\"\n",
        finish.script
    );
    Ok(out)
}

/// The job's number in what `sbatch --parsable` prints: `number` or `number;cluster`.
pub fn job_number(printed: &str) -> Option<u64> {
    printed.trim().split(';').next()?.parse().ok()
}

fn common(batch: &Batch, options: &Options, suffix: &str) -> Result<Vec<String>> {
    batch.check()?;
    let own = [&options.partition, &options.time, &options.mem];
    own.into_iter().flatten().chain(&options.extra).try_for_each(|s| plain(s))?;
    let mem = options.mem.clone().unwrap_or_else(|| format!("{}M", batch.memory_to_ask().div_ceil(1 << 20)));
    let mut args = vec![
        "--parsable".to_owned(),
        format!("--job-name={}{suffix}", batch.name),
        "--nodes=1".to_owned(),
        "--ntasks=1".to_owned(),
        format!("--cpus-per-task={}", batch.cpus),
        format!("--mem={mem}"),
        "--requeue".to_owned(),
        // The log of one task holds all its tries.
        "--open-mode=append".to_owned(),
        format!("--signal=B:USR1@{NOTICE}"),
    ];
    args.extend(options.partition.iter().map(|p| format!("--partition={p}")));
    args.extend(options.time.iter().map(|t| format!("--time={t}")));
    Ok(args)
}

/// The script of a job: runs a command, passes the notice of the time limit on to it, and asks for a requeue.
///
/// The trap is there before the program is, since a notice may come at once, and reads `$!`, which is set as the program
/// is started. `wait` ends early when a signal comes, so it is asked until the program is gone. SIGTERM is not handled: that is
/// how `scancel` ends a job, which must then not come back.
fn script(command: &str, task: &str) -> String {
    format!(
        r#"#!/bin/sh
# Runs one job of a release. Exit codes: 0 done; {AGAIN} worth repeating; others are final.
limit=
code=
trap 'limit=1; kill -TERM $! 2>/dev/null' USR1
{command} &
while [ -z "$code" ] || kill -0 $! 2>/dev/null; do
    wait $!
    code=$?
done
case $code in
    0) exit 0 ;;
    {AGAIN}) why="exit code {AGAIN}" ;;
    {KILLED}) why="it was killed" ;;
    {STOPPED}) if [ "$limit" ]; then why="the time limit is near"; else exit "$code"; fi ;;
    *) exit "$code" ;;
esac
restarts=${{SLURM_RESTART_COUNT:-0}}
if [ "$restarts" -ge {REPEATS} ]; then
    echo "$why: given up after $restarts restarts" >&2
    exit "$code"
fi
echo "$why: asking for restart $((restarts + 1)) of {REPEATS}" >&2
scontrol requeue "{task}"
exit "$code"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{HOSTILE, batch},
        *,
    };
    use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

    fn executable(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn options_become_arguments() {
        let options = Options {
            partition: Some("long,short".into()),
            time: Some("1-00:00:00".into()),
            mem: None,
            extra: vec!["--account=some one".into()],
        };
        let mut batch = batch("/r.toml");
        batch.parallel = Some(3);
        let call = parts(&batch, &options).unwrap();
        for arg in [
            "--job-name=tensormill-my-model-1-0",
            "--array=1-4%3",
            "--cpus-per-task=2",
            "--mem=768M",
            "--partition=long,short",
            "--time=1-00:00:00",
            "--account=some one",
            "--requeue",
        ] {
            assert!(call.args.iter().any(|a| a == arg), "{arg}: {:?}", call.args);
        }
        let options = Options { mem: Some("3G".into()), ..options };
        let call = finish(&batch, &options, "77").unwrap();
        assert!(call.args.contains(&"--dependency=afterok:77".to_owned()), "{:?}", call.args);
        assert!(call.args.contains(&"--mem=3G".to_owned()), "{:?}", call.args);
        assert!(parts(&batch, &Options { time: Some("1\n2".into()), ..options }).is_err());
        assert_eq!(
            (job_number("12\n"), job_number("7;big"), job_number("sbatch: no")),
            (Some(12), Some(7), None)
        );
    }

    /// Runs a submission with an `sbatch` that writes down what it is given.
    #[test]
    fn hostile_paths_reach_sbatch_and_the_program_as_they_are() {
        for path in HOSTILE {
            let tmp = tempfile::tempdir().unwrap();
            let dir = tmp.path();
            executable(
                &dir.join("sbatch"),
                "#!/bin/sh\nn=$(ls | grep -c '^script')\n\
                 cat >\"script$n\"\nprintf '%s\\n' \"$@\" >\"args$n\"\necho \"4$n;cluster\"\n",
            );
            executable(&dir.join("mill '$x"), "#!/bin/sh\nprintf '%s\\n' \"$@\" >ran\n");
            let mut batch = batch(path);
            batch.program = dir.join("mill '$x").display().to_string();
            let options = Options { extra: vec![format!("--comment={path}")], ..Options::default() };
            let sh = |script: &str| {
                let out = Command::new("sh")
                    .args(["-c", script])
                    .current_dir(dir)
                    .env("PATH", format!("{}:/usr/bin:/bin", dir.display()))
                    .env("SLURM_ARRAY_TASK_ID", "3")
                    .output()
                    .unwrap();
                assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
                String::from_utf8(out.stdout).unwrap()
            };
            let said = sh(&submission(&batch, &options).unwrap());
            assert_eq!(said, "parts: job 40; publishing: job 41\n");
            let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
            let lines = |args: &[String]| args.iter().fold(String::new(), |all, a| all + a + "\n");
            let (first, second) = (parts(&batch, &options).unwrap(), finish(&batch, &options, "40").unwrap());
            assert_eq!((read("script0"), read("args0")), (first.script.clone(), lines(&first.args)));
            assert_eq!((read("script1"), read("args1")), (second.script, lines(&second.args)));
            sh(&first.script);
            let expected = [batch.part_arguments(), vec!["--shard".into(), "3/4".into()]].concat();
            assert_eq!(read("ran"), lines(&expected));
            assert!(!dir.join("pwned").exists());
        }
    }

    #[test]
    fn exit_codes_decide_about_a_requeue() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        executable(&dir.join("scontrol"), "#!/bin/sh\necho \"$@\"\n");
        let run = |command: &str, restarts: Option<&str>| {
            let mut c = Command::new("sh");
            c.args(["-c", &script(command, "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}")]);
            c.env("PATH", format!("{}:/usr/bin:/bin", dir.display()))
                .envs(restarts.map(|n| ("SLURM_RESTART_COUNT", n)));
            let out = c.env("SLURM_ARRAY_JOB_ID", "9").env("SLURM_ARRAY_TASK_ID", "2").output().unwrap();
            (out.status.code(), String::from_utf8(out.stdout).unwrap())
        };
        let (again, no) = ("requeue 9_2\n", "");
        for (command, restarts, code, asked) in [
            ("true", None, 0, no),
            ("sh -c 'exit 75'", None, 75, again),
            ("sh -c 'exit 75'", Some("5"), 75, again),
            ("sh -c 'exit 75'", Some("6"), 75, no),
            ("sh -c 'kill -KILL $$'", None, 137, again),
            ("sh -c 'exit 3'", None, 3, no),
            ("sh -c 'exit 130'", None, 130, no),
            ("sh -c 'kill -SEGV $$'", None, 139, no),
            // The notice of the time limit: the program is asked to stop, and its code is waited for.
            (
                "sh -c 'trap \"sleep 0.2; exit 130\" TERM; sleep 0.3; kill -USR1 $PPID; while :; do sleep 0.05; done'",
                None,
                130,
                again,
            ),
        ] {
            assert_eq!(run(command, restarts), (Some(code), asked.to_owned()), "{command}");
        }
    }
}
