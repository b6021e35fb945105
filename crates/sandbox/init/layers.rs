//! The overlay that is a workspace: mounted where nobody sees it, then put in its place.

use crate::plan::Layers;
use crate::steps::{self, MS_NOSUID_NODEV, append_bytes, open_tree};
use crate::sys::{self, Errno, Result, Text, nr};
use crate::text;

const FSCONFIG_SET_FLAG: usize = 0;
const FSCONFIG_SET_STRING: usize = 1;
const FSCONFIG_CREATE: usize = 6;

fn configure(context: i32, command: usize, key: Option<Text<'_>>, value: usize) -> Result<()> {
    let key = key.map_or(0, Text::pointer);
    // SAFETY: key and value are texts that end with a zero byte, or none.
    unsafe { sys::call(nr::FSCONFIG, [context as usize, command, key, value, 0]) }.map(drop)
}

/// A layer by the path of a descriptor: short whatever the layer's own path is, and nothing of the
/// host's paths is to be read in the list of mounts.
fn configure_layer(context: i32, key: Text<'_>, layer: Text<'_>) -> Result<()> {
    let fd = sys::open(layer, sys::O_PATH | sys::O_DIRECTORY, 0)?;
    let mut path = [0; 32];
    append(&mut path, 0, fd);
    let configured = configure(
        context,
        FSCONFIG_SET_STRING,
        Some(key),
        Text::new(&path).pointer(),
    );
    sys::close(fd);
    configured
}

/// Writes the path of a descriptor at `at`; returns where it ends.
fn append(to: &mut [u8], at: usize, fd: i32) -> usize {
    let mut digits = [0; 10];
    let number = crate::start::decimal(fd as u32, &mut digits);
    append_bytes(append_bytes(at, to, b"/proc/self/fd/"), to, number)
}

impl Layers<'_> {
    /// Mounts the layers where nobody sees them. `scratch` is a directory on which a mount may stand
    /// for the moment.
    pub fn mount(&self, scratch: Text<'_>) -> Result<i32> {
        const FSOPEN_CLOEXEC: usize = 1;
        let arguments = [text!("overlay").pointer(), FSOPEN_CLOEXEC];
        // SAFETY: the text ends with a zero byte.
        let context = unsafe { sys::call(nr::FSOPEN, arguments) }? as i32;
        let mounted = (|| {
            for (index, lower) in self.lowers.enumerate() {
                match configure_layer(context, text!("lowerdir+"), lower) {
                    // Kernels before 6.8 take the layers in one string only.
                    Err(sys::EINVAL) if index == 0 => return self.mount_by_one_string(scratch),
                    other => other?,
                }
            }
            configure_layer(context, text!("upperdir"), self.upper)?;
            configure_layer(context, text!("workdir"), self.work)?;
            configure(context, FSCONFIG_SET_FLAG, Some(text!("userxattr")), 0)?;
            if self.volatile {
                configure(context, FSCONFIG_SET_FLAG, Some(text!("volatile")), 0)?;
            }
            // Where this is the kernel's default, a layer that was written lies below no other: the
            // old mount, in which nobody is any more, is still there while the new one is made.
            let off = text!("off").pointer();
            configure(context, FSCONFIG_SET_STRING, Some(text!("index")), off)?;
            configure(context, FSCONFIG_CREATE, None, 0)?;
            let arguments = [context as usize, FSOPEN_CLOEXEC, MS_NOSUID_NODEV as usize];
            // SAFETY: touches no memory.
            unsafe { sys::call(nr::FSMOUNT, arguments) }.map(|tree| tree as i32)
        })();
        sys::close(context);
        mounted
    }

    /// The same by `mount`, whose options end at one page: some 180 layers.
    fn mount_by_one_string(&self, scratch: Text<'_>) -> Result<i32> {
        const E2BIG: Errno = Errno(7);
        const MOST_LAYERS: usize = 180;
        let mut opened = [-1; MOST_LAYERS + 2];
        let count = self.lowers.left();
        if count > MOST_LAYERS {
            return Err(E2BIG);
        }
        let mounted = (|| {
            let mut options = [0; 4096];
            let mut at = 0;
            let mut lowers = self.lowers;
            for (index, place) in (0..count + 2).zip(&mut opened) {
                let (key, layer) = match index {
                    0 => (b"lowerdir=".as_slice(), lowers.next().ok_or(sys::EINVAL)?),
                    _ if index < count => (b":".as_slice(), lowers.next().ok_or(sys::EINVAL)?),
                    _ if index == count => (b",upperdir=".as_slice(), self.upper),
                    _ => (b",workdir=".as_slice(), self.work),
                };
                *place = sys::open(layer, sys::O_PATH | sys::O_DIRECTORY, 0)?;
                at = append_bytes(at, &mut options, key);
                at = append(&mut options, at, *place);
            }
            at = append_bytes(at, &mut options, b",userxattr,index=off");
            if self.volatile {
                append_bytes(at, &mut options, b",volatile");
            }
            let options = Text::new(&options);
            steps::mount(text!("overlay"), scratch, MS_NOSUID_NODEV, options)?;
            let tree = open_tree(scratch, MS_NOSUID_NODEV);
            steps::unmount(scratch)?;
            tree
        })();
        opened
            .into_iter()
            .filter(|fd| *fd >= 0)
            .for_each(sys::close);
        mounted
    }
}
