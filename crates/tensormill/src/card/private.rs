//! What is private on this machine, for those who must not write it.

use std::{env, fs, path::Path};
use tensormill_card::privacy::Scrub;
use tensormill_hub::settings::token_path;

/// Ends of names of variables that hold secrets.
const SECRET: [&str; 6] = ["TOKEN", "SECRET", "PASSWORD", "API_KEY", "ACCESS_KEY", "PRIVATE_KEY"];
/// Shorter values are words.
const LEAST: usize = 12;

/// Knows this machine's tokens, its names, and the folders that a run touched.
pub(crate) fn scrub<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Scrub {
    let paths: Vec<&Path> = paths.into_iter().collect();
    let named = env::vars().filter(|(name, value)| {
        let name = name.to_ascii_uppercase();
        value.len() >= LEAST && SECRET.iter().any(|s| name.ends_with(s))
    });
    let secrets = named.map(|(_, value)| value).chain(stored_token());
    let folder = |p: &Path| {
        let full = p.canonicalize().ok()?;
        Some(full.parent()?.display().to_string())
    };
    let folders = paths
        .iter()
        .filter_map(|p| folder(p))
        .chain(env::var("HOME").ok())
        .chain(env::current_dir().ok().map(|p| p.display().to_string()));
    let given = paths.iter().filter_map(|p| Some(p.parent()?.display().to_string()));
    let hosts = ["HOSTNAME", "COMPUTERNAME"].iter().filter_map(|v| env::var(v).ok()).chain(
        ["/proc/sys/kernel/hostname", "/etc/hostname"].iter().filter_map(|f| fs::read_to_string(f).ok()),
    );
    Scrub::new(secrets, folders.chain(given), hosts.map(|h| h.trim().to_owned()))
}

/// The token that Hugging Face's own tools have stored.
fn stored_token() -> Option<String> {
    let place = token_path(&|name| env::var(name).ok());
    fs::read_to_string(place).ok().map(|t| t.trim().to_owned())
}
