//! A tree's content written over a repository of a workspace: how the checks get the change that was extracted.

use crate::error::Error;
use git::{FileKind, Mirror, TreeId};
use workspace::Edit;

/// The most bytes of one file that are written.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Writes what `tree` has otherwise than `base` over the repository that is edited.
pub(crate) fn fill(mirror: &Mirror, base: TreeId, tree: TreeId, edit: &Edit) -> Result<(), Error> {
    for change in mirror.changed_paths(base, tree)? {
        let path = change.path.as_ref();
        match change.after {
            None => edit.remove(path)?,
            Some(entry) => match entry.kind {
                FileKind::File | FileKind::Executable => {
                    let content = mirror.read_blob(entry.id, MAX_FILE_BYTES)?;
                    edit.write(path, entry.kind == FileKind::Executable, &content)?;
                }
                FileKind::Link => {
                    let target = mirror.read_blob(entry.id, MAX_FILE_BYTES)?;
                    edit.link(path, target.as_slice().into())?;
                }
                FileKind::Directory | FileKind::Submodule => edit.directory(path)?,
            },
        }
    }
    Ok(())
}
