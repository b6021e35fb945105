//! A base: a complete git checkout for agents, with exactly the history of its commit.
//!
//! Files are written here, not by git: byte for byte as in the blobs, whatever attributes or settings say. The order
//! keeps hostile trees harmless: first all directories, then files, each made new and never through a link, and
//! symbolic links last.
//!
//! A finished base is immutable, and parts of it are hard links into the mirror: it is shown to a sandbox read-only
//! (as the lower layer of an overlay), or copied.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bstr::{BStr, BString, ByteSlice};
use gix::objs::tree::EntryKind;
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};

use crate::entry_names;
use crate::error::Error;
use crate::history::{Both, History};
use crate::ids::CommitId;
use crate::index_file::{self, CachedTree, FileStat, IndexEntry};
use crate::mirror::{ATTRIBUTES, Mirror};
use crate::objects::TreeItem;
use crate::source::Source;

/// The branch that a base is on.
pub const BASE_BRANCH: &str = "skep/work";
/// Who commits in a base: name and address.
pub const BASE_IDENTITY: (&str, &str) = ("Skep agent", "agent@skep.invalid");

/// Where parts of its repository are in a checkout.
pub(crate) const INDEX: &str = ".git/index";
pub(crate) const PACKS: &str = ".git/objects/pack";
pub(crate) const SHALLOW: &str = ".git/shallow";

/// Files of one commit; git repositories of a million files exist.
pub(crate) const FILE_LIMIT: usize = 4_000_000;
/// Directories within each other: a path has 4,096 bytes.
pub(crate) const DEPTH_LIMIT: usize = 2_048;
/// Files that a thread takes at once.
const BATCH: usize = 32;
/// Threads that write files. More do not help: the file system's journal is the limit.
const MAX_WRITERS: usize = 8;

/// `checkStat = minimal`: size and modification time decide, so that the index stays valid when a sandbox maps users,
/// or when a base is copied with its times. Files carry a time before the index's, so any later write is seen.
const CONFIG_HEAD: &str = "[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = false
\tlogAllRefUpdates = true
\tcheckStat = minimal
\ttrustctime = false
\tautocrlf = false
\tsafecrlf = false
\tfsmonitor = false
\tprotectHFS = true
\tprotectNTFS = true
[gc]
\tauto = 0
[maintenance]
\tauto = false
[commit]
\tgpgSign = false
[tag]
\tgpgSign = false
";

impl Mirror {
    /// Writes the files of `commit` and a repository of their own to `into`.
    ///
    /// When `into` does not exist, it appears at the end, whole, or not at all; what a killed process leaves has a
    /// name beginning with `.skep-base-` beside it. When it is an empty directory, it is filled, and what is in it
    /// after a failure is for its owner to remove.
    ///
    /// The history comes from the mirror; with `source` it is fetched meanwhile when it is not there, which is the
    /// quickest way for a first run.
    pub fn checkout(
        &self,
        commit: CommitId,
        into: &Path,
        source: Option<&Source>,
    ) -> Result<(), Error> {
        let into = std::path::absolute(into).map_err(|e| Error::io("finding", into, e))?;
        if into.is_dir() {
            return self.checkout_into(commit, &into, source);
        }
        let parent = into.parent().unwrap_or(Path::new("/"));
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let staging = parent.join(format!(".skep-base-{}-{serial}", std::process::id()));
        remove_tree(&staging)?;
        fs::create_dir(&staging).map_err(|e| Error::io("creating", &staging, e))?;
        let outcome = self.checkout_into(commit, &staging, source).and_then(|()| {
            fs::rename(&staging, &into)
                .map_err(|e| Error::io("finishing the checkout at", &into, e))
        });
        if outcome.is_err()
            && let Err(error) = remove_tree(&staging)
        {
            tracing::warn!(%error, "an unfinished checkout stays");
        }
        outcome
    }

