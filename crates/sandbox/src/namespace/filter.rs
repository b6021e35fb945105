//! The filter of system calls (seccomp), as instructions of the kernel's packet filter.
//!
//! It allows by default and denies what reaches for other processes, for the kernel's configuration
//! or for new namespaces: an allow list would break a toolchain with every new kernel. What is newer
//! than the last number known here does not exist inside (`ENOSYS`), so that a new kernel brings no
//! new way out; C libraries fall back. The answers are `EPERM` for what is refused, and `ENOSYS` for
//! `clone3` (its flags lie in memory, where a filter cannot look), so that `clone` is used instead.
//!
//! Which are refused is said in [`crate::calls`]. Of those that are told there the kernel asks process 1
//! (`init/refusals.rs`), whose answer is `EPERM` always: it names them, and decides nothing.
//!
//! Sockets: `AF_UNIX`; `AF_INET` and `AF_INET6` as streams or datagrams; and of `AF_NETLINK` only
//! the routing protocol, because `getifaddrs` of C libraries, Go and Node needs it. It is read-only
//! without capabilities, and shows the sandbox's own network alone.

use crate::calls::{self, Refused};

/// Instructions, eight bytes each.
pub(super) type Program = Vec<u8>;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
/// The listener is asked (`SECCOMP_RET_USER_NOTIF`).
const ASK: u32 = 0x7fc0_0000;
const fn errno(number: i32) -> u32 {
    0x0005_0000 | number as u32
}

/// The largest number that is looked at: `removexattrat`, the same on all architectures.
const LAST_KNOWN: u32 = 466;
/// Numbers from here on belong to the x32 interface.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`; of an argument, the half that counts (both architectures are
/// little-endian, and the kernel takes these arguments as 32-bit numbers).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// Refused calls in a block of the filter.
const BLOCK: usize = 8;

/// A filter in the making. All jumps are over what follows at once, so that no label is needed.
#[derive(Default)]
struct Assembler(Program);

