//! Patches of what was changed in places that are gone.

use super::{error::Error, place::Changed};
use domain::SandboxId;
use std::{
    fs::{self, File},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Where they are, below the data directory.
const PLACE: &str = "patches";
/// How many are kept, the newest.
pub const MOST_PATCHES: usize = 20;
/// What they take together, at most, in bytes; those of one place stay, whatever they take, until those
/// of another come.
const MOST_BYTES: u64 = 2 << 30;

/// Keeps a patch of what was changed, in the further repository of this name where one is given, below
/// the data directory, and then removes the oldest beyond [`MOST_PATCHES`] and 2 GiB. What else is
/// there stays.
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
    if let Err(error) = forget_oldest(&data.join(PLACE), id, MOST_BYTES) {
        tracing::warn!(%error, "old patches stay");
    }
    Ok(path)
}

/// An empty file for a patch.
fn begin(data: &Path, id: SandboxId, name: Option<&str>) -> Result<(PathBuf, File), Error> {
    let place = data.join(PLACE);
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
    Ok((path, file))
}

/// Removes the oldest of the patches, but none of the newest place's.
fn forget_oldest(place: &Path, newest: SandboxId, most_bytes: u64) -> std::io::Result<()> {
    let mut all: Vec<(bool, SystemTime, PathBuf, u64)> = fs::read_dir(place)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let found = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            let id = id_of(entry.file_name().to_str()?)?;
            let modified = found.modified().ok()?;
            Some((id == newest, modified, entry.path(), found.len()))
        })
        .collect();
    all.sort_by(|one, other| other.cmp(one));
    let mut bytes = 0u64;
    for (count, (is_newest, _, path, length)) in all.iter().enumerate() {
        bytes = bytes.saturating_add(*length);
        if !is_newest && (count >= MOST_PATCHES || bytes > most_bytes) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The id in a name that [`begin`] gives: before it, and the name of a repository.
fn id_of(name: &str) -> Option<SandboxId> {
    let stem = name.strip_suffix(".patch")?;
    stem.split('.').next()?.parse().ok()
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
            forget_oldest(&place, id, MOST_BYTES).unwrap();
        }
        let there: Vec<bool> = kept.iter().map(|path| path.exists()).collect();
        assert_eq!(there[..5], [false; 5]);
        assert_eq!(there[5..], [true; 20]);
        let left = fs::read_dir(&place).unwrap().count();
        assert_eq!(left, others + 20, "what is no patch of ours stays");
    }

    #[test]
    fn patches_have_a_bound_together_and_the_newest_places_stay_whatever_they_take() {
        let data = tempfile::tempdir().unwrap();
        let place = data.path().join(PLACE);
        let keep = |number: u64, name: Option<&str>, bytes: u64| {
            let id = SandboxId::from_bits(100 + number);
            let (path, file) = begin(data.path(), id, name).unwrap();
            file.set_len(bytes).unwrap();
            let age = std::time::Duration::from_secs(1_000 - number);
            file.set_modified(SystemTime::now() - age).unwrap();
            forget_oldest(&place, id, 100).unwrap();
            path
        };
        let small = [keep(0, None, 40), keep(1, None, 40), keep(2, None, 20)];
        assert!(small.iter().all(|path| path.exists()));
        let next = keep(3, None, 30);
        assert!(!small[0].exists() && small[1].exists() && small[2].exists());
        let large = [keep(4, None, 90), keep(4, Some("lib"), 90)];
        assert!(large.iter().all(|path| path.exists()));
        assert!(!small[1].exists() && !small[2].exists() && !next.exists());
        let last = keep(5, None, 101);
        assert!(last.exists() && large.iter().all(|path| !path.exists()));
    }
}
