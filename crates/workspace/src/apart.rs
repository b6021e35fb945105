//! Where on the disk new directories go.
//!
//! ext4 keeps a directory and what is in it within one part of the disk, a group of some thousand
//! inodes. Workspaces come and go: all of them in one group leave it full of inodes that were in use a
//! moment ago, and an ext4 without a journal passes over each of those, one by one, for some
//! minutes (`recently_deleted` in the kernel's `fs/ext4/ialloc.c`). After a thousand lives that was three
//! fifths of what a new one took.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::{self, IFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::Error;
use crate::error::std_io;

/// Makes a directory for its owner only, unless it is there, each of whose directories shall go to a part
/// of the disk of its own.
///
/// # Errors
/// [`Error::Io`] where it cannot be made. That the file system knows no parts is none.
pub fn make_apart(dir: &Path) -> Result<(), Error> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).map_err(std_io("make", dir))?;
    apart(dir);
    Ok(())
}

/// Asks that each directory made in `dir` goes to a group of its own (`chattr +T`). It is a wish: other
/// file systems do not know it and need none.
pub(crate) fn apart(dir: &Path) {
    if let Err(errno) = ask(dir) {
        tracing::debug!(dir = %dir.display(), %errno, "new directories lie where the file system likes");
    }
}

fn ask(dir: &Path) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = fs::open(dir, flags, Mode::empty())?;
    let known = fs::ioctl_getflags(&dir)?;
    if known.contains(IFlags::TOPDIR) {
        return Ok(());
    }
    fs::ioctl_setflags(&dir, known | IFlags::TOPDIR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Layering, Store};

    fn asked(dir: &Path) -> Result<bool, Errno> {
        let dir = fs::open(dir, OFlags::RDONLY, Mode::empty())?;
        Ok(fs::ioctl_getflags(&dir)?.contains(IFlags::TOPDIR))
    }

    #[test]
    fn workspaces_are_made_in_parts_of_the_disk_of_their_own_where_the_file_system_can() {
        let place = tempfile::tempdir().unwrap();
        // What this file system says to the wish itself.
        let can = ask(place.path()).is_ok() && asked(place.path()).unwrap();
        let store = Store::open(&place.path().join("data"), Layering::Overlay).unwrap();
        for dir in [store.new_workspaces(), store.new_bases()] {
            assert_eq!(asked(&dir).unwrap_or(false), can, "{}", dir.display());
        }
        let others = place.path().join("others/of/many");
        make_apart(&others).unwrap();
        assert_eq!(asked(&others).unwrap_or(false), can);
        // What is in one workspace stays together.
        let own = store.workspace_dir("one");
        fs::mkdir(&own, Mode::RWXU).unwrap();
        assert!(!asked(&own).unwrap_or(false));
    }

    #[test]
    fn a_place_that_cannot_be_asked_is_used_all_the_same() {
        apart(Path::new("/proc/self"));
        apart(Path::new("/nonexistent"));
    }
}
