//! Patches of what was changed in places that are gone.

use super::{error::Error, place::Changed};
use domain::SandboxId;
use std::{
    fs::{self, File},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// How many are kept, the newest.
pub const MOST_PATCHES: usize = 20;

/// Keeps a patch of what was changed, in the further repository of this name where one is given, below
/// the data directory, and removes the oldest beyond [`MOST_PATCHES`]. What else is there stays.
///
/// # Errors
/// When it cannot be written; nothing of it is kept then.
pub async fn keep_patch(
    data: &Path,
    id: SandboxId,
    name: Option<&str>,
    changed: &Changed,
) -> Result<PathBuf, crate::Error> {
    let (path, file) = begin(data, id, name)?;
    if let Err(error) = changed.write_patch(file).await {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "a part of a patch stays");
        }
        return Err(error);
    }
    Ok(path)
}

/// An empty file for a patch.
fn begin(data: &Path, id: SandboxId, name: Option<&str>) -> Result<(PathBuf, File), Error> {
    let place = data.join("patches");
    let doing = "keeping the patch in";
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&place)
        .map_err(Error::file(doing, &place))?;
    let path = place.join(match name {
        Some(name) => format!("{id}.{name}.patch"),
        None => format!("{id}.patch"),
    });
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .map_err(Error::file(doing, &path))?;
    forget_oldest(&place, &path).map_err(Error::file("removing old patches in", &place))?;
    Ok((path, file))
}

fn forget_oldest(place: &Path, newest: &Path) -> std::io::Result<()> {
    let mut all: Vec<(SystemTime, PathBuf)> = fs::read_dir(place)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let found = entry.metadata().ok()?;
            let is_one = found.is_file() && is_ours(entry.file_name().to_str()?);
            is_one.then_some((found.modified().ok()?, entry.path()))
        })
        .filter(|(_, path)| path != newest)
        .collect();
    all.sort_by(|one, other| other.cmp(one));
    for (_, path) in all.iter().skip(MOST_PATCHES.saturating_sub(1)) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Whether a file has a name that [`begin`] gives: an id, and the name of a repository.
fn is_ours(name: &str) -> bool {
    let stem = name.strip_suffix(".patch");
    let id = stem.and_then(|stem| stem.split('.').next());
    id.is_some_and(|id| id.parse::<SandboxId>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_patches_are_kept() {
        let data = tempfile::tempdir().unwrap();
        let mut kept = Vec::new();
        let place = data.path().join("patches");
        // None of these is a patch that was kept here, and none counts.
        fs::create_dir_all(place.join("x-000000000001.patch")).unwrap();
        for name in ["mine.patch", "x-notes.patch", "x-000000000002"] {
            fs::write(place.join(name), b"mine").unwrap();
        }
        let others = fs::read_dir(&place).unwrap().count();
        for number in 0..25u64 {
            let id = SandboxId::from_bits(100 + number);
            let name = (number % 2 == 0).then_some("lib.rs");
            let (path, file) = begin(data.path(), id, name).unwrap();
            let age = std::time::Duration::from_secs(1_000 - number);
            file.set_modified(SystemTime::now() - age).unwrap();
            kept.push(path);
        }
        let there: Vec<bool> = kept.iter().map(|path| path.exists()).collect();
        assert_eq!(there[..5], [false; 5]);
        assert_eq!(there[5..], [true; 20]);
        let left = fs::read_dir(&place).unwrap().count();
        assert_eq!(left, others + 20, "what is no patch of ours stays");
    }
}
