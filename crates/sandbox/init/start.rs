//! The helper: one clone in namespaces of its own, whose parent is the owner. Those that hang on no plan
//! the helper makes for itself before it is given one, so that this can be done ahead; the rest come with
//! the clone.
//! For the kind `host` it makes none, and serves itself. As the first process of a container it stays
//! until its clone has ended, for the container ends with it; the network is the container's, and
//! nothing is made ahead.

use crate::link::{self, Message};
use crate::minder::PR_SET_PDEATHSIG;
use crate::seal;
use crate::serve;
use crate::setup::{self, Owner};
use crate::sys::{self, Errno, Result, nr};
use crate::switch;
use crate::text;
use crate::tree::SIGKILL;
use crate::wire::{
    AHEAD, BESIDE, ENDED, FAILED, MEETING, MEETING_SOCKET, PLAN, STAGE_CGROUP, STAGE_CLONE, STAGE_IDS, SWITCH,
    UNSEALED,
};

const CLONE_PARENT: u64 = 0x8000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const SIGCHLD: u64 = 17;
/// mount, cgroup, uts, ipc, user, pid
const NAMESPACES: u64 =
    0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000;
const CGROUP: u64 = 0x0200_0000;
const NETWORK: u64 = 0x4000_0000;
/// uts, ipc, user, network. Not the mounts: a copy of the host's that waits would keep every file system
/// of the host from being unmounted. Not the control groups: their namespace begins where its maker is.
const MADE_AHEAD: u64 = 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | NETWORK;

/// Where the socket is kept, out of the way of the standard streams.
const SOCKET_LEAST: usize = 16;

/// Runs as the owner started it: the socket is descriptor 0. Or as an engine did, as the first process
/// of a container: the owner waits at a place that both know.
pub fn run() -> ! {
    let contained = sys::process_id() == 1;
    let given = match contained {
        false => Ok(0),
        true => link::connect(MEETING_SOCKET),
    };
    let Ok(socket) = given.and_then(|given| sys::duplicate_above(given, SOCKET_LEAST)) else {
        sys::exit(2)
    };
    // Whatever the owner's own parent left open ends here.
    if sys::close_range(0, socket as u32 - 1).is_err()
        || sys::close_range(socket as u32 + 1, u32::MAX).is_err()
    {
        sys::exit(3)
    }
    sys::default_signals();
    let mut message = hear(socket);
    let made = match message.words {
        [AHEAD, score, ..] => {
            make_ahead(socket, score);
            message = hear(socket);
            MADE_AHEAD
        }
        _ => 0,
    };
    let (v1, v2, score, bytes) = match message.words {
        [PLAN, v1, v2, score, bytes, _] => (v1, v2, score, bytes),
        [UNSEALED, score, ..] => {
            prefer_for_the_kernel(score);
            serve::run_unsealed(socket)
        }
        [BESIDE, score, bytes, asking, ..] => {
            let Some(filter) = message.descriptor(0) else {
                sys::exit(6)
            };
            prefer_for_the_kernel(score);
            serve::run_beside(socket, filter, (bytes as usize, asking as usize))
        }
        [SWITCH, bytes, ..] => switch::run(socket, bytes as usize, &message),
        _ => sys::exit(5),
    };
    let Some(plan) = message.descriptor(0) else {
        sys::exit(6)
    };

    if made == 0 {
        give_groups_up();
        prefer_for_the_kernel(score);
    }

    for index in 1..=v1 as usize {
        let joined = message
            .descriptor(index)
            .map(|tasks| sys::write_all(tasks, b"0"));
        if let Some(Err(error)) = joined {
            link::fail(socket, STAGE_CGROUP, error, 0)
        }
    }
    let cgroup = if v2 > 0 {
        message.descriptor(1 + v1 as usize)
    } else {
        None
    };
    let unmapped = (made == 0).then(Owner::of_this);
    match clone(cgroup, contained, made) {
        Err(error @ sys::EACCES) if cgroup.is_some() => link::fail(socket, STAGE_CGROUP, error, 0),
        Err(error) => link::fail(socket, STAGE_CLONE, error, 0),
        Ok(0) => {
            for index in 1..message.count {
                message.descriptor(index).map(sys::close);
            }
            let place = if contained { MEETING } else { "/tmp" };
            setup::run(socket, plan, bytes as usize, unmapped, place)
        }
        Ok(_) => {
            if contained {
                outlast(socket)
            }
            sys::exit(0)
        }
    }
}

