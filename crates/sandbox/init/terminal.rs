//! A pseudo terminal of the sandbox's own, for a command that talks to a person: made by its minder,
//! inside, so that its name is one that is there.

use crate::sys::{self, Result, nr};
use crate::text;

const O_RDWR_NOCTTY: usize = 0o2 | 0o400;
const TIOCSCTTY: usize = 0x540e;
const TIOCSWINSZ: usize = 0x5414;
/// `_IOW('T', 0x31, int)`
const TIOCSPTLCK: usize = 0x4004_5431;
/// `_IO('T', 0x41)`: the other end without its path, which may be another one's by then.
const TIOCGPTPEER: usize = 0x5441;

/// Both ends. The owner gets the first, the command the second.
pub struct Terminal {
    pub owners: i32,
    pub commands: i32,
}

impl Terminal {
    /// `size` holds the rows in its upper half, the columns in its lower.
    pub fn open(size: u32) -> Result<Self> {
        let owners = sys::open(text!("/dev/ptmx"), O_RDWR_NOCTTY, 0)?;
        let unlock = 0i32;
        // SAFETY: the kernel reads one number.
        unsafe { sys::call(nr::IOCTL, [owners as usize, TIOCSPTLCK, sys::address(&raw const unlock)]) }?;
        // `struct winsize`: rows, columns, and two that nobody uses.
        let size = [(size >> 16) as u16, size as u16, 0, 0];
        // SAFETY: the kernel reads four short numbers.
        unsafe { sys::call(nr::IOCTL, [owners as usize, TIOCSWINSZ, size.as_ptr() as usize]) }?;
        let flags = O_RDWR_NOCTTY | sys::O_CLOEXEC;
        // SAFETY: makes a new descriptor and touches no memory.
        let commands = unsafe { sys::call(nr::IOCTL, [owners as usize, TIOCGPTPEER, flags]) }?;
        Ok(Self {
            owners,
            commands: commands as i32,
        })
    }

    pub fn close(&self) {
        sys::close(self.owners);
        sys::close(self.commands);
    }
}

/// Makes the terminal at descriptor 0 that of this session, which has none.
pub fn control() -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { sys::call(nr::IOCTL, [0, TIOCSCTTY, 0]) }.map(drop)
}
