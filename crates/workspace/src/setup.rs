//! What a setup left, kept as a layer for every workspace that is set up in the same way.
//!
//! It lies among the bases, under a key of its own: held, counted and evicted as they are, built by one
//! at a time and seen as a whole or not at all. Its directory has the layer (`tree`), and the home as
//! the setup left it (`home`), which each workspace gets a copy of.
//!
//! What a setup wrote was not synced. So a layer counts only within the boot of the machine in which it
//! was made, until [`SetupLayer::make_durable`] has seen to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bstr::{BStr, BString};
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::base::{Base, Use};
use crate::copy;
use crate::descent::{Descent, Trail};
use crate::dir::{Access, Dir};
use crate::error::{Error, io, std_io};
use crate::lock::{Hold, Lock};
use crate::names::is_git_directory;
use crate::overlay::{is_elsewhere, is_opaque};
use crate::record;
use crate::store::{Layering, Store, check_also, check_name, rename_new, unique};
use crate::tree::{as_path, listing};
use crate::workspace::Workspace;

/// How often a key is looked at before the answer is that somebody is at it.
const LOOKS: usize = 3;
/// The most names that are compared with a commit. A layer that shares more directories with it is
/// taken for one that does not fit.
const MOST_COMPARED: usize = 200_000;

/// The longest note that is read of a failure, in bytes.
const MOST_NOTE: usize = 64 << 10;

/// The home as the setup left it.
pub(crate) const HOME: &str = "home";
/// How long the setup took, in milliseconds.
const TOOK: &str = "took";
/// The boot in which it was made.
const BOOT: &str = "boot";
/// There once all of it is on the disk.
const DURABLE: &str = "durable";

/// What a setup left. While a handle lives, no process evicts it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SetupLayer {
    base: Base,
    took: Duration,
}

/// What is known of a key: see [`Store::claim_setup`].
#[derive(Debug)]
pub enum Claim {
    /// The layer is there.
    Present(SetupLayer),
    /// Nobody has made it: the caller may, and everybody else waits until this is dropped.
    Free(SetupBuilder),
    /// Another makes it, here or in another process, or looks whether it may be evicted.
    Busy,
}

/// The right to make a layer. Dropping it makes none.
#[derive(Debug)]
pub struct SetupBuilder {
    store: Store,
    key: String,
    lock: Lock,
    began: Moment,
}

/// A moment on a clock that all processes of the machine share, and that is never set back before the
/// machine starts anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// This one.
    #[must_use]
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let (seconds, rest) = (now.tv_sec.cast_unsigned(), now.tv_nsec.cast_unsigned());
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(rest))
    }
}

/// What a commit has at a path, for [`SetupLayer::misfit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracked {
    /// Nothing.
    Nothing,
    /// A directory.
    Directory,
    /// A file, link or the like, which the setup saw as it is.
    Seen,
    /// A file, link or the like, which it did not see.
    Unseen,
}

impl Store {
    /// Asks for the layer `key`, without waiting.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Io`].
    pub fn claim_setup(&self, key: &str) -> Result<Claim, Error> {
        check_name("setup", key)?;
        for _ in 0..LOOKS {
            if let Some(base) = self.present(key, Use::Counts)? {
                let dir = self.base_dir(key);
                if is_whole(&dir) {
                    let took = record::read_number(&dir.join(TOOK))?.unwrap_or_default();
                    let took = Duration::from_millis(took);
                    return Ok(Claim::Present(SetupLayer { base, took }));
                }
            }
            let Some(lock) = Lock::file(&self.locks().join(key), Hold::Alone)? else {
                continue;
            };
            let dir = self.base_dir(key);
            if !self.is_present(key) || !is_whole(&dir) {
                self.discard(&dir)?;
                return Ok(Claim::Free(SetupBuilder {
                    store: self.clone(),
                    key: key.to_owned(),
                    lock,
                    began: Moment::now(),
                }));
            }
        }
        Ok(Claim::Busy)
    }

    /// Makes the workspace `id` over `base` as a setup left it: its layer, and a copy of its home.
    ///
    /// # Errors
    /// Those of [`Store::create`]; [`Error::NoLayers`] where workspaces are copies.
    pub fn create_set_up(
        &self,
        id: &str,
        base: &Base,
        setup: &SetupLayer,
    ) -> Result<Workspace, Error> {
        self.create_set_up_also(id, base, setup, &[])
    }

