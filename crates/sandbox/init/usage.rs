//! What the processes inside take of the machine's memory, added up for the watcher.
//!
//! Two looks. The first is cheap and never too low for what it sees: of each process its own pages,
//! its shared pages in memory, and what of it was swapped out. Pages that several processes share
//! count once for each, so that what is above the bound is looked at again, precisely: each process's
//! *proportional* share. One that lets nobody look into it (it can make itself so) keeps its first
//! figure.
//!
//! Beside the processes counts what lies in memory without belonging to one: directories in memory,
//! files without a name (`memfd`) that a descriptor holds, segments of System V. Such a file that is
//! also mapped counts twice, in its object and in the share of whoever maps it: too early an end is
//! the better mistake. Not counted are files without a name whose only descriptors are under way in a
//! socket or held by a process that lets nobody look into it, the kernel's own memory (pipes,
//! sockets, page tables), and pages of programs and of files on a disk, which the kernel takes back.

use crate::plan::Watch;
use crate::status::{find, sum};
use crate::sys::{self, O_RDONLY, Result, Text, nr};
use crate::text;
use crate::tree;

/// What is in use: bytes, and processes with their threads.
pub struct Usage {
    pub bytes: u64,
    pub processes: u64,
}

/// Directories that are in memory, if the owner says so, and the bit with which it does.
const PLACES: [(u32, &[u8]); 3] = [
    (crate::wire::PLACE_SHM, b"/dev/shm\0"),
    (crate::wire::PLACE_TMP, b"/tmp\0"),
    (crate::wire::PLACE_HOME, b"/home/agent\0"),
];

/// Files without a name that are told apart; more count once for each descriptor.
const MOST_FILES: usize = 1024;
/// Descriptors that are looked at. More of them, in all processes together, keep the watcher from
/// looking and take as much of the kernel's own memory: that is above any bound.
const MOST_DESCRIPTORS: u64 = 1 << 18;
const KIB: u64 = 1024;
/// How often shares are added up before they are believed to be above the bound.
const PASSES: usize = 5;

/// Adds up what is in use, as exactly as the bound asks for.
pub fn look(watch: &Watch) -> Usage {
    let mut files = Files::new();
    let mut bytes = places(watch.places).saturating_add(segments());
    let mut processes = 0u64;
    let _listed = tree::each_process(|pid| {
        let status = Status::of(pid).unwrap_or_default();
        processes += status.threads.max(1);
        bytes = bytes.saturating_add(status.bytes);
        if watch.bytes != u64::MAX {
            files.add(pid);
        }
    });
    if files.descriptors > MOST_DESCRIPTORS {
        bytes = u64::MAX;
        return Usage { bytes, processes };
    }
    bytes = bytes.saturating_add(files.bytes);
    // Whoever forks between the look at it and the one at its child shares with nobody in the first and
    // with the child in the second, and counts for too much: a sum above the bound is believed only
    // when it stays so.
    for _ in 0..PASSES {
        if bytes > watch.bytes {
            bytes = exactly(watch).saturating_add(files.bytes);
        }
    }
    Usage { bytes, processes }
}

/// What processes, directories and segments hold, each process with its proportional share.
fn exactly(watch: &Watch) -> u64 {
    let mut bytes = places(watch.places).saturating_add(segments());
    let _listed = tree::each_process(|pid| {
        let share = share(pid).or_else(|| Status::of(pid).map(|status| status.bytes));
        bytes = bytes.saturating_add(share.unwrap_or(0));
    });
    bytes
}

#[derive(Default)]
struct Status {
    bytes: u64,
    threads: u64,
}

impl Status {
    fn of(pid: i32) -> Option<Self> {
        let mut buffer = [0u8; 4096];
        let text = tree::read_of(pid, b"status", &mut buffer).ok()?;
        let kib = sum(text, &[b"RssAnon:", b"RssShmem:", b"VmSwap:"]);
        Some(Self {
            bytes: kib.saturating_mul(KIB),
            threads: sum(text, &[b"Threads:"]),
        })
    }
}

