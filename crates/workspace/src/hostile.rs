//! For the fuzzing of this crate's parsers, and for nothing else: what they made of some bytes.

use crate::manifest;
use crate::names;
use crate::record::Record;

/// A manifest, read and written again.
#[must_use]
pub fn manifest(bytes: &[u8]) -> Option<Vec<u8>> {
    let (git_birth, entries) = manifest::parse(bytes)?;
    manifest::written_as(git_birth, &entries)
}

/// A workspace's record, read and written again; with it the layers that make the change, which
/// are all among those that it names.
#[must_use]
pub fn record(text: &str) -> Option<(String, bool)> {
    let record = Record::parse(text)?;
    let named: Vec<&str> = record.layers().collect();
    let mut frozen = record.stacks().flat_map(|stack| stack.frozen());
    let all_named = frozen.all(|layer| named.contains(&layer));
    Some((record.text(), all_named))
}

/// Whether a name is, or is taken somewhere for, a repository's `.git`.
#[must_use]
pub fn is_git_directory(name: &[u8]) -> bool {
    names::is_git_directory(name)
}
