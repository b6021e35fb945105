//! Files as they are reached from a directory that is held: one name at a time, no link followed.

use crate::sys::{self, Errno, O_CLOEXEC, Result, Text, nr};

pub const ENXIO: Errno = Errno(6);
pub const ENOTDIR: Errno = Errno(20);
pub const EISDIR: Errno = Errno(21);
pub const ENAMETOOLONG: Errno = Errno(36);
pub const ELOOP: Errno = Errno(40);
pub const ESTALE: Errno = Errno(116);

pub const O_NONBLOCK: usize = 0o4000;

pub const KIND: u16 = 0o170000;
pub const PIPE: u16 = 0o010000;
pub const CHARACTER_DEVICE: u16 = 0o020000;
pub const DIRECTORY: u16 = 0o040000;
pub const FILE: u16 = 0o100000;
pub const LINK: u16 = 0o120000;
pub const SOCKET: u16 = 0o140000;

/// What the kernel says of an entry.
#[derive(Clone, Copy)]
pub struct Entry {
    pub mode: u16,
    pub number: u64,
    pub size: u64,
    pub modified: Time,
    pub changed: Time,
    /// All zero where the file system does not keep it.
    pub born: Time,
}

/// Seconds and nanoseconds since 1970.
pub type Time = (i64, u32);

impl Entry {
    pub fn kind(&self) -> u16 {
        self.mode & KIND
    }
}

/// Of the entry with this name, whatever it is; with no name, of the directory itself.
pub fn look(directory: i32, name: Text<'_>) -> Result<Entry> {
    /// Kind, permissions, times of change, inode, size, and when it was made.
    const WANTED: usize = 1 | 2 | 0x40 | 0x80 | 0x100 | 0x200 | 0x800;
    #[repr(C)]
    struct Moment {
        seconds: i64,
        nanoseconds: u32,
        _spare: i32,
    }
    /// `struct statx` has 256 bytes: `stx_mode` is at 28, `stx_ino` at 32, `stx_size` at 40, the times
    /// begin at 64 in this order.
    #[repr(C)]
    struct Statx {
        _before: [u8; 28],
        mode: u16,
        _spare: u16,
        number: u64,
        size: u64,
        _between: [u8; 16],
        _read: Moment,
        born: Moment,
        changed: Moment,
        modified: Moment,
        _after: [u8; 128],
    }
    const { assert!(size_of::<Statx>() == 256) };
    // SAFETY: a structure of numbers may be all zero.
    let mut found: Statx = unsafe { core::mem::zeroed() };
    let flags = sys::AT_SYMLINK_NOFOLLOW | sys::AT_EMPTY_PATH;
    let arguments = [
        directory as usize,
        name.pointer(),
        flags,
        WANTED,
        &raw mut found as usize,
    ];
    // SAFETY: the buffer has the layout of `struct statx`, and the name ends with a zero byte.
    unsafe { sys::call(nr::STATX, arguments) }?;
    Ok(Entry {
        mode: found.mode,
        number: found.number,
        size: found.size,
        modified: (found.modified.seconds, found.modified.nanoseconds),
        changed: (found.changed.seconds, found.changed.nanoseconds),
        born: (found.born.seconds, found.born.nanoseconds),
    })
}

/// Opens an entry; `flags` say whether a link is followed.
pub fn open(directory: i32, name: Text<'_>, flags: usize, mode: usize) -> Result<i32> {
    let arguments = [directory as usize, name.pointer(), flags | O_CLOEXEC, mode];
    loop {
        // SAFETY: the name ends with a zero byte.
        match unsafe { sys::call(nr::OPENAT, arguments) } {
            Err(sys::EINTR) => {}
            other => return other.map(|fd| fd as i32),
        }
    }
}

/// Opens a directory in a directory, and nothing else.
pub fn open_directory(directory: i32, name: Text<'_>) -> Result<i32> {
    let flags = sys::O_RDONLY | sys::O_DIRECTORY | sys::O_NOFOLLOW;
    open(directory, name, flags, 0)
}

pub fn make_directory(directory: i32, name: Text<'_>) -> Result<()> {
    let arguments = [directory as usize, name.pointer(), 0o755];
    // SAFETY: the name ends with a zero byte.
    unsafe { sys::call(nr::MKDIRAT, arguments) }.map(drop)
}

pub fn make_link(target: Text<'_>, directory: i32, name: Text<'_>) -> Result<()> {
    let arguments = [target.pointer(), directory as usize, name.pointer()];
    // SAFETY: both texts end with a zero byte.
    unsafe { sys::call(nr::SYMLINKAT, arguments) }.map(drop)
}

/// Where a link points, with a zero byte behind it; `buffer` must have room for both.
pub fn read_link<'a>(directory: i32, name: Text<'_>, buffer: &'a mut [u8]) -> Result<Text<'a>> {
    let room = buffer.len().saturating_sub(1);
    let arguments = [
        directory as usize,
        name.pointer(),
        buffer.as_mut_ptr() as usize,
        room,
    ];
    // SAFETY: the kernel writes at most the buffer's length, and the name ends with a zero byte.
    let length = unsafe { sys::call(nr::READLINKAT, arguments) }?;
    if length >= room {
        return Err(ENAMETOOLONG);
    }
    if let Some(end) = buffer.get_mut(length) {
        *end = 0;
    }
    Ok(Text::new(buffer.get(..=length).unwrap_or(b"\0")))
}

/// Sets the permissions of an entry; of what a link leads to, if it is one.
pub fn permit(directory: i32, name: Text<'_>, mode: usize) -> Result<()> {
    let arguments = [directory as usize, name.pointer(), mode];
    // SAFETY: the name ends with a zero byte.
    unsafe { sys::call(nr::FCHMODAT, arguments) }.map(drop)
}

/// Removes an entry that is no directory.
pub fn remove(directory: i32, name: Text<'_>) -> Result<()> {
    let arguments = [directory as usize, name.pointer(), 0];
    // SAFETY: the name ends with a zero byte.
    unsafe { sys::call(nr::UNLINKAT, arguments) }.map(drop)
}
