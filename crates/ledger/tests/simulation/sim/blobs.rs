//! What is stored in blobs, and what names them.

use super::Broken;
use domain::{BlobId, RequestId};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// What is stored. There are few, so that what was removed comes again.
pub(crate) const CONTENTS: [&str; 6] = [
    "one blob",
    "another blob",
    "a third one",
    "a fourth",
    "a fifth",
    "the last",
];

#[derive(Default)]
pub(crate) struct Blobs {
    content: BTreeMap<BlobId, String>,
    /// How often each is named.
    named: BTreeMap<BlobId, u64>,
    /// What goes with a request: what its ask and its calls name.
    of_request: BTreeMap<RequestId, Vec<BlobId>>,
    /// What was stored since time passed for files.
    young: BTreeSet<BlobId>,
}

impl Blobs {
    pub(crate) fn put(&mut self, id: BlobId, content: &str) -> Result<(), Broken> {
        self.young.insert(id);
        let known = self.content.insert(id, content.into());
        Broken::unless(known.is_none_or(|known| known == content), || {
            format!("{id} is the name of two contents")
        })
    }

    /// Something that is recorded names these; with the request they go, or with the event.
    pub(crate) fn name(&mut self, request: Option<RequestId>, blobs: Vec<BlobId>) {
        for blob in &blobs {
            *self.named.entry(*blob).or_default() += 1;
        }
        if let Some(request) = request {
            self.of_request.entry(request).or_default().extend(blobs);
        }
    }

    pub(crate) fn forget(&mut self, blobs: &[BlobId]) {
        for blob in blobs {
            let count = self.named.get_mut(blob).expect("it is named");
            *count -= 1;
            if *count == 0 {
                self.named.remove(blob);
            }
        }
    }

    pub(crate) fn forget_request(&mut self, request: RequestId) {
        let blobs = self.of_request.remove(&request).unwrap_or_default();
        self.forget(&blobs);
    }

    pub(crate) fn is_known(&self, request: RequestId) -> bool {
        self.of_request.contains_key(&request)
    }

    /// Those that are named, with what is in them.
    pub(crate) fn named(&self) -> Vec<(BlobId, &str)> {
        let named = self.named.keys();
        named
            .map(|id| (*id, self.content.get(id).map_or("", String::as_str)))
            .collect()
    }

    /// Whatever is named is there.
    pub(crate) fn hold(&self, directory: &Path) -> Result<(), Broken> {
        let mut named = self.named.keys();
        let missing = named.find(|id| !path(directory, **id).exists());
        Broken::unless(missing.is_none(), || {
            format!("the blob {} is named and is not there", missing.unwrap())
        })
    }

    /// Garbage was removed: all of it, or what is older than what was just stored.
    pub(crate) fn collected(&mut self, directory: &Path, all: bool) -> Result<(), Broken> {
        if all {
            self.young.clear();
            let left = files(directory);
            let left = left.iter().find(|(id, _)| !self.named.contains_key(id));
            return Broken::unless(left.is_none(), || {
                format!("the blob {} is garbage and stays", left.unwrap().0)
            });
        }
        let mut young = self.young.iter();
        let gone = young.find(|id| !path(directory, **id).exists());
        Broken::unless(gone.is_none(), || {
            format!("the blob {} was just stored and is gone", gone.unwrap())
        })
    }

    /// Nobody knows how much of all garbage was removed.
    pub(crate) fn perhaps_collected(&mut self) {
        self.young.clear();
    }

    /// So much time passes for files that what is there is old.
    pub(crate) fn age(&mut self, directory: &Path) {
        self.young.clear();
        let old = SystemTime::now() - 2 * super::keeper::DAY;
        for (_, path) in files(directory) {
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(old).unwrap();
        }
    }

    /// Removes one that is named.
    pub(crate) fn lose(&self, directory: &Path) {
        if let Some(id) = self.named.keys().next() {
            fs::remove_file(path(directory, *id)).unwrap();
        }
    }

    /// Puts one that is old and that nothing names aside, as whoever dies while removing it does.
    /// Says whether there was one.
    pub(crate) fn put_aside(&self, directory: &Path) -> bool {
        let garbage = |id: &BlobId| !self.named.contains_key(id) && !self.young.contains(id);
        let found = files(directory).into_iter().find(|(id, _)| garbage(id));
        let Some((id, path)) = found else {
            return false;
        };
        let aside = directory.join("blobs/removing").join(id.to_string());
        fs::rename(path, aside).unwrap();
        true
    }
}

pub(crate) fn path(directory: &Path, id: BlobId) -> PathBuf {
    let name = id.to_string();
    directory.join("blobs").join(&name[..2]).join(&name)
}

/// Every blob in its place, in the order of their names.
fn files(directory: &Path) -> BTreeMap<BlobId, PathBuf> {
    let shelves = fs::read_dir(directory.join("blobs")).unwrap();
    let shelves = shelves.map(|shelf| shelf.unwrap().path());
    let blobs = shelves.flat_map(|shelf| fs::read_dir(shelf).unwrap());
    blobs
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let in_place = path.parent()?.file_name()?.len() == 2;
            let id = path.file_name()?.to_str()?.parse().ok()?;
            in_place.then_some((id, path))
        })
        .collect()
}
