//! The directory that holds bases and workspaces.

use std::fs as std_fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{self, CWD, Mode, RenameFlags};
use rustix::io::Errno;

use crate::apart::apart;
use crate::base::Base;
use crate::error::{Error, io, std_io};
use crate::lock::{Hold, Lock};
use crate::names::is_plain;
use crate::record::MOST_ALSO;
use crate::remove::{self, Emptied};
use crate::workspace::Workspace;

/// How the files of an attempt lie over their base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layering {
    /// An overlay that the sandbox mounts with `userxattr`: ready at once, whatever the base's size.
    Overlay,
    /// A copy of the base, sharing blocks where the file system can (`FICLONE`).
    Copy,
}

/// The directory `dir` with its `bases/`, `workspaces/`, `layers/` and `trash/`. Cheap to clone; any number of
/// processes of one user may open the same directory.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    kind: Layering,
}

/// What [`Store::sweep`] moved to the trash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Workspaces that nobody owned.
    pub workspaces: Vec<String>,
    /// Bases and workspaces whose builder died.
    pub unfinished: u64,
    /// Workspaces that were not live, but that a process still holds open: left alone.
    pub held: Vec<String>,
}

impl Store {
    /// Opens the store in `dir`, making it if need be, its directories for the owner only.
    ///
    /// # Errors
    /// [`Error::Owner`] and [`Error::FileSystems`] where the directories cannot serve; [`Error::Io`].
    pub fn open(dir: &Path, kind: Layering) -> Result<Store, Error> {
        let store = Store {
            dir: std::path::absolute(dir).map_err(std_io("find", dir))?,
            kind,
        };
        std_fs::create_dir_all(&store.dir).map_err(std_io("make", &store.dir))?;
        let own = rustix::process::geteuid().as_raw();
        let mut device = None;
        let parts = [
            store.base_dir(""),
            store.new_bases(),
            store.locks(),
            store.workspace_dir(""),
            store.new_workspaces(),
            store.layers(),
            store.trash(),
        ];
        for part in [store.dir.clone()].iter().chain(&parts) {
            match fs::mkdir(part, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(io("make", part)(errno)),
            }
            let stat = fs::lstat(part).map_err(io("look at", part))?;
            if stat.st_uid != own {
                return Err(Error::Owner {
                    path: part.clone(),
                    owner: stat.st_uid,
                });
            }
            if *device.get_or_insert(stat.st_dev) != stat.st_dev {
                return Err(Error::FileSystems { path: part.clone() });
            }
            if stat.st_mode & 0o777 != 0o700 {
                fs::chmod(part, Mode::RWXU).map_err(io("close to others", part))?;
            }
        }
        apart(&store.new_bases());
        apart(&store.new_workspaces());
        Ok(store)
    }

    /// How new workspaces of this store lie over their base.
    pub fn layering(&self) -> Layering {
        self.kind
    }

    /// Makes the workspace `id` over `base`. An overlay is ready in well under a millisecond; a copy
    /// takes as long as copying takes. Nothing is seen under `id` before it is whole.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Exists`], [`Error::Io`]; [`Error::BaseEntry`] if the base holds what
    /// cannot be copied.
    pub fn create(&self, id: &str, base: &Base) -> Result<Workspace, Error> {
        self.create_also(id, base, &[])
    }

    /// As [`Store::create`], with further repositories that are written in it, each over a base of its
    /// own and under a name.
    ///
    /// # Errors
    /// The same; [`Error::Name`] of one that is given twice, and [`Error::TooManyRepositories`].
    pub fn create_also(
        &self,
        id: &str,
        base: &Base,
        also: &[(String, Base)],
    ) -> Result<Workspace, Error> {
        check_name("workspace", id)?;
        check_also(also)?;
        self.make(id, |dir| Workspace::build(dir, base, None, also, self.kind))
    }