/// A process's proportional share of what it has in memory and in swap, files on a disk left out.
/// `None` where it may not be asked for, or the kernel does not know it.
fn share(pid: i32) -> Option<u64> {
    let mut buffer = [0u8; 2048];
    let text = tree::read_of(pid, b"smaps_rollup", &mut buffer).ok()?;
    // A process without memory of its own (it is just ending) gives an empty text.
    let known = text.is_empty() || find(text, b"Pss_Anon:").is_some();
    let kib = sum(text, &[b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:"]);
    known.then(|| kib.saturating_mul(KIB))
}

/// What the directories in memory hold, in bytes.
fn places(wanted: u32) -> u64 {
    let chosen = PLACES.iter().filter(|(bit, _)| wanted & bit != 0);
    chosen.fold(0, |sum, (_, path)| {
        sum.saturating_add(held(Text::new(path)).unwrap_or(0))
    })
}

fn held(path: Text<'_>) -> Result<u64> {
    // `struct statfs`: kind, size of a block, blocks, free blocks, …; 120 bytes.
    let mut status = [0u64; 16];
    // SAFETY: the path ends with a zero byte, and the buffer is larger than `struct statfs`.
    unsafe { sys::call(nr::STATFS, [path.pointer(), status.as_mut_ptr() as usize]) }?;
    let [_, size, blocks, free, ..] = status;
    Ok(blocks.saturating_sub(free).saturating_mul(size))
}

/// What the segments of System V hold, in bytes, attached or not.
fn segments() -> u64 {
    /// The column `rss`, and in the next one what is swapped out.
    const COLUMN: usize = 14;
    let Ok(fd) = sys::open(text!("/proc/sysvipc/shm"), O_RDONLY, 0) else {
        return 0;
    };
    let (mut total, mut column, mut value) = (0u64, 0usize, None::<u64>);
    let mut header = true;
    let mut buffer = [0u8; 4096];
    while let Ok(length @ 1..) = sys::read(fd, &mut buffer) {
        for byte in buffer.iter().take(length) {
            if byte.is_ascii_digit() && !header {
                let digit = u64::from(byte - b'0');
                value = Some(value.unwrap_or(0).wrapping_mul(10).wrapping_add(digit));
                continue;
            }
            if let Some(value) = value.take() {
                if column == COLUMN || column == COLUMN + 1 {
                    total = total.saturating_add(value);
                }
                column += 1;
            }
            if *byte == b'\n' {
                (header, column) = (false, 0);
            }
        }
    }
    sys::close(fd);
    total
}

/// Files without a name, each counted once.
struct Files {
    /// The device of all of them.
    device: Option<(u32, u32)>,
    seen: [u64; MOST_FILES],
    count: usize,
    bytes: u64,
    /// How many descriptors were looked at.
    descriptors: u64,
}

impl Files {
    fn new() -> Self {
        Self {
            device: own_device(),
            seen: [0; MOST_FILES],
            count: 0,
            bytes: 0,
            descriptors: 0,
        }
    }

    /// Adds those that a process holds open.
    fn add(&mut self, pid: i32) {
        let Some(device) = self.device else { return };
        let mut path = [0u8; 48];
        let length = tree::path_of(pid, b"fd/", &mut path);
        let directory = path;
        let _listed = tree::each_number(Text::new(&directory), |fd| {
            self.descriptors += 1;
            if self.descriptors > MOST_DESCRIPTORS {
                return;
            }
            let mut digits = [0; 10];
            let mut full = path;
            let name = crate::start::decimal(fd as u32, &mut digits);
            for (to, from) in full.iter_mut().skip(length).zip(name) {
                *to = *from;
            }
            if let Ok(file) = sys::file_status(Text::new(&full))
                && file.device == device
                && self.is_new(file.number)
            {
                self.bytes = self.bytes.saturating_add(file.bytes);
            }
        });
    }

    fn is_new(&mut self, number: u64) -> bool {
        let seen = self.seen.get(..self.count).unwrap_or(&[]);
        if seen.contains(&number) {
            return false;
        }
        if let Some(place) = self.seen.get_mut(self.count) {
            *place = number;
            self.count += 1;
        }
        true
    }
}

/// The device on which this kernel keeps files without a name.
fn own_device() -> Option<(u32, u32)> {
    const MFD_CLOEXEC: usize = 1;
    // SAFETY: the name ends with a zero byte.
    let fd = unsafe { sys::call(nr::MEMFD_CREATE, [text!("look").pointer(), MFD_CLOEXEC]) };
    let fd = fd.ok()? as i32;
    let status = sys::descriptor_status(fd);
    sys::close(fd);
    status.ok().map(|status| status.device)
}