fn hear(socket: i32) -> Message {
    match link::receive(socket) {
        Ok(Some(message)) => message,
        _ => sys::exit(4),
    }
}

/// Makes what every sandbox of this owner has alike, and is from there on its user inside.
fn make_ahead(socket: i32, score: u32) {
    // A session of its own, so that a key in the owner's terminal does not end what waits.
    // SAFETY: touches no memory.
    let _led_already = unsafe { sys::call(nr::SETSID, []) };
    give_groups_up();
    prefer_for_the_kernel(score);
    let owner = Owner::of_this();
    // SAFETY: touches no memory.
    if let Err(error) = unsafe { sys::call(nr::UNSHARE, [MADE_AHEAD as usize]) } {
        fail_ahead(socket, STAGE_CLONE, error)
    }
    if let Err(error) = setup::become_inside_user(owner) {
        fail_ahead(socket, STAGE_IDS, error)
    }
    // For one that cannot see the owner's end, because somebody has stopped it. Not earlier: whoever
    // becomes another user has this no more.
    let _unasked = sys::prctl(PR_SET_PDEATHSIG, SIGKILL as usize, 0);
}

/// Says what failed, and ends when it has heard the plan: the kernel tells an owner of what was not heard,
/// and not of what was said before.
fn fail_ahead(socket: i32, stage: u32, error: Errno) -> ! {
    link::send(socket, &[FAILED, stage, error.0, 0], None);
    hear(socket);
    sys::exit(1)
}

/// Root gives its groups up; others cannot.
fn give_groups_up() {
    // SAFETY: no groups are given, so no memory is read.
    let _refused = unsafe { sys::call(nr::SETGROUPS, [0, 0]) };
}

/// Waits for the end of what was cloned, and tells the owner how that came about, with nothing else left to
/// be had from this process. The socket ends for the owner with this process.
fn outlast(socket: i32) -> ! {
    if sys::close_range(0, socket as u32 - 1).is_err()
        || sys::close_range(socket as u32 + 1, u32::MAX).is_err()
        || seal::give_up_what_is_held().is_err()
    {
        sys::exit(9)
    }
    while let Ok((_, status)) = sys::wait_any(true) {
        link::send(socket, &[ENDED, status], None);
    }
    sys::exit(0)
}

/// The host's kernel, short of memory, shall take what is inside before the owner.
fn prefer_for_the_kernel(score: u32) {
    let mut digits = [0; 10];
    let _unwritten = sys::write_file(
        text!("/proc/self/oom_score_adj"),
        decimal(score, &mut digits),
    );
}

/// `struct clone_args` of the kernel.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// `made`: the namespaces that this process has made for itself already.
fn clone(cgroup: Option<i32>, contained: bool, made: u64) -> Result<i32> {
    // The first process of a container cannot make siblings.
    let (how, exit_signal) = match contained {
        false => (NETWORK | CLONE_PARENT, 0),
        true => (0, SIGCHLD),
    };
    let flags = (NAMESPACES | how) & !made;
    let arguments = CloneArguments {
        flags: flags
            | if cgroup.is_some() {
                CLONE_INTO_CGROUP
            } else {
                0
            },
        exit_signal,
        cgroup: cgroup.map_or(0, |fd| fd as u64),
        ..CloneArguments::default()
    };
    let call = [
        sys::address(&raw const arguments),
        size_of::<CloneArguments>(),
    ];
    // SAFETY: without CLONE_VM the copy has its own memory.
    match unsafe { sys::call(nr::CLONE3, call) } {
        // An engine's filter may not know clone3; the older call cannot name a cgroup.
        Err(sys::ENOSYS) if cgroup.is_none() => {
            let older = |flags: u64| {
                // SAFETY: as above.
                unsafe { sys::call(nr::CLONE, [(flags | exit_signal) as usize, 0, 0, 0, 0]) }
            };
            match older(flags) {
                // Within a sandbox, where nobody makes one of control groups: there is none to see.
                Err(sys::EPERM) => older(flags & !CGROUP),
                other => other,
            }
        }
        other => other,
    }
    .map(|pid| pid as i32)
}

/// `value` in decimal digits.
pub fn decimal(value: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut rest = value;
    let mut at = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        at -= 1;
        if rest == 0 {
            break;
        }
    }
    digits.get(at..).unwrap_or(&[])
}
