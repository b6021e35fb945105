//! System calls that reach out: each succeeds outside and is refused inside.

use skep_sandbox::Mount;

use crate::room::{Room, is_root, this_program};

const CALL: &str = "SKEP_TEST_CALL";

/// A call, and whether an ordinary user may make it outside.
struct Attempt {
    name: &'static str,
    for_everyone: bool,
    /// Whether a kernel may be built without it, so that it cannot be seen to work there.
    built_in: bool,
    make: fn() -> libc::c_long,
}

const fn everyone(name: &'static str, make: fn() -> libc::c_long) -> Attempt {
    Attempt {
        name,
        for_everyone: true,
        built_in: true,
        make,
    }
}

const fn root(name: &'static str, make: fn() -> libc::c_long) -> Attempt {
    Attempt {
        name,
        for_everyone: false,
        built_in: true,
        make,
    }
}

const fn module(name: &'static str, make: fn() -> libc::c_long) -> Attempt {
    Attempt {
        built_in: false,
        ..everyone(name, make)
    }
}

macro_rules! call {
    ($number:expr $(, $argument:expr)*) => {
        // SAFETY: every pointer among the arguments is null, static, or to a live local.
        unsafe { libc::syscall($number $(, $argument as libc::c_long)*) }
    };
}

const ATTEMPTS: &[Attempt] = &[
    everyone("unshare user", || {
        call!(libc::SYS_unshare, libc::CLONE_NEWUSER)
    }),
    root("unshare mount", || {
        call!(libc::SYS_unshare, libc::CLONE_NEWNS)
    }),
    root("unshare time", || call!(libc::SYS_unshare, 0x80)),
    root("mount", || {
        // In a namespace of its own outside, so that the host keeps its mounts.
        if call!(libc::SYS_unshare, libc::CLONE_NEWNS) != 0 {
            return -1;
        }
        call!(
            libc::SYS_mount,
            c"tmpfs".as_ptr(),
            c"/tmp".as_ptr(),
            c"tmpfs".as_ptr(),
            0,
            0
        )
    }),
    root("fsopen", || call!(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0)),
    root("open_tree", || {
        call!(libc::SYS_open_tree, libc::AT_FDCWD, c"/".as_ptr(), 1)
    }),
    root("chroot", || call!(libc::SYS_chroot, c"/".as_ptr())),
    everyone("setns", || {
        // One's own namespace of time names: a change to itself needs rights, so a process's is
        // asked about with no kind at all, which is refused as invalid only after the door.
        let pidfd = call!(libc::SYS_pidfd_open, own_pid(), 0);
        match call!(libc::SYS_setns, pidfd, 0) {
            -1 if last_error() == libc::EINVAL => 0,
            other => other,
        }
    }),
    everyone("ptrace", || {
        call!(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0)
    }),
    everyone("process_vm_readv", || {
        let mut to = [0u8; 4];
        let from = [1u8; 4];
        let local = libc::iovec {
            iov_base: to.as_mut_ptr().cast(),
            iov_len: 4,
        };
        let remote = libc::iovec {
            iov_base: from.as_ptr().cast_mut().cast(),
            iov_len: 4,
        };
        call!(
            libc::SYS_process_vm_readv,
            own_pid(),
            &raw const local,
            1,
            &raw const remote,
            1,
            0
        )
    }),
    everyone("kcmp", || {
        call!(libc::SYS_kcmp, own_pid(), own_pid(), 0, 0, 1)
    }),
    everyone("pidfd_getfd", || {
        let pidfd = call!(libc::SYS_pidfd_open, own_pid(), 0);
        call!(libc::SYS_pidfd_getfd, pidfd, 0, 0)
    }),
    everyone("keyctl", || call!(libc::SYS_keyctl, 0, -3, 1)),
    everyone("add_key", || {
        call!(
            libc::SYS_add_key,
            c"user".as_ptr(),
            c"skep-test".as_ptr(),
            c"x".as_ptr(),
            1,
            -1
        )
    }),
    root("bpf", || {
        // A map: array, keys and values of four bytes, one entry.
        let attributes = [2u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        call!(libc::SYS_bpf, 0, attributes.as_ptr(), 72)
    }),
    root("perf_event_open", || {
        // Software, its size, the clock of the task.
        let attributes = [1u32, 64, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        call!(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0)
    }),
    everyone("userfaultfd", || call!(libc::SYS_userfaultfd, 1)),
    everyone("io_uring_setup", || {
        let parameters = [0u32; 30];
        call!(libc::SYS_io_uring_setup, 1, parameters.as_ptr())
    }),
    everyone("name_to_handle_at", || {
        let mut handle = [0u32; 34];
        handle[0] = 128;
        let mut mount = 0i32;
        call!(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            c"/usr".as_ptr(),
            handle.as_mut_ptr(),
            &raw mut mount,
            0
        )
    }),
    everyone("personality", || call!(libc::SYS_personality, 0x0004_0000)),
    everyone("another netlink protocol", || {
        call!(
            libc::SYS_socket,
            libc::AF_NETLINK,
            libc::SOCK_RAW,
            libc::NETLINK_KOBJECT_UEVENT
        )
    }),
    module("vsock socket", || {
        call!(libc::SYS_socket, libc::AF_VSOCK, libc::SOCK_STREAM, 0)
    }),
    module("alg socket", || {
        call!(libc::SYS_socket, libc::AF_ALG, libc::SOCK_SEQPACKET, 0)
    }),
    module("bluetooth socket", || {
        call!(libc::SYS_socket, libc::AF_BLUETOOTH, libc::SOCK_RAW, 1)
    }),
    module("can socket", || {
        call!(libc::SYS_socket, libc::AF_CAN, libc::SOCK_DGRAM, 2)
    }),
    root("raw socket", || {
        call!(libc::SYS_socket, libc::AF_INET, libc::SOCK_RAW, 1)
    }),
    root("packet socket", || {
        call!(libc::SYS_socket, libc::AF_PACKET, libc::SOCK_RAW, 0)
    }),
    root("set the clock by nothing", || {
        call!(libc::SYS_adjtimex, [0u64; 64].as_mut_ptr())
    }),
    root("syslog", || call!(libc::SYS_syslog, 10, 0, 0)),
    root("name the host", || {
        if call!(libc::SYS_unshare, libc::CLONE_NEWUTS) != 0 {
            return -1;
        }
        call!(libc::SYS_sethostname, c"x".as_ptr(), 1)
    }),
];

fn own_pid() -> u32 {
    std::process::id()
}

fn last_error() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[test]
#[ignore = "makes the call that another test names, in a process of its own"]
fn one_call() {
    let name = std::env::var(CALL).unwrap();
    let attempt = ATTEMPTS
        .iter()
        .find(|attempt| attempt.name == name)
        .unwrap();
    // In a child, which has one thread only: some calls are refused to programs with several.
    // SAFETY: the child makes one call and ends at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = if (attempt.make)() < 0 {
            last_error()
        } else {
            0
        };
        // SAFETY: ends the child; nothing of it is used afterwards.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the status is a live local.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    println!("\n{name}: error {}", libc::WEXITSTATUS(status));
    assert_eq!(status, 0);
}

#[tokio::test]
async fn calls_that_reach_out_are_refused() {
    let program = std::env::current_exe().unwrap();
    // Not at its own path: that may be in a home that is not the sandbox's.
    let room = Room::with(|spec| spec.mounts.push(Mount::read_only(&program, "/opt/test"))).await;
    let is_nested = crate::nested::is_asked_for();
    let allowed = |name: &str| is_nested && ["unshare user", "setns"].contains(&name);
    for attempt in ATTEMPTS.iter().filter(|attempt| !allowed(attempt.name)) {
        if attempt.for_everyone || is_root() {
            let outside = this_program("system_calls::one_call")
                .env(CALL, attempt.name)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&outside.stdout).into_owned();
            let absent = format!("{}: error {}\n", attempt.name, libc::EAFNOSUPPORT);
            let lacking = !attempt.built_in && said.contains(&absent);
            assert!(
                outside.status.success() || lacking,
                "{} does not work outside: {said}",
                attempt.name
            );
        }
        let command = room
            .command([
                "/opt/test",
                "--exact",
                "system_calls::one_call",
                "--ignored",
                "--nocapture",
            ])
            .with_env([(CALL, attempt.name)]);
        let inside = room.run(command).await;
        let said = inside.stdout.text();
        assert_eq!(
            inside.exit.code,
            Some(101),
            "{} works inside: {said}",
            attempt.name
        );
        let refused = format!("{}: error 1\n", attempt.name);
        let unknown = format!("{}: error 97\n", attempt.name);
        assert!(said.contains(&refused) || said.contains(&unknown), "{said}");
    }
}
