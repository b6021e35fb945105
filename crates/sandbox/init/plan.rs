//! The owner's plan as process 1 and the helper read it: whole steps, before anything of them is
//! carried out. See `wire.rs` for what a step is made of.

use super::read::{Malformed, Reader, Result, Text};
use super::wire::*;

/// A step of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    Directory {
        path: Text<'a>,
        mode: u32,
    },
    Symlink {
        target: Text<'a>,
        path: Text<'a>,
    },
    File {
        path: Text<'a>,
        mode: u32,
        content: Text<'a>,
    },
    Tmpfs {
        path: Text<'a>,
        options: Text<'a>,
        flags: u32,
    },
    Bind {
        source: Text<'a>,
        target: Text<'a>,
        attributes: u32,
        optional: bool,
    },
    Unswapped(Text<'a>),
    Proc(Text<'a>),
    Devpts(Text<'a>),
    Mask(Text<'a>),
    Overlay(Layers<'a>),
    ReadOnly(Text<'a>),
    Hostname(Text<'a>),
    Loopback,
    Listen(u16),
    Limit {
        resource: u32,
        value: u64,
    },
    Landlock {
        handled: u64,
        scoped: u64,
        bytes: u32,
        rules: Rules<'a>,
    },
    Seccomp {
        asking: Text<'a>,
        plain: Text<'a>,
    },
    Watch(Watch),
    Detach,
    Stash {
        source: Text<'a>,
        attributes: u32,
        optional: bool,
    },
    Attach(Text<'a>),
    Masks {
        file: Text<'a>,
        directory: Text<'a>,
    },
    EndMasks,
    Hide(Paths<'a>),
    Spread {
        source: Text<'a>,
        target: Text<'a>,
        attributes: u32,
        spared: Paths<'a>,
    },
}

impl<'a> Step<'a> {
    pub fn read(from: &mut Reader<'a>) -> Result<Self> {
        Ok(match from.word()? {
            STEP_DIRECTORY => Self::Directory {
                path: from.path()?,
                mode: from.word()?,
            },
            STEP_SYMLINK => Self::Symlink {
                target: from.path()?,
                path: from.path()?,
            },
            STEP_FILE => Self::File {
                path: from.path()?,
                mode: from.word()?,
                content: from.text()?,
            },
            STEP_TMPFS => Self::Tmpfs {
                path: from.path()?,
                options: from.path()?,
                flags: from.word()?,
            },
            STEP_BIND => Self::Bind {
                source: from.path()?,
                target: from.path()?,
                attributes: from.word()?,
                optional: from.word()? & BIND_OPTIONAL != 0,
            },
            STEP_UNSWAPPED => Self::Unswapped(from.path()?),
            STEP_PROC => Self::Proc(from.path()?),
            STEP_DEVPTS => Self::Devpts(from.path()?),
            STEP_MASK => Self::Mask(from.path()?),
            STEP_OVERLAY => Self::Overlay(Layers::read(from)?),
            STEP_READ_ONLY => Self::ReadOnly(from.path()?),
            STEP_HOSTNAME => Self::Hostname(from.path()?),
            STEP_LOOPBACK => Self::Loopback,
            STEP_LISTEN => Self::Listen(u16::try_from(from.word()?).map_err(|_| Malformed)?),
            STEP_RLIMIT => Self::Limit {
                resource: from.word()?,
                value: from.long()?,
            },
            STEP_LANDLOCK => Self::Landlock {
                handled: from.long()?,
                scoped: from.long()?,
                bytes: from.word()?,
                rules: Rules::read(from)?,
            },
            STEP_SECCOMP => Self::Seccomp {
                asking: from.text()?,
                plain: from.text()?,
            },
            STEP_WATCH => Self::Watch(Watch {
                bytes: from.long()?,
                processes: from.long()?,
                places: from.word()?,
            }),
            STEP_DETACH => Self::Detach,
            STEP_STASH => Self::Stash {
                source: from.path()?,
                attributes: from.word()?,
                optional: from.word()? & BIND_OPTIONAL != 0,
            },
            STEP_ATTACH => Self::Attach(from.path()?),
            STEP_MASKS => Self::Masks {
                file: from.path()?,
                directory: from.path()?,
            },
            STEP_END_MASKS => Self::EndMasks,
            STEP_HIDE => Self::Hide(Paths::read(from)?),
            STEP_SPREAD => Self::Spread {
                source: from.path()?,
                target: from.path()?,
                attributes: from.word()?,
                spared: Paths::read(from)?,
            },
            _ => return Err(Malformed),
        })
    }
}

/// What the watcher allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    pub bytes: u64,
    pub processes: u64,
    /// Which directories are in memory.
    pub places: u32,
}

/// The overlay that is a workspace: `target, upper, work, flags, count, lowers…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers<'a> {
    pub target: Text<'a>,
    pub upper: Text<'a>,
    pub work: Text<'a>,
    pub volatile: bool,
    /// The uppermost first.
    pub lowers: Paths<'a>,
}

impl<'a> Layers<'a> {
    pub fn read(from: &mut Reader<'a>) -> Result<Self> {
        Ok(Self {
            target: from.path()?,
            upper: from.path()?,
            work: from.path()?,
            volatile: from.word()? & OVERLAY_VOLATILE != 0,
            lowers: Paths::read(from)?,
        })
    }
}

/// Paths, all of which have been seen to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paths<'a> {
    count: u32,
    list: Reader<'a>,
}

impl<'a> Paths<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self> {
        let (count, list) = (from.word()?, *from);
        for _ in 0..count {
            from.path()?;
        }
        Ok(Self { count, list })
    }

    /// How many are left.
    pub fn left(&self) -> usize {
        self.count as usize
    }
}

impl<'a> Iterator for Paths<'a> {
    type Item = Text<'a>;

    fn next(&mut self) -> Option<Text<'a>> {
        self.count = self.count.checked_sub(1)?;
        self.list.path().ok()
    }
}

/// Paths with the rights that are allowed below them, all of which have been seen to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules<'a> {
    count: u32,
    list: Reader<'a>,
}

impl<'a> Rules<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self> {
        let (count, list) = (from.word()?, *from);
        for _ in 0..count {
            from.path()?;
            from.long()?;
        }
        Ok(Self { count, list })
    }
}

impl<'a> Iterator for Rules<'a> {
    type Item = (Text<'a>, u64);

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        Some((self.list.path().ok()?, self.list.long().ok()?))
    }
}
