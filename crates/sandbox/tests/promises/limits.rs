//! Limits: by control groups where they can be used, and without them.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use skep_sandbox::{Backend, Enforcement, Error, Limit, Namespace, Total, Trouble};
use tokio::io::AsyncReadExt;

use crate::contained::kind;
use crate::room::{Room, is_root};

const MEMORY: u64 = 96 << 20;

async fn memory_is_bounded(backend: &dyn Backend) {
    let room = Room::of(backend, |spec| spec.limits.memory_bytes = Some(MEMORY)).await;
    let begin = Instant::now();
    let output = room.sh("tail /dev/zero").await;
    assert!(!output.exit.success());
    assert_eq!(output.exit.limit, Some(Limit::Memory), "{:?}", output.exit);
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert_eq!(room.says("echo on").await, "on", "the sandbox goes on");
}

/// Fills `MEMORY` and half as much again with `script`, of Python, and waits to be ended for it.
async fn is_counted(backend: &dyn Backend, script: &str) {
    let room = Room::of(backend, |spec| spec.limits.memory_bytes = Some(MEMORY)).await;
    let script = format!(
        "import os, mmap, time\nblock = bytes(1 << 20)\n{script}\nwhile True: time.sleep(1000)"
    );
    let command = room.command(["/usr/bin/python3", "-c", &script]);
    let output = room.run(command).await;
    let errors = output.stderr.text();
    assert_eq!(output.exit.limit, Some(Limit::Memory), "{script}: {errors}");
    assert!(!output.exit.timed_out, "{script}");
}

/// Memory that is no process's own.
const SHARED: [(&str, &str); 5] = [
    (
        "a file without a name",
        "f = os.memfd_create('x')\nfor _ in range(144): os.write(f, block)",
    ),
    (
        "one that only a child holds",
        "f = os.memfd_create('x')\nif os.fork():\n  os.close(f)\nelse:\n  for _ in range(144): os.write(f, block)",
    ),
    (
        "a shared mapping",
        "m = mmap.mmap(-1, 144 << 20)\nfor i in range(144): m[i << 20 : (i + 1) << 20] = block",
    ),
    (
        "files in memory",
        "for n in ('/dev/shm/a', '/tmp/b'):\n  with open(n, 'wb', 0) as f:\n    for _ in range(72): f.write(block)",
    ),
    (
        "a segment of System V",
        "import ctypes\nc = ctypes.CDLL(None)\nc.shmat.restype = ctypes.c_void_p\ni = c.shmget(0, ctypes.c_size_t(144 << 20), 0o1600)\na = c.shmat(i, None, 0)\nctypes.memset(a, 1, 144 << 20)\nc.shmdt(ctypes.c_void_p(a))",
    ),
];

#[tokio::test]
async fn memory_that_is_no_processs_own_counts() {
    for (what, script) in SHARED {
        println!("{what}");
        is_counted(&*kind(), script).await;
    }
}

#[tokio::test]
async fn memory_that_is_no_processs_own_counts_without_control_groups() {
    for (what, script) in SHARED {
        println!("{what}");
        is_counted(&Namespace::without_cgroups(), script).await;
    }
}

#[tokio::test]
async fn memory_that_many_processes_share_counts_once_without_control_groups() {
    let room = Room::of(&Namespace::without_cgroups(), |spec| {
        spec.limits.memory_bytes = Some(192 << 20);
    })
    .await;
    // 48 MiB of its own (twice that while they are made) and 24 MiB shared, seen by six processes:
    // 432 MiB if each counted all.
    let script = "import mmap, os, time\nown = bytearray(os.urandom(1 << 20) * 48)\nm = mmap.mmap(-1, 24 << 20)\nm[:] = bytes(24 << 20)\nkids = []\nfor _ in range(5):\n  pid = os.fork()\n  if pid == 0:\n    sum(m[:: 4096])\n    time.sleep(1)\n    os._exit(0)\n  kids.append(pid)\nprint([os.waitpid(pid, 0)[1] for pid in kids])";
    let output = room
        .run(room.command(["/usr/bin/python3", "-c", script]))
        .await;
    assert!(
        output.exit.success(),
        "{:?} {}",
        output.exit,
        output.stderr.text()
    );
    assert_eq!(output.stdout.text(), "[0, 0, 0, 0, 0]\n");
}

