//! A minder: the parent of one command, to which everything falls that the command leaves behind.
//! Because of it "all that this command started" is a tree, whatever sessions and groups its
//! members make for themselves.

use crate::carry;
use crate::link::{self, Message};
use crate::payload::Payload;
use crate::sys::{self, Errno, Result, nr};
use crate::terminal::{self, Terminal};
use crate::tree;
use crate::wire::*;

/// Of `prctl`: the signal that comes when the thread that made this process ends.
pub const PR_SET_PDEATHSIG: usize = 1;
pub const PR_SET_CHILD_SUBREAPER: usize = 36;
const ALL_SIGNALS: u64 = u64::MAX;
/// Descriptors are moved above the standard ones before they become those.
const ABOVE_STREAMS: usize = 3;

/// Where the child says, in memory shared with its minder, what went wrong before it became the
/// command: stage and errno.
type Complaint = [u32; 2];

/// What the owner says of a command.
pub struct Start {
    pub id: u32,
    pub flags: u32,
    /// Of the payload.
    pub bytes: u32,
    /// Of the terminal, if it gets one.
    pub size: u32,
}

/// Starts the command of `message`, waits for its end, tells the owner, and ends.
pub fn run(socket: i32, start: &Start, message: &Message) -> ! {
    let id = start.id;
    let refuse = |stage, error: Errno| -> ! {
        link::send(socket, &[REFUSED, id, stage, error.0], None);
        sys::exit(0)
    };
    // The minder is not to be ended by a signal to a group or by a polite one.
    let prepared = end_with_parent()
        .and_then(|()| sys::prctl(PR_SET_CHILD_SUBREAPER, 1, 0))
        .and_then(|_| sys::block_signals(ALL_SIGNALS))
        .and_then(|()| sys::map(None, size_of::<Complaint>(), true));
    let complaint: *mut Complaint = match prepared {
        Ok(memory) => memory.cast(),
        Err(error) => refuse(REFUSED_STREAMS, error),
    };
    let terminal = if start.flags & TERMINAL == 0 {
        None
    } else {
        match Terminal::open(start.size) {
            Ok(terminal) => Some(terminal),
            Err(error) => refuse(REFUSED_TERMINAL, error),
        }
    };
    let carries = start.flags & CARRY != 0;
    // One that carries files becomes no program, and nobody waits until it does.
    let command = match sys::fork(!carries) {
        Ok(0) if carries => carry(message, start.bytes as usize),
        Ok(0) => {
            let terminal = terminal.as_ref().map(|terminal| terminal.commands);
            let (stage, error) = become_command(message, start.bytes as usize, terminal);
            // SAFETY: the mapping has room for it, and the minder stands still until this exits.
            unsafe { complaint.write_volatile([stage, error.0]) };
            sys::exit(127)
        }
        Ok(pid) => pid,
        Err(error) => refuse(REFUSED_FORK, error),
    };
    // SAFETY: the child has executed a program or ended, and writes no more.
    let [stage, error] = unsafe { complaint.read_volatile() };
    if stage != 0 {
        refuse(stage, Errno(error))
    }
    message.close();
    let owners = terminal.as_ref().map(|terminal| terminal.owners);
    link::send(socket, &[STARTED, id], owners);
    // Open here, the terminal would not end with the command.
    terminal.iter().for_each(Terminal::close);
    mind(socket, id, command, start.flags & KEEP_BACKGROUND != 0)
}

/// Among the host's processes, whoever kills the helper or a minder takes at least its own children
/// along. Inside a sandbox they fall to process 1, which knows what to do.
fn end_with_parent() -> Result<()> {
    if tree::is_alone() {
        return Ok(());
    }
    sys::prctl(PR_SET_PDEATHSIG, tree::SIGKILL as usize, 0).map(drop)
}

fn mind(socket: i32, id: u32, command: i32, keep_background: bool) -> ! {
    let mut exited = None;
    // On the host a program with another user's rights cannot be killed, and is not waited for.
    let told_at_once = keep_background || !tree::is_alone();
    // Ends when there is no child left.
    while let Ok((pid, status)) = sys::wait_any(true) {
        if pid != command || exited.is_some() {
            continue;
        }
        exited = Some(status);
        if !keep_background {
            tree::kill_all(sys::process_id(), |_| false);
        }
        if told_at_once {
            while let Ok((1.., _)) = sys::wait_any(false) {}
            link::send(socket, &[EXITED, id, status], None);
        }
    }
    if let (Some(status), false) = (exited, told_at_once) {
        link::send(socket, &[EXITED, id, status], None);
    }
    sys::exit(if exited.is_some() { 0 } else { 9 })
}

