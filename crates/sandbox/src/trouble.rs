//! What kind of trouble explains a failure, and what a person can do about it.

use crate::{Call, Error, Exit, Limit, Output};

/// Lines of output that a diagnosis keeps, and their bytes.
const LINES: usize = 50;
const BYTES: usize = 16 * 1024;
/// How a shell says that there is no such program.
pub(crate) const SHELL_NOT_FOUND: i32 = 127;
/// What a shell adds to a signal's number, of one that ended its command.
pub(crate) const SHELL_SIGNALED: i32 = 128;

/// A class of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trouble {
    /// The kernel refuses new namespaces to this user.
    NamespacesOff,
    /// There is no engine of containers.
    EngineMissing,
    /// The engine of containers does not answer.
    EngineUnreachable,
    /// The engine has no such image.
    ImageMissing,
    /// The engine, or what runs its containers, refuses one.
    RuntimeRefuses,
    /// What is configured as an image's name is none.
    ImageName,
    /// An image has no such user.
    UserMissing,
    /// A container beside the sandbox's is not ready in time.
    SidecarNotReady,
    /// There is no such program inside.
    ProgramNotFound,
    /// The limit of memory struck.
    OutOfMemory,
    /// The limit of processes struck.
    TooManyProcesses,
    /// A file became too large.
    FileTooLarge,
    /// A bound on the disk was passed, or the disk is full.
    DiskFull,
    /// The command's time was over.
    OutOfTime,
    /// A call of the kernel was made that ends the caller: one of another architecture.
    ForeignCall,
    /// The command failed after the sandbox refused it a call of the kernel.
    RefusedCall,
    /// The sandbox has ended.
    Ended,
}

