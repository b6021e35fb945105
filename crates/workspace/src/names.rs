//! Names that are dangerous on some file system: those that git would take for its own directory.

use bstr::ByteSlice;

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
