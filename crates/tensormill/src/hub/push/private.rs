//! What must not leave the machine by accident: secrets, by the rules of `scan`; the access token itself; the home folder's
//! path, which is a user's name.
//!
//! A finding stops a push. It is told by its file and its rule, never by what was found.

use std::{
    collections::HashMap,
    env,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};
use tensormill_hub::{Token, push::Item};
use tensormill_model::{Error, Result};
use tensormill_scan::{Severity, scan};

/// Bytes of each file that are looked through for the token and the home folder. Texts and headers end before.
const HEAD: u64 = 8 << 20;

/// Findings that are told.
const SHOWN: usize = 5;

/// Refuses files that hold something private.
pub(super) fn check(items: &[Item], token: Option<&Token>) -> Result<()> {
    let mut found = by_rules(items)?;
    let home = env::var_os("HOME").map(PathBuf::from).and_then(|h| named(&h));
    for item in items {
        let bytes = head(item)?;
        let text = String::from_utf8_lossy(&bytes);
        if token.is_some_and(|t| t.redact(&text) != text) {
            found.push((item.name.clone(), "the access token that this push uses".to_owned()));
        }
        if home.as_ref().is_some_and(|h| text.contains(h.as_str())) {
            found.push((item.name.clone(), "the path of your home folder".to_owned()));
        }
    }
    let Some((file, what)) = found.first().cloned() else { return Ok(()) };
    let rest: Vec<String> = found[1..].iter().take(SHOWN).map(|(f, w)| format!("\n  {f}: {w}")).collect();
    let more = if found.len() > SHOWN + 1 { "\n  ..." } else { "" };
    Err(Error::failed(format!("it holds {what}; nothing was sent{}{more}", rest.concat())).file(file).hint(
        "`tensormill scan` says where; take it out, leave the file out with --exclude, or send it all the same with --allow-private",
    ))
}

/// What `scan` calls a secret that would be published.
fn by_rules(items: &[Item]) -> Result<Vec<(String, String)>> {
    let names: HashMap<String, &str> =
        items.iter().map(|i| (i.path.display().to_string(), i.name.as_str())).collect();
    let paths: Vec<PathBuf> = items.iter().map(|i| i.path.clone()).collect();
    let report = scan(&paths)?;
    let secret = |f: &&tensormill_scan::Finding| f.rule.starts_with("secret/") && f.severity > Severity::Info;
    let told = |f: &tensormill_scan::Finding| {
        let name = names.get(&f.file).map_or("a file", |n| n);
        let place = f.place.text();
        let at = if place.is_empty() { String::new() } else { format!(" ({place})") };
        (name.to_owned(), format!("what looks like a secret: {}{at}", f.rule))
    };
    Ok(report.findings.iter().filter(secret).map(told).collect())
}

/// A home folder's path, where it tells somebody's name.
fn named(home: &Path) -> Option<String> {
    let text = home.to_str()?.trim_end_matches('/');
    // `/root`, `/`, and what containers have say nothing of anybody.
    (home.components().count() > 2 && text.len() > 1).then(|| format!("{text}/"))
}

fn head(item: &Item) -> Result<Vec<u8>> {
    let failed = |e| Error::io("read", e).file(&item.name);
    let mut bytes = Vec::new();
    File::open(&item.path).map_err(failed)?.take(HEAD).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_homes_of_somebody_are_looked_for() {
        assert_eq!(named(Path::new("/home/jane")).as_deref(), Some("/home/jane/"));
        assert_eq!(named(Path::new("/root")), None);
        assert_eq!(named(Path::new("/")), None);
    }
}
