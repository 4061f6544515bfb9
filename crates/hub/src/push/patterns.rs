//! Which names of files are meant: patterns to include and to exclude.

use crate::matches;

/// Names that are taken: all, or those that one pattern matches; without those that another matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    include: Vec<String>,
    exclude: Vec<String>,
}

impl Patterns {
    /// Patterns as [`matches()`] reads them. Without anything to include, all names are.
    pub fn new(include: &[String], exclude: &[String]) -> Self {
        Self { include: include.to_vec(), exclude: exclude.to_vec() }
    }

    /// Whether a name is taken.
    pub fn takes(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|p| matches(p, name));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_excluded_is_not_taken() {
        let of = |i: &[&str], e: &[&str]| {
            let own = |v: &[&str]| v.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
            Patterns::new(&own(i), &own(e))
        };
        assert!(of(&[], &[]).takes("x"));
        assert!(!of(&[], &["x"]).takes("x"));
        assert!(!of(&["*"], &["x"]).takes("x") && of(&["*"], &["x"]).takes("y"));
        assert!(!of(&["y"], &[]).takes("x"));
    }
}
