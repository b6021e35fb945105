//! System calls, as the kernel documents them, without a C library.

use core::ffi::c_void;

use crate::read::Malformed;
pub use crate::read::Text;

/// An `errno`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub u32);

pub const EPERM: Errno = Errno(1);
pub const EACCES: Errno = Errno(13);
pub const ENOENT: Errno = Errno(2);
pub const EINTR: Errno = Errno(4);
pub const EAGAIN: Errno = Errno(11);
pub const EEXIST: Errno = Errno(17);
pub const EINVAL: Errno = Errno(22);
pub const ENOSYS: Errno = Errno(38);
pub const EINPROGRESS: Errno = Errno(115);

pub type Result<T> = core::result::Result<T, Errno>;

impl From<Malformed> for Errno {
    fn from(_: Malformed) -> Self {
        EINVAL
    }
}

#[cfg(target_arch = "x86_64")]
#[path = "sys/x86_64.rs"]
mod arch;
#[cfg(target_arch = "aarch64")]
#[path = "sys/aarch64.rs"]
mod arch;

#[path = "sys/unified.rs"]
mod arch_unified;

pub use arch::nr;

/// A system call with up to six arguments. Unsafe in the ways of the call that is made.
pub unsafe fn call<const N: usize>(number: usize, arguments: [usize; N]) -> Result<usize> {
    let mut six = [0; 6];
    for (to, from) in six.iter_mut().zip(arguments) {
        *to = from;
    }
    // SAFETY: the caller vouches for the call.
    let value = unsafe { arch::raw(number, six) };
    if (-4095..0).contains(&value) {
        Err(Errno(-value as u32))
    } else {
        Ok(value as usize)
    }
}

/// As [`call`], again when a signal interrupts it.
unsafe fn retry<const N: usize>(number: usize, arguments: [usize; N]) -> Result<usize> {
    loop {
        // SAFETY: the caller vouches for the call.
        match unsafe { call(number, arguments) } {
            Err(EINTR) => {}
            other => return other,
        }
    }
}

#[macro_export]
macro_rules! text {
    ($literal:expr) => {
        $crate::sys::Text::new(concat!($literal, "\0").as_bytes())
    };
}

pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: ends this process; nothing of its memory is used afterwards.
        let _never = unsafe { call(nr::EXIT_GROUP, [code as usize]) };
    }
}

pub const AT_FDCWD: usize = -100isize as usize;
pub const AT_EMPTY_PATH: usize = 0x1000;
pub const AT_SYMLINK_NOFOLLOW: usize = 0x100;
pub const O_RDONLY: usize = 0;
pub const O_WRONLY: usize = 1;
pub const O_CREAT: usize = 0o100;
pub const O_EXCL: usize = 0o200;
pub const O_CLOEXEC: usize = 0o2000000;
pub const O_PATH: usize = 0o10000000;
pub use arch::{O_DIRECTORY, O_NOFOLLOW};

pub fn open(path: Text<'_>, flags: usize, mode: usize) -> Result<i32> {
    // SAFETY: the path ends with a zero byte.
    unsafe {
        retry(
            nr::OPENAT,
            [AT_FDCWD, path.pointer(), flags | O_CLOEXEC, mode],
        )
    }
    .map(|fd| fd as i32)
}

pub fn close(fd: i32) {
    // SAFETY: closes a descriptor of this process; a wrong number is refused by the kernel.
    let _closed = unsafe { call(nr::CLOSE, [fd as usize]) };
}

/// Closes the descriptors from `first` to `last`.
pub fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: no descriptor in memory outlives this by the callers' order.
    unsafe { call(nr::CLOSE_RANGE, [first as usize, last as usize, 0]) }.map(drop)
}

pub fn read(fd: i32, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most the buffer's length.
    unsafe {
        retry(
            nr::READ,
            [fd as usize, buffer.as_mut_ptr() as usize, buffer.len()],
        )
    }
}

pub fn write_all(fd: i32, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        // SAFETY: the kernel reads at most the slice's length.
        let count = unsafe {
            retry(
                nr::WRITE,
                [fd as usize, bytes.as_ptr() as usize, bytes.len()],
            )
        }?;
        bytes = bytes.get(count..).unwrap_or(&[]);
    }
    Ok(())
}

/// Writes `content` to the existing file `path`.
pub fn write_file(path: Text<'_>, content: &[u8]) -> Result<()> {
    let fd = open(path, O_WRONLY, 0)?;
    let written = write_all(fd, content);
    close(fd);
    written
}