impl Trouble {
    /// What a person can do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NamespacesOff => {
                "allow user namespaces to this user; `skep doctor` says which setting forbids them"
            }
            Self::EngineMissing => {
                "install Podman (Debian: `apt-get install podman`), or use the kind `namespace`"
            }
            Self::EngineUnreachable => {
                "start the engine, and see that this user may talk to it; `skep doctor` tries it"
            }
            Self::ImageMissing => {
                "get the image with the engine itself, as by `podman pull`: nothing is downloaded for a job"
            }
            Self::RuntimeRefuses => {
                "try `podman run` by hand; where control groups are not of version 2, install runc and set `runtime = \"runc\"` under `[engine]` in containers.conf"
            }
            Self::ImageName => {
                "write it like `docker.io/library/debian:12`, or `localhost/NAME:TAG` for one that was made here"
            }
            Self::UserMissing => {
                "name a user that the image's `/etc/passwd` has, or a number, in `user` under `[[sandbox.sidecar]]`"
            }
            Self::SidecarNotReady => {
                "see what it printed, and its `command`, `env`, `user` and `ready` under `[[sandbox.sidecar]]`"
            }
            Self::ProgramNotFound => {
                "check the program's name and PATH, and that its toolchain is one that is mounted"
            }
            Self::OutOfMemory => {
                "let the command use less memory, or raise `memory` in `[sandbox]`"
            }
            Self::TooManyProcesses => {
                "let the command start fewer processes, or raise `processes` in `[sandbox]`"
            }
            Self::FileTooLarge => {
                "let the command write smaller files, or raise `file_size` in `[sandbox]`"
            }
            Self::DiskFull => "free some space on the disk, or let the command write less",
            Self::OutOfTime => "give the command more time, or find out what it waits for",
            Self::RefusedCall => "see which call it was, and whether the program can go without it",
            Self::ForeignCall => {
                "programs for 32 bits and those that make calls of another architecture do not run inside: use one for this architecture"
            }
            Self::Ended => Self::Ended.remedy_of_end(),
        }
    }

    /// The same, of a sandbox that has ended: whoever made it by name has its files still.
    pub(crate) fn remedy_of_end(self) -> &'static str {
        match self {
            Self::OutOfMemory => {
                "let what runs in it use less memory, or raise `memory` in `[sandbox]`; `skep sandbox stop` and `skep sandbox start` bring it up again with its files"
            }
            Self::DiskFull => {
                "free some space on the disk; `skep sandbox stop` and `skep sandbox start` bring it up again with its files"
            }
            _ => {
                "`skep sandbox stop` and `skep sandbox start` bring it up again with its files; a job or a shell that used it begins again with another"
            }
        }
    }

    /// The same, of how a command ended: it may name the call that was refused.
    pub(crate) fn remedy_of(self, exit: &Exit) -> &'static str {
        match (self, exit.refused) {
            (Self::RefusedCall, Some(call)) => call.remedy(),
            (trouble, _) => trouble.remedy(),
        }
    }

    /// The same, of a container beside a sandbox's, which has limits and programs of its own.
    pub fn remedy_beside(self) -> &'static str {
        match self {
            Self::OutOfMemory => {
                "raise its `memory` under `[[sandbox.sidecar]]`, or let it use less; what it writes is memory too"
            }
            Self::TooManyProcesses => "raise its `processes` under `[[sandbox.sidecar]]`",
            Self::ProgramNotFound => {
                "see its `command` under `[[sandbox.sidecar]]`, and that its image has the program"
            }
            Self::DiskFull => {
                "what it writes is in memory: raise its `memory` under `[[sandbox.sidecar]]`"
            }
            Self::OutOfTime | Self::FileTooLarge | Self::Ended => Self::SidecarNotReady.remedy(),
            other => other.remedy(),
        }
    }

    /// The class of an error, where it has one.
    pub fn of_error(error: &Error) -> Option<Self> {
        match error {
            Error::NamespacesRefused { .. } => Some(Self::NamespacesOff),
            Error::Engine { trouble, .. } => Some(*trouble),
            Error::Sidecars(_) => Some(Self::SidecarNotReady),
            Error::ImageMissing { .. } => Some(Self::ImageMissing),
            Error::NotFound { .. } => Some(Self::ProgramNotFound),
            Error::TooManyProcesses => Some(Self::TooManyProcesses),
            Error::Struck { limit } => Some(Self::of_limit(*limit)),
            Error::Gone => Some(Self::Ended),
            _ => None,
        }
    }

    pub(crate) fn of_limit(limit: Limit) -> Self {
        match limit {
            Limit::Memory => Self::OutOfMemory,
            Limit::Processes => Self::TooManyProcesses,
            Limit::FileBytes => Self::FileTooLarge,
            Limit::Disk => Self::DiskFull,
        }
    }

    /// The class of a command's end, where it has one. What it printed last may say that the disk is
    /// full, which no exit says.
    pub(crate) fn of_exit(exit: &Exit, output: &[String]) -> Option<Self> {
        if exit.success() {
            return None;
        }
        if let Some(limit) = exit.limit {
            return Some(Self::of_limit(limit));
        }
        if exit.timed_out {
            return Some(Self::OutOfTime);
        }
        match (exit.code, exit.signal) {
            (Some(SHELL_NOT_FOUND), _) => Some(Self::ProgramNotFound),
            (_, Some(libc::SIGSYS)) => Some(Self::ForeignCall),
            _ => output
                .iter()
                .any(|line| line.contains("No space left on device"))
                .then_some(Self::DiskFull)
                .or(exit.refused.map(|_| Self::RefusedCall)),
        }
    }
}

/// What is remembered of the command that ended last.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Last {
    /// How it ended; nothing if it could not be started, or if none has ended yet.
    pub exit: Option<Exit>,
    /// Its last lines, at most 50, if its output was captured: those of its error output at the end.
    pub output: Vec<String>,
    /// What explains its failure, if it failed and something does.
    pub trouble: Option<Trouble>,
    /// What a person can do about that.
    pub remedy: Option<&'static str>,
    /// The calls that the sandbox refused to it, also where it went on without: each once, as they came,
    /// the first eight.
    pub refused: Vec<Call>,
}