impl Assembler {
    fn instruction(&mut self, code: u16, if_true: u8, if_false: u8, value: u32) {
        self.0.extend_from_slice(&code.to_ne_bytes());
        self.0.extend_from_slice(&[if_true, if_false]);
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    fn load(&mut self, offset: u32) {
        self.instruction(LOAD, 0, 0, offset);
    }

    fn answer(&mut self, action: u32) {
        self.instruction(RETURN, 0, 0, action);
    }

    /// `action` if what is loaded equals `value`.
    fn if_equal(&mut self, value: u32, action: u32) {
        self.instruction(JUMP_EQUAL, 0, 1, value);
        self.answer(action);
    }

    /// `action` unless what is loaded equals `value`.
    fn unless_equal(&mut self, value: u32, action: u32) {
        self.instruction(JUMP_EQUAL, 1, 0, value);
        self.answer(action);
    }

    fn if_greater(&mut self, value: u32, action: u32) {
        self.instruction(JUMP_GREATER, 0, 1, value);
        self.answer(action);
    }

    fn if_any_bit(&mut self, bits: u32, action: u32) {
        self.instruction(JUMP_ANY_BIT, 0, 1, bits);
        self.answer(action);
    }

    /// `action` if what is loaded is one of these values. In blocks of neighbours, past which most
    /// values jump: when the filter is installed, the kernel tries it with every number.
    fn if_any(&mut self, mut values: Vec<u32>, action: u32) {
        values.sort_unstable();
        for block in values.chunks(BLOCK) {
            let (Some(first), Some(last)) = (block.first(), block.last()) else {
                continue;
            };
            // A block is far shorter than a jump can be.
            let mut left = u8::try_from(block.len()).unwrap_or(u8::MAX);
            self.instruction(JUMP_GREATER, left + 2, 0, *last);
            self.instruction(JUMP_AT_LEAST, 0, left + 1, *first);
            for value in block {
                left -= 1;
                self.instruction(JUMP_EQUAL, left, u8::from(left == 0), *value);
            }
            self.answer(action);
        }
    }

    /// `block`, which must end with an answer, if the call's number is `call`.
    fn for_call(&mut self, call: i64, block: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        block(&mut inner);
        // A block has a dozen instructions; a jump reaches over 255.
        let length = u8::try_from(inner.0.len() / 8).unwrap_or(u8::MAX);
        self.instruction(JUMP_EQUAL, 0, length, number(call));
        self.0.extend_from_slice(&inner.0);
    }
}

fn number(call: i64) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// Two filters for this architecture that refuse the same calls.
pub(super) struct Filters {
    /// Process 1 is asked about calls that are told; empty where it is not to be.
    pub(super) asking: Program,
    /// Nobody is asked.
    pub(super) plain: Program,
}

/// `nested`: whether what runs inside may make namespaces of its own. Something there may want to be asked
/// about calls itself, as engines of containers do, and the kernel asks one alone.
pub(super) fn filters(nested: bool) -> Filters {
    let plain = program(nested, errno(libc::EPERM));
    let asking = match nested {
        true => Program::new(),
        false => program(nested, ASK),
    };
    Filters { asking, plain }
}

/// Where told calls are answered by `told`. With `nested`, never a namespace of control groups: from its
/// root, whose files may be the owner's, limits could be raised.
fn program(nested: bool, told: u32) -> Program {
    let (namespaces, calls) = match nested {
        false => (calls::all_namespaces(), calls::OF_NAMESPACES),
        true => (calls::NEW_CGROUP, &[][..]),
    };
    let refuse = errno(libc::EPERM);
    let mut filter = Assembler::default();
    filter.load(ARCH);
    filter.unless_equal(ARCHITECTURE, KILL_PROCESS);
    filter.load(NUMBER);
    #[cfg(target_arch = "x86_64")]
    {
        // -1 is a call that a tracer has cancelled; it does nothing.
        filter.if_equal(u32::MAX, errno(libc::ENOSYS));
        filter.if_any_bit(X32, KILL_PROCESS);
    }
    filter.if_greater(LAST_KNOWN, errno(libc::ENOSYS));
    filter.if_equal(number(libc::SYS_clone3), errno(libc::ENOSYS));
    let refused = calls::ALWAYS.iter().chain(calls::HERE).chain(calls);
    let (loud, quiet): (Vec<_>, Vec<_>) = refused.partition(|call| call.about.is_some());
    let numbers = |calls: Vec<&Refused>| calls.iter().map(|call| number(call.number)).collect();
    filter.if_any(numbers(loud), told);
    filter.if_any(numbers(quiet), refuse);
    filter.for_call(libc::SYS_clone, |block| {
        block.load(argument(0));
        block.if_any_bit(namespaces, told);
        block.answer(ALLOW);
    });
    filter.for_call(libc::SYS_unshare, |block| {
        block.load(argument(0));
        block.if_any_bit(namespaces | calls::NEW_TIME.0, told);
        block.answer(ALLOW);
    });
    filter.for_call(libc::SYS_ioctl, |block| {
        block.load(argument(1));
        for (request, _) in calls::TERMINALS {
            block.if_equal(*request, told);
        }
        block.answer(ALLOW);
    });
    filter.for_call(libc::SYS_personality, |block| {
        // Asking, and the ordinary one.
        block.load(argument(0));
        block.if_equal(u32::MAX, ALLOW);
        block.if_equal(0, ALLOW);
        block.answer(told);
    });
    filter.for_call(libc::SYS_socket, |block| sockets(block, told));
    filter.for_call(libc::SYS_socketpair, |block| {
        block.load(argument(0));
        block.if_equal(number(libc::AF_UNIX.into()), ALLOW);
        block.answer(refuse);
    });
    filter.answer(ALLOW);
    filter.0
}

fn sockets(block: &mut Assembler, told: u32) {
    block.load(argument(0));
    block.if_equal(number(libc::AF_UNIX.into()), ALLOW);
    block.if_equal(number(libc::AF_PACKET.into()), told);
    // Netlink: the routing protocol only.
    block.instruction(JUMP_EQUAL, 0, 4, number(libc::AF_NETLINK.into()));
    block.load(argument(2));
    block.if_equal(number(libc::NETLINK_ROUTE.into()), ALLOW);
    block.answer(errno(libc::EPERM));
    // The internet: streams and datagrams only.
    block.instruction(JUMP_EQUAL, 2, 0, number(libc::AF_INET.into()));
    block.instruction(JUMP_EQUAL, 1, 0, number(libc::AF_INET6.into()));
    block.answer(errno(libc::EAFNOSUPPORT));
    block.load(argument(1));
    block.instruction(AND, 0, 0, calls::KIND);
    block.if_equal(number(libc::SOCK_STREAM.into()), ALLOW);
    block.if_equal(number(libc::SOCK_DGRAM.into()), ALLOW);
    block.answer(told);
}

#[cfg(test)]
mod tests;
