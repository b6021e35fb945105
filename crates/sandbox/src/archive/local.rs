//! Files of the owner's own machine: packed, and put where a person wants them.

mod pack;
mod place;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use pack::pack;
pub use place::{Put, Where, put};

use super::Other;

/// The most entries that are named among what was left out.
pub const MOST_NAMED: usize = 50;

/// What was found and is not carried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// The first of them.
    pub named: Vec<(PathBuf, Other)>,
    /// How many there were.
    pub count: u64,
}

impl LeftOut {
    /// Notes one more.
    pub fn add(&mut self, path: &Path, other: Other) {
        self.count = self.count.saturating_add(1);
        if self.named.len() < MOST_NAMED {
            self.named.push((path.to_owned(), other));
        }
    }
}

/// The name under which what is at `path` is carried; none if only what is in it is: the path ends with
/// `.` or `..`, or is the root.
#[must_use]
pub fn name_of(path: &Path) -> Option<&OsStr> {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/')?;
    let bytes = bytes.get(..=end).unwrap_or_default();
    match bytes.rsplit(|byte| *byte == b'/').next() {
        None | Some(b"" | b"." | b"..") => None,
        Some(name) => Some(OsStr::from_bytes(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_keeps_its_name_and_of_a_directory_as_such_only_its_content_is_meant() {
        for (path, name) in [
            ("a/b", Some("b")),
            ("a/b/", Some("b")),
            ("b", Some("b")),
            ("/", None),
            (".", None),
            ("a/.", None),
            ("a/..", None),
            ("a/./", None),
        ] {
            assert_eq!(name_of(Path::new(path)), name.map(OsStr::new), "{path}");
        }
    }
}