impl Last {
    pub(crate) fn ended(exit: Exit, refused: Vec<Call>) -> Self {
        Self::of(exit, refused, Vec::new())
    }

    fn of(exit: Exit, refused: Vec<Call>, output: Vec<String>) -> Self {
        let trouble = Trouble::of_exit(&exit, &output);
        Self {
            exit: Some(exit),
            trouble,
            remedy: trouble.map(|trouble| trouble.remedy_of(&exit)),
            refused,
            output,
        }
    }

    pub(crate) fn refused(error: &Error) -> Self {
        let trouble = Trouble::of_error(error);
        Self {
            trouble,
            remedy: trouble.map(Trouble::remedy),
            ..Self::default()
        }
    }

    /// Whether nothing explains the end of a command better than that a call was refused to it: not the
    /// end itself, nor what was printed last.
    pub(crate) fn is_of_refusal(output: &Output) -> bool {
        let lines = last_lines(&output.stdout.text(), &output.stderr.text());
        Trouble::of_exit(&output.exit, &lines) == Some(Trouble::RefusedCall)
    }

    /// Of a command whose output was captured.
    pub(crate) fn captured(output: &Output, stdout: &str, stderr: &str) -> Self {
        let lines = last_lines(stdout, stderr);
        Self::of(output.exit, output.refused.clone(), lines)
    }
}