    fn checkout_into(
        &self,
        commit: CommitId,
        staging: &Path,
        source: Option<&Source>,
    ) -> Result<(), Error> {
        self.mend_history(commit)?;
        let fetch = source.filter(|_| !self.has_history(commit));
        std::thread::scope(|scope| {
            let history = scope.spawn(|| self.history(commit, source));
            let files = self.write_files(commit, staging, fetch);
            let history = match history.join() {
                Ok(history) => history?,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            let (entries, root) = files?;
            write_repository(self, commit, staging, &history)?;
            write_index(staging, |file| index_file::write(file, &entries, &root))
        })
    }

    /// Writes all files; returns the index's content.
    fn write_files(
        &self,
        commit: CommitId,
        staging: &Path,
        source: Option<&Source>,
    ) -> Result<(Vec<IndexEntry>, CachedTree), Error> {
        let theirs = source.map(Source::objects);
        let mut listing = Listing {
            commit,
            objects: Both::new(self.objects(), theirs),
            trees: HashMap::new(),
            directories: Vec::new(),
            entries: Vec::new(),
        };
        let tree = listing.objects.commit(commit)?.tree;
        listing.read(tree.0, 0)?;
        let root = listing.add(tree.0, &BString::default(), BString::default())?;
        let Listing {
            directories,
            mut entries,
            ..
        } = listing;

        let top = open_directory(staging)?;
        for path in &directories {
            rustix::fs::mkdirat(&top, path.as_slice(), Mode::from_raw_mode(0o777))
                .map_err(|e| at("creating", staging, path.as_ref(), e))?;
        }
        let writer = Writer {
            mirror: self,
            theirs: source,
            staging,
            top: &top,
            time: file_time()?,
        };
        writer.write_all(&mut entries)?;
        Ok((entries, root))
    }
}

/// The modification time of every file: a whole second before now, so that it differs from that of anything written
/// later, also for programs that look at seconds only.
pub(crate) fn file_time() -> Result<Timespec, Error> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    Ok(Timespec {
        tv_sec: now.saturating_sub(2) as i64,
        tv_nsec: 0,
    })
}

struct Listing {
    commit: CommitId,
    objects: Both,
    trees: HashMap<gix::ObjectId, KnownTree>,
    directories: Vec<BString>,
    entries: Vec<IndexEntry>,
}

/// A tree that was read, and how many entries it has at all depths.
struct KnownTree {
    items: Rc<[TreeItem]>,
    total: usize,
}

impl Listing {
    /// Reads a tree and all below it, each once, and counts: a small repository can hold a tree that unfolds into more
    /// files than any disk.
    fn read(&mut self, id: gix::ObjectId, depth: usize) -> Result<usize, Error> {
        if let Some(known) = self.trees.get(&id) {
            return Ok(known.total);
        }
        if depth > DEPTH_LIMIT {
            return Err(self.too_many());
        }
        let items = self.objects.holding(&id).tree(&id)?;
        let mut total = items.len();
        for item in items.iter().filter(|item| item.kind == EntryKind::Tree) {
            total = total.saturating_add(self.read(item.id, depth + 1)?);
        }
        if total > FILE_LIMIT {
            return Err(self.too_many());
        }
        self.trees.insert(
            id,
            KnownTree {
                items: items.into(),
                total,
            },
        );
        Ok(total)
    }

    fn too_many(&self) -> Error {
        Error::TooManyFiles {
            commit: self.commit,
            limit: FILE_LIMIT,
        }
    }

    /// Adds what is below a tree, in git's order, which is also that of the index.
    fn add(
        &mut self,
        id: gix::ObjectId,
        prefix: &BString,
        name: BString,
    ) -> Result<CachedTree, Error> {
        let mut cached = CachedTree {
            name,
            id,
            files: 0,
            children: Vec::new(),
        };
        let Some(items) = self.trees.get(&id).map(|known| Rc::clone(&known.items)) else {
            return Err(Error::Missing { id: id.into() });
        };
        for item in items.iter() {
            let mut path = prefix.clone();
            path.extend_from_slice(&item.name);
            check_path(&path, item)?;
            if item.kind == EntryKind::Tree {
                self.directories.push(path.clone());
                path.push(b'/');
                let child = self.add(item.id, &path, item.name.clone())?;
                cached.files += child.files;
                cached.children.push(child);
                continue;
            }
            if item.kind == EntryKind::Commit {
                self.directories.push(path.clone());
            }
            cached.files += 1;
            self.entries.push(IndexEntry {
                path,
                mode: item.kind as u32,
                id: item.id,
                stat: FileStat::default(),
            });
        }
        Ok(cached)
    }
}

