//! The owner's plan: a list of small steps, carried out in order.

use crate::masks::Masks;
use crate::plan::{Layers, Step, Watch};
use crate::read::Reader;
use crate::refusals::Refusals;
use crate::sys::{self, ENOENT, EPERM, Errno, Result, Text, nr};
use crate::wire::{MOST_STASHED, STAGE_STEP};
use crate::{link, loopback, root, seal, text};

/// What the plan leaves behind for the service.
pub struct Done {
    pub listener: Option<i32>,
    pub port: u16,
    pub watch: Option<Watch>,
    /// Where the kernel asks about refused calls, if it does.
    pub refusals: Option<Refusals>,
    stash: Stash,
    masks: Option<Masks>,
}

/// Mounts of the host that are attached only after the host's root is gone, because their targets
/// may lie in directories that an agent has written, where a link could lead anywhere.
struct Stash {
    trees: [Option<i32>; STASHED],
    first: usize,
    count: usize,
}

/// Mounts kept aside, at most; the owner knows this number.
const STASHED: usize = MOST_STASHED as usize;

impl Done {
    pub fn new() -> Self {
        let stash = Stash {
            trees: [None; STASHED],
            first: 0,
            count: 0,
        };
        Self {
            listener: None,
            port: 0,
            watch: None,
            refusals: None,
            stash,
            masks: None,
        }
    }
}

/// Carries out every step, or tells the owner which one failed and ends.
pub fn carry_out(plan: &[u8], done: &mut Done, socket: i32) {
    let mut reader = Reader::new(plan);
    let mut index = 0;
    while !reader.is_at_end() {
        let done = Step::read(&mut reader)
            .map_err(Errno::from)
            .and_then(|step| carry(step, done));
        if let Err(error) = done {
            link::fail(socket, STAGE_STEP, error, index)
        }
        index += 1;
    }
}

fn carry(step: Step<'_>, done: &mut Done) -> Result<()> {
    match step {
        Step::Directory { path, mode } => sys::make_directory(path, mode as usize),
        Step::Symlink { target, path } => sys::make_symlink(target, path),
        Step::File {
            path,
            mode,
            content,
        } => write_new(path, mode, content.bytes()),
        Step::Tmpfs {
            path,
            options,
            flags,
        } => mount(text!("tmpfs"), path, flags, options),
        Step::Bind {
            source,
            target,
            attributes,
            optional,
        } => match bind(source, target, attributes) {
            Err(ENOENT) if optional => Ok(()),
            other => other,
        },
        // Where `tmpfs` would be swapped: that it is not, only the host's root may ask for.
        Step::Unswapped(path) => mount(
            text!("ramfs"),
            path,
            MS_NOSUID_NODEV_NOEXEC,
            text!("mode=0500"),
        ),
        Step::Proc(path) => mount(text!("proc"), path, MS_NOSUID_NODEV_NOEXEC, text!("")),
        Step::Devpts(path) => {
            let options = text!("newinstance,ptmxmode=0666,mode=0620");
            mount(text!("devpts"), path, MS_NOSUID_NOEXEC, options)
        }
        Step::Masks { file, directory } => {
            done.masks = Some(Masks::of(file, directory)?);
            Ok(())
        }
        Step::Mask(path) => done.masks.as_ref().ok_or(sys::EINVAL)?.mask(path),
        Step::Hide(paths) => done.masks.as_ref().ok_or(sys::EINVAL)?.hide(paths),
        Step::Overlay(layers) => overlay(&layers),
        Step::ReadOnly(path) => set_attributes(sys::AT_FDCWD, path, 0, ATTRIBUTE_READ_ONLY),
        Step::Hostname(name) => {
            // SAFETY: the kernel reads the text's length.
            let set = unsafe { sys::call(nr::SETHOSTNAME, [name.pointer(), name.bytes().len()]) };
            match set {
                // An engine refuses it to whoever is in one of its containers: its name is seen then.
                Err(EPERM) => Ok(()),
                set => set.map(drop),
            }
        }
        Step::Loopback => loopback::up(),
        Step::Listen(port) => {
            let (listener, port) = loopback::listen(port)?;
            (done.listener, done.port) = (Some(listener), port);
            Ok(())
        }
        Step::Limit { resource, value } => limit(resource, value),
        Step::Landlock {
            handled,
            scoped,
            bytes,
            rules,
        } => {
            let enforced = seal::Rules::new(handled, scoped, bytes)?;
            for (path, rights) in rules {
                enforced.allow(path, rights)?;
            }
            enforced.enforce()
        }
        Step::Seccomp { asking, plain } => {
            seal::drop_capabilities()?;
            done.refusals = seal::filter(asking.bytes(), plain.bytes())?;
            Ok(())
        }
        Step::Watch(watch) => {
            done.watch = Some(watch);
            Ok(())
        }
        Step::Detach => detach(),
        Step::Stash {
            source,
            attributes,
            optional,
        } => {
            let place = done
                .stash
                .trees
                .get_mut(done.stash.count)
                .ok_or(sys::EINVAL)?;
            *place = match open_tree(source, attributes) {
                Err(ENOENT) if optional => None,
                other => Some(other?),
            };
            done.stash.count += 1;
            Ok(())
        }
        Step::Attach(target) => {
            let stashed = done
                .stash
                .trees
                .get_mut(done.stash.first)
                .ok_or(sys::EINVAL)?;
            done.stash.first += 1;
            stashed.take().map_or(Ok(()), |tree| place(tree, target))
        }
        Step::Spread {
            source,
            target,
            attributes,
            spared,
        } => root::spread(source, target, attributes, spared),
        Step::EndMasks => {
            done.masks.take().into_iter().for_each(Masks::end);
            Ok(())
        }
    }
}