fn last_lines(stdout: &str, stderr: &str) -> Vec<String> {
    let mut kept = Vec::new();
    let mut room = BYTES;
    for line in stderr.lines().rev().chain(stdout.lines().rev()).take(LINES) {
        let Some(left) = room.checked_sub(line.len()) else {
            break;
        };
        room = left;
        kept.push(line.to_owned());
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Captured;

    fn exit(code: Option<i32>, signal: Option<i32>) -> Exit {
        Exit {
            code,
            signal,
            timed_out: false,
            limit: None,
            refused: None,
        }
    }

    #[test]
    fn the_last_lines_are_kept_and_no_more() {
        let long: String = (0..100).map(|number| format!("{number}\n")).collect();
        let kept = last_lines(&long, "why\n");
        assert_eq!((kept.len(), kept.last().unwrap().as_str()), (50, "why"));
        assert_eq!(kept.first().unwrap(), "51");
        assert!(last_lines(&"x".repeat(BYTES + 1), "").is_empty());
    }

    /// Every class, and a word of what it says to do.
    const ALL: [(Trouble, &str); 17] = [
        (Trouble::NamespacesOff, "allow user namespaces"),
        (Trouble::EngineMissing, "install Podman"),
        (Trouble::EngineUnreachable, "start the engine"),
        (Trouble::ImageMissing, "get the image"),
        (Trouble::RuntimeRefuses, "install runc"),
        (Trouble::ImageName, "write it like"),
        (Trouble::UserMissing, "name a user"),
        (Trouble::SidecarNotReady, "see what it printed"),
        (Trouble::ProgramNotFound, "check the program's name"),
        (Trouble::OutOfMemory, "raise `memory`"),
        (Trouble::TooManyProcesses, "raise `processes`"),
        (Trouble::FileTooLarge, "raise `file_size`"),
        (Trouble::DiskFull, "free some space"),
        (Trouble::OutOfTime, "give the command more time"),
        (Trouble::ForeignCall, "use one for this architecture"),
        (Trouble::RefusedCall, "see which call it was"),
        (Trouble::Ended, "`skep sandbox start`"),
    ];

    #[test]
    fn each_class_says_what_to_do() {
        assert_eq!(Trouble::Ended as usize + 1, ALL.len(), "it is the last one");
        for (at, (trouble, word)) in ALL.into_iter().enumerate() {
            assert_eq!(trouble as usize, at);
            let remedy = trouble.remedy();
            assert!(remedy.contains(word), "{trouble:?}: {remedy}");
            let beside = trouble.remedy_beside();
            assert!(
                !beside.contains("skep sandbox start"),
                "{trouble:?}: {beside}"
            );
            let same = ALL.iter().filter(|(other, _)| other.remedy() == remedy);
            assert_eq!(same.count(), 1, "{trouble:?} says what another does");
        }
    }

    #[test]
    fn each_limit_has_its_class_and_so_has_each_error_that_has_one() {
        for (limit, trouble) in [
            (Limit::Memory, Trouble::OutOfMemory),
            (Limit::Processes, Trouble::TooManyProcesses),
            (Limit::FileBytes, Trouble::FileTooLarge),
            (Limit::Disk, Trouble::DiskFull),
        ] {
            let ended = Exit {
                limit: Some(limit),
                ..exit(None, Some(9))
            };
            assert_eq!(Trouble::of_exit(&ended, &[]), Some(trouble));
            assert_eq!(Trouble::of_error(&Error::Struck { limit }), Some(trouble));
        }
        let late = Exit {
            timed_out: true,
            ..exit(None, Some(9))
        };
        assert_eq!(Trouble::of_exit(&late, &[]), Some(Trouble::OutOfTime));
        let of = |error: &Error| Trouble::of_error(error);
        assert_eq!(of(&Error::Gone), Some(Trouble::Ended));
        assert_eq!(
            of(&Error::TooManyProcesses),
            Some(Trouble::TooManyProcesses)
        );
        let refused = Error::NamespacesRefused {
            what: String::new(),
            remedy: String::new(),
            source: std::io::ErrorKind::PermissionDenied.into(),
        };
        assert_eq!(of(&refused), Some(Trouble::NamespacesOff));
        for trouble in [Trouble::EngineMissing, Trouble::RuntimeRefuses] {
            assert_eq!(of(&Error::engine(trouble, String::new())), Some(trouble));
        }
    }

    #[test]
    fn each_class_has_a_remedy_and_is_told_by_how_a_command_ended() {
        let of = |exit: Exit, output: &str| {
            let captured = Output {
                exit,
                stdout: Captured::default(),
                stderr: Captured::default(),
                refused: Vec::new(),
            };
            Last::captured(&captured, output, "").trouble
        };
        assert_eq!(of(exit(Some(0), None), "No space left on device"), None);
        assert_eq!(of(exit(Some(1), None), "wrong"), None);
        let full = of(exit(Some(1), None), "cp: x: No space left on device");
        assert_eq!(full, Some(Trouble::DiskFull));
        let missing = of(exit(Some(127), None), "");
        assert_eq!(missing, Some(Trouble::ProgramNotFound));
        let foreign = of(exit(None, Some(libc::SIGSYS)), "");
        assert_eq!(foreign, Some(Trouble::ForeignCall));
        let mount = u32::try_from(libc::SYS_mount).unwrap();
        let refused = Exit {
            refused: Some(Call::new(mount, [0; 2])),
            ..exit(Some(1), None)
        };
        assert_eq!(of(refused, ""), Some(Trouble::RefusedCall));
        assert!(refused.why().unwrap().contains("`mount`"));
        assert_eq!(refused.to_string(), "exit code 1, `mount` refused");
        assert!(
            Trouble::RefusedCall
                .remedy_of(&refused)
                .contains("--nested")
        );
        let full = of(refused, "cp: x: No space left on device");
        assert_eq!(full, Some(Trouble::DiskFull), "what it said is stronger");
        let limit = Some(Limit::Memory);
        let memory = Exit {
            limit,
            ..exit(None, Some(9))
        };
        assert_eq!(of(memory, ""), Some(Trouble::OutOfMemory));
        assert!(Trouble::OutOfMemory.remedy().contains("memory"));
    }
}
