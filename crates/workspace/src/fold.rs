//! Folding: one layer in the place of many, so that a workspace of hundreds of turns stays quick.
//!
//! The new layer holds what the old ones hold together, as the kernel would merge them: its files are
//! hard links, its directories are new. That takes as long as there are names, so it is done beside the
//! running sandbox, which is shown the new layer the next time that layers are mounted. The old layers
//! stay, for the way back to each of their moments. What an agent can tell of it is that files have one
//! name more, and another time of change.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self, FileType, Mode, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::base::make_dir;
use crate::change::moved;
use crate::descent::Trail;
use crate::dir::{Access, Dir};
use crate::error::{Error, io, std_io};
use crate::overlay::is_whiteout;
use crate::record::Folded;
use crate::store::{rename_new, unique};
use crate::tree::as_path;
use crate::turns::FOLD;
use crate::union::{Named, Union};
use crate::workspace::Workspace;

/// When more layers of turns than this are mounted one by one, the oldest are folded.
const ABOVE: usize = 64;
/// How many layers become one.
const AT_ONCE: usize = 32;

/// Layers that are to become one, of each repository: see [`Workspace::fold`].
#[derive(Debug)]
pub struct Fold {
    stacks: Vec<Sources>,
    place: PathBuf,
}

/// The layers of one repository that are to become one.
#[derive(Debug)]
struct Sources {
    /// The layers of consecutive turns, topmost first.
    layers: Vec<PathBuf>,
    /// Their names, lowest first.
    turns: Vec<String>,
    name: String,
}

/// A layer that holds what several hold together: see [`Workspace::adopt`].
#[derive(Debug)]
#[must_use = "it is used only once the workspace adopts it"]
pub struct Built(Fold);

impl Workspace {
    /// What should be folded now, if anything.
    pub fn fold(&self) -> Option<Fold> {
        self.fold_some(ABOVE, AT_ONCE)
    }

    /// As [`Workspace::fold`], with other numbers: when more than `above` are unfolded, `at_once` of them.
    #[doc(hidden)]
    pub fn fold_some(&self, above: usize, at_once: usize) -> Option<Fold> {
        let own = &self.record.own;
        if own.turns.len().saturating_sub(own.folded()) <= above {
            return None;
        }
        // All have the same turns.
        let stacks = self.record.stacks().map(|stack| {
            let turns = stack.turns.iter().skip(stack.folded()).take(at_once);
            let turns: Vec<String> = turns.map(|turn| turn.layer.clone()).collect();
            Sources {
                layers: turns.iter().rev().map(|turn| self.layer(turn)).collect(),
                turns,
                name: unique(FOLD),
            }
        });
        Some(Fold {
            stacks: stacks.collect(),
            place: place(&self.dir),
        })
    }

    /// Takes a folded layer into use: it is mounted with the next change of layers. If the workspace
    /// was taken back meanwhile so that it does not fit any more, it goes to the trash.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn adopt(&mut self, built: Built) -> Result<(), Error> {
        let Built(fold) = built;
        let same = self.record.stacks().zip(&fold.stacks).all(|(stack, fold)| {
            let unfolded = stack.turns.iter().skip(stack.folded());
            let unfolded = unfolded.take(fold.turns.len());
            unfolded.map(|turn| &turn.layer).eq(&fold.turns)
        });
        let mut record = self.record.clone();
        for (stack, Sources { turns, name, .. }) in record.stacks_mut().zip(fold.stacks) {
            let from = fold.place.join(&name);
            if !same {
                self.store.discard(&from)?;
                continue;
            }
            let to = self.dir.join(&name);
            rename_new(&from, &to).map_err(io("put in place", &to))?;
            stack.folds.push(Folded {
                layer: name,
                turns: turns.len(),
            });
        }
        if !same {
            return Ok(());
        }
        self.put(&record)?;
        self.record = record;
        Ok(())
    }
}

impl Fold {
    /// Makes the layer. Takes some microseconds for each name; the workspace may be used meanwhile.
    /// `stop` is asked between names.
    ///
    /// # Errors
    /// [`Error::Stopped`] once `stop` is set; [`Error::Io`], [`Error::Changed`]: the layers stay as they
    /// are.
    pub fn build(self, stop: &AtomicBool) -> Result<Built, Error> {
        std::fs::create_dir_all(&self.place).map_err(std_io("make", &self.place))?;
        for stack in &self.stacks {
            stack.build(&self.place, stop)?;
        }
        Ok(Built(self))
    }
}