/// A copy of `fd` whose number is at least `least` and that is closed by an exec.
pub fn duplicate_above(fd: i32, least: usize) -> Result<i32> {
    const F_DUPFD_CLOEXEC: usize = 1030;
    // SAFETY: makes a new descriptor and touches no memory.
    unsafe { call(nr::FCNTL, [fd as usize, F_DUPFD_CLOEXEC, least]) }.map(|fd| fd as i32)
}

/// Puts a copy of `from` at the number `to`, which an exec keeps.
pub fn duplicate_to(from: i32, to: i32) -> Result<()> {
    // SAFETY: touches no memory; `to` is one of the three standard numbers.
    unsafe { call(nr::DUP3, [from as usize, to as usize, 0]) }.map(drop)
}

pub fn make_directory(path: Text<'_>, mode: usize) -> Result<()> {
    // SAFETY: the path ends with a zero byte.
    match unsafe { call(nr::MKDIRAT, [AT_FDCWD, path.pointer(), mode]) } {
        Ok(_) | Err(EEXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

pub fn make_symlink(target: Text<'_>, path: Text<'_>) -> Result<()> {
    // SAFETY: both texts end with a zero byte.
    unsafe { call(nr::SYMLINKAT, [target.pointer(), AT_FDCWD, path.pointer()]) }.map(drop)
}

/// Removes a file, or with `directory` an empty directory.
pub fn remove(path: Text<'_>, directory: bool) -> Result<()> {
    const AT_REMOVEDIR: usize = 0x200;
    let flags = if directory { AT_REMOVEDIR } else { 0 };
    // SAFETY: the path ends with a zero byte.
    unsafe { call(nr::UNLINKAT, [AT_FDCWD, path.pointer(), flags]) }.map(drop)
}

pub fn change_directory(path: Text<'_>) -> Result<()> {
    // SAFETY: the path ends with a zero byte.
    unsafe { call(nr::CHDIR, [path.pointer()]) }.map(drop)
}

/// What the kernel says of a file.
pub struct FileStatus {
    pub device: (u32, u32),
    pub number: u64,
    /// What it takes, which is not its length.
    pub bytes: u64,
    pub mode: u16,
}

/// Of the file at `path`.
pub fn file_status(path: Text<'_>) -> Result<FileStatus> {
    status(AT_FDCWD, path, 0)
}

/// Of the file that `fd` stands for.
pub fn descriptor_status(fd: i32) -> Result<FileStatus> {
    status(fd as usize, text!(""), AT_EMPTY_PATH)
}

fn status(at: usize, path: Text<'_>, flags: usize) -> Result<FileStatus> {
    /// Kind, inode and blocks.
    const WANTED: usize = 1 | 0x100 | 0x400;
    /// `struct statx` has 256 bytes: `stx_mode` is at 28, `stx_ino` at 32, `stx_blocks` (of 512
    /// bytes) at 48, the device at 136.
    #[repr(C)]
    struct Statx {
        _before: [u8; 28],
        mode: u16,
        _spare: u16,
        number: u64,
        _size: u64,
        blocks: u64,
        _between: [u8; 80],
        device: (u32, u32),
        _after: [u8; 112],
    }
    const { assert!(size_of::<Statx>() == 256) };
    // SAFETY: a structure of numbers may be all zero.
    let mut found: Statx = unsafe { core::mem::zeroed() };
    let place = &raw mut found as usize;
    // SAFETY: the buffer has the layout of `struct statx`, and the path ends with a zero byte.
    unsafe { call(nr::STATX, [at, path.pointer(), flags, WANTED, place]) }?;
    Ok(FileStatus {
        device: found.device,
        number: found.number,
        bytes: found.blocks.saturating_mul(512),
        mode: found.mode,
    })
}

/// Whether what `fd` stands for is a directory.
pub fn is_directory(fd: i32) -> Result<bool> {
    descriptor_status(fd).map(|status| status.mode & 0o170000 == 0o040000)
}

/// Nanoseconds since some moment; never set back.
pub fn now() -> u64 {
    const CLOCK_MONOTONIC: usize = 1;
    let mut time = [0u64; 2];
    // SAFETY: the kernel writes two longs.
    let _cannot_fail = unsafe {
        call(
            nr::CLOCK_GETTIME,
            [CLOCK_MONOTONIC, time.as_mut_ptr() as usize],
        )
    };
    let [seconds, nanoseconds] = time;
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// Maps `bytes` of the file `fd`, private and writable; without a file, fresh memory. `shared`
/// memory is the same for this process and its children.
pub fn map(fd: Option<i32>, bytes: usize, shared: bool) -> Result<*mut u8> {
    const READ_WRITE: usize = 3;
    let sharing = if shared { 1 } else { 2 };
    let anonymous = if fd.is_none() { 0x20 } else { 0 };
    let descriptor = fd.map_or(usize::MAX, |fd| fd as usize);
    // SAFETY: a new mapping at an address of the kernel's choice.
    unsafe {
        call(
            nr::MMAP,
            [0, bytes, READ_WRITE, sharing | anonymous, descriptor, 0],
        )
    }
    .map(|address| address as *mut u8)
}

/// # Safety
/// Nothing may use the mapping afterwards.
pub unsafe fn unmap(address: *mut u8, bytes: usize) {
    // SAFETY: the caller vouches for it.
    let _gone = unsafe { call(nr::MUNMAP, [address as usize, bytes]) };
}

pub fn process_id() -> i32 {
    // SAFETY: touches no memory.
    unsafe { call(nr::GETPID, []) }.map_or(0, |pid| pid as i32)
}

/// A copy of this process with memory of its own. With `until_exec` the caller stands still until
/// the copy has executed a program or ended.
pub fn fork(until_exec: bool) -> Result<i32> {
    const SIGCHLD: usize = 17;
    const CLONE_VFORK: usize = 0x4000;
    let flags = SIGCHLD | if until_exec { CLONE_VFORK } else { 0 };
    // SAFETY: without CLONE_VM and with no stack given, the copy has its own memory, the stack
    // included.
    unsafe { call(nr::CLONE, [flags, 0, 0, 0, 0]) }.map(|pid| pid as i32)
}

/// Waits for a child of this process. Returns `(0, 0)` if none has ended and `hang` is false.
pub fn wait_any(hang: bool) -> Result<(i32, u32)> {
    const WNOHANG: usize = 1;
    let mut status = 0u32;
    let options = if hang { 0 } else { WNOHANG };
    let arguments = [usize::MAX, &raw mut status as usize, options, 0];
    // SAFETY: the kernel writes one word to `status`.
    let pid = unsafe { retry(nr::WAIT4, arguments) }?;
    Ok((pid as i32, status))
}

pub fn kill(pid: i32, signal: u32) -> Result<()> {
    // SAFETY: touches no memory.
    unsafe { call(nr::KILL, [pid as isize as usize, signal as usize]) }.map(drop)
}

pub fn prctl(option: usize, value: usize, further: usize) -> Result<usize> {
    // SAFETY: the options used here take numbers, not addresses.
    unsafe { call(nr::PRCTL, [option, value, further, 0, 0]) }
}

/// Blocks exactly the signals whose bits are set (bit 0 is signal 1).
pub fn block_signals(mask: u64) -> Result<()> {
    const SIG_SETMASK: usize = 2;
    // SAFETY: the kernel reads eight bytes from `mask`.
    unsafe {
        call(
            nr::RT_SIGPROCMASK,
            [SIG_SETMASK, &raw const mask as usize, 0, 8],
        )
    }
    .map(drop)
}

/// Gives every signal its default effect again: what the owner ignores would be ignored by commands,
/// and an ignored SIGCHLD would hide how they end.
pub fn default_signals() {
    // `struct sigaction` of the kernel has at most 32 bytes; all zero is the default.
    let action = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: the kernel reads the structure and writes nothing. Two signals refuse; they have
        // their default effect always.
        let _fixed = unsafe { call(nr::RT_SIGACTION, [signal, action.as_ptr() as usize, 0, 8]) };
    }
}

/// A descriptor that becomes readable when one of the signals arrives.
pub fn signal_descriptor(mask: u64) -> Result<i32> {
    const SFD_CLOEXEC_NONBLOCK: usize = 0o2000000 | 0o4000;
    // SAFETY: the kernel reads eight bytes from `mask`.
    unsafe {
        call(
            nr::SIGNALFD4,
            [
                usize::MAX,
                &raw const mask as usize,
                8,
                SFD_CLOEXEC_NONBLOCK,
            ],
        )
    }
    .map(|fd| fd as i32)
}

#[repr(C)]
pub struct Poll {
    pub fd: i32,
    pub events: i16,
    pub happened: i16,
}

/// Waits until one of the descriptors is ready, at most so long.
pub fn poll(descriptors: &mut [Poll], nanoseconds: Option<u64>) -> Result<usize> {
    let time = nanoseconds.map(|time| [time / 1_000_000_000, time % 1_000_000_000]);
    let time = time.as_ref().map_or(0, |time| time.as_ptr() as usize);
    // SAFETY: the kernel reads and writes as many entries as the slice has, and reads one timespec.
    unsafe {
        call(
            nr::PPOLL,
            [
                descriptors.as_mut_ptr() as usize,
                descriptors.len(),
                time,
                0,
                8,
            ],
        )
    }
}

/// Gives a pointer to the kernel where no type is wanted.
pub fn address<T>(value: *const T) -> usize {
    value.cast::<c_void>() as usize
}