    /// As [`Store::create_set_up`], with further repositories as [`Store::create_also`] takes them; the
    /// setup has nothing to do with those.
    ///
    /// # Errors
    /// Those of the two.
    pub fn create_set_up_also(
        &self,
        id: &str,
        base: &Base,
        setup: &SetupLayer,
        also: &[(String, Base)],
    ) -> Result<Workspace, Error> {
        check_name("workspace", id)?;
        check_also(also)?;
        if self.layering() == Layering::Copy {
            return Err(Error::NoLayers);
        }
        let home = self.base_dir(setup.key()).join(HOME);
        self.make(id, |dir| {
            Workspace::build(dir, base, Some(setup.key()), also, Layering::Overlay)?;
            let to = dir.join(HOME);
            std::fs::remove_dir(&to).map_err(std_io("prepare", &to))?;
            copy::copy_home(&home, &to)
        })
    }
}

impl SetupBuilder {
    /// Makes a workspace in which the setup can run, under an id that no other has.
    ///
    /// # Errors
    /// Those of [`Store::create`].
    pub fn workspace(&self, base: &Base) -> Result<Workspace, Error> {
        self.store.create(&unique(&self.key), base)
    }

    /// Makes none, and says why to those who wait for it; of a text of more than 64 KiB they hear nothing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn fail(self, why: &str) -> Result<(), Error> {
        let boot = record::this_boot().unwrap_or_default();
        let (began, length) = (self.began.0, why.len());
        let note = format!("{boot}\n{began}\n{length}\n{why}");
        self.lock.set_note(note.as_bytes(), &self.place_of_lock())
    }

    /// Why the builder before this one made none, if it began after this moment and said so.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn failed_since(&self, asked: Moment) -> Result<Option<String>, Error> {
        let note = self.lock.note(MOST_NOTE, &self.place_of_lock())?;
        Ok(String::from_utf8(note).ok().and_then(|note| {
            let mut lines = note.splitn(4, '\n');
            let (boot, began) = (lines.next()?, lines.next()?.parse().ok()?);
            let (length, why) = (lines.next()?.parse::<usize>().ok()?, lines.next()?);
            // Its writer may have been killed, or the machine have started anew.
            let counts = record::this_boot().is_some_and(|it| it == boot) && length == why.len();
            (counts && Moment(began) >= asked).then(|| why.to_owned())
        }))
    }

    fn place_of_lock(&self) -> PathBuf {
        self.store.locks().join(&self.key)
    }

    /// Keeps what was written in a workspace since it was made or last frozen, and its home. The rest
    /// of the workspace is deleted. No mount of it may be left.
    ///
    /// # Errors
    /// [`Error::NoLayers`] of a workspace that is a copy; [`Error::Io`]. There is no layer then.
    pub fn keep(self, workspace: Workspace, took: Duration) -> Result<SetupLayer, Error> {
        if workspace.layering() == Layering::Copy {
            return Err(Error::NoLayers);
        }
        let Self {
            store, key, lock, ..
        } = self;
        let (fresh, _fresh) = store.fresh(&store.new_bases(), &key)?;
        let place = store.base_dir(&key);
        let put = || {
            let moves = [(workspace.written(), "tree"), (workspace.home(), HOME)];
            for (from, part) in moves {
                move_directory(&from, &fresh.join(part)).map_err(io("keep", &from))?;
            }
            let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            record::write(&fresh.join(TOOK), &milliseconds.to_string())?;
            if let Some(boot) = record::this_boot() {
                record::write(&fresh.join(BOOT), &boot)?;
            }
            rename_new(&fresh, &place).map_err(io("put in place", &place))
        };
        if let Err(error) = put() {
            store.discard(&fresh)?;
            return Err(error);
        }
        workspace.delete()?;
        lock.set_note(b"", &store.locks().join(&key))?;
        let held = lock.share(&store.locks().join(&key))?;
        let held = held.ok_or_else(|| Error::NoBase { key: key.clone() })?;
        let base = Base::new(key, vec![place.join("tree")], vec![held]);
        Ok(SetupLayer { base, took })
    }
}

/// Moves a directory to another parent, which takes the right to write it: a setup may have taken that
/// from its owner.
fn move_directory(from: &Path, to: &Path) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(fs::lstat(from)?.st_mode & 0o7777);
    if mode.contains(Mode::WUSR) {
        return rename_new(from, to);
    }
    fs::chmod(from, mode | Mode::RWXU)?;
    rename_new(from, to)?;
    fs::chmod(to, mode)
}

impl SetupLayer {
    /// The key under which it was made.
    pub fn key(&self) -> &str {
        self.base.key()
    }

    /// How long the setup took.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Waits until all of it is on the disk, and remembers that: from then on it is there after a
    /// crash of the machine, too.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn make_durable(&self) -> Result<(), Error> {
        let dir = self.dir();
        let mark = dir.join(DURABLE);
        if fs::lstat(&mark).is_ok() {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::open(&dir, flags, Mode::empty())
            .and_then(fs::syncfs)
            .map_err(io("write to the disk", &dir))?;
        record::write(&mark, "")
    }