pub const MS_NOSUID_NODEV: u32 = 2 | 4;
const MS_NOSUID_NODEV_NOEXEC: u32 = 2 | 4 | 8;
const MS_NOSUID_NOEXEC: u32 = 2 | 8;
const ATTRIBUTE_READ_ONLY: u32 = 1;
pub const MASK_ATTRIBUTES: u32 = ATTRIBUTE_READ_ONLY | MS_NOSUID_NODEV_NOEXEC;
const AT_RECURSIVE: usize = 0x8000;

fn write_new(path: Text<'_>, mode: u32, content: &[u8]) -> Result<()> {
    let fd = sys::open(
        path,
        sys::O_WRONLY | sys::O_CREAT | sys::O_EXCL,
        mode as usize,
    )?;
    let written = sys::write_all(fd, content);
    sys::close(fd);
    written
}

pub fn mount(kind: Text<'_>, path: Text<'_>, flags: u32, options: Text<'_>) -> Result<()> {
    let arguments = [
        kind.pointer(),
        path.pointer(),
        kind.pointer(),
        flags as usize,
        options.pointer(),
    ];
    // SAFETY: all texts end with a zero byte.
    unsafe { sys::call(nr::MOUNT, arguments) }.map(drop)
}

/// `struct mount_attr` with only attributes to set.
fn set_attributes(fd: usize, path: Text<'_>, flags: usize, attributes: u32) -> Result<()> {
    let structure = [u64::from(attributes), 0, 0, 0];
    let arguments = [fd, path.pointer(), flags, structure.as_ptr() as usize, 32];
    // SAFETY: the structure has the 32 bytes that are said, and the path ends with a zero byte.
    unsafe { sys::call(nr::MOUNT_SETATTR, arguments) }.map(drop)
}

/// Attaches the detached mount `fd` at `target`, over what is mounted there.
pub fn attach(fd: i32, target: Text<'_>) -> Result<()> {
    attach_how(fd, target, 0)
}

/// As [`attach`], but below what is mounted there (from Linux 6.5; `EINVAL` before).
pub fn attach_beneath(fd: i32, target: Text<'_>) -> Result<()> {
    const MOVE_MOUNT_BENEATH: usize = 0x200;
    attach_how(fd, target, MOVE_MOUNT_BENEATH)
}

fn attach_how(fd: i32, target: Text<'_>, how: usize) -> Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: usize = 4;
    let arguments = [
        fd as usize,
        text!("").pointer(),
        sys::AT_FDCWD,
        target.pointer(),
        MOVE_MOUNT_F_EMPTY_PATH | how,
    ];
    // SAFETY: both texts end with a zero byte.
    unsafe { sys::call(nr::MOVE_MOUNT, arguments) }.map(drop)
}

/// Makes `source`, with all that is mounted below it, appear at `target` in the fresh root with
/// `attributes`.
fn bind(source: Text<'_>, target: Text<'_>, attributes: u32) -> Result<()> {
    place_in_root(open_tree(source, attributes)?, target)
}

