//! A tree's content written over a workspace: how the checks get the change that was extracted.

use crate::error::Error;
use git::{FileKind, Mirror, TreeId};
use workspace::Workspace;

/// The most bytes of one file that are written.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Writes what `tree` has otherwise than `base` over the workspace.
pub(crate) fn fill(
    mirror: &Mirror,
    base: TreeId,
    tree: TreeId,
    workspace: &Workspace,
) -> Result<(), Error> {
    for change in mirror.changed_paths(base, tree)? {
        let path = change.path.as_ref();
        match change.after {
            None => workspace.remove(path)?,
            Some(entry) => match entry.kind {
                FileKind::File | FileKind::Executable => {
                    let content = mirror.read_blob(entry.id, MAX_FILE_BYTES)?;
                    workspace.write(path, entry.kind == FileKind::Executable, &content)?;
                }
                FileKind::Link => {
                    let target = mirror.read_blob(entry.id, MAX_FILE_BYTES)?;
                    workspace.link(path, target.as_slice().into())?;
                }
                FileKind::Directory | FileKind::Submodule => workspace.directory(path)?,
            },
        }
    }
    Ok(())
}
