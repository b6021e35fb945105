//! What a sandbox has used: by its control group where it has one, else added up from the kernel's list
//! of processes. What cannot be known is left out, and never guessed.

use std::collections::{HashMap, HashSet};
use std::fs;

/// What a sandbox uses, and has used since it was made. What is `None` is not known here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Processor time in milliseconds, of processes that have ended too. Without a control group,
    /// those whose parents do not wait for them are missing.
    pub cpu_millis: Option<u64>,
    /// Memory in use, in bytes.
    pub memory_bytes: Option<u64>,
    /// The most memory that was in use at once, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// Processes and threads, the sandbox's own first process included.
    pub processes: Option<u64>,
    /// What was read from disks, in bytes. What the kernel had in memory does not count.
    pub read_bytes: Option<u64>,
    /// What was written to disks, or is about to be, in bytes.
    pub written_bytes: Option<u64>,
    /// What its files take on disk, in bytes. Who owns the workspace measures that; a kind that owns
    /// it itself says it here.
    pub disk_bytes: Option<u64>,
}

impl Stats {
    /// What this says, and what `other` says where this says nothing.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.or(other.cpu_millis),
            memory_bytes: self.memory_bytes.or(other.memory_bytes),
            peak_memory_bytes: self.peak_memory_bytes.or(other.peak_memory_bytes),
            processes: self.processes.or(other.processes),
            read_bytes: self.read_bytes.or(other.read_bytes),
            written_bytes: self.written_bytes.or(other.written_bytes),
            disk_bytes: self.disk_bytes.or(other.disk_bytes),
        }
    }

    /// Of a sandbox that has ended: what it has used, and nothing that is in use.
    pub(crate) fn after_the_end(self) -> Self {
        Self {
            memory_bytes: None,
            processes: None,
            ..self
        }
    }

    /// Of `first` and all its descendants, as the host sees them. Nothing if it has ended.
    pub(crate) fn of_tree(first: u32) -> Self {
        let mut known = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let Some((pid, process)) = pid.and_then(|pid| Some((pid, Process::read(pid)?))) {
                known.insert(pid, process);
            }
        }
        let ours = descendants(&known, first);
        let Some(ticks) =
            Some(rustix::param::clock_ticks_per_second()).filter(|_| !ours.is_empty())
        else {
            return Self::default();
        };
        let all = || ours.iter().filter_map(|pid| Some((*pid, known.get(pid)?)));
        let cpu: u64 = all().map(|(_, process)| process.ticks).sum();
        let transfers = all().map(|(pid, _)| Transfers::read(pid));
        let transfers: Option<Vec<Transfers>> = transfers.collect();
        let sum =
            |part: fn(&Transfers) -> u64| transfers.as_ref().map(|all| all.iter().map(part).sum());
        Self {
            cpu_millis: Some(cpu.saturating_mul(1000) / ticks.max(1)),
            memory_bytes: Some(all().map(|(pid, process)| process.memory(pid)).sum()),
            peak_memory_bytes: None,
            processes: Some(all().map(|(_, process)| process.threads).sum()),
            read_bytes: sum(|transfers| transfers.read),
            written_bytes: sum(|transfers| transfers.written),
            disk_bytes: None,
        }
    }
}

/// What the kernel says of one process in `/proc/PID/stat`.
struct Process {
    parent: u32,
    /// Processor time, of children that it has waited for too.
    ticks: u64,
    threads: u64,
    resident_pages: u64,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before the last bracket may hold anything; the state, field 3, follows.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(field(4)?).ok()?,
            ticks: field(14)? + field(15)? + field(16)? + field(17)?,
            threads: field(20)?,
            resident_pages: field(24)?,
        })
    }

    /// Its share of memory, in bytes: what several processes share is divided among them. Of one that
    /// lets nobody look into it, all that is resident.
    fn memory(&self, pid: u32) -> u64 {
        let share = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .ok()
            .and_then(|text| line(&text, "Pss:"));
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        share.map_or(self.resident_pages.saturating_mul(page), |kib| {
            kib.saturating_mul(1024)
        })
    }
}

/// What a process has moved from and to disks, with the children that it has waited for.
struct Transfers {
    read: u64,
    written: u64,
}

impl Transfers {
    /// `None` where the kernel does not let this user see it.
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
        Some(Self {
            read: line(&text, "read_bytes:")?,
            written: line(&text, "write_bytes:")?,
        })
    }
}

/// The number on the line that begins with `key`.
pub(crate) fn line(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn descendants(known: &HashMap<u32, Process>, first: u32) -> HashSet<u32> {
    let mut ours = HashSet::new();
    if !known.contains_key(&first) {
        return ours;
    }
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (pid, process) in known {
        children.entry(process.parent).or_default().push(*pid);
    }
    let mut next = vec![first];
    while let Some(pid) = next.pop() {
        if ours.insert(pid) {
            next.extend(children.get(&pid).into_iter().flatten());
        }
    }
    ours
}
