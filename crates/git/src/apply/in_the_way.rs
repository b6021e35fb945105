//! Uncommitted work in the way: refused, but for what the work took along and has not changed since.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use bstr::{BStr, BString, ByteSlice};

use super::aside::{Brought, Seen};
use crate::commit::Signature;
use crate::diff::FileKind;
use crate::error::Error;
use crate::ids::{CommitId, TreeId};
use crate::mirror::{Entry, Mirror};
use crate::process::Call;
use crate::source::Source;
use crate::status::StatusKind;

/// The list of the index is read up to this size, in bytes.
const INDEX_LIMIT: usize = 256 * 1024 * 1024;

/// How a file is in the way.
#[derive(Clone, Copy, Default)]
struct Way {
    /// The index differs from `HEAD`.
    staged: bool,
    /// It can only be refused.
    refused: bool,
}

impl Source {
    /// Uncommitted files that are as in one of `starts` and make way for what the work makes of them.
    ///
    /// # Errors
    /// [`Error::Uncommitted`] when any other file that would change has uncommitted changes, or is there and ignored;
    /// and when anything else is staged, because git would make it part of the commit or refuse.
    pub(super) fn brought(
        &self,
        mirror: &Mirror,
        before: TreeId,
        after: TreeId,
        starts: &[CommitId],
    ) -> Result<Vec<Brought>, Error> {
        let files = self.in_the_way(mirror, before, after)?;
        if files.is_empty() {
            return Ok(Vec::new());
        }
        if starts.is_empty() || files.values().any(|way| way.refused) {
            return Err(Error::Uncommitted {
                files: files.into_keys().collect(),
            });
        }
        // Before the content is read: what is changed after that is noticed.
        let seen: Vec<Option<Seen>> = files
            .keys()
            .map(|path| Seen::of(self.top(), path.as_ref()))
            .collect();
        let now =
            mirror.snapshot_uncommitted(self, &Signature::new("Skep", "skep@localhost", 0))?;
        let now = mirror.tree_of(now)?;
        let staged = if files.values().any(|way| way.staged) {
            self.index()?
        } else {
            BTreeMap::new()
        };
        let starts = starts
            .iter()
            .map(|start| mirror.tree_of(*start))
            .collect::<Result<Vec<_>, _>>()?;
        let mut brought = Vec::new();
        let mut refused = Vec::new();
        for ((path, way), seen) in files.into_iter().zip(seen) {
            let at = |tree| mirror.entry_in(tree, path.as_ref());
            let (head, content) = (at(before)?, at(now)?);
            let mut is_taken = false;
            for start in &starts {
                is_taken |= at(*start)? == content;
            }
            let index = staged.get(&path).cloned();
            let index_is_safe =
                !way.staged || index == mode_and_id(head) || index == mode_and_id(content);
            match seen {
                Some(seen)
                    if is_taken && index_is_safe && seen.fits(content.map(|entry| entry.kind)) =>
                {
                    brought.push(Brought {
                        path,
                        seen,
                        in_head: head.is_some(),
                        staged: way.staged && index == mode_and_id(content),
                    });
                }
                _ => refused.push(path),
            }
        }
        if refused.is_empty() {
            Ok(brought)
        } else {
            Err(Error::Uncommitted { files: refused })
        }
    }

    fn in_the_way(
        &self,
        mirror: &Mirror,
        before: TreeId,
        after: TreeId,
    ) -> Result<BTreeMap<BString, Way>, Error> {
        let changes = mirror.changed_paths(before, after)?;
        let touched: BTreeSet<&BStr> = changes.iter().map(|change| change.path.as_ref()).collect();
        let mut files = BTreeMap::new();
        for entry in self.uncommitted()? {
            let path = entry.path.as_ref();
            let conflicted = entry.kind == StatusKind::Conflicted;
            let overlaps = overlaps(&touched, path);
            if entry.staged || conflicted || overlaps {
                let way = Way {
                    staged: entry.staged,
                    // What is staged and does not change would be lost with what makes way.
                    refused: conflicted || entry.submodule || !overlaps,
                };
                files.insert(entry.path, way);
            }
        }
        for change in changes.iter().filter(|change| change.before.is_none()) {
            if let Some(path) = in_the_way(self.top(), change.path.as_ref(), &touched) {
                files.entry(path).or_default();
            }
        }
        Ok(files)
    }

