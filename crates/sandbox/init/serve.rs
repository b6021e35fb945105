//! Process 1's service: one loop over the owner's socket, the ends of children, and refused calls.

use crate::link::{self, Message};
use crate::loopback;
use crate::minder::{self, PR_SET_CHILD_SUBREAPER, Start};
use crate::plan::Watch;
use crate::refusals::{Refusals, Told};
use crate::seal;
use crate::sys::{self, Poll};
use crate::tree;
use crate::usage;
use crate::wire::*;

/// Commands at a time.
const MOST: usize = 256;
const SIGCHLD_BIT: u64 = 1 << 16;
const POLLIN: i16 = 1;
/// How often the watcher looks, while anything runs, in nanoseconds.
const WATCH_EVERY: u64 = 50_000_000;
/// It rests so many times as long as its last look took, so that many processes cost no more than a
/// twentieth of a processor; and never longer than a second.
const WATCH_REST: u64 = 20;
const WATCH_SELDOM: u64 = 1_000_000_000;
/// The status of a process that was killed.
const KILLED: u32 = tree::SIGKILL;

#[derive(Clone, Copy)]
struct Minder {
    pid: i32,
    id: u32,
}

struct Service {
    socket: i32,
    /// The mount namespace of this sandbox, where it has one.
    own: i32,
    refusals: Option<Refusals>,
    /// What was told of the calls that were refused to commands, by the places of their minders.
    told: Told,
    minders: [Minder; MOST],
    count: usize,
}

/// Serves among the host's own processes, of which it is an ordinary one: what is started becomes its
/// descendant, whatever sessions it makes, and is killed when the owner's end of the socket closes.
pub fn run_unsealed(socket: i32) -> ! {
    tree::among_others();
    // A session of its own, so that a key in the owner's terminal does not end it; what is left behind
    // falls to it, and not to the host's first process.
    // SAFETY: touches no memory.
    let prepared = unsafe { sys::call(sys::nr::SETSID, []) }
        .and_then(|_| sys::prctl(PR_SET_CHILD_SUBREAPER, 1, 0));
    if prepared.is_err() {
        sys::exit(7)
    }
    link::send(socket, &[READY, 0], None);
    run(socket, -1, None, None)
}

/// Serves the container of which it is the first process: all that is in it ends with it. Whatever runs
/// there is kept from looking into it, and from calls that a sandbox cannot make either: engines let
/// others make namespaces, in which they have every capability.
pub fn run_beside(socket: i32, filters: i32, lengths: (usize, usize)) -> ! {
    if seal::undumpable().is_err() {
        sys::exit(7)
    }
    let Ok(refusals) = filtered(filters, lengths) else {
        sys::exit(7)
    };
    link::send(socket, &[READY, 0], None);
    run(socket, -1, None, refusals)
}

/// `lengths` are that of both filters together, and of the first.
fn filtered(filters: i32, lengths: (usize, usize)) -> sys::Result<Option<Refusals>> {
    let (bytes, asking) = lengths;
    let mapped = sys::map(Some(filters), bytes, false)?;
    sys::close(filters);
    // SAFETY: the owner gave the file's length, and the mapping stays.
    let both = unsafe { core::slice::from_raw_parts(mapped, bytes) };
    let (asking, plain) = both.split_at_checked(asking).ok_or(sys::EINVAL)?;
    seal::filter(asking, plain)
}

/// Serves until the owner's end of the socket closes. Woken by a message, by the end of a child, by a
/// refused call, and, if there is a watcher and something runs, by its clock. The watcher looks when its
/// time has come whatever else has happened: what runs inside can send signals without end, and must not
/// keep it from looking. Of refused calls, which it can make without end too, a round takes one.
pub fn run(socket: i32, own: i32, watch: Option<Watch>, refusals: Option<Refusals>) -> ! {
    let mut service = Service {
        socket,
        own,
        refusals,
        told: Told::nothing(),
        minders: [Minder { pid: 0, id: 0 }; MOST],
        count: 0,
    };
    // Inside, nothing can end process 1 by a signal; among the host's processes a polite one could.
    if sys::block_signals(u64::MAX).is_err() {
        sys::exit(7)
    }
    let Ok(children) = sys::signal_descriptor(SIGCHLD_BIT) else {
        sys::exit(8)
    };
    let mut due = 0u64;
    loop {
        let watch = watch.filter(|_| service.count > 0);
        let mut ready = [
            Poll {
                fd: socket,
                events: POLLIN,
                happened: 0,
            },
            Poll {
                fd: children,
                events: POLLIN,
                happened: 0,
            },
            // Where there is none, the kernel passes over a number that is no descriptor.
            Poll {
                fd: service.refusals.as_ref().map_or(-1, Refusals::descriptor),
                events: POLLIN,
                happened: 0,
            },
        ];
        let pause = watch.map(|_| due.saturating_sub(sys::now()));
        let _woken = sys::poll(&mut ready, pause);
        if let Some(watch) = watch {
            let began = sys::now();
            if began >= due {
                service.enforce(&watch);
                let ended = sys::now();
                let rest = ended.saturating_sub(began).saturating_mul(WATCH_REST);
                due = ended.saturating_add(rest.clamp(WATCH_EVERY, WATCH_SELDOM));
            }
        }
        let [from_owner, from_children, from_callers] = ready;
        if from_children.happened != 0 {
            // Once: what comes in meanwhile wakes the next round, and is not waited for in this one.
            let mut information = [0u8; 128];
            let _taken = sys::read(children, &mut information);
            service.reap();
        }
        if from_callers.happened != 0 {
            service.refuse();
        }
        if from_owner.happened != 0 {
            match link::receive(socket) {
                Ok(Some(message)) => service.obey(&message),
                Ok(None) | Err(_) => {
                    if !tree::is_alone() {
                        tree::kill_all(sys::process_id(), |_| false);
                        while let Ok((1.., _)) = sys::wait_any(false) {}
                    }
                    sys::exit(0)
                }
            }
        }
    }
}

