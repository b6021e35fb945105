//! The filter of system calls (seccomp), as instructions of the kernel's packet filter.
//!
//! It allows by default and denies what reaches for other processes, for the kernel's configuration
//! or for new namespaces: an allow list would break a toolchain with every new kernel. What is newer
//! than the last number known here does not exist inside (`ENOSYS`), so that a new kernel brings no
//! new way out; C libraries fall back. The answers are `EPERM` for what is refused, and `ENOSYS` for
//! `clone3` (its flags lie in memory, where a filter cannot look), so that `clone` is used instead.
//!
//! Sockets: `AF_UNIX`; `AF_INET` and `AF_INET6` as streams or datagrams; and of `AF_NETLINK` only
//! the routing protocol, because `getifaddrs` of C libraries, Go and Node needs it. It is read-only
//! without capabilities, and shows the sandbox's own network alone.

/// Instructions, eight bytes each.
pub(super) type Program = Vec<u8>;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
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

/// All of `CLONE_NEW*` that `clone` takes.
const NEW_NAMESPACES: u32 = 0x7e02_0000;
/// `CLONE_NEWTIME`, which only `unshare` takes: in `clone` its bit belongs to the signal.
const NEW_TIME: u32 = 0x80;
/// `CLONE_NEWCGROUP`.
const NEW_CGROUP: u32 = 0x0200_0000;

/// Refused calls in a block of the filter.
const BLOCK: usize = 8;

/// Calls that are refused whatever their arguments are.
#[rustfmt::skip]
const REFUSED: &[i64] = &[
    // Mounts.
    457 /* statmount */, 458 /* listmount */,
    // Other processes.
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev,
    libc::SYS_process_madvise, libc::SYS_process_mrelease, libc::SYS_pidfd_getfd, libc::SYS_kcmp,
    libc::SYS_move_pages, libc::SYS_migrate_pages,
    // Keys.
    libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key,
    // Large parts of the kernel that nobody inside needs.
    libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_fanotify_init,
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    libc::SYS_memfd_secret,
    // The machine.
    libc::SYS_kexec_load, libc::SYS_kexec_file_load, libc::SYS_init_module,
    libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_reboot, libc::SYS_swapon,
    libc::SYS_swapoff, libc::SYS_acct, libc::SYS_syslog, libc::SYS_vhangup,
    libc::SYS_quotactl, 443 /* quotactl_fd */, libc::SYS_nfsservctl, libc::SYS_lookup_dcookie,
    // Files by their numbers on a file system.
    libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at,
    // Clocks.
    libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_adjtimex, libc::SYS_clock_adjtime,
];
/// Calls that are refused besides, unless what runs inside may make namespaces of its own: without
/// rights in one, the kernel refuses them all the same.
#[rustfmt::skip]
const OF_NAMESPACES: &[i64] = &[
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot,
    libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_fsopen, libc::SYS_fsconfig,
    libc::SYS_fsmount, libc::SYS_fspick, libc::SYS_mount_setattr, libc::SYS_setns,
    libc::SYS_sethostname, libc::SYS_setdomainname,
];
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const REFUSED_HERE: &[i64] = &[
    libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib, libc::SYS_ustat,
    libc::SYS_sysfs, libc::SYS__sysctl,
];
#[cfg(target_arch = "aarch64")]
const REFUSED_HERE: &[i64] = &[];

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

