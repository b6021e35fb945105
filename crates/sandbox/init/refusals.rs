//! Refused calls that are told: the kernel asks process 1 for the answer, which is always that they are
//! refused. Should process 1 end, they fail all the same, and so does everything else.

use crate::sys::{self, EPERM, nr};
use crate::wire::MOST_TOLD;

/// Where the kernel asks: the listener of the filter of system calls.
pub struct Refusals {
    listener: i32,
    asked: u32,
}

/// So many calls are answered; whoever makes another one hears from the kernel that there is no such call.
/// The kernel counts also those that a signal takes back before they were heard, and forgets to wake whoever
/// listens after 2^31 of them: so many cannot come together while these few are answered.
const MOST_ANSWERED: u32 = 1 << 16;

/// A call, by its number and those of its arguments that the filter looks at; 0 where it looks at none, so
/// that a call is the same whatever else it is made with.
pub type Call = [u32; 3];

/// Somebody who waits for an answer.
pub struct Asked {
    id: u64,
    /// Of the thread that made the call, as it is numbered here.
    pub pid: i32,
    pub call: Call,
}

/// `struct seccomp_notif`, in which `struct seccomp_data` lies.
#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    number: u32,
    architecture: u32,
    instruction: u64,
    arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `SECCOMP_IOCTL_NOTIF_…`: their numbers hold the sizes of what they are given.
const RECEIVE: usize = 0xc050_2100;
const SEND: usize = 0xc018_2101;
const ID_VALID: usize = 0x4008_2102;
const _: () = assert!(size_of::<Notification>() == 0x50 && size_of::<Answer>() == 0x18);

impl Refusals {
    pub fn new(listener: i32) -> Self {
        Self { listener, asked: 0 }
    }

    pub fn descriptor(&self) -> i32 {
        self.listener
    }

    pub fn close(&self) {
        sys::close(self.listener);
    }

    /// Whether so many were heard that nobody shall be heard any more.
    pub fn are_over(&self) -> bool {
        self.asked >= MOST_ANSWERED
    }

    /// Who waits longest (before Linux 5.19, who came last), if anybody still does. It does not wait itself
    /// where the listener is readable, because nobody else reads there.
    pub fn next(&mut self) -> Option<Asked> {
        self.asked = self.asked.saturating_add(1);
        let mut asked = Notification::default();
        let arguments = [self.listener as usize, RECEIVE, &raw mut asked as usize];
        // SAFETY: the kernel writes as many bytes as the number of the request says.
        unsafe { sys::call(nr::IOCTL, arguments) }.ok()?;
        Some(Asked {
            id: asked.id,
            pid: asked.pid as i32,
            call: call(&asked),
        })
    }

    /// Whether it still waits, and is therefore the one whose number was told.
    pub fn waits(&self, asked: &Asked) -> bool {
        let arguments = [self.listener as usize, ID_VALID, sys::address(&raw const asked.id)];
        // SAFETY: the kernel reads eight bytes.
        unsafe { sys::call(nr::IOCTL, arguments) }.is_ok()
    }

    /// Answers; one that was killed meanwhile needs no answer.
    pub fn refuse(&self, asked: &Asked) {
        let answer = Answer {
            id: asked.id,
            value: 0,
            error: -(EPERM.0 as i32),
            flags: 0,
        };
        let arguments = [self.listener as usize, SEND, sys::address(&raw const answer)];
        // SAFETY: the kernel reads as many bytes as the number of the request says.
        let _gone = unsafe { sys::call(nr::IOCTL, arguments) };
    }
}

fn call(asked: &Notification) -> Call {
    let [first, second, ..] = asked.arguments.map(|argument| argument as u32);
    let number = asked.number;
    match number as usize {
        nr::CLONE | nr::UNSHARE | nr::PERSONALITY => [number, first, 0],
        nr::IOCTL => [number, second, 0],
        nr::SOCKET => [number, first, second],
        _ => [number, 0, 0],
    }
}

/// What was told of each command, by its place among those that run.
pub struct Told {
    /// Made when the first call is refused, of pages that nobody has touched: most sandboxes need none.
    commands: &'static mut [Calls],
}

/// What was told of one command: nothing, where all is zero.
#[derive(Clone, Copy)]
pub struct Calls {
    calls: [Call; MOST_TOLD],
    count: usize,
}

impl Told {
    pub fn nothing() -> Self {
        Self { commands: &mut [] }
    }

    /// Of the command at a place; there are `most`.
    pub fn of(&mut self, place: usize, most: usize) -> Option<&mut Calls> {
        if self.commands.is_empty() {
            let memory = sys::map(None, most * size_of::<Calls>(), false).ok()?;
            // SAFETY: the mapping has room for so many, all zero, and stays.
            self.commands = unsafe { core::slice::from_raw_parts_mut(memory.cast(), most) };
        }
        self.commands.get_mut(place)
    }

    /// The command at `place` has ended, and the one at `last` takes its place.
    pub fn forget(&mut self, place: usize, last: usize) {
        const NOTHING: Calls = Calls {
            calls: [[0; 3]; MOST_TOLD],
            count: 0,
        };
        let taken = self.commands.get_mut(last);
        let taken = taken.map(|calls| core::mem::replace(calls, NOTHING));
        if let (Some(calls), Some(taken), true) = (self.commands.get_mut(place), taken, place != last)
        {
            *calls = taken;
        }
    }
}

impl Calls {
    /// Whether it is to be told: it was not, and there is room.
    pub fn is_new(&self, call: Call) -> bool {
        let told = self.calls.get(..self.count).unwrap_or(&[]);
        told.len() < MOST_TOLD && !told.contains(&call)
    }

    pub fn note(&mut self, call: Call) {
        if let Some(place) = self.calls.get_mut(self.count) {
            *place = call;
            self.count += 1;
        }
    }
}
