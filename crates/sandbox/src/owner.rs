//! Who owns a container or a directory: words that name a process for as long as the machine runs.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::namespace::cgroup::start_time;

/// Names this process: its number, when it started, and among which processes the number counts.
pub(super) fn this_process() -> String {
    let pid = std::process::id();
    let started = start_time(pid).unwrap_or(0);
    format!("{pid}-{started}-{}", processes())
}

/// Whether the process that is named has ended. One that is counted elsewhere is not known to have.
pub(super) fn has_ended(name: &str) -> bool {
    let mut parts = name.splitn(3, '-').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(started)), Some(Ok(among))) =
        (parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let Ok(pid) = u32::try_from(pid) else {
        return false;
    };
    among == processes() && start_time(pid) != Some(started)
}

/// The number of the namespace of processes that this one is in.
fn processes() -> u64 {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let digits: String = link
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse().unwrap_or(0)
}

/// Which run of the machine this is.
pub(super) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// The number that a process has among those of this one.
pub(super) fn number_here(process: &OwnedFd) -> Option<u32> {
    let path = format!("/proc/self/fdinfo/{}", process.as_raw_fd());
    let text = fs::read_to_string(path).ok()?;
    let number = crate::stats::line(&text, "Pid:")?;
    u32::try_from(number).ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_a_living_owner_from_one_that_has_ended() {
        let own = this_process();
        assert!(!has_ended(&own));
        let (pid, rest) = own.split_once('-').unwrap();
        let (started, among) = rest.split_once('-').unwrap();
        let earlier = started.parse::<u64>().unwrap() - 1;
        assert!(has_ended(&format!("{pid}-{earlier}-{among}")));
        assert!(
            !has_ended(&format!("{pid}-{earlier}-1")),
            "counted elsewhere"
        );
        assert!(!has_ended("nonsense"));
    }
}
