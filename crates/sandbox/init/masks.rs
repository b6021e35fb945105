//! What hides a path: an empty file or an empty directory in its place, mounted read-only.

use crate::plan::Paths;
use crate::steps::{MASK_ATTRIBUTES, attach, open_tree_at, place};
use crate::sys::{self, ENOENT, Result, Text};
use crate::text;

/// What masks are made of, held by descriptors: something may be mounted over where they are.
pub struct Masks {
    file: i32,
    directory: i32,
}

impl Masks {
    pub fn of(file: Text<'_>, directory: Text<'_>) -> Result<Self> {
        let kept = |path| sys::open(path, sys::O_PATH, 0);
        Ok(Self {
            file: kept(file)?,
            directory: kept(directory)?,
        })
    }

    pub fn end(self) {
        sys::close(self.file);
        sys::close(self.directory);
    }

    /// Hides what is at `path`, if anything is.
    pub fn mask(&self, path: Text<'_>) -> Result<()> {
        let fd = match sys::open(path, sys::O_PATH, 0) {
            Ok(fd) => fd,
            Err(ENOENT) => return Ok(()),
            Err(error) => return Err(error),
        };
        let directory = sys::is_directory(fd);
        sys::close(fd);
        let held = match directory? {
            true => self.directory,
            false => self.file,
        };
        place(one(held)?, path)
    }

    /// Hides what is there of a list of paths. Most are files or missing, and what each is shows when
    /// the mount is attached: a look before would cost three calls for each.
    pub fn hide(&self, paths: Paths<'_>) -> Result<()> {
        let mut unused = None;
        let mut hidden = Ok(());
        for path in paths {
            let tree = match unused.take() {
                Some(tree) => tree,
                None => one(self.file)?,
            };
            match attach(tree, path) {
                Ok(()) => {
                    sys::close(tree);
                    continue;
                }
                Err(ENOENT) => {}
                // It is a directory.
                Err(_) => hidden = self.mask(path),
            }
            unused = Some(tree);
            if hidden.is_err() {
                break;
            }
        }
        unused.into_iter().for_each(sys::close);
        hidden
    }
}

/// A mask, to be attached, of what is held for it.
fn one(held: i32) -> Result<i32> {
    let (held, how) = (held as usize, sys::AT_EMPTY_PATH);
    open_tree_at(held, text!(""), how, MASK_ATTRIBUTES)
}
