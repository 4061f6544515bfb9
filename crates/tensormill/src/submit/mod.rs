//! Releases on many machines: what an existing batch engine is given so that it runs every part and then publishes.
//!
//! Pure text from plain data. This module submits nothing, runs no program, and knows no cluster; who calls it does.
//! The exit codes it writes into scripts are the command line's contract.

pub mod kubernetes;
pub mod slurm;

use crate::{job::Job, memory::OVERHEAD};
use tensormill_model::{Error, Result};

/// Exit code of a run that is worth repeating as it is.
const AGAIN: u8 = 75;
/// Exit code of a run that was asked to stop (SIGINT, SIGTERM); repeating it continues it.
const STOPPED: u8 = 130;
/// What a shell says of a process that SIGKILL ended: from outside, mostly for memory or for a machine's end.
const KILLED: u8 = 137;
/// What a container engine says of a process that SIGTERM ended before it could listen.
const TERMINATED: u8 = 143;

/// How often an engine repeats one part before it gives up.
const REPEATS: u32 = 6;

/// What a part may take beside `--memory` and the program's own overhead before the engine kills it: the shell around
/// it, and the pages of the file system that engines charge to whom they serve.
const HEADROOM: u64 = 192 << 20;

/// Most parts: what an array or an indexed job can count, and more than any release has work for.
pub const MOST_PARTS: u64 = 100_000;

/// What is submitted, whichever engine runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The release file, as the machines that work see it: an absolute path.
    pub release: String,
    /// The program, as those machines see it.
    pub program: String,
    /// What the jobs are called; [`label`] makes one from a release's name.
    pub name: String,
    /// Number of parts.
    pub parts: u64,
    /// Parts at work at a time; all of them when not given.
    pub parallel: Option<u64>,
    /// `--memory` of each part, in bytes.
    pub memory: u64,
    /// Cores, and threads, of each part.
    pub cpus: u64,
    /// Replace existing outputs.
    pub force: bool,
}

impl Batch {
    /// A batch that runs a job's release file.
    pub fn new(job: &Job, release: impl Into<String>, program: impl Into<String>, parts: u64) -> Self {
        /// When the release file does not say: what most nodes have to spare, and enough to keep a disk busy.
        const CPUS: usize = 4;
        Self {
            release: release.into(),
            program: program.into(),
            name: label(&job.name),
            parts,
            parallel: None,
            memory: job.memory,
            cpus: job.threads.unwrap_or(CPUS) as u64,
            force: false,
        }
    }

    /// Memory to ask the engine for, in bytes: what a part's resident memory stays under, and 192 MiB of headroom.
    pub fn memory_to_ask(&self) -> u64 {
        self.memory.saturating_add(OVERHEAD + HEADROOM)
    }

    /// Arguments of a part, before `--shard`.
    fn part_arguments(&self) -> Vec<String> {
        let mut args = vec!["release".to_owned(), self.release.clone()];
        args.extend(["--memory".to_owned(), self.memory.to_string()]);
        args.extend(["--threads".to_owned(), self.cpus.to_string()]);
        args.extend(["--progress".to_owned(), "plain".to_owned()]);
        args.extend(self.force.then(|| "--force".to_owned()));
        args
    }

    /// Arguments of what publishes.
    fn finish_arguments(&self) -> Vec<String> {
        let mut args = vec!["finish".to_owned(), self.release.clone()];
        args.extend(["--progress".to_owned(), "plain".to_owned()]);
        args.extend(self.force.then(|| "--force".to_owned()));
        args
    }

    /// Parts at work at a time.
    fn parallel(&self) -> u64 {
        self.parallel.unwrap_or(self.parts).clamp(1, self.parts.max(1))
    }