    /// Makes the workspace `id` of what `build` writes into a new directory. Nothing is seen under `id`
    /// before it is whole.
    pub(crate) fn make(
        &self,
        id: &str,
        mut build: impl FnMut(&Path) -> Result<(), Error>,
    ) -> Result<Workspace, Error> {
        let place = self.workspace_dir(id);
        for _ in 0..ATTEMPTS {
            if fs::lstat(&place).is_ok() {
                return Err(Error::Exists { id: id.to_owned() });
            }
            let (fresh, lock) = self.fresh(&self.new_workspaces(), id)?;
            let built = build(&fresh).and_then(|()| match rename_new(&fresh, &place) {
                Err(Errno::EXIST | Errno::NOTEMPTY) => Err(Error::Exists { id: id.to_owned() }),
                renamed => renamed.map_err(io("put in place", &place)),
            });
            if let Err(error) = built {
                self.discard(&fresh)?;
                return Err(error);
            }
            // The builder's lock goes on to the workspace, so that no sweep finds it free; where one
            // was quicker nevertheless, the workspace is made again.
            if let Some(lock) = lock.share(&place)? {
                return Workspace::held(self, id, lock);
            }
        }
        Err(Error::NoWorkspace { id: id.to_owned() })
    }

    /// Finds the workspace `id` again, after a restart too. While the handle lives, no process sweeps it.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::NoWorkspace`], [`Error::Record`], [`Error::Io`].
    pub fn open_workspace(&self, id: &str) -> Result<Workspace, Error> {
        check_name("workspace", id)?;
        Workspace::open(self, id)
    }

    /// Takes the workspace `id` over from a process that was killed, to mount it once more. Its layers
    /// are used only within the boot of the machine in which they were written, because nothing of
    /// them was synced; and only once no process holds them, neither the workspace nor a mount.
    ///
    /// # Errors
    /// [`Error::NoWorkspace`], [`Error::WorkspaceInUse`], [`Error::OtherBoot`], [`Error::NoBase`];
    /// [`Error::Name`], [`Error::Record`], [`Error::Io`].
    pub fn reopen_workspace(&self, id: &str) -> Result<Workspace, Error> {
        check_name("workspace", id)?;
        Workspace::reopen(self, id, false)
    }

    /// Takes over the workspace `id`, which was made to be kept ([`Workspace::keep`]) and in which nothing
    /// runs: as [`Store::reopen_workspace`], and after a restart of the machine too.
    ///
    /// # Errors
    /// The same, without [`Error::OtherBoot`].
    pub fn resume_workspace(&self, id: &str) -> Result<Workspace, Error> {
        check_name("workspace", id)?;
        Workspace::reopen(self, id, true)
    }

