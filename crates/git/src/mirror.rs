//! A bare repository of our own, one for each repository that is worked on.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bstr::{BStr, BString};
use gix::objs::tree::EntryKind;

use crate::diff::FileKind;
use crate::entry_names;
use crate::error::Error;
use crate::ids::{CommitId, ObjectId, TreeId};
use crate::objects::Objects;
use crate::program::{Cancel, Program};
use crate::references::write_replacing;

/// Attributes above all others: content is what the blob holds. `working-tree-encoding` can only be unspecified.
pub(crate) const ATTRIBUTES: &str = "* -text -filter -ident !eol !working-tree-encoding\n";

pub(crate) const CONFIG: &str = "[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\tlogAllRefUpdates = false
\tprotectHFS = true
\tprotectNTFS = true
[gc]
\tauto = 0
[maintenance]
\tauto = false
";

/// How many settled commits are remembered.
const SETTLED_LIMIT: usize = 10_000;

/// How often a lock that another holds is tried.
const LOCK_INTERVAL: Duration = Duration::from_millis(2);

/// How many packs a mirror may come to have while it is open.
const PACK_SLOTS: usize = 4096;

/// The trusted bare repository. Cheap to clone, shared by threads; any number of processes may use one directory.
#[derive(Clone)]
pub struct Mirror {
    shared: Arc<Shared>,
    program: Program,
}

struct Shared {
    directory: PathBuf,
    objects: Objects,
    /// Commits that survive a power failure with all that they reach.
    settled: Mutex<HashSet<CommitId>>,
}

/// What a path of a commit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// File, link, directory or submodule.
    pub kind: FileKind,
    /// The object, or a submodule's commit.
    pub id: ObjectId,
}

impl Mirror {
    /// Opens the mirror in `directory`, and makes it when there is none. Only its owner can enter it.
    pub fn open_or_create(directory: &Path, program: Program) -> Result<Mirror, Error> {
        let directory =
            std::path::absolute(directory).map_err(|e| Error::io("finding", directory, e))?;
        if !is_whole(&directory) {
            create(&directory, &program)?;
        }
        let objects = Objects::open(&directory.join("objects"), PACK_SLOTS)?;
        Ok(Mirror {
            shared: Arc::new(Shared {
                directory,
                objects,
                settled: Mutex::default(),
            }),
            program,
        })
    }

    /// The same mirror whose processes and walks end with `cancel`.
    #[must_use]
    pub fn with_cancel(&self, cancel: Cancel) -> Mirror {
        Mirror {
            shared: Arc::clone(&self.shared),
            program: self.program.clone().with_cancel(cancel),
        }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.shared.objects
    }

    /// Whether a commit's own object is here. Its history came with it, unless a merge or a change made it.
    pub fn contains(&self, commit: CommitId) -> bool {
        self.objects().reader().contains(&commit.0)
    }

    /// The tree of a commit.
    pub fn tree_of(&self, commit: CommitId) -> Result<TreeId, Error> {
        Ok(self.objects().reader().commit(commit)?.tree)
    }

    /// What is at `path` in a commit, or nothing.
    pub fn entry(&self, commit: CommitId, path: &BStr) -> Result<Option<Entry>, Error> {
        self.entry_in(self.tree_of(commit)?, path)
    }

