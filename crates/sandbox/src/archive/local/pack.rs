//! Packing files of this machine.

use std::fs::{File, Metadata};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{LeftOut, name_of};
use crate::archive::{Entry, Error, Other, What, Writer};

/// Packs what is at `path`, under its own name; of a directory that is named as such, with `.` at the
/// end, only what is in it. No link is followed but the last name of a path that ends with a slash.
///
/// # Errors
/// What cannot be read; [`Error::Ended`] where nobody takes it any more.
pub fn pack<W: Write>(path: &Path, to: &mut Writer<W>) -> Result<LeftOut, Error> {
    let mut left_out = LeftOut::default();
    let top = name_of(path).map(PathBuf::from).unwrap_or_default();
    // What is still to be packed, the next one last.
    let mut rest = vec![(path.to_owned(), top)];
    while let Some((path, named)) = rest.pop() {
        let found = std::fs::symlink_metadata(&path).map_err(Error::local("look at", &path))?;
        let what = match kind(&path, &found)? {
            Kind::Carried(what) => what,
            Kind::LeftOut(other) => {
                left_out.add(&path, other);
                continue;
            }
        };
        if what == What::Directory {
            let mut below = below(&path, &named)?;
            below.sort_unstable_by(|a, b| b.cmp(a));
            rest.append(&mut below);
        }
        if let What::File { .. } = what {
            file(&path, named, to)?;
        } else {
            let entry = Entry { path: named, what };
            to.entry(&entry, &mut std::io::empty())?;
        }
    }
    Ok(left_out)
}

enum Kind {
    Carried(What),
    LeftOut(Other),
}

fn kind(path: &Path, found: &Metadata) -> Result<Kind, Error> {
    let kind = found.file_type();
    Ok(if kind.is_dir() {
        Kind::Carried(What::Directory)
    } else if kind.is_file() {
        Kind::Carried(What::File {
            executable: found.mode() & 0o100 != 0,
            len: found.len(),
        })
    } else if kind.is_symlink() {
        let target = std::fs::read_link(path).map_err(Error::local("read the link", path))?;
        Kind::Carried(What::Link { target })
    } else if kind.is_fifo() {
        Kind::LeftOut(Other::Pipe)
    } else if kind.is_socket() {
        Kind::LeftOut(Other::Socket)
    } else {
        Kind::LeftOut(Other::Device)
    })
}

fn below(path: &Path, named: &Path) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
    let listed = std::fs::read_dir(path).map_err(Error::local("list", path))?;
    listed
        .map(|entry| {
            let entry = entry.map_err(Error::local("list", path))?;
            Ok((entry.path(), named.join(entry.file_name())))
        })
        .collect()
}

/// It may have become something else that would hold up whoever opens it.
fn file<W: Write>(path: &Path, named: PathBuf, to: &mut Writer<W>) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let mut file = File::from(opened.map_err(|error| Error::local("open", path)(error.into()))?);
    let found = file.metadata().map_err(Error::local("look at", path))?;
    if !found.is_file() {
        let source = std::io::Error::other("it became something else");
        return Err(Error::local("read", path)(source));
    }
    let what = What::File {
        executable: found.mode() & 0o100 != 0,
        len: found.len(),
    };
    to.entry(&Entry { path: named, what }, &mut file)
}