impl Service {
    fn obey(&mut self, message: &Message) {
        match message.words {
            [EXEC, id, flags, bytes, size, ..] => self.start(Start { id, flags, bytes, size }, message),
            [SIGNAL, id, signal, ..] => self.signal(id, signal),
            [LEND, ..] => self.lend(),
            [REACH, port, ..] => {
                let reached = loopback::reach(port as u16);
                let errno = reached.map_or_else(|error| error.0, |()| 0);
                link::send(self.socket, &[REACHED, errno], None);
            }
            [CONNECT, id, port, family, ..] => self.connect(id, port, family),
            _ => {}
        }
        message.close();
    }

    fn start(&mut self, start: Start, message: &Message) {
        let id = start.id;
        let Some(place) = self.minders.get_mut(self.count) else {
            return link::send(
                self.socket,
                &[REFUSED, id, REFUSED_FORK, sys::EAGAIN.0],
                None,
            );
        };
        match sys::fork(false) {
            Ok(0) => {
                // It is process 1's alone.
                self.refusals.iter().for_each(Refusals::close);
                minder::run(self.socket, &start, message)
            }
            Ok(pid) => {
                *place = Minder { pid, id };
                self.count += 1;
            }
            Err(error) => link::send(self.socket, &[REFUSED, id, REFUSED_FORK, error.0], None),
        }
    }

    /// Refuses one call, and tells the owner which it was and of which command, before that goes on.
    fn refuse(&mut self) {
        let Some(refusals) = &mut self.refusals else {
            return;
        };
        if refusals.are_over() {
            // Before whoever waits goes on.
            link::send(self.socket, &[CALLS_OVER], None);
            refusals.close();
            self.refusals = None;
            return;
        }
        let Some(asked) = refusals.next() else {
            return;
        };
        let minders = self.minders.get(..self.count).unwrap_or(&[]);
        let of = tree::first_above(asked.pid, |pid| {
            minders.iter().position(|minder| minder.pid == pid)
        });
        let told = of.and_then(|place| self.told.of(place, MOST));
        if let (Some(Minder { id, .. }), Some(told)) = (of.and_then(|place| minders.get(place)), told) {
            // Whoever was killed meanwhile may have left its number to somebody else.
            if told.is_new(asked.call) && refusals.waits(&asked) {
                told.note(asked.call);
                let [number, first, second] = asked.call;
                link::send(self.socket, &[CALL_REFUSED, *id, number, first, second], None);
            }
        }
        refusals.refuse(&asked);
    }

    fn signal(&self, id: u32, signal: u32) {
        let Some(minder) = self.active().iter().find(|minder| minder.id == id) else {
            return;
        };
        if signal == tree::SIGKILL {
            tree::kill_all(minder.pid, |_| false);
        } else {
            tree::signal(minder.pid, signal, |_| false);
        }
    }

    /// Hands out a connection to a port inside; the owner's is the only one.
    fn connect(&self, id: u32, port: u32, family: u32) {
        match loopback::connect(port as u16, family == FAMILY_6) {
            Ok(socket) => {
                link::send(self.socket, &[CONNECTED, id, 0], Some(socket));
                sys::close(socket);
            }
            Err(error) => link::send(self.socket, &[CONNECTED, id, error.0], None),
        }
    }

    /// Minders stand in no directory that changes and hold none open; whatever else lives might.
    fn lend(&self) {
        let minders = self.active();
        let others = tree::living(|pid| minders.iter().any(|minder| minder.pid == pid));
        link::send(self.socket, &[LENT, others], Some(self.own));
    }

    fn active(&self) -> &[Minder] {
        self.minders.get(..self.count).unwrap_or(&[])
    }

    fn reap(&mut self) {
        while let Ok((pid @ 1.., status)) = sys::wait_any(false) {
            let Some(index) = self.active().iter().position(|minder| minder.pid == pid) else {
                continue;
            };
            self.count -= 1;
            self.told.forget(index, self.count);
            let last = self.minders.get(self.count).copied();
            let (Some(place), Some(last)) = (self.minders.get_mut(index), last) else {
                continue;
            };
            let id = core::mem::replace(place, last).id;
            // A minder tells the owner itself, and then exits with 0. One that was killed could
            // not, and what it minded is now a child of this process.
            if status != 0 {
                let minders = self.active();
                tree::kill_all(sys::process_id(), |pid| minders.iter().any(|minder| minder.pid == pid));
                link::send(self.socket, &[EXITED, id, KILLED], None);
            }
        }
    }

    fn enforce(&self, watch: &Watch) {
        let used = usage::look(watch);
        let struck = if used.bytes > watch.bytes {
            STRUCK_MEMORY
        } else if used.processes > watch.processes {
            STRUCK_PROCESSES
        } else {
            return;
        };
        link::send(self.socket, &[STRUCK, struck], None);
        tree::kill_everything();
    }
}
