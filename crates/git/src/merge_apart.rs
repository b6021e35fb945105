//! Merges of changes that lie apart, without a process.
//!
//! Where every path is changed by at most one of the two sides, the merge is plain: the side that changed it counts.
//! Git finds renames too, but they matter only where one side took away (renamed) what the other side changed, or
//! where both took away the same; both are left to git here, as is everything else that both sides changed.

use std::collections::BTreeMap;

use bstr::BString;
use gix::objs::Kind;
use gix::objs::tree::EntryKind;

use crate::error::Error;
use crate::ids::TreeId;
use crate::mirror::Mirror;
use crate::objects::{Reader, TreeItem, encode_tree, sort_tree};

/// Trees that are nested deeper are left to git.
const DEPTH_LIMIT: usize = 256;

impl Mirror {
    /// The merge of two trees over a third, where their changes lie apart; nothing where git has to say.
    pub(crate) fn merge_apart(
        &self,
        base: TreeId,
        ours: TreeId,
        theirs: TreeId,
    ) -> Result<Option<TreeId>, Error> {
        let mut reader = self.objects().reader();
        let merged = merge(&mut reader, [base.0, ours.0, theirs.0], 0)?;
        Ok(merged.map(TreeId))
    }
}

/// What one name is in each of the three trees: base, ours, theirs.
type Three = [Option<TreeItem>; 3];

fn merge(
    reader: &mut Reader,
    trees: [gix::ObjectId; 3],
    depth: usize,
) -> Result<Option<gix::ObjectId>, Error> {
    if depth > DEPTH_LIMIT {
        return Ok(None);
    }
    let mut names: BTreeMap<BString, Three> = BTreeMap::new();
    for (place, tree) in trees.iter().enumerate() {
        for item in reader.tree(tree)? {
            let three = names.entry(item.name.clone()).or_default();
            if let Some(slot) = three.get_mut(place) {
                *slot = Some(item);
            }
        }
    }
    let mut merged = Vec::with_capacity(names.len());
    for (_, three) in names {
        match three {
            [base, ours, theirs] if ours == base => merged.extend(theirs),
            [base, ours, theirs] if theirs == base => merged.extend(ours),
            // Also where both made the same of it: they may have taken away a file of it.
            [Some(base), Some(ours), Some(theirs)] if are_trees([&base, &ours, &theirs]) => {
                let below = [base.id, ours.id, theirs.id];
                match merge(reader, below, depth + 1)? {
                    Some(id) => merged.push(TreeItem { id, ..ours }),
                    None => return Ok(None),
                }
            }
            [None, Some(ours), Some(theirs)] if ours == theirs => merged.push(ours),
            [Some(base), Some(ours), Some(theirs)]
                if ours == theirs && is_file(&base) && is_file(&ours) =>
            {
                merged.push(ours);
            }
            // Both took it away, and may have renamed it differently; or both changed it.
            _ => return Ok(None),
        }
    }
    // A directory without files does not exist: the tree above would have to change with it.
    if merged.is_empty() {
        return Ok(None);
    }
    sort_tree(&mut merged);
    let (id, _) = reader.write(Kind::Tree, &encode_tree(&merged))?;
    Ok(Some(id))
}

fn are_trees(three: [&TreeItem; 3]) -> bool {
    three.iter().all(|item| item.kind == EntryKind::Tree)
}

fn is_file(item: &TreeItem) -> bool {
    matches!(item.kind, EntryKind::Blob | EntryKind::BlobExecutable)
}
