//! Names that are dangerous on some file system: those that git would take for its own directory,
//! and those that fall together where case does not count.

use std::collections::HashMap;

use bstr::{BStr, BString, ByteSlice};

/// Whether a name is, or is taken on some file system for, a repository's `.git`.
///
/// Besides case: NTFS ignores trailing dots and spaces, opens `name:stream` as `name`, and has the
/// short name `GIT~1`; HFS+ ignores certain invisible characters. These are the rules by which git
/// itself refuses paths (`core.protectNTFS`, `core.protectHFS`).
pub(crate) fn is_git_directory(name: &[u8]) -> bool {
    let visible: Vec<u8> = match name.to_str() {
        Ok(text) => text
            .chars()
            .filter(|c| !is_invisible(*c))
            .collect::<String>()
            .into_bytes(),
        Err(_) => name.to_vec(),
    };
    let stem = visible
        .split(|byte| *byte == b':')
        .next()
        .unwrap_or_default();
    let stem = stem.trim_end_with(|c| c == '.' || c == ' ');
    stem.eq_ignore_ascii_case(b".git") || stem.eq_ignore_ascii_case(b"git~1")
}

/// The characters that HFS+ leaves out when it compares names.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

/// Finds names of one directory that differ only in case.
#[derive(Debug, Default)]
pub(crate) struct Collisions {
    seen: HashMap<Vec<u8>, (BString, bool)>,
}

impl Collisions {
    /// Adds a name; `new` tells whether the attempt wrote it. Returns the earlier name that it
    /// collides with, if one of the two is new.
    pub(crate) fn add(&mut self, name: &BStr, new: bool) -> Option<BString> {
        let folded = match name.to_str() {
            Ok(text) => text.to_lowercase().into_bytes(),
            Err(_) => name.to_ascii_lowercase(),
        };
        match self.seen.get(&folded) {
            Some((earlier, was_new)) => (new || *was_new).then(|| earlier.clone()),
            None => {
                self.seen.insert(folded, (name.to_owned(), new));
                None
            }
        }
    }
}

/// Whether `name` can be a file name of the store: the ids and keys of other rooms are.
pub(crate) fn is_plain(name: &str) -> bool {
    (1..=200).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_that_some_file_system_takes_for_git_is_known() {
        for name in [
            ".git",
            ".GIT",
            ".Git",
            ".git.",
            ".git ",
            ".git . .",
            "git~1",
            "GIT~1",
            ".git::$INDEX_ALLOCATION",
            ".git:x",
            ".g\u{200c}it",
            "\u{feff}.git",
        ] {
            assert!(is_git_directory(name.as_bytes()), "{name:?}");
        }
        for name in [
            ".gitignore",
            ".gitmodules",
            "git",
            ".gi",
            "git~2",
            ".git2",
            "..git",
            "x.git",
            ".git-x",
        ] {
            assert!(!is_git_directory(name.as_bytes()), "{name:?}");
        }
    }

    #[test]
    fn names_that_differ_only_in_case_collide_when_one_is_new() {
        let mut names = Collisions::default();
        assert_eq!(names.add(b"README".as_bstr(), false), None);
        assert_eq!(names.add(b"Readme".as_bstr(), false), None);
        assert_eq!(names.add(b"readme".as_bstr(), true), Some("README".into()));
        assert_eq!(names.add("ÄRGER".as_bytes().as_bstr(), true), None);
        assert_eq!(
            names.add("ärger".as_bytes().as_bstr(), true),
            Some("ÄRGER".into())
        );
        assert_eq!(names.add(b"A\xff".as_bstr(), true), None);
        assert_eq!(names.add(b"a\xff".as_bstr(), true), Some(b"A\xff".into()));
    }

    #[test]
    fn ids_that_could_leave_the_store_are_no_names() {
        for name in [
            "",
            ".",
            "..",
            ".x",
            "a/b",
            "a b",
            "a\0",
            "ä",
            &"x".repeat(201),
        ] {
            assert!(!is_plain(name), "{name:?}");
        }
        for name in ["a", "01J9-x_y.z", &"x".repeat(200)] {
            assert!(is_plain(name), "{name:?}");
        }
    }
}
