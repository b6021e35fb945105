//! What went wrong, as a message, a hint and an exit code.

mod classify;

use self::classify::classified;
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

#[cfg(test)]
mod tests {
    use super::{classify::storage_hint, *};
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
