//! Which new files git would leave out: the rules of the `.gitignore` files in the workspace.
//!
//! Only files that the base does not have are asked about: what is tracked stays tracked, as in git.

use bstr::{BStr, ByteSlice};
use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder},
};
use std::{collections::BTreeMap, path::Path};

/// The most bytes of one `.gitignore` that are read.
pub(crate) const MAX_BYTES: u64 = 256 * 1024;
/// The most `.gitignore` files that are read.
pub(crate) const MAX_FILES: usize = 2_000;

/// The rules, by the directory that holds them.
#[derive(Debug, Default)]
pub(crate) struct Ignored {
    /// From the directory, without a slash at the end, to its rules; the top is the empty one.
    rules: BTreeMap<Vec<u8>, Gitignore>,
}

impl Ignored {
    /// Takes the rules of one `.gitignore`. Lines that make no sense are passed over, as git does.
    pub(crate) fn add(&mut self, file: &BStr, content: &[u8]) {
        if self.rules.len() >= MAX_FILES {
            return;
        }
        let directory = parent(file);
        let root = Path::new("/").join(directory.to_path_lossy());
        let mut builder = GitignoreBuilder::new(&root);
        for line in String::from_utf8_lossy(content).lines() {
            if let Err(error) = builder.add_line(None, line) {
                tracing::debug!(%error, "a line of a .gitignore is passed over");
            }
        }
        if let Ok(rules) = builder.build() {
            self.rules.insert(directory.to_vec(), rules);
        }
    }

    /// Forgets the rules of one `.gitignore`, which is gone.
    pub(crate) fn remove(&mut self, file: &BStr) {
        self.rules.remove(parent(file).as_bytes());
    }

    /// Whether git would leave out the new file or directory at `path`: it, or a directory above it,
    /// is ignored.
    pub(crate) fn matches(&self, path: &BStr, is_directory: bool) -> bool {
        if self.rules.is_empty() {
            return false;
        }
        let ends = path.find_iter(b"/").map(|end| (end, true));
        ends.chain([(path.len(), is_directory)])
            .any(|(end, is_directory)| {
                path.get(..end)
                    .is_some_and(|part| self.decides(part.as_bstr(), is_directory))
            })
    }

    /// What the rules nearest to the path say about it alone.
    fn decides(&self, path: &BStr, is_directory: bool) -> bool {
        let absolute = Path::new("/").join(path.to_path_lossy());
        let mut directory = parent(path);
        loop {
            if let Some(rules) = self.rules.get(directory.as_bytes()) {
                match rules.matched(&absolute, is_directory) {
                    Match::Ignore(_) => return true,
                    Match::Whitelist(_) => return false,
                    Match::None => {}
                }
            }
            if directory.is_empty() {
                return false;
            }
            directory = parent(directory);
        }
    }
}

fn parent(path: &BStr) -> &BStr {
    path.rfind_byte(b'/')
        .and_then(|end| path.get(..end))
        .unwrap_or_default()
        .as_bstr()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(files: &[(&str, &str)], path: &str) -> bool {
        let mut rules = Ignored::default();
        for (file, content) in files {
            rules.add(BStr::new(file), content.as_bytes());
        }
        rules.matches(BStr::new(path), false)
    }

    #[test]
    fn files_are_left_out_as_git_does() {
        let top = (".gitignore", "target/\n*.log\n!keep.log\n/only-top\n");
        let nested = ("web/.gitignore", "dist\n!*.log\n");
        for (path, expected) in [
            ("target/debug/a", true),
            ("a/target/b", true),
            ("target", false),
            ("x.log", true),
            ("keep.log", false),
            ("only-top", true),
            ("a/only-top", false),
            ("web/dist/index.html", true),
            ("web/x.log", false),
            ("src/main.rs", false),
        ] {
            assert_eq!(ignored(&[top, nested], path), expected, "{path}");
        }
    }

    #[test]
    fn names_that_are_not_utf8_do_no_harm() {
        let mut rules = Ignored::default();
        rules.add(BStr::new(".gitignore"), b"*.o\n\xff\n");
        assert!(rules.matches(BStr::new(b"a\xff.o"), false));
        assert!(!rules.matches(BStr::new(b"a\xff.c"), false));
    }
}
