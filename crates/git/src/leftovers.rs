//! What killed processes left in a mirror.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::error::Error;

/// Younger than this, it may belong to a process that is alive: no call of git here takes as long.
const OLD: Duration = Duration::from_secs(24 * 60 * 60);

/// Temporary files of a mirror that nobody needs any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Files and directories.
    pub entries: u64,
    /// What the files take, in bytes.
    pub bytes: u64,
}

/// Finds, and with `remove` removes, what processes that were killed more than a day ago left in the mirror in
/// `directory`: directories for temporary files, and packs and objects without their names.
pub fn leftovers(directory: &Path, remove: bool) -> Result<Leftovers, Error> {
    let objects = directory.join("objects");
    let mut places = vec![
        (directory.join("skep/scratch"), ""),
        (objects.join("pack"), "tmp_"),
    ];
    let shelves = entries(&objects)?;
    places.extend(
        shelves
            .into_iter()
            .filter(|(path, _)| path.file_name().is_some_and(|name| name.len() == 2))
            .map(|(path, _)| (path, "tmp_obj_")),
    );
    let mut found = Leftovers::default();
    for (place, beginning) in places {
        for (path, metadata) in entries(&place)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let age = metadata
                .modified()
                .map(|time| SystemTime::now().duration_since(time));
            let old = matches!(age, Ok(Ok(age)) if age > OLD);
            if !old || !name.starts_with(beginning) {
                continue;
            }
            found.entries += 1;
            found.bytes += metadata.blocks() * 512;
            if !remove {
                continue;
            }
            let removed = match metadata.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            match removed {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(Error::io("removing", path, e));
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

/// What is in a directory; nothing where there is none.
pub(crate) fn entries(directory: &Path) -> Result<Vec<(PathBuf, fs::Metadata)>, Error> {
    let failed = |e| Error::io("reading", directory, e);
    let listed = match fs::read_dir(directory) {
        Ok(listed) => listed,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry.map_err(failed)?;
        match entry.metadata() {
            Ok(metadata) => found.push((entry.path(), metadata)),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_old_and_temporary_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for place in [
            "skep/scratch/7-0",
            "objects/pack",
            "objects/ab",
            "objects/info",
        ] {
            fs::create_dir_all(at(place)).unwrap();
        }
        let files = [
            ("skep/scratch/7-0/half", true),
            ("objects/pack/tmp_pack_x", true),
            ("objects/ab/tmp_obj_y", true),
            ("objects/pack/pack-z.pack", false),
            ("objects/ab/cd", false),
            ("objects/info/tmp_obj_z", false),
        ];
        for (file, _) in files {
            fs::write(at(file), [1; 5_000]).unwrap();
        }
        assert_eq!(leftovers(dir.path(), true).unwrap(), Leftovers::default());
        let then = fs::FileTimes::new().set_modified(SystemTime::now() - 2 * OLD);
        for (file, _) in files {
            let file = fs::File::options().write(true).open(at(file)).unwrap();
            file.set_times(then).unwrap();
        }
        fs::File::open(at("skep/scratch/7-0"))
            .unwrap()
            .set_times(then)
            .unwrap();
        let found = leftovers(dir.path(), false).unwrap();
        assert!(found.entries == 3 && found.bytes >= 10_000, "{found:?}");
        assert_eq!(leftovers(dir.path(), true).unwrap(), found);
        for (file, goes) in files {
            assert_eq!(at(file).exists(), !goes, "{file}");
        }
        assert_eq!(leftovers(dir.path(), true).unwrap(), Leftovers::default());
    }
}
