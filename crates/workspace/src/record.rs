//! The small files that say what a directory of the store is.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::{Error, std_io};
use crate::names::is_plain;
use crate::store::Layering;

/// What a workspace is: a kind, and the layers of each repository that is written in it. Lines of `word
/// value`; a word that is not known is an error, so that an older program never misreads a newer stack
/// of layers.
///
/// One record names the layers of all repositories, and it is replaced as a whole: a moment is one of
/// all of them or of none, whenever a process is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: Layering,
    /// The boot of the machine in which its files were written, where that is known: they are not
    /// synced, so that only within this boot they are sure to be whole.
    pub(crate) boot: Option<String>,
    /// Whether some of its layers may lie with those that several workspaces share.
    pub(crate) shared: bool,
    /// Those of the repository that it is of.
    pub(crate) own: Stack,
    /// Those of further repositories, each with a name, in the order in which they were given.
    pub(crate) also: Vec<(String, Stack)>,
}

/// A base, and the layers over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stack {
    pub(crate) base: String,
    /// The key of what a setup left, which lies over the base, if it lies over that.
    pub(crate) over: Option<String>,
    /// Frozen before the first turn, lowest first: no change.
    pub(crate) setup: Vec<String>,
    /// Frozen between turns, lowest first: the change, with what is written now.
    pub(crate) old: Vec<Turn>,
    /// As `old`, after it: the turns whose layers are all still there.
    pub(crate) turns: Vec<Turn>,
    /// Layers that hold the same as the first of `turns` together, in their order.
    pub(crate) folds: Vec<Folded>,
    /// The layer that is written.
    pub(crate) upper: String,
}

/// A moment to which a workspace can be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The name of the moment.
    pub(crate) name: String,
    /// What was written since the one before.
    pub(crate) layer: String,
}

/// A layer in the place of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folded {
    pub(crate) layer: String,
    /// Of how many turns.
    pub(crate) turns: usize,
}

/// The name of this boot of the machine; none where the kernel does not tell it.
#[must_use]
pub fn this_boot() -> Option<String> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let boot = BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let boot = text.trim();
        is_plain(boot).then(|| boot.to_owned())
    });
    boot.clone()
}

/// The most further repositories that are written in one workspace.
pub const MOST_ALSO: usize = 7;

/// The name of the record in a workspace's directory, and of one that is being written.
const NAME: &str = "record";
const FRESH: &str = "record.new";
/// Larger than any record.
const LARGEST: u64 = 2 * 1024 * 1024;

impl Record {
    pub(crate) fn write(&self, dir: &Path) -> Result<(), Error> {
        // Another process may read it at any moment, and this one may be killed at any.
        let fresh = dir.join(FRESH);
        write(&fresh, &self.text())?;
        std::fs::rename(&fresh, dir.join(NAME)).map_err(std_io("write", dir.join(NAME)))
    }

    /// As [`Record::write`], and what it names is on the disk before it is, and it before this returns:
    /// after a crash of the machine it says either what it said before or this.
    pub(crate) fn write_durably(&self, dir: &Path) -> Result<(), Error> {
        sync_directory(dir)?;
        let fresh = dir.join(FRESH);
        write(&fresh, &self.text())?;
        let synced = std::fs::File::open(&fresh).and_then(|file| file.sync_all());
        synced.map_err(std_io("write", &fresh))?;
        std::fs::rename(&fresh, dir.join(NAME)).map_err(std_io("write", dir.join(NAME)))?;
        sync_directory(dir)
    }

    pub(crate) fn text(&self) -> String {
        let kind = match self.kind {
            Layering::Overlay => "layers",
            Layering::Copy => "copy",
        };
        let mut text = format!("workspace {kind}\nbase {}\n", self.own.base);
        if self.shared {
            text.push_str("shared\n");
        }
        self.own.write(&mut text);
        if let Some(boot) = &self.boot {
            text.push_str(&format!("boot {boot}\n"));
        }
        for (name, stack) in &self.also {
            text.push_str(&format!("also {} {name}\n", stack.base));
            stack.write(&mut text);
        }
        text
    }

