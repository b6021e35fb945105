//! How the program ends: every exit code, in one table.

use domain::{Class, Reason, RequestState};

/// How the program ends. The numbers are a promise to scripts: `docs/exit-codes.md` is this table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked is done.
    Done,
    /// It was tried, and it failed.
    Failed,
    /// The command line, the configuration or `skep.toml` is wrong.
    Usage,
    /// Some of the jobs are integrated, not all.
    Partial,
    /// It cannot work here: no sandbox, no repository, no model, no agent.
    Unavailable,
    /// No such id.
    NotFound,
    /// Refused, so that nothing is lost: uncommitted work, a conflict, a branch that is checked out.
    Refused,
    /// A replay did not do what was recorded.
    Diverged,
    /// A mistake in Skep.
    Internal,
    /// A command inside was ended because its time was over: `skep sandbox exec --timeout`.
    TimedOut,
    /// The terminal was closed (`SIGHUP`).
    HungUp,
    /// Cancelled: `Ctrl-C`, or `skep cancel`.
    Cancelled,
    /// Nobody reads the output any more.
    OutputClosed,
    /// Told to end (`SIGTERM`).
    Terminated,
    /// As a command inside ended: `skep shell`, `skep sandbox exec`.
    Of(u8),
}

impl Exit {
    /// Every way to end, in the order of the codes.
    pub(crate) const ALL: &'static [Self] = &[
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Partial,
        Self::Unavailable,
        Self::NotFound,
        Self::Refused,
        Self::Diverged,
        Self::Internal,
        Self::TimedOut,
        Self::HungUp,
        Self::Cancelled,
        Self::OutputClosed,
        Self::Terminated,
    ];

    /// The number that the shell sees.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::Unavailable => 4,
            Self::NotFound => 5,
            Self::Refused => 6,
            Self::Diverged => 7,
            Self::Internal => 70,
            Self::TimedOut => 124,
            Self::HungUp => 129,
            Self::Cancelled => 130,
            Self::OutputClosed => 141,
            Self::Terminated => 143,
            Self::Of(code) => code,
        }
    }

    /// The word for it, as `--json` shows it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Partial => "partial",
            Self::Unavailable => "unavailable",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::Diverged => "diverged",
            Self::Internal => "internal",
            Self::TimedOut => "timed_out",
            Self::HungUp => "hung_up",
            Self::Cancelled => "cancelled",
            Self::OutputClosed => "output_closed",
            Self::Terminated => "terminated",
            Self::Of(_) => "command",
        }
    }

    /// Of two ways to end, where several things were asked for, the worse one: that the program was told to
    /// end, then a mistake in Skep, what failed, what cannot work here, what was asked wrongly, what was refused,
    /// what is not there.
    pub(crate) const fn or_worse(self, other: Self) -> Self {
        match other.weight() > self.weight() {
            true => other,
            false => self,
        }
    }

    const fn weight(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::NotFound => 1,
            Self::Refused => 2,
            Self::Usage => 3,
            Self::Unavailable => 4,
            Self::Failed | Self::Partial | Self::Diverged | Self::TimedOut | Self::Of(_) => 5,
            Self::Internal => 6,
            Self::HungUp | Self::Cancelled | Self::OutputClosed | Self::Terminated => 7,
        }
    }

    /// The one with this name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|exit| exit.name() == name)
    }

    /// What it means, and what to do.
    #[cfg(test)]
    const fn meaning(self) -> (&'static str, &'static str) {
        match self {
            Self::Done => ("What was asked is done.", "Nothing."),
            Self::Failed => (
                "It was tried and failed: nothing of the request is integrated, or the command could not finish or write its output.",
                "Read the message; `skep show ID` has the evidence.",
            ),
            Self::Usage => (
                "The command line, the configuration, the plan or `skep.toml` is wrong. Nothing was started.",
                "Mend what the message names.",
            ),
            Self::Partial => (
                "Some jobs of the request are integrated, others are not.",
                "`skep show ID` says which and why; `skep retry ID` tries the others again.",
            ),
            Self::Unavailable => (
                "It cannot work here: no sandbox, no image, no git repository, no model, an agent that is not installed.",
                "`skep doctor` says what is missing and how to get it.",
            ),
            Self::NotFound => (
                "Nothing has this id, or several do.",
                "`skep list` shows what there is.",
            ),
            Self::Refused => (
                "Refused, so that nothing is lost: uncommitted work in the way, a conflict, a branch that is checked out, more requests, or more commands in a sandbox, than are taken at a time, a sandbox that is stopped, or runs already, a port that is in use, a restored ledger that waits to be taken over. Or, of `skep egress explain`: it may not leave the sandbox.",
                "Do what the message says, then run the command again.",
            ),
            Self::Diverged => (
                "A replay did not do what was recorded.",
                "The message names the first call and field that differ.",
            ),
            Self::Internal => ("A mistake in Skep.", "Please report it."),
            Self::TimedOut => (
                "The command inside was ended because its time was over (`skep sandbox exec --timeout`), however it ended then.",
                "Give it more time, or ask the command why it takes so long.",
            ),
            Self::HungUp => (
                "The terminal was closed. The request is cancelled.",
                "`skep retry ID` starts it again.",
            ),
            Self::Cancelled => (
                "Cancelled with Ctrl-C or `skep cancel`.",
                "`skep retry ID` starts it again.",
            ),
            Self::OutputClosed => (
                "Nobody reads the output any more, as with `| head`. A request that was running is cancelled.",
                "Nothing.",
            ),
            Self::Terminated => (
                "Told to end (`SIGTERM`). The request is cancelled.",
                "`skep retry ID` starts it again.",
            ),
            Self::Of(_) => ("A command inside ended with this.", "Ask the command."),
        }
    }

    /// How a failure for this reason ends the program.
    pub(crate) const fn of_reason(reason: Reason) -> Self {
        match reason {
            Reason::Cancelled => Self::Cancelled,
            Reason::PolicyInvalid | Reason::PlanInvalid => Self::Usage,
            Reason::Conflict => Self::Refused,
            Reason::SandboxUnavailable
            | Reason::ImageMissing
            | Reason::AgentMissing
            | Reason::Repository => Self::Unavailable,
            _ => match reason.class() {
                Class::Internal => Self::Internal,
                Class::User | Class::Agent | Class::Environment | Class::Provider => Self::Failed,
            },
        }
    }

    /// How the program ends when a command inside, which it stands for, has ended like this.
    pub(crate) fn of_command(exit: sandbox::Exit) -> Self {
        match exit.timed_out {
            true => Self::TimedOut,
            false => Self::Of(exit.shell_code()),
        }
    }

    /// How the program ends when a request has ended like this.
    pub(crate) const fn of_request(state: RequestState) -> Self {
        match state {
            RequestState::Done => Self::Done,
            RequestState::Partial => Self::Partial,
            RequestState::Cancelled => Self::Cancelled,
            _ => Self::Failed,
        }
    }

    /// The page of the documentation that holds the table.
    #[cfg(test)]
    fn page() -> String {
        let mut page = String::from(
            "# Exit codes\n\n\
             Every command of `skep` ends with one of these. Scripts may rely on the numbers; `--json` shows the\n\
             names, in the object that an error prints on standard error.\n\n\
             | code | name | what it means | what to do |\n| ---: | --- | --- | --- |\n",
        );
        for exit in Self::ALL {
            let (meaning, remedy) = exit.meaning();
            page.push_str(&format!(
                "| {} | `{}` | {meaning} | {remedy} |\n",
                exit.code(),
                exit.name()
            ));
        }
        page.push_str(
            "\n`skep shell`, `skep sandbox exec` and `skep sandbox shell` end with the exit code of the command\n\
             inside: 128 and the number of the signal that ended it, 127 if there is no such program, 126 if it\n\
             cannot be started. An error of Skep's own that ends with such a number (126, 127) has\n\
             `\"exit\":\"command\"` in its object. A limit of the sandbox that ended the command (memory, processes,\n\
             the size of a file, the disk) is named on standard error, and by `--json`; one of memory mostly shows\n\
             as 137.\n\n\
             `skep sandbox start`, `stop` and `destroy` of several sandboxes end with the code of the worst that\n\
             became of one: told to end or an output that nobody reads, then 70, then 1, then 4, 2, 6 and 5.\n",
        );
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docs;

    #[test]
    fn the_page_of_exit_codes_is_the_table_of_the_program() {
        docs::is_current("docs/exit-codes.md", &Exit::page());
    }

    #[test]
    fn every_code_is_used_once_and_in_order() {
        assert!(
            Exit::ALL
                .windows(2)
                .all(|pair| pair[0].code() < pair[1].code())
        );
    }

    #[test]
    fn of_several_ways_to_end_the_worst_counts() {
        let ways = [Exit::Done, Exit::Refused, Exit::Failed, Exit::NotFound];
        assert_eq!(
            ways.into_iter().fold(Exit::Done, Exit::or_worse),
            Exit::Failed
        );
        assert_eq!(Exit::Failed.or_worse(Exit::Cancelled), Exit::Cancelled);
    }

    #[test]
    fn a_command_whose_time_was_over_is_told_apart_from_one_that_was_killed() {
        let mut exit = sandbox::Exit {
            code: None,
            signal: Some(9),
            timed_out: false,
            limit: None,
            refused: None,
        };
        assert_eq!(Exit::of_command(exit).code(), 137);
        exit.timed_out = true;
        assert_eq!(Exit::of_command(exit).code(), 124);
        (exit.code, exit.signal) = (Some(0), None);
        assert_eq!(Exit::of_command(exit).code(), 124, "however it ended then");
    }

    #[test]
    fn what_cannot_work_here_is_told_apart_from_what_failed() {
        assert_eq!(
            Exit::of_reason(Reason::SandboxUnavailable),
            Exit::Unavailable
        );
        assert_eq!(Exit::of_reason(Reason::ChecksFailed), Exit::Failed);
        assert_eq!(Exit::of_reason(Reason::Bug), Exit::Internal);
        assert_eq!(Exit::of_reason(Reason::PolicyInvalid), Exit::Usage);
    }
}
