//! Listings of a workspace whose files are elsewhere, as they come out of a sandbox.

use std::collections::BTreeMap;
use std::fs::File;

use sandbox::archive::{Bounds, Reader};
use site::hostile::seen;
use workspace::hostile::is_git_directory;
use workspace::{
    Change, Error, Fetch, Fetched, GitDir, Limits, Listing, Seen, Summary, Visitor,
    changes_elsewhere,
};

use crate::archive::{BLOCK, summed};

const BOUNDS: Bounds = Bounds {
    entries: 64,
    file_bytes: 16 << 10,
    total_bytes: 32 << 10,
    path_bytes: 300,
    depth: 8,
};
const LIMITS: Limits = Limits {
    entries: 48,
    file_bytes: 1 << 20,
    total_bytes: 4 << 20,
    depth: 6,
    path_bytes: 200,
};
/// The kinds of entries, as the kernel has them.
const KINDS: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// The first byte says how many blocks the first listing has; the rest is the second one. What changed
/// between them lies where files can be, comes in order and within limits, and makes the first into the
/// second; between a listing and itself nothing is gone.
pub fn listing(bytes: &[u8]) {
    let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let at = (usize::from(*first) * BLOCK).min(rest.len());
    let (before, now) = rest.split_at(at);
    let (before, now) = (Held::of(before), Held::of(now));
    let (changes, told) = changed(&before, &now);
    hold(&changes);
    if let Ok(summary) = told {
        assert!(summary.entries <= LIMITS.entries && summary.bytes <= LIMITS.total_bytes);
        is_all(&before, &now, &changes, &summary);
    }
    let (changes, told) = changed(&now, &now);
    let gone = |change: &Told| matches!(change.what, Became::Removed | Became::Cleared);
    assert!(!changes.iter().any(gone), "{changes:?}");
    assert!(told.is_err() || told.is_ok_and(|it| it.git == GitDir::Kept));
}

/// A listing, and what it holds by its paths.
struct Held {
    listing: Listing,
    all: BTreeMap<Vec<u8>, Seen>,
}

impl Held {
    /// All that comes before the first thing that makes no sense.
    fn of(bytes: &[u8]) -> Self {
        let bytes = summed(bytes);
        let mut reader = Reader::new(&bytes[..], BOUNDS);
        let (mut listing, mut all) = (Listing::default(), BTreeMap::new());
        while let Ok(Some(listed)) = reader.next_listed() {
            let seen = seen(listed);
            if listing.add(seen.clone()).is_err() {
                break;
            }
            let twice = all.insert(seen.path.to_vec(), seen);
            assert_eq!(twice, None, "a path comes once");
        }
        for path in all.keys() {
            if let Some(at) = path.iter().rposition(|byte| *byte == b'/') {
                let above = all.get(&path[..at]).map(|it| it.mode & KINDS);
                assert_eq!(above, Some(DIRECTORY), "what it is in is a directory");
            }
        }
        Self { listing, all }
    }

    /// Its files and links, but what is, or is below, a git directory or one of these.
    fn files(&self, but: &[Vec<u8>]) -> BTreeMap<Vec<u8>, &Seen> {
        let left_out = |path: &[u8]| {
            path.split(|byte| *byte == b'/').any(is_git_directory)
                || but.iter().any(|it| is_at_or_below(path, it))
        };
        let kept = self.all.iter().filter(|(path, seen)| {
            matches!(seen.mode & KINDS, REGULAR | SYMLINK) && !left_out(path)
        });
        kept.map(|(path, seen)| (path.clone(), seen)).collect()
    }
}

