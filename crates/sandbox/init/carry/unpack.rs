//! Unpacking: an archive into what is at a path. Each entry is reached from there by directories alone,
//! whatever links lie on the way.

use super::route::Route;
use super::{Failed, IN_THE_WAY, INPUT, LONGEST, Outcome, at, read_whole, terminated};
use crate::files::{self, ENAMETOOLONG, ENOTDIR};
use crate::sys::{self, EEXIST, EINVAL, ENOENT, Result, Text};
use crate::tar::{self, BLOCK, Header};
use crate::wire::*;

/// What is read at once.
const BUFFER: usize = 128 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// As `cp -r` does: into the directory at the path, or else under that name.
    Named,
    /// Into the directory at the path, which is made where there is none.
    Inside,
}

pub fn run(path: Text<'_>, here: &mut Route, place: Place) -> Outcome {
    let (root, name) = open(path, place)?;
    let memory = sys::map(None, BUFFER, false).map_err(at(CARRY_READ))?;
    // SAFETY: the mapping has room for so many bytes, and stays until this process ends.
    let buffer = unsafe { core::slice::from_raw_parts_mut(memory, BUFFER) };
    let mut unpacker = Unpacker {
        root,
        name,
        buffer,
        long_name: Long::new(),
        long_target: Long::new(),
    };
    while unpacker.next(here)? {}
    Ok(())
}

/// The directory to unpack into, and the name that what comes is given, if it is given one.
fn open(path: Text<'_>, place: Place) -> core::result::Result<(i32, Option<Route>), Failed> {
    let here = sys::AT_FDCWD as i32;
    let flags = sys::O_RDONLY | sys::O_DIRECTORY;
    match (files::open(here, path, flags, 0), place) {
        (Ok(directory), _) => Ok((directory, None)),
        (Err(ENOENT), Place::Inside) => {
            files::make_directory(here, path).map_err(at(CARRY_MAKE))?;
            let made = files::open(here, path, flags, 0).map_err(at(CARRY_OPEN))?;
            Ok((made, None))
        }
        (Err(ENOENT | ENOTDIR), Place::Named) => {
            let whole = path.bytes();
            let cut = whole.iter().rposition(|byte| *byte == b'/');
            let name = whole.get(cut.map_or(0, |at| at + 1)..).unwrap_or(&[]);
            if matches!(name, b"" | b"." | b"..") {
                return Err(at(CARRY_OPEN)(ENOTDIR));
            }
            let mut above = [0u8; LONGEST];
            let parent: &[u8] = match cut {
                None => b".",
                Some(0) => b"/",
                Some(at) => whole.get(..at).unwrap_or(&[]),
            };
            if parent.len() >= LONGEST {
                return Err(at(CARRY_OPEN)(ENAMETOOLONG));
            }
            for (to, from) in above.iter_mut().zip(parent) {
                *to = *from;
            }
            let parent = terminated(&above).map_err(at(CARRY_OPEN))?;
            let directory = files::open(here, parent, flags, 0).map_err(at(CARRY_OPEN))?;
            let mut route = Route::new();
            route.enter(name).map_err(at(CARRY_OPEN))?;
            Ok((directory, Some(route)))
        }
        (Err(error), _) => Err(at(CARRY_OPEN)(error)),
    }
}

/// A text that comes before the entry that it is about.
struct Long {
    text: [u8; LONGEST],
    given: bool,
}

impl Long {
    fn new() -> Self {
        Self {
            text: [0; LONGEST],
            given: false,
        }
    }

    fn read(&mut self, size: u64) -> Result<()> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        self.text = [0; LONGEST];
        let text = self.text.get_mut(..size).filter(|_| size < LONGEST);
        if !read_whole(text.ok_or(ENAMETOOLONG)?)? && size > 0 {
            return Err(EINVAL);
        }
        self.given = true;
        skip(tar::filling(size as u64))
    }
}

fn skip(bytes: usize) -> Result<()> {
    let mut filling = [0u8; BLOCK];
    let room = filling.get_mut(..bytes).ok_or(EINVAL)?;
    match bytes == 0 || read_whole(room)? {
        true => Ok(()),
        false => Err(EINVAL),
    }
}

struct Unpacker {
    root: i32,
    /// What the first name of each path gives way to.
    name: Option<Route>,
    buffer: &'static mut [u8],
    long_name: Long,
    long_target: Long,
}

impl Unpacker {
    /// Takes one entry; false at the archive's end.
    fn next(&mut self, here: &mut Route) -> core::result::Result<bool, Failed> {
        let mut block = [0u8; BLOCK];
        let receiving = at(CARRY_RECEIVE);
        if !read_whole(&mut block).map_err(&receiving)? {
            return Err(receiving(EINVAL));
        }
        let header = Header::read(&block).map_err(|_| receiving(EINVAL))?;
        let Some(header) = header else {
            return Ok(false);
        };
        match header.kind {
            tar::LONG_NAME => {
                self.long_name.read(header.size).map_err(receiving)?;
                return Ok(true);
            }
            tar::LONG_TARGET => {
                self.long_target.read(header.size).map_err(receiving)?;
                return Ok(true);
            }
            _ => {}
        }
        let mut path = [0u8; LONGEST];
        let mut target = [0u8; LONGEST];
        take(&mut self.long_name, header.name, &mut path);
        take(&mut self.long_target, header.target, &mut target);
        let path = terminated(&path).map_err(&receiving)?;
        let target = terminated(&target).map_err(&receiving)?;
        self.entry(&header, path, target, here)?;
        Ok(true)
    }

