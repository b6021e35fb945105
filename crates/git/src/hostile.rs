//! For the fuzzing of this crate's parsers, and for nothing else: what they made of some bytes.

use crate::index_edit::{Edits, OldIndex};

/// An index, read and written again without a change. None where it is refused.
#[must_use]
pub fn index(bytes: &[u8]) -> Option<Vec<u8>> {
    let index = OldIndex::parse(bytes.to_vec())?;
    let mut written = Vec::new();
    let root = index.root.clone();
    index
        .write(&mut written, Edits::default(), &root)
        .ok()
        .map(|()| written)
}
