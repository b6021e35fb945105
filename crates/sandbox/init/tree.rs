//! The processes inside, as `/proc` shows them: signals for whole trees, and what they use.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::status::{self, number};
use crate::sys::{self, O_RDONLY, Result, Text, nr};
use crate::text;

/// Processes looked at in one pass; inside, the rest is found by the next. Among the host's processes
/// there may be many that are none of ours.
const MOST: usize = 1 << 16;
/// Passes of [`kill_all`] before everything inside is killed at once.
const PASSES: usize = 200;
/// Passes where that cannot be done; each kills what it finds, and what is killed forks no more.
const PASSES_AMONG_OTHERS: usize = 20_000;
/// How many parents [`first_above`] looks at, and how often it begins.
const GENERATIONS: usize = 64;
const LOOKS_UP: usize = 3;
pub const SIGKILL: u32 = 9;

/// Whether other processes than ours can be seen: those of the host.
static AMONG_OTHERS: AtomicBool = AtomicBool::new(false);

/// From here on, for this process and its copies, nothing is killed but what is known to be ours.
pub fn among_others() {
    AMONG_OTHERS.store(true, Ordering::Relaxed);
}

/// Whether all processes that can be seen are inside.
pub fn is_alone() -> bool {
    !AMONG_OTHERS.load(Ordering::Relaxed)
}

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
    let outcome = each_name(directory, |name| {
        if let Some((pid, _)) = number(name) {
            visit(pid as i32);
        }
        Ok(())
    });
    sys::close(directory);
    outcome
}

/// Calls `visit` with every name in an open directory, and what follows its zero byte, until it fails.
pub fn each_name(directory: i32, mut visit: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = [0u8; 4096];
    loop {
        let arguments = [
            directory as usize,
            buffer.as_mut_ptr() as usize,
            buffer.len(),
        ];
        // SAFETY: the kernel writes at most the buffer's length.
        let length = match unsafe { sys::call(nr::GETDENTS64, arguments) } {
            Ok(0) => return Ok(()),
            other => other?,
        };
        let mut rest = buffer.get(..length).unwrap_or(&[]);
        // `struct linux_dirent64`: its own length is at 16, the name from 19.
        while let (Some(&low), Some(&high), Some(name)) =
            (rest.get(16), rest.get(17), rest.get(19..))
        {
            visit(name)?;
            let size = usize::from(u16::from_le_bytes([low, high])).max(1);
            rest = rest.get(size..).unwrap_or(&[]);
        }
    }
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
    status::living_parent(read_of(pid, b"stat", &mut buffer).ok()?)
}

/// What `find` says of the nearest process above `pid` of which it says anything.
pub fn first_above(pid: i32, find: impl Fn(i32) -> Option<usize>) -> Option<usize> {
    let (mut at, mut looks) = (pid, 1);
    for _ in 0..GENERATIONS {
        match living_parent(at) {
            Some(parent) => match find(parent) {
                None => at = parent,
                found => return found,
            },
            // It has ended since it was somebody's parent, who has another one now.
            None if looks < LOOKS_UP => (at, looks) = (pid, looks + 1),
            None => break,
        }
    }
    None
}

/// How many processes live inside beside process 1 and those that are spared.
pub fn living(spared: impl Fn(i32) -> bool) -> u32 {
    let mut count = 0;
    let listed = each_process(|pid| {
        if pid != 1 && !spared(pid) && living_parent(pid).is_some() {
            count += 1;
        }
    });
    // What cannot be counted counts as somebody.
    if listed.is_err() { count.max(1) } else { count }
}

/// Sends `signal` to all living descendants of `root`, but for the children in `spared` and what is
/// below them. Returns how many took it.
pub fn signal(root: i32, signal: u32, spared: impl Fn(i32) -> bool) -> usize {
    // Memory that is given page by page: nothing is taken for processes that are not there.
    let bytes = MOST * size_of::<Entry>();
    let Ok(memory) = sys::map(None, bytes, false) else {
        return 0;
    };
    // SAFETY: the mapping has room for so many, all zero, and lives until it is unmapped below.
    let entries = unsafe { core::slice::from_raw_parts_mut(memory.cast::<Entry>(), MOST) };
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
    choose_descendants(entries);
    let chosen = entries.iter().filter(|entry| entry.chosen);
    let reached = chosen.filter(|entry| sys::kill(entry.pid, signal).is_ok());
    let reached = reached.count();
    // SAFETY: nothing of the list is used any more.
    unsafe { sys::unmap(memory, bytes) };
    reached
}

/// Chooses the descendants of those that are chosen. Each round chooses at least a generation; no tree
/// is deeper than it has members.
fn choose_descendants(entries: &mut [Entry]) {
    for _ in 0..entries.len() {
        let mut grown = false;
        for index in 0..entries.len() {
            let Some(&Entry { pid, parent, chosen }) = entries.get(index) else {
                continue;
            };
            // Children are made after their parents: what is listed after a chosen one is looked at
            // in the same round.
            let is_chosen = |entry: &Entry| entry.chosen && entry.pid == parent;
            if !chosen && pid != parent && entries.iter().any(is_chosen) {
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
}

/// Kills all descendants of `root`, however fast they multiply: those that outrun the passes take
/// everything inside with them.
pub fn kill_all(root: i32, spared: impl Fn(i32) -> bool) {
    let passes = if is_alone() {
        PASSES
    } else {
        PASSES_AMONG_OTHERS
    };
    for _ in 0..passes {
        if signal(root, SIGKILL, &spared) == 0 {
            return;
        }
    }
    kill_everything();
}

/// Kills every process inside but the caller and process 1, in one go. Nothing where the host's own
/// processes would be among them.
pub fn kill_everything() {
    if is_alone() {
        let _none_left = sys::kill(-1, SIGKILL);
    }
}