    /// What is at `path` in a tree, or nothing.
    pub fn entry_in(&self, tree: TreeId, path: &BStr) -> Result<Option<Entry>, Error> {
        let mut reader = self.objects().reader();
        let mut at = Entry {
            kind: FileKind::Directory,
            id: tree.into(),
        };
        for name in entry_names::components(path, false)? {
            if at.kind != FileKind::Directory {
                return Ok(None);
            }
            match reader
                .tree(&at.id.0)?
                .into_iter()
                .find(|item| item.name == name)
            {
                Some(item) => {
                    at = Entry {
                        kind: FileKind::of(item.kind),
                        id: ObjectId(item.id),
                    }
                }
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// The content of a file of a commit; nothing when there is no file (or link) of that name.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above `limit` bytes.
    pub fn read(
        &self,
        commit: CommitId,
        path: &BStr,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, Error> {
        match self.entry(commit, path)? {
            Some(Entry {
                kind: FileKind::File | FileKind::Executable | FileKind::Link,
                id,
            }) => self.read_blob(id, limit).map(Some),
            _ => Ok(None),
        }
    }

    /// The content of a blob of at most `limit` bytes.
    pub fn read_blob(&self, id: ObjectId, limit: u64) -> Result<Vec<u8>, Error> {
        self.objects().reader().blob_within(&id.0, limit)
    }

    /// The size of a blob in bytes, without reading it.
    pub fn blob_size(&self, id: ObjectId) -> Result<u64, Error> {
        self.objects()
            .reader()
            .header(&id.0)?
            .map(|(_, size)| size)
            .ok_or(Error::Missing { id })
    }

    /// The files of a tree, with their paths, in git's order; at most `limit`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when there are more.
    pub fn files(&self, tree: TreeId, limit: usize) -> Result<Vec<(BString, Entry)>, Error> {
        let mut reader = self.objects().reader();
        let mut found = Vec::new();
        let mut open = vec![(BString::default(), tree.0)];
        let mut trees = 0_usize;
        let too_many = || Error::TooLarge {
            what: format!("the list of files of tree {tree}"),
            limit: limit as u64,
        };
        while let Some((prefix, id)) = open.pop() {
            trees += 1;
            if trees > limit.max(1) {
                return Err(too_many());
            }
            self.program.cancel().check("listing files")?;
            for item in reader.tree(&id)? {
                let mut path = prefix.clone();
                path.extend_from_slice(&item.name);
                if item.kind == EntryKind::Tree {
                    path.push(b'/');
                    open.push((path, item.id));
                } else {
                    found.push((
                        path,
                        Entry {
                            kind: FileKind::of(item.kind),
                            id: ObjectId(item.id),
                        },
                    ));
                }
                if found.len() > limit {
                    return Err(too_many());
                }
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// The lock that every change of more than one file of the mirror holds, across threads and processes. The system
    /// frees it when its holder dies.
    pub(crate) fn lock(&self) -> Result<File, Error> {
        take_lock(&self.directory().join("skep/lock"), &self.program)
    }

    /// A directory of our own for temporary files, on the mirror's file system.
    pub(crate) fn scratch(&self) -> Result<Scratch, Error> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let serial = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = self
            .directory()
            .join(format!("skep/scratch/{}-{serial}", std::process::id()));
        if let Err(e) = fs::remove_dir_all(&path)
            && e.kind() != ErrorKind::NotFound
        {
            return Err(Error::io("clearing", path, e));
        }
        fs::create_dir_all(&path).map_err(|e| Error::io("creating", &path, e))?;
        Ok(Scratch { path })
    }

    /// Whether this process made the commit durable before.
    pub(crate) fn is_settled(&self, commit: CommitId) -> bool {
        self.settled().contains(&commit)
    }

    pub(crate) fn note_settled(&self, commit: CommitId) {
        let mut settled = self.settled();
        if settled.len() >= SETTLED_LIMIT {
            settled.clear();
        }
        settled.insert(commit);
    }

    fn settled(&self) -> std::sync::MutexGuard<'_, HashSet<CommitId>> {
        self.shared
            .settled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens and locks a file, waiting for whoever has it: until the program's deadline, or until cancelled.
pub(crate) fn take_lock(path: &Path, program: &Program) -> Result<File, Error> {
    let doing = "waiting for another process that writes to the mirror";
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|e| Error::io("opening", path, e))?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(e)) => return Err(Error::io("locking", path, e)),
            Err(TryLockError::WouldBlock) => {}
        }
        program.cancel().check(doing)?;
        if started.elapsed() > program.deadline() {
            return Err(Error::TimedOut {
                doing,
                after: program.deadline(),
            });
        }
        // The kernel tells nobody when a lock is freed, and a blocking lock has no deadline.
        std::thread::park_timeout(LOCK_INTERVAL);
    }
}

/// A temporary directory, removed at the end.
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "a temporary directory stays");
        }
    }
}

/// What git wants to find before it takes a directory for a repository.
const HEAD: &str = "ref: refs/heads/none\n";

/// The directories of a mirror.
const PARTS: [&str; 7] = [
    "objects/pack",
    "objects/info",
    "refs/heads",
    "refs/skep",
    "info",
    "skep/history",
    "skep/scratch",
];

/// Whether a mirror was made here to its end, and what makes it one is as it was made. A mirror
/// that somebody damaged is made again, around what is left of it.
fn is_whole(directory: &Path) -> bool {
    let is_as_made = |(name, text): (&str, &str)| {
        fs::read(directory.join(name)).is_ok_and(|found| found == text.as_bytes())
    };
    directory.join("skep/format").is_file()
        && [("HEAD", HEAD), ("config", CONFIG)]
            .into_iter()
            .all(is_as_made)
        && PARTS.iter().all(|part| directory.join(part).is_dir())
}

/// Makes what is missing; `skep/format` comes last, so that a mirror that has it was made to its end.
fn create(directory: &Path, program: &Program) -> Result<(), Error> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    for part in PARTS {
        let path = directory.join(part);
        builder
            .create(&path)
            .map_err(|e| Error::io("creating", path, e))?;
    }
    let _lock = take_lock(&directory.join("skep/lock"), program)?;
    write_replacing(&directory.join("config"), CONFIG.as_bytes(), true)?;
    write_replacing(
        &directory.join("info/attributes"),
        ATTRIBUTES.as_bytes(),
        true,
    )?;
    write_replacing(&directory.join("HEAD"), HEAD.as_bytes(), true)?;
    write_replacing(&directory.join("skep/format"), b"1\n", true)
}
