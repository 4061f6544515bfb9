//! `tensormill card`: writes a model card, checks one, prints the template.

use crate::{exit, print_json, print_line, progress};
use clap::{Args, builder::PossibleValuesParser};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};
use tensormill_core::{
    Result,
    card::{self, Finding, Options, Severity},
};

pub const EXAMPLES: &str = "\
Examples:
  tensormill card ./release --repository me/Llama-3.2-1B-GGUF
  tensormill card ./release --source ./Llama-3.2-1B -o card.md --field citation='@misc{...}'
  tensormill card ./my-lora --template card.md --fields card.toml
  tensormill card --print-template > card.md            or begin yours with {% extends \"default\" %}
  tensormill card --check README.md
  tensormill card --check */README.md --strict --json

Exit codes of --check: 0 no errors (with --strict: no warnings either); 5 some; 6 a file cannot be read.";

/// `card`
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["folder", "check", "print_template"]))]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct CardArgs {
    /// Folder that `release` or `convert` wrote, or any folder of a model
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// File to write, `-` for standard output; the default is README.md in the folder
    #[arg(short, long, value_name = "FILE", requires = "folder")]
    pub output: Option<PathBuf>,
    /// What the files were made from, where it is at hand: its card, configuration and licence are taken
    #[arg(long, value_name = "PATH", requires = "folder")]
    pub source: Option<PathBuf>,
    /// Jinja template instead of the default
    #[arg(long, value_name = "FILE", requires = "folder")]
    pub template: Option<PathBuf>,
    /// Field of your own: a key of the front matter, a section (`citation`), or what a template asks for; repeatable
    #[arg(long, value_name = "KEY=VALUE", requires = "folder")]
    pub field: Vec<String>,
    /// Fields from a file, TOML or JSON
    #[arg(long, value_name = "FILE", requires = "folder")]
    pub fields: Option<PathBuf>,
    /// Heading of the card
    #[arg(long, value_name = "TEXT", requires = "folder")]
    pub title: Option<String>,
    /// Where the files will be published: how to use them is shown with it
    #[arg(long, value_name = "ORG/NAME", requires = "folder")]
    pub repository: Option<String>,
    /// Hub id of what the files were made from, where nothing tells it; repeatable
    #[arg(long, value_name = "ORG/NAME", requires = "folder")]
    pub base_model: Vec<String>,
    /// What the files are to it
    #[arg(long, value_name = "RELATION", requires = "folder", value_parser = PossibleValuesParser::new(card::RELATIONS))]
    pub relation: Option<String>,
    /// Who made the files
    #[arg(long, value_name = "NAME", requires = "folder")]
    pub quantized_by: Option<String>,
    /// Replace a card that exists; keys of its front matter that are not ours stay
    #[arg(short, long, requires = "folder")]
    pub force: bool,
    /// Check cards instead of writing one
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "folder")]
    pub check: Vec<PathBuf>,
    /// Let warnings fail the check, too
    #[arg(long, requires = "check")]
    pub strict: bool,
    /// Print the default template
    #[arg(long)]
    pub print_template: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Does what is asked.
pub fn run(args: &CardArgs) -> Result<ExitCode> {
    if args.print_template {
        print_line(card::DEFAULT_TEMPLATE.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    match &args.folder {
        Some(folder) => write(args, folder),
        None => check(args),
    }
}

fn write(args: &CardArgs, folder: &Path) -> Result<ExitCode> {
    let mut fields = match &args.fields {
        Some(path) => card::read_fields(path)?,
        None => serde_json::Map::new(),
    };
    for field in &args.field {
        card::assignment(field, &mut fields)?;
    }
    let options = Options {
        template: args.template.as_deref().map(card::template).transpose()?,
        title: args.title.clone(),
        repository: args.repository.clone(),
        base_model: args.base_model.clone(),
        relation: args.relation.clone(),
        quantized_by: args.quantized_by.clone(),
        fields,
    };
    let written = card::of_folder(folder, args.source.as_deref(), &options)?;
    for note in &written.notes {
        progress::note(crate::args::Progress::Plain, note);
    }
    let place = args.output.clone().unwrap_or_else(|| card::usual_place(folder));
    if place.as_os_str() == "-" {
        print_line(written.text.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    card::save(&place, &written.text, args.force)?;
    if args.json {
        print_json(&json!({ "file": place.display().to_string(), "notes": written.notes }));
    } else {
        print_line(&format!("{} written", place.display()));
    }
    Ok(ExitCode::SUCCESS)
}

fn check(args: &CardArgs) -> Result<ExitCode> {
    let mut files = Vec::new();
    let mut failed = false;
    let (mut errors, mut warnings) = (0, 0);
    for path in &args.check {
        let found = card::check(&card::read(path)?);
        let count = |s: Severity| found.iter().filter(|f| f.severity == s).count();
        let (e, w) = (count(Severity::Error), count(Severity::Warning));
        (errors, warnings) = (errors + e, warnings + w);
        failed |= e > 0 || (args.strict && w > 0);
        if args.json {
            files.push(
                json!({ "file": path.display().to_string(), "errors": e, "warnings": w, "findings": found }),
            );
        } else {
            for f in &found {
                print_line(&line(path, f));
            }
        }
    }
    if args.json {
        print_json(&json!({ "errors": errors, "warnings": warnings, "files": files }));
    } else {
        let s = |n: usize| if n == 1 { "" } else { "s" };
        let n = args.check.len();
        print_line(&format!(
            "{n} card{}: {errors} error{}, {warnings} warning{}",
            s(n),
            s(errors),
            s(warnings)
        ));
    }
    Ok(if failed { ExitCode::from(exit::DIFFERENT) } else { ExitCode::SUCCESS })
}

/// As compilers write it, so that editors find the place.
fn line(path: &Path, f: &Finding) -> String {
    let severity = match f.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let hint = f.hint.as_ref().map_or_else(String::new, |h| format!(" ({h})"));
    format!("{}:{}:{}: {severity}: {}{hint} [{}]", path.display(), f.line, f.column, f.message, f.rule)
}
