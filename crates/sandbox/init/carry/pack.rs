//! Packing: what is at a path, as an archive. Nothing is opened but directories and files, and what
//! became something else meanwhile ends the work.

use super::route::Route;
use super::{DEEPEST, Failed, INPUT, LONGEST, OUTPUT, Outcome, at, terminated};
use crate::files::{self, ELOOP, ENXIO, ESTALE, Entry, O_NONBLOCK};
use crate::sys::{self, Errno, Result, Text};
use crate::tar::{self, BLOCK, Header};
use crate::text;
use crate::tree;
use crate::wire::*;

/// What is read, and written, at once.
const BUFFER: usize = 128 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum With {
    Contents,
    /// Instead of contents, what tells whether a file is still the one that it was.
    Identities,
}

/// Packs all that is at `path`; `name` is what that is called in the archive, and nothing if only what
/// is in it counts.
pub fn whole(path: Text<'_>, name: Text<'_>, here: &mut Route, with: With) -> Outcome {
    let mut packer = Packer::new(with, with == With::Identities)?;
    let inside = name.bytes().is_empty();
    let flags = sys::O_RDONLY | sys::O_DIRECTORY;
    if inside {
        let directory =
            files::open(sys::AT_FDCWD as i32, path, flags, 0).map_err(at(CARRY_OPEN))?;
        packer.within(directory, here, &mut Route::new(), 0)?;
        sys::close(directory);
    } else {
        let mut named = Route::new();
        named.enter(name.bytes()).map_err(at(CARRY_READ))?;
        packer.entry(sys::AT_FDCWD as i32, path, here, &mut named, 0)?;
    }
    packer.end()
}

/// Packs what the input names below the directory at `path`, each by itself: a list of paths with a zero
/// byte behind each.
pub fn picked(path: Text<'_>, here: &mut Route) -> Outcome {
    let mut packer = Packer::new(With::Contents, true)?;
    let flags = sys::O_RDONLY | sys::O_DIRECTORY;
    let root = files::open(sys::AT_FDCWD as i32, path, flags, 0).map_err(at(CARRY_OPEN))?;
    let mut wanted = Wanted::new().map_err(at(CARRY_READ))?;
    let mut name = [0u8; LONGEST];
    while let Some(length) = wanted.next(&mut name).map_err(at(CARRY_READ))? {
        let path = name.get(..length).unwrap_or(&[]);
        here.say(path);
        packer.one(root, path, path)?;
        // Whoever asks may wait for this one before asking for the next.
        if wanted.is_empty() {
            packer.flush()?;
        }
    }
    packer.end()
}

const DIRECTORY: usize = sys::O_RDONLY | sys::O_DIRECTORY | sys::O_NOFOLLOW;
const CONTENT: usize = sys::O_RDONLY | sys::O_NOFOLLOW | O_NONBLOCK;

/// What is open, and the permissions to give back.
struct Opened {
    fd: i32,
    was: Option<usize>,
}

impl Opened {
    fn close(&self, directory: i32, name: Text<'_>) {
        sys::close(self.fd);
        if let Some(was) = self.was {
            // It may be gone, or another's by now.
            let _given_back = files::permit(directory, name, was);
        }
    }
}

struct Packer {
    with: With,
    /// Whether closed directories and files are opened where that can be.
    lets_in: bool,
    buffer: &'static mut [u8],
    filled: usize,
}

impl Packer {
    fn new(with: With, lets_in: bool) -> core::result::Result<Self, Failed> {
        let memory = sys::map(None, BUFFER, false).map_err(at(CARRY_READ))?;
        // SAFETY: the mapping has room for so many bytes, and stays until this process ends.
        let buffer = unsafe { core::slice::from_raw_parts_mut(memory, BUFFER) };
        Ok(Self {
            with,
            lets_in,
            buffer,
            filled: 0,
        })
    }

    /// One path below a directory, without what is in it.
    fn one(&mut self, directory: i32, path: &[u8], whole: &[u8]) -> Outcome {
        let end = path.iter().position(|byte| *byte == b'/');
        let (part, rest) = path.split_at(end.unwrap_or(path.len()));
        let mut name = [0u8; 256];
        if matches!(part, b"" | b"." | b"..") || part.len() >= name.len() {
            return Err(at(CARRY_READ)(sys::EINVAL));
        }
        for (to, from) in name.iter_mut().zip(part) {
            *to = *from;
        }
        let name = terminated(&name).map_err(at(CARRY_READ))?;
        let Some(rest) = rest.get(1..) else {
            return self.leaf(directory, name, whole);
        };
        let entry = files::look(directory, name).map_err(at(CARRY_LOOK))?;
        let below = self.open(directory, name, &entry, DIRECTORY)?;
        let packed = self.one(below.fd, rest, whole);
        below.close(directory, name);
        packed
    }

