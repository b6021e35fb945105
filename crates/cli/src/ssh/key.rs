//! The key by which clients know that they speak with Skep: one for a data directory.

use crate::report::Error;
use russh::keys::{
    Algorithm, PrivateKey,
    ssh_key::{LineEnding, private::Ed25519Keypair},
};
use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// The name by which clients know it, whatever a sandbox is called.
pub(crate) const ALIAS: &str = "skep-sandbox";
const LONGEST: u64 = 64 << 10;

/// The directory of the key and of the file that clients know it by.
fn directory(data: &Path) -> PathBuf {
    data.join("ssh")
}

/// The file that says to clients which key it is.
pub(crate) fn known_hosts(data: &Path) -> PathBuf {
    directory(data).join("known_hosts")
}

/// The key, made when it is first asked for. Whoever is first makes it for all.
///
/// # Errors
/// When it cannot be read or written, or is none.
pub(crate) fn key(data: &Path) -> Result<PrivateKey, Error> {
    let path = directory(data).join("host_key");
    if let Some(key) = read(&path)? {
        return Ok(key);
    }
    make(data, &path)?;
    let key = read(&path)?.ok_or_else(|| none(&path, io::ErrorKind::NotFound.into()))?;
    // Those that were told of a key before this one would take this for a stranger's.
    tell(data, &key)?;
    Ok(key)
}

fn none(path: &Path, source: io::Error) -> Error {
    Error::HostKey {
        path: path.into(),
        source,
    }
}

fn read(path: &Path) -> Result<Option<PrivateKey>, Error> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(none(path, error)),
    }
    let key = PrivateKey::from_openssh(&text);
    let key = key.map_err(|error| none(path, io::Error::other(error)))?;
    match key.algorithm() {
        Algorithm::Ed25519 => Ok(Some(key)),
        _ => Err(none(path, io::ErrorKind::InvalidData.into())),
    }
}

/// Makes the key, and what clients know it by. Of several who do at once, one wins.
fn make(data: &Path, path: &Path) -> Result<(), Error> {
    let failed = |path: &Path, source| Error::File {
        doing: "writing the key for SSH",
        path: path.into(),
        source,
    };
    let above = directory(data);
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&above);
    made.map_err(|source| failed(&above, source))?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|source| failed(path, io::Error::other(source)))?;
    let key = PrivateKey::new(Ed25519Keypair::from_seed(&seed).into(), ALIAS);
    let text = key.and_then(|key| key.to_openssh(LineEnding::LF));
    let text = text.map_err(|source| failed(path, io::Error::other(source)))?;
    let written = write_new(&above, path, text.as_bytes());
    written.map_err(|source| failed(path, source))
}

/// A file of the user's alone, which goes away unless it is given a name that lasts.
fn new_file(above: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let new = tempfile::Builder::new()
        .permissions(mode())
        .tempfile_in(above)?;
    new.as_file().write_all(bytes)?;
    new.as_file().sync_all()?;
    Ok(new)
}

/// Writes a file as a whole, unless there is one.
fn write_new(above: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    match new_file(above, bytes)?.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}

fn mode() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o600)
}

/// Writes what clients know the key by, and says where.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn tell_clients(data: &Path) -> Result<PathBuf, Error> {
    tell(data, &key(data)?)
}

fn tell(data: &Path, key: &PrivateKey) -> Result<PathBuf, Error> {
    let path = known_hosts(data);
    let failed = |source| Error::File {
        doing: "writing",
        path: path.clone(),
        source,
    };
    let public = key.public_key().to_openssh();
    let public = public.map_err(|source| failed(io::Error::other(source)))?;
    // The comment of a key is no part of it.
    let words: Vec<_> = public.split_whitespace().take(2).collect();
    let line = format!("{ALIAS} {}\n", words.join(" "));
    let written = new_file(&directory(data), line.as_bytes());
    let persisted = written.and_then(|new| new.persist(&path).map_err(|error| error.error));
    persisted.map_err(failed)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_key_is_made_once_and_is_the_users_alone() {
        let data = tempfile::tempdir().unwrap();
        let first = key(data.path()).unwrap();
        let again = key(data.path()).unwrap();
        assert_eq!(first.public_key(), again.public_key());
        let modes = |name: &str| {
            let found = fs::metadata(data.path().join(name)).unwrap();
            found.permissions().mode() & 0o777
        };
        assert_eq!((modes("ssh"), modes("ssh/host_key")), (0o700, 0o600));
        let known = fs::read_to_string(tell_clients(data.path()).unwrap()).unwrap();
        let public = first.public_key().to_openssh().unwrap();
        assert!(known.starts_with("skep-sandbox ssh-ed25519 "));
        assert!(public.contains(known.split_whitespace().nth(2).unwrap()));
        let left = fs::read_dir(data.path().join("ssh")).unwrap().count();
        assert_eq!(left, 2, "nothing else is left");
        assert_eq!(modes("ssh/known_hosts"), 0o600);
    }

    #[test]
    fn what_clients_know_is_written_through_no_file_that_somebody_left_there() {
        let data = tempfile::tempdir().unwrap();
        key(data.path()).unwrap();
        let kept = data.path().join("kept");
        fs::write(&kept, "old").unwrap();
        fs::remove_file(data.path().join("ssh/known_hosts")).unwrap();
        let ours = format!("ssh/known_hosts.{}", std::process::id());
        for name in ["ssh/known_hosts", &ours] {
            std::os::unix::fs::symlink(&kept, data.path().join(name)).unwrap();
        }
        let path = tell_clients(data.path()).unwrap();
        assert!(fs::symlink_metadata(path).unwrap().is_file());
        assert_eq!(fs::read_to_string(&kept).unwrap(), "old");
    }

    #[test]
    fn a_key_that_is_none_is_named_and_not_replaced() {
        let data = tempfile::tempdir().unwrap();
        key(data.path()).unwrap();
        let path = data.path().join("ssh/host_key");
        fs::write(&path, "no key").unwrap();
        let error = key(data.path()).unwrap_err();
        let report = crate::report::Report::of(&error);
        assert!(report.message.contains("host_key"));
        assert!(report.hint.unwrap().contains("another is made"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "no key");
    }

    #[test]
    fn clients_know_a_key_that_is_made_anew_in_the_place_of_one_that_was_deleted() {
        let data = tempfile::tempdir().unwrap();
        let known = tell_clients(data.path()).unwrap();
        let before = fs::read_to_string(&known).unwrap();
        fs::remove_file(data.path().join("ssh/host_key")).unwrap();
        let public = key(data.path()).unwrap().public_key().to_openssh().unwrap();
        let now = fs::read_to_string(&known).unwrap();
        assert_ne!(now, before);
        assert!(public.contains(now.split_whitespace().nth(2).unwrap()));
    }
}