    fn check(&self) -> Result<()> {
        if self.parts == 0 || self.parts > MOST_PARTS {
            return Err(Error::usage(format!("cannot divide the work into {} parts", self.parts))
                .hint(format!("it is 1 to {MOST_PARTS}")));
        }
        if self.cpus == 0 || self.memory == 0 {
            return Err(Error::usage("a part needs at least one core and some memory"));
        }
        if !self.release.starts_with('/') {
            return Err(Error::usage(
                "the release file's path is not absolute: other machines cannot find it",
            )
            .file(&self.release));
        }
        [&self.release, &self.program, &self.name].into_iter().try_for_each(|s| plain(s))
    }
}

/// A name that every engine takes: small letters, digits and single dashes, at most 40 of them.
pub fn label(name: &str) -> String {
    const LONGEST: usize = 40;
    let mut out = String::from("tensormill");
    let mut dash = true;
    for c in name.chars() {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_alphanumeric() {
            out.extend(std::mem::take(&mut dash).then_some('-'));
            out.push(c);
        } else {
            dash = true;
        }
    }
    out.truncate(LONGEST);
    out.trim_end_matches('-').to_owned()
}

/// Refuses what cannot stand in a line of a script or manifest.
fn plain(text: &str) -> Result<()> {
    let odd = |c: char| {
        c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    if text.is_empty() || text.contains(odd) {
        return Err(Error::usage(format!("{text:?} is empty or has a control character"))
            .hint("batch engines take one-line arguments: rename the file or leave the character out"));
    }
    Ok(())
}

/// One word of a POSIX shell: bare when nothing in it means anything to the shell, otherwise in single quotes.
fn quoted(word: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(bare) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A command line of a POSIX shell.
fn command_line<'a>(words: impl IntoIterator<Item = &'a String>) -> String {
    words.into_iter().map(|w| quoted(w)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Paths that break scripts written without care.
    pub(super) const HOSTILE: &[&str] = &[
        "/data/my model/release.toml",
        "/data/it's \"quoted\"/r.toml",
        "/data/$(touch pwned)`touch pwned`/$HOME/r.toml",
        "/data/a;b&c|d>e<f*g?h[i]j{k}l~m#n!o/r.toml",
        r"/data/back\slash\n/r.toml",
        "/data/'; exit 0; '/r.toml",
        "/data/- dash: colon # hash/r.toml",
        "/data/RELEASE_PART/%A_%a/r.toml",
        "/data/模型 é/r.toml",
    ];

    pub(super) fn batch(release: &str) -> Batch {
        let mut job = Job::new("/m", "/out", "My Model 1.0");
        job.memory = 512 << 20;
        job.threads = Some(2);
        Batch::new(&job, release, "/opt/tensor mill/tensormill", 4)
    }

    #[test]
    fn a_shell_gives_quoted_words_back() {
        for word in HOSTILE.iter().chain(&["", " ", "a\tb", "--force", "plain"]) {
            let out =
                Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(word))).output().unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), **word);
        }
        assert_eq!(quoted("/a/b-c_1.toml"), "/a/b-c_1.toml");
    }

    #[test]
    fn names_become_labels_of_every_engine() {
        assert_eq!(label("My Model 1.0"), "tensormill-my-model-1-0");
        assert_eq!(label("--Qwen__3--"), "tensormill-qwen-3");
        assert_eq!(label("模型"), "tensormill");
        let long = label(&"abc ".repeat(50));
        assert!(long.len() <= 40 && !long.ends_with('-') && long.starts_with("tensormill-abc-"), "{long}");
    }

    #[test]
    fn what_cannot_be_submitted_is_refused() {
        let good = batch("/r.toml");
        assert!(good.check().is_ok());
        assert_eq!((good.memory_to_ask() >> 20, good.cpus, good.parallel()), (768, 2, 4));
        for bad in [
            Batch { parts: 0, ..good.clone() },
            Batch { parts: MOST_PARTS + 1, ..good.clone() },
            Batch { cpus: 0, ..good.clone() },
            Batch { release: "r.toml".into(), ..good.clone() },
            Batch { release: "/a\nb.toml".into(), ..good.clone() },
            Batch { program: "a\u{85}b".into(), ..good.clone() },
            Batch { program: String::new(), ..good.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
