//! Hooks that git would run as the user: what an agent wrote must not become one.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use bstr::{BStr, BString, ByteSlice};

use crate::error::Error;
use crate::ids::TreeId;
use crate::mirror::Mirror;
use crate::process::Call;
use crate::source::Source;

/// The most files of a directory of hooks that are looked at: git knows some thirty.
const HOOKS: usize = 1_000;

impl Source {
    /// Refuses when a file that would change is a hook that git would run as the user: where the directory of hooks,
    /// or a hook in it, leads into the working tree, what an agent wrote there would be run.
    pub(super) fn refuse_hooks(
        &self,
        mirror: &Mirror,
        before: TreeId,
        after: TreeId,
    ) -> Result<(), Error> {
        let hooks = self.hooks()?;
        // The directory by its name, where links lead from there, and where each hook leads.
        let mut found = vec![lexical(&hooks)];
        found.extend(fs::canonicalize(&hooks));
        for entry in fs::read_dir(&hooks).into_iter().flatten().take(HOOKS) {
            found.extend(entry.and_then(|entry| fs::canonicalize(entry.path())));
        }
        let top = fs::canonicalize(self.top()).unwrap_or_else(|_| self.top().to_owned());
        let inside = |place: &PathBuf| {
            let inside = place
                .strip_prefix(&top)
                .or_else(|_| place.strip_prefix(self.top()));
            Some(BString::from(inside.ok()?.as_os_str().as_bytes()))
        };
        let places: Vec<BString> = found.iter().filter_map(inside).collect();
        if places.is_empty() {
            return Ok(());
        }
        let changes = mirror.changed_paths(before, after)?;
        let mut paths = changes.into_iter().map(|change| change.path);
        match paths.find(|path| {
            places
                .iter()
                .any(|place| is_at(place.as_ref(), path.as_ref()))
        }) {
            Some(file) => Err(Error::ChangesHook { hooks, file }),
            None => Ok(()),
        }
    }

    /// Where git looks for hooks, as an absolute path.
    fn hooks(&self) -> Result<PathBuf, Error> {
        let doing = "asking where hooks are";
        let mut command = self.program().as_user(self.top())?;
        command.args(["config", "--type=path", "--get", "core.hooksPath"]);
        let output = self
            .program()
            .execute(Call::new(doing, command).limit(64 * 1024))?;
        match output.code {
            Some(0) => {
                let place = output.stdout.trim_end_with(|c| c == '\n' || c == '\r');
                let place = place.to_path().map_err(|_| Error::Failed {
                    doing,
                    status: "unreadable".into(),
                    message: "`core.hooksPath` is not a path".into(),
                })?;
                Ok(self.top().join(place))
            }
            // It is not set.
            Some(1) => Ok(self.common_dir().join("hooks")),
            _ => Err(output.failure(doing)),
        }
    }
}

/// Whether a path is the place, below it, or a directory above it; the top is above all.
fn is_at(place: &BStr, path: &BStr) -> bool {
    let below = |path: &BStr, above: &BStr| {
        above.is_empty()
            || path
                .strip_prefix(above.as_bytes())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    below(path, place) || below(place, path)
}

/// A path without `.` and `..`, links not looked at.
fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}