    fn leaf(&mut self, directory: i32, name: Text<'_>, path: &[u8]) -> Outcome {
        let entry = files::look(directory, name).map_err(at(CARRY_LOOK))?;
        match entry.kind() {
            files::FILE => self.file(directory, name, &entry, path),
            files::LINK => self.link(directory, name, &entry, path),
            _ => Err(at(CARRY_OPEN)(ESTALE)),
        }
    }

    /// What has this name in a directory, with all below it.
    fn entry(
        &mut self,
        directory: i32,
        name: Text<'_>,
        here: &mut Route,
        named: &mut Route,
        depth: usize,
    ) -> Outcome {
        let entry = files::look(directory, name).map_err(at(CARRY_LOOK))?;
        let kind = match entry.kind() {
            files::DIRECTORY => {
                if depth >= DEEPEST {
                    return Err(at(CARRY_OPEN)(ELOOP));
                }
                self.header(tar::DIRECTORY, &entry, 0, named.bytes(), b"")?;
                let below = self.open(directory, name, &entry, DIRECTORY)?;
                let packed = self.within(below.fd, here, named, depth);
                below.close(directory, name);
                return packed;
            }
            files::FILE => return self.file(directory, name, &entry, named.bytes()),
            files::LINK => return self.link(directory, name, &entry, named.bytes()),
            files::PIPE => tar::PIPE,
            files::SOCKET => tar::SOCKET,
            files::CHARACTER_DEVICE => tar::CHARACTER_DEVICE,
            _ => tar::BLOCK_DEVICE,
        };
        self.header(kind, &entry, 0, named.bytes(), b"")
    }

    /// All that is in a directory.
    fn within(
        &mut self,
        directory: i32,
        here: &mut Route,
        named: &mut Route,
        depth: usize,
    ) -> Outcome {
        // What went wrong below is kept beside what the listing itself may fail with.
        let mut failed = None;
        let listed = tree::each_name(directory, |bytes| {
            let name = terminated(bytes)?;
            if matches!(name.bytes(), b"." | b"..") {
                return Ok(());
            }
            let done = self.below(directory, name, here, named, depth);
            done.map_err(|error| {
                failed = Some(error);
                error.error
            })
        });
        match (failed, listed) {
            (Some(failed), _) => Err(failed),
            (None, listed) => listed.map_err(at(CARRY_LIST_DIRECTORY)),
        }
    }

    fn below(
        &mut self,
        directory: i32,
        name: Text<'_>,
        here: &mut Route,
        named: &mut Route,
        depth: usize,
    ) -> Outcome {
        let before = here.enter(name.bytes()).map_err(at(CARRY_LOOK))?;
        let above = named.enter(name.bytes()).map_err(at(CARRY_LOOK))?;
        // Where it failed stays said.
        self.entry(directory, name, here, named, depth + 1)?;
        here.leave(before);
        named.leave(above);
        Ok(())
    }

    fn file(&mut self, directory: i32, name: Text<'_>, entry: &Entry, path: &[u8]) -> Outcome {
        if self.with == With::Identities {
            return self.header(tar::FILE, entry, entry.size, path, b"");
        }
        let file = self.open(directory, name, entry, CONTENT)?;
        let packed = self.content(file.fd, entry.mode, path);
        file.close(directory, name);
        packed
    }

    /// Opens what was looked at. Where a change is read, its owner may have shut itself out: it is let
    /// in until what was opened is closed.
    fn open(
        &self,
        directory: i32,
        name: Text<'_>,
        entry: &Entry,
        flags: usize,
    ) -> core::result::Result<Opened, Failed> {
        let mode = usize::from(entry.mode & 0o7777);
        let needed = if flags == DIRECTORY { 0o500 } else { 0o400 };
        let shut = self.lets_in && mode & needed != needed;
        // Where that is refused, opening tells whether it mattered.
        let widened = shut && files::permit(directory, name, mode | needed).is_ok();
        let was = if widened { Some(mode) } else { None };
        let fd = match files::open(directory, name, flags, 0) {
            Ok(fd) => fd,
            Err(error) => {
                if widened {
                    let _given_back = files::permit(directory, name, mode);
                }
                return Err(at(CARRY_OPEN)(error));
            }
        };
        Ok(Opened { fd, was })
    }

