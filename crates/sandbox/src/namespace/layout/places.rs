//! Where things of the host really are: the way of a path without links.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::Error;

/// Where directories really are. Much of what a sandbox is made of lies beside each other: the way to
/// each directory is looked up once.
#[derive(Default)]
pub(super) struct Places(HashMap<PathBuf, Option<PathBuf>>);

impl Places {
    /// Where something is that is no link itself.
    pub(super) fn beside(&mut self, path: &Path) -> Option<PathBuf> {
        let (parent, name) = (path.parent()?, path.file_name()?);
        if let Some(known) = self.0.get(parent) {
            return Some(known.as_ref()?.join(name));
        }
        let found = std::fs::canonicalize(parent).ok();
        let place = found.as_ref().map(|place| place.join(name));
        self.0.insert(parent.to_owned(), found);
        place
    }

    /// Where a directory is.
    pub(super) fn real(&mut self, what: &'static str, path: &Path) -> Result<PathBuf, Error> {
        // A link is no directory here.
        let is_plain = std::fs::symlink_metadata(path).is_ok_and(|it| it.is_dir());
        match self.beside(path).filter(|_| is_plain) {
            Some(place) => Ok(place),
            None => real(what, path),
        }
    }
}

/// The path without links: they would lead astray once the root is another one.
pub(super) fn real(what: &'static str, path: &Path) -> Result<PathBuf, Error> {
    std::fs::canonicalize(path).map_err(|source| Error::Setup {
        step: "find",
        subject: format!("{what} {}", path.display()),
        remedy: "check that it exists and that you may read it".to_owned(),
        source,
    })
}
