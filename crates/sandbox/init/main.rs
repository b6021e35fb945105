//! The inside's first process: a static program without any library.
//!
//! Started by the owner as a *helper*, it joins the sandbox's cgroups, makes one clone in namespaces of
//! its own whose parent is the owner, and exits. The clone is *process 1*: it carries out the
//! owner's plan (mounts, network, seal), then starts what it is told to start, each under a
//! *minder* of its own. It ends when the owner's end of the socket closes, and the kernel ends
//! everything else with it.
#![no_std]
#![no_main]

mod carry;
mod files;
mod intrinsics;
mod layers;
mod link;
mod loopback;
mod masks;
mod minder;
mod payload;
mod plan;
mod read;
mod refusals;
mod root;
mod seal;
mod serve;
mod setup;
mod start;
mod status;
mod steps;
mod switch;
mod sys;
#[allow(dead_code)]
mod tar;
mod terminal;
mod tree;
mod usage;
#[allow(dead_code)]
mod wire;

/// Nothing here is expected to panic; if it does, the sandbox ends.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::exit(101)
}

/// The precompiled `core` names this function in its tables; with `panic=abort` nothing calls it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {entry}",
    "ud2",
    entry = sym entry,
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, #0",
    "mov x30, #0",
    "bl {entry}",
    "brk #1",
    entry = sym entry,
);

extern "C" fn entry() -> ! {
    start::run()
}
