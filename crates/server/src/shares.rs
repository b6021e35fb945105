//! What sandboxes get of the machine.

use sandbox::{Limits, Total};

/// The largest file that a command may write, in bytes.
const FILE_BYTES: u64 = 8 << 30;
/// The processes of one sandbox at a time.
const PROCESSES: u64 = 4_096;
/// The least memory that a sandbox gets where nothing is said, in bytes.
const LEAST_MEMORY: u64 = 1 << 30;

/// How many are kept ready where nothing is said, and the most of them over one commit.
const WARM: usize = 4;
const WARM_EACH: usize = 2;

/// What sandboxes get of the machine: each, and all of one process together. Processor time, and what
/// all use together, is bounded only where a control group can do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// The most that one uses.
    pub one: Limits,
    /// The most that all use together.
    pub all: Total,
    /// The most that are kept ready before anybody asks for them.
    pub warm: usize,
}

impl Shares {
    /// How many are kept ready.
    #[must_use]
    pub fn warm(&self) -> site::Warm {
        site::Warm {
            all: self.warm,
            each: self.warm.min(WARM_EACH),
        }
    }
}

impl Default for Shares {
    /// One gets three quarters of the machine's memory; all together get nine tenths of its memory and
    /// its processors, so that the machine stays usable whatever runs in them.
    fn default() -> Self {
        let memory = memory();
        Self {
            one: Limits {
                memory_bytes: memory.map(|bytes| (bytes / 4 * 3).max(LEAST_MEMORY)),
                file_bytes: Some(FILE_BYTES),
                processes: Some(PROCESSES),
                ..Limits::default()
            },
            all: Total {
                memory_bytes: memory.map(|bytes| (bytes / 10 * 9).max(LEAST_MEMORY)),
                cpu_milli: std::thread::available_parallelism()
                    .ok()
                    .and_then(|count| u64::try_from(count.get()).ok())
                    .map(|count| count.saturating_mul(900)),
            },
            warm: WARM,
        }
    }
}

/// The machine's memory in bytes: `MemTotal` of `/proc/meminfo`, which counts in KiB.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_machine_is_left_to_its_user() {
        let Shares { one, all, .. } = Shares::default();
        let machine = memory().unwrap();
        assert!(one.memory_bytes.unwrap() <= machine.max(LEAST_MEMORY));
        assert!(all.memory_bytes.unwrap() <= (machine / 10 * 9).max(LEAST_MEMORY));
        let processors = std::thread::available_parallelism().unwrap().get() as u64;
        assert_eq!(all.cpu_milli, Some(processors * 900));
    }
}
