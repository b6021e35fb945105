//! Paths of requests in one form, so that a pattern and a server mean the same.

/// The longest path that is looked at, in bytes: longer ones no server of an interface takes, and
/// every pattern is matched with it.
const MOST: usize = 2_048;

/// What compatibility forms (Unicode, NFKC) fold to text with `.`, `/`, `\\`, `;` or `%` in it.
const LOOKS_ALIKE: [char; 19] = [
    '\u{37e}', '\u{2024}', '\u{2025}', '\u{2026}', '\u{2100}', '\u{2101}', '\u{2105}', '\u{2106}',
    '\u{fe19}', '\u{fe30}', '\u{fe52}', '\u{fe54}', '\u{fe68}', '\u{fe6a}', '\u{ff05}', '\u{ff0e}',
    '\u{ff0f}', '\u{ff1b}', '\u{ff3c}',
];

/// The path of a target without its query, with every visible character decoded. None where servers
/// could read it in different ways: segments that are `.`, `..` or empty, parameters behind `;`,
/// encoded slashes, percent signs and control characters, backslashes, what is not ASCII, encoded bytes
/// that are no UTF-8 or stand for a form of `.`, `/`, `\\`, `;` or `%`, and more than [`MOST`] bytes.
pub(super) fn plain(target: &str) -> Option<String> {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    if !path.starts_with('/') || path.len() > MOST {
        return None;
    }
    let mut out = String::with_capacity(path.len());
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let value = hex(digits)?;
                decoded.push(value);
                match value {
                    b'/' | b'\\' | b';' | b'%' | 0..=0x1f | 0x7f => return None,
                    _ if value.is_ascii_graphic() && !b"?#".contains(&value) => {
                        out.push(char::from(value));
                    }
                    _ => out.push_str(&format!("%{value:02X}")),
                }
            }
            b'\\' | b';' | 0..=0x20 | 0x7f.. => return None,
            other => {
                decoded.push(other);
                out.push(char::from(other));
            }
        }
    }
    // To a lax decoder the overlong `%C0%AE` is a dot, and to one that folds forms a wide dot is.
    let decoded = String::from_utf8(decoded).ok()?;
    if decoded.chars().any(|c| LOOKS_ALIKE.contains(&c)) {
        return None;
    }
    let mut segments = out.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        // The last one is empty where the path ends in a slash.
        let is_last = segments.peek().is_none();
        if segment == "." || segment == ".." || (segment.is_empty() && !is_last) {
            return None;
        }
    }
    Some(out)
}

fn hex(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

/// A pattern of paths: `*` is any part of one segment, `**` any part at all.
///
/// It is no regular expression, because repositories write it and programs inside choose what it is
/// matched with: its costs are bounded by the two lengths, and it keeps nothing.
#[derive(Debug, Clone)]
pub(super) struct Glob(Vec<Token>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// Itself.
    Text(Vec<u8>),
    /// `*`.
    Some,
    /// `**`.
    Any,
}

impl Glob {
    pub(super) fn new(pattern: &str) -> Self {
        let mut tokens = Vec::new();
        let mut rest = pattern;
        while !rest.is_empty() {
            let text = rest.find('*').unwrap_or(rest.len());
            let (literal, more) = rest.split_at(text);
            if !literal.is_empty() {
                tokens.push(Token::Text(literal.into()));
            }
            rest = more.trim_start_matches('*');
            match more.len() - rest.len() {
                0 => {}
                1 => tokens.push(Token::Some),
                _ => tokens.push(Token::Any),
            }
        }
        // As elsewhere, what ends in a slash stands for all below it.
        if pattern.ends_with('/') {
            tokens.push(Token::Any);
        }
        Self(tokens)
    }

    /// How much of it stands for itself.
    pub(super) fn literal(&self) -> usize {
        match self.0.first() {
            Some(Token::Text(text)) => text.len(),
            _ => 0,
        }
    }

    /// Whether the whole path is one of them.
    pub(super) fn matches(&self, path: &str) -> bool {
        let path = path.as_bytes();
        // Where the part of the pattern that was read so far may end in the path.
        let mut ends = vec![false; path.len() + 1];
        let mut next = ends.clone();
        if let Some(first) = ends.first_mut() {
            *first = true;
        }
        let (mut low, mut high) = (0, 0);
        for token in &self.0 {
            next.iter_mut().for_each(|end| *end = false);
            let (mut first, mut last) = (None, 0);
            let mut mark = |at: usize| {
                if let Some(end) = next.get_mut(at) {
                    *end = true;
                    first.get_or_insert(at);
                    last = at;
                }
            };
            match token {
                Token::Text(text) => {
                    for at in low..=high {
                        let rest = path.get(at..).unwrap_or_default();
                        if ends.get(at) == Some(&true) && rest.starts_with(text) {
                            mark(at + text.len());
                        }
                    }
                }
                Token::Some | Token::Any => {
                    let mut open = false;
                    for at in low..=path.len() {
                        open |= ends.get(at) == Some(&true);
                        if open {
                            mark(at);
                        }
                        open &= *token == Token::Any || path.get(at) != Some(&b'/');
                    }
                }
            }
            let Some(first) = first else { return false };
            (low, high) = (first, last);
            std::mem::swap(&mut ends, &mut next);
        }
        ends.get(path.len()) == Some(&true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_stays_within_a_segment_and_two_do_not() {
        for (pattern, path, expected) in [
            ("/v1/**", "/v1/a/b", true),
            ("/v1/**", "/v1/", true),
            ("/v1/**", "/v1", false),
            ("/v1/**", "/v2/v1/a", false),
            ("/v1/*", "/v1/a", true),
            ("/v1/*", "/v1/a/b", false),
            ("/*/x", "/a/x", true),
            ("/*/x", "/a/b/x", false),
            ("/**/x", "/a/b/x", true),
            ("/a*b*c", "/aXbYbZc", true),
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/**", "/", true),
            ("/a/", "/a/b", true),
            ("/a/", "/a", false),
            ("/a?", "/ab", false),
        ] {
            assert_eq!(
                Glob::new(pattern).matches(path),
                expected,
                "{pattern} {path}"
            );
        }
    }

    /// What a pattern means, as slowly as it can be said.
    fn means(pattern: &[u8], path: &[u8]) -> bool {
        match pattern {
            [] => path.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=path.len()).any(|at| means(rest, &path[at..])),
            [b'*', rest @ ..] => (0..=path.len())
                .take_while(|at| !path[..*at].contains(&b'/'))
                .any(|at| means(rest, &path[at..])),
            [byte, rest @ ..] => path.first() == Some(byte) && means(rest, &path[1..]),
        }
    }

    proptest! {
        #[test]
        fn it_matches_what_it_means(pattern in "/([ab/]|[*]{1,2}){0,6}", path in "/[ab/]{0,8}") {
            let glob = Glob::new(&pattern);
            let whole = if pattern.ends_with('/') { format!("{pattern}**") } else { pattern };
            prop_assert_eq!(glob.matches(&path), means(whole.as_bytes(), path.as_bytes()));
        }
    }
}