/// The filter for this architecture. `nested`: whether what runs inside may make namespaces of its own.
/// Never one of control groups: from its root, whose files may be the owner's, limits could be raised.
pub(super) fn program(nested: bool) -> Program {
    let (namespaces, calls) = match nested {
        false => (NEW_NAMESPACES, OF_NAMESPACES),
        true => (NEW_CGROUP, &[][..]),
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
    let refused = REFUSED.iter().chain(REFUSED_HERE).chain(calls);
    filter.if_any(refused.map(|call| number(*call)).collect(), refuse);
    filter.for_call(libc::SYS_clone, |block| {
        block.load(argument(0));
        block.if_any_bit(namespaces, refuse);
        block.answer(ALLOW);
    });
    filter.for_call(libc::SYS_unshare, |block| {
        block.load(argument(0));
        block.if_any_bit(namespaces | NEW_TIME, refuse);
        block.answer(ALLOW);
    });
    filter.for_call(libc::SYS_ioctl, |block| {
        block.load(argument(1));
        block.if_equal(number(libc::TIOCSTI as i64), refuse);
        block.if_equal(number(libc::TIOCLINUX as i64), refuse);
        block.answer(ALLOW);
    });
    filter.for_call(libc::SYS_personality, |block| {
        // Asking, and the ordinary one.
        block.load(argument(0));
        block.if_equal(u32::MAX, ALLOW);
        block.if_equal(0, ALLOW);
        block.answer(refuse);
    });
    filter.for_call(libc::SYS_socket, sockets);
    filter.for_call(libc::SYS_socketpair, |block| {
        block.load(argument(0));
        block.if_equal(number(libc::AF_UNIX.into()), ALLOW);
        block.answer(refuse);
    });
    filter.answer(ALLOW);
    filter.0
}

fn sockets(block: &mut Assembler) {
    const KIND: u32 = 0xf;
    let refuse = errno(libc::EPERM);
    block.load(argument(0));
    block.if_equal(number(libc::AF_UNIX.into()), ALLOW);
    // Netlink: the routing protocol only.
    block.instruction(JUMP_EQUAL, 0, 4, number(libc::AF_NETLINK.into()));
    block.load(argument(2));
    block.if_equal(number(libc::NETLINK_ROUTE.into()), ALLOW);
    block.answer(refuse);
    // The internet: streams and datagrams only.
    block.instruction(JUMP_EQUAL, 2, 0, number(libc::AF_INET.into()));
    block.instruction(JUMP_EQUAL, 1, 0, number(libc::AF_INET6.into()));
    block.answer(errno(libc::EAFNOSUPPORT));
    block.load(argument(1));
    block.instruction(AND, 0, 0, KIND);
    block.if_equal(number(libc::SOCK_STREAM.into()), ALLOW);
    block.if_equal(number(libc::SOCK_DGRAM.into()), ALLOW);
    block.answer(refuse);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would.
    fn judge(architecture: u32, call: i64, arguments: &[u64]) -> u32 {
        judge_by(&program(false), architecture, call, arguments)
    }

    fn judge_by(program: &[u8], architecture: u32, call: i64, arguments: &[u64]) -> u32 {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&(call as u32).to_ne_bytes());
        data[4..8].copy_from_slice(&architecture.to_ne_bytes());
        for (index, value) in arguments.iter().enumerate() {
            data[16 + 8 * index..24 + 8 * index].copy_from_slice(&value.to_ne_bytes());
        }
        let (mut at, mut value) = (0, 0u32);
        loop {
            let code = &program[at * 8..at * 8 + 8];
            let operand = u32::from_ne_bytes(code[4..8].try_into().unwrap());
            let jump = |yes: bool| at + 1 + usize::from(if yes { code[2] } else { code[3] });
            match u16::from_ne_bytes(code[0..2].try_into().unwrap()) {
                LOAD => {
                    let from = operand as usize;
                    value = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                    at += 1;
                }
                AND => {
                    value &= operand;
                    at += 1;
                }
                JUMP_EQUAL => at = jump(value == operand),
                JUMP_GREATER => at = jump(value > operand),
                JUMP_AT_LEAST => at = jump(value >= operand),
                JUMP_ANY_BIT => at = jump(value & operand != 0),
                RETURN => return operand,
                other => panic!("unknown instruction {other}"),
            }
        }
    }

    fn here(call: i64, arguments: &[i64]) -> u32 {
        let arguments: Vec<_> = arguments.iter().map(|value| *value as u64).collect();
        judge(ARCHITECTURE, call, &arguments)
    }

    #[test]
    fn ordinary_calls_are_allowed() {
        for call in [
            libc::SYS_read,
            libc::SYS_execve,
            libc::SYS_openat,
            libc::SYS_futex,
        ] {
            assert_eq!(here(call, &[]), ALLOW, "{call}");
        }
        assert_eq!(here(libc::SYS_clone, &[0x3d0f00]), ALLOW, "a thread");
        assert_eq!(here(libc::SYS_clone, &[17]), ALLOW, "a process");
        assert_eq!(
            here(libc::SYS_ioctl, &[0, 0x5401]),
            ALLOW,
            "a terminal's settings"
        );
        assert_eq!(here(libc::SYS_personality, &[0xffff_ffff]), ALLOW);
        assert_eq!(here(libc::SYS_unshare, &[0x400]), ALLOW, "files");
    }

    #[test]
    fn ways_out_are_refused() {
        let refused = errno(libc::EPERM);
        for call in REFUSED.iter().chain(REFUSED_HERE).chain(OF_NAMESPACES) {
            assert_eq!(here(*call, &[]), refused, "{call}");
        }
        for namespace in [
            libc::CLONE_NEWNS,
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWCGROUP,
        ] {
            assert_eq!(here(libc::SYS_clone, &[i64::from(namespace) | 17]), refused);
            assert_eq!(here(libc::SYS_unshare, &[i64::from(namespace)]), refused);
        }
        assert_eq!(here(libc::SYS_unshare, &[0x80]), refused);
        assert_eq!(
            here(libc::SYS_ioctl, &[0, 0x5412]),
            refused,
            "typing for a terminal"
        );
        let with_high_bits = 0x5412 | 1 << 40;
        assert_eq!(here(libc::SYS_ioctl, &[0, with_high_bits]), refused);
        assert_eq!(here(libc::SYS_personality, &[0x0004_0000]), refused);
    }

    #[test]
    fn no_other_call_is_refused_whatever_its_arguments() {
        let ruled = [
            libc::SYS_clone3,
            libc::SYS_clone,
            libc::SYS_unshare,
            libc::SYS_ioctl,
            libc::SYS_personality,
            libc::SYS_socket,
            libc::SYS_socketpair,
        ];
        let known = REFUSED.iter().chain(REFUSED_HERE).chain(OF_NAMESPACES);
        let known = known.chain(&ruled);
        let known: std::collections::BTreeSet<_> = known.collect();
        for call in 0..=i64::from(LAST_KNOWN) {
            if !known.contains(&call) {
                assert_eq!(here(call, &[]), ALLOW, "{call}");
            }
        }
    }

    #[test]
    fn where_namespaces_may_be_made_nothing_else_is_allowed_besides() {
        let (usual, nested) = (program(false), program(true));
        let by = |program: &[u8], call: i64, first: u64| {
            judge_by(program, ARCHITECTURE, call, &[first, 0x5412])
        };
        for call in OF_NAMESPACES {
            assert_eq!(by(&nested, *call, 0), ALLOW, "{call}");
        }
        for call in (0..=500).filter(|call| !OF_NAMESPACES.contains(call)) {
            let same = by(&nested, call, 17) == by(&usual, call, 17);
            assert!(same, "{call}");
        }
        let refused = errno(libc::EPERM);
        for call in [libc::SYS_clone, libc::SYS_unshare] {
            assert_eq!(by(&nested, call, 0x1002_0000), ALLOW, "a user, with mounts");
            assert_eq!(
                by(&nested, call, 0x1200_0000),
                refused,
                "and a control group"
            );
        }
        assert_eq!(by(&nested, libc::SYS_unshare, 0x80), refused, "time");
        assert_eq!(by(&nested, libc::SYS_clone3, 0), errno(libc::ENOSYS));
    }

    #[test]
    fn what_cannot_be_judged_does_not_exist() {
        assert_eq!(here(libc::SYS_clone3, &[]), errno(libc::ENOSYS));
        assert_eq!(here(467, &[]), errno(libc::ENOSYS));
        assert_eq!(here(100_000, &[]), errno(libc::ENOSYS));
    }

    #[test]
    fn another_architectures_calls_end_the_process() {
        assert_eq!(judge(0x4000_0003, 1, &[]), KILL_PROCESS);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(here(0x4000_0000, &[]), KILL_PROCESS);
    }

    #[test]
    fn only_harmless_sockets_are_made() {
        let socket = |family: i32, kind: i32, protocol: i32| {
            here(
                libc::SYS_socket,
                &[family.into(), kind.into(), protocol.into()],
            )
        };
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        for (family, kind, protocol) in [
            (libc::AF_UNIX, libc::SOCK_STREAM, 0),
            (libc::AF_INET, libc::SOCK_STREAM | flags, 0),
            (libc::AF_INET6, libc::SOCK_DGRAM, 0),
            (
                libc::AF_NETLINK,
                libc::SOCK_RAW | flags,
                libc::NETLINK_ROUTE,
            ),
        ] {
            assert_eq!(
                socket(family, kind, protocol),
                ALLOW,
                "{family} {kind} {protocol}"
            );
        }
        for (family, kind, protocol) in [
            (libc::AF_INET, libc::SOCK_RAW, 1),
            (libc::AF_PACKET, libc::SOCK_RAW, 0),
            (libc::AF_VSOCK, libc::SOCK_STREAM, 0),
            (libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
            (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT),
        ] {
            assert_ne!(
                socket(family, kind, protocol),
                ALLOW,
                "{family} {kind} {protocol}"
            );
        }
    }
}
