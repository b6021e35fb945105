//! Processes in containers that nobody wants any more.
//!
//! An engine or a runtime that is killed while it makes a container can forget what waits in there to
//! be started, and that waits for ever. Of an owner that has ended it is known by what it has mounted,
//! the owner's directory, and by the owner's control group; an engine is known by its socket in that
//! directory. Of a container it is known by its control group, and by its watcher, whose child it is.

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{marks, place, traces};
use crate::namespace::{cgroup, start::wait_readable};
use crate::owner;

/// The longest list of mounts that is read, in bytes.
const MOST: usize = 1 << 20;
/// How long one of them may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// The program of a watcher, and what says where it writes down how a container ended.
const WATCHER: &str = "conmon";
const EXITS: &str = "--exit-dir";

/// Ends those of owners that have ended, and waits for their ends. The ids of their containers.
pub(super) fn end() -> Vec<String> {
    let mut ids: Vec<String> = numbers()
        .filter_map(|number| {
            let mut id = None;
            end_if(number, || {
                if is_idle_engine(number) {
                    return true;
                }
                let (mounts, groups) = (read(number, "mountinfo"), read(number, "cgroup"));
                id = container(&groups);
                let has_mounted = mounts.len() <= MOST && is_orphaned(&mounts);
                has_mounted || (id.is_some() && is_in_group_of_ended(&groups))
            })
            .then_some(id)
            .flatten()
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Ends those in the container `id`, and waits for their ends, and for that of its watcher, which comes
/// by itself: it writes down how the container ended, and would do so after the engine has removed it.
pub(super) fn end_of(id: &str) {
    if !traces::is_id(id) {
        return;
    }
    // Known before anything ends: a watcher becomes another program then, which clears away.
    let watchers = Watchers::of(id);
    for number in numbers() {
        end_if(number, || {
            let inside = container(&read(number, "cgroup")).as_deref() == Some(id);
            let status = read(number, "status");
            let parent = crate::stats::line(&status, "PPid:").and_then(|it| i32::try_from(it).ok());
            (inside && !watches(number, id)) || parent.is_some_and(|it| watches(it, id))
        });
    }
    watchers.wait();
}

/// The watchers of a container.
pub(super) struct Watchers {
    id: String,
    all: Vec<OwnedFd>,
}

impl Watchers {
    /// Those that live. Where they write down how a container ends is remembered.
    pub(super) fn of(id: &str) -> Self {
        let all = numbers()
            .filter(|number| watches(*number, id))
            .filter_map(|number| {
                let process = pidfd_open(Pid::from_raw(number)?, PidfdFlags::empty()).ok()?;
                if let Some(place) = option(&read(number, "cmdline"), EXITS) {
                    traces::remember_exits(place.into());
                }
                Some(process)
            })
            .collect();
        let id = id.to_owned();
        Self { id, all }
    }

    /// Waits until they have ended.
    pub(super) fn wait(self) {
        let (id, deadline) = (self.id, Instant::now() + ENDS_WITHIN);
        for watcher in self.all {
            match wait_readable(watcher.as_fd(), deadline) {
                Ok(true) => {}
                Ok(false) => tracing::debug!(id, "the watcher of a container goes on"),
                Err(error) => {
                    tracing::debug!(%error, id, "the watcher of a container is not waited for")
                }
            }
        }
    }
}

fn watches(number: i32, id: &str) -> bool {
    read(number, "comm").trim_end() == WATCHER && read(number, "cmdline").contains(id)
}

/// The word behind an option in the line of a process.
fn option<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let mut words = line.split('\0');
    words.find(|word| *word == name)?;
    words.next().filter(|word| word.starts_with('/'))
}

fn numbers() -> impl Iterator<Item = i32> {
    let listed = fs::read_dir("/proc").into_iter().flatten().flatten();
    listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// What the kernel says of a process, a byte more than [`MOST`] at most; nothing of one that has gone, or
/// that may not be looked at.
fn read(number: i32, what: &str) -> String {
    let mut bytes = Vec::new();
    let most = u64::try_from(MOST).unwrap_or(u64::MAX).saturating_add(1);
    let file = fs::File::open(format!("/proc/{number}/{what}"));
    if let Err(error) = file.and_then(|file| file.take(most).read_to_end(&mut bytes)) {
        tracing::trace!(%error, number, what, "a process is not read");
        return String::new();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Ends a process if it is one that shall end, and waits for that. Whether it was.
fn end_if(number: i32, shall: impl FnOnce() -> bool) -> bool {
    // The descriptor first: what is read then is of this process, or there is nothing to read.
    let Some(process) = Pid::from_raw(number)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        .filter(|_| shall())
    else {
        return false;
    };
    if let Err(error) = pidfd_send_signal(&process, Signal::KILL) {
        tracing::debug!(%error, number, "a process in a container is not ended");
        return false;
    }
    if let Err(error) = wait_readable(process.as_fd(), Instant::now() + ENDS_WITHIN) {
        tracing::debug!(%error, number, "a process in a container goes on");
    }
    true
}

/// Whether it is the engine of an owner that has ended and serves nobody: one of which a part was
/// killed while it started waits for that part for ever.
fn is_idle_engine(number: i32) -> bool {
    let line = read(number, "cmdline");
    let mut words = line.split('\0').filter(|word| !word.is_empty());
    let (Some(socket), true) = (words.next_back(), words.any(|word| word == "service")) else {
        return false;
    };
    let Some(socket) = socket.strip_prefix("unix://") else {
        return false;
    };
    is_orphaned(socket) && !marks::is_served(socket)
}

/// Whether something of an owner that has ended is named there.
pub(super) fn is_orphaned(text: &str) -> bool {
    text.split('/')
        .filter_map(place::owner_in)
        .any(owner::has_ended)
}

/// Whether these control groups are in the one that an owner has for all its containers, and the owner has
/// ended. What is mounted does not say it any more where the engine has removed a container's directories.
fn is_in_group_of_ended(groups: &str) -> bool {
    let mut names = groups.lines().flat_map(|line| line.split('/'));
    names.any(cgroup::is_stale)
}

/// The container that control groups are of.
fn container(groups: &str) -> Option<String> {
    let names = groups.lines().flat_map(|line| line.split(['/', '-', '.']));
    let mut ids = names.filter(|name| traces::is_id(name));
    ids.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_has_the_directory_of_an_ended_owner_mounted_is_orphaned_and_nothing_else_is() {
        let own = owner::this_process();
        let (pid, rest) = own.split_once('-').unwrap();
        let (_, among) = rest.split_once('-').unwrap();
        let line = |owner: &str| {
            format!("36 35 8:1 /tmp/skep-engine-{owner}-0/init /.skep-init ro - ext4 /dev/sda rw\n")
        };
        let other = "22 1 8:1 / / rw - ext4 /dev/sda rw\n".to_owned();
        assert!(!is_orphaned(&(other.clone() + &line(own))), "it lives");
        assert!(!is_orphaned(&other));
        assert!(is_orphaned(&(other + &line(&format!("{pid}-1-{among}")))));
    }

    #[test]
    fn a_containers_watcher_has_written_down_its_end_before_the_container_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let program = place.path().join(WATCHER);
        // It becomes another program, as watchers do, which takes a moment.
        let script = "#!/bin/sh\nsleep 1000 &\necho begun\nwait\nexec sleep 0.3\n";
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let id = format!("{:064x}", std::process::id());
        let exits = place.path().join("exits");
        std::fs::create_dir(&exits).unwrap();
        std::fs::write(exits.join(&id), "137").unwrap();
        let mut watcher = Command::new(&program)
            .args([&*id, EXITS, exits.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut begun = [0; 6];
        let output = watcher.stdout.as_mut().unwrap();
        output.read_exact(&mut begun).unwrap();
        end_of(&id);
        assert!(watcher.try_wait().unwrap().is_some(), "it has ended");
        // An engine that was killed meanwhile does not take away what it wrote.
        traces::clear(&id);
        assert!(!exits.join(&id).exists());
    }

    #[test]
    fn what_is_in_the_group_of_an_ended_owner_is_known_by_that() {
        let own = owner::this_process();
        let (pid, rest) = own.split_once('-').unwrap();
        let (_, among) = rest.split_once('-').unwrap();
        let group = |owner: &str| format!("3:pids:/skep-{owner}-0/libpod-{}\n", "a".repeat(64));
        assert!(is_in_group_of_ended(&group(&format!("{pid}-1-{among}"))));
        assert!(!is_in_group_of_ended(&group(own)), "it lives");
        assert!(!is_in_group_of_ended("0::/user.slice/skep-1\n"));
    }

    #[test]
    fn a_container_is_known_by_its_control_group() {
        let id = "0123456789abcdef".repeat(4);
        for groups in [
            format!("3:pids:/libpod_parent/libpod-{id}\n0::/\n"),
            format!("0::/machine.slice/libpod-{id}.scope/container\n"),
            format!("0::/docker/{id}\n"),
        ] {
            assert_eq!(container(&groups), Some(id.clone()));
        }
        assert_eq!(container("0::/user.slice/session-1.scope\n"), None);
    }
}
