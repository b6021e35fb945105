//! How a sandbox ended that nobody told to end.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::{Exit, Limit, Trouble};

/// How a sandbox ended, for a person who asks why nothing runs in it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct End {
    /// How its first process ended, with the limit that explains that; nothing where nobody knows it, as
    /// of a container that somebody else removed.
    pub exit: Option<Exit>,
    /// What explains it: [`Trouble::Ended`], or the limit's.
    pub trouble: Trouble,
    /// What a person can do about it.
    pub remedy: &'static str,
}

impl End {
    /// By the status of the first process, where it is known, and the limit that explains it.
    pub(crate) fn of(status: Option<ExitStatus>, limit: Option<Limit>) -> Self {
        let trouble = limit.map_or(Trouble::Ended, Trouble::of_limit);
        Self {
            exit: status.map(|status| Exit {
                code: status.code(),
                signal: status.signal(),
                timed_out: false,
                limit,
                refused: None,
            }),
            trouble,
            remedy: trouble.remedy_of_end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_has_the_class_of_the_limit_that_explains_it_and_says_how_the_files_are_had_again() {
        let killed = Some(ExitStatus::from_raw(libc::SIGKILL));
        for (status, limit, trouble) in [
            (killed, None, Trouble::Ended),
            (None, None, Trouble::Ended),
            (killed, Some(Limit::Memory), Trouble::OutOfMemory),
            (killed, Some(Limit::Disk), Trouble::DiskFull),
            (None, Some(Limit::Disk), Trouble::DiskFull),
        ] {
            let end = End::of(status, limit);
            let signal = end.exit.and_then(|exit| exit.signal);
            assert_eq!(signal, status.and_then(|status| status.signal()));
            assert_eq!(
                (end.trouble, end.exit.and_then(|exit| exit.limit)),
                (trouble, limit.and(status).and(limit))
            );
            assert!(end.remedy.contains("`skep sandbox start`"), "{trouble:?}");
        }
    }
}