    pub(crate) fn read(dir: &Path) -> Result<Record, Error> {
        let path = dir.join(NAME);
        Record::parse(&read(&path)?).ok_or(Error::Record { path })
    }

    pub(crate) fn parse(text: &str) -> Option<Record> {
        let mut lines = text.lines();
        let kind = match lines.next()? {
            "workspace layers" => Layering::Overlay,
            "workspace copy" => Layering::Copy,
            _ => return None,
        };
        let mut record = Record {
            kind,
            boot: None,
            shared: false,
            own: Stack::over(plain(lines.next()?.strip_prefix("base ")?)?),
            also: Vec::new(),
        };
        for line in lines {
            let (word, value) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "boot" => record.boot = Some(plain(value)?),
                "shared" => record.shared = true,
                "also" if record.also.len() < MOST_ALSO => {
                    let (base, name) = value.split_once(' ')?;
                    record.also.push((plain(name)?, Stack::over(plain(base)?)));
                }
                // Its layers are those of the repository that was named last.
                _ => match record.also.last_mut() {
                    Some((_, stack)) => stack.read(word, value)?,
                    None => record.own.read(word, value)?,
                },
            }
        }
        record.is_sound().then_some(record)
    }

    /// Whether each repository has all that it needs, and the same moments as the others.
    fn is_sound(&self) -> bool {
        let names = |stack: &Stack| -> Vec<String> {
            let turns = stack.old.iter().chain(&stack.turns);
            turns.map(|turn| turn.name.clone()).collect()
        };
        let folds =
            |stack: &Stack| -> Vec<usize> { stack.folds.iter().map(|fold| fold.turns).collect() };
        let (all, folded) = (names(&self.own), folds(&self.own));
        self.stacks().all(|stack| {
            stack.folded() <= stack.turns.len()
                && !stack.upper.is_empty()
                && stack.old.len() == self.own.old.len()
                && names(stack) == all
                && folds(stack) == folded
        })
    }

    /// The layers of each repository, of its own first.
    pub(crate) fn stacks(&self) -> impl Iterator<Item = &Stack> {
        let also = self.also.iter().map(|(_, stack)| stack);
        std::iter::once(&self.own).chain(also)
    }

    /// As [`Record::stacks`], to be changed.
    pub(crate) fn stacks_mut(&mut self) -> impl Iterator<Item = &mut Stack> {
        let also = self.also.iter_mut().map(|(_, stack)| stack);
        std::iter::once(&mut self.own).chain(also)
    }

    /// Every layer that it names.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &str> {
        self.stacks().flat_map(Stack::layers)
    }
}

impl Stack {
    /// A base without any layer: it has to get one to be written.
    pub(crate) fn over(base: String) -> Self {
        Self {
            base,
            over: None,
            setup: Vec::new(),
            old: Vec::new(),
            turns: Vec::new(),
            folds: Vec::new(),
            upper: String::new(),
        }
    }

    /// Writes its lines, without that of its base.
    fn write(&self, text: &mut String) {
        if let Some(over) = &self.over {
            text.push_str(&format!("over {over}\n"));
        }
        for layer in &self.setup {
            text.push_str(&format!("setup {layer}\n"));
        }
        for (word, turns) in [("old", &self.old), ("turn", &self.turns)] {
            for Turn { name, layer } in turns {
                text.push_str(&format!("{word} {layer} {name}\n"));
            }
        }
        for Folded { layer, turns } in &self.folds {
            text.push_str(&format!("fold {layer} {turns}\n"));
        }
        text.push_str(&format!("upper {}\n", self.upper));
    }

