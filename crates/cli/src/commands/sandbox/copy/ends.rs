//! From where, and where to.

use crate::{context::Context, report::Error};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

/// The side that is no sandbox's.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// A path of this machine, absolute.
    Path(PathBuf),
    /// Standard input or output.
    Archive,
}

/// The whole way.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    In {
        from: Side,
        id: String,
        to: OsString,
    },
    Out {
        id: String,
        from: OsString,
        to: Side,
    },
}

impl Route {
    pub(super) fn read(from: OsString, to: OsString, context: &Context) -> Result<Self, Error> {
        if from.is_empty() || to.is_empty() {
            return Err(usage(
                "one of the two is empty: `.` is the directory that this is",
            ));
        }
        let route = match (inside(&from), inside(&to)) {
            (None, Some((id, to))) => Self::In {
                from: side(&from, context),
                id,
                to,
            },
            (Some((id, from)), None) => Self::Out {
                id,
                from,
                to: side(&to, context),
            },
            (None, None) => {
                return Err(usage(
                    "one of the two must be in a sandbox: write it as `ID:PATH`",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(usage(
                    "one of the two must be outside of sandboxes: a path of this machine, with `./` before it where it has a `:`, or `-`",
                ));
            }
        };
        let to_output = matches!(
            route,
            Self::Out {
                to: Side::Archive,
                ..
            }
        );
        if to_output && context.output.is_json() {
            return Err(usage(
                "standard output cannot have both an archive and what `--json` says",
            ));
        }
        if to_output && super::output_is_seen() {
            return Err(usage(
                "an archive is nothing to look at: pass it on to a program or into a file",
            ));
        }
        Ok(route)
    }

    pub(super) fn id(&self) -> &str {
        match self {
            Self::In { id, .. } | Self::Out { id, .. } => id,
        }
    }
}

fn usage(words: &str) -> Error {
    Error::Usage(words.to_owned())
}

/// A sandbox and a path in it; none where it is a path of this machine. Ids and names hold neither a
/// slash nor a colon.
fn inside(text: &OsStr) -> Option<(String, OsString)> {
    let bytes = text.as_bytes();
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let (id, path) = bytes.split_at(colon);
    let named = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    if id.is_empty() || !id.iter().all(named) {
        return None;
    }
    let path = match path.get(1..) {
        None | Some([]) => b".",
        Some(path) => path,
    };
    let id = std::str::from_utf8(id).ok()?.to_owned();
    Some((id, OsStr::from_bytes(path).to_owned()))
}

fn side(text: &OsStr, context: &Context) -> Side {
    match text.as_bytes() {
        b"-" => Side::Archive,
        _ => Side::Path(context.directory.join(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_sandbox_is_told_from_what_is_on_this_machine() {
        for (text, wanted) in [
            ("try:a/b", Some(("try", "a/b"))),
            ("x-1a2b:/tmp", Some(("x-1a2b", "/tmp"))),
            ("try:", Some(("try", "."))),
            ("my.name_1:a:b", Some(("my.name_1", "a:b"))),
            ("a/b:c", None),
            ("./a:b", None),
            ("/a:b", None),
            (":a", None),
            ("plain", None),
            ("-", None),
            ("a b:c", None),
        ] {
            let found = inside(OsStr::new(text));
            let wanted = wanted.map(|(id, path)| (id.to_owned(), path.into()));
            assert_eq!(found, wanted, "{text}");
        }
    }
}
