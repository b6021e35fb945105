//! Ends: of the sandbox, of its owner, and that nothing is left.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use skep_sandbox::{Backend, Command, Error, Host, Namespace, OVERLAY};

use crate::room::{COUNT, Room, this_program};

fn pidfd(pid: u32) -> OwnedFd {
    living(pid).unwrap()
}

/// A handle on a process, if it is still there.
pub(crate) fn living(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

pub(crate) fn ends_in_time(process: &OwnedFd) -> bool {
    let time = Timespec::try_from(Duration::from_secs(20)).unwrap();
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&time)).unwrap() == 1
}

/// The processes below `pid`, on the host.
fn descendants(pid: u32) -> Vec<u32> {
    let children =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<u32> = children
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    let below: Vec<u32> = children
        .iter()
        .flat_map(|child| descendants(*child))
        .collect();
    [children, below].concat()
}

pub(crate) fn groups_of(pid: u32) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut places = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(place) = places.pop() {
        for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(&format!("skep-{pid}-"))
                {
                    found.push(entry.path());
                }
                places.push(entry.path());
            }
        }
    }
    found
}

#[tokio::test]
async fn nothing_is_left_of_a_destroyed_sandbox() {
    let room = Room::with(|spec| spec.limits.memory_bytes = Some(64 << 20)).await;
    let first = room.sandbox.diagnose().await.first_process.unwrap();
    let mut process = room
        .sandbox
        .exec(room.command(["/bin/sleep", "1000"]))
        .await
        .unwrap();
    let all: Vec<_> = descendants(first)
        .into_iter()
        .chain([first])
        .map(pidfd)
        .collect();
    assert!(all.len() >= 2);
    room.sandbox.destroy().await.unwrap();
    assert!(all.iter().all(ends_in_time));
    assert!(matches!(process.wait().await, Err(Error::Gone)));
    assert!(
        !std::path::Path::new(&format!("/proc/{first}")).exists(),
        "it is reaped"
    );
}

#[tokio::test]
async fn a_dropped_sandbox_is_gone() {
    let room = Room::new().await;
    let first = room.sandbox.diagnose().await.first_process.unwrap();
    drop(room);
    assert!(!std::path::Path::new(&format!("/proc/{first}")).exists());
}

#[tokio::test]
async fn a_sandbox_that_ended_says_so() {
    let room = Room::new().await;
    let first = room.sandbox.diagnose().await.first_process.unwrap();
    let process = pidfd(first);
    rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL).unwrap();
    assert!(ends_in_time(&process));
    let refused = room.sandbox.exec(Command::new(["/bin/true"], "/")).await;
    assert!(matches!(refused, Err(Error::Gone)));
    assert!(!room.sandbox.diagnose().await.alive);
}

/// Starts what tries to outlive its owner, says who its first process is, and waits to be killed.
pub(crate) async fn own(backend: &dyn Backend) {
    let room = Room::of(backend, |spec| spec.limits.memory_bytes = Some(64 << 20)).await;
    let first = room.sandbox.diagnose().await.first_process.unwrap();
    let script = "setsid sleep 1000 & (trap '' TERM HUP; sleep 1000) & (setsid sh -c 'sleep 1000 & sleep 1000' &) ; echo up; sleep 1000";
    let mut process = room
        .sandbox
        .exec(room.command(["/bin/sh", "-c", script]))
        .await
        .unwrap();
    let mut up = [0; 3];
    tokio::io::AsyncReadExt::read_exact(process.stdout.as_mut().unwrap(), &mut up)
        .await
        .unwrap();
    println!("\nowns {first} in {}", room.directory.path().display());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[tokio::test]
#[ignore = "the owner that another test kills"]
async fn an_owner_that_waits() {
    own(&Namespace::new()).await;
}

#[tokio::test]
#[ignore = "the owner that another test kills"]
async fn an_owner_of_host_processes_that_waits() {
    own(&Host).await;
}

/// Kills an owner, sees everything end that it had started, and returns its process id.
fn a_killed_owner(test: &str) -> u32 {
    killed_owner(&mut this_program(test), || {})
}

/// The same for an owner that is started by `program`, once `before` is done.
pub(crate) fn killed_owner(program: &mut std::process::Command, before: impl FnOnce()) -> u32 {
    let mut owner = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let line = lines.find(|line| line.starts_with("owns ")).unwrap();
    let mut words = line.split(' ').skip(1);
    let first: u32 = words.next().unwrap().parse().unwrap();
    let directory = words.nth(1).unwrap().to_owned();
    let all: Vec<_> = descendants(first)
        .into_iter()
        .chain([first])
        .map(pidfd)
        .collect();
    assert!(
        all.len() >= 6,
        "the first process, a minder, a shell and sleeps: {}",
        all.len()
    );
    before();
    owner.kill().unwrap();
    assert!(all.iter().all(ends_in_time));
    let owner_pid = owner.id();
    owner.wait().unwrap();
    std::fs::remove_dir_all(directory).unwrap();
    owner_pid
}

#[tokio::test]
async fn a_killed_owner_takes_everything_along() {
    let owner = a_killed_owner("ends::an_owner_that_waits");
    // Its groups are empty and stay; the next process that looks removes them.
    let swept = this_program("ends::a_sweep").status().unwrap();
    assert!(swept.success());
    assert_eq!(groups_of(owner), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_killed_owner_takes_its_processes_of_the_host_along() {
    a_killed_owner("ends::an_owner_of_host_processes_that_waits");
}

#[tokio::test]
#[ignore = "a process that sweeps, for another test"]
async fn a_sweep() {
    let place = tempfile::tempdir().unwrap();
    let findings = Namespace::new().probe(place.path()).await;
    assert!(
        findings
            .iter()
            .all(|finding| finding.ok || finding.optional),
        "{findings:?}"
    );
}

#[tokio::test]
async fn a_probe_tries_everything_and_names_a_remedy_for_what_fails() {
    let place = tempfile::tempdir().unwrap();
    let findings = Namespace::new().probe(place.path()).await;
    for finding in &findings {
        assert!(finding.ok || finding.remedy.is_some(), "{finding:?}");
        assert!(finding.ok || finding.optional, "{finding:?}");
        assert!(!finding.detail.is_empty());
    }
    assert!(findings.iter().any(|finding| finding.name == OVERLAY));
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn many_sandboxes_live_side_by_side() {
    let mut rooms = Vec::new();
    for _ in 0..30 {
        rooms.push(Room::new().await);
    }
    for room in &rooms {
        assert_eq!(room.says(COUNT).await, "3");
    }
}
