//! A way down a tree of directories with a bounded number of descriptors.

use bstr::BString;
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::dir::{Dir, Meta};

/// Directories whose descriptors are held at once; the usual limit of a process is 1,024.
const HELD: usize = 48;

/// The directories from the root of a walk to where it stands, with what the walk keeps for each.
///
/// In a deep tree the descriptors nearest the root are closed on the way down and reopened as `..`
/// on the way up, where the inode must be the one that was left: a directory that was moved in
/// between ends the walk instead of leading it elsewhere.
#[derive(Debug)]
pub(crate) struct Descent<T> {
    levels: Vec<Level<T>>,
    /// How many levels, counted from the root, have no descriptor now.
    released: usize,
}

#[derive(Debug)]
struct Level<T> {
    dir: Option<Dir>,
    meta: Meta,
    closed: Option<Mode>,
    state: T,
}

impl<T> Descent<T> {
    pub(crate) fn new(root: Dir, state: T) -> Self {
        let mut descent = Descent {
            levels: Vec::new(),
            released: 0,
        };
        descent.push(root, state);
        descent
    }

    pub(crate) fn push(&mut self, dir: Dir, state: T) {
        let meta = *dir.meta();
        self.levels.push(Level {
            dir: Some(dir),
            meta,
            closed: None,
            state,
        });
        if self.levels.len().saturating_sub(self.released) > HELD {
            if let Some(level) = self.levels.get_mut(self.released) {
                level.closed = level.dir.as_mut().and_then(Dir::keep_open);
                level.dir = None;
            }
            self.released += 1;
        }
    }

    /// The deepest directory and its state; `None` when the walk is over.
    pub(crate) fn top(&mut self) -> Option<(&Dir, &mut T)> {
        let level = self.levels.last_mut()?;
        Some((level.dir.as_ref()?, &mut level.state))
    }

    /// How many directories lie above the deepest one.
    pub(crate) fn depth(&self) -> usize {
        self.levels.len().saturating_sub(1)
    }

    /// Leaves the deepest directory.
    ///
    /// # Errors
    /// `LOOP` if the directory above is not the one that the walk came through.
    pub(crate) fn pop(&mut self) -> Result<Option<T>, Errno> {
        let Some(left) = self.levels.pop() else {
            return Ok(None);
        };
        if let (Some(above), Some(dir)) = (self.levels.last_mut(), left.dir.as_ref())
            && above.dir.is_none()
        {
            above.dir = Some(dir.parent(&above.meta, above.closed.take())?);
            self.released = self.levels.len().saturating_sub(1);
        }
        Ok(Some(left.state))
    }
}

/// A path that grows and shrinks with a walk.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    path: BString,
    lengths: Vec<usize>,
}

impl Trail {
    pub(crate) fn push(&mut self, name: &[u8]) {
        self.lengths.push(self.path.len());
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }

    pub(crate) fn pop(&mut self) {
        if let Some(length) = self.lengths.pop() {
            self.path.truncate(length);
        }
    }

    /// The path of `name` in the directory where the walk stands.
    pub(crate) fn join(&self, name: &[u8]) -> BString {
        let mut path = BString::from(Vec::with_capacity(self.path.len() + 1 + name.len()));
        path.extend_from_slice(&self.path);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    pub(crate) fn here(&self) -> &BString {
        &self.path
    }
}