    /// The first path at which the layer does not fit over a commit: it would hide what the commit has
    /// there, and the setup did not see that. `tracked` says what the commit has at a path.
    ///
    /// # Errors
    /// Those of `tracked`; [`Error::Io`].
    pub fn misfit<E: From<Error>>(
        &self,
        tracked: &mut dyn FnMut(&BStr) -> Result<Tracked, E>,
    ) -> Result<Option<BString>, E> {
        let root = self.dir().join("tree");
        let dir = Dir::open(&root).map_err(io("open", &root))?;
        let names = listing(&dir, io("list", &root))?;
        let (mut trail, mut seen) = (Trail::default(), 0);
        // It goes down only where the commit has a directory, too.
        let mut descent = Descent::new(dir, names);
        while let Some((dir, names)) = descent.top() {
            let Some(next) = names.pop() else {
                descent.pop().map_err(io("leave", as_path(trail.here())))?;
                trail.pop();
                continue;
            };
            let name = next.name.as_c_str();
            let path = trail.join(name.to_bytes());
            seen += 1;
            if seen > MOST_COMPARED || is_git_directory(name.to_bytes()) {
                return Ok(Some(path));
            }
            let failed = |errno| io("look at", as_path(&path))(errno);
            let kind = dir.look(name).map_err(failed)?.kind();
            match (tracked(path.as_ref())?, kind) {
                (Tracked::Nothing, _) => {}
                (Tracked::Directory, FileType::Directory) => {
                    let below = dir.subdir(name, Access::Read).map_err(failed)?;
                    if is_opaque(&below).map_err(failed)? || is_elsewhere(&below).map_err(failed)? {
                        return Ok(Some(path));
                    }
                    let names = listing(&below, failed)?;
                    trail.push(name.to_bytes());
                    descent.push(below, names);
                }
                // Changed or removed by the setup, as it does wherever the file is the same.
                (Tracked::Seen, kind) if kind != FileType::Directory => {}
                _ => return Ok(Some(path)),
            }
        }
        Ok(None)
    }

    fn dir(&self) -> PathBuf {
        let tree = self.base.trees().first();
        tree.and_then(|tree| tree.parent())
            .map(Path::to_owned)
            .unwrap_or_default()
    }
}

/// Whether nothing of a layer can have been lost: it was made since the machine started, or has been
/// synced.
fn is_whole(dir: &Path) -> bool {
    if fs::lstat(dir.join(DURABLE)).is_ok() {
        return true;
    }
    let made = std::fs::read_to_string(dir.join(BOOT)).ok();
    made.is_some() && made == record::this_boot()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn free(store: &Store) -> SetupBuilder {
        match store.claim_setup("setup-a").unwrap() {
            Claim::Free(builder) => builder,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_failure_is_told_to_those_who_asked_before_its_maker_began_and_to_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(dir.path(), Layering::Overlay).unwrap();
        let (one, other) = (open(), open());
        let before = Moment::now();
        let builder = free(&one);
        let meanwhile = Moment::now();
        let claim = other.claim_setup("setup-a").unwrap();
        assert!(matches!(claim, Claim::Busy), "{claim:?}");
        builder.fail("no network\0\n3").unwrap();
        let told = |asked| free(&other).failed_since(asked).unwrap();
        assert_eq!(told(before).as_deref(), Some("no network\0\n3"));
        assert_eq!(told(before).as_deref(), Some("no network\0\n3"), "twice");
        // It may have failed for what was mended before this one asked.
        assert_eq!(told(meanwhile), None);
        assert_eq!(told(Moment::now()), None);
        let lock = one.locks().join("setup-a");
        let text = std::fs::read_to_string(&lock).unwrap();
        std::fs::write(&lock, text.trim_end_matches('3')).unwrap();
        assert_eq!(told(before), None, "half a note");
    }

    #[test]
    fn a_directory_that_its_owner_may_not_write_is_moved_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a/home"), dir.path().join("b/home"));
        std::fs::create_dir_all(&from).unwrap();
        std::fs::create_dir(dir.path().join("b")).unwrap();
        std::fs::write(from.join("file"), "x").unwrap();
        std::fs::set_permissions(&from, std::fs::Permissions::from_mode(0o500)).unwrap();
        move_directory(&from, &to).unwrap();
        assert_eq!(std::fs::read(to.join("file")).unwrap(), b"x");
        let mode = std::fs::metadata(&to).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o500);
    }
}
