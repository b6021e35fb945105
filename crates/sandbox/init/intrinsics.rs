//! The five functions that the compiler expects from a C library.
//!
//! Plain loops over volatile-free bytes, written so that the compiler does not turn them back into
//! calls of themselves: the copying ones are one instruction on x86_64.

#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller gives two valid regions of `count` bytes that do not overlap.
    unsafe {
        core::arch::asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _,
            inout("rsi") from => _, options(nostack, preserves_flags));
    }
    to
}

#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller gives a valid region of `count` bytes.
    unsafe {
        core::arch::asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _,
            in("al") value as u8, options(nostack, preserves_flags));
    }
    to
}

#[cfg(not(target_arch = "x86_64"))]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    let mut at = 0;
    while at < count {
        // SAFETY: the caller gives two valid regions of `count` bytes; `at` is below it. Volatile,
        // so that the loop is not recognised as a copy and compiled to a call of this function.
        unsafe { to.add(at).write_volatile(from.add(at).read()) };
        at += 1;
    }
    to
}

#[cfg(not(target_arch = "x86_64"))]
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    let mut at = 0;
    while at < count {
        // SAFETY: the caller gives a valid region of `count` bytes; `at` is below it.
        unsafe { to.add(at).write_volatile(value as u8) };
        at += 1;
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: the target does not begin inside the source, so a forward copy is right.
        return unsafe { forward(to, from, count) };
    }
    let mut at = count;
    while at > 0 {
        at -= 1;
        // SAFETY: the caller gives two valid regions of `count` bytes; `at` is below it.
        unsafe { to.add(at).write_volatile(from.add(at).read()) };
    }
    to
}

unsafe fn forward(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    let mut at = 0;
    while at < count {
        // SAFETY: the caller gives two valid regions of `count` bytes; `at` is below it.
        unsafe { to.add(at).write_volatile(from.add(at).read()) };
        at += 1;
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    let mut at = 0;
    while at < count {
        // SAFETY: the caller gives two valid regions of `count` bytes; `at` is below it.
        let (a, b) = unsafe { (left.add(at).read_volatile(), right.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
        at += 1;
    }
    0
}

/// As [`memcmp`] where only equality is asked for.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    // SAFETY: the caller gives two valid regions of `count` bytes.
    unsafe { memcmp(left, right, count) }
}
