//! What a program that this process starts would have of it.

use crate::Error;

/// Sees to it that no descriptor beyond the three standard ones goes on to a program that is started
/// from now on: those that this process was itself started with are not its to pass on to one that
/// outlives it.
///
/// # Errors
/// If the kernel is older than 5.11.
pub fn pass_nothing_on() -> Result<(), Error> {
    let (first, last) = (3u32, u32::MAX);
    // SAFETY: the flag only marks descriptors; it closes none, and no memory is touched.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            last,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if marked == 0 {
        return Ok(());
    }
    Err(Error::io("keep descriptors from a program")(
        std::io::Error::last_os_error(),
    ))
}
