//! A held directory, and the only ways to reach what is in it: one name at a time, no link followed,
//! no file system left.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, StatxFlags};
use rustix::io::{Errno, Result};

/// What names one inode: device and number.
pub(crate) type Id = (u64, u64);

/// What `fstat` says, in types that do not depend on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) id: Id,
    pub(crate) mode: u32,
    pub(crate) links: u64,
    pub(crate) device: u64,
    pub(crate) size: u64,
    /// On disk, in bytes.
    pub(crate) allocated: u64,
    pub(crate) mtime: (i64, u32),
    pub(crate) ctime: (i64, u32),
}

impl Meta {
    /// The widths of these fields differ between machines.
    #[allow(clippy::unnecessary_cast)]
    fn of(stat: &fs::Stat) -> Meta {
        Meta {
            id: (stat.st_dev as u64, stat.st_ino as u64),
            mode: stat.st_mode as u32,
            links: stat.st_nlink as u64,
            device: stat.st_rdev as u64,
            size: stat.st_size as u64,
            allocated: (stat.st_blocks as u64).saturating_mul(512),
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
        }
    }

    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// The permission bits.
    pub(crate) fn permissions(&self) -> Mode {
        Mode::from_raw_mode(self.mode & 0o7777)
    }
}

/// What a caller is going to do in a directory, so that its owner can be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// List it and open what is in it.
    Read,
    /// Also change its entries.
    Write,
}

impl Access {
    fn needed(self) -> Mode {
        match self {
            Access::Read => Mode::RUSR | Mode::XUSR,
            Access::Write => Mode::RWXU,
        }
    }
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    meta: Meta,
    /// The permissions to give back, where they had to be widened to read.
    closed: Option<Mode>,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if let Some(mode) = self.closed.take()
            && let Err(errno) = fs::fchmod(&self.fd, mode)
        {
            tracing::debug!(%errno, "the permissions of a directory could not be given back");
        }
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);
/// `NONBLOCK` and `NOCTTY`: should a pipe or a terminal have taken the name, opening it does nothing.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);
const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens one name in `at`. Where `openat2` is filtered away (old container engines), the name is still
/// a single component and never followed, and the caller compares devices.
fn open_in(at: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    match fs::openat2(at, name, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => fs::openat(at, name, flags, Mode::empty()),
        opened => opened,
    }
}

/// Changes the permissions of what a path-only handle holds, which `fchmod` refuses to do.
fn chmod_handle(handle: &OwnedFd, mode: Mode) -> Result<()> {
    fs::chmodat(CWD, held(handle), mode, AtFlags::empty())
}

/// The name under which the kernel shows a descriptor of this process.
fn held(handle: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", handle.as_raw_fd())
}

