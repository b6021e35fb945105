//! A base made as a layer over one of a commit nearby.

use crate::{error::Error, open::base_key};
use git::{CommitId, Mirror, Source};
use std::path::Path;
use workspace::{Base, Layering, Store};

/// How many present bases are compared with a commit, the last used first.
const MOST_COMPARED: usize = 16;
/// A layer with more entries than this part of all files is not worth its place in a stack.
const PART: usize = 4;
/// A layer of so few entries is worth it in the smallest repository.
const FEW: usize = 16;

/// The base `key` of a commit: what is present, or a layer over the nearest one that is present, or a
/// whole checkout; and whether it was made.
pub(crate) fn base(
    store: &Store,
    key: &str,
    repository: &str,
    mirror: &Mirror,
    commit: CommitId,
    source: Option<&Source>,
) -> Result<(Base, bool), Error> {
    let mut made = false;
    let layered = store.layered_base(key, |directory| {
        made = true;
        let Some(below) = nearest(store, repository, mirror, commit) else {
            mirror.checkout(commit, directory, source)?;
            return Ok(None);
        };
        match mirror.checkout_over(commit, directory, below.trees(), source) {
            Ok(()) => Ok(Some(below)),
            Err(error) => Err(Layer::Failed(error)),
        }
    });
    match layered {
        Ok(base) => Ok((base, made)),
        Err(Layer::Other(error)) => Err(error),
        // Whatever it was, such as a file system without whiteouts: a whole checkout needs less.
        Err(Layer::Failed(error)) => {
            tracing::debug!(base = key, %error, "a base could not be made as a layer");
            let whole = store.base::<Error>(key, |directory| {
                Ok(mirror.checkout(commit, directory, source)?)
            })?;
            Ok((whole, true))
        }
    }
}

/// Why a base was not made.
enum Layer {
    /// The layer could not be written.
    Failed(git::Error),
    Other(Error),
}

impl From<workspace::Error> for Layer {
    fn from(error: workspace::Error) -> Self {
        Self::Other(error.into())
    }
}

impl From<git::Error> for Layer {
    fn from(error: git::Error) -> Self {
        Self::Other(error.into())
    }
}

/// The present base that differs least from the commit, if it differs little and can bear another.
/// What cannot be read is no candidate.
fn nearest(store: &Store, repository: &str, mirror: &Mirror, commit: CommitId) -> Option<Base> {
    // Copies gain nothing from a layer, and would have to be put together from several.
    if store.layering() == Layering::Copy {
        return None;
    }
    let tree = mirror.tree_of(commit).ok()?;
    let prefix = base_key(repository, "");
    let mut best: Option<(usize, Base)> = None;
    for key in store.recent_bases(&prefix).ok()?.iter().take(MOST_COMPARED) {
        let Some(other) = key.strip_prefix(&prefix).and_then(|id| id.parse().ok()) else {
            continue;
        };
        let Some(base) = look_at(store, key).filter(Base::can_bear) else {
            continue;
        };
        let files = base
            .trees()
            .first()
            .and_then(|top| mirror.checkout_len(top));
        let limit = match &best {
            Some((size, _)) => size.saturating_sub(1),
            None => files.unwrap_or_default() / PART + FEW,
        };
        let size = mirror
            .tree_of(other)
            .and_then(|other| mirror.layer_size(other, tree, limit));
        if let Ok(Some(size)) = size
            && is_whole(mirror, base.trees())
        {
            best = Some((size, base));
        }
    }
    best.map(|(_, base)| base)
}

fn look_at(store: &Store, key: &str) -> Option<Base> {
    store.look_at_base(key).ok().flatten()
}

/// Moves a base to the trash, with those that lie over it.
pub(crate) fn evict(store: &Store, key: &str) -> Result<(), workspace::Error> {
    for over in store.bases_over(key)? {
        evict(store, &over)?;
    }
    store.evict(key)
}

/// Whether the history in all trees of a base can be read: a layer would inherit what is damaged.
pub(crate) fn is_whole(mirror: &Mirror, trees: &[impl AsRef<Path>]) -> bool {
    let mut trees = trees.iter();
    trees.all(|tree| mirror.is_whole_checkout(tree.as_ref()).unwrap_or(false))
}