    fn entry(
        &mut self,
        header: &Header<'_>,
        path: Text<'_>,
        target: Text<'_>,
        here: &mut Route,
    ) -> Outcome {
        let trimmed = match path.bytes() {
            [rest @ .., b'/'] => rest,
            whole => whole,
        };
        here.say(trimmed);
        if trimmed == b"." && header.kind == tar::DIRECTORY {
            return Ok(());
        }
        let mut directory = self.root;
        let mut parts = trimmed.split(|byte| *byte == b'/').enumerate().peekable();
        let mut done = Ok(());
        while let Some((index, part)) = parts.next() {
            let part = match &self.name {
                Some(name) if index == 0 => name.bytes(),
                _ => part,
            };
            let mut name = [0u8; 256];
            if matches!(part, b"" | b"." | b"..") || part.len() >= name.len() {
                done = Err(at(CARRY_MAKE)(EINVAL));
                break;
            }
            for (to, from) in name.iter_mut().zip(part) {
                *to = *from;
            }
            let name = terminated(&name).map_err(at(CARRY_MAKE))?;
            if parts.peek().is_none() {
                done = self.leaf(header, directory, name, target);
                break;
            }
            let below = enter(directory, name);
            if directory != self.root {
                sys::close(directory);
                directory = self.root;
            }
            match below {
                Ok(below) => directory = below,
                Err(error) => {
                    done = Err(at(CARRY_MAKE)(error));
                    break;
                }
            }
        }
        if directory != self.root {
            sys::close(directory);
        }
        done
    }

    fn leaf(
        &mut self,
        header: &Header<'_>,
        directory: i32,
        name: Text<'_>,
        target: Text<'_>,
    ) -> Outcome {
        match header.kind {
            tar::DIRECTORY => {
                let made = enter(directory, name).map_err(at(CARRY_MAKE))?;
                sys::close(made);
                Ok(())
            }
            tar::FILE => {
                give_way(directory, name).map_err(at(CARRY_REPLACE))?;
                let executable = header.mode & 0o100 != 0;
                let mode = if executable { 0o755 } else { 0o644 };
                let flags = sys::O_WRONLY | sys::O_CREAT | sys::O_EXCL | sys::O_NOFOLLOW;
                let file = files::open(directory, name, flags, mode).map_err(at(CARRY_MAKE))?;
                let written = self.content(file, header.size);
                sys::close(file);
                written
            }
            tar::LINK => {
                give_way(directory, name).map_err(at(CARRY_REPLACE))?;
                files::make_link(target, directory, name).map_err(at(CARRY_MAKE))
            }
            _ => Err(at(CARRY_MAKE)(EINVAL)),
        }
    }

    fn content(&mut self, file: i32, size: u64) -> Outcome {
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let most = most.min(self.buffer.len());
            let room = self.buffer.get_mut(..most).unwrap_or(&mut []);
            let count = sys::read(INPUT, room).map_err(at(CARRY_RECEIVE))?;
            if count == 0 {
                return Err(at(CARRY_RECEIVE)(EINVAL));
            }
            let bytes = room.get(..count).unwrap_or(&[]);
            sys::write_all(file, bytes).map_err(at(CARRY_WRITE))?;
            left -= count as u64;
        }
        skip(tar::filling(size)).map_err(at(CARRY_RECEIVE))
    }
}

/// The long text if one came, else the header's.
fn take(long: &mut Long, short: &[u8], to: &mut [u8; LONGEST]) {
    if core::mem::take(&mut long.given) {
        *to = long.text;
        return;
    }
    for (to, from) in to.iter_mut().zip(short) {
        *to = *from;
    }
}

/// Opens a directory, making it where there is none.
fn enter(above: i32, name: Text<'_>) -> Result<i32> {
    match files::open_directory(above, name) {
        Err(ENOENT) => {}
        other => return other,
    }
    match files::make_directory(above, name) {
        Ok(()) | Err(EEXIST) => files::open_directory(above, name),
        Err(error) => Err(error),
    }
}

/// Removes what has this name, so that nothing is written through it. A directory stays.
fn give_way(directory: i32, name: Text<'_>) -> Result<()> {
    match files::look(directory, name) {
        Err(ENOENT) => Ok(()),
        Err(error) => Err(error),
        Ok(entry) if entry.kind() == files::DIRECTORY => Err(IN_THE_WAY),
        Ok(_) => files::remove(directory, name),
    }
}
