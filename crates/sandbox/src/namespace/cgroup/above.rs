//! A group above those that an engine of containers makes, for what they may use together.

use std::fs;
use std::path::{Path, PathBuf};

use super::stale::remove_with_children;
use super::{Hierarchy, Parent, own_path};
use crate::Total;

/// A group of this process. An engine is given its path, and makes groups below it, in every hierarchy
/// that there is. Removed on drop, with what the engine left below it.
#[derive(Debug)]
pub(crate) struct Above {
    /// As engines name it: below the root of each hierarchy.
    path: String,
    /// Where that is.
    places: Vec<PathBuf>,
    bounds_processors: bool,
    _parent: Parent,
}

impl Above {
    /// Makes one with these limits, where it has the same path in all hierarchies. Blocks.
    pub(crate) fn create(total: &Total) -> Result<Self, String> {
        let hierarchy = Hierarchy::at_the_top().ok_or("this user can make no control group")?;
        hierarchy.sweep();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = whole(&mounts);
        let parent = Parent::create(&hierarchy, total)
            .map_err(|error| format!("no control group can be made ({error})"))?;
        let directories = parent.below().parents();
        let mut paths = directories.iter().map(|directory| {
            points
                .iter()
                .find_map(|point| directory.strip_prefix(point).ok())
        });
        let first = paths.next().flatten();
        let Some(path) = first.filter(|first| paths.all(|path| path == Some(*first))) else {
            return Err("control groups have different paths in different hierarchies".to_owned());
        };
        let path = path.to_owned();
        Ok(Self {
            places: points.iter().map(|point| point.join(&path)).collect(),
            path: format!("/{}", path.display()),
            bounds_processors: hierarchy.bounds_processors(),
            _parent: parent,
        })
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Whether it bounds processor time, too.
    pub(crate) fn bounds_processors(&self) -> bool {
        self.bounds_processors
    }

    /// Whether a process counts in it: an engine may have put it elsewhere.
    pub(crate) fn holds(&self, pid: u32) -> bool {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let memory = own_path(&groups, |names| {
            names.split(',').any(|name| name == "memory")
        });
        let group = memory.or_else(|| own_path(&groups, str::is_empty));
        group.is_some_and(|group| Path::new(group).starts_with(&self.path))
    }
}

impl Drop for Above {
    fn drop(&mut self) {
        let mut tries = 0;
        for place in &self.places {
            if let Err(error) = remove_with_children(place, &mut tries) {
                tracing::warn!(%error, group = %place.display(), "a control group stays");
            }
        }
    }
}

/// Where hierarchies are mounted, each with the group of it that is there.
pub(super) fn points(mounts: &str) -> impl Iterator<Item = (&str, PathBuf)> {
    mounts.lines().filter_map(|line| {
        let (place, system) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        system
            .starts_with("cgroup")
            .then(|| (root, PathBuf::from(point)))
    })
}

/// Where they are mounted whole.
fn whole(mounts: &str) -> Vec<PathBuf> {
    let whole = points(mounts).filter(|(root, _)| *root == "/");
    whole.map(|(_, point)| point).collect()
}

/// The roots of all hierarchies.
pub(super) fn roots() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    whole(&mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_where_they_are_mounted_whole() {
        let mounts = "31 30 0:27 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n\
                      32 30 0:28 /a /elsewhere rw - cgroup cgroup rw,pids\n\
                      33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      34 30 0:30 / /tmp rw - tmpfs tmpfs rw";
        let expected = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"];
        assert_eq!(whole(mounts), expected.map(PathBuf::from));
        assert_eq!(points(mounts).count(), 3);
    }
}
