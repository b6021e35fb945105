//! The calls of the kernel that a sandbox refuses: one table, for the [filter](crate::namespace) that
//! refuses them and for the names that a diagnosis gives them.
//!
//! Most are *told*: the filter has process 1 asked, which refuses them and says whose they were. Untold are
//! those that libraries try as a matter of course and go on without, so that they explain no failure and
//! should cost nothing:
//!
//! - the three of `io_uring`: libuv (Node), Rust's runtimes, databases;
//! - `keyctl`, `add_key`, `request_key`: Kerberos in git, curl and ssh, `pam`, runtimes of containers;
//! - `statmount`, `listmount`, `name_to_handle_at`: libmount, systemd's libraries, Go's tools;
//! - `kcmp`: Mesa and systemd's libraries, which compare descriptors;
//! - `move_pages`, `migrate_pages`: hwloc, MPI, and the JVM, which look for the memory's nodes;
//! - `process_madvise`, `memfd_secret`: allocators and libraries of cryptography;
//! - `adjtimex`, `clock_adjtime`: databases, which ask whether the clock is right;
//! - what only kernels of another age had: `uselib`, `ustat`, `sysfs`, `_sysctl`, `nfsservctl`,
//!   `lookup_dcookie`;
//! - sockets of other families than the internet's and `AF_PACKET`, and other protocols of `AF_NETLINK`:
//!   libusb, libudev, OpenSSL, `sudo` and systemd's libraries look whether they are there.

/// What a refused call reaches for, which decides what can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// Namespaces, mounts and names of the host.
    Namespaces,
    /// Other processes.
    Processes,
    /// Large parts of the kernel.
    Kernel,
    /// The machine, its clock and its devices.
    Machine,
    /// Files by their numbers on a file system.
    Handles,
    /// A terminal that others type into.
    Terminals,
    /// How a process is run.
    Personality,
    /// Networks below TCP and UDP.
    Sockets,
}

/// A call that is refused whatever its arguments are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    pub(crate) number: i64,
    constant: &'static str,
    /// Nothing of one that is not told.
    pub(crate) about: Option<About>,
}

impl Refused {
    /// As the kernel's documents call it.
    pub(crate) fn name(&self) -> &'static str {
        let name = self.constant.strip_prefix("SYS_");
        name.unwrap_or(self.constant)
    }
}

/// The numbers of calls.
mod numbers {
    pub(super) use libc::*;
    #[allow(non_upper_case_globals, reason = "as they are named in libc")]
    pub(super) const SYS_statmount: i64 = 457;
    #[allow(non_upper_case_globals, reason = "as they are named in libc")]
    pub(super) const SYS_listmount: i64 = 458;
}

macro_rules! calls {
    ($($about:expr => $($constant:ident)*;)*) => {
        &[$($(Refused {
            number: numbers::$constant,
            constant: stringify!($constant),
            about: $about,
        },)*)*]
    };
}

const UNTOLD: Option<About> = None;

/// Refused to everything inside.
#[rustfmt::skip]
pub(crate) const ALWAYS: &[Refused] = calls! {
    Some(About::Processes) =>
        SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_mrelease SYS_pidfd_getfd
        SYS_perf_event_open;
    Some(About::Kernel) => SYS_bpf SYS_userfaultfd SYS_fanotify_init;
    Some(About::Machine) =>
        SYS_kexec_load SYS_kexec_file_load SYS_init_module SYS_finit_module SYS_delete_module SYS_reboot
        SYS_swapon SYS_swapoff SYS_acct SYS_syslog SYS_vhangup SYS_quotactl SYS_quotactl_fd
        SYS_settimeofday SYS_clock_settime;
    Some(About::Handles) => SYS_open_by_handle_at;
    UNTOLD =>
        SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register
        SYS_keyctl SYS_add_key SYS_request_key
        SYS_statmount SYS_listmount SYS_name_to_handle_at
        SYS_kcmp SYS_move_pages SYS_migrate_pages SYS_process_madvise SYS_memfd_secret
        SYS_adjtimex SYS_clock_adjtime SYS_nfsservctl SYS_lookup_dcookie;
};

/// Refused besides, unless what runs inside may make namespaces of its own: without rights in one, the
/// kernel refuses them all the same.
#[rustfmt::skip]
pub(crate) const OF_NAMESPACES: &[Refused] = calls! {
    Some(About::Namespaces) =>
        SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_open_tree SYS_move_mount SYS_fsopen
        SYS_fsconfig SYS_fsmount SYS_fspick SYS_mount_setattr SYS_setns SYS_sethostname
        SYS_setdomainname;
};