fn is_at_or_below(path: &[u8], place: &[u8]) -> bool {
    let rest = path.strip_prefix(place);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// A change, without its content.
#[derive(Debug)]
struct Told {
    path: Vec<u8>,
    what: Became,
}

#[derive(Debug, PartialEq, Eq)]
enum Became {
    Removed,
    Cleared,
    File { executable: bool, len: u64 },
    Link(Vec<u8>),
}

struct Taken(Vec<Told>);

impl Visitor<Error> for Taken {
    fn wants(&mut self, path: &bstr::BStr, _: bool) -> Result<bool, Error> {
        assert!(!path.is_empty());
        Ok(true)
    }

    fn visit(&mut self, change: Change) -> Result<(), Error> {
        let path = change.path().to_vec();
        let what = match change {
            Change::Removed(_) => Became::Removed,
            Change::Cleared(_) => Became::Cleared,
            Change::File {
                executable, len, ..
            } => Became::File { executable, len },
            Change::Link { target, .. } => Became::Link(target.into()),
        };
        self.0.push(Told { path, what });
        Ok(())
    }
}

/// Files that are as they were listed, and have no content.
struct Empty<'a>(&'a Held);

impl Fetch for Empty<'_> {
    fn fetch(&mut self, path: &bstr::BStr, len: u64) -> std::io::Result<Fetched> {
        let seen = &self.0.all[&path.to_vec()];
        assert_eq!((seen.mode & KINDS, seen.size), (REGULAR, len));
        Ok(Fetched {
            content: File::open("/dev/null")?,
            len,
            executable: seen.mode & 0o100 != 0,
        })
    }
}

fn changed(before: &Held, now: &Held) -> (Vec<Told>, Result<Summary, Error>) {
    let mut taken = Taken(Vec::new());
    let listings = (&before.listing, &now.listing);
    let told = changes_elsewhere(listings, &mut Empty(now), &LIMITS, &mut taken);
    (taken.0, told)
}

/// What holds of changes also where the walk was ended by a limit.
fn hold(changes: &[Told]) {
    let parts = |told: &Told| -> Vec<Vec<u8>> {
        let parts = told.path.split(|byte| *byte == b'/');
        parts.map(<[u8]>::to_vec).collect()
    };
    for told in changes {
        assert!(told.path.len() <= LIMITS.path_bytes && !told.path.contains(&0));
        let parts = parts(told);
        assert!(parts.len() <= LIMITS.depth + 1);
        for part in parts {
            assert!(!matches!(&part[..], b"" | b"." | b".."), "{told:?}");
            assert!(!is_git_directory(&part), "{told:?}");
        }
    }
    let in_order = changes.windows(2).all(|it| parts(&it[0]) < parts(&it[1]));
    assert!(in_order, "{changes:?}");
    assert!(changes.len() as u64 <= LIMITS.entries);
}

/// The changes, applied to what was there, make what is there now; what was refused is as it may be.
fn is_all(before: &Held, now: &Held, changes: &[Told], summary: &Summary) {
    let refused = summary.refused.iter();
    let refused: Vec<Vec<u8>> = refused.map(|it| it.path.to_vec()).collect();
    let (mut files, is) = (before.files(&refused), now.files(&refused));
    for told in changes {
        files.retain(|path, _| !is_at_or_below(path, &told.path));
        let Some(seen) = now.all.get(&told.path) else {
            assert_eq!(told.what, Became::Removed);
            continue;
        };
        match (&told.what, seen.mode & KINDS) {
            (Became::File { executable, len }, REGULAR) => {
                assert_eq!((*executable, *len), (seen.mode & 0o100 != 0, seen.size));
                files.insert(told.path.clone(), seen);
            }
            (Became::Link(target), SYMLINK) => {
                assert_eq!(seen.target.as_ref().map(|it| &it[..]), Some(&target[..]));
                files.insert(told.path.clone(), seen);
            }
            (Became::Cleared, DIRECTORY) => {}
            other => panic!("{told:?} of {other:?}"),
        }
    }
    let paths = |of: &BTreeMap<Vec<u8>, &Seen>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(&files), paths(&is));
    for (path, seen) in is {
        let same = |one: &Seen, other: &Seen| {
            let identity = |it: &Seen| (it.inode, it.mode, it.size, it.modified, it.changed);
            identity(one) == identity(other)
        };
        assert!(same(files[&path], seen), "{path:?}");
    }
}
