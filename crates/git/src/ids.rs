//! Names of objects: one type for each kind that callers hold.

use std::fmt;
use std::str::FromStr;

/// The name of any object: a SHA-1 in hexadecimal when displayed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub(crate) gix::ObjectId);

/// The name of a commit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub(crate) gix::ObjectId);

/// The name of a tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeId(pub(crate) gix::ObjectId);

/// The text is not 40 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an object name; give all 40 hexadecimal digits")]
pub struct ParseIdError(String);

macro_rules! id {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                if text.len() != 40 {
                    return Err(ParseIdError(text.to_owned()));
                }
                gix::ObjectId::from_hex(text.as_bytes())
                    .map(Self)
                    .map_err(|_| ParseIdError(text.to_owned()))
            }
        }
    };
}

id!(ObjectId);
id!(CommitId);
id!(TreeId);

impl From<CommitId> for ObjectId {
    fn from(id: CommitId) -> ObjectId {
        ObjectId(id.0)
    }
}

impl From<TreeId> for ObjectId {
    fn from(id: TreeId) -> ObjectId {
        ObjectId(id.0)
    }
}

impl From<gix::ObjectId> for ObjectId {
    fn from(id: gix::ObjectId) -> ObjectId {
        ObjectId(id)
    }
}

impl TreeId {
    /// The tree without entries.
    pub fn empty() -> TreeId {
        TreeId(gix::ObjectId::empty_tree(gix::hash::Kind::Sha1))
    }
}
