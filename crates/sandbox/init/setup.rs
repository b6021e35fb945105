//! Process 1 before it serves: identity, a fresh root, the owner's plan, the seal.

use crate::link;
use crate::start::decimal;
use crate::steps::{self, Done, append_bytes};
use crate::sys::{self, Result, Text, nr};
use crate::wire::{BORN, OLD_ROOT, READY, STAGE_CLONE, STAGE_IDS, STAGE_ROOT, STAGE_SEAL};
use crate::{seal, serve, text};

/// Who commands are inside.
const INSIDE_ID: u32 = 1000;

/// Whom the user inside stands for.
#[derive(Clone, Copy)]
pub struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    /// Of this process, as long as it has not become the user inside.
    pub fn of_this() -> Self {
        // SAFETY: these two cannot fail and touch no memory.
        let id = |call| unsafe { sys::call(call, []) }.unwrap_or(0) as u32;
        Self {
            user: id(nr::GETEUID),
            group: id(nr::GETEGID),
        }
    }
}

/// Sets everything up as `plan` says, tells the owner, and serves. `owner` is whom to become the user
/// inside for, unless this process is that already; `place` a directory that is there, on which the new
/// root is mounted.
pub fn run(socket: i32, plan: i32, bytes: usize, owner: Option<Owner>, place: &str) -> ! {
    if let Err(error) = tell_birth(socket) {
        link::fail(socket, STAGE_CLONE, error, 1)
    }
    if let Some(Err(error)) = owner.map(become_inside_user) {
        link::fail(socket, STAGE_IDS, error, 0)
    }
    // SAFETY: these touch no memory.
    unsafe {
        let _always = sys::call(nr::UMASK, [0o022]);
        // A helper that waited leads a session; its clone does not.
        let _always = sys::call(nr::SETSID, []);
    }
    // To be lent to the owner: what is sealed cannot be entered by its number any more.
    let own = match sys::open(text!("/proc/self/ns/mnt"), sys::O_RDONLY, 0) {
        Ok(own) => own,
        Err(error) => link::fail(socket, STAGE_ROOT, error, 2),
    };
    if let Err(error) = fresh_root(place) {
        link::fail(socket, STAGE_ROOT, error, 0)
    }
    let mapped = match sys::map(Some(plan), bytes, false) {
        Ok(mapped) => mapped,
        Err(error) => link::fail(socket, STAGE_ROOT, error, 1),
    };
    sys::close(plan);
    let mut done = Done::new();
    // SAFETY: the owner gave the file's length; the mapping lives until it is unmapped below.
    let text = unsafe { core::slice::from_raw_parts(mapped, bytes) };
    steps::carry_out(text, &mut done, socket);
    // SAFETY: nothing of the plan is used any more.
    unsafe { sys::unmap(mapped, bytes) };
    if let Err(error) = seal::undumpable() {
        link::fail(socket, STAGE_SEAL, error, 0)
    }
    let told = u32::from(done.refusals.is_some());
    link::send(socket, &[READY, u32::from(done.port), told], done.listener);
    if let Some(listener) = done.listener {
        sys::close(listener);
    }
    serve::run(socket, own, done.watch, done.refusals)
}

/// Tells the owner who this is. The helper could, but may be killed before it has.
fn tell_birth(socket: i32) -> Result<()> {
    let own = sys::process_id() as usize;
    // SAFETY: touches no memory.
    let pidfd = unsafe { sys::call(nr::PIDFD_OPEN, [own, 0]) }? as i32;
    link::send(socket, &[BORN], Some(pidfd));
    sys::close(pidfd);
    Ok(())
}

/// Maps the one user inside to the owner, and becomes it.
pub fn become_inside_user(owner: Owner) -> Result<()> {
    sys::write_file(text!("/proc/self/setgroups"), b"deny")?;
    write_map(text!("/proc/self/gid_map"), owner.group)?;
    write_map(text!("/proc/self/uid_map"), owner.user)?;
    let id = INSIDE_ID as usize;
    // SAFETY: these touch no memory.
    unsafe {
        sys::call(nr::SETRESGID, [id, id, id])?;
        sys::call(nr::SETRESUID, [id, id, id])?;
    }
    Ok(())
}

/// Writes the one line "inside outside 1".
fn write_map(path: Text<'_>, outside: u32) -> Result<()> {
    let mut line = [b' '; 32];
    let mut at = 0;
    for value in [INSIDE_ID, outside, 1] {
        let mut digits = [0; 10];
        for digit in decimal(value, &mut digits) {
            if let Some(place) = line.get_mut(at) {
                *place = *digit;
            }
            at += 1;
        }
        at += 1;
    }
    sys::write_file(path, line.get(..at).unwrap_or(&[]))
}

/// An empty root in memory; the host's root stays at [`OLD_ROOT`] until the plan detaches it.
fn fresh_root(place: &str) -> Result<()> {
    const MS_NOSUID_NODEV: usize = 2 | 4;
    const MS_REC_PRIVATE: usize = 0x4000 | 0x4_0000;
    let mut path = [0; 16];
    append_bytes(0, &mut path, place.as_bytes());
    let (root, place) = (text!("/"), Text::new(&path));
    let options = text!("size=4m,mode=0755");
    // SAFETY: all texts end with a zero byte.
    unsafe {
        sys::call(nr::MOUNT, [0, root.pointer(), 0, MS_REC_PRIVATE, 0])?;
        let kind = text!("tmpfs").pointer();
        sys::call(
            nr::MOUNT,
            [
                kind,
                place.pointer(),
                kind,
                MS_NOSUID_NODEV,
                options.pointer(),
            ],
        )?;
    }
    sys::change_directory(place)?;
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().zip(OLD_ROOT.bytes().skip(1)) {
        *to = from;
    }
    let old = Text::new(&name);
    sys::make_directory(old, 0o700)?;
    // SAFETY: both texts end with a zero byte.
    unsafe { sys::call(nr::PIVOT_ROOT, [text!(".").pointer(), old.pointer()]) }?;
    sys::change_directory(root)
}
