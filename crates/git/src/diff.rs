//! What differs between two trees: quickly by name, or with lines counted and renames found.

use std::fs::File;
use std::process::Command;

use bstr::{BStr, BString, ByteSlice};
use gix::objs::TreeRefIter;
use gix::objs::tree::EntryKind;

use crate::error::Error;
use crate::ids::{ObjectId, TreeId};
use crate::mirror::{Entry, Mirror};
use crate::objects::HASH;
use crate::process::{Call, Most};

/// What an entry of a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A file.
    File,
    /// A file that can be executed.
    Executable,
    /// A symbolic link.
    Link,
    /// A directory.
    Directory,
    /// A commit of another repository.
    Submodule,
}

impl FileKind {
    pub(crate) fn of(kind: EntryKind) -> FileKind {
        match kind {
            EntryKind::Tree => FileKind::Directory,
            EntryKind::Blob => FileKind::File,
            EntryKind::BlobExecutable => FileKind::Executable,
            EntryKind::Link => FileKind::Link,
            EntryKind::Commit => FileKind::Submodule,
        }
    }

    fn of_mode(mode: &[u8]) -> Option<Option<FileKind>> {
        Some(match mode {
            b"000000" => None,
            b"040000" => Some(FileKind::Directory),
            b"100755" => Some(FileKind::Executable),
            b"120000" => Some(FileKind::Link),
            b"160000" => Some(FileKind::Submodule),
            mode if mode.starts_with(b"100") => Some(FileKind::File),
            _ => return None,
        })
    }
}

/// A path that differs, without a look at the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathChange {
    /// The path.
    pub path: BString,
    /// What was there; nothing when it is new.
    pub before: Option<Entry>,
    /// What is there; nothing when it is gone.
    pub after: Option<Entry>,
}

/// A file that differs, with renames found and lines counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// The path; the old one when the file is gone.
    pub path: BString,
    /// Where it was, when it was renamed.
    pub old_path: Option<BString>,
    /// What it was; nothing when it is new.
    pub before: Option<FileKind>,
    /// What it is; nothing when it is gone.
    pub after: Option<FileKind>,
    /// Lines added; 0 for a binary file.
    pub additions: u64,
    /// Lines removed; 0 for a binary file.
    pub deletions: u64,
    /// Whether git takes it for binary.
    pub binary: bool,
}

/// A patch, perhaps cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The text in git's format.
    pub text: BString,
    /// Whether there is more.
    pub truncated: bool,
}

const OUTPUT_LIMIT: usize = 256 * 1024 * 1024;