/// A detached copy of `source`, with all that is mounted below it, with `attributes`.
pub fn open_tree(source: Text<'_>, attributes: u32) -> Result<i32> {
    open_tree_at(sys::AT_FDCWD, source, 0, attributes)
}

/// As [`open_tree`], of a name in the directory `at`, which is no link.
pub fn open_tree_in(at: i32, name: Text<'_>, attributes: u32) -> Result<i32> {
    open_tree_at(at as usize, name, sys::AT_SYMLINK_NOFOLLOW, attributes)
}

/// A detached copy, of what `at` itself is where the path is empty and `how` says so.
pub fn open_tree_at(at: usize, source: Text<'_>, how: usize, attributes: u32) -> Result<i32> {
    const OPEN_TREE_CLONE_CLOEXEC: usize = 1 | 0o2000000;
    let arguments = [
        at,
        source.pointer(),
        OPEN_TREE_CLONE_CLOEXEC | AT_RECURSIVE | how,
    ];
    // SAFETY: the path ends with a zero byte.
    let tree = unsafe { sys::call(nr::OPEN_TREE, arguments) }? as i32;
    let flags = sys::AT_EMPTY_PATH | AT_RECURSIVE;
    if let Err(error) = set_attributes(tree as usize, text!(""), flags, attributes) {
        sys::close(tree);
        return Err(error);
    }
    Ok(tree)
}

/// Attaches the detached `tree` at `target`, which is made if it is missing.
pub fn place(tree: i32, target: Text<'_>) -> Result<()> {
    let placed = (|| {
        match sys::open(target, sys::O_PATH, 0) {
            Ok(existing) => sys::close(existing),
            Err(ENOENT) => make_for(tree, target)?,
            Err(error) => return Err(error),
        }
        attach(tree, target)
    })();
    sys::close(tree);
    placed
}

/// The same in the fresh root, where nobody else has made anything: there is no link to look at first.
pub fn place_in_root(tree: i32, target: Text<'_>) -> Result<()> {
    let placed = match attach(tree, target) {
        Err(ENOENT) => make_for(tree, target).and_then(|()| attach(tree, target)),
        other => other,
    };
    sys::close(tree);
    placed
}

/// Makes what `tree` can be attached at.
fn make_for(tree: i32, target: Text<'_>) -> Result<()> {
    if sys::is_directory(tree)? {
        return sys::make_directory(target, 0o755);
    }
    sys::open(target, sys::O_RDONLY | sys::O_CREAT, 0o444).map(sys::close)
}

fn detach() -> Result<()> {
    let old = text!("/.host");
    unmount(old)?;
    sys::remove(old, true)
}

/// Takes away the uppermost mount at `path`, whoever still uses it.
pub fn unmount(path: Text<'_>) -> Result<()> {
    const MNT_DETACH_UMOUNT_NOFOLLOW: usize = 2 | 8;
    // SAFETY: the path ends with a zero byte.
    unsafe { sys::call(nr::UMOUNT2, [path.pointer(), MNT_DETACH_UMOUNT_NOFOLLOW]) }.map(drop)
}

fn overlay(layers: &Layers<'_>) -> Result<()> {
    sys::make_directory(layers.target, 0o755)?;
    let tree = layers.mount(layers.target)?;
    let attached = attach(tree, layers.target);
    sys::close(tree);
    attached
}

pub fn append_bytes(at: usize, to: &mut [u8], bytes: &[u8]) -> usize {
    match to.get_mut(at..at + bytes.len()) {
        Some(place) => {
            place.copy_from_slice(bytes);
            at + bytes.len()
        }
        None => at,
    }
}

/// Lowers a limit to `value`, both the soft and the hard one; never raises one.
fn limit(resource: u32, value: u64) -> Result<()> {
    let mut now = [0u64; 2];
    let read = [0, resource as usize, 0, now.as_mut_ptr() as usize];
    // SAFETY: the kernel writes two longs.
    unsafe { sys::call(nr::PRLIMIT64, read) }?;
    let [_, hard] = now;
    let wanted = [value.min(hard); 2];
    // SAFETY: the kernel reads two longs.
    unsafe {
        sys::call(
            nr::PRLIMIT64,
            [0, resource as usize, wanted.as_ptr() as usize, 0],
        )
    }
    .map(drop)
}
