//! Patches of what was changed in places that are gone.

use super::error::Error;
use domain::SandboxId;
use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// How many are kept, the newest.
pub const MOST_PATCHES: usize = 20;

/// Keeps a patch, of the further repository of this name where one is given, below the data directory, and removes the oldest beyond [`MOST_PATCHES`].
///
/// # Errors
/// When it cannot be written.
pub fn keep_patch(
    data: &Path,
    id: SandboxId,
    name: Option<&str>,
    patch: &[u8],
) -> Result<PathBuf, Error> {
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
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(patch))
        .map_err(Error::file(doing, &path))?;
    forget_oldest(&place, &path).map_err(Error::file("removing old patches in", &place))?;
    Ok(path)
}

fn forget_oldest(place: &Path, newest: &Path) -> std::io::Result<()> {
    let mut all: Vec<(SystemTime, PathBuf)> = fs::read_dir(place)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let changed = entry.metadata().ok()?.modified().ok()?;
            Some((changed, entry.path()))
        })
        .filter(|(_, path)| path != newest && path.extension().is_some_and(|it| it == "patch"))
        .collect();
    all.sort_by(|one, other| other.cmp(one));
    for (_, path) in all.iter().skip(MOST_PATCHES.saturating_sub(1)) {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_patches_are_kept() {
        let data = tempfile::tempdir().unwrap();
        let mut kept = Vec::new();
        for number in 0..25u64 {
            let id = SandboxId::from_bits(number);
            let path = keep_patch(data.path(), id, None, b"a patch").unwrap();
            let age = std::time::Duration::from_secs(1_000 - number);
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
            kept.push(path);
        }
        let there: Vec<bool> = kept.iter().map(|path| path.exists()).collect();
        assert_eq!(there[..5], [false; 5]);
        assert_eq!(there[5..], [true; 20]);
    }
}
