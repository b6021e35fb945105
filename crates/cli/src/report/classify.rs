//! With which exit code an error ends the program, and what helps. This is the only place that decides.

use super::Error;
use crate::{config, exit::Exit};
use domain::Reason;
use std::io;

pub(super) type Classified = (Exit, Option<String>, Option<Reason>);

pub(super) fn classified(error: &Error) -> Classified {
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
        E::NotFound { .. } | E::NotWhole { .. } | E::Ambiguous { .. } | E::Gone { .. } => {
            (Exit::NotFound, list)
        }
        E::NameTaken { .. } | E::TooMany | E::Stopped { .. } | E::Held { .. } | E::GivenUp => {
            (Exit::Refused, None)
        }
        E::Name { .. } | E::TooLong | E::Dotfiles(_) => (Exit::Usage, None),
        E::Told => (Exit::Failed, Some("run it again")),
        E::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            (Exit::Failed, Some("free some space there, then try again"))
        }
        E::Record { path, .. } => {
            let id = path.parent().and_then(|it| it.file_name());
            let id = id.unwrap_or_default().to_string_lossy();
            let hint = format!("`skep sandbox destroy {id}` ends it and takes its files away");
            return (Exit::Failed, Some(hint), None);
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
pub(super) fn storage_hint(kind: ledger::Fault) -> &'static str {
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
