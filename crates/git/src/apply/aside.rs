//! Uncommitted files moved out of the way of a merge, and back when git refuses.
//!
//! They are renamed into the git directory and not deleted before the result is committed, so that whenever the
//! process ends, they are there.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bstr::{BString, ByteSlice};

use crate::error::Error;
use crate::process::Call;
use crate::program::Cancel;
use crate::source::Source;

/// The directory in the git directory that the files are moved to.
const PLACE: &str = "skep-aside";

/// An uncommitted file that makes way.
pub(super) struct Brought {
    /// Relative to the top.
    pub(super) path: BString,
    /// What was there when it was compared.
    pub(super) seen: Seen,
    /// Whether `HEAD` has it.
    pub(super) in_head: bool,
    /// Whether it is staged.
    pub(super) staged: bool,
}

/// What was at a path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing.
    Gone,
    /// A file or a link.
    There {
        /// In bytes.
        size: u64,
        /// When it was written, in seconds and nanoseconds.
        modified: (i64, i64),
        /// Which one.
        inode: u64,
    },
}

impl Seen {
    /// A file or link; nothing for anything else.
    pub(super) fn file(meta: &Metadata) -> Option<Seen> {
        (meta.is_file() || meta.is_symlink()).then(|| Seen::There {
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            inode: meta.ino(),
        })
    }
}

/// The files that were moved. One of [`Aside::put_back`] and [`Aside::leave`] ends it.
#[must_use]
pub(super) struct Aside {
    place: PathBuf,
    files: Vec<Brought>,
    /// Whether something of `HEAD` may be in their place.
    reset: bool,
}

impl Source {
    /// Refuses when an earlier apply ended before it could put files back.
    pub(super) fn refuse_interrupted(&self) -> Result<(), Error> {
        let place = self.git_dir().join(PLACE);
        match fs::symlink_metadata(&place) {
            Ok(_) => Err(Error::Interrupted { place }),
            Err(_) => Ok(()),
        }
    }

    /// Moves the files aside, and leaves in their place what `HEAD` and the index of it have.
    ///
    /// # Errors
    /// [`Error::Uncommitted`] when one is no longer as it was seen. All of them are back then.
    pub(super) fn set_aside(&self, files: Vec<Brought>) -> Result<Aside, Error> {
        let mut aside = Aside {
            place: self.git_dir().join(PLACE),
            files: Vec::new(),
            reset: false,
        };
        if files.is_empty() {
            return Ok(aside);
        }
        fs::create_dir(&aside.place).map_err(|e| Error::io("creating", &aside.place, e))?;
        for file in files {
            let moved = aside.take(self, &file);
            aside.files.push(file);
            if let Err(error) = moved {
                aside.put_back(self);
                return Err(error);
            }
        }
        if let Err(error) = aside.reset(self) {
            aside.put_back(self);
            return Err(error);
        }
        Ok(aside)
    }

    /// Git on some paths, without hooks: nothing has happened yet that they should hear of.
    fn git_on<'a>(
        &self,
        doing: &'static str,
        args: &[&str],
        paths: impl Iterator<Item = &'a Brought>,
    ) -> Result<(), Error> {
        let mut input = Vec::new();
        for file in paths {
            input.extend_from_slice(&file.path);
            input.push(0);
        }
        if input.is_empty() {
            return Ok(());
        }
        let mut command = self.program().as_user(self.top())?;
        command
            .env("GIT_LITERAL_PATHSPECS", "1")
            .args([
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "core.fsmonitor=false",
            ])
            .args(args)
            .args(["--pathspec-from-file=-", "--pathspec-file-nul"]);
        self.execute_as_user(Call::new(doing, command).stdin(&input))?
            .success(doing)?;
        Ok(())
    }
}

impl Aside {
    /// Renames a file into our place.
    fn take(&self, source: &Source, file: &Brought) -> Result<(), Error> {
        let (from, to) = self.ends(source, file)?;
        let changed = || Error::Uncommitted {
            files: vec![file.path.clone()],
        };
        if file.seen == Seen::Gone {
            return match fs::symlink_metadata(&from) {
                Ok(_) => Err(changed()),
                Err(_) => Ok(()),
            };
        }
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(|e| Error::io("creating", parent, e))?;
        }
        fs::rename(&from, &to).map_err(|e| Error::io("moving", &from, e))?;
        let meta = fs::symlink_metadata(&to).map_err(|e| Error::io("reading", &to, e))?;
        if Seen::file(&meta) == Some(file.seen) {
            Ok(())
        } else {
            Err(changed())
        }
    }

    /// Leaves what `HEAD` has.
    fn reset(&mut self, source: &Source) -> Result<(), Error> {
        self.reset = true;
        let doing = "making way for the work";
        source.git_on(doing, &["reset", "--quiet", "HEAD"], self.files.iter())?;
        let tracked = self.files.iter().filter(|file| file.in_head);
        source.git_on(doing, &["checkout", "--quiet"], tracked)
    }

    /// Moves the files back over what `HEAD` has, and stages again what was staged. What cannot be moved stays in our
    /// place, and the next apply names it.
    pub(super) fn put_back(self, source: &Source) {
        if self.files.is_empty() {
            return;
        }
        // A cancelled apply must still be put back.
        let program = source.program().clone().with_cancel(Cancel::new());
        let outcome = Source::discover(source.top(), program).and_then(|source| {
            for file in &self.files {
                self.put(&source, file)?;
            }
            let staged = self.files.iter().filter(|file| file.staged);
            source.git_on("staging again", &["add", "--all", "--force"], staged)?;
            self.clear()
        });
        if let Err(error) = outcome {
            tracing::error!(%error, "uncommitted files are still in {}", self.place.display());
        }
    }

    fn put(&self, source: &Source, file: &Brought) -> Result<(), Error> {
        let (to, from) = self.ends(source, file)?;
        if file.seen == Seen::Gone {
            if !self.reset {
                return Ok(());
            }
            return match fs::remove_file(&to) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::io("removing", to, error))
                }
                _ => Ok(()),
            };
        }
        // It was never moved.
        if fs::symlink_metadata(&from).is_err() {
            return Ok(());
        }
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(|e| Error::io("creating", parent, e))?;
        }
        fs::rename(&from, &to).map_err(|e| Error::io("moving", from, e))
    }

    /// Deletes the files: the result that they went into is committed.
    pub(super) fn leave(self) {
        if self.files.is_empty() {
            return;
        }
        if let Err(error) = self.clear() {
            tracing::warn!(%error, "files that are not needed any more could not be deleted");
        }
    }

    fn clear(&self) -> Result<(), Error> {
        fs::remove_dir_all(&self.place).map_err(|e| Error::io("removing", &self.place, e))
    }

    /// The file in the working tree, and in our place.
    fn ends(&self, source: &Source, file: &Brought) -> Result<(PathBuf, PathBuf), Error> {
        let path: &Path = file.path.to_path().map_err(|_| Error::BadPath {
            path: file.path.clone(),
            why: "it is not a path of this system",
        })?;
        Ok((source.top().join(path), self.place.join(path)))
    }
}