    /// Takes one of its lines; none where it is no such line.
    fn read(&mut self, word: &str, value: &str) -> Option<()> {
        match word {
            "over" => self.over = Some(plain(value)?),
            "setup" => self.setup.push(plain(value)?),
            "old" => self.old.push(Turn::parse(value)?),
            "turn" => self.turns.push(Turn::parse(value)?),
            "fold" => {
                let (layer, turns) = value.split_once(' ')?;
                self.folds.push(Folded {
                    layer: plain(layer)?,
                    turns: turns.parse().ok()?,
                });
            }
            "upper" => self.upper = plain(value)?,
            _ => return None,
        }
        Some(())
    }

    /// How many turns have been folded.
    pub(crate) fn folded(&self) -> usize {
        self.folds
            .iter()
            .fold(0, |sum, fold| fold.turns.saturating_add(sum))
    }

    /// Whether a layer holds only what others hold, too.
    pub(crate) fn is_fold(&self, layer: &str) -> bool {
        self.folds.iter().any(|fold| fold.layer == layer)
    }

    /// Every layer that it names, those of setups first.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &str> {
        let turns = self.old.iter().chain(&self.turns).map(|turn| &turn.layer);
        let folds = self.folds.iter().map(|fold| &fold.layer);
        self.setup
            .iter()
            .chain(turns)
            .chain(folds)
            .chain([&self.upper])
            .map(String::as_str)
    }

    /// The layers that make the change, topmost first, without the one that is written.
    pub(crate) fn frozen(&self) -> impl Iterator<Item = &str> {
        let unfolded = self.turns.iter().skip(self.folded()).rev();
        let unfolded = unfolded.map(|turn| turn.layer.as_str());
        let folds = self.folds.iter().rev().map(|fold| fold.layer.as_str());
        let old = self.old.iter().rev().map(|turn| turn.layer.as_str());
        unfolded.chain(folds).chain(old)
    }

    /// The layer that lies just below the one that is written, unless that is the base.
    pub(crate) fn below(&self) -> Option<&str> {
        self.frozen()
            .next()
            .or(self.setup.last().map(String::as_str))
    }
}

impl Turn {
    fn parse(value: &str) -> Option<Turn> {
        let (layer, name) = value.split_once(' ')?;
        Some(Turn {
            layer: plain(layer)?,
            name: plain(name)?,
        })
    }
}

fn plain(name: &str) -> Option<String> {
    is_plain(name).then(|| name.to_owned())
}

/// The name of the record in a base's directory; only a base that lies over another has one.
const BASE_NAME: &str = "record";
const PARENT: &str = "base over ";

/// The key of the base that the base in `dir` lies over, if it lies over one.
pub(crate) fn parent(dir: &Path) -> Result<Option<String>, Error> {
    let path = dir.join(BASE_NAME);
    match read(&path) {
        Ok(text) => {
            let key = text
                .strip_prefix(PARENT)
                .and_then(|key| key.strip_suffix('\n'));
            match key.filter(|key| is_plain(key)) {
                Some(key) => Ok(Some(key.to_owned())),
                None => Err(Error::Record { path }),
            }
        }
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn write_parent(dir: &Path, key: &str) -> Result<(), Error> {
    write(&dir.join(BASE_NAME), &format!("{PARENT}{key}\n"))
}

fn read(path: &Path) -> Result<String, Error> {
    let length = std::fs::metadata(path).map_err(std_io("read", path))?.len();
    if length > LARGEST {
        return Err(damaged(path));
    }
    std::fs::read_to_string(path).map_err(std_io("read", path))
}

/// A number in a file of its own, if the file is there.
pub(crate) fn read_number(path: &Path) -> Result<Option<u64>, Error> {
    match read(path) {
        // A size that was cut short by a crash is measured again.
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(std_io("write", path))
}

/// Waits until the names in a directory are on the disk.
pub(crate) fn sync_directory(dir: &Path) -> Result<(), Error> {
    std::fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(std_io("write", dir))
}

fn damaged(path: &Path) -> Error {
    Error::Record {
        path: PathBuf::from(path),
    }
}