    /// The ids of all workspaces, sorted.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn list(&self) -> Result<Vec<String>, Error> {
        names_in(&self.workspace_dir(""))
    }

    /// Moves to the trash every workspace for which `live` says no and which no process holds open, asked
    /// once more when no process can hold it, and every base and workspace whose builder died. Renames only: follow it with
    /// [`Store::empty_trash`] on a thread of your own.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sweep(&self, live: impl Fn(&str) -> bool) -> Result<Swept, Error> {
        let swept = self.swept(live, |place| self.discard(place))?;
        self.clear_locks()?;
        Ok(swept)
    }

    /// Removes the locks of bases that were never made. Whoever waits for one sees that its file is
    /// another now.
    fn clear_locks(&self) -> Result<(), Error> {
        for key in names_in(&self.locks())? {
            let path = self.locks().join(&key);
            if self.is_present(&key) {
                continue;
            }
            let Some(_lock) = Lock::file(&path, Hold::Alone)? else {
                continue;
            };
            if !self.is_present(&key) {
                std::fs::remove_file(&path).map_err(std_io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// What [`Store::sweep`] would move to the trash now.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn would_sweep(&self, live: impl Fn(&str) -> bool) -> Result<Swept, Error> {
        self.swept(live, |_| Ok(()))
    }

    fn swept(
        &self,
        live: impl Fn(&str) -> bool,
        discard: impl Fn(&Path) -> Result<(), Error>,
    ) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        for id in self.list()? {
            if live(&id) {
                continue;
            }
            let place = self.workspace_dir(&id);
            match Lock::directory(&place, Hold::Alone)? {
                // Its last holder may have said in its last moment that it is to be kept.
                Some(_lock) if live(&id) => {}
                Some(_lock) => {
                    discard(&place)?;
                    swept.workspaces.push(id);
                }
                None if fs::lstat(&place).is_ok() => swept.held.push(id),
                None => {}
            }
        }
        for parent in [self.new_bases(), self.new_workspaces()] {
            for name in names_in(&parent)? {
                let place = parent.join(name);
                if let Some(_lock) = Lock::directory(&place, Hold::Alone)? {
                    discard(&place)?;
                    swept.unfinished += 1;
                }
            }
        }
        Ok(swept)
    }

    /// Deletes what is in the trash: any depth, any names, directories without permissions, never
    /// through a link or into another file system. Several processes may do so at once. What cannot be
    /// deleted stays, is reported, and is tried again the next time. Layers that workspaces shared and
    /// none needs any more go first.
    ///
    /// `stop` is asked between entries.
    ///
    /// # Errors
    /// [`Error::Stopped`] once `stop` is set; [`Error::Io`] if the trash itself cannot be read.
    pub fn empty_trash(&self, stop: &AtomicBool) -> Result<Emptied, Error> {
        self.collect_layers()?;
        remove::empty(&self.trash(), stop, &mut |_, _| {})
    }

    /// Moves a directory of the store to the trash. That it is gone already is no error.
    pub(crate) fn discard(&self, place: &Path) -> Result<(), Error> {
        let name = place
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        for _ in 0..ATTEMPTS {
            let target = self.trash().join(unique(&name));
            match rename_new(place, &target) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::EXIST | Errno::NOTEMPTY) => {}
                Err(errno) => return Err(io("move to the trash", place)(errno)),
            }
        }
        Err(io("move to the trash", place)(Errno::EXIST))
    }

    /// Makes a directory under a fresh name in `parent`, locked so that no sweep takes it.
    pub(crate) fn fresh(&self, parent: &Path, name: &str) -> Result<(PathBuf, Lock), Error> {
        for _ in 0..ATTEMPTS {
            let place = parent.join(unique(name));
            match fs::mkdir(&place, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(io("make", &place)(errno)),
            }
            // A sweep can come between the two calls and take the directory for a dead builder's.
            if let Some(lock) = Lock::directory(&place, Hold::Alone)? {
                return Ok((place, lock));
            }
        }
        Err(io("make a directory in", parent)(Errno::EXIST))
    }

    pub(crate) fn base_dir(&self, key: &str) -> PathBuf {
        self.dir.join("bases").join(key)
    }

    pub(crate) fn new_bases(&self) -> PathBuf {
        self.dir.join("bases/.new")
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.dir.join("bases/.locks")
    }

    pub(crate) fn workspace_dir(&self, id: &str) -> PathBuf {
        self.dir.join("workspaces").join(id)
    }

    pub(crate) fn new_workspaces(&self) -> PathBuf {
        self.dir.join("workspaces/.new")
    }

    /// The layers that several workspaces share.
    pub(crate) fn layers(&self) -> PathBuf {
        self.dir.join("layers")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.dir.join("trash")
    }
}

/// How often a fresh name is tried.
const ATTEMPTS: usize = 100;

/// A name that no other call uses, in this or another process, at this or another time.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let stem: String = name.chars().take(200).collect();
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_micros());
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{stem}.{:x}.{time:x}.{number:x}", std::process::id())
}

/// Renames without ever replacing; where the file system cannot promise that (some network ones), a
/// rename onto a directory that is not empty fails all the same.
pub(crate) fn rename_new(from: &Path, to: &Path) -> Result<(), Errno> {
    match fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(from, to),
        renamed => renamed,
    }
}

/// That these can be further repositories of one workspace.
pub(crate) fn check_also(also: &[(String, Base)]) -> Result<(), Error> {
    const WHAT: &str = "repository";
    if also.len() > MOST_ALSO {
        return Err(Error::TooManyRepositories);
    }
    for (at, (name, _)) in also.iter().enumerate() {
        check_name(WHAT, name)?;
        if also.iter().take(at).any(|(other, _)| other == name) {
            let name = name.clone();
            return Err(Error::Name { what: WHAT, name });
        }
    }
    Ok(())
}

pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), Error> {
    if is_plain(name) {
        Ok(())
    } else {
        Err(Error::Name {
            what,
            name: name.to_owned(),
        })
    }
}

/// The names in a directory of the store that are not hidden, sorted.
pub(crate) fn names_in(dir: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in std_fs::read_dir(dir).map_err(std_io("list", dir))? {
        if let Ok(name) = entry
            .map_err(std_io("list", dir))?
            .file_name()
            .into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
