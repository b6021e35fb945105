//! The root of an image: what is in it appears in the fresh root, one entry at a time, so that what is
//! the sandbox's own can lie beside it.

use crate::plan::Paths;
use crate::steps;
use crate::sys::{self, EINVAL, ENOENT, O_RDONLY, Result, Text, nr};
use crate::tree;

/// Entries of one directory, at most: each takes a mount.
const MOST: usize = 4096;
/// A name, or a path made of one, with its zero byte.
const LONGEST: usize = 4096;
/// Names that are left out, at most.
const MOST_NAMES: usize = 32;

/// Makes every entry of one directory appear in another. A directory that is not there has none.
pub fn spread(
    source: Text<'_>,
    target: Text<'_>,
    attributes: u32,
    mut spared: Paths<'_>,
) -> Result<()> {
    let mut names = [Text::new(b"\0"); MOST_NAMES];
    let count = spared.left();
    for place in names.get_mut(..count).ok_or(EINVAL)? {
        *place = spared.next().ok_or(EINVAL)?;
    }
    let left_out = names.get(..count).ok_or(EINVAL)?;
    let flags = O_RDONLY | sys::O_DIRECTORY | sys::O_NOFOLLOW;
    let directory = match sys::open(source, flags, 0) {
        Err(ENOENT) => return Ok(()),
        other => other?,
    };
    let mut seen = 0;
    let outcome = tree::each_name(directory, |name| {
        let end = name.iter().position(|byte| *byte == 0).ok_or(EINVAL)?;
        let (name, text) = (name.get(..end), name.get(..=end));
        let (Some(name), Some(text)) = (name, text) else {
            return Err(EINVAL);
        };
        if name == b"." || name == b".." || left_out.iter().any(|known| known.bytes() == name) {
            return Ok(());
        }
        seen += 1;
        if seen > MOST {
            return Err(EINVAL);
        }
        one(directory, Text::new(text), target, attributes)
    });
    sys::close(directory);
    outcome
}

fn one(directory: i32, name: Text<'_>, target: Text<'_>, attributes: u32) -> Result<()> {
    let mut path = [0u8; LONGEST];
    let mut at = steps::append_bytes(0, &mut path, target.bytes());
    at = steps::append_bytes(at, &mut path, b"/");
    at = steps::append_bytes(at, &mut path, name.bytes());
    let path = Text::new(path.get(..=at).ok_or(EINVAL)?);
    let mut link = [0u8; LONGEST];
    let arguments = [
        directory as usize,
        name.pointer(),
        link.as_mut_ptr() as usize,
        // The last byte stays zero.
        LONGEST - 1,
    ];
    // SAFETY: the name ends with a zero byte, and the kernel writes no more than is said.
    match unsafe { sys::call(nr::READLINKAT, arguments) } {
        Ok(length) => {
            let link = Text::new(link.get(..=length).ok_or(EINVAL)?);
            sys::make_symlink(link, path)
        }
        // It is no link.
        Err(EINVAL) => {
            let tree = steps::open_tree_in(directory, name, attributes)?;
            steps::place_in_root(tree, path)
        }
        Err(error) => Err(error),
    }
}
