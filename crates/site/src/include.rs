//! Ignored files of the user's tree that a policy takes along, such as `.env.test`.

use crate::error::Error;
use bstr::{BString, ByteSlice};
use domain::{entity, scope::Globs};
use ledger::Ledger;
use std::{ffi::OsStr, io::Read, os::unix::ffi::OsStrExt, path::Path};

/// The most files that are taken along.
pub const MAX_INCLUDED_FILES: usize = 1_000;
/// The most bytes that are taken along, in all.
pub const MAX_INCLUDED_BYTES: u64 = 64 << 20;

/// A file that is taken along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Included {
    /// Its path in the repository.
    pub path: BString,
    /// Whether it may be executed.
    pub executable: bool,
    /// Its content.
    pub content: Vec<u8>,
}

/// Reads those of `candidates` (paths of ignored files below `top`) that the globs name. Links and
/// what is no regular file are passed over: a glob must not reach out of the repository.
///
/// # Errors
/// When a glob or a file cannot be read, or there is more than may be taken along.
pub fn included(
    top: &Path,
    candidates: impl IntoIterator<Item = BString>,
    globs: &[String],
) -> Result<Vec<Included>, Error> {
    let matcher = Globs::new(globs).map_err(|error| Error::Include(error.to_string()))?;
    let mut found = Vec::new();
    let mut bytes = 0u64;
    if matcher.is_empty() {
        return Ok(found);
    }
    let root = rustix::fs::open(
        top,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(|error| Error::Include(format!("{}: {error}", top.display())))?;
    for path in candidates {
        if !matcher.matches(&path) {
            continue;
        }
        let Some((executable, content)) = read(&root, &path, MAX_INCLUDED_BYTES - bytes)? else {
            continue;
        };
        bytes = bytes.saturating_add(content.len() as u64);
        if bytes >= MAX_INCLUDED_BYTES || found.len() >= MAX_INCLUDED_FILES {
            return Err(Error::Include(format!(
                "`include` names more than {MAX_INCLUDED_FILES} files or {} MiB",
                MAX_INCLUDED_BYTES >> 20
            )));
        }
        found.push(Included {
            path,
            executable,
            content,
        });
    }
    Ok(found)
}

/// The files that a request takes along, from their blobs.
///
/// # Errors
/// When a blob cannot be read.
pub async fn load(ledger: &Ledger, files: &[entity::Included]) -> Result<Vec<Included>, Error> {
    let mut included = Vec::new();
    for file in files {
        included.push(Included {
            path: file.path.as_str().into(),
            executable: file.executable,
            content: ledger.blob(file.content, MAX_INCLUDED_BYTES).await?,
        });
    }
    Ok(included)
}

fn read(
    root: &rustix::fd::OwnedFd,
    path: &BString,
    limit: u64,
) -> Result<Option<(bool, Vec<u8>)>, Error> {
    use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
    let failed = |error: &dyn std::fmt::Display| Error::Include(format!("{path}: {error}"));
    let opened = rustix::fs::openat2(
        root,
        OsStr::from_bytes(path.as_bytes()),
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    );
    let file = match opened {
        Ok(file) => file,
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(&error)),
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| failed(&error))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let mut content = Vec::new();
    std::fs::File::from(file)
        .take(limit)
        .read_to_end(&mut content)
        .map_err(|error| failed(&error))?;
    Ok(Some((stat.st_mode & 0o100 != 0, content)))
}
