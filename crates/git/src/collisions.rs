//! Names of one directory that some file systems take for one: they differ only in case, or in the form of Unicode.
//!
//! Windows and macOS keep one file of such a pair, so that nobody there can check out a tree that has both.

use std::collections::{BTreeMap, HashMap};

use bstr::{BStr, BString, ByteSlice};
use gix::objs::tree::EntryKind;
use unicode_normalization::UnicodeNormalization;

use crate::error::Error;
use crate::ids::TreeId;
use crate::mirror::Mirror;
use crate::objects::TreeItem;

/// A new name that collides with another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collision {
    /// The path that is new: a file, a link or a directory.
    pub path: BString,
    /// What it collides with, in the same directory.
    pub with: BString,
}

impl Mirror {
    /// The names of `tree` that `base` does not have and that collide with another name of their directory: with one
    /// that the base has, else with the first of those that are new. What is below such a directory is not looked at.
    pub fn collisions(&self, base: TreeId, tree: TreeId) -> Result<Vec<Collision>, Error> {
        let mut reader = self.objects().reader();
        let mut found = Vec::new();
        let mut open = vec![(BString::default(), Some(base.0), tree.0)];
        while let Some((prefix, old, new)) = open.pop() {
            self.program().cancel().check("comparing names")?;
            let old: BTreeMap<BString, TreeItem> = match old {
                Some(id) if id == new => continue,
                Some(id) => reader
                    .tree(&id)?
                    .into_iter()
                    .map(|item| (item.name.clone(), item))
                    .collect(),
                None => BTreeMap::new(),
            };
            let items = reader.tree(&new)?;
            let refused = colliding(&items, |name| old.contains_key(name));
            for item in items {
                let path = [prefix.as_slice(), &item.name].concat();
                if let Some(with) = refused.get(&item.name) {
                    let with = [prefix.as_slice(), with].concat();
                    found.push(Collision {
                        path: path.into(),
                        with: with.into(),
                    });
                } else if item.kind == EntryKind::Tree {
                    let was = old.get(&item.name);
                    let was = was.filter(|was| was.kind == EntryKind::Tree);
                    let below = [path.as_slice(), b"/"].concat();
                    open.push((below.into(), was.map(|was| was.id), item.id));
                }
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }
}

/// The new names of a directory that collide, each with the name that stays.
fn colliding(items: &[TreeItem], is_old: impl Fn(&BString) -> bool) -> HashMap<BString, BString> {
    let mut refused = HashMap::new();
    if items.iter().all(|item| is_old(&item.name)) {
        return refused;
    }
    let mut stays: HashMap<Vec<u8>, &BString> = HashMap::new();
    // Those of the base come first: they stay.
    let (old, new): (Vec<&TreeItem>, Vec<&TreeItem>) =
        items.iter().partition(|item| is_old(&item.name));
    for item in old {
        stays
            .entry(folded(item.name.as_ref()))
            .or_insert(&item.name);
    }
    for item in new {
        match stays.entry(folded(item.name.as_ref())) {
            std::collections::hash_map::Entry::Occupied(with) => {
                refused.insert(item.name.clone(), (*with.get()).clone());
            }
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(&item.name);
            }
        }
    }
    refused
}

/// What all names have in common that some file system takes for one. Unicode's own folding is not in the standard
/// library: small letters of the large ones come to the same but for a few letters of Cherokee.
fn folded(name: &BStr) -> Vec<u8> {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    match name.to_str() {
        Ok(text) => text
            .nfd()
            .flat_map(char::to_uppercase)
            .flat_map(char::to_lowercase)
            .nfd()
            .collect::<String>()
            .into_bytes(),
        Err(_) => name.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(old: &[&[u8]], new: &[&[u8]]) -> Vec<(BString, BString)> {
        let items: Vec<TreeItem> = old
            .iter()
            .chain(new)
            .map(|name| TreeItem {
                name: name.as_bstr().to_owned(),
                kind: EntryKind::Blob,
                id: gix::ObjectId::null(crate::objects::HASH),
            })
            .collect();
        let is_old = |name: &BString| old.contains(&name.as_slice());
        let mut found: Vec<_> = colliding(&items, is_old).into_iter().collect();
        found.sort();
        found
    }

    #[test]
    fn names_that_some_system_takes_for_one_collide() {
        for (one, other) in [
            ("README", "readme"),
            ("Über", "über"),
            ("caf\u{e9}", "cafe\u{301}"),
            ("CAF\u{c9}", "cafe\u{301}"),
            ("stra\u{df}e", "STRASSE"),
            ("\u{212a}", "k"),
            ("ſ", "S"),
            ("\u{1f80}", "\u{1f88}"),
        ] {
            let expected = [(other.into(), one.into())];
            assert_eq!(refused(&[one.as_bytes()], &[other.as_bytes()]), expected);
            assert_eq!(folded(one.into()), folded(other.into()));
        }
        assert_eq!(refused(&[b"A\xff"], &[b"a\xff"]).len(), 1);
        assert!(refused(&[b"a", b"\xc3"], &[b"b", b"\xe3", b"ab"]).is_empty());
    }

    #[test]
    fn what_the_base_has_stays_and_of_new_names_the_first() {
        assert!(refused(&[b"a", b"A"], &[b"b"]).is_empty());
        let with = |name: &str| BString::from(name);
        assert_eq!(refused(&[b"a"], &[b"A"]), [(with("A"), with("a"))]);
        assert_eq!(
            refused(&[], &[b"NEW", b"New", b"new"]),
            [(with("New"), with("NEW")), (with("new"), with("NEW"))]
        );
    }
}
