//! Patterns for names of files, as the Hub's own tools take them (`--include`, `--exclude`): `*` is any characters, slashes
//! too, `?` is one, `[ab]`, `[a-z]` and `[!a]` are sets; what ends in a slash is a folder with all in it.

/// Names that are taken: all, or those that one pattern fits; without those that another fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    include: Vec<Vec<char>>,
    exclude: Vec<Vec<char>>,
}

impl Patterns {
    /// Without anything to include, all names are.
    pub fn new(include: &[String], exclude: &[String]) -> Self {
        let each = |patterns: &[String]| {
            let whole = |p: &String| if p.ends_with('/') { format!("{p}*") } else { p.clone() };
            patterns.iter().map(|p| whole(p).chars().collect()).collect()
        };
        Self { include: each(include), exclude: each(exclude) }
    }

    /// Whether a name is taken.
    pub fn takes(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let fits = |patterns: &[Vec<char>]| patterns.iter().any(|p| fits(p, &name));
        (self.include.is_empty() || fits(&self.include)) && !fits(&self.exclude)
    }
}

/// In time of the product of both lengths, whatever the pattern: after a mismatch only the last `*` takes more.
fn fits(pattern: &[char], name: &[char]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Behind the last `*`, and the character that it may take next.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&'*') {
            p += 1;
            star = Some((p, n));
            continue;
        }
        let one = name.get(n).and_then(|c| single(&pattern[p..], *c));
        match (one, star) {
            (Some(width), _) => (p, n) = (p + width, n + 1),
            (None, _) if n == name.len() && p == pattern.len() => return true,
            (None, Some((behind, next))) if next < name.len() => {
                (p, n) = (behind, next + 1);
                star = Some((behind, next + 1));
            }
            _ => return false,
        }
    }
}

/// How many characters of the pattern, if any, stand for this one.
fn single(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => {
            let not = pattern.get(1) == Some(&'!');
            let start = 1 + usize::from(not);
            // A bracket that comes first is one of the set; without a closing one, it is itself.
            let Some(end) = (start + 1..pattern.len()).find(|i| pattern[*i] == ']') else {
                return (c == '[').then_some(1);
            };
            let set = &pattern[start..end];
            let mut i = 0;
            let mut has = false;
            while i < set.len() {
                if i + 2 < set.len() && set[i + 1] == '-' {
                    has |= (set[i]..=set[i + 2]).contains(&c);
                    i += 3;
                } else {
                    has |= set[i] == c;
                    i += 1;
                }
            }
            (has != not).then_some(end + 1)
        }
        p => (*p == c).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_as_with_pythons_fnmatch() {
        for (pattern, name, expected) in [
            ("*.gguf", "a.gguf", true),
            ("*.gguf", "sub/a.gguf", true),
            ("*.gguf", "a.gguf2", false),
            ("sub/", "sub/x/y", true),
            ("sub/", "sub", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*Q[45]_K*", "m-Q5_K_M.gguf", true),
            ("*Q[!45]_K*", "m-Q5_K_M.gguf", false),
            ("[a-c]x", "bx", true),
            ("[]]", "]", true),
            ("[", "[", true),
            ("", "", true),
            ("*", "", true),
            ("a*b*c", "axxbyybzc", true),
            ("a*b*c", "axxbyybz", false),
        ] {
            assert_eq!(Patterns::new(&[pattern.to_owned()], &[]).takes(name), expected, "{pattern} {name}");
        }
        // As long as both together, not more.
        let slow = Patterns::new(&["*a".repeat(40)], &[]);
        assert!(!slow.takes(&("a".repeat(2000) + "b")));
    }

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
