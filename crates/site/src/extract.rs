//! What changed in a workspace, made into a tree in the mirror. Everything here is data.

use crate::{
    error::Error,
    ignored::{self, Ignored},
};
use bstr::{BStr, BString, ByteSlice};
use git::{Collision, Mirror, TreeId, TreeWriter};
use std::{collections::BTreeSet, io::Read};
use workspace::{Change, Limits, Summary, Visitor, Workspace};

/// The most entries that are named among what was not taken.
pub const MAX_REPORTED: usize = 50;

/// What came out of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// The base's tree with the changes.
    pub tree: TreeId,
    /// The same of each further repository, with its name.
    pub also: Vec<(String, TreeId)>,
    /// What was found and not taken, a sentence each, at most [`MAX_REPORTED`].
    pub not_taken: Vec<String>,
}

/// What came out of one repository of a workspace.
#[derive(Debug)]
pub struct Part {
    /// Its name; none of the one that the workspace is of.
    pub name: Option<String>,
    /// The same as of a workspace that has no other.
    pub extracted: Result<Extracted, Error>,
}

impl Extracted {
    /// Adds what came out of a further repository.
    pub(crate) fn add(&mut self, name: String, of: Self) {
        let room = MAX_REPORTED.saturating_sub(self.not_taken.len());
        let not_taken = of.not_taken.into_iter().take(room);
        self.not_taken
            .extend(not_taken.map(|line| format!("in {name}: {line}")));
        self.also.push((name, of.tree));
    }
}

/// Reads the changes of one repository of a workspace over `base` into a tree of the mirror: of the one
/// with this name, or of its own. New files that git
/// ignores are left out: they are neither read nor counted against the limits.
pub(crate) fn extract(
    mirror: &Mirror,
    base: TreeId,
    (workspace, name): (&Workspace, Option<&str>),
    limits: &Limits,
) -> Result<Extracted, Error> {
    into_tree(mirror, base, &mut |visitor| match name {
        None => workspace.wanted_changes(limits, visitor),
        Some(name) => workspace.wanted_changes_of(name, limits, visitor),
    })
}

/// Shows a visitor what changed.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&mut dyn Visitor<Error>) -> Result<Summary, Error>;

/// Reads changes over `base`, wherever they come from, into a tree of the mirror.
pub(crate) fn into_tree(
    mirror: &Mirror,
    base: TreeId,
    visit: Visit<'_>,
) -> Result<Extracted, Error> {
    let mut rules = Rules::new(mirror, base)?;
    visit(&mut rules)?;
    let mut collect = Collect {
        tree: mirror.tree_writer(base),
        rules,
    };
    let summary = visit(&mut collect)?;
    let written = collect.tree.finish()?;
    let collisions = mirror.collisions(base, written.tree)?;
    let mut tree = written.tree;
    if !collisions.is_empty() {
        let mut without = mirror.tree_writer(tree);
        for collision in &collisions {
            without.remove(collision.path.as_ref())?;
        }
        tree = without.finish()?.tree;
    }
    let below = written.below_submodules.iter().map(|path| {
        let path = shown(path);
        format!("{path}: a file below a submodule cannot be part of a change")
    });
    let refused = summary
        .refused
        .iter()
        .map(|refused| format!("{}: {}", shown(&refused.path), refused.why));
    let collisions = collisions.iter().map(|Collision { path, with }| {
        let (path, with) = (shown(path), shown(with));
        format!("{path}: beside {with}, some systems take it for the same name")
    });
    let not_taken = refused
        .chain(below)
        .chain(collisions)
        .take(MAX_REPORTED)
        .collect();
    Ok(Extracted {
        tree,
        also: Vec::new(),
        not_taken,
    })
}

/// A path as it can stand in a line of text: control characters and what is no text are escaped.
fn shown(path: &BString) -> String {
    path.escape_bytes().to_string()
}

/// The second visit: puts what is wanted into the tree.
struct Collect<'a> {
    tree: TreeWriter,
    rules: Rules<'a>,
}

impl Visitor<Error> for Collect<'_> {
    fn wants(&mut self, path: &BStr, is_directory: bool) -> Result<bool, Error> {
        Ok(!self.rules.leave_out(path, is_directory)?)
    }

    fn visit(&mut self, change: Change) -> Result<(), Error> {
        match change {
            Change::Removed(path) => self.tree.remove(path.as_ref())?,
            Change::Cleared(path) => self.tree.clear(path.as_ref())?,
            Change::File {
                path,
                executable,
                len,
                mut content,
            } => self
                .tree
                .put_file(path.as_ref(), executable, &mut content, len)?,
            Change::Link { path, target } => self.tree.put_link(path.as_ref(), target.as_ref())?,
        }
        Ok(())
    }
}

/// The first visit: the `.gitignore` files as they stand in the workspace, those that changed and the
/// base's in every directory that may hold a change.
struct Rules<'a> {
    mirror: &'a Mirror,
    base: TreeId,
    ignored: Ignored,
    /// The `.gitignore` files that were read, or are gone.
    settled: BTreeSet<BString>,
}

impl<'a> Rules<'a> {
    fn new(mirror: &'a Mirror, base: TreeId) -> Result<Self, Error> {
        let mut rules = Self {
            mirror,
            base,
            ignored: Ignored::default(),
            settled: BTreeSet::new(),
        };
        rules.of_base(BStr::new(""))?;
        Ok(rules)
    }

    /// Takes the rules that the base has in a directory, unless the workspace has others there.
    fn of_base(&mut self, directory: &BStr) -> Result<(), Error> {
        let mut path = directory.to_owned();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(NAME);
        if self.settled.contains(&path) {
            return Ok(());
        }
        if let Some(entry) = self.mirror.entry_in(self.base, path.as_ref())?
            && entry.kind != git::FileKind::Directory
            && let Ok(content) = self.mirror.read_blob(entry.id, ignored::MAX_BYTES)
        {
            self.ignored.add(path.as_ref(), &content);
        }
        Ok(())
    }

    /// Whether git would leave it out: it is ignored, and the base has nothing there.
    fn leave_out(&self, path: &BStr, is_directory: bool) -> Result<bool, Error> {
        Ok(self.ignored.matches(path, is_directory)
            && self.mirror.entry_in(self.base, path)?.is_none())
    }
}

/// The name of a file with rules.
const NAME: &[u8] = b".gitignore";

fn is_rules(path: &BStr) -> bool {
    path.strip_suffix(NAME)
        .is_some_and(|above| above.is_empty() || above.ends_with(b"/"))
}

impl Visitor<Error> for Rules<'_> {
    fn wants(&mut self, path: &BStr, is_directory: bool) -> Result<bool, Error> {
        if !is_directory {
            return Ok(is_rules(path));
        }
        if self.leave_out(path, true)? {
            return Ok(false);
        }
        self.of_base(path)?;
        Ok(true)
    }

    fn visit(&mut self, change: Change) -> Result<(), Error> {
        if !is_rules(change.path()) {
            return Ok(());
        }
        let path = change.path().to_owned();
        self.ignored.remove(path.as_ref());
        if let Change::File { content, .. } = change {
            let mut bytes = Vec::new();
            content
                .take(ignored::MAX_BYTES)
                .read_to_end(&mut bytes)
                .map_err(|source| Error::Unreadable {
                    path: path.to_string(),
                    source,
                })?;
            self.ignored.add(path.as_ref(), &bytes);
        }
        self.settled.insert(path);
        Ok(())
    }
}