impl Sources {
    fn build(&self, place: &Path, stop: &AtomicBool) -> Result<(), Error> {
        let root = place.join(&self.name);
        make_dir(&root)?;
        let mut walk = Walk {
            from: Union::open(self.layers.clone())?,
            into: Union::open(vec![root])?,
            trail: Trail::default(),
        };
        let mut levels = vec![walk.names()?];
        while let Some(names) = levels.last_mut() {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            if let Some(next) = names.pop() {
                if walk.entry(&next)? {
                    levels.push(walk.names()?);
                }
            } else {
                walk.leave()?;
                levels.pop();
            }
        }
        Ok(())
    }
}

struct Walk {
    from: Union,
    into: Union,
    trail: Trail,
}

impl Walk {
    fn names(&mut self) -> Result<Vec<Named>, Error> {
        let here = self.trail.here();
        self.from.names(
            |errno| moved("list", here)(errno),
            |_, _, _| Ok::<_, Error>(true),
        )
    }

    /// Takes one name over; says whether it is a directory, in which the walk stands then.
    fn entry(&mut self, named: &Named) -> Result<bool, Error> {
        let name = named.name.as_c_str();
        let path = self.trail.join(name.to_bytes());
        let failed = |errno| io("fold", as_path(&path))(errno);
        let from = self.from.dir(named.part).map_err(failed)?;
        let into = self.into.dir(0).map_err(failed)?;
        let meta = from.look(name).map_err(failed)?;
        if meta.kind() != FileType::Directory {
            link(from, into, name, is_whiteout(&meta)).map_err(failed)?;
            return Ok(false);
        }
        fs::mkdirat(into, name, Mode::RWXU).map_err(failed)?;
        let made = into.subdir(name, Access::Write).map_err(failed)?;
        let below = self.from.below(named).map_err(failed)?;
        if below.hides {
            hide(&made).map_err(failed)?;
        }
        self.trail.push(name.to_bytes());
        self.from.push(name, below);
        self.into.push_one(name, made);
        Ok(true)
    }

    /// Leaves a directory, all of whose names have been taken over.
    fn leave(&mut self) -> Result<(), Error> {
        let failed = |errno| io("fold", as_path(self.trail.here()))(errno);
        let from = self.from.dir(0).map_err(failed)?;
        let into = self.into.dir(0).map_err(failed)?;
        copy_attributes(from, into).map_err(failed)?;
        self.from.pop();
        self.into.pop();
        self.trail.pop();
        Ok(())
    }
}

fn link(from: &Dir, into: &Dir, name: &CStr, whiteout: bool) -> Result<(), Errno> {
    match fs::linkat(from, name, into, name, fs::AtFlags::empty()) {
        // The kernel gives one sign of a deletion many names.
        Err(Errno::MLINK) if whiteout => make_whiteout(into, name),
        linked => linked,
    }
}

/// Puts the sign of a deletion at a name.
pub(crate) fn make_whiteout(dir: &Dir, name: &CStr) -> Result<(), Errno> {
    let (kind, device) = (FileType::CharacterDevice, fs::makedev(0, 0));
    fs::mknodat(dir, name, kind, Mode::empty(), device)
}

/// Hides what lower layers have at the place of a directory.
pub(crate) fn hide(dir: &Dir) -> Result<(), Errno> {
    fs::fsetxattr(dir, c"user.overlay.opaque", b"y", XattrFlags::empty())
}

/// The longest list of attributes, and the longest value, that Linux knows.
const LONGEST: usize = 64 * 1024;

/// Gives a directory what another has: its permissions, its times, and what an agent set as attributes;
/// not what the overlay itself notes.
pub(crate) fn copy_attributes(from: &Dir, to: &Dir) -> Result<(), Errno> {
    let mut list = Vec::with_capacity(LONGEST);
    let listed = match fs::flistxattr(from, rustix::buffer::spare_capacity(&mut list)) {
        Err(Errno::NOTSUP) => Ok(0),
        listed => listed,
    };
    listed?;
    for name in list.split(|byte| *byte == 0).filter(|name| is_kept(name)) {
        let mut value = Vec::with_capacity(LONGEST);
        match fs::fgetxattr(from, name, rustix::buffer::spare_capacity(&mut value)) {
            Ok(_) => fs::fsetxattr(to, name, &value, XattrFlags::empty())?,
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    fs::fchmod(to, from.permissions())?;
    let (seconds, nanoseconds) = from.meta().mtime;
    let mtime = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    let times = Timestamps {
        last_access: mtime,
        last_modification: mtime,
    };
    fs::futimens(to, &times)
}

/// Whether an attribute belongs to the content: `user.overlay.overlay.NAME` is what an agent's own
/// `user.overlay.NAME` is stored as.
fn is_kept(name: &[u8]) -> bool {
    let own = name.starts_with(b"user.overlay.") && !name.starts_with(b"user.overlay.overlay.");
    name.starts_with(b"user.") && !own || name.starts_with(b"system.posix_acl_")
}

/// The directory in which folds are made.
pub(crate) fn place(dir: &Path) -> PathBuf {
    dir.join("folding")
}
