//! Groups of processes that have ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Hierarchy, above};
use crate::owner;

const PREFIX: &str = "skep-";
/// How often, and with which pause, the removal of a group that is just emptying is tried.
const REMOVALS: u32 = 250;
const PAUSE: Duration = Duration::from_millis(2);
/// How many groups are looked at where all of them are.
const MOST: usize = 50_000;

/// A name that names this process as the owner, and no other group.
pub(super) fn new_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{number}", owner::this_process())
}

/// Whether a name names a group whose owner has ended.
pub(crate) fn is_stale(name: &str) -> bool {
    let owner = name.strip_prefix(PREFIX);
    let owner = owner.and_then(|name| name.rsplit_once('-'));
    owner.is_some_and(|(owner, _)| owner::has_ended(owner))
}

impl Hierarchy {
    /// Removes the groups whose owners are gone: their processes go with them.
    pub(in crate::namespace) fn sweep(&self) {
        // What stays must not keep every new process waiting.
        let mut tries = 0;
        let parents = self.parents();
        // Those above an engine's groups are in all hierarchies.
        let roots = match self {
            Self::V1 { .. } => above::roots(),
            Self::V2 { .. } => Vec::new(),
        };
        let roots = roots.iter().map(PathBuf::as_path);
        let roots = roots.filter(|place| !parents.contains(place));
        for parent in parents.iter().copied().chain(roots) {
            sweep_in(parent, &mut tries, |_| {});
        }
    }
}

/// Removes the groups whose owners are gone, those above an engine's among them. Blocks.
pub(crate) fn sweep() {
    if let Some(hierarchy) = Hierarchy::find() {
        hierarchy.sweep();
    }
}

/// The same wherever they are: their owners may have been in other groups than this process is. Blocks
/// for as long as it takes to look at all groups of the machine.
pub(crate) fn sweep_everywhere() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    sweep_below(above::points(&mounts).map(|(_, point)| point).collect());
}

fn sweep_below(mut places: Vec<PathBuf>) {
    let (mut tries, mut left) = (0, MOST);
    while let Some(place) = places.pop() {
        sweep_in(&place, &mut tries, |other| {
            if left > 0 {
                left -= 1;
                places.push(other);
            }
        });
    }
}

/// Removes those in one place, and tells of the other groups there.
fn sweep_in(place: &Path, tries: &mut u32, mut told: impl FnMut(PathBuf)) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if !entry.file_name().to_str().is_some_and(is_stale) {
            told(entry.path());
            continue;
        }
        if let Err(error) = remove_with_children(&entry.path(), tries) {
            tracing::debug!(%error, group = %entry.path().display(), "a stale group stays");
        }
    }
}

/// Removes a group whose processes have been killed, trying again for as long as [`REMOVALS`]
/// allows: a process leaves its group a moment after it can be waited for, and one whose owner was
/// killed a moment after its owner.
pub(super) fn remove(group: &Path, tries: &mut u32) -> std::io::Result<()> {
    loop {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.kind() == std::io::ErrorKind::ResourceBusy && *tries + 1 < REMOVALS =>
            {
                *tries += 1;
                pause();
            }
            ended => return ended,
        }
    }
}

/// The same, with the groups in it, which have none of their own. They may be gone already.
pub(super) fn remove_with_children(group: &Path, tries: &mut u32) -> std::io::Result<()> {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path(), tries)?;
        }
    }
    remove(group, tries)
}

/// There is no event for "the last process has left" that both versions have.
fn pause() {
    let time = rustix::event::Timespec::try_from(PAUSE).ok();
    if let Err(error) = rustix::event::poll(&mut [], time.as_ref()) {
        tracing::trace!(%error, "a pause was cut short");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of a group whose owner started at another time than whoever has its number now.
    fn stale() -> String {
        let (own, number) = new_name()
            .rsplit_once('-')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        let own = own.strip_prefix(PREFIX).unwrap();
        let (pid, rest) = own.split_once('-').unwrap();
        let (_, among) = rest.split_once('-').unwrap();
        format!("{PREFIX}{pid}-1-{among}-{number}")
    }

    #[test]
    fn a_groups_name_names_its_owner() {
        assert!(!is_stale(&new_name()));
        assert!(is_stale(&stale()));
        for other in [
            "skep-12-345-0",
            "skep-x-345-6-0",
            "other-12-345-6-0",
            "skep-",
        ] {
            assert!(!is_stale(other), "{other}");
        }
    }

    #[test]
    fn what_ended_owners_left_is_found_in_whatever_group_they_were() {
        let top = tempfile::tempdir().unwrap();
        let elsewhere = top.path().join("user.slice/session-1.scope");
        let (gone, living) = (elsewhere.join(stale()), elsewhere.join(new_name()));
        for group in [gone.join("skep-below"), living.clone()] {
            fs::create_dir_all(group).unwrap();
        }
        sweep_below(vec![top.path().to_owned()]);
        assert!(!gone.exists());
        assert!(living.exists());
    }
}