/// Returns only if the program could not be executed: why.
fn become_command(message: &Message, bytes: usize, terminal: Option<i32>) -> (u32, Errno) {
    match prepare(message, bytes, terminal) {
        Ok(payload) => execute(payload),
        Err(error) => (REFUSED_STREAMS, error),
    }
}

/// Carries files in or out in place of a command.
fn carry(message: &Message, bytes: usize) -> ! {
    match prepare(message, bytes, None) {
        Ok(payload) => carry::run(payload),
        Err(_) => sys::exit(2),
    }
}

/// What a command has around it; returns its payload.
fn prepare(message: &Message, bytes: usize, terminal: Option<i32>) -> Result<&'static [u8]> {
    let payload = streams(message, terminal)?;
    let memory = sys::map(Some(payload), bytes.max(1), false)?;
    sys::close_range(ABOVE_STREAMS as u32, u32::MAX)?;
    end_with_parent()?;
    // SAFETY: touches no memory.
    unsafe { sys::call(nr::SETSID, []) }?;
    if terminal.is_some() {
        terminal::control()?;
    }
    sys::block_signals(0)?;
    // SAFETY: the owner gave the payload's length, and the mapping stays.
    Ok(unsafe { core::slice::from_raw_parts(memory, bytes) })
}

/// Puts the three streams in their places; returns the payload's descriptor.
fn streams(message: &Message, terminal: Option<i32>) -> Result<i32> {
    let &[payload, input, output, errors, ..] = &message.descriptors;
    let (needed, given) = match terminal {
        Some(terminal) => (1, [terminal; 3]),
        None => (4, [input, output, errors]),
    };
    if message.count < needed {
        return Err(sys::EINVAL);
    }
    let payload = sys::duplicate_above(payload, ABOVE_STREAMS)?;
    let mut moved = [0; 3];
    for (to, from) in moved.iter_mut().zip(given) {
        *to = sys::duplicate_above(from, ABOVE_STREAMS)?;
    }
    for (number, from) in moved.into_iter().enumerate() {
        sys::duplicate_to(from, number as i32)?;
    }
    Ok(payload)
}

/// Becomes the program that the payload names.
fn execute(payload: &[u8]) -> (u32, Errno) {
    let Ok(payload) = Payload::read(payload) else {
        return (REFUSED_STREAMS, sys::EINVAL);
    };
    if let Err(error) = sys::change_directory(payload.directory()) {
        return (REFUSED_DIRECTORY, error);
    }
    // Two lists of addresses, each with a zero at its end.
    let Payload {
        words, variables, ..
    } = payload;
    let length = words + variables + 2;
    let list: *mut usize = match sys::map(None, length * size_of::<usize>(), false) {
        Ok(memory) => memory.cast(),
        Err(error) => return (REFUSED_STREAMS, error),
    };
    let places = (0..words).chain(words + 1..words + 1 + variables);
    for (index, text) in places.zip(payload.strings()) {
        // SAFETY: the index is below the length of the list; what is not written is zero.
        unsafe { list.add(index).write(text.pointer()) };
    }
    let mut reason = sys::ENOENT;
    for program in payload.candidates() {
        // SAFETY: the second list begins within the mapping.
        let environment = unsafe { list.add(words + 1) };
        let arguments = [program.pointer(), list as usize, environment as usize];
        // SAFETY: both lists end with a zero, and all texts with a zero byte.
        match unsafe { sys::call(nr::EXECVE, arguments) } {
            // As shells do: a directory that cannot be searched does not end the search, but is
            // remembered.
            Err(sys::ENOENT | Errno(ENOTDIR)) => {}
            Err(Errno(EACCES)) => reason = Errno(EACCES),
            Err(error) => return (REFUSED_EXEC, error),
            Ok(_) => {}
        }
    }
    (REFUSED_EXEC, reason)
}

const ENOTDIR: u32 = 20;
const EACCES: u32 = 13;
