//! The copies of repositories that were given by URLs.

use crate::error::Error;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

/// The copy of a repository that was given by a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The name of its directory.
    pub name: String,
    /// The URL; none where the copy was never made to its end.
    pub url: Option<String>,
    /// What it takes on disk, in bytes.
    pub bytes: u64,
    /// When something was fetched into it last.
    pub last_use: SystemTime,
    /// Why it stays, however long it is not used.
    pub stays: Option<&'static str>,
}

/// A copy that was not used for so long goes; it is fetched again when it is needed.
const UNUSED: Duration = Duration::from_secs(30 * 86_400);
/// As [`UNUSED`], where all goes that nobody needs. Whoever has just fetched has asked nothing yet.
const JUST_USED: Duration = Duration::from_secs(86_400);
impl Fetched {
    pub(super) fn goes(&self, all: bool, now: SystemTime) -> bool {
        let age = now.duration_since(self.last_use).unwrap_or_default();
        self.stays.is_none() && age > if all { JUST_USED } else { UNUSED }
    }
}

/// Where copies of repositories that were given by URLs are kept, in a directory of sites.
pub const FETCHED: &str = "fetched";

/// The copies, each measured. Whether a request needs one is not looked at.
pub(super) fn fetched(directory: &Path, stop: &AtomicBool) -> Result<Vec<Fetched>, Error> {
    let mut found = Vec::new();
    for copy in git::copies(&directory.join(FETCHED))? {
        if stop.load(Ordering::Relaxed) {
            return Err(workspace::Error::Stopped.into());
        }
        let name = copy.directory.file_name().unwrap_or_default();
        found.push(Fetched {
            name: name.to_string_lossy().into_owned(),
            bytes: workspace::disk_bytes(&copy.directory)?,
            last_use: copy.last_use,
            stays: copy.holds_work.then_some("holds integrated work"),
            url: copy.url,
        });
    }
    Ok(found)
}

/// Says of copies that a request has not ended that works on them: what it does is published there.
pub(super) fn mark_needed(directory: &Path, fetched: &mut [Fetched], needed: &[String]) {
    let needed: Vec<PathBuf> = needed
        .iter()
        .filter_map(|path| fs::canonicalize(path).ok())
        .collect();
    for copy in fetched {
        let place = directory.join(FETCHED).join(&copy.name);
        let is_needed = fs::canonicalize(place).is_ok_and(|place| needed.contains(&place));
        if is_needed {
            copy.stays = Some("a request works on it");
        }
    }
}

/// Moves copies that were not used for long to the trash; those that somebody uses by now stay.
pub(super) fn retire(
    directory: &Path,
    fetched: &[Fetched],
    all: bool,
) -> Result<Vec<String>, Error> {
    let now = SystemTime::now();
    let mut retired = Vec::new();
    let goes = |name: &str| {
        let copy = fetched.iter().find(|copy| copy.name == name);
        copy.is_some_and(|copy| copy.goes(all, now))
    };
    for copy in git::copies(&directory.join(FETCHED))? {
        let name = copy.directory.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let age = now.duration_since(copy.last_use).unwrap_or_default();
        if !goes(&name) || copy.holds_work || age <= JUST_USED {
            continue;
        }
        let to = directory.join("trash").join(format!(
            "{FETCHED}-{name}.{:x}.{:x}",
            std::process::id(),
            now.duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |age| age.as_micros())
        ));
        if copy.move_away(&to)? {
            retired.push(name);
        }
    }
    Ok(retired)
}