/// Writes files of a checkout whose directories are there.
pub(crate) struct Writer<'a> {
    pub(crate) mirror: &'a Mirror,
    pub(crate) theirs: Option<&'a Source>,
    pub(crate) staging: &'a Path,
    pub(crate) top: &'a OwnedFd,
    pub(crate) time: Timespec,
}

impl Writer<'_> {
    /// Writes files, then links, and notes in each entry what was written; submodules are passed over.
    pub(crate) fn write_all(&self, entries: &mut [IndexEntry]) -> Result<(), Error> {
        let is_link = |entry: &IndexEntry| entry.mode == EntryKind::Link as u32;
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(MAX_WRITERS);
        let batches: std::sync::Mutex<Vec<&mut [IndexEntry]>> =
            std::sync::Mutex::new(entries.chunks_mut(BATCH).rev().collect());
        let stop = AtomicBool::new(false);
        // Ends when no batch is left, at the first failure, or when cancelled.
        let work = || -> Result<(), Error> {
            let mut objects = Both::new(self.mirror.objects(), self.theirs.map(Source::objects));
            loop {
                self.mirror.program().cancel().check("writing files")?;
                let batch = batches
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .pop();
                let Some(batch) = batch else { return Ok(()) };
                for entry in batch
                    .iter_mut()
                    .filter(|e| e.mode != EntryKind::Commit as u32 && !is_link(e))
                {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    entry.stat = self
                        .write_file(entry, &mut objects)
                        .inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
                }
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut outcome = work();
            for other in others {
                match other.join() {
                    Ok(result) => outcome = outcome.and(result),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            outcome
        })?;
        drop(batches);
        let mut objects = Both::new(self.mirror.objects(), self.theirs.map(Source::objects));
        for entry in entries.iter_mut().filter(|e| is_link(e)) {
            entry.stat = self.write_link(entry, &mut objects)?;
        }
        Ok(())
    }

    fn times(&self) -> Timestamps {
        Timestamps {
            last_access: self.time,
            last_modification: self.time,
        }
    }

    fn write_file(&self, entry: &IndexEntry, objects: &mut Both) -> Result<FileStat, Error> {
        let failed = |e| at("writing", self.staging, entry.path.as_ref(), e);
        let mode = if entry.mode == EntryKind::BlobExecutable as u32 {
            0o777
        } else {
            0o666
        };
        let data = objects.holding(&entry.id).blob(&entry.id)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(
            self.top,
            entry.path.as_slice(),
            flags,
            Mode::from_raw_mode(mode),
        )
        .map_err(failed)?;
        let mut file = File::from(fd);
        file.write_all(data).map_err(|e| {
            Error::io(
                "writing",
                self.staging.join(display_path(entry.path.as_ref())),
                e,
            )
        })?;
        rustix::fs::futimens(&file, &self.times()).map_err(failed)?;
        Ok(FileStat::of(&rustix::fs::fstat(&file).map_err(failed)?))
    }

    fn write_link(&self, entry: &IndexEntry, objects: &mut Both) -> Result<FileStat, Error> {
        let failed = |e| at("linking", self.staging, entry.path.as_ref(), e);
        let target = objects
            .holding(&entry.id)
            .blob_within(&entry.id, entry_names::PATH_LIMIT as u64)?;
        let path = entry.path.as_slice();
        rustix::fs::symlinkat(target.as_slice(), self.top, path).map_err(failed)?;
        rustix::fs::utimensat(self.top, path, &self.times(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed)?;
        let stat = rustix::fs::statat(self.top, path, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        Ok(FileStat::of(&stat))
    }
}

/// Refuses what may not be in a checkout.
pub(crate) fn check_path(path: &BString, item: &TreeItem) -> Result<(), Error> {
    let why = match entry_names::refusal(item.name.as_ref(), item.kind == EntryKind::Link) {
        None if path.len() > entry_names::PATH_LIMIT => "it is longer than 4095 bytes",
        None => return Ok(()),
        Some(why) => why,
    };
    Err(Error::BadPath {
        path: path.clone(),
        why,
    })
}

/// Writes the index, which is the last of a checkout, so that it is younger than all files.
pub(crate) fn write_index(
    staging: &Path,
    write: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<(), Error> {
    let path = staging.join(INDEX);
    let failed = |e| Error::io("writing", &path, e);
    write(&mut File::create_new(&path).map_err(failed)?).map_err(failed)
}

/// What of `.git` is text, but for `shallow`.
pub(crate) fn repository_texts(commit: CommitId) -> [(String, String); 4] {
    let (name, email) = BASE_IDENTITY;
    [
        (
            ".git/config".into(),
            format!("{CONFIG_HEAD}[user]\n\tname = {name}\n\temail = {email}\n"),
        ),
        (".git/info/attributes".into(), ATTRIBUTES.into()),
        (
            format!(".git/refs/heads/{BASE_BRANCH}"),
            format!("{commit}\n"),
        ),
        (
            ".git/HEAD".into(),
            format!("ref: refs/heads/{BASE_BRANCH}\n"),
        ),
    ]
}

/// The text of `.git/shallow`.
pub(crate) fn shallow_text(history: &History) -> String {
    let lines = history.shallow.iter().map(|id| format!("{id}\n"));
    lines.collect()
}

/// Writes `.git` but for the index.
fn write_repository(
    mirror: &Mirror,
    commit: CommitId,
    staging: &Path,
    history: &History,
) -> Result<(), Error> {
    let git = staging.join(".git");
    for part in [
        "objects/pack",
        "objects/info",
        "refs/heads/skep",
        "refs/tags",
        "info",
    ] {
        let path = git.join(part);
        fs::create_dir_all(&path).map_err(|e| Error::io("creating", path, e))?;
    }
    let mut texts = Vec::from(repository_texts(commit));
    if !history.shallow.is_empty() {
        texts.push((SHALLOW.into(), shallow_text(history)));
    }
    for (part, text) in texts {
        let path = staging.join(part);
        fs::write(&path, text).map_err(|e| Error::io("writing", path, e))?;
    }
    let packs = mirror.objects().directory().join("pack");
    for pack in &history.packs {
        for ending in ["pack", "idx"] {
            let file = format!("{pack}.{ending}");
            link_or_copy(&packs.join(&file), &staging.join(PACKS).join(&file))?;
        }
    }
    Ok(())
}

/// A hard link; a copy where there can be none (another file system, or a limit).
pub(crate) fn link_or_copy(from: &Path, to: &Path) -> Result<(), Error> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Err(Error::io("reading", from, e)),
        Err(_) => fs::copy(from, to)
            .map(drop)
            .map_err(|e| Error::io("copying", from, e)),
    }
}

pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, Error> {
    let directory = File::open(path).map_err(|e| Error::io("opening", path, e))?;
    directory
        .as_fd()
        .try_clone_to_owned()
        .map_err(|e| Error::io("opening", path, e))
}

fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("removing", path, e)),
        _ => Ok(()),
    }
}

fn display_path(path: &BStr) -> PathBuf {
    path.to_path().map_or_else(
        |_| PathBuf::from(path.to_str_lossy().into_owned()),
        Path::to_owned,
    )
}

pub(crate) fn at(doing: &'static str, top: &Path, path: &BStr, errno: rustix::io::Errno) -> Error {
    Error::io(doing, top.join(display_path(path)), errno.into())
}
