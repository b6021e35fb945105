//! Credentials in text: the forms that providers give them, so that they can be found without
//! knowing them.
//!
//! Only forms with a fixed prefix and a fixed alphabet are looked for; guessing at entropy would
//! fail honest changes. Sources: each provider's documentation of its token formats.

use regex::bytes::{Regex, RegexSet};
use std::{collections::BTreeMap, sync::LazyLock};

/// A credential that was found.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// What it looks like.
    pub(crate) kind: &'static str,
    /// What it is, for comparison only: never to be told.
    pub(crate) text: Vec<u8>,
    /// The line where it is first, from one.
    pub(crate) line: usize,
    /// How often it is there.
    pub(crate) count: usize,
}

/// What each form is called, and its pattern.
const FORMS: &[(&str, &str)] = &[
    ("a private key", r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    ("an Anthropic key", r"\bsk-ant-[A-Za-z0-9_-]{24,}"),
    (
        "an OpenAI key",
        r"\bsk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{40,}",
    ),
    ("an AWS access key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    (
        "a GitHub token",
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})",
    ),
    ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("a Google API key", r"\bAIza[0-9A-Za-z_-]{35}\b"),
    ("a Slack token", r"\bxox[abeprs]-[0-9A-Za-z-]{20,}"),
    ("a Stripe live key", r"\b[rs]k_live_[0-9A-Za-z]{20,}"),
    ("an npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("a PyPI token", r"\bpypi-AgEI[A-Za-z0-9_-]{50,}"),
];

struct Forms {
    any: RegexSet,
    each: Vec<(&'static str, Regex)>,
}

static COMPILED: LazyLock<Option<Forms>> = LazyLock::new(|| {
    Some(Forms {
        any: RegexSet::new(FORMS.iter().map(|(_, pattern)| pattern)).ok()?,
        each: FORMS
            .iter()
            .map(|(kind, pattern)| Some((*kind, Regex::new(pattern).ok()?)))
            .collect::<Option<_>>()?,
    })
});

/// The credentials in `content`: each text once, with how often it is there.
pub(crate) fn find(content: &[u8]) -> Vec<Found> {
    let Some(forms) = COMPILED.as_ref() else {
        return Vec::new();
    };
    let mut found = BTreeMap::new();
    for index in &forms.any.matches(content) {
        let Some((kind, pattern)) = forms.each.get(index) else {
            continue;
        };
        let (mut line, mut from) = (1, 0);
        for hit in pattern.find_iter(content) {
            let between = content.get(from..hit.start()).unwrap_or_default();
            line += between.iter().filter(|&&byte| byte == b'\n').count();
            from = hit.start();
            found
                .entry((*kind, hit.as_bytes()))
                .or_insert((line, 0usize))
                .1 += 1;
        }
    }
    found
        .into_iter()
        .map(|((kind, text), (line, count))| Found {
            kind,
            text: text.to_vec(),
            line,
            count,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_compiles_and_is_found_with_its_line() {
        assert!(COMPILED.is_some());
        let token = format!("gh{}_{}", 'p', "a1".repeat(18));
        let text = format!("one\ntwo\nlet t = \"{token}\";\n");
        let found = find(format!("{text}{text}").as_bytes());
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].kind, found[0].line, found[0].count),
            ("a GitHub token", 3, 2)
        );
        let key = format!("-----BEGIN RSA {} KEY-----", "PRIVATE");
        assert_eq!(find(key.as_bytes())[0].kind, "a private key");
    }

    #[test]
    fn ordinary_text_and_hashes_are_left_alone() {
        let text = "sk-learn, task-ant, 3870942c0ffee3870942c0ffee3870942c0ffee, AKIA, -----BEGIN CERTIFICATE-----";
        assert!(find(text.as_bytes()).is_empty());
    }
}
