//! Commits: written with times that are passed in, and read.

use bstr::{BStr, BString, ByteSlice};
use gix::objs::{CommitRef, Kind};

use crate::error::Error;
use crate::ids::{CommitId, TreeId};
use crate::mirror::Mirror;
use crate::objects::HASH;

/// Who, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The name; characters that a commit cannot hold are left out.
    pub name: BString,
    /// The address, likewise.
    pub email: BString,
    /// Seconds since 1970.
    pub seconds: i64,
    /// Minutes east of UTC.
    pub offset_minutes: i32,
}

/// A commit to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewCommit<'a> {
    /// Its tree.
    pub tree: TreeId,
    /// Its parents, first the one it continues.
    pub parents: &'a [CommitId],
    /// Who made the change.
    pub author: &'a Signature,
    /// Who made the commit.
    pub committer: &'a Signature,
    /// The message; a newline is added at its end when there is none.
    pub message: &'a BStr,
}

/// What a commit says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its tree.
    pub tree: TreeId,
    /// Its parents.
    pub parents: Vec<CommitId>,
    /// Who made the change.
    pub author: Signature,
    /// Who made the commit.
    pub committer: Signature,
    /// The whole message.
    pub message: BString,
}

impl Signature {
    /// A signature in UTC.
    pub fn new(name: &str, email: &str, seconds: i64) -> Signature {
        Signature {
            name: name.into(),
            email: email.into(),
            seconds,
            offset_minutes: 0,
        }
    }

    /// As in a commit: `Name <address> 1700000000 +0100`.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let clean = |text: &BStr, empty: &str| {
            let kept: Vec<u8> = text
                .iter()
                .copied()
                .filter(|b| !matches!(b, b'<' | b'>' | b'\n' | 0))
                .collect();
            let kept = kept.trim_with(|c| {
                c.is_whitespace() || matches!(c, '.' | ',' | ':' | ';' | '"' | '\'' | '\\')
            });
            if kept.is_empty() {
                empty.as_bytes().to_vec()
            } else {
                kept.to_vec()
            }
        };
        let sign = if self.offset_minutes < 0 { '-' } else { '+' };
        let offset = self.offset_minutes.unsigned_abs().min(14 * 60);
        let mut out = clean(self.name.as_ref(), "unknown");
        out.extend_from_slice(b" <");
        out.extend_from_slice(&clean(self.email.as_ref(), "unknown"));
        out.extend_from_slice(
            format!(
                "> {} {sign}{:02}{:02}",
                self.seconds.max(0),
                offset / 60,
                offset % 60
            )
            .as_bytes(),
        );
        out
    }

    fn decode(signature: &gix::actor::SignatureRef<'_>) -> Signature {
        let time = signature.time().unwrap_or_default();
        Signature {
            name: signature.name.to_owned(),
            email: signature.email.to_owned(),
            seconds: time.seconds,
            offset_minutes: time.offset / 60,
        }
    }
}

impl Mirror {
    /// Writes a commit. The same content gives the same id. It survives a power failure once a reference was moved to
    /// it.
    ///
    /// # Errors
    /// [`Error::Missing`] when the tree is not in the mirror.
    pub fn commit(&self, new: &NewCommit<'_>) -> Result<CommitId, Error> {
        let reader = self.objects().reader();
        if new.tree != TreeId::empty() && !reader.contains(&new.tree.0) {
            return Err(Error::Missing {
                id: new.tree.into(),
            });
        }
        self.commit_unchecked(new)
    }

    /// As [`Mirror::commit`], for a tree that is still to come.
    pub(crate) fn commit_unchecked(&self, new: &NewCommit<'_>) -> Result<CommitId, Error> {
        let mut reader = self.objects().reader();
        let mut data = format!("tree {}\n", new.tree).into_bytes();
        for parent in new.parents {
            data.extend_from_slice(format!("parent {parent}\n").as_bytes());
        }
        for (role, who) in [("author", new.author), ("committer", new.committer)] {
            data.extend_from_slice(role.as_bytes());
            data.push(b' ');
            data.extend_from_slice(&who.encode());
            data.push(b'\n');
        }
        data.push(b'\n');
        data.extend(new.message.iter().copied().filter(|b| *b != 0));
        if !data.ends_with(b"\n") {
            data.push(b'\n');
        }
        if new.tree == TreeId::empty() {
            reader.write(Kind::Tree, b"")?;
        }
        let (id, _) = reader.write(Kind::Commit, &data)?;
        Ok(CommitId(id))
    }

    /// What a commit says.
    pub fn commit_info(&self, commit: CommitId) -> Result<CommitInfo, Error> {
        let mut reader = self.objects().reader();
        let malformed = || Error::Malformed {
            id: commit.into(),
            expected: "commit",
        };
        let parsed =
            CommitRef::from_bytes(reader.commit_data(commit)?, HASH).map_err(|_| malformed())?;
        Ok(CommitInfo {
            tree: TreeId(parsed.tree()),
            parents: parsed.parents().map(CommitId).collect(),
            author: Signature::decode(&parsed.author().map_err(|_| malformed())?),
            committer: Signature::decode(&parsed.committer().map_err(|_| malformed())?),
            message: parsed.message.to_owned(),
        })
    }

    /// Whether `ancestor` is `commit` or one that it reaches; looks at no more than `limit` commits.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when the limit is reached first.
    pub fn is_ancestor(
        &self,
        ancestor: CommitId,
        commit: CommitId,
        limit: usize,
    ) -> Result<bool, Error> {
        let mut reader = self.objects().reader();
        let shallow = crate::source::read_shallow(&self.directory().join("shallow"))?;
        let mut seen = std::collections::HashSet::from([commit]);
        let mut open = std::collections::BinaryHeap::from([(i64::MAX, commit)]);
        while let Some((_, id)) = open.pop() {
            if id == ancestor {
                return Ok(true);
            }
            if seen.len() > limit {
                return Err(Error::TooLarge {
                    what: "the history to search".into(),
                    limit: limit as u64,
                });
            }
            if shallow.contains(&id) {
                continue;
            }
            for parent in reader.commit(id)?.parents {
                if seen.insert(parent) {
                    let seconds = reader.commit(parent)?.seconds;
                    open.push((seconds, parent));
                }
            }
        }
        Ok(false)
    }
}
