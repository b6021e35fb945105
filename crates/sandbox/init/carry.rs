//! Files in and out: a process that packs or unpacks an archive where a command would run a program. It
//! has the rights of commands, and what is inside is reached by it alone: its owner sees bytes.

mod pack;
mod route;
mod unpack;

use crate::files::EISDIR;
use crate::payload::Payload;
use crate::sys::{self, EINVAL, Errno, Text};
use crate::wire::*;

/// The longest path, with its zero byte.
pub const LONGEST: usize = 4096;
/// Directories in each other, at most.
pub const DEEPEST: usize = 256;

const INPUT: i32 = 0;
const OUTPUT: i32 = 1;
const COMPLAINTS: i32 = 2;

/// What went wrong: what was being done, and why it failed. The path is where the work stood.
#[derive(Clone, Copy)]
pub struct Failed {
    pub doing: u32,
    pub error: Errno,
}

pub type Outcome = core::result::Result<(), Failed>;

/// Puts what was being done beside an error.
pub fn at(doing: u32) -> impl Fn(Errno) -> Failed {
    move |error| Failed { doing, error }
}

/// Carries out what the payload says, in the directory that it names: a task, a path, and the name that
/// what is there has in the archive. Says on the third stream what failed.
pub fn run(payload: &[u8]) -> ! {
    let mut here = route::Route::new();
    match carry(payload, &mut here) {
        Ok(()) => sys::exit(0),
        Err(failed) => {
            let words = [failed.doing.to_le_bytes(), failed.error.0.to_le_bytes()];
            let written = sys::write_all(COMPLAINTS, words.as_flattened())
                .and_then(|()| sys::write_all(COMPLAINTS, here.bytes()));
            sys::exit(if written.is_ok() { 1 } else { 2 })
        }
    }
}

fn carry(payload: &[u8], here: &mut route::Route) -> Outcome {
    let malformed = |_| at(CARRY_READ)(EINVAL);
    let payload = Payload::read(payload).map_err(malformed)?;
    let mut words = payload.strings();
    let (Some(task), Some(path), Some(name)) = (words.next(), words.next(), words.next()) else {
        return Err(at(CARRY_READ)(EINVAL));
    };
    here.say(path.bytes());
    sys::change_directory(payload.directory()).map_err(at(CARRY_ENTER))?;
    match task.bytes() {
        CARRY_OUT => pack::whole(path, name, here, pack::With::Contents),
        CARRY_LIST => pack::whole(path, name, here, pack::With::Identities),
        CARRY_PICK => pack::picked(path, here),
        CARRY_IN => unpack::run(path, here, unpack::Place::Named),
        CARRY_FILL => unpack::run(path, here, unpack::Place::Inside),
        _ => Err(at(CARRY_READ)(EINVAL)),
    }
}

/// Fills the buffer from the input. False if the input has ended before the first byte.
fn read_whole(buffer: &mut [u8]) -> sys::Result<bool> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..)
        && !rest.is_empty()
    {
        match sys::read(INPUT, rest)? {
            0 if filled == 0 => return Ok(false),
            0 => return Err(EINVAL),
            count => filled += count,
        }
    }
    Ok(true)
}

/// A name as the archive has it, cut where its zero byte is.
fn terminated(bytes: &[u8]) -> sys::Result<Text<'_>> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(EINVAL)?;
    Ok(Text::new(bytes.get(..=end).unwrap_or(b"\0")))
}

/// A place in the archive where a directory is in the way of something else.
const IN_THE_WAY: Errno = EISDIR;