#[tokio::test]
async fn signals_to_process_1_do_not_keep_the_watcher_from_looking() {
    let room = Room::of(&Namespace::without_cgroups(), |spec| {
        spec.limits.memory_bytes = Some(MEMORY);
    })
    .await;
    let storm = "for i in 1 2 3; do while :; do kill -CHLD 1; done & done; tail /dev/zero & wait";
    let output = room.sh(storm).await;
    assert_eq!(output.exit.limit, Some(Limit::Memory), "{:?}", output.exit);
    assert!(!output.exit.timed_out);
    assert_eq!(room.says("echo on").await, "on", "the sandbox goes on");
}

/// What explains that nothing runs any more in a sandbox whose first process is killed while a command
/// runs that has printed a line.
async fn ended_during(room: &Room, script: &str) -> Trouble {
    let command = room.command(["/bin/sh", "-c", script]);
    let mut process = room.sandbox.exec(command).await.unwrap();
    let mut line = [0; 3];
    let output = process.stdout.as_mut().unwrap();
    output.read_exact(&mut line).await.unwrap();
    let first = room.sandbox.diagnose().await.first_process.unwrap();
    let first = Pid::from_raw(i32::try_from(first).unwrap()).unwrap();
    kill_process(first, Signal::KILL).unwrap();
    assert!(matches!(process.wait().await, Err(Error::Gone)));
    let ended = room.sandbox.diagnose().await.ended.unwrap();
    assert_eq!(ended.exit.unwrap().signal, Some(libc::SIGKILL));
    ended.trouble
}

#[tokio::test]
async fn a_sandbox_that_ends_says_that_memory_was_short_unless_a_command_before_it_explains_that() {
    const TAKE: &str = "tail /dev/zero 2> /dev/null;";
    let bounded = || Room::with(|spec| spec.limits.memory_bytes = Some(MEMORY));
    let room = bounded().await;
    if room.sandbox.diagnose().await.limits_in_force == Enforcement::RlimitsAndWatcher {
        // Nobody counts there, and the watcher ends the whole command.
        return;
    }
    let ended = ended_during(&room, &format!("{TAKE} echo up; sleep 1000")).await;
    assert_eq!(ended, Trouble::OutOfMemory);
    let room = bounded().await;
    assert!(room.sh(&format!("{TAKE} exit 0")).await.exit.success());
    let ended = ended_during(&room, "echo up; sleep 1000").await;
    assert_eq!(ended, Trouble::Ended);
}

async fn processes_are_bounded(backend: &dyn Backend) {
    let room = Room::of(backend, |spec| spec.limits.processes = Some(60)).await;
    let mut command = room.command(["/bin/bash", "-c", "f() { f | f & }; f; sleep 1000"]);
    command.timeout = Some(Duration::from_secs(2));
    command.grace = Duration::from_millis(100);
    let output = room.run(command).await;
    assert!(!output.exit.success(), "{:?}", output.exit);
    assert_eq!(room.says("echo on").await, "on", "the sandbox goes on");
    let left = "cat /proc/[0-9]*/comm | grep -c bash; true";
    assert_eq!(room.says(left).await, "0", "and nothing is left");

    let output = room
        .sh("for i in $(seq 100); do sleep 1000 & done; wait")
        .await;
    assert!(!output.exit.success(), "{:?}", output.exit);
    assert!(!output.exit.timed_out, "{:?}", output.exit);
    let diagnosis = room.sandbox.diagnose().await;
    let limit = match diagnosis.limits_in_force {
        // The kernel tells nobody that the user's own limit struck.
        Enforcement::RlimitsAndWatcher if !is_root() => None,
        _ => Some(Limit::Processes),
    };
    assert_eq!(output.exit.limit, limit, "{}", output.stderr.text());
    let trouble = limit.map(|_| Trouble::TooManyProcesses);
    assert_eq!(diagnosis.trouble(), trouble);
}