/// Refused besides on this architecture.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub(crate) const HERE: &[Refused] = calls! {
    Some(About::Machine) => SYS_iopl SYS_ioperm SYS_modify_ldt;
    UNTOLD => SYS_uselib SYS_ustat SYS_sysfs SYS__sysctl;
};
#[cfg(target_arch = "aarch64")]
pub(crate) const HERE: &[Refused] = &[];

/// A value of an argument, and its name.
type Named = (u32, &'static str);

macro_rules! named {
    ($($constant:ident)*) => { &[$((libc::$constant as u32, stringify!($constant)),)*] };
}

/// `CLONE_NEWTIME`, which only `unshare` takes: in `clone` its bit belongs to the signal.
pub(crate) const NEW_TIME: Named = (0x80, "CLONE_NEWTIME");
/// `CLONE_NEWCGROUP`.
pub(crate) const NEW_CGROUP: u32 = libc::CLONE_NEWCGROUP as u32;

/// New namespaces that `clone` and `unshare` make.
pub(crate) const NAMESPACES: &[Named] = named! {
    CLONE_NEWUSER CLONE_NEWNS CLONE_NEWPID CLONE_NEWNET CLONE_NEWIPC CLONE_NEWUTS CLONE_NEWCGROUP
};

/// Requests of `ioctl`: they type for a terminal.
pub(crate) const TERMINALS: &[Named] = named! { TIOCSTI TIOCLINUX };

/// Families of sockets, of which some are refused and told.
const FAMILIES: &[Named] = named! { AF_INET AF_INET6 AF_PACKET };
const KINDS: &[Named] = named! { SOCK_RAW SOCK_RDM SOCK_SEQPACKET };
/// What is a socket's type, beside its flags.
pub(crate) const KIND: u32 = 0xf;

/// All bits of [`NAMESPACES`].
pub(crate) const fn all_namespaces() -> u32 {
    let (mut all, mut rest) = (0, NAMESPACES);
    while let [(bit, _), more @ ..] = rest {
        all |= *bit;
        rest = more;
    }
    all
}

/// A call of the kernel that a sandbox refused to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "Shown", into = "Shown")]
pub struct Call {
    number: u32,
    /// Those that decided, 0 else.
    arguments: [u32; 2],
}

/// A call for programs; the name is for those who read it.
#[derive(serde::Serialize, serde::Deserialize)]
struct Shown {
    #[serde(default)]
    name: String,
    number: u32,
    arguments: [u32; 2],
}

impl From<Shown> for Call {
    fn from(shown: Shown) -> Self {
        Self::new(shown.number, shown.arguments)
    }
}

impl From<Call> for Shown {
    fn from(call: Call) -> Self {
        Self {
            name: call.to_string(),
            number: call.number,
            arguments: call.arguments,
        }
    }
}

impl Call {
    /// As process 1 tells it. Numbers of the inside are hostile: any may come.
    pub(crate) fn new(number: u32, arguments: [u32; 2]) -> Self {
        let [first, second] = arguments;
        let arguments = match i64::from(number) {
            libc::SYS_clone => [first & all_namespaces(), 0],
            libc::SYS_unshare => [first & (all_namespaces() | NEW_TIME.0), 0],
            libc::SYS_ioctl | libc::SYS_personality => [first, 0],
            libc::SYS_socket => [first, second & KIND],
            _ => [0, 0],
        };
        Self { number, arguments }
    }

    /// The table's line of it, if it has one.
    fn line(self) -> Option<&'static Refused> {
        let mut all = ALWAYS.iter().chain(OF_NAMESPACES).chain(HERE);
        all.find(|refused| refused.number == i64::from(self.number))
    }

    /// What a person can do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        let about = match i64::from(self.number) {
            libc::SYS_clone | libc::SYS_unshare => {
                let [first, _] = self.arguments;
                if first & (NEW_CGROUP | NEW_TIME.0) != 0 {
                    return "namespaces of control groups and of time are in no sandbox: let the program go without";
                }
                Some(About::Namespaces)
            }
            libc::SYS_ioctl => Some(About::Terminals),
            libc::SYS_personality => Some(About::Personality),
            libc::SYS_socket => Some(About::Sockets),
            _ => self.line().and_then(|line| line.about),
        };
        match about {
            Some(About::Namespaces) => {
                "namespaces and mounts are made inside only of the kind `namespace`, run by an ordinary user, where `--nested` or `nested = true` in `[sandbox]` asks for it; elsewhere see whether the program can go without them"
            }
            Some(About::Processes) => {
                "no process of a sandbox looks into another: run it without the debugger, tracer or profiler (leaks: `ASAN_OPTIONS=detect_leaks=0`), or outside"
            }
            Some(About::Kernel) => {
                "that part of the kernel is in no sandbox: see whether the program can go without it"
            }
            Some(About::Machine) => {
                "what belongs to the machine is not changed from a sandbox: leave that step out, or do it outside"
            }
            Some(About::Handles) => {
                "files are opened by their paths in a sandbox: see whether the program can do that"
            }
            Some(About::Terminals) => {
                "nothing is typed for a terminal in a sandbox: let a person type it"
            }
            Some(About::Personality) => {
                "addresses stay as random as the kernel makes them: run it without `setarch`, or tell the program so"
            }
            Some(About::Sockets) => {
                "there are sockets of TCP and UDP, and none below them: use those"
            }
            None => "see whether the program can go without it",
        }
    }
}

