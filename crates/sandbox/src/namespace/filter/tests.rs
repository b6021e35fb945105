use super::*;

/// Runs the filter as the kernel would.
fn judge(architecture: u32, call: i64, arguments: &[u64]) -> u32 {
    judge_by(&filters(false).plain, architecture, call, arguments)
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

/// Of all calls that are refused whatever their arguments are.
fn numbers() -> impl Iterator<Item = i64> {
    let all = calls::ALWAYS.iter().chain(calls::HERE);
    all.chain(calls::OF_NAMESPACES).map(|call| call.number)
}

/// What docs/sandbox.md promises: written out, so that no call leaves the table unseen.
const PROMISED: &str = "
    acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init
    finit_module fsconfig fsmount fsopen fspick init_module io_uring_enter io_uring_register
    io_uring_setup kcmp kexec_file_load kexec_load keyctl listmount lookup_dcookie memfd_secret
    migrate_pages mount mount_setattr move_mount move_pages name_to_handle_at nfsservctl
    open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise
    process_mrelease process_vm_readv process_vm_writev ptrace quotactl quotactl_fd reboot
    request_key setdomainname sethostname setns settimeofday statmount swapoff swapon syslog
    umount2 userfaultfd vhangup
";

#[test]
fn every_call_that_is_promised_to_be_refused_is_in_the_table() {
    let all = calls::ALWAYS.iter().chain(calls::OF_NAMESPACES);
    let refused: std::collections::BTreeSet<_> = all.map(calls::Refused::name).collect();
    assert_eq!(refused, PROMISED.split_whitespace().collect());
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
    for call in numbers() {
        assert_eq!(here(call, &[]), refused, "{call}");
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
fn who_is_asked_about_a_call_allows_none_that_would_be_refused_without() {
    let Filters { asking, plain } = filters(false);
    let arguments = [
        [0, 0, 0],
        [0x1000_0011, 0, 0],
        [0x80, 0, 0],
        [0, 0x5412, 0],
        [0, 0x541c, 0],
        [0x4_0000, 0, 0],
        [libc::AF_INET as u64, libc::SOCK_RAW as u64, 1],
        [libc::AF_PACKET as u64, libc::SOCK_RAW as u64, 0],
        [libc::AF_NETLINK as u64, libc::SOCK_RAW as u64, 15],
        [libc::AF_ALG as u64, libc::SOCK_SEQPACKET as u64, 0],
    ];
    let mut asked = std::collections::BTreeSet::new();
    for (call, arguments) in (0..=500).flat_map(|call| arguments.iter().map(move |it| (call, it))) {
        let by = |program: &[u8]| judge_by(program, ARCHITECTURE, call, arguments);
        match by(&asking) {
            ASK => {
                assert_eq!(by(&plain), errno(libc::EPERM), "{call} {arguments:?}");
                asked.insert(call);
            }
            answer => assert_eq!(answer, by(&plain), "{call} {arguments:?}"),
        }
    }
    assert!(
        filters(true).asking.is_empty(),
        "somebody inside may want to be asked"
    );
    for call in [
        libc::SYS_mount,
        libc::SYS_ptrace,
        libc::SYS_unshare,
        libc::SYS_socket,
    ] {
        assert!(asked.contains(&call), "{call}");
    }
    // What libraries try and go on without.
    for call in [
        libc::SYS_clone3,
        libc::SYS_io_uring_setup,
        libc::SYS_keyctl,
        libc::SYS_kcmp,
    ] {
        assert!(!asked.contains(&call), "{call}");
    }
    let netlink = [libc::AF_NETLINK as u64, libc::SOCK_RAW as u64, 15];
    let netlink = judge_by(&asking, ARCHITECTURE, libc::SYS_socket, &netlink);
    assert_eq!(netlink, errno(libc::EPERM));
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
    let known = numbers().chain(ruled);
    let known: std::collections::BTreeSet<_> = known.collect();
    for call in 0..=i64::from(LAST_KNOWN) {
        if !known.contains(&call) {
            assert_eq!(here(call, &[]), ALLOW, "{call}");
        }
    }
}

#[test]
fn where_namespaces_may_be_made_nothing_else_is_allowed_besides() {
    let (usual, nested) = (filters(false).plain, filters(true).plain);
    let by = |program: &[u8], call: i64, first: u64| {
        judge_by(program, ARCHITECTURE, call, &[first, 0x5412])
    };
    let of_namespaces: Vec<_> = calls::OF_NAMESPACES.iter().map(|it| it.number).collect();
    for call in &of_namespaces {
        assert_eq!(by(&nested, *call, 0), ALLOW, "{call}");
    }
    for call in (0..=500).filter(|call| !of_namespaces.contains(call)) {
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