#[tokio::test]
async fn where_processes_take_every_place_no_command_starts_and_that_is_said() {
    let room = Room::with(|spec| spec.limits.processes = Some(8)).await;
    let in_force = room.sandbox.diagnose().await.limits_in_force;
    if in_force == Enforcement::RlimitsAndWatcher && is_root() {
        // The kernel exempts root, and the watcher ends what takes the places.
        return;
    }
    let stay = "(while sleep 1000 & do :; done) 2> /dev/null; exit 0";
    let mut command = room.command(["/bin/sh", "-c", stay]);
    command.keep_background = true;
    assert!(room.run(command).await.exit.success());
    // The places of that command's shell and minder, which have ended, are taken too.
    let taken = room.command(["/bin/sleep", "1000"]);
    let (_first, _second) = (
        room.sandbox.exec(taken.clone()).await,
        room.sandbox.exec(taken.clone()).await,
    );
    let refused = room.sandbox.exec(taken).await.unwrap_err();
    assert!(matches!(refused, Error::TooManyProcesses), "{refused}");
    let diagnosis = room.sandbox.diagnose().await;
    assert_eq!(diagnosis.trouble(), Some(Trouble::TooManyProcesses));
}

#[tokio::test]
async fn a_command_that_takes_all_memory_is_ended() {
    memory_is_bounded(&*kind()).await;
}

#[tokio::test]
async fn a_command_that_takes_all_memory_is_ended_without_control_groups() {
    memory_is_bounded(&Namespace::without_cgroups()).await;
}

// docs/bad-input.md: An agent that forks without end
#[tokio::test]
async fn a_command_that_multiplies_is_bounded() {
    processes_are_bounded(&*kind()).await;
}

// docs/bad-input.md: An agent that forks without end
#[tokio::test]
async fn a_command_that_multiplies_is_bounded_without_control_groups() {
    processes_are_bounded(&Namespace::without_cgroups()).await;
}

#[tokio::test]
async fn files_and_descriptors_are_bounded_and_no_core_is_left() {
    let room = Room::with(|spec| {
        spec.limits.file_bytes = Some(1 << 20);
        spec.limits.open_files = Some(64);
    })
    .await;
    // Behind a shell, which says by its code which signal it was, and without one.
    let behind = room.sh("head -c 3000000 /dev/zero > big").await.exit;
    assert_eq!(behind.code, Some(128 + libc::SIGXFSZ));
    let direct = room.sh("exec head -c 3000000 /dev/zero > big").await.exit;
    assert_eq!(direct.signal, Some(libc::SIGXFSZ));
    for exit in [behind, direct] {
        assert_eq!(exit.limit, Some(Limit::FileBytes), "{exit}");
    }
    let trouble = room.sandbox.diagnose().await.trouble();
    assert_eq!(trouble, Some(Trouble::FileTooLarge));
    assert_eq!(
        std::fs::metadata(room.host_workspace().join("big"))
            .unwrap()
            .len(),
        1 << 20
    );
    assert_eq!(room.says("ulimit -n; ulimit -c").await, "64\n0");
    // One file after the other, until one is too many.
    let open = "files = []\ntry:\n  while len(files) < 100: files.append(open('/dev/null'))\nexcept OSError as error: print(files[-1].fileno(), error.strerror)";
    let opened = room.command(["/usr/bin/python3", "-c", open]);
    let said = room.run(opened).await.stdout.text();
    assert_eq!(said, "63 Too many open files\n");
}

#[tokio::test]
async fn what_is_in_force_is_said() {
    let room = Room::with(|spec| spec.limits.memory_bytes = Some(MEMORY)).await;
    let diagnosis = room.sandbox.diagnose().await;
    assert!(diagnosis.alive && diagnosis.sealed);
    if diagnosis.limits_in_force == Enforcement::RlimitsAndWatcher {
        assert!(
            !is_root(),
            "root can use control groups on the machines that the tests run on"
        );
    } else {
        assert!(diagnosis.memory_bytes.unwrap() < MEMORY);
        assert_eq!(diagnosis.processes, Some(1));
    }
    let without = Room::of(&Namespace::without_cgroups(), |_| {}).await;
    assert_eq!(
        without.sandbox.diagnose().await.limits_in_force,
        Enforcement::RlimitsAndWatcher
    );
}

