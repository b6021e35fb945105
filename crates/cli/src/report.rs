//! What went wrong, as a message, a hint and an exit code. This is the only place that decides.

use crate::{
    config,
    exit::Exit,
    view::{
        paint::{BAD, TYPE, paint},
        text,
    },
};
use domain::{Reason, failure::chain};
use std::{io, path::PathBuf};

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A provider is configured wrongly.
    #[error(transparent)]
    Provider(#[from] gateway::RouteError),
    /// The ledger refused or failed.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// A node refused or failed.
    #[error(transparent)]
    Node(#[from] server::Error),
    /// The plan that was given is not valid.
    #[error("the plan {} is not valid", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// Why.
        source: domain::plan::Error,
    },
    /// A file cannot be read or written.
    #[error("{doing} {} failed", path.display())]
    File {
        /// What was done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that the command line names cannot be read.
    #[error("{doing} {} failed", path.display())]
    Named {
        /// What was done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key by which SSH clients know that they speak with Skep is none, or cannot be read.
    #[error("reading the key for SSH {} failed", path.display())]
    HostKey {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process that was to hold a sandbox ended before that was ready, without a word of why.
    #[error("the process that was to hold the sandbox ended before it was ready: {how}")]
    Holder {
        /// How, or what it said last.
        how: String,
        /// Of one that was stopped, its id: it is still there.
        stopped: Option<domain::SandboxId>,
    },
    /// A device cannot be given to a sandbox.
    #[error(transparent)]
    Device(#[from] sandbox::devices::Error),
    /// Something is in the way, and is left alone.
    #[error("{message}")]
    Refused {
        /// What is in the way.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A thing that the command needs is not of the kind that it takes.
    #[error("`{id}` is {found}, and `skep {command}` takes {wanted}")]
    WrongKind {
        /// What was given.
        id: String,
        /// What it is.
        found: &'static str,
        /// The command.
        command: &'static str,
        /// What it takes.
        wanted: &'static str,
    },
    /// The operating system refused something that is always there.
    #[error("{doing} failed")]
    System {
        /// What was done.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Nobody reads the output any more.
    #[error("nobody reads the output any more")]
    OutputClosed,
    /// The output cannot be written.
    #[error("the output could not be written")]
    Output(#[source] io::Error),
    /// The program was told to end, and does so at once.
    #[error("ended at once")]
    Quit(Exit),
    /// A patch cannot be written where it should be, and is kept elsewhere.
    #[error("writing {} failed; what was changed is kept in {}", path.display(), kept.display())]
    Kept {
        /// Where it should be.
        path: PathBuf,
        /// Where it is.
        kept: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What another process of Skep reported.
    #[error("{}", .0.message)]
    Told(Box<Report>),
    /// A mistake in Skep.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// Why output could not be written.
    pub(crate) fn of_output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Output(error),
        }
    }
}

/// An error as a person or a script sees it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Report {
    /// What happened, to what.
    pub(crate) message: String,
    /// What belongs to that, line by line: the last lines of what failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) lines: Vec<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
    /// The reason, where the domain has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<Reason>,
    /// In how many seconds it may work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after: Option<u64>,
    /// The name of the exit code.
    #[serde(serialize_with = "name", deserialize_with = "named")]
    pub(crate) exit: Exit,
}

fn name<S: serde::Serializer>(exit: &Exit, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(exit.name())
}

fn named<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Exit, D::Error> {
    let name = <String as serde::Deserialize>::deserialize(from)?;
    // One that ends with the code of a command is not reported.
    Ok(Exit::of_name(&name).unwrap_or(Exit::Failed))
}

impl Report {
    /// The report of an error.
    pub(crate) fn of(error: &Error) -> Self {
        if let Error::Told(report) = error {
            return report.as_ref().clone();
        }
        let (exit, hint, reason) = classified(error);
        let (message, lines) = text::parts(&chain(error));
        Self {
            message,
            lines,
            hint: hint.map(|hint| text::line(&hint)),
            reason,
            retry_after: retry_after(error),
            exit,
        }
    }

    /// Whether there is anything to say: not when the person ended it, or nobody listens.
    pub(crate) const fn is_silent(&self) -> bool {
        matches!(
            self.exit,
            Exit::OutputClosed | Exit::Cancelled | Exit::HungUp | Exit::Terminated
        )
    }

    /// The object for a program, on a line of its own.
    pub(crate) fn object(&self) -> String {
        format!("{}\n", serde_json::json!({ "error": self }))
    }

    /// The lines for a person.
    pub(crate) fn render(&self) -> String {
        let mut out = format!("{} {}\n", paint(BAD, "error:"), self.message);
        for line in &self.lines {
            out.push_str(&format!("  {line}\n"));
        }
        if let Some(hint) = &self.hint {
            out.push_str(&format!("{} {hint}\n", paint(TYPE, "hint:")));
        }
        out
    }
}

/// When to come back where there is too much already, in whole seconds that are enough.
fn retry_after(error: &Error) -> Option<u64> {
    let (Error::Ledger(error) | Error::Node(server::Error::Ledger(error))) = error else {
        return None;
    };
    match error {
        ledger::Error::Busy { retry_after, .. } => {
            u64::try_from(retry_after.as_millis().div_ceil(1_000).max(1)).ok()
        }
        _ => None,
    }
}

type Classified = (Exit, Option<String>, Option<Reason>);

fn classified(error: &Error) -> Classified {
    let hint = |words: &str| Some(words.to_owned());
    match error {
        Error::Usage(_) => (Exit::Usage, hint("`skep --help` shows every command"), None),
        Error::Config(error) => (Exit::Usage, config_hint(error), None),
        Error::Provider(error) => provider(error),
        Error::Ledger(error) => of_ledger(error),
        Error::Node(error) => of_node(error),
        Error::Plan { .. } => of_reason(Reason::PlanInvalid),
        Error::File { source, .. } | Error::System { source, .. } => (
            Exit::Failed,
            match source.kind() {
                io::ErrorKind::StorageFull => hint("free some space, then try again"),
                io::ErrorKind::PermissionDenied => hint("check who owns it and its mode"),
                _ => None,
            },
            None,
        ),
        Error::Named { source, .. } => (
            Exit::Usage,
            match source.kind() {
                io::ErrorKind::PermissionDenied => hint("check who owns it and its mode"),
                _ => hint("check the path"),
            },
            None,
        ),
        Error::HostKey { source, .. } => (
            Exit::Failed,
            match source.kind() {
                io::ErrorKind::PermissionDenied => hint("check who owns it and its mode"),
                _ => hint("remove it: another is made, and clients that use what `skep sandbox ssh-config` printed know that"),
            },
            None,
        ),
        Error::Holder { stopped, .. } => (
            Exit::Failed,
            Some(match stopped {
                Some(id) => format!(
                    "it stays stopped, with its files: `skep sandbox start {id}` tries again; where nobody \
                     killed that process, see whether the machine has enough memory"
                ),
                None => "nothing is left of the sandbox: try again; where nobody killed that process, see \
                         whether the machine has enough memory"
                    .to_owned(),
            }),
            None,
        ),
        Error::Device(error) => {
            use sandbox::devices::Error as E;
            let exit = match error {
                E::Refused { .. } | E::TooMany => Exit::Usage,
                _ => Exit::Unavailable,
            };
            (exit, None, None)
        }
        Error::Refused { hint, .. } => (Exit::Refused, Some(hint.clone()), None),
        Error::WrongKind { id, .. } => (
            Exit::Usage,
            Some(format!("`skep show {id}` shows what it is")),
            None,
        ),
        Error::OutputClosed => (Exit::OutputClosed, None, None),
        Error::Output(source) => (
            Exit::Failed,
            match source.kind() {
                io::ErrorKind::StorageFull => hint("free some space where the output goes"),
                _ => None,
            },
            None,
        ),
        Error::Quit(exit) => (*exit, None, None),
        Error::Kept { .. } => (Exit::Failed, None, None),
        Error::Told(report) => (report.exit, report.hint.clone(), report.reason),
        Error::Internal(_) => of_reason(Reason::Bug),
    }
}

fn of_reason(reason: Reason) -> Classified {
    (
        Exit::of_reason(reason),
        Some(reason.remedy().to_owned()),
        Some(reason),
    )
}

fn config_hint(error: &config::Error) -> Option<String> {
    Some(
        match error {
            config::Error::Unreadable { source, .. } | config::Error::Key { source, .. } => {
                match source.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::IsADirectory => {
                        "see that the path is that of a file"
                    }
                    io::ErrorKind::InvalidData => "write it as text in UTF-8",
                    _ => "check who owns it and its mode",
                }
            }
            config::Error::Line { .. } | config::Error::Value { .. } => {
                "mend that line; docs/configuration.md lists every key"
            }
            config::Error::Variable { .. } => "mend it, or unset it",
            config::Error::NoHome => "set HOME, or name a directory with --data and SKEP_CONFIG",
        }
        .to_owned(),
    )
}

fn provider(error: &gateway::RouteError) -> Classified {
    use gateway::RouteError as E;
    let (exit, hint) = match error {
        E::NoProvider { .. } => (
            Exit::Unavailable,
            "`skep demo` needs no model; `skep doctor` shows which providers are set",
        ),
        E::UnknownProvider { .. } | E::OtherDialect { .. } | E::Ambiguous { .. } => {
            (Exit::Usage, "`skep doctor` shows which providers are set")
        }
        E::NoModel { .. } => (
            Exit::Usage,
            "or set `model` in the configuration, so that every run uses it",
        ),
        E::Invalid { .. } => (
            Exit::Usage,
            "mend it in the configuration or the environment",
        ),
    };
    (exit, Some(hint.to_owned()), None)
}

fn of_node(error: &server::Error) -> Classified {
    use server::Error as E;
    let (exit, hint) = match error {
        E::Ledger(error) => return of_ledger(error),
        E::Git(error) => return of_git(error),
        E::Model(error) | E::JobModel { source: error, .. } => return provider(error),
        E::Replay(error) => return of_replay(error),
        E::Standing(error) => return of_standing(error),
        E::Site(site) if site.is_no_room() => {
            let (exit, _, reason) = of_reason(Reason::Storage);
            return (exit, Some(NO_ROOM.to_owned()), reason);
        }
        E::Sandbox(error) if is_copy(error) => return copy(error),
        E::Prompt => (
            Exit::Usage,
            Some("`skep run \"make the parser accept trailing commas\"`"),
        ),
        E::NothingIntegrated { .. }
        | E::NoDiff { .. }
        | E::NoRound { .. }
        | E::NoRequests
        | E::NotFetched { .. } => (Exit::NotFound, None),
        E::Origin(_)
        | E::NothingUncommitted { .. }
        | E::UnknownForge { .. }
        | E::NothingBeside
        | E::SameName { .. }
        | E::NotAnIssue => (Exit::Usage, None),
        E::Issue { .. } | E::NoIssue { .. } => (Exit::Unavailable, None),
        E::NoCheckout { .. } | E::OtherRepository { .. } => (Exit::Unavailable, None),
        E::NotRetryable { .. } => (
            Exit::Refused,
            Some("`skep show ID` says where it stands; `skep cancel ID` ends it"),
        ),
        E::CheckedOut { .. } | E::Moved { .. } => (Exit::Refused, None),
        E::CommitsLost { .. } => (
            Exit::NotFound,
            Some(
                "the integration branch has them where they were integrated: `git log skep/integration`",
            ),
        ),
        E::Role {
            fault: Some(fault), ..
        } => return of_storage(*fault),
        E::Role { .. } => (
            Exit::Failed,
            Some("`skep show ID` says where the request stands; `skep retry ID` goes on"),
        ),
        E::Ended => return of_reason(Reason::Bug),
        _ => match error.reason() {
            Some(reason) => return of_reason(reason),
            None => (Exit::Failed, None),
        },
    };
    (exit, hint.map(str::to_owned), error.reason())
}

/// What to do where a sandbox would have no room on the disk.
const NO_ROOM: &str = "free some space there: `skep gc` and `skep sandbox destroy ID` give some back; or \
                       name a directory on another disk with `--data` or SKEP_DATA";

fn is_copy(error: &sandbox::Error) -> bool {
    use sandbox::Error as E;
    matches!(
        error,
        E::Carry { .. } | E::CarryEnded { .. } | E::Archive(_)
    )
}

/// What could not be copied.
fn copy(error: &sandbox::Error) -> Classified {
    use sandbox::{Error as E, archive::Error as A};
    let (exit, hint) = match error {
        E::Archive(A::Stream(source)) if source.kind() == io::ErrorKind::BrokenPipe => {
            (Exit::OutputClosed, None)
        }
        E::Archive(A::TooMuch { .. }) => (
            Exit::Failed,
            Some("copy it in parts, or as one archive that is packed inside"),
        ),
        E::Carry { source, .. } | E::Archive(A::Local { source, .. }) => {
            let hint = match source.kind() {
                io::ErrorKind::NotFound => Some("check the path; a directory is not made for it"),
                io::ErrorKind::StorageFull => Some("free some space there, then try again"),
                io::ErrorKind::PermissionDenied => Some("check who owns it and its mode"),
                io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
                    Some("a directory and something else do not replace each other: remove one")
                }
                _ => None,
            };
            (Exit::Failed, hint)
        }
        E::CarryEnded { exit } => {
            let hint = exit
                .limit
                .map(|_| "`[sandbox]` in the configuration has the limits");
            (Exit::Failed, hint)
        }
        _ => (Exit::Failed, None),
    };
    (exit, hint.map(str::to_owned), None)
}

fn of_standing(error: &server::standing::Error) -> Classified {
    use server::standing::Error as E;
    let list = Some("`skep sandbox list` shows what there is");
    let (exit, hint) = match error {
        E::NotFound { .. } | E::Ambiguous { .. } | E::Gone { .. } => (Exit::NotFound, list),
        E::NameTaken { .. } | E::TooMany | E::Stopped { .. } | E::Held { .. } | E::GivenUp => {
            (Exit::Refused, None)
        }
        E::Name { .. } | E::TooLong | E::Dotfiles(_) => (Exit::Usage, None),
        E::Told => (Exit::Failed, Some("run it again")),
        E::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            (Exit::Failed, Some("free some space there, then try again"))
        }
        E::Unable { why, .. } => unable(*why),
        E::Program { code, .. } => (Exit::Of(*code), None),
        E::Refused {
            reason: Some(reason),
            ..
        } => return of_reason(*reason),
        _ => (Exit::Failed, None),
    };
    (exit, hint.map(str::to_owned), None)
}

fn unable(why: server::standing::Unable) -> (Exit, Option<&'static str>) {
    use server::standing::Unable as U;
    match why {
        U::NoSnapshots => (
            Exit::Unavailable,
            Some("`skep doctor` says whether workspaces can be overlays here"),
        ),
        U::NotFound => (
            Exit::NotFound,
            Some("`skep sandbox inspect ID` lists its snapshots"),
        ),
        U::Name => (Exit::Usage, None),
        U::Taken | U::TooMany | U::Busy => (Exit::Refused, None),
        U::Over => (
            Exit::Unavailable,
            Some(
                "`skep sandbox inspect ID` says why; `skep sandbox stop ID` and `skep sandbox start \
                 ID` bring it up again with its files",
            ),
        ),
    }
}

/// What git's own messages already say to do is not said again.
fn of_git(error: &git::Error) -> Classified {
    use git::Error as E;
    let exit = match error {
        E::NotARepository { .. }
        | E::Bare { .. }
        | E::NoCommits { .. }
        | E::NotTrusted { .. }
        | E::Unsupported { .. }
        | E::Open { .. }
        | E::ProgramMissing
        | E::ProgramTooOld { .. }
        | E::NoWorkingTree { .. }
        | E::Unauthorized { .. }
        | E::Unreachable { .. }
        | E::NoRemote { .. }
        | E::EmptyRemote { .. }
        | E::Unsound { .. }
        | E::Silent { .. }
        | E::Fetch { .. } => Exit::Unavailable,
        E::UnknownRevision { .. } | E::NotThere { .. } => Exit::NotFound,
        E::InProgress { .. }
        | E::Interrupted { .. }
        | E::Unmerged { .. }
        | E::Uncommitted { .. }
        | E::ChangesHook { .. }
        | E::Conflicts { .. }
        | E::Diverged { .. }
        | E::Moved { .. } => Exit::Refused,
        _ => Exit::Failed,
    };
    (exit, None, None)
}

fn of_replay(error: &worker::ReplayError) -> Classified {
    use worker::ReplayError as E;
    match error {
        E::Ledger(error) => of_ledger(error),
        E::Diverged(_) => (
            Exit::Diverged,
            Some("the recording, or the agent, is not what it was".to_owned()),
            None,
        ),
        E::Failed(failure) => of_reason(failure.reason),
        E::NotReplayable { .. } | E::NotRecorded(_) => (Exit::Unavailable, None, None),
        E::Cassette(_) => (Exit::Failed, None, None),
    }
}

fn of_ledger(error: &ledger::Error) -> Classified {
    use ledger::Error as E;
    let (exit, hint) = match error {
        E::NotFound { .. } => (Exit::NotFound, Some("`skep list` shows what there is")),
        E::Ambiguous { .. } => (Exit::NotFound, None),
        E::Ended { .. } => (
            Exit::Refused,
            Some("`skep retry ID` begins it anew, with a budget of its own"),
        ),
        E::InHand { .. } => (Exit::Refused, Some("nothing was changed")),
        E::Busy { .. } => (
            Exit::Refused,
            Some("nothing was stored; `[limits]` in the configuration says how much is taken"),
        ),
        E::Illegal(_) => (Exit::Refused, Some("`skep show ID` says where it stands")),
        E::Refused(_) => return of_reason(Reason::BudgetExhausted),
        E::Plan(_) => return of_reason(Reason::PlanInvalid),
        E::KeyTaken { .. } => (Exit::Usage, None),
        E::NewerVersion { .. } => (Exit::Unavailable, None),
        E::CursorExpired { .. } => (Exit::NotFound, None),
        E::NotEmpty(_) => (Exit::Refused, None),
        E::BackingUp => (
            Exit::Refused,
            Some("run it again when the backup has ended"),
        ),
        E::RowsLost { .. } => {
            let (exit, _, reason) = of_reason(Reason::Storage);
            let hint = "move the data directory away; then restore a backup in its place \
                        (`skep ledger restore`), or begin with an empty one";
            return (exit, Some(hint.to_owned()), reason);
        }
        E::NotTakenOver { .. } => (
            Exit::Refused,
            Some(
                "when the other one does not work any more, `skep ledger take-over` lets this one \
                 go on; commands that only look work until then",
            ),
        ),
        E::BackupDamaged(_) => (Exit::Failed, Some("use another backup")),
        E::Storage { kind, .. } => return of_storage(*kind),
        E::BlobMissing { .. } | E::BlobCorrupt { .. } => {
            let (exit, _, reason) = of_reason(Reason::Storage);
            let hint = "`skep ledger check --blobs` says what else is lost; a backup may have it";
            return (exit, Some(hint.to_owned()), reason);
        }
        E::Invalid(_) => (Exit::Usage, None),
        _ => return of_reason(Reason::Bug),
    };
    (exit, hint.map(str::to_owned), None)
}

fn of_storage(kind: ledger::Fault) -> Classified {
    let (exit, _, reason) = of_reason(Reason::Storage);
    (exit, Some(storage_hint(kind).to_owned()), reason)
}

/// What to do about a data directory that cannot be used.
fn storage_hint(kind: ledger::Fault) -> &'static str {
    use ledger::Fault as F;
    match kind {
        F::Full => {
            "free some MB of space on its disk, then try again; `skep ledger prune` gives back what is old, \
             and needs some MB for that"
        }
        F::ReadOnly => {
            "let yourself write the data directory and ledger.db in it (`chmod u+w`), or name \
             another with `--data` or SKEP_DATA"
        }
        F::Damaged => "`skep ledger restore` puts a backup in its place",
        F::Busy => "try again when the other process has ended",
        _ => {
            "see that the data directory (`--data`, SKEP_DATA) is there, is yours and can be written"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::paint::plain;

    #[test]
    fn what_is_wrong_with_the_data_directory_decides_what_to_do() {
        let hints: Vec<&str> = [
            ledger::Fault::Full,
            ledger::Fault::ReadOnly,
            ledger::Fault::Damaged,
            ledger::Fault::Io,
        ]
        .map(storage_hint)
        .into();
        assert!(hints[0].contains("space"));
        assert!(hints[1].contains("--data"));
        assert!(hints[2].contains("backup"));
        assert!(hints[3].contains("--data") && !hints[3].contains("space"));
    }

    #[test]
    fn a_full_disk_has_the_same_remedy_whoever_met_it() {
        let met = |fault| {
            let message = "the worker cannot go on".into();
            Report::of(&Error::Node(server::Error::Role { message, fault }))
        };
        let full = met(Some(ledger::Fault::Full));
        assert!(full.hint.unwrap().contains("free some MB"));
        assert_eq!(full.reason, Some(Reason::Storage));
        assert!(met(None).hint.unwrap().contains("skep retry"));
    }

    fn shown(error: Error) -> String {
        let report = Report::of(&error);
        format!("{}exit {}\n", plain(&report.render()), report.exit.code())
    }

    #[test]
    fn an_error_says_what_happened_and_what_to_do() {
        let errors = [
            Error::Usage("a prompt is needed".into()),
            Error::Config(config::Error::NoHome),
            Error::Provider(gateway::RouteError::NoProvider {
                wanted: "messages".into(),
            }),
            Error::Provider(gateway::RouteError::NoModel {
                provider: "local".into(),
            }),
            Error::Ledger(ledger::Error::NotFound {
                kind: "request",
                name: "r-xyz".into(),
            }),
            Error::Plan {
                path: "plan.toml".into(),
                source: domain::plan::Error::Empty,
            },
            Error::File {
                doing: "reading",
                path: "/x/plan.toml".into(),
                source: io::Error::new(io::ErrorKind::PermissionDenied, "permission denied"),
            },
            Error::WrongKind {
                id: "j-1".into(),
                found: "a job",
                command: "replay",
                wanted: "an attempt",
            },
            Error::Internal("two and two are five".into()),
        ];
        let all: Vec<String> = errors.into_iter().map(shown).collect();
        insta::assert_snapshot!("errors", all.join("\n"));
    }

    #[test]
    fn an_error_cannot_write_to_the_terminal() {
        let shown = shown(Error::Usage("a\u{1b}[2Jb\nc".into()));
        assert!(shown.starts_with("error: ab c\n"), "{shown}");
    }

    #[test]
    fn output_that_nobody_reads_ends_the_program_without_a_word() {
        let error = Error::of_output(io::ErrorKind::BrokenPipe.into());
        assert!(Report::of(&error).is_silent());
        assert_eq!(Report::of(&error).exit.code(), 141);
    }
}