impl Mirror {
    /// The files that differ, in the order of their paths, without renames and without reading any content.
    pub fn changed_paths(&self, before: TreeId, after: TreeId) -> Result<Vec<PathChange>, Error> {
        use gix::diff::tree::recorder::Change;
        if before == after {
            return Ok(Vec::new());
        }
        let (mut left, mut right) = (Vec::new(), Vec::new());
        let reader = self.objects().reader();
        let mut recorder = gix::diff::tree::Recorder::default();
        let outcome = gix::diff::tree(
            find_tree(&reader, before, &mut left)?,
            find_tree(&reader, after, &mut right)?,
            gix::diff::tree::State::default(),
            reader.handle(),
            &mut recorder,
        );
        outcome.map_err(|source| Error::object("comparing", after, source))?;
        let entry = |mode: gix::objs::tree::EntryMode, id| Entry {
            kind: FileKind::of(mode.kind()),
            id: ObjectId(id),
        };
        let mut found: Vec<PathChange> = Vec::new();
        for change in recorder.records {
            let (path, before, after) = match change {
                Change::Addition {
                    entry_mode,
                    oid,
                    path,
                    ..
                } => (path, None, Some(entry(entry_mode, oid))),
                Change::Deletion {
                    entry_mode,
                    oid,
                    path,
                    ..
                } => (path, Some(entry(entry_mode, oid)), None),
                Change::Modification {
                    previous_entry_mode,
                    previous_oid,
                    entry_mode,
                    oid,
                    path,
                } => (
                    path,
                    Some(entry(previous_entry_mode, previous_oid)),
                    Some(entry(entry_mode, oid)),
                ),
            };
            let is_file = |entry: Option<Entry>| entry.filter(|e| e.kind != FileKind::Directory);
            let (before, after) = (is_file(before), is_file(after));
            if before.is_some() || after.is_some() {
                found.push(PathChange {
                    path: path.as_slice().into(),
                    before,
                    after,
                });
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// The files that differ, with renames and counted lines.
    pub fn diff(&self, before: TreeId, after: TreeId) -> Result<Vec<FileChange>, Error> {
        if before == after {
            return Ok(Vec::new());
        }
        let doing = "comparing two trees";
        let mut command = self.diff_tree()?;
        command
            .args(["-z", "--raw", "--numstat"])
            .arg(before.to_string())
            .arg(after.to_string());
        let output = self
            .program()
            .execute(Call::new(doing, command).limit(OUTPUT_LIMIT))?
            .success(doing)?;
        parse(&output.stdout).ok_or(Error::Output { doing })
    }

    /// The patch from one tree to another, of at most `max_bytes`, for people: that a file which is
    /// not text has changed is said, and no more.
    pub fn patch(&self, before: TreeId, after: TreeId, max_bytes: usize) -> Result<Patch, Error> {
        if before == after {
            return Ok(Patch {
                text: BString::default(),
                truncated: false,
            });
        }
        let doing = "writing a patch";
        let command = self.patch_of(before, after, &[])?;
        let output = self
            .program()
            .execute(Call::new(doing, command).head(max_bytes))?
            .success(doing)?;
        Ok(Patch {
            text: output.stdout.into(),
            truncated: output.truncated,
        })
    }

    /// Writes the patch from one tree to another into a file, for `git apply`: what is not text is in
    /// it too.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when it has more than `most` bytes; there is a part of it in the file then.
    pub fn write_patch(
        &self,
        before: TreeId,
        after: TreeId,
        file: &File,
        most: u64,
    ) -> Result<(), Error> {
        if before == after {
            return Ok(());
        }
        let doing = "writing a patch";
        let io = |source| Error::io(doing, self.directory(), source);
        let command = self.patch_of(before, after, &["--binary"])?;
        let bounds = Most {
            file: most,
            memory: None,
        };
        let call = Call::new(doing, command).into_file(file.try_clone().map_err(io)?);
        let ended = self.program().execute(call.within(bounds))?;
        // The kernel ends whoever writes more.
        if ended.code.is_none() && file.metadata().map_err(io)?.len() >= most {
            return Err(Error::TooLarge {
                what: "the patch of what was changed".to_owned(),
                limit: most,
            });
        }
        ended.success(doing).map(drop)
    }

    fn patch_of(&self, before: TreeId, after: TreeId, options: &[&str]) -> Result<Command, Error> {
        let mut command = self.diff_tree()?;
        command
            .args(["-p", "--full-index"])
            .args(options)
            .arg(before.to_string())
            .arg(after.to_string());
        Ok(command)
    }

    fn diff_tree(&self) -> Result<Command, Error> {
        let mut command = self.program().trusted(self.directory())?;
        command.args([
            "diff-tree",
            "-r",
            "-M",
            "-l1000",
            "--no-ext-diff",
            "--no-textconv",
            "--no-color",
        ]);
        Ok(command)
    }
}

fn find_tree<'a>(
    reader: &crate::objects::Reader,
    id: TreeId,
    buffer: &'a mut Vec<u8>,
) -> Result<TreeRefIter<'a>, Error> {
    use gix::prelude::Find as _;
    if id == TreeId::empty() {
        return Ok(TreeRefIter::from_bytes(&[], HASH));
    }
    let found = reader
        .handle()
        .try_find(&id.0, buffer)
        .map_err(|source| Error::object("reading", id, source))?;
    let data = found.ok_or(Error::Missing { id: id.into() })?;
    if data.kind != gix::objs::Kind::Tree {
        return Err(Error::Malformed {
            id: id.into(),
            expected: "tree",
        });
    }
    Ok(TreeRefIter::from_bytes(data.data, HASH))
}

/// The output of `git diff-tree -z --raw --numstat`: all raw records, then all counts, in the same order.
fn parse(output: &[u8]) -> Option<Vec<FileChange>> {
    let mut fields = output.split(|b| *b == 0).peekable();
    let mut changes = Vec::new();
    while let Some(record) = fields.next_if(|field| field.starts_with(b":")) {
        // :<mode> <mode> <id> <id> <status>
        let parts: Vec<&[u8]> = record.get(1..)?.split(|b| *b == b' ').collect();
        let [before, after, _, _, status] = parts.as_slice() else {
            return None;
        };
        let first = BString::from(fields.next()?);
        let renamed = matches!(status.first()?, b'R' | b'C');
        let (path, old_path) = if renamed {
            (fields.next()?.into(), Some(first))
        } else {
            (first, None)
        };
        let (before, after) = (FileKind::of_mode(before)?, FileKind::of_mode(after)?);
        changes.push(FileChange {
            path,
            old_path,
            before,
            after,
            additions: 0,
            deletions: 0,
            binary: false,
        });
    }
    for change in &mut changes {
        // <added>\t<deleted>\t<path>, or for a rename an empty path, then the old and the new one
        let record = fields.next()?;
        let mut parts = record.splitn(3, |b| *b == b'\t');
        let (added, deleted, path) = (parts.next()?, parts.next()?, parts.next()?);
        let path: &BStr = if path.is_empty() {
            fields.next()?;
            fields.next()?.into()
        } else {
            path.into()
        };
        if path != change.path {
            return None;
        }
        if added == b"-" {
            change.binary = true;
        } else {
            change.additions = added.to_str().ok()?.parse().ok()?;
            change.deletions = deleted.to_str().ok()?.parse().ok()?;
        }
    }
    Some(changes)
}