async fn an_owners_limit_ends_everything(room: Room) {
    let mut process = room
        .sandbox
        .exec(room.command(["/bin/sh", "-c", "setsid sleep 1000 & echo up; sleep 1000"]))
        .await
        .unwrap();
    let mut line = [0; 3];
    let mut output = process.stdout.take().unwrap();
    output.read_exact(&mut line).await.unwrap();
    room.sandbox.strike().strike(Limit::Disk);
    let exit = process.wait().await.unwrap();
    assert_eq!((exit.signal, exit.limit), (Some(9), Some(Limit::Disk)));
    assert!(
        exit.to_string().ends_with("limit of the disk reached"),
        "{exit}"
    );
    let later = room.sandbox.exec(room.command(["/bin/true"])).await;
    assert!(
        matches!(later, Err(Error::Struck { limit: Limit::Disk })),
        "{later:?}"
    );
}

#[tokio::test]
async fn what_is_ended_for_a_limit_of_the_owner_names_it_and_nothing_starts_after_it() {
    an_owners_limit_ends_everything(Room::new().await).await;
    an_owners_limit_ends_everything(Room::of(&Namespace::without_cgroups(), |_| {}).await).await;
}

/// Computes for a second and a half, and prints for how long it had a processor.
const COMPUTE: &str = "import time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass\nprint(time.process_time())";

async fn computed(room: &Room) -> f64 {
    let output = room
        .run(room.command(["/usr/bin/python3", "-c", COMPUTE]))
        .await;
    output.stdout.text().trim().parse().unwrap()
}

#[tokio::test]
async fn processor_time_is_bounded_where_a_control_group_can() {
    let room = Room::with(|spec| spec.limits.cpu_milli = Some(200)).await;
    if room.sandbox.diagnose().await.limits_in_force == Enforcement::RlimitsAndWatcher {
        assert!(!is_root(), "root can use control groups here");
        return;
    }
    let seconds = computed(&room).await;
    assert!(seconds < 0.7, "{seconds} of 1.5 s, and a fifth is allowed");
}

#[tokio::test]
async fn what_all_sandboxes_use_together_is_bounded_where_a_control_group_can() {
    together(Namespace::new().bounded(TOGETHER)).await;
}

/// What two sandboxes may use together.
pub(crate) const TOGETHER: Total = Total {
    memory_bytes: Some(128 << 20),
    cpu_milli: Some(300),
};

pub(crate) async fn together(backend: impl skep_sandbox::Backend) {
    let (one, other) = (
        Room::of(&backend, |_| {}).await,
        Room::of(&backend, |_| {}).await,
    );
    if one.sandbox.diagnose().await.limits_in_force == Enforcement::RlimitsAndWatcher {
        assert!(!is_root(), "root can use control groups here");
        return;
    }
    let (first, second) = tokio::join!(computed(&one), computed(&other));
    let seconds = first + second;
    assert!(seconds < 1.0, "{seconds} of 3 s, and 0.45 are allowed");

    let hold =
        "import sys\nm = bytearray(b'x') * (80 << 20)\nprint('up', flush=True)\nsys.stdin.read()";
    let command = |room: &Room| {
        let command = room.command(["/usr/bin/python3", "-c", hold]);
        command.with_stdin(skep_sandbox::Stdin::Pipe)
    };
    let mut held = one.sandbox.exec(command(&one)).await.unwrap();
    let mut up = [0; 3];
    let mut output = held.stdout.take().unwrap();
    output.read_exact(&mut up).await.unwrap();
    // The kernel ends one of the two.
    let also = other.run(command(&other)).await.exit;
    drop(held.stdin.take());
    let limits = [held.wait().await.unwrap().limit, also.limit];
    assert!(limits.contains(&Some(Limit::Memory)), "{limits:?}");
    drop(backend);
    one.sandbox.destroy().await.unwrap();
    other.sandbox.destroy().await.unwrap();
    drop(held);
    let left = crate::ends::groups_of(std::process::id());
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
}