    /// The files of the index: mode and object. What is in conflict has none.
    fn index(&self) -> Result<BTreeMap<BString, (u32, String)>, Error> {
        let doing = "reading what is staged";
        let mut command = self.program().as_user_reading(self.top())?;
        command.args(["ls-files", "--stage", "-z"]);
        let output = self
            .program()
            .execute(Call::new(doing, command).limit(INDEX_LIMIT))?
            .success(doing)?;
        let mut files = BTreeMap::new();
        for record in output.stdout.split(|b| *b == 0).filter(|r| !r.is_empty()) {
            // <mode> <object> <stage> TAB <path>
            let (about, path) = record.split_once_str("\t").ok_or(Error::Output { doing })?;
            let about = about.to_str().map_err(|_| Error::Output { doing })?;
            let mut fields = about.split(' ');
            let mode = fields
                .next()
                .and_then(|mode| u32::from_str_radix(mode, 8).ok());
            let (Some(mode), Some(id), Some(stage)) = (mode, fields.next(), fields.next()) else {
                return Err(Error::Output { doing });
            };
            if stage == "0" {
                files.insert(path.into(), (mode, id.to_owned()));
            }
        }
        Ok(files)
    }
}

/// An entry as the index has it.
fn mode_and_id(entry: Option<Entry>) -> Option<(u32, String)> {
    let entry = entry?;
    let mode = match entry.kind {
        FileKind::File => 0o100_644,
        FileKind::Executable => 0o100_755,
        FileKind::Link => 0o120_000,
        FileKind::Directory => 0o040_000,
        FileKind::Submodule => 0o160_000,
    };
    Some((mode, entry.id.to_string()))
}

impl Seen {
    /// What is at a path, links not followed; nothing where that cannot be said, or it is neither a file nor a link.
    fn of(top: &Path, path: &BStr) -> Option<Seen> {
        let path = top.join(path.to_path().ok()?);
        match fs::symlink_metadata(path) {
            Ok(meta) => Seen::file(&meta),
            // Only when its directory is there too, or gone with it: a file in the place of a directory is another
            // matter.
            Err(error) if error.kind() == ErrorKind::NotFound => Some(Seen::Gone),
            Err(_) => None,
        }
    }

    /// Whether that is what git says is there.
    fn fits(&self, kind: Option<FileKind>) -> bool {
        match (self, kind) {
            (Seen::Gone, None) => true,
            (Seen::There { .. }, Some(kind)) => {
                matches!(kind, FileKind::File | FileKind::Executable | FileKind::Link)
            }
            _ => false,
        }
    }
}

/// Whether a path is touched, or is a directory above or a file below one that is.
fn overlaps(touched: &BTreeSet<&BStr>, path: &BStr) -> bool {
    if touched.contains(path) || parents(path).any(|parent| touched.contains(parent)) {
        return true;
    }
    let mut below = path.trim_end_with(|c| c == '/').to_vec();
    below.push(b'/');
    touched
        .range(BStr::new(&below)..)
        .next()
        .is_some_and(|next| next.starts_with(&below))
}

/// The directories above a path.
fn parents(path: &BStr) -> impl Iterator<Item = &BStr> {
    path.find_iter(b"/")
        .map(move |at| BStr::new(path.get(..at).unwrap_or_default()))
}

/// A file that is where a new file, or a directory above it, has to be, and is not tracked.
fn in_the_way(top: &Path, path: &BStr, touched: &BTreeSet<&BStr>) -> Option<BString> {
    let is_file = |path: &BStr| {
        let path = path.to_path().ok()?;
        Some(fs::symlink_metadata(top.join(path)).ok()?.is_dir()).filter(|is_dir| !is_dir)
    };
    parents(path)
        .filter(|parent| !touched.contains(parent))
        .chain(std::iter::once(path))
        .find(|path| is_file(path).is_some())
        .map(BStr::to_owned)
}
