//! Patterns for names of files, as the Hub's other tools read them (Python's `fnmatch`): `*` matches slashes, too.

/// Whether a path matches a pattern: `*` any text, `?` any character, `[abc]`, `[a-z]`, `[!x]` one of a set. A pattern that ends
/// in a slash means everything below that folder.
pub fn matches(pattern: &str, path: &str) -> bool {
    let mut pattern: Vec<char> = pattern.chars().collect();
    if pattern.last() == Some(&'/') {
        pattern.push('*');
    }
    let text: Vec<char> = path.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go back to: behind the last star, and how much of the text it may have taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('[') => set(&pattern[p..], text[t]),
            Some(&c) if c == text[t] => Some(1),
            _ => None,
        };
        match (step, star) {
            (Some(n), _) => {
                p += n;
                t += 1;
            }
            (None, Some((back, taken))) => {
                star = Some((back, taken + 1));
                (p, t) = (back, taken + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Length of the set at the start of a pattern, where it holds the character. A bracket that nothing closes is itself.
fn set(pattern: &[char], c: char) -> Option<usize> {
    let negated = pattern.get(1) == Some(&'!');
    let first = if negated { 2 } else { 1 };
    // A closing bracket right at the start belongs to the set.
    let Some(end) = pattern.iter().skip(first + 1).position(|&c| c == ']').map(|i| i + first + 1) else {
        return (c == '[').then_some(1);
    };
    let inner = &pattern[first..end];
    let mut found = false;
    let mut i = 0;
    while i < inner.len() {
        if inner.get(i + 1) == Some(&'-') && i + 2 < inner.len() {
            found |= (inner[i]..=inner[i + 2]).contains(&c);
            i += 3;
        } else {
            found |= inner[i] == c;
            i += 1;
        }
    }
    (found != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        for (pattern, path, expected) in [
            ("*.json", "config.json", true),
            ("*.json", "sub/config.json", true),
            ("*.json", "config.jsonl", false),
            ("onnx/", "onnx/model.onnx", true),
            ("onnx/", "onnx2/model.onnx", false),
            ("*Q4_K_M*.gguf", "m-Q4_K_M-00001-of-00002.gguf", true),
            ("*a*b*c", "aXbXbXc", true),
            ("*a*b*c", "aXbXbX", false),
            ("model-0000[1-3]?", "model-00002x", true),
            ("[!a]*", "abc", false),
            ("[!a]*", "bc", true),
            ("[]]x", "]x", true),
            ("[x", "[x", true),
            ("", "", true),
            ("?", "ü", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
        // Linear enough: what backtracks over every star would not come back.
        assert!(!matches(&"*a".repeat(30), &"a".repeat(29)));
    }
}
