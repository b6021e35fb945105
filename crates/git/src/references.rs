//! The mirror's own references: plain files under `refs/skep/`, changed by compare-and-swap under the mirror's lock.
//! When the call returns, the reference and all that it reaches survive a power failure.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::ids::CommitId;
use crate::mirror::Mirror;

/// Who may move a reference: the number that stands in a file beside it.
pub(crate) struct Fence<'a> {
    pub(crate) name: &'a str,
    pub(crate) token: u64,
}

impl Mirror {
    /// The commit of a reference of the mirror, or nothing. `name` is below `refs/skep/`.
    pub fn read_ref(&self, name: &str) -> Result<Option<CommitId>, Error> {
        let found = read(&self.reference_path(name)?)?;
        // It was made durable before a reference named it, in this process or an earlier one.
        found
            .into_iter()
            .for_each(|commit| self.note_settled(commit));
        Ok(found)
    }

    /// Moves a reference of the mirror from `expected` (nothing: it does not exist) to `new` (nothing: it is removed).
    ///
    /// # Errors
    /// [`Error::Moved`] when it is somewhere else; [`Error::BadReference`] when `name` is not a name below
    /// `refs/skep/`; [`Error::Missing`] when `new` is not in the mirror.
    pub fn update_ref(
        &self,
        name: &str,
        new: Option<CommitId>,
        expected: Option<CommitId>,
    ) -> Result<(), Error> {
        self.update_ref_held(name, new, expected, None)
    }

    /// The same, and only while this fence is in place.
    ///
    /// # Errors
    /// [`Error::Fenced`] when another one is; those of [`Mirror::update_ref`].
    pub(crate) fn update_ref_held(
        &self,
        name: &str,
        new: Option<CommitId>,
        expected: Option<CommitId>,
        fence: Option<&Fence<'_>>,
    ) -> Result<(), Error> {
        let path = self.reference_path(name)?;
        if let Some(new) = new {
            self.settle(new)?;
        }
        let _lock = self.lock()?;
        if let Some(fence) = fence {
            let place = self.reference_path(fence.name)?;
            let found = fs::read_to_string(&place).map_err(|e| Error::io("reading", place, e))?;
            if found.trim_end() != fence.token.to_string() {
                return Err(Error::Fenced {
                    name: name.to_owned(),
                });
            }
        }
        let actual = read(&path)?;
        if actual != expected {
            return Err(Error::Moved {
                name: name.to_owned(),
                expected,
                actual,
            });
        }
        match new {
            Some(new) if Some(new) == actual => Ok(()),
            Some(new) => write_durably(&path, format!("{new}\n").as_bytes()),
            None => match fs::remove_file(&path) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    Err(Error::io("removing", path, source))
                }
                _ => Ok(()),
            },
        }
    }

    /// Puts a fence in place of the one before. It holds back processes that live, so it need not
    /// survive a power failure.
    ///
    /// # Errors
    /// [`Error::BadReference`] when its name is not one below `refs/skep/`; when it cannot be written.
    pub(crate) fn put_fence(&self, fence: &Fence<'_>) -> Result<(), Error> {
        let place = self.reference_path(fence.name)?;
        let _lock = self.lock()?;
        write_replacing(&place, format!("{}\n", fence.token).as_bytes(), false)
    }

    fn reference_path(&self, name: &str) -> Result<PathBuf, Error> {
        let valid = name.starts_with("refs/skep/")
            && !name.ends_with(".tmp")
            && gix::validate::reference::name(name.into()).is_ok();
        if valid {
            Ok(self.directory().join(name))
        } else {
            Err(Error::BadReference {
                name: name.to_owned(),
            })
        }
    }
}

fn read(path: &Path) -> Result<Option<CommitId>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim_end().parse().map(Some).map_err(|e| {
            Error::io(
                "reading",
                path,
                std::io::Error::new(ErrorKind::InvalidData, e),
            )
        }),
        Err(e)
            if matches!(
                e.kind(),
                ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(Error::io("reading", path, source)),
    }
}

/// Replaces a file in one step; its content and its name survive a power failure.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> Result<(), Error> {
    write_replacing(path, content, true)
}

/// Replaces a file in one step: readers see the old or the new content.
pub(crate) fn write_replacing(path: &Path, content: &[u8], durable: bool) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|e| Error::io("creating", parent, e))?;
    let temporary = path.with_added_extension("tmp");
    let failed = |e| Error::io("writing", path, e);
    let mut file = File::create(&temporary).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    if durable {
        file.sync_data().map_err(failed)?;
    }
    drop(file);
    fs::rename(&temporary, path).map_err(failed)?;
    if durable {
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| Error::io("writing", parent, e))?;
    }
    Ok(())
}
