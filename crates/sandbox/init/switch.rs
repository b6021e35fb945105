//! The helper's other task: it puts other layers in the place of a running sandbox's workspaces.
//!
//! Process 1 has given up what that takes, so it is done from outside, by who may enter the sandbox's
//! user namespace: its owner. The layers are mounted in a mount namespace that nobody else sees, from
//! the host's paths; only the finished mount is moved into the sandbox. What is inside never gets at
//! this process: it is in no process list there, and nothing runs there meanwhile.

use crate::link::{self, Message};
use crate::minder::PR_SET_PDEATHSIG;
use crate::plan::Layers;
use crate::read::Reader;
use crate::steps;
use crate::sys::{self, Errno, Poll, Result, Text, nr};
use crate::text;
use crate::tree::SIGKILL;
use crate::wire::*;

const CLONE_NEWNS: usize = 0x0002_0000;
const CLONE_NEWUSER: usize = 0x1000_0000;

/// Carries the switch out, tells the owner, and ends.
pub fn run(socket: i32, bytes: usize, message: &Message) -> ! {
    let (Some(plan), Some(inside)) = (message.descriptor(0), message.descriptor(1)) else {
        sys::exit(6)
    };
    if let Err(error) = end_with_owner(socket) {
        link::fail(socket, STAGE_ENTER, error, 0)
    }
    let mapped = match sys::map(Some(plan), bytes, false) {
        Ok(mapped) => mapped,
        Err(error) => link::fail(socket, STAGE_ENTER, error, 1),
    };
    // SAFETY: the owner gave the file's length, and the mapping stays.
    let text = unsafe { core::slice::from_raw_parts(mapped, bytes) };
    match switch(text, inside) {
        Ok(()) => link::send(socket, &[SWITCHED], None),
        Err((stage, error)) => link::fail(socket, stage, error, 0),
    }
    sys::exit(0)
}

/// The layers belong to whoever owns the workspace's record: when the owner is killed, another may
/// take them over at once.
fn end_with_owner(socket: i32) -> Result<()> {
    const POLLHUP: i16 = 16;
    sys::prctl(PR_SET_PDEATHSIG, SIGKILL as usize, 0)?;
    let mut owner = [Poll {
        fd: socket,
        events: 0,
        happened: 0,
    }];
    sys::poll(&mut owner, Some(0))?;
    let [Poll { happened, .. }] = owner;
    if happened & POLLHUP != 0 {
        sys::exit(0)
    }
    Ok(())
}

fn switch(plan: &[u8], inside: i32) -> core::result::Result<(), (u32, Errno)> {
    let at = |stage| move |error| (stage, error);
    let mut reader = Reader::new(plan);
    let count = reader.word().map_err(|malformed| (STAGE_LAYERS, malformed.into()))?;
    if count > MOST_WORKSPACES {
        return Err((STAGE_LAYERS, sys::EINVAL));
    }
    enter_user_namespace(inside).map_err(at(STAGE_ENTER))?;
    // SAFETY: touches no memory.
    unsafe { sys::call(nr::UNSHARE, [CLONE_NEWNS]) }.map_err(at(STAGE_ENTER))?;
    // Kept open, so that this copy of the host's mounts is taken down after the owner has been told.
    let _kept = sys::open(text!("/proc/self/ns/mnt"), sys::O_RDONLY, 0).map_err(at(STAGE_ENTER))?;
    // All are mounted before the first is put in place: what the kernel refuses, it refuses here.
    let mut mounted = [None; MOST_WORKSPACES as usize];
    for place in mounted.iter_mut().take(count as usize) {
        let layers = Layers::read(&mut reader)
            .map_err(|malformed| (STAGE_LAYERS, malformed.into()))?;
        let tree = layers.mount(layers.upper).map_err(at(STAGE_LAYERS))?;
        *place = Some((tree, layers.target));
    }
    enter(inside, CLONE_NEWNS).map_err(at(STAGE_ENTER))?;
    let mut is_first = true;
    for (tree, target) in mounted.into_iter().flatten() {
        // Some of the old layers and some of the new are what nobody asked for.
        put(tree, target)
            .map_err(|(stage, error)| (if is_first { stage } else { STAGE_LOST }, error))?;
        is_first = false;
    }
    Ok(())
}

/// One mount stands at the target before and afterwards.
fn put(tree: i32, target: Text<'_>) -> core::result::Result<(), (u32, Errno)> {
    match steps::attach_beneath(tree, target) {
        Ok(()) => steps::unmount(target).map_err(|error| (STAGE_LOST, error)),
        // Before Linux 6.5 there is a moment without any.
        Err(sys::EINVAL) => {
            steps::unmount(target).map_err(|error| (STAGE_PLACE, error))?;
            steps::attach(tree, target).map_err(|error| (STAGE_LOST, error))
        }
        Err(error) => Err((STAGE_PLACE, error)),
    }
}

/// Enters the user namespace to which the mount namespace `inside` belongs.
fn enter_user_namespace(inside: i32) -> Result<()> {
    const NS_GET_USERNS: usize = 0xb701;
    // SAFETY: touches no memory.
    let user = unsafe { sys::call(nr::IOCTL, [inside as usize, NS_GET_USERNS]) }?;
    enter(user as i32, CLONE_NEWUSER)
}

fn enter(namespace: i32, kind: usize) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys::call(nr::SETNS, [namespace as usize, kind]) }.map(drop)
}