impl Dir {
    /// Opens a directory of the store itself by its path; the last name is not followed.
    pub(crate) fn open(path: &Path) -> Result<Dir> {
        let fd = fs::openat(CWD, path, DIRECTORY, Mode::empty())?;
        let meta = Meta::of(&fs::fstat(&fd)?);
        Ok(Dir {
            fd,
            meta,
            closed: None,
        })
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Opens a directory in this one. Where its owner shut itself out (mode 000), the permissions are
    /// widened through the held descriptor; dropping the directory gives them back.
    ///
    /// # Errors
    /// `NOTDIR` or `LOOP` if the name is something else, `XDEV` if it is another file system.
    pub(crate) fn subdir(&self, name: &CStr, access: Access) -> Result<Dir> {
        let (fd, mut closed) = match open_in(self.as_fd(), name, DIRECTORY) {
            Ok(fd) => (fd, None),
            Err(Errno::ACCESS) => {
                let handle = open_in(self.as_fd(), name, HANDLE)?;
                let meta = Meta::of(&fs::fstat(&handle)?);
                if meta.kind() != FileType::Directory {
                    return Err(Errno::NOTDIR);
                }
                chmod_handle(&handle, meta.permissions() | access.needed())?;
                let fd = fs::openat(&handle, c".", DIRECTORY, Mode::empty())?;
                (fd, Some(meta.permissions()))
            }
            Err(errno) => return Err(errno),
        };
        let meta = Meta::of(&fs::fstat(&fd)?);
        if meta.id.0 != self.meta.id.0 {
            return Err(Errno::XDEV);
        }
        if closed.is_none() && !meta.permissions().contains(access.needed()) {
            // Root needs no permission, and may lack the right to change another user's: what follows
            // tells whether this mattered.
            if fs::fchmod(&fd, meta.permissions() | access.needed()).is_ok() {
                closed = Some(meta.permissions());
            }
        }
        Ok(Dir { fd, meta, closed })
    }

    /// The permissions that its owner gave it.
    pub(crate) fn permissions(&self) -> Mode {
        self.closed.unwrap_or(self.meta.permissions())
    }

    /// The permissions that dropping this would give back, and from now on will not.
    pub(crate) fn keep_open(&mut self) -> Option<Mode> {
        self.closed.take()
    }

    /// Opens the directory above. The caller says which one it must be, because a moved directory has
    /// another one above it; `LOOP` if it is not that one.
    pub(crate) fn parent(&self, expected: &Meta, closed: Option<Mode>) -> Result<Dir> {
        let fd = fs::openat(&self.fd, c"..", DIRECTORY, Mode::empty())?;
        let meta = Meta::of(&fs::fstat(&fd)?);
        if meta.id != expected.id {
            return Err(Errno::LOOP);
        }
        Ok(Dir {
            fd,
            meta: *expected,
            closed,
        })
    }

    /// Looks at a name without opening it.
    pub(crate) fn look(&self, name: &CStr) -> Result<Meta> {
        Ok(Meta::of(&fs::statat(
            &self.fd,
            name,
            AtFlags::SYMLINK_NOFOLLOW,
        )?))
    }

    /// Opens a regular file for reading and says what it is. Where its owner may not read it, it may
    /// until the third value is dropped: reading its attributes needs that too.
    ///
    /// # Errors
    /// `INVAL` if the name is not a regular file any more.
    pub(crate) fn file(&self, name: &CStr) -> Result<(File, Meta, Widened)> {
        let (fd, widened) = match open_in(self.as_fd(), name, FILE) {
            Ok(fd) => (fd, Widened(None)),
            Err(Errno::ACCESS) => {
                let handle = open_in(self.as_fd(), name, HANDLE)?;
                let meta = Meta::of(&fs::fstat(&handle)?);
                if meta.kind() != FileType::RegularFile {
                    return Err(Errno::INVAL);
                }
                chmod_handle(&handle, meta.permissions() | Mode::RUSR)?;
                let path = held(&handle);
                let widened = Widened(Some((handle, meta.mode)));
                (
                    fs::openat(CWD, path, FILE.difference(OFlags::NOFOLLOW), Mode::empty())?,
                    widened,
                )
            }
            Err(errno) => return Err(errno),
        };
        let meta = Meta::of(&fs::fstat(&fd)?);
        if meta.kind() != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        if meta.id.0 != self.meta.id.0 {
            return Err(Errno::XDEV);
        }
        let mode = widened.0.as_ref().map_or(meta.mode, |(_, before)| *before);
        Ok((File::from(fd), Meta { mode, ..meta }, widened))
    }

    /// When what has this name was made, where the file system keeps it. No owner can set it, and an
    /// inode that is used again has another.
    pub(crate) fn birth(&self, name: &CStr) -> Option<(i64, u32)> {
        let stat = fs::statx(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME).ok()?;
        let known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        known.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
    }

    /// Where a symbolic link points, as data.
    pub(crate) fn link(&self, name: &CStr) -> Result<Vec<u8>> {
        Ok(fs::readlinkat(&self.fd, name, Vec::new())?.into_bytes())
    }

    /// Visits the names in this directory from its start, except `.` and `..`, in the order of the
    /// file system, until `visit` says stop.
    pub(crate) fn list<E: From<Errno>>(
        &self,
        mut visit: impl FnMut(&CStr, FileType) -> std::result::Result<Listing, E>,
    ) -> std::result::Result<(), E> {
        fs::seek(&self.fd, fs::SeekFrom::Start(0))?;
        let mut buffer: Vec<u8> = Vec::with_capacity(32 * 1024);
        let mut entries = RawDir::new(&self.fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if visit(name, entry.file_type())? == Listing::Stop {
                break;
            }
        }
        Ok(())
    }
}

/// A file whose permissions were widened to read it, and what to give back.
#[derive(Debug)]
pub(crate) struct Widened(Option<(OwnedFd, u32)>);

impl Drop for Widened {
    fn drop(&mut self) {
        if let Some((handle, mode)) = &self.0
            && let Err(errno) = chmod_handle(handle, Mode::from_raw_mode(mode & 0o7777))
        {
            tracing::debug!(%errno, "the permissions of a file could not be given back");
        }
    }
}

/// Whether to go on with a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listing {
    Continue,
    Stop,
}

/// The value of an extended attribute if it is there and is at most 16 bytes long; longer values are
/// returned as empty.
pub(crate) fn attribute(fd: impl AsFd, name: &CStr) -> Result<Option<Vec<u8>>> {
    let mut value = [0_u8; 16];
    match fs::fgetxattr(fd, name, &mut value) {
        Ok(length) => Ok(Some(value.get(..length).unwrap_or_default().to_vec())),
        Err(Errno::RANGE) => Ok(Some(Vec::new())),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(errno) => Err(errno),
    }
}
