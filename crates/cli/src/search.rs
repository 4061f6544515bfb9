//! `tensormill search`: models on the Hub.

use crate::{print_json, print_line, print_table, table};
use clap::{Args, ValueEnum};
use std::process::ExitCode;
use tensormill_core::{
    Result,
    hub::{Hub, Query, Settings, Sort, search},
};

pub const EXAMPLES: &str = "\
Examples:
  tensormill search qwen3 --library transformers --sort downloads
  tensormill search --task text-generation --license apache-2.0 --limit 50
  tensormill search --author Qwen --tag conversational --json";

/// `search`
#[derive(Args, Debug)]
pub struct SearchArgs {
    /// Text in the names
    #[arg(value_name = "TEXT")]
    pub text: Option<String>,
    /// Task, e.g. text-generation
    #[arg(long)]
    pub task: Option<String>,
    /// Library, e.g. transformers, gguf, onnx, sentence-transformers
    #[arg(long)]
    pub library: Option<String>,
    /// Licence, e.g. apache-2.0
    #[arg(long, visible_alias = "licence")]
    pub license: Option<String>,
    /// User or organisation
    #[arg(long)]
    pub author: Option<String>,
    /// Any other tag; may be repeated
    #[arg(long)]
    pub tag: Vec<String>,
    /// The order
    #[arg(long, value_enum, default_value_t)]
    pub sort: Order,
    /// Models to list, at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub limit: u16,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Orders of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// What many look at now
    #[default]
    Trending,
    /// Downloads of the last month
    Downloads,
    /// Likes
    Likes,
    /// The last change
    Modified,
    /// Creation
    Created,
}

/// Asks, and prints a table.
pub fn run(args: &SearchArgs) -> Result<ExitCode> {
    let query = Query {
        text: args.text.clone(),
        author: args.author.clone(),
        task: args.task.clone(),
        library: args.library.clone(),
        license: args.license.clone(),
        tags: args.tag.clone(),
        sort: match args.sort {
            Order::Trending => Sort::Trending,
            Order::Downloads => Sort::Downloads,
            Order::Likes => Sort::Likes,
            Order::Modified => Sort::Modified,
            Order::Created => Sort::Created,
        },
        limit: args.limit.into(),
    };
    let found = search(&Hub::new(Settings::from_env()?)?, &query)?;
    if args.json {
        print_json(&found);
        return Ok(ExitCode::SUCCESS);
    }
    if found.is_empty() {
        print_line("no model was found");
        return Ok(ExitCode::SUCCESS);
    }
    let mut t = table(&["model", "task", "library", "licence", "downloads", "likes", "changed", ""]);
    for m in &found {
        // What people write into their repositories may hold anything.
        let clean = |s: &str| s.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
        let text = |s: Option<&String>| s.map_or_else(String::new, |s| clean(s));
        let number = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
        let day = text(m.last_modified.as_ref());
        t.add_row([
            clean(&m.id),
            text(m.task.as_ref()),
            text(m.library.as_ref()),
            text(m.license.as_ref()),
            number(m.downloads),
            number(m.likes),
            day.split('T').next().unwrap_or_default().to_owned(),
            match (m.private, m.gated) {
                (true, _) => "private".to_owned(),
                (false, tensormill_core::hub::Gate::Open) => String::new(),
                _ => "gated".to_owned(),
            },
        ]);
    }
    print_table(&t);
    Ok(ExitCode::SUCCESS)
}
