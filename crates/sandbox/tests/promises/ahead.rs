//! The helper that waits for the next sandbox: whose it is, what it holds, and when it ends.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, pidfd_send_signal};
use skep_sandbox::{Backend as _, Error, Namespace, Trouble};

use crate::ends::{ends_in_time, living};
use crate::room::{Room, directories, is_root, spec, this_program};

/// A process of its own, for what waits is the process's and not the test's.
struct Owner {
    process: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Owner {
    fn new() -> Self {
        let mut process = this_program("ahead::an_owner_that_makes_what_it_is_told")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let asks = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self {
            process,
            asks,
            answers,
        }
    }

    /// Has it make a sandbox, or say who waits.
    fn ask(&mut self, what: &str) -> String {
        writeln!(self.asks, "{what}").unwrap();
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.answers.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some(answer) = line.strip_prefix("answer ") {
                return answer.trim().to_owned();
            }
        }
    }

    fn make(&mut self) {
        self.ask("make");
    }

    fn waiting(&mut self) -> u32 {
        self.ask("waiting").parse().unwrap()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// The children of this process that are not among `known`.
fn others(known: &[u32]) -> Vec<u32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")));
    lists
        .map(Result::unwrap_or_default)
        .flat_map(|list| {
            let pids = list.split_whitespace().map(|pid| pid.parse().unwrap());
            pids.collect::<Vec<u32>>()
        })
        .filter(|pid| !known.contains(pid))
        .collect()
}

#[tokio::test]
#[ignore = "the owner of another test"]
async fn an_owner_that_makes_what_it_is_told() {
    let (mut rooms, mut firsts) = (Vec::new(), Vec::new());
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.as_str() {
            "make" => {
                let room = Room::of(&Namespace::new(), |_| {}).await;
                firsts.push(room.sandbox.diagnose().await.first_process.unwrap());
                room.says("true").await;
                rooms.push(room);
                println!("\nanswer made");
            }
            "settle" => {
                Namespace::new().settle().await;
                println!("\nanswer settled");
            }
            "others" => println!("\nanswer {:?}", others(&firsts)),
            wanted => {
                let deadline = Instant::now() + Duration::from_secs(20);
                let found = loop {
                    match (wanted, &*others(&firsts)) {
                        ("waiting", [one]) => break *one,
                        ("alone", []) => break 0,
                        (_, others) => assert!(Instant::now() < deadline, "{wanted}: {others:?}"),
                    }
                    tokio::task::yield_now().await;
                };
                println!("\nanswer {found}");
            }
        }
    }
}

#[test]
fn a_process_that_makes_one_sandbox_has_nothing_waiting() {
    let mut owner = Owner::new();
    owner.make();
    assert_eq!(owner.ask("others"), "[]");
}

#[test]
fn what_waits_is_in_no_sandboxs_group_and_keeps_no_mount_of_the_host() {
    let mut owner = Owner::new();
    owner.make();
    owner.make();
    let (waiting, owner_pid) = (owner.waiting(), owner.process.id());
    let of = |pid: u32, what: &str| fs::read_to_string(format!("/proc/{pid}/{what}"));
    assert_eq!(
        of(waiting, "cgroup").unwrap(),
        of(owner_pid, "cgroup").unwrap()
    );
    // Of others, the kernel shows that to root only.
    if !is_root() {
        return;
    }
    let link = |pid: u32, what: &str| fs::read_link(format!("/proc/{pid}/{what}")).unwrap();
    for (namespace, is_the_hosts) in [
        ("mnt", true),
        ("cgroup", true),
        ("pid", true),
        ("user", false),
        ("net", false),
    ] {
        let what = format!("ns/{namespace}");
        let same = link(waiting, &what) == link(owner_pid, &what);
        assert_eq!(same, is_the_hosts, "{namespace}");
    }
    assert_eq!(of(waiting, "environ").unwrap(), "");
    let descriptors = fs::read_dir(format!("/proc/{waiting}/fd")).unwrap();
    let open: Vec<_> = descriptors
        .flatten()
        .map(|open| fs::read_link(open.path()).unwrap())
        .collect();
    assert!(
        matches!(&*open, [one] if one.to_string_lossy().starts_with("socket:")),
        "{open:?}"
    );
}

#[test]
fn the_next_sandbox_takes_what_waits_and_another_takes_its_place() {
    let mut owner = Owner::new();
    owner.make();
    owner.make();
    let waiting = owner.waiting();
    let process = living(waiting).unwrap();
    owner.make();
    assert!(ends_in_time(&process), "a helper ends with its task");
    assert_ne!(owner.waiting(), waiting);
}

