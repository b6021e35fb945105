//! What is uncommitted in the user's working tree, as git with the user's own settings sees it.

use bstr::{BString, ByteSlice};

use crate::error::Error;
use crate::process::Call;
use crate::source::Source;

/// How a file differs from `HEAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusKind {
    /// Known to git and changed, whether staged or not.
    Changed,
    /// Not in `HEAD`, but staged.
    Added,
    /// In `HEAD`, and removed, whether staged or not.
    Deleted,
    /// Unknown to git and not ignored.
    Untracked,
    /// In the middle of a merge.
    Conflicted,
}

/// One file with uncommitted changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusEntry {
    /// The path, relative to the top.
    pub path: BString,
    /// How it differs.
    pub kind: StatusKind,
    /// Whether the index differs from `HEAD`.
    pub staged: bool,
    /// Whether it is a submodule.
    pub submodule: bool,
}

/// The output of `git status` is read up to this size.
const OUTPUT_LIMIT: usize = 256 * 1024 * 1024;

impl Source {
    /// The uncommitted files, ignored ones excluded. Nothing is written: not even the index is refreshed. Changes
    /// inside submodules are not looked at.
    pub fn uncommitted(&self) -> Result<Vec<StatusEntry>, Error> {
        if self.copy_of().is_some() {
            return Ok(Vec::new());
        }
        let doing = "looking for uncommitted changes";
        let mut command = self.program().as_user_reading(self.top())?;
        command.args([
            "status",
            "--porcelain=v2",
            "-z",
            "--untracked-files=all",
            "--ignore-submodules=dirty",
            "--no-renames",
            "--no-ahead-behind",
        ]);
        let output = self
            .program()
            .execute(Call::new(doing, command).limit(OUTPUT_LIMIT))?
            .success(doing)?;
        output
            .stdout
            .split(|b| *b == 0)
            .filter(|record| !record.is_empty() && !record.starts_with(b"# "))
            .map(|record| parse(record).ok_or(Error::Output { doing }))
            .collect()
    }
}

impl Source {
    /// The ignored files that one of these globs could name. Whole ignored directories are looked through only
    /// where a glob leads into them.
    pub fn ignored(&self, globs: &[String]) -> Result<Vec<BString>, Error> {
        if self.copy_of().is_some() {
            return Ok(Vec::new());
        }
        let doing = "looking for ignored files";
        let mut command = self.program().as_user_reading(self.top())?;
        command.args([
            "ls-files",
            "-z",
            "--others",
            "--ignored",
            "--exclude-standard",
            "--",
        ]);
        command.args(globs.iter().map(|glob| format!(":(glob){glob}")));
        let output = self
            .program()
            .execute(Call::new(doing, command).limit(OUTPUT_LIMIT))?
            .success(doing)?;
        let paths = output
            .stdout
            .split(|b| *b == 0)
            .filter(|path| !path.is_empty());
        Ok(paths.map(BString::from).collect())
    }
}

/// One record of `git status --porcelain=v2 -z --no-renames` (see `git-status(1)`, "Porcelain Format Version 2").
fn parse(record: &[u8]) -> Option<StatusEntry> {
    let (kind, rest) = record.split_once_str(" ")?;
    let entry = |path: &[u8], kind, staged, submodule| StatusEntry {
        path: path.into(),
        kind,
        staged,
        submodule,
    };
    match kind {
        b"?" => Some(entry(rest, StatusKind::Untracked, false, false)),
        b"1" => {
            // <XY> <sub> <mH> <mI> <mW> <hH> <hI> <path>
            let fields: Vec<&[u8]> = rest.splitn(8, |b| *b == b' ').collect();
            let (xy, sub, path) = (*fields.first()?, *fields.get(1)?, *fields.get(7)?);
            let (index, tree) = (*xy.first()?, *xy.get(1)?);
            let kind = match (index, tree) {
                (b'D', _) | (_, b'D') => StatusKind::Deleted,
                (b'A', _) => StatusKind::Added,
                _ => StatusKind::Changed,
            };
            Some(entry(path, kind, index != b'.', sub.first() == Some(&b'S')))
        }
        b"u" => {
            // <XY> <sub> <m1> <m2> <m3> <mW> <h1> <h2> <h3> <path>
            let path = rest.splitn(10, |b| *b == b' ').nth(9)?;
            Some(entry(path, StatusKind::Conflicted, true, false))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_with_spaces_and_newlines_in_names_are_read() {
        let parsed = parse(b"1 .M N... 100644 100644 100644 aaa bbb a b\nc").unwrap();
        assert_eq!(parsed.path, "a b\nc");
        assert_eq!((parsed.kind, parsed.staged), (StatusKind::Changed, false));
        assert_eq!(
            parse(b"1 A. N... 0 1 1 a b x").unwrap().kind,
            StatusKind::Added
        );
        assert_eq!(parse(b"? x y").unwrap().path, "x y");
        assert_eq!(parse(b"u UU N... 1 2 3 4 a b c p q").unwrap().path, "p q");
        assert_eq!(parse(b"nonsense"), None);
    }
}
