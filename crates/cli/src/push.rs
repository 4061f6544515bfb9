//! `tensormill push`: a folder to the Hub.

use crate::{
    args::Progress, print_json, print_line, print_table, progress::Display, run::cancel_flag, table,
};
use clap::Args;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};
use tensormill_core::{
    Result,
    hub::{
        Hub, Settings,
        push::{self, BranchReport, FileReport, Mode, Options, PushReport, State, Visibility},
    },
    size::human,
};

pub const EXAMPLES: &str = "\
Examples:
  tensormill push ./release org/name --create              a new repository, private
  tensormill push ./release org/name --dry-run             the commit: files, sizes, what is there already
  tensormill push ./release org/name --create --public --tag v1
  tensormill push ./release org/name --branch-per-variant
  tensormill push ./model org/name --exclude 'logs/*' --delete '*.bin' -m 'Safetensors only'
  tensormill push ./model org/name --pr

The token is read from HF_TOKEN or from the file that `hf auth login` writes, and must have write permission. Names that
begin with a dot are not sent. A push that was interrupted is continued by the same command; what the repository has is
not sent again. A folder that holds secrets is not sent at all.";

/// `push`
#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct PushArgs {
    /// Folder to publish
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Repository: org/name
    #[arg(value_name = "REPO")]
    pub repo: String,
    /// Make the repository where there is none; private unless --public
    #[arg(long)]
    pub create: bool,
    /// Let everybody see it; a repository that exists, once everything is there
    #[arg(long, conflicts_with = "private")]
    pub public: bool,
    /// Let only its owners see it. Without either, repositories that exist stay as they are
    #[arg(long)]
    pub private: bool,
    /// Branch; made where there is none, from main
    #[arg(long, visible_alias = "revision", value_name = "NAME", default_value = "main")]
    pub branch: String,
    /// Every variant of a release in a branch of its name, which then holds nothing else; what they share in --branch
    #[arg(long, conflicts_with = "pr")]
    pub branch_per_variant: bool,
    /// Name for the commit: a tag, which stays where it is
    #[arg(long, value_name = "NAME")]
    pub tag: Option<String>,
    /// Open a pull request instead of committing to main
    #[arg(long)]
    pub pr: bool,
    /// First line of the commit's message
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// The rest of it
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Files to send, by pattern; may be repeated. * matches slashes, too
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// Files not to send; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Files of the repository that go, unless they are sent; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub delete: Vec<String>,
    /// Read every file, also where a release's manifest knows its hash and nothing was written since
    #[arg(long)]
    pub rehash: bool,
    /// Send files that hold what looks like a secret, or the path of your home folder
    #[arg(long)]
    pub allow_private: bool,
    /// Show the commit; write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Files at a time
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: Option<u16>,
    /// How to show progress, on standard error
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    pub progress: Progress,
    /// Print one JSON report on standard output
    #[arg(long)]
    pub json: bool,
}

/// Publishes, and prints what was sent.
pub fn run(args: &PushArgs) -> Result<ExitCode> {
    let options = Options {
        repo: args.repo.clone(),
        branch: Some(args.branch.clone()),
        create: args.create,
        visibility: match (args.public, args.private) {
            (true, _) => Some(Visibility::Public),
            (_, true) => Some(Visibility::Private),
            _ => None,
        },
        tag: args.tag.clone(),
        message: args.message.clone(),
        description: args.description.clone(),
        pull_request: args.pr,
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        delete: args.delete.clone(),
        branch_per_variant: args.branch_per_variant,
        rehash: args.rehash,
        allow_private: args.allow_private,
        jobs: args.jobs.map_or(push::JOBS, usize::from),
        ..Options::default()
    };
    let shown = (args.progress, args.json);
    let report = carry_out(&args.folder, &options, args.dry_run, shown, &cancel_flag())?;
    if args.json {
        print_json(&report);
    } else {
        print(&report);
    }
    Ok(ExitCode::SUCCESS)
}

/// Plans, and unless it is a dry run, publishes.
pub fn carry_out(
    folder: &Path,
    options: &Options,
    dry_run: bool,
    (progress, json): (Progress, bool),
    cancel: &Arc<AtomicBool>,
) -> Result<PushReport> {
    let hub = Hub::new(Settings::from_env()?)?;
    let display = Display::new(progress, json, 0, cancel);
    let report = push::plan(&hub, folder, options, &display, cancel)
        .and_then(|planned| if dry_run { Ok(planned.report()) } else { planned.run(&display, cancel) });
    display.finish(report.is_ok());
    report
}

/// For people.
pub fn print(r: &PushReport) {
    let made = match (r.created, r.dry_run) {
        (true, true) => ", to be made",
        (true, false) => ", new",
        _ if r.visibility_changed => ", who sees it changes",
        _ => "",
    };
    print_line(&format!("{} ({}{made})", r.repo, r.visibility.text()));
    for branch in &r.branches {
        print_branch(branch, r.dry_run);
    }
    for note in &r.notes {
        print_line(&format!("note: {note}"));
    }
    let (sent, same) = (human(r.bytes), human(r.bytes_same));
    if r.dry_run {
        let tag = r.tag.as_ref().map_or_else(String::new, |t| format!(", and tag it {t}"));
        print_line(&format!("would commit {sent} ({same} are there already){tag}; nothing was written"));
        return;
    }
    let tag = r.tag.as_ref().map_or_else(String::new, |t| format!(", tag {t}"));
    let pr = r.pull_request.map_or_else(String::new, |n| format!(", pull request {n}"));
    print_line(&format!(
        "done: {sent} committed, {} uploaded, {same} were there already{tag}{pr}",
        human(r.bytes_uploaded)
    ));
}

fn print_branch(b: &BranchReport, dry_run: bool) {
    let new = if b.new { " (new branch)" } else { "" };
    print_line(&format!("{}{new}", b.revision));
    let mut t = table(&["file", "size", "how", "state"]);
    for f in &b.files {
        t.add_row([f.name.clone(), human(f.bytes), how(f).to_owned(), state(f, dry_run).to_owned()]);
    }
    for name in &b.deleted {
        t.add_row([name.as_str(), "", "", if dry_run { "to delete" } else { "deleted" }]);
    }
    print_table(&t);
    for c in &b.commits {
        print_line(&format!("commit {}: {}", c.oid, c.message));
    }
    match (&b.head, b.verified) {
        (Some(head), n) if !dry_run && b.commits.is_empty() => {
            print_line(&format!("nothing to commit: {n} files are as they should be at {head}"));
        }
        (_, n) if !dry_run => {
            print_line(&format!("verified: the hashes of {n} files are those of the repository"));
        }
        _ => {}
    }
}

fn how(f: &FileReport) -> &'static str {
    match f.mode {
        Mode::Regular => "in the commit",
        Mode::Lfs => "lfs",
        Mode::Ignored => "",
    }
}

fn state(f: &FileReport, dry_run: bool) -> &'static str {
    match (f.state, f.stored_already) {
        (State::Same, _) => "the same already",
        (State::Ignored, _) => "named by .gitignore",
        (State::Send, _) if dry_run => "to send",
        (State::Send, Some(true)) => "sent, bytes were stored already",
        (State::Send, _) => "sent",
    }
}
