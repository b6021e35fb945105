//! Which names may be in a tree: git's rules, with those for HFS+ and NTFS on everywhere, because what is written here
//! ends up on all kinds of machines.

use bstr::{BStr, ByteSlice};

use crate::error::Error;

/// The longest path that is accepted, in bytes (Linux's `PATH_MAX`, without the end).
pub(crate) const PATH_LIMIT: usize = 4095;

/// Why one component of a path may not be in a tree, if so.
pub(crate) fn refusal(name: &BStr, is_link: bool) -> Option<&'static str> {
    use gix::validate::path::component::{Error as Why, Mode, Options};
    if name.find_byte(0).is_some() {
        return Some("it holds a NUL byte");
    }
    let options = Options {
        protect_windows: false,
        protect_hfs: true,
        protect_ntfs: true,
    };
    let check = |name: &BStr| {
        gix::validate::path::component(name, is_link.then_some(Mode::Symlink), options)
            .err()
            .map(|why| match why {
                Why::Empty => "a component is empty",
                Why::Relative => "`.` and `..` are not names",
                Why::SymlinkedGitModules => "`.gitmodules` may not be a symbolic link",
                Why::DotGitDir => "a component means `.git` on some system",
                _ => "a component is not allowed",
            })
    };
    check(name).or_else(|| {
        // NTFS takes a backslash for a separator, so that `a\.git` would be `.git` there.
        let after = name.rsplit(|b| *b == b'\\').count() > 1;
        let hidden = |part: &[u8]| {
            !part.is_empty()
                && gix::validate::path::component(part.as_bstr(), None, options)
                    .is_err_and(|e| matches!(e, Why::DotGitDir))
        };
        (after && name.split(|b| *b == b'\\').any(hidden))
            .then_some("a component means `.git` on some system")
    })
}

/// The components of a path that may be in a tree.
pub(crate) fn components(path: &BStr, is_link: bool) -> Result<Vec<&BStr>, Error> {
    let bad = |why| Error::BadPath {
        path: path.to_owned(),
        why,
    };
    if path.len() > PATH_LIMIT {
        return Err(bad("it is longer than 4095 bytes"));
    }
    let parts: Vec<&BStr> = path.split(|b| *b == b'/').map(BStr::new).collect();
    let last = parts.len().saturating_sub(1);
    for (i, part) in parts.iter().enumerate() {
        if let Some(why) = refusal(part, is_link && i == last) {
            return Err(bad(why));
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_dot_git_anywhere_are_refused() {
        for name in [
            ".git",
            ".GIT",
            ".Git",
            "git~1",
            "GIT~1",
            ".git ",
            ".git.",
            ".git...",
            ".git::$INDEX_ALLOCATION",
            ".g\u{200c}it",
            ".gi\u{feff}t",
            "a\\.git",
            ".git\\hooks",
        ] {
            assert!(
                refusal(name.into(), false).is_some(),
                "{name:?} was allowed"
            );
            assert!(
                components(format!("a/{name}/b").as_str().into(), false).is_err(),
                "{name:?} was allowed inside"
            );
        }
    }

    #[test]
    fn names_without_meaning_are_refused() {
        for path in [
            "", "/", "a//b", "a/", "/a", ".", "..", "a/../b", "a/./b", "a\0b",
        ] {
            assert!(
                components(path.into(), false).is_err(),
                "{path:?} was allowed"
            );
        }
        assert!(components(".gitmodules".into(), true).is_err());
        assert!(components(".gitmodules".into(), false).is_ok());
    }

    #[test]
    fn strange_names_are_allowed() {
        for path in [
            "a\nb",
            "with space ",
            ".gitignore",
            ".github/x",
            "git",
            "-x",
            "con",
            "a\\b",
            "a:b",
            "*",
            "\u{1f600}",
        ] {
            assert!(
                components(path.into(), false).is_ok(),
                "{path:?} was refused"
            );
        }
        assert!(components(b"\xff\xfe".as_bstr(), false).is_ok());
    }
}