#[test]
fn where_what_waits_was_killed_the_next_sandbox_is_made_all_the_same() {
    let mut owner = Owner::new();
    owner.make();
    owner.make();
    let process = living(owner.waiting()).unwrap();
    pidfd_send_signal(&process, Signal::KILL).unwrap();
    assert!(ends_in_time(&process));
    owner.make();
    owner.make();
    owner.waiting();
}

#[test]
fn what_waits_ends_with_its_owner_however_that_ends() {
    let mut owner = Owner::new();
    owner.make();
    owner.make();
    let process = living(owner.waiting()).unwrap();
    owner.process.kill().unwrap();
    assert!(ends_in_time(&process));
}

/// Waits until one that waits has made what it makes ahead, and sleeps.
fn until_made(waiting: u32) {
    let of = |what: &str| fs::read_to_string(format!("/proc/{waiting}/{what}")).unwrap();
    let is_made = || {
        let is_mapped = of("uid_map").trim_start().starts_with("1000 ");
        is_mapped && of("status").contains("State:\tS")
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_made() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

/// An owner, and what waits for its next sandbox, which somebody has stopped.
fn with_what_waits_stopped() -> (Owner, OwnedFd) {
    let mut owner = Owner::new();
    owner.make();
    owner.make();
    let waiting = owner.waiting();
    let process = living(waiting).unwrap();
    until_made(waiting);
    pidfd_send_signal(&process, Signal::STOP).unwrap();
    (owner, process)
}

#[test]
fn where_what_waits_was_stopped_the_next_sandbox_is_made_all_the_same() {
    let (mut owner, process) = with_what_waits_stopped();
    let began = Instant::now();
    owner.make();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(ends_in_time(&process), "it is not left behind");
    owner.make();
    owner.waiting();
}

#[test]
fn what_waits_ends_with_its_owner_also_where_it_was_stopped() {
    let (mut owner, process) = with_what_waits_stopped();
    owner.process.kill().unwrap();
    assert!(ends_in_time(&process));
    let (mut owner, _process) = with_what_waits_stopped();
    owner.ask("settle");
    assert_eq!(owner.ask("others"), "[]");
}

#[test]
fn whoever_is_about_to_end_leaves_nothing_waiting() {
    let mut owner = Owner::new();
    owner.make();
    owner.make();
    owner.waiting();
    owner.ask("settle");
    assert_eq!(owner.ask("others"), "[]");
    owner.make();
    owner.waiting();
}

#[test]
fn what_nobody_wants_ends_by_itself() {
    let mut owner = Owner::new();
    owner.make();
    owner.make();
    let process = living(owner.waiting()).unwrap();
    assert!(ends_in_time(&process));
    owner.ask("alone");
    owner.make();
    owner.waiting();
}

#[test]
fn where_helpers_are_killed_that_is_said_and_no_process_is_left() {
    let mut killed = this_program("ahead::a_process_whose_helpers_are_killed");
    assert!(killed.status().unwrap().success());
}

#[tokio::test]
#[ignore = "the process of another test"]
async fn a_process_whose_helpers_are_killed() {
    answer_unshare_with(libc::SECCOMP_RET_KILL_PROCESS);
    let directory = directories();
    let made = Namespace::new().create(spec(directory.path())).await;
    let error = made.err().unwrap().to_string();
    assert!(
        error.contains("signal: 31") && error.contains("memory is short"),
        "{error}"
    );
    assert_eq!(others(&[]), Vec::<u32>::new());
}

/// Of this thread, and of those that it starts, and of their processes; all else is allowed.
fn answer_unshare_with(action: u32) {
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let instructions = [
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 0, 1, u32::try_from(libc::SYS_unshare).unwrap()),
        instruction(6, 0, 0, action),
        instruction(6, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: instructions.as_ptr().cast_mut(),
    };
    // SAFETY: both calls read what lives until they return.
    let installed = unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        libc::syscall(libc::SYS_seccomp, mode, 0, &raw const program)
    };
    assert_eq!(installed, 0);
}

#[test]
fn where_namespaces_are_refused_each_sandbox_says_so_and_no_process_is_left() {
    let mut refused = this_program("ahead::a_process_that_may_make_no_namespaces");
    assert!(refused.status().unwrap().success());
}

#[tokio::test]
#[ignore = "the process of another test"]
async fn a_process_that_may_make_no_namespaces() {
    answer_unshare_with(libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned());
    let directory = directories();
    for _ in 0..40 {
        let made = Namespace::new().create(spec(directory.path())).await;
        let error = made.err().unwrap();
        assert!(matches!(error, Error::NamespacesRefused { .. }), "{error}");
        assert_eq!(Trouble::of_error(&error), Some(Trouble::NamespacesOff));
    }
    Namespace::new().settle().await;
    assert_eq!(others(&[]), Vec::<u32>::new());
}
