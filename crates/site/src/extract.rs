//! What changed in a workspace, made into a tree in the mirror. Everything here is data.

use crate::{
    error::Error,
    ignored::{self, Ignored},
};
use bstr::{BStr, BString, ByteSlice};
use git::{Mirror, TreeId};
use std::{collections::BTreeSet, io::Read};
use workspace::{Change, Limits, Workspace};

/// The most entries that are named among what was not taken.
pub const MAX_REPORTED: usize = 50;

/// What came out of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// The base's tree with the changes.
    pub tree: TreeId,
    /// What was found and not taken, a sentence each, at most [`MAX_REPORTED`].
    pub not_taken: Vec<String>,
}

/// Reads the changes of `workspace` over `base` into a tree of the mirror. New files that git
/// ignores are left out.
pub(crate) fn extract(
    mirror: &Mirror,
    base: TreeId,
    workspace: &Workspace,
    limits: &Limits,
) -> Result<Extracted, Error> {
    let rules = rules(mirror, base, workspace, limits)?;
    let mut tree = mirror.tree_writer(base);
    let mut collect = |change: Change| -> Result<(), Error> {
        match change {
            Change::Removed(path) => tree.remove(path.as_ref())?,
            Change::Cleared(path) => tree.clear(path.as_ref())?,
            Change::File {
                path,
                executable,
                len,
                mut content,
            } => {
                if !is_left_out(mirror, base, &rules, path.as_ref())? {
                    tree.put_file(path.as_ref(), executable, &mut content, len)?;
                }
            }
            Change::Link { path, target } => {
                if !is_left_out(mirror, base, &rules, path.as_ref())? {
                    tree.put_link(path.as_ref(), target.as_ref())?;
                }
            }
        }
        Ok(())
    };
    let summary = workspace.changes(limits, &mut collect)?;
    let not_taken = summary
        .refused
        .iter()
        .map(|refused| format!("{}: {}", refused.path, refused.why));
    let collisions = summary
        .collisions
        .iter()
        .map(|(one, other)| format!("{one} and {other} differ only in case"));
    let not_taken = not_taken.chain(collisions).take(MAX_REPORTED).collect();
    Ok(Extracted {
        tree: tree.finish()?.tree,
        not_taken,
    })
}

fn is_left_out(mirror: &Mirror, base: TreeId, rules: &Ignored, path: &BStr) -> Result<bool, Error> {
    Ok(rules.matches(path) && mirror.entry_in(base, path)?.is_none())
}

/// The `.gitignore` files as they stand in the workspace: those that changed, and the base's in every
/// directory that has a change.
fn rules(
    mirror: &Mirror,
    base: TreeId,
    workspace: &Workspace,
    limits: &Limits,
) -> Result<Ignored, Error> {
    let mut rules = Ignored::default();
    let mut settled: BTreeSet<BString> = BTreeSet::new();
    let mut directories: BTreeSet<BString> = BTreeSet::from([BString::default()]);
    workspace.changes(limits, &mut |change: Change| -> Result<(), Error> {
        let path = change.path();
        let mut directory = path;
        while let Some(end) = directory.rfind_byte(b'/') {
            directory = directory.get(..end).unwrap_or_default().as_bstr();
            if !directories.insert(directory.to_owned()) {
                break;
            }
        }
        if path != ".gitignore" && !path.ends_with(b"/.gitignore") {
            return Ok(());
        }
        let path = path.to_owned();
        if let Change::File { content, .. } = change {
            let mut bytes = Vec::new();
            content
                .take(ignored::MAX_BYTES)
                .read_to_end(&mut bytes)
                .map_err(|source| Error::Unreadable {
                    path: path.to_string(),
                    source,
                })?;
            rules.add(path.as_ref(), &bytes);
        }
        settled.insert(path);
        Ok(())
    })?;
    for directory in directories.into_iter().take(ignored::MAX_FILES) {
        let mut path = directory;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(b".gitignore");
        if settled.contains(&path) {
            continue;
        }
        if let Some(entry) = mirror.entry_in(base, path.as_ref())?
            && entry.kind != git::FileKind::Directory
            && let Ok(content) = mirror.read_blob(entry.id, ignored::MAX_BYTES)
        {
            rules.add(path.as_ref(), &content);
        }
    }
    Ok(rules)
}
