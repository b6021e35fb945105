//! Who owns a container, a directory or a control group: words that name a process for as long as the machine runs.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

/// Names this process: its number, when it started, and among which processes the number counts.
pub(crate) fn this_process() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let pid = std::process::id();
        let started = start_time(pid).unwrap_or(0);
        format!("{pid}-{started}-{}", processes())
    })
}

/// Whether the process that is named has ended. One that is counted elsewhere is not known to have.
pub(crate) fn has_ended(name: &str) -> bool {
    let mut parts = name.splitn(3, '-').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(started)), Some(Ok(among))) =
        (parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let Ok(pid) = u32::try_from(pid) else {
        return false;
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    among == processes() && is_over(stat, started)
}

/// Whether what the kernel says of a number is not of the process that started then. Where nobody can
/// be asked, as where this process has no descriptor left, the process may live.
fn is_over(stat: io::Result<String>, then: u64) -> bool {
    match stat {
        Ok(stat) => started(&stat) != Some(then),
        Err(error) => {
            error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
        }
    }
}

/// When a process started, in clock ticks since the machine did (field 22 of `/proc/PID/stat`); none
/// of one that has ended, whether it was waited for or not.
fn start_time(pid: u32) -> Option<u64> {
    started(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn started(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    if rest.starts_with(['Z', 'X']) {
        return None;
    }
    rest.split(' ').nth(19)?.parse().ok()
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
pub(crate) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// The number that a process has among those of this one.
pub(crate) fn number_here(process: &OwnedFd) -> Option<u32> {
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
        assert!(!has_ended(own));
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

    #[test]
    fn an_owner_of_whom_nothing_can_be_known_has_not_ended() {
        let error = |errno| Err(io::Error::from_raw_os_error(errno));
        for (errno, over) in [
            (libc::ENOENT, true),
            (libc::ESRCH, true),
            (libc::EMFILE, false),
            (libc::ENOMEM, false),
            (libc::EACCES, false),
        ] {
            assert_eq!(is_over(error(errno), 7), over, "{errno}");
        }
    }

    #[test]
    fn a_process_that_has_ended_owns_nothing_although_nobody_has_waited_for_it() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let options =
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
        assert_eq!(start_time(child.id()), None);
        child.wait().unwrap();
    }
}
