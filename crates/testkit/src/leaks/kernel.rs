//! What the kernel keeps for a directory though nothing in it can be seen any more: mounts in any
//! namespace, sockets, loop devices, files that are held open.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Process, contains, processes};

/// The mounts that show a directory, or what is below it, anywhere in any process's mount
/// namespace: each as its line in the list of that process.
pub fn mounts_anywhere(dir: &Path) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut found = BTreeSet::new();
    let own = std::process::id() as i32;
    let others = numbers("/proc");
    for pid in std::iter::once(own).chain(others) {
        // One list for each namespace; who has gone meanwhile has none.
        match fs::read_link(format!("/proc/{pid}/ns/mnt")) {
            Ok(namespace) if !seen.insert(namespace.clone()) => continue,
            _ => {}
        }
        let list = fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        for line in list.split(|it| *it == b'\n') {
            if contains(line, dir.as_os_str().as_bytes()) {
                found.insert(format!("{pid}: {}", String::from_utf8_lossy(line)));
            }
        }
    }
    found.into_iter().collect()
}

/// The unix sockets that are bound below a directory, whether their files are there or not.
pub fn sockets_below(dir: &Path) -> Vec<String> {
    let list = fs::read_to_string("/proc/net/unix").expect("the list of sockets");
    let places = list.lines().filter_map(|line| line.split(' ').next_back());
    places
        .filter(|it| Path::new(it).starts_with(dir))
        .map(str::to_owned)
        .collect()
}

/// The loop devices whose file is below a directory.
pub fn loops_below(dir: &Path) -> Vec<PathBuf> {
    let devices = fs::read_dir("/sys/block").into_iter().flatten();
    let devices = devices.filter_map(|it| Some(it.ok()?.path()));
    devices
        .filter(|device| {
            let file = fs::read_to_string(device.join("loop/backing_file"));
            file.is_ok_and(|it| Path::new(it.trim_end()).starts_with(dir))
        })
        .collect()
}

/// The processes, other than this one, that hold a file open below a directory. The space of one
/// that was deleted is not free before they let go.
pub fn holders_below(dir: &Path) -> Vec<Process> {
    processes(|pid| {
        let held = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        let held = held.filter_map(|it| fs::read_link(it.ok()?.path()).ok());
        held.into_iter().any(|it| it.starts_with(dir))
    })
}

/// The entries of a directory that are numbers.
fn numbers(dir: &str) -> Vec<i32> {
    let list = fs::read_dir(dir).expect("a directory of the kernel");
    list.filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}
