//! What is taken away before anything of the agent's runs. It is taken from process 1 itself, so
//! that nothing that it starts can have it.

use crate::refusals::Refusals;
use crate::sys::{self, Result, Text, nr};

const PR_SET_DUMPABLE: usize = 4;
const PR_CAPBSET_DROP: usize = 24;
const PR_SET_SECUREBITS: usize = 28;
const PR_SET_NO_NEW_PRIVS: usize = 38;
const PR_CAP_AMBIENT: usize = 47;
const PR_CAP_AMBIENT_CLEAR_ALL: usize = 4;
/// No meaning of user 0, no raising by a change of user, no ambient raising; all locked.
const SECUREBITS: usize = 0x2f | 0xc0;

/// A set of path rules that is being built.
pub struct Rules(i32);

impl Rules {
    /// `bytes` is how much of the attribute structure this kernel knows.
    pub fn new(handled: u64, scoped: u64, bytes: u32) -> Result<Self> {
        // handled_access_fs, handled_access_net, scoped
        let attributes = [handled, 0, scoped];
        let arguments = [attributes.as_ptr() as usize, bytes as usize, 0];
        // SAFETY: the structure has at least the bytes that are said, by the owner's table.
        unsafe { sys::call(nr::LANDLOCK_CREATE_RULESET, arguments) }.map(|fd| Self(fd as i32))
    }

    /// Allows `rights` below `path`; one that is missing is no failure.
    pub fn allow(&self, path: Text<'_>, rights: u64) -> Result<()> {
        const LANDLOCK_RULE_PATH_BENEATH: usize = 1;
        let parent = match sys::open(path, sys::O_PATH, 0) {
            Ok(parent) => parent,
            Err(sys::ENOENT) => return Ok(()),
            Err(error) => return Err(error),
        };
        // `struct landlock_path_beneath_attr` is packed: eight bytes of rights, four of descriptor.
        let mut rule = [0u8; 12];
        let bytes = rights.to_ne_bytes().into_iter().chain(parent.to_ne_bytes());
        for (to, from) in rule.iter_mut().zip(bytes) {
            *to = from;
        }
        let arguments = [
            self.0 as usize,
            LANDLOCK_RULE_PATH_BENEATH,
            rule.as_ptr() as usize,
            0,
        ];
        // SAFETY: the rule has the packed layout that the kernel reads.
        let added = unsafe { sys::call(nr::LANDLOCK_ADD_RULE, arguments) };
        sys::close(parent);
        added.map(drop)
    }

    /// From here on, for this process and all that it starts.
    pub fn enforce(self) -> Result<()> {
        no_new_privileges()?;
        // SAFETY: touches no memory.
        let enforced = unsafe { sys::call(nr::LANDLOCK_RESTRICT_SELF, [self.0 as usize, 0]) };
        sys::close(self.0);
        enforced.map(drop)
    }
}

fn no_new_privileges() -> Result<()> {
    sys::prctl(PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// Gives up every capability, for good.
pub fn drop_capabilities() -> Result<()> {
    sys::prctl(PR_SET_SECUREBITS, SECUREBITS, 0)?;
    sys::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    for capability in 0..64 {
        // The first number that the kernel does not know ends the list.
        if sys::prctl(PR_CAPBSET_DROP, capability, 0).is_err() {
            break;
        }
    }
    give_up_what_is_held()
}

/// Empties the sets of capabilities of this process, which needs none itself for that.
pub fn give_up_what_is_held() -> Result<()> {
    // `_LINUX_CAPABILITY_VERSION_3`, this process; effective, permitted, inheritable, twice.
    let header = [0x2008_0522u32, 0];
    let none = [0u32; 6];
    // SAFETY: the kernel reads a header of two words and data of six.
    unsafe {
        sys::call(
            nr::CAPSET,
            [header.as_ptr() as usize, none.as_ptr() as usize],
        )
    }
    .map(drop)
}

/// Installs a filter of system calls. Of the two, which refuse the same, it is the one that asks, where
/// there is one and the kernel has a listener to give: it has one for all filters of a process.
pub fn filter(asking: &[u8], plain: &[u8]) -> Result<Option<Refusals>> {
    const SECCOMP_FILTER_FLAG_NEW_LISTENER: usize = 8;
    no_new_privileges()?;
    if !asking.is_empty() {
        if let Ok(listener) = install(asking, SECCOMP_FILTER_FLAG_NEW_LISTENER) {
            return Ok(Some(Refusals::new(listener as i32)));
        }
    }
    install(plain, 0).map(|_| None)
}

/// Installs a filter, given as the kernel's instructions of eight bytes each. Returns the listener, which
/// is closed where a program is executed, if the flags ask for one.
fn install(instructions: &[u8], flags: usize) -> Result<usize> {
    const SECCOMP_SET_MODE_FILTER: usize = 1;
    #[repr(C)]
    struct Program {
        count: u16,
        instructions: *const u8,
    }
    let program = Program {
        count: (instructions.len() / 8) as u16,
        instructions: instructions.as_ptr(),
    };
    let arguments = [SECCOMP_SET_MODE_FILTER, flags, sys::address(&raw const program)];
    // SAFETY: the program points to as many instructions as it says.
    unsafe { sys::call(nr::SECCOMP, arguments) }
}

/// Nobody inside may look into this process. A program that is executed later decides for itself.
pub fn undumpable() -> Result<()> {
    sys::prctl(PR_SET_DUMPABLE, 0, 0).map(drop)
}
