//! What a container leaves that is gone for its engine: control groups, which an engine that makes
//! them itself leaves where the container's watcher was killed, what the runtime kept of it, and where
//! an engine was killed, what the watcher wrote down of its end.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::orphans::{self, Watchers};

/// Where control groups are, of either version.
const TOP: &str = "/sys/fs/cgroup";
/// How the names of containers' groups begin, in a group that holds those of all. What that is called
/// depends on the engine, and on what it was asked for.
const PREFIXES: [&str; 2] = ["libpod-", ""];
/// How deep groups lie in that of a container.
const DEPTH: usize = 4;
/// Where runtimes keep a directory for each container, of which an engine knows no more when it was
/// killed at the wrong moment.
const RUNTIMES: [&str; 2] = ["runc", "crun"];
/// Other places, which watchers were seen to have: those of engines that were told another directory.
static MORE_EXITS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
const MOST_EXITS: usize = 8;
/// Where Podman's watchers write down how a container ended, for root and for others, where nobody told
/// it another place.
const EXITS: [&str; 2] = ["libpod/exits", "libpod/tmp/exits"];
/// What they have written of one, and how much of that is read, in bytes.
const RECORDS: [&str; 3] = ["state.json", "status", "config.json"];
const MOST: u64 = 1 << 20;

/// Removes those of the container `id`, of which nothing runs any more. A group in which something
/// lives stays, the kernel sees to that, and what the runtime kept with it, by which it is found again.
pub(super) fn clear(id: &str) {
    if !is_id(id) {
        return;
    }
    // One that is late writes after its engine has removed the container.
    Watchers::of(id).wait();
    let mut is_empty = true;
    let hierarchies = std::iter::once(TOP.into()).chain(below(Path::new(TOP)));
    for parent in hierarchies.flat_map(|hierarchy: PathBuf| below(&hierarchy)) {
        for prefix in PREFIXES {
            let group = parent.join(format!("{prefix}{id}"));
            if group.is_dir() {
                remove(&group, DEPTH);
                is_empty &= !group.exists();
            }
        }
    }
    if let Some(place) = kept_in() {
        clear_kept(&place, id, is_empty);
    }
    let more = MORE_EXITS.lock().unwrap_or_else(PoisonError::into_inner);
    for exits in &*more {
        gone(fs::remove_file(exits.join(id)), id);
    }
}

/// Remembers where a watcher writes down how containers end.
pub(super) fn remember_exits(place: PathBuf) {
    let mut more = MORE_EXITS.lock().unwrap_or_else(PoisonError::into_inner);
    if more.len() < MOST_EXITS && !more.contains(&place) {
        more.push(place);
    }
}

/// What programs of this user keep until the machine starts again is below there.
fn kept_in() -> Option<PathBuf> {
    match rustix::process::geteuid().is_root() {
        true => Some("/run".into()),
        false => std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
    }
}

fn clear_kept(place: &Path, id: &str, with_runtimes: bool) {
    for runtime in RUNTIMES.iter().filter(|_| with_runtimes) {
        gone(fs::remove_dir_all(place.join(runtime).join(id)), id);
    }
    for exits in EXITS {
        gone(fs::remove_file(place.join(exits).join(id)), id);
    }
}

/// The containers of owners that have ended of which a runtime keeps something, by their ids: an engine
/// may have forgotten them before they were gone.
pub(super) fn left() -> Vec<String> {
    let place = kept_in().into_iter();
    place
        .flat_map(|place| RUNTIMES.map(|runtime| place.join(runtime)))
        .flat_map(|runtime| left_in(&runtime))
        .collect()
}

fn left_in(runtime: &Path) -> Vec<String> {
    let listed = fs::read_dir(runtime).into_iter().flatten().flatten();
    let names = listed.filter_map(|entry| entry.file_name().into_string().ok());
    let is_left = |id: &String| {
        let place = runtime.join(id);
        is_id(id)
            && RECORDS
                .iter()
                .any(|name| orphans::is_orphaned(&read(&place.join(name))))
    };
    names.filter(is_left).collect()
}

/// A record, or as much of it as is read; nothing where there is none.
fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    match fs::File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// Whether engines give such ids.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The groups in a group, or the hierarchies of version 1.
fn below(group: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(group).into_iter().flatten().flatten();
    let groups = listed.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.map(|entry| entry.path()).collect()
}

fn remove(group: &Path, depth: usize) {
    if depth > 0 {
        for inner in below(group) {
            remove(&inner, depth - 1);
        }
    }
    gone(fs::remove_dir(group), &group.to_string_lossy());
}

fn gone(removed: std::io::Result<()>, what: &str) {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::debug!(%error, what, "a trace of a container stays");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner;

    #[test]
    fn what_a_runtime_keeps_of_an_ended_owners_container_is_found_and_nothing_else_is() {
        let place = tempfile::tempdir().unwrap();
        let own = owner::this_process();
        let (pid, rest) = own.split_once('-').unwrap();
        let (_, among) = rest.split_once('-').unwrap();
        let ended = format!("{pid}-1-{among}");
        let record = |id: &str, owner: &str| {
            let source = format!("/tmp/skep-engine-{owner}-0/init");
            let text = format!(r#"{{"mounts":[{{"source":"{source}"}},{{"source":"/usr"}}]}}"#);
            fs::create_dir(place.path().join(id)).unwrap();
            fs::write(place.path().join(id).join("state.json"), text).unwrap();
        };
        let id = |letter: &str| letter.repeat(64);
        record(&id("a"), &ended);
        record(&id("b"), own);
        record(&id("c"), "somebody-else");
        record("not-an-id", &ended);
        fs::create_dir(place.path().join(id("d"))).unwrap();
        assert_eq!(left_in(place.path()), [id("a")]);
        assert_eq!(left_in(&place.path().join("none")), [""; 0]);
    }

    #[test]
    fn what_runtimes_and_watchers_kept_of_a_container_goes_and_nothing_of_others() {
        let place = tempfile::tempdir().unwrap();
        let (id, other) = ("a".repeat(64), "b".repeat(64));
        let has = |name: String| place.path().join(name).exists();
        for id in [&id, &other] {
            fs::create_dir_all(place.path().join("crun").join(id)).unwrap();
            for exits in EXITS {
                fs::create_dir_all(place.path().join(exits)).unwrap();
                fs::write(place.path().join(exits).join(id), "137").unwrap();
            }
        }
        clear_kept(place.path(), &id, false);
        assert!(has(format!("crun/{id}")), "something lives in its group");
        clear_kept(place.path(), &id, true);
        for directory in ["crun", "libpod/exits", "libpod/tmp/exits"] {
            assert!(!has(format!("{directory}/{id}")), "{directory}");
            assert!(has(format!("{directory}/{other}")), "{directory}");
        }
    }
}