impl std::fmt::Display for Call {
    /// As a manual names it: `mount`, `unshare(CLONE_NEWUSER)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [first, second] = self.arguments;
        match i64::from(self.number) {
            libc::SYS_clone => write!(f, "clone{}", Flags(first)),
            libc::SYS_unshare => write!(f, "unshare{}", Flags(first)),
            libc::SYS_ioctl => write!(f, "ioctl({})", Value(first, TERMINALS)),
            libc::SYS_personality => write!(f, "personality({first:#x})"),
            libc::SYS_socket => {
                let (family, kind) = (Value(first, FAMILIES), Value(second, KINDS));
                write!(f, "socket({family}, {kind})")
            }
            _ => match self.line() {
                Some(line) => f.write_str(line.name()),
                None => write!(f, "call {}", self.number),
            },
        }
    }
}

/// New namespaces in brackets, where there are some.
struct Flags(u32);

impl std::fmt::Display for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = NAMESPACES.iter().chain([&NEW_TIME]);
        let names: Vec<_> = all
            .filter(|(bit, _)| self.0 & bit != 0)
            .map(|(_, name)| *name)
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        write!(f, "({})", names.join("|"))
    }
}

/// A value by its name, or as a number.
struct Value(u32, &'static [Named]);

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.1.iter().find(|(value, _)| *value == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(number: i64, arguments: [u32; 2]) -> Call {
        Call::new(u32::try_from(number).unwrap(), arguments)
    }

    #[test]
    fn a_call_has_the_name_that_its_manual_has_and_something_to_do_about_it() {
        let user = libc::CLONE_NEWUSER.cast_unsigned();
        let raw = [libc::AF_INET.cast_unsigned(), 0x80003];
        for (call, name, remedy) in [
            (called(libc::SYS_mount, [7, 7]), "mount", "--nested"),
            (called(libc::SYS_ptrace, [0; 2]), "ptrace", "debugger"),
            (called(libc::SYS_reboot, [0; 2]), "reboot", "machine"),
            (
                called(libc::SYS_unshare, [user, 0]),
                "unshare(CLONE_NEWUSER)",
                "--nested",
            ),
            (
                called(libc::SYS_unshare, [0x80, 0]),
                "unshare(CLONE_NEWTIME)",
                "time",
            ),
            (
                called(libc::SYS_clone, [user | 0x2_0091, 9]),
                "clone(CLONE_NEWUSER|CLONE_NEWNS)",
                "--nested",
            ),
            (
                called(libc::SYS_ioctl, [0x5412, 9]),
                "ioctl(TIOCSTI)",
                "typed",
            ),
            (
                called(libc::SYS_personality, [0x4_0000, 9]),
                "personality(0x40000)",
                "random",
            ),
            (
                called(libc::SYS_socket, raw),
                "socket(AF_INET, SOCK_RAW)",
                "TCP",
            ),
        ] {
            assert_eq!(call.to_string(), name);
            assert!(call.remedy().contains(remedy), "{name}: {}", call.remedy());
        }
    }

    #[test]
    fn what_no_table_knows_is_told_as_a_number() {
        for number in [0, 999, u32::MAX] {
            let call = Call::new(number, [u32::MAX; 2]);
            assert_eq!(call.to_string(), format!("call {number}"));
            assert!(!call.remedy().is_empty());
        }
        let any = called(libc::SYS_socket, [u32::MAX; 2]);
        assert_eq!(any.to_string(), "socket(0xffffffff, 0xf)");
        assert_eq!(called(libc::SYS_clone, [17, 0]).to_string(), "clone");
    }

    #[test]
    fn a_call_is_the_same_after_it_was_written() {
        let call = called(libc::SYS_unshare, [libc::CLONE_NEWNET.cast_unsigned(), 0]);
        let written = Shown::from(call);
        assert_eq!(written.name, "unshare(CLONE_NEWNET)");
        assert_eq!(Call::from(written), call);
    }
}