    /// Of a file that had this mode when it was looked at.
    fn content(&mut self, file: i32, mode: u16, path: &[u8]) -> Outcome {
        let found = files::look(file, text!("")).map_err(at(CARRY_LOOK))?;
        let entry = Entry {
            mode: found.mode & files::KIND | mode & 0o7777,
            ..found
        };
        if entry.kind() != files::FILE {
            return Err(at(CARRY_OPEN)(ENXIO));
        }
        self.header(tar::FILE, &entry, entry.size, path, b"")?;
        let mut left = entry.size;
        while left > 0 {
            if self.filled == BUFFER {
                self.flush()?;
            }
            let room = self.buffer.get_mut(self.filled..).unwrap_or(&mut []);
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(room.len());
            let room = room.get_mut(..wanted).unwrap_or(&mut []);
            match sys::read(file, room).map_err(at(CARRY_READ))? {
                // It is shorter by now: what follows would be taken for its content.
                0 => return Err(at(CARRY_READ)(ESTALE)),
                count => {
                    self.filled += count;
                    left -= count as u64;
                }
            }
        }
        let filling = [0u8; BLOCK];
        self.put(filling.get(..tar::filling(entry.size)).unwrap_or(&[]))
    }

    fn link(&mut self, directory: i32, name: Text<'_>, entry: &Entry, path: &[u8]) -> Outcome {
        let mut buffer = [0u8; LONGEST];
        let target = files::read_link(directory, name, &mut buffer).map_err(at(CARRY_LOOK))?;
        self.header(tar::LINK, entry, 0, path, target.bytes())
    }

    /// A header, and before it what does not fit into one.
    fn header(
        &mut self,
        kind: u8,
        entry: &Entry,
        size: u64,
        name: &[u8],
        target: &[u8],
    ) -> Outcome {
        self.long(tar::LONG_TARGET, target)?;
        self.long(tar::LONG_NAME, name)?;
        let header = Header {
            kind,
            mode: if entry.mode & 0o100 != 0 { 0o755 } else { 0o644 },
            size,
            prefix: b"",
            name,
            target,
        };
        let mut block = header.write();
        if self.with == With::Identities {
            identify(&mut block, entry);
        }
        self.put(&block)
    }

    fn long(&mut self, kind: u8, text: &[u8]) -> Outcome {
        if text.len() <= tar::SHORT {
            return Ok(());
        }
        let size = text.len() as u64 + 1;
        let header = Header {
            kind,
            mode: 0o644,
            size,
            prefix: b"",
            name: b"././@LongLink",
            target: b"",
        };
        self.put(&header.write())?;
        self.put(text)?;
        let filling = [0u8; BLOCK];
        self.put(filling.get(..1 + tar::filling(size)).unwrap_or(&[]))
    }

    fn put(&mut self, mut bytes: &[u8]) -> Outcome {
        while !bytes.is_empty() {
            let room = self.buffer.get_mut(self.filled..).unwrap_or(&mut []);
            let count = room.len().min(bytes.len());
            for (to, from) in room.iter_mut().zip(bytes) {
                *to = *from;
            }
            self.filled += count;
            bytes = bytes.get(count..).unwrap_or(&[]);
            if self.filled == BUFFER {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Outcome {
        let filled = self.buffer.get(..self.filled).unwrap_or(&[]);
        self.filled = 0;
        sys::write_all(OUTPUT, filled).map_err(at(CARRY_SEND))
    }

    fn end(&mut self) -> Outcome {
        self.put(&[0; 2 * BLOCK])?;
        self.flush()
    }
}

/// Writes what tells a file from others where a prefix would be, and the sum anew.
fn identify(block: &mut [u8; BLOCK], entry: &Entry) {
    tar::identify(
        block,
        &tar::Identity {
            number: entry.number,
            mode: u32::from(entry.mode),
            size: entry.size,
            modified: entry.modified,
            changed: entry.changed,
            born: entry.born,
        },
    );
}

/// The paths that the input names.
struct Wanted {
    buffer: &'static mut [u8],
    from: usize,
    to: usize,
}

impl Wanted {
    fn new() -> Result<Self> {
        let memory = sys::map(None, BUFFER, false)?;
        // SAFETY: the mapping has room for so many bytes, and stays until this process ends.
        let buffer = unsafe { core::slice::from_raw_parts_mut(memory, BUFFER) };
        Ok(Self {
            buffer,
            from: 0,
            to: 0,
        })
    }

    /// Whether all that has come was taken.
    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// The next path's length; none at the end of the input.
    fn next(&mut self, path: &mut [u8; LONGEST]) -> Result<Option<usize>> {
        let mut length = 0;
        loop {
            if self.is_empty() {
                self.from = 0;
                self.to = sys::read(INPUT, self.buffer)?;
                if self.to == 0 {
                    return if length == 0 { Ok(None) } else { Err(sys::EINVAL) };
                }
            }
            let byte = self.buffer.get(self.from).copied().unwrap_or(0);
            self.from += 1;
            if byte == 0 {
                return Ok(Some(length));
            }
            *path.get_mut(length).ok_or(Errno(files::ENAMETOOLONG.0))? = byte;
            length += 1;
        }
    }
}
