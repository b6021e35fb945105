//! Sites whose files are not on this machine: they come into the sandbox as a stream, and what changed
//! comes out as one.

use crate::{
    error::Error,
    extract::{Extracted, into_tree},
};
use bstr::BStr;
use git::{Mirror, TreeId};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};
use sandbox::{
    Carry, Sandbox, Task,
    archive::{self, Bounds, Listed, Reader, What, local},
    carry::{self, Ends},
    copy_in, copy_out,
};
use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use workspace::{Fetch, Fetched, Layers, Limits, Listing, Seen, Workspace, changes_elsewhere};

/// A process inside can stop the one that carries.
const WITHIN: Duration = Duration::from_secs(600);
/// Files and directories of a workspace, with those that are no part of a change.
const MOST_LISTED: u64 = 2_000_000;
/// Bytes of their paths and of the targets of links, all of which are kept in memory.
const MOST_LISTED_BYTES: u64 = 128 << 20;
/// What is larger waits on the disk.
const IN_MEMORY: u64 = 1 << 20;

/// A workspace in a sandbox that alone has its files.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    /// What it held before anything ran in it.
    before: Arc<Listing>,
}

impl Elsewhere {
    /// Puts the files of a workspace, which is a copy, into the sandbox.
    pub(crate) async fn fill(sandbox: &dyn Sandbox, workspace: &Workspace) -> Result<Self, Error> {
        let Layers::Directory(files) = workspace.layers() else {
            return Err(refused("the workspace is layers"));
        };
        let carry = of_all(sandbox, Task::Fill);
        // What is in it.
        let files = files.join(".");
        copy_in(sandbox, carry, move |to| local::pack(&files, to)).await?;
        let before = Arc::new(list(sandbox).await?);
        Ok(Self { before })
    }

    /// Reads what changed since into a tree of the mirror. What is large waits in `room`.
    pub(crate) async fn extract(
        &self,
        sandbox: &dyn Sandbox,
        (mirror, base): (Mirror, TreeId),
        room: PathBuf,
    ) -> Result<Extracted, Error> {
        let (before, now) = (Arc::clone(&self.before), list(sandbox).await?);
        let mut process = sandbox.carry(of_all(sandbox, Task::Pick)).await?;
        let ends = Ends::of(&mut process).ok_or(sandbox::Error::Gone)?;
        let limits = Limits::default();
        // Changes are visited twice.
        let bounds = Bounds {
            entries: limits.entries.saturating_mul(2),
            file_bytes: limits.file_bytes,
            total_bytes: limits.total_bytes.saturating_mul(2),
            ..Bounds::default()
        };
        let read = move |ask, answers| {
            let mut contents = Contents {
                ask,
                answers,
                room,
                failed: None,
            };
            let read = into_tree(&mirror, base, &mut |visitor| {
                changes_elsewhere((&before, &now), &mut contents, &limits, visitor)
            });
            contents.end()?;
            Ok(read)
        };
        carry::exchange(ends, process.wait(), bounds, read).await?
    }
}

fn of_all(sandbox: &dyn Sandbox, task: Task) -> Carry {
    Carry::new(task, sandbox.workspace()).with_timeout(WITHIN)
}

/// What cannot be done where the files are not on this machine.
pub(crate) fn refused(what: &str) -> Error {
    Error::Sandbox(sandbox::Error::Spec {
        what: format!("its files are not on this machine, and {what}"),
    })
}

async fn list(sandbox: &dyn Sandbox) -> Result<Listing, Error> {
    let bounds = Bounds {
        entries: MOST_LISTED,
        total_bytes: MOST_LISTED_BYTES,
        ..Bounds::default()
    };
    let read = |from: &mut Reader<File>| {
        let mut listing = Listing::default();
        while let Some(listed) = from.next_listed()? {
            if let Err(error) = listing.add(seen(listed)) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(listing))
    };
    let listing = copy_out(sandbox, of_all(sandbox, Task::List), bounds, read).await?;
    Ok(listing?)
}

pub(crate) fn seen(listed: Listed) -> Seen {
    Seen {
        path: listed.entry.path.into_os_string().into_vec().into(),
        inode: listed.inode,
        mode: listed.mode,
        size: listed.size,
        modified: listed.modified,
        changed: listed.changed,
        born: listed.born,
        target: match listed.entry.what {
            What::Link { target } => Some(target.into_os_string().into_vec().into()),
            What::Directory | What::File { .. } | What::Other(_) => None,
        },
    }
}

/// The contents of files in the sandbox, asked for one by one.
struct Contents {
    ask: File,
    answers: Reader<File>,
    room: PathBuf,
    /// Why no more can be had.
    failed: Option<archive::Error>,
}

impl Fetch for Contents {
    fn fetch(&mut self, path: &BStr, len: u64) -> io::Result<Fetched> {
        match self.answer(path, len) {
            Ok(Some(fetched)) => Ok(fetched),
            Ok(None) => Err(io::ErrorKind::NotFound.into()),
            Err(error) => {
                self.failed = Some(error);
                Err(io::ErrorKind::Other.into())
            }
        }
    }
}

impl Contents {
    /// Asks for no more, and hears that this was all.
    fn end(self) -> Result<(), archive::Error> {
        let Self {
            ask,
            mut answers,
            failed,
            ..
        } = self;
        drop(ask);
        if let Some(failed) = failed {
            return Err(failed);
        }
        match answers.next_entry()? {
            None => Ok(()),
            Some(_) => Err(archive::Error::Malformed {
                what: "it has what nobody asked for",
            }),
        }
    }

    fn answer(&mut self, path: &BStr, len: u64) -> Result<Option<Fetched>, archive::Error> {
        // A pipe takes so little at once or not at all.
        let asked = [path.as_ref(), b"\0".as_slice()].concat();
        let asked = self.ask.write_all(&asked);
        asked.map_err(|_| archive::Error::Ended)?;
        let Some(entry) = self.answers.next_entry()? else {
            return Err(archive::Error::Ended);
        };
        let is_it = entry.path.as_os_str().as_bytes() == path.as_ref() as &[u8];
        let (
            What::File {
                executable,
                len: is,
            },
            true,
        ) = (entry.what, is_it)
        else {
            return Ok(None);
        };
        let mut content = self.empty(len.max(is))?;
        let copied = io::copy(&mut (&mut self.answers).take(is), &mut content);
        if copied.map_err(archive::Error::Stream)? < is {
            return Err(archive::Error::Ended);
        }
        content.rewind().map_err(archive::Error::Stream)?;
        Ok(Some(Fetched {
            content,
            len: is,
            executable,
        }))
    }

    /// A file without a name.
    fn empty(&self, len: u64) -> Result<File, archive::Error> {
        let made = if len <= IN_MEMORY {
            memfd_create("skep-content", MemfdFlags::CLOEXEC)
        } else {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            rustix::fs::open(&self.room, flags, Mode::RUSR | Mode::WUSR)
        };
        let failed = archive::Error::local("make a file in", &self.room);
        Ok(made.map_err(|error| failed(error.into()))?.into())
    }
}
