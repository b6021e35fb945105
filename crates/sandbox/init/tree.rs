//! The processes inside, as `/proc` shows them: signals for whole trees, and what they use.

use crate::sys::{self, O_RDONLY, Result, Text, nr};
use crate::text;

/// Processes looked at in one pass; the rest is found by the next.
const MOST: usize = 4096;
/// Passes of [`kill_all`] before everything inside is killed at once.
const PASSES: usize = 200;
pub const SIGKILL: u32 = 9;

#[derive(Clone, Copy)]
struct Entry {
    pid: i32,
    parent: i32,
    chosen: bool,
}

/// Calls `visit` with the number of every process inside.
pub fn each_process(visit: impl FnMut(i32)) -> Result<()> {
    each_number(text!("/proc"), visit)
}

/// Calls `visit` with every name in a directory that begins with a number.
pub fn each_number(path: Text<'_>, mut visit: impl FnMut(i32)) -> Result<()> {
    let directory = sys::open(path, O_RDONLY | sys::O_DIRECTORY, 0)?;
    let mut buffer = [0u8; 4096];
    let outcome = loop {
        let arguments = [
            directory as usize,
            buffer.as_mut_ptr() as usize,
            buffer.len(),
        ];
        // SAFETY: the kernel writes at most the buffer's length.
        let length = match unsafe { sys::call(nr::GETDENTS64, arguments) } {
            Ok(0) => break Ok(()),
            Ok(length) => length,
            Err(error) => break Err(error),
        };
        let mut rest = buffer.get(..length).unwrap_or(&[]);
        // `struct linux_dirent64`: its own length is at 16, the name from 19.
        while let (Some(&low), Some(&high), Some(name)) =
            (rest.get(16), rest.get(17), rest.get(19..))
        {
            if let Some((pid, _)) = number(name) {
                visit(pid as i32);
            }
            let size = usize::from(u16::from_le_bytes([low, high])).max(1);
            rest = rest.get(size..).unwrap_or(&[]);
        }
    };
    sys::close(directory);
    outcome
}

/// The decimal number at the beginning of `text`, and what follows it.
pub fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at_checked(digits)?;
    if number.is_empty() {
        return None;
    }
    let value = number.iter().fold(0u64, |sum, digit| {
        sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))
    });
    Some((value, rest))
}

/// Reads `/proc/PID/NAME` into `buffer`.
pub fn read_of<'a>(pid: i32, name: &[u8], buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let mut path = [0u8; 48];
    path_of(pid, name, &mut path);
    let fd = sys::open(Text::new(&path), O_RDONLY, 0)?;
    let length = sys::read(fd, buffer);
    sys::close(fd);
    let length = length?;
    Ok(buffer.get(..length).unwrap_or(&[]))
}

/// Writes `/proc/PID/NAME` into `path`, whose rest stays zero; returns its length.
pub fn path_of(pid: i32, name: &[u8], path: &mut [u8; 48]) -> usize {
    let mut digits = [0; 10];
    let parts = [
        b"/proc/".as_slice(),
        crate::start::decimal(pid as u32, &mut digits),
        b"/",
        name,
    ];
    let mut length = 0;
    for (to, from) in path.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
        length += 1;
    }
    length
}

/// The parent of a process that has not ended yet.
fn living_parent(pid: i32) -> Option<i32> {
    let mut buffer = [0u8; 512];
    let stat = read_of(pid, b"stat", &mut buffer).ok()?;
    // "pid (name) state parent …"; the name may hold anything, so the last bracket counts.
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = stat.get(close + 2..)?;
    let (state, rest) = (rest.first()?, rest.get(2..)?);
    if matches!(state, b'Z' | b'X') {
        return None;
    }
    number(rest).map(|(parent, _)| parent as i32)
}

/// Sends `signal` to all living descendants of `root`, but for the children in `spared` and what is
/// below them. Returns how many there were.
pub fn signal(root: i32, signal: u32, spared: impl Fn(i32) -> bool) -> usize {
    let mut entries = [Entry {
        pid: 0,
        parent: 0,
        chosen: false,
    }; MOST];
    let mut count = 0;
    let _listed = each_process(|pid| {
        if let (Some(entry), Some(parent)) = (entries.get_mut(count), living_parent(pid)) {
            *entry = Entry {
                pid,
                parent,
                chosen: parent == root && !spared(pid),
            };
            count += 1;
        }
    });
    let entries = entries.get_mut(..count).unwrap_or(&mut []);
    // Each round chooses the next generation; no tree is deeper than it has members.
    for _ in 0..count {
        let mut grown = false;
        for index in 0..count {
            let Some(&Entry {
                parent,
                chosen: false,
                ..
            }) = entries.get(index)
            else {
                continue;
            };
            if entries
                .iter()
                .any(|entry| entry.chosen && entry.pid == parent)
            {
                if let Some(entry) = entries.get_mut(index) {
                    entry.chosen = true;
                    grown = true;
                }
            }
        }
        if !grown {
            break;
        }
    }
    let chosen = entries.iter().filter(|entry| entry.chosen);
    chosen.map(|entry| sys::kill(entry.pid, signal)).count()
}

/// Kills all descendants of `root`, however fast they multiply: those that outrun the passes take
/// everything inside with them.
pub fn kill_all(root: i32, spared: impl Fn(i32) -> bool) {
    for _ in 0..PASSES {
        if signal(root, SIGKILL, &spared) == 0 {
            return;
        }
    }
    kill_everything();
}

/// Kills every process inside but the caller and process 1, in one go.
pub fn kill_everything() {
    let _none_left = sys::kill(-1, SIGKILL);
}
