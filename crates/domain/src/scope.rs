//! Which paths a job may write: globs over repository paths.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most globs a list may have.
pub const MAX_GLOBS: usize = 200;

/// Which paths a job may write. Empty lists allow everything and forbid nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Globs of paths that may be written; empty means all. `*` stays within one directory,
    /// `**` does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub write: Vec<String>,
    /// Globs of paths that must not be written, whatever `write` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forbid: Vec<String>,
    /// The most files the change may touch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_files: Option<u32>,
}

/// Why no file of any commit can match this glob, or none that could be meant, where that is plain to
/// see.
#[must_use]
pub fn never_matches(glob: &str) -> Option<&'static str> {
    let text = glob.strip_prefix("./").unwrap_or(glob);
    if text.contains('\0') {
        return Some("it has a byte of value 0, and no name has");
    }
    // Whoever writes it knows it from `.gitignore`.
    if glob.starts_with('!') {
        return Some(
            "it begins with `!`, and a list of globs takes nothing out again; write `[!]` for a name \
             that begins like this",
        );
    }
    if text.starts_with('/') {
        return Some("it begins with `/`, and paths begin at the top of the repository");
    }
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.is_empty() {
        return Some("it is empty");
    }
    if text.split('/').next() == Some(".git") {
        return Some("`.git` is no part of a commit");
    }
    // Within braces a slash may be a choice's.
    if text.contains('{') {
        return None;
    }
    text.split('/').find_map(|part| match part {
        "" => Some("it has `//`, and no path has"),
        "." => Some("it has `.` for a directory, and no path has"),
        ".." => Some("it has `..`, and nothing outside of the repository is seen"),
        _ => None,
    })
}

/// A list of globs, ready to match.
#[derive(Debug, Clone)]
pub struct Globs(GlobSet);

/// A glob that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// One glob has a mistake.
    #[error("the glob `{glob}` cannot be read: {reason}")]
    Glob {
        /// The glob.
        glob: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There are more than [`MAX_GLOBS`].
    #[error("there are {0} globs, and {MAX_GLOBS} is the most")]
    TooMany(usize),
}

impl Globs {
    /// Reads the globs. A glob that ends in `/` stands for everything below it.
    ///
    /// # Errors
    /// Names the first glob that cannot be read.
    pub fn new(globs: &[String]) -> Result<Self, Error> {
        if globs.len() > MAX_GLOBS {
            return Err(Error::TooMany(globs.len()));
        }
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            let fail = |error: globset::Error| Error::Glob {
                glob: glob.clone(),
                reason: error.kind().to_string(),
            };
            let text = glob.strip_prefix("./").unwrap_or(glob);
            let text = if text.ends_with('/') {
                format!("{text}**")
            } else {
                text.to_owned()
            };
            set.add(
                GlobBuilder::new(&text)
                    .literal_separator(true)
                    .build()
                    .map_err(fail)?,
            );
        }
        set.build().map(Self).map_err(|error| Error::Glob {
            glob: globs.join(" "),
            reason: error.kind().to_string(),
        })
    }

    /// Whether any of the globs matches this path. Bytes that are not UTF-8 match as U+FFFD.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        self.0.is_match(&*String::from_utf8_lossy(path))
    }

    /// Whether there are no globs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(glob: &str, path: &str) -> bool {
        Globs::new(&[glob.to_owned()])
            .unwrap()
            .matches(path.as_bytes())
    }

    #[test]
    fn globs_match_as_people_expect() {
        for (glob, path, expected) in [
            ("src/**", "src/a/b.rs", true),
            ("src/", "src/a/b.rs", true),
            ("src/*", "src/a/b.rs", false),
            ("*.md", "README.md", true),
            ("*.md", "docs/a.md", false),
            ("**/*.md", "README.md", true),
            ("./Cargo.lock", "Cargo.lock", true),
            (".github/**", ".github/workflows/ci.yml", true),
        ] {
            assert_eq!(matches(glob, path), expected, "{glob} {path}");
        }
    }

    #[test]
    fn a_glob_that_no_path_matches_is_known_by_its_text() {
        for glob in [
            "",
            "/",
            "./",
            ".",
            "/etc/*",
            "../a",
            "a/../b",
            "a/./b",
            "a//b",
            ".git/config",
            ".git",
            "!in.txt",
            "!",
            "a\0b",
            "{a,b\0}",
        ] {
            assert!(never_matches(glob).is_some(), "{glob}");
        }
        for glob in [
            "./a",
            "a/",
            "**",
            "*",
            "...",
            "a/..b",
            "a/{b//,c}",
            ".github/**",
            ".gitignore",
            "a b",
            "[!]in.txt",
            "a/!b",
        ] {
            assert_eq!(never_matches(glob), None, "{glob}");
        }
    }

    #[test]
    fn a_glob_that_cannot_be_read_is_named() {
        let error = Globs::new(&["a/{b".to_owned()]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the glob `a/{b` cannot be read"),
            "{error}"
        );
    }
}
